"""Two runs beside each other: which pairs changed, and which principles did it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import rlaif
from rlaif.constitution import Constitution, load_constitution
from rlaif.errors import ConfigError
from rlaif.rundiff import RunDiff, diff
from rlaif.store import RunFolder, encode
from rlaif.types import Message, Record, Response, Verdict

KIND = {"id": "kind", "critique": "Is it unkind?", "revision": "Make it kind.", "judge": "Prefer the kind one."}
TRUE = {"id": "true", "critique": "Is it untrue?", "revision": "Make it true.", "judge": "Prefer the true one."}
PIPELINE = """
name: test
models: {policy: {provider: scripted}, judge: {provider: scripted, script: {skill: 4.0}}}
stages: [{sample: {n: 2}}, {revise: {rounds: 2}}, filter, judge]
"""


def generate(folder: Path, run: str, *principles: dict[str, Any], limit: int = 60, **options: Any) -> rlaif.Result:
    (folder / "pipeline.yaml").write_text(PIPELINE)
    content = {"name": "test", "version": "1", "licence": "CC0-1.0", "principles": list(principles or (KIND, TRUE))}
    (folder / "constitution.yaml").write_text(yaml.safe_dump(content))
    return rlaif.generate(
        str(folder / "pipeline.yaml"),
        constitution=str(folder / "constitution.yaml"),
        limit=limit,
        runs_dir=folder / "runs",
        run=run,
        **options,
    )


def test_a_run_and_itself_agree_in_every_pair(tmp_path: Path) -> None:
    made = generate(tmp_path, "a")
    found = diff(tmp_path / "runs", "a", "a")
    assert (found.both, found.a.alone, found.b.alone) == (60, 0, 0)
    assert found.pairs == {"agree": made.summary["dataset"]["pairs"]}
    assert found.no_pair == 60 - found.pairs["agree"]
    differences = (found.changed, found.new_drafts, found.parts, found.settings, found.constitution, found.examples)
    assert not any(differences)


def test_a_reworded_principle_is_what_all_differences_go_back_to(tmp_path: Path) -> None:
    before = generate(tmp_path, "a").summary
    after = generate(tmp_path, "b", KIND | {"critique": "Is it rude?", "judge": "Prefer the polite one."}, TRUE).summary
    found = diff(tmp_path / "runs", "a", "b")
    assert found.constitution
    assert [(one.principle, one.field) for one in found.constitution.reworded] == [
        ("kind", "critique"),
        ("kind", "judge"),
    ]
    assert found.settings == []
    assert list(found.parts) == ["kind"]
    assert set(found.parts["kind"]) <= {"rounds_other", "verdicts_other"}
    assert found.parts["kind"]["rounds_other"] > 10
    assert found.behind["kind"] == found.changed > 0
    lost, gained = found.pairs["lost"], found.pairs["gained"]
    assert before["dataset"]["pairs"] - lost + gained == after["dataset"]["pairs"]
    assert (found.lost.total(), found.gained.total()) == (lost, gained)
    assert all(cause.principle == "kind" for one in found.examples for cause in one.causes)


def test_a_principle_that_is_added_is_drawn_in_place_of_others(tmp_path: Path) -> None:
    generate(tmp_path, "a")
    generate(tmp_path, "b", KIND, TRUE, KIND | {"id": "calm", "revision": "Make it calm."})
    parts = diff(tmp_path / "runs", "a", "b").parts
    assert set(parts["calm"]) == {"rounds_come", "verdicts_come"}
    for old in ("kind", "true"):
        assert set(parts[old]) == {"rounds_gone", "verdicts_gone"}
    assert parts["calm"]["rounds_come"] == parts["kind"]["rounds_gone"] + parts["true"]["rounds_gone"]


def test_other_settings_are_named_and_other_drafts_blame_no_principle(tmp_path: Path) -> None:
    generate(tmp_path, "a")
    generate(tmp_path, "b", seed=1, set=["export.min_p=0.7"])
    found = diff(tmp_path / "runs", "a", "b")
    assert found.settings == ["export.min_p: 0.65 -> 0.7", "seed: 0 -> 1"]
    assert found.new_drafts == 60
    assert not any(part[what] for part in found.parts.values() for what in ("rounds_other", "verdicts_other"))


def test_prompts_of_one_run_only_are_counted_and_left_out(tmp_path: Path) -> None:
    generate(tmp_path, "a", limit=20)
    generate(tmp_path, "b", limit=30)
    found = diff(tmp_path / "runs", "a", "b")
    assert (found.both, found.a.alone, found.b.alone) == (20, 0, 10)
    assert (found.pairs.total() + found.no_pair, found.changed) == (20, 0)


def test_runs_without_a_prompt_or_a_part_to_compare_are_refused(tmp_path: Path) -> None:
    generate(tmp_path, "a", limit=2)
    (tmp_path / "other.jsonl").write_text(json.dumps({"prompt": "Another question?"}) + "\n")
    generate(tmp_path, "b", limit=2, prompts=str(tmp_path / "other.jsonl"))
    with pytest.raises(ConfigError, match="'a' and 'b' have no prompt in common"):
        diff(tmp_path / "runs", "a", "b")
    with pytest.raises(ConfigError, match=r"no run 'x' .* there are: a, b"):
        diff(tmp_path / "runs", "a", "x")
    for part in (tmp_path / "runs" / "b" / "parts").iterdir():
        part.unlink()
    with pytest.raises(ConfigError, match="run 'b' has no finished part yet"):
        diff(tmp_path / "runs", "a", "b")


def test_the_constitution_that_a_run_keeps_is_the_one_it_was_made_with(tmp_path: Path) -> None:
    generate(tmp_path, "a", limit=2)
    made_with = load_constitution(tmp_path / "constitution.yaml")
    (tmp_path / "constitution.yaml").unlink()
    kept = tmp_path / "runs" / "a" / "constitution.json"
    assert Constitution.model_validate_json(kept.read_bytes()).fingerprint == made_with.fingerprint


def test_where_a_run_kept_no_constitution_its_hash_still_tells(tmp_path: Path) -> None:
    generate(tmp_path, "a", limit=2)
    generate(tmp_path, "b", KIND, limit=2)
    (tmp_path / "runs" / "a" / "constitution.json").unlink()
    found = diff(tmp_path / "runs", "a", "b")
    assert found.constitution is None
    assert [line.partition(":")[0] for line in found.settings] == ["constitution.hash"]
    (tmp_path / "runs" / "a" / "constitution.json").write_text("{")
    with pytest.raises(ConfigError, match=r"constitution\.json is not what rlaif wrote"):
        diff(tmp_path / "runs", "a", "b")


# --- pairs by hand ---


def one(verdicts: list[tuple[int, int, float]], texts: str = "abc") -> Record:
    message = Message("user", "Why?")
    responses = tuple(Response(text, "m") for text in texts)
    said = tuple(Verdict("j", "kind", i, k, p, p, p, True) for i, k, p in verdicts)
    return Record("0" * 16, (message,), responses=responses, verdicts=said, outcome="ok")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one prompt each, made once: their parts are replaced by our own."""
    folder = tmp_path_factory.mktemp("two")
    for run in ("a", "b"):
        generate(folder, run, limit=1)
    return folder / "runs"


