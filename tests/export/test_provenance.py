"""Every row of every dataset leads back to its record and what was said there; and comes out the same again."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from pyarrow import parquet

import rlaif
from rlaif.api import export
from rlaif.backends.scripted import ScriptedBackend
from rlaif.cli.pairs import NO_PAIR
from rlaif.export.pairs import NoPair
from rlaif.export.provenance import exported_with, made_of
from rlaif.export.ratings import floor_of
from rlaif.export.settings import Config, ExportSettings
from rlaif.store import RunFolder
from rlaif.types import Completion, Record, Request
from tests.export.made import record

PIPELINE = """
name: all
constitution: safety
prompts: {path: redteam}
models:
  policy: {provider: scripted, script: {refusal_rate: 0.1, seed: 5}}
  judge: {provider: scripted, script: {position_bias: 1}}
stages:
  - sample: {n: 3}
  - revise: {rounds: 2}
  - filter: {rules: [empty, refused]}
  - judge: {comparisons: [all, revisions], principles: all, by: [pairwise, listwise]}
  - rate: {principles: draw}
export:
  pairs: [best_vs_worst, revision_vs_original]
  ties: soft
  quality_floor: 0.1
  max_pairs_per_prompt: 3
  test_fraction: 0.3
  sft: [revisions, chosen, drafts]
"""


def make(runs: Path, name: str = "all", **options: Any) -> RunFolder:
    (runs / "all.yaml").write_text(PIPELINE)
    rlaif.generate(
        str(runs / "all.yaml"), constitution="helpful-honest-harmless", limit=12, run=name, runs_dir=runs, **options
    )
    return RunFolder(runs, name)


def rows(dataset: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(dataset.glob("*/*.parquet")):
        found.setdefault(path.parent.name, []).extend(parquet.read_table(path, partitioning=None).to_pylist())
    return found


def turns(record: Record) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in record.prompt]


def responses_of(row: Mapping[str, Any], prompt: list[dict[str, str]]) -> list[str]:
    """What it says that a model said; `reward` has whole conversations."""
    said = [row[name] for name in ("chosen", "rejected", "completion") if name in row]
    assert all(turns[: len(prompt)] == prompt for turns in said if len(turns) > 1)
    return [turns[-1]["content"] for turns in said]


def test_every_row_of_every_dataset_leads_back(tmp_path: Path) -> None:
    folder = make(tmp_path)
    records = {one.id: one for one in folder.records()}
    found = rows(folder.dataset)
    assert found.keys() == set(get_args(Config))
    settings = exported_with(folder.dataset)
    assert settings is not None
    assert settings.ties == "soft"
    floor = floor_of(folder.records, settings.quality_floor)
    all_made = {one.id: made_of(one, settings, floor, folder.dataset) for one in records.values()}
    for config, some in found.items():
        for row in some:
            one = records[row["id"]]
            assert row.get("prompt", turns(one)) == turns(one)
            assert row["category"] == one.category
            by_text = {response.text: i for i, response in enumerate(one.responses)}
            said = [by_text[text] for text in responses_of(row, turns(one))]
            made = all_made[one.id]
            if config in ("preference", "preference_soft"):
                known = made.pairs if config == "preference" else made.pairs + made.ties
                (pair,) = [one for one in known if [one.pair.chosen, one.pair.rejected] == said]
                assert pair.exported
                assert row["p"] == pair.pair.soft_label
                verdicts = [one.verdicts[i] for i in pair.verdicts]
                assert verdicts
                assert {verdict.judge for verdict in verdicts} >= set(row["judges"])
                assert {verdict.principle for verdict in verdicts} >= set(row["principles"])
                assert any(verdict.replies for verdict in one.verdicts)
            if config == "sft":
                assert one.responses[said[0]].principle == row["principle"]
            if config == "scores":
                of_it = [score for score in one.scores if score.response == said[0] and score.value is not None]
                assert [(s["judge"], s["value"]) for s in row["scores"]] == [(s.judge, s.value) for s in of_it]
    for one in records.values():
        made = all_made[one.id]
        of_it = {config: sum(row["id"] == one.id for row in some) for config, some in found.items()}
        counted = dict.fromkeys(found, 0)
        for name, n in made.rows.items():
            counted[name.split()[0]] += n
        assert counted == of_it
        assert bool(made.pairs) == (of_it["preference"] > 0)
        assert made.pairs or made.no_pair


def test_every_reason_for_no_pair_is_said_in_words() -> None:
    assert NO_PAIR.keys() == set(get_args(NoPair))


def test_a_pair_that_was_left_out_and_a_dataset_without_pairs_are_told_apart(tmp_path: Path) -> None:
    one = record(["a", "b"], [(0, 1, 0.9, 0.9)])
    made = made_of(one, ExportSettings(), None, tmp_path)
    assert [pair.exported for pair in made.pairs] == [None]
    (tmp_path / "preference").mkdir()
    made = made_of(one, ExportSettings(), None, tmp_path)
    assert [(pair.verdicts, pair.exported) for pair in made.pairs] == [((0,), False)]
    assert made.rows == {}
    assert exported_with(tmp_path) is None


def digests(dataset: Path) -> dict[str, str]:
    paths = sorted(dataset.rglob("*.parquet"))
    return {str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def tables(dataset: Path) -> dict[str, pa.Table]:
    return {
        str(path.relative_to(dataset)): parquet.read_table(path, partitioning=None)
        for path in dataset.rglob("*.parquet")
    }


def test_the_same_journal_and_settings_give_the_same_rows_in_whatever_order_the_answers_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported twice, made anew from the journal, and made elsewhere by answers that came at other times."""
    come: list[str] = []
    chance = random.Random(0)
    answer = ScriptedBackend.complete

    async def late(self: ScriptedBackend, request: Request) -> Completion:
        completion = await answer(self, request)
        await asyncio.sleep(chance.random() / 50)
        come.append(request.key().hex())
        return completion

    monkeypatch.setattr(ScriptedBackend, "complete", late)
    folder = make(tmp_path)
    first, order = digests(folder.dataset), list(come)
    before = tables(folder.dataset)
    assert len(first) == 2 * len(get_args(Config))
    export("all", runs_dir=tmp_path)
    assert digests(folder.dataset) == first
    make(tmp_path, rebuild=True)
    assert come == order
    assert digests(folder.dataset) == first
    come.clear()
    (tmp_path / "elsewhere").mkdir()
    other = make(tmp_path / "elsewhere", set=["window=3"])
    assert sorted(set(come)) == sorted(set(order))
    assert come != order
    assert digests(other.dataset) == first
    assert all(table.equals(before[name]) for name, table in tables(other.dataset).items())
