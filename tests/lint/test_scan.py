"""A scan counts what a slow count counts, whatever the rows hold and however many processes look at them."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.errors import ConfigError
from rlaif.foreign.shapes import Shape
from rlaif.lint import report as report_module
from rlaif.lint import scan as scan_module
from rlaif.lint.facts import Ways, facts
from rlaif.lint.report import as_json, linted
from tests.lint import reference
from tests.lint.made import counts, lint, named, text_pair, write

WORDS = st.sampled_from(
    ["Elm", "elm ", "an  elm", "a n elm", "Ash!", "", " ", "\u00dc", "- **oak**", "I'm sorry, I can't."]
)
TEXTS = st.lists(WORDS, max_size=3).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=30)


def folder_of(train: list[reference.Pair], test: list[reference.Pair], folder: Path) -> str:
    names = ("prompt", "chosen", "rejected")
    for split, pairs in (("train", train), ("test", test)):
        if pairs:
            write(folder / f"{split}.jsonl", [dict(zip(names, pair, strict=True)) for pair in pairs])
    return str(folder)


@settings(max_examples=60)
@given(train=PAIRS, test=PAIRS)
def test_counts_are_those_of_a_slow_reference(train: list[reference.Pair], test: list[reference.Pair]) -> None:
    with tempfile.TemporaryDirectory() as name:
        report = linted(folder_of(train, test, Path(name)))
    rows = [*train, *test]
    found = counts(report)
    twins = reference.twins([("train", train), ("test", test)])
    rules = {"prompts": "duplicate_prompts", "pairs": "duplicate_pairs", "conflicts": "conflicting_labels",
             "shared": "shared_prompts"}  # fmt: skip
    assert {kind: found.get(rule, 0) for kind, rule in rules.items()} == twins
    assert found.get("identical", 0) == sum(chosen.strip() == rejected.strip() for _, chosen, rejected in rows)
    assert found.get("empty_response", 0) == sum(
        not chosen.strip() or not rejected.strip() for _, chosen, rejected in rows
    )
    assert found.get("empty_prompt", 0) == sum(not prompt.strip() for prompt, _, _ in rows)
    sides = [(chosen, rejected) for _, chosen, rejected in rows]
    assert report.lengths.longer is not None
    assert report.lengths.longer.value == pytest.approx(reference.longer(sides))
    assert report.lengths.auc == pytest.approx(reference.auc(sides))
    assert report.lengths.mean_chosen == pytest.approx(sum(len(chosen) for chosen, _ in sides) / len(sides))
    bold = report.formats["bold"]
    assert bold.chosen is not None
    assert bold.chosen.value == pytest.approx(sum("**oak**" in chosen for chosen, _ in sides) / len(sides))
    only = [("**oak**" in chosen) for chosen, rejected in sides if ("**oak**" in chosen) != ("**oak**" in rejected)]
    assert (bold.telling.n if bold.telling else 0) == len(only)
    assert bold.telling is None or bold.telling.value == pytest.approx(sum(only) / len(only))


def a_dataset(folder: Path, rows: int = 3000) -> str:
    """Rows that break many rules, in two splits."""
    chance = Random("scan")
    for split, n in (("train", rows), ("test", rows // 10)):
        made = []
        for _ in range(n):
            row = text_pair(chance.randrange(2 * rows))
            match chance.randrange(8):
                case 0:
                    row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
                case 1:
                    row["rejected"] = ""
                case 2:
                    row["chosen"] = "I'm sorry, but I can't help with that."
                case 3:
                    row["chosen"] = "# Trees\n- **elm** \U0001f333\n- `ash`"
                case 4:
                    row["rejected"] = 7
            row["category"] = chance.choice(["trees", "shrubs"])
            made.append(row)
        write(folder / f"{split}.jsonl", made)
    return str(folder)


def figures(address: str, processes: int) -> Any:
    """The whole report, as JSON has it."""
    return msgspec.to_builtins(linted(address, processes=processes))


def test_any_number_of_processes_and_parts_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = a_dataset(tmp_path)
    whole = figures(address, processes=1)
    monkeypatch.setattr(scan_module, "_PART", 50_000)
    assert figures(address, processes=1) == whole
    monkeypatch.setattr(scan_module, "_BLOCK", 7)
    assert figures(address, processes=1) == whole
    assert figures(address, processes=2) == whole
    assert {one["rule"] for one in whole["findings"]} >= {"not_text", "empty_response", "duplicate_pairs"}


def test_what_cannot_be_read_on_ends_the_scan_in_any_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "_PART", 1000)
    for name in ("a", "b"):
        path = tmp_path / f"train-{name}.jsonl.gz"
        path.write_bytes(gzip.compress(f"{json.dumps(text_pair(0))}\n".encode() * 5000)[: -9 if name == "b" else None])
    for processes in (1, 2):
        with pytest.raises(ConfigError, match=r"train-b\.jsonl\.gz: cannot be read further"):
            linted(str(tmp_path), processes=processes)


def test_a_packed_file_says_the_same_as_a_plain_one(tmp_path: Path) -> None:
    address = a_dataset(tmp_path / "plain", rows=300)
    data = (tmp_path / "plain" / "train.jsonl").read_bytes()
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(gzip.compress(data))
    assert counts(linted(str(packed))) == counts(linted(address, split="train"))


def test_parquet_says_the_same_as_jsonl(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [text_pair(i % 70, category=str(i % 3)) for i in range(100)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet", row_group_size=30)
    assert counts(linted(str(tmp_path / "train.parquet"))) == counts(lint(tmp_path, rows))


def test_what_takes_long_is_looked_for_in_a_sample_of_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [text_pair(i, chosen=f"Go round number {i}, " * 60) for i in range(800)]
    assert named(lint(tmp_path, rows), "repetition").estimate is False
    monkeypatch.setattr(report_module, "SAMPLE", 100)
    report = lint(tmp_path, rows)
    finding = named(report, "repetition")
    assert finding.estimate
    assert finding.count == finding.n == report.looked
    assert 0 < report.looked < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
SHAPES = [
    Shape("paired", "messages", "prompt", "messages", chosen="chosen", rejected="rejected", margin="margin"),
    Shape("paired", "text", chosen="chosen", rejected="rejected"),
    Shape("paired", "transcript", chosen="chosen", rejected="rejected"),
    Shape("unpaired", "messages", "prompt", "messages", completion="chosen", label="label"),
    Shape("unpaired", "text", "prompt", "text", completion="chosen", label="label", category="prompt"),
]
COLUMNS = st.sampled_from(["prompt", "chosen", "rejected", "label", "margin"])


@given(values=st.dictionaries(COLUMNS, JSON), shape=st.sampled_from(SHAPES))
def test_no_row_is_too_odd(values: dict[str, Any], shape: Shape) -> None:
    found, _ = facts(values, Ways(shape, 10))
    assert all(0 <= value < 2**64 for value in found)


@settings(max_examples=60)
@given(rows=st.lists(st.dictionaries(COLUMNS, JSON), max_size=6))
def test_no_dataset_is_too_odd(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        report = linted(write(Path(name) / "train.jsonl", [text_pair(0), *rows]))
    assert report.rows == 1 + len(rows)
    assert json.loads(as_json(report))["rows"] == report.rows


def test_a_limit_reads_the_first_rows_of_each_file(tmp_path: Path) -> None:
    assert linted(a_dataset(tmp_path), limit=10).splits == {"train": 10, "test": 10}


def test_the_public_part_of_hh_has_the_dirt_that_is_known_of_it(public_data: Callable[[str], Path]) -> None:
    path = public_data("hh_harmless_test_part.jsonl.gz")
    report = linted(str(path))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert report.rows == len(rows) == 899
    found = [last_turns(row) for row in rows]
    empty = [i for i, (_, chosen, _, rejected) in enumerate(found, 1) if not chosen or not rejected]
    differ = [i for i, (before, _, other, _) in enumerate(found, 1) if before != other]
    assert (len(empty), len(differ)) == (2, 2)
    for rule, numbers in (("empty_response", empty), ("prefix_mismatch", differ)):
        finding = named(report, rule)
        assert finding.level == "error"
        assert finding.count == 2
        assert [row.place for row in finding.rows] == [f"test row {i}" for i in numbers]
    sides = [(chosen, rejected) for before, chosen, other, rejected in found if before == other]
    share = report.lengths.longer
    assert share is not None
    assert share.value == pytest.approx(reference.longer(sides), abs=2.1 / 899)  # what differs in the midst is not cut
    assert share.low < 0.5
    assert set(counts(report)) >= {"transcript", "refusal_chosen", "refusal_rejected"}


def last_turns(row: dict[str, str]) -> tuple[str, str, str, str]:
    """What is before the last answer, and the answer, of both sides."""
    before, _, chosen = row["chosen"].rpartition("\n\nAssistant:")
    other, _, rejected = row["rejected"].rpartition("\n\nAssistant:")
    return before, chosen.strip(), other, rejected.strip()