def compared(runs: Path, before: Record, after: Record) -> RunDiff:
    for run, record in (("a", before), ("b", after)):
        RunFolder(runs, run).write_part(0, [encode(record)])
    return diff(runs, "a", "b")


CLEAR = one([(0, 1, 0.9), (0, 2, 0.95), (1, 2, 0.8)])  # a beats c
BECAME: list[tuple[str, Record, tuple[str, str] | None]] = [
    ("flipped", one([(0, 1, 0.1), (0, 2, 0.05), (1, 2, 0.2)]), ("c", "a")),
    ("other_chosen", one([(0, 1, 0.1), (0, 2, 0.95), (1, 2, 0.95)]), ("b", "c")),
    ("other_rejected", one([(0, 1, 0.95), (0, 2, 0.9), (1, 2, 0.2)]), ("a", "b")),
    ("lost", one([(0, 1, 0.5), (0, 2, 0.5), (1, 2, 0.5)]), None),
]


@pytest.mark.parametrize(("fate", "after", "pair"), BECAME)
def test_what_became_of_a_pair_is_told_by_its_winner_and_loser(
    two: Path, fate: str, after: Record, pair: tuple[str, str] | None
) -> None:
    found = compared(two, CLEAR, after)
    assert (found.pairs, found.new_texts[found.examples[0].fate]) == ({fate: 1}, 0)
    assert found.parts["kind"].keys() == {"verdicts_other"}
    assert [(one.fate, one.before, one.after) for one in found.examples] == [(fate, ("a", "c"), pair)]
    assert found.lost.total() == (fate == "lost")


def test_a_pair_of_other_texts_in_the_same_places_agrees_and_is_new(two: Path) -> None:
    found = compared(two, CLEAR, one([(0, 1, 0.9), (0, 2, 0.95), (1, 2, 0.8)], "abx"))
    assert (found.pairs, found.new_texts, found.new_drafts) == ({"agree": 1}, {"agree": 1}, 1)
    assert [(example.before, example.after) for example in found.examples] == [(("a", "c"), ("a", "x"))]
    assert not found.parts
