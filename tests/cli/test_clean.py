"""`rlaif clean` writes the rows that stay as they were, and says of the others why they went."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from rlaif.foreign.read import open_dataset
from tests.cli.command import Command

GOOD = {"prompt": "How do I ask?", "chosen": "Kindly.", "rejected": "Loudly.", "score": 1, "tags": ["a"]}
ROWS = [
    GOOD,
    GOOD | {"prompt": "Why?", "score": 2.5},
    GOOD | {"score": 9},
    GOOD | {"chosen": ""},
    GOOD | {"prompt": "Who?", "chosen": "As an AI developed by OpenAI, I know."},
    {"prompt": "When?", "chosen": "Now.", "rejected": "now. "},
]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path.name


def rows_in(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    table = parquet.read_table(folder / "data" / f"{split}-00000-of-00001.parquet")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_what_stays_is_unchanged_and_what_goes_is_told(rlaif: Command) -> None:
    name = write(rlaif.folder / "pairs.jsonl", ROWS)
    done = rlaif("clean", name, "--to", "out", columns=140)
    assert done.code == 0, done.err
    assert "train: 2 of 6 rows stay" in done.out
    for reason in ("duplicate", "empty", "self_identification", "identical_pair"):
        assert reason in done.out
    assert "As an AI developed by OpenAI" in done.out
    out = rlaif.folder / "out"
    assert rows_in(out) == ROWS[:2]
    dropped = [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]
    assert [(row["reason"], row["where"]) for row in dropped] == [
        ("duplicate", "pairs.jsonl:3"),
        ("empty", "pairs.jsonl:4"),
        ("self_identification", "pairs.jsonl:5"),
        ("identical_pair", "pairs.jsonl:6"),
    ]
    assert dropped[1]["because"] == "chosen"
    assert dropped[2]["chosen"] == "As an AI developed by OpenAI, I know."
    card = (out / "README.md").read_text()
    assert "| `train` | 6 | 2 |" in card
    assert str(rlaif.folder) not in card + (out / "dropped.jsonl").read_text()
    assert [row.values["prompt"] for row in open_dataset(str(out)).rows()] == ["How do I ask?", "Why?"]


def test_columns_types_and_splits_of_a_folder_are_kept(rlaif: Command) -> None:
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    fields = [("prompt", pa.list_(turn)), ("chosen", pa.list_(turn)), ("rejected", pa.list_(turn)), ("n", pa.int16())]
    schema = pa.schema(fields, metadata={"kept": "yes"})

    def row(i: int, chosen: str) -> dict[str, Any]:
        says = {"prompt": f"Question {i}?", "chosen": chosen, "rejected": "No."}
        asked = {side: [{"role": "assistant", "content": said}] for side, said in says.items()}
        return asked | {"prompt": [{"role": "user", "content": says["prompt"]}], "n": i}

    (rlaif.folder / "in").mkdir()
    for split, count in {"train": 1500, "test": 3}.items():
        table = pa.Table.from_pylist([row(i, "Yes." if i else "Human: yes") for i in range(count)], schema=schema)
        parquet.write_table(table, rlaif.folder / "in" / f"{split}-00000-of-00001.parquet")
    done = rlaif("clean", "in", "--to", "out")
    assert done.code == 0, done.err
    assert "train: 1,497 of 1,500 rows stay" in done.out
    assert "test: 2 of 3 rows stay" in done.out
    kept = parquet.read_table(rlaif.folder / "out/data/train-00000-of-00001.parquet")
    assert kept.schema.equals(parquet.read_schema(rlaif.folder / "in/test-00000-of-00001.parquet"), check_metadata=True)
    assert kept.to_pylist() == [row(i, "Yes.") for i in range(3, 1500)]  # what test has stays there
    assert rows_in(rlaif.folder / "out", "test") == [row(i, "Yes.") for i in (1, 2)]
    assert open_dataset(str(rlaif.folder / "out")).splits == ("train", "test")


def test_types_of_what_save_to_disk_made_are_kept(rlaif: Command) -> None:
    import datasets

    turn = [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    old = datasets.Sequence({"role": datasets.Value("string"), "content": datasets.Value("string")})
    features = datasets.Features(
        {"chosen": turn, "rejected": old, "n": datasets.Value("int32"), "kind": datasets.ClassLabel(names=["a", "b"])}
    )
    asked = {"role": "user", "content": "Why?"}
    says = {side: [asked, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    columns = {name: [turn[name] for turn in says["rejected"]] for name in ("role", "content")}
    made = datasets.Dataset.from_list([says | {"rejected": columns, "n": 7, "kind": 1}], features=features)
    made.save_to_disk(str(rlaif.folder / "saved"))
    done = rlaif("clean", "saved", "--to", "out")
    assert done.code == 0, done.err
    table = parquet.read_table(rlaif.folder / "out/data/train-00000-of-00001.parquet")
    assert table.schema.field("n").type == pa.int32()
    assert table.to_pylist() == [says | {"n": 7, "kind": 1}]
    again = datasets.Dataset.from_parquet(str(rlaif.folder / "out/data/train-00000-of-00001.parquet"))
    assert again.features["kind"].names == ["a", "b"]


def test_labelled_answers_and_transcripts_are_cleaned(rlaif: Command) -> None:
    rows = [{"prompt": "Why?", "completion": f"{i % 2}.", "label": i < 2} for i in range(4)]
    done = rlaif("clean", write(rlaif.folder / "kto.jsonl.gz", rows), "--to", "kto")
    assert done.code == 0, done.err
    assert rows_in(rlaif.folder / "kto") == rows[:2]
    asked = "\n\nHuman: Why?\n\nAssistant:"
    talks = [
        {"chosen": f"{asked} So.", "rejected": f"{asked} Not so."},
        {"chosen": f"{asked} So.", "rejected": f"{asked}"},
        {"chosen": "\n\nHuman: Who?\n\nAssistant: He.", "rejected": f"{asked} She.\n\nHuman: No.\n\nAssistant: He."},
        {"chosen": "\n\nHuman: Who?\n\nAssistant: He.", "rejected": f"{asked} She."},
    ]
    done = rlaif("clean", write(rlaif.folder / "talks.jsonl", talks), "--to", "talks", "--set", "malformed=true")
    assert done.code == 0, done.err
    assert rows_in(rlaif.folder / "talks") == talks[:1]


def test_settings_choose_the_filters_and_test_items_are_read(rlaif: Command) -> None:
    item = "A train leaves the station at nine and travels at sixty miles an hour to York"
    write(rlaif.folder / "test.jsonl", [{"question": item}])
    name = write(rlaif.folder / "pairs.jsonl", [*ROWS, GOOD | {"prompt": f"{item}: when does it arrive?"}])
    options = ["empty=false", "exact=false", "identical=false", "leaks=[]", "evals=[test.jsonl#question]"]
    done = rlaif("clean", name, "--to", "out", *(part for option in options for part in ("--set", option)))
    assert done.code == 0, done.err
    assert "contaminated" in done.out
    assert "100% of test.jsonl:1" in done.out
    assert [row["prompt"] for row in rows_in(rlaif.folder / "out")] == [row["prompt"] for row in ROWS]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ROWS, ["--set", "dupes=true"], "--set dupes: unknown; there are: empty, identical"),
        (ROWS, ["--set", "near=0.2"], "--set near: Input should be greater than or equal to 0.7"),
        (ROWS, ["--set", "evals=[none.jsonl]"], "none.jsonl: no such file of test items"),
        ([{"a": 1}], [], "no preference data in the columns a"),
        ([GOOD | {"chosen": " "}], [], "no row of 1 stays: 1 empty"),
        ([GOOD, GOOD | {"score": {"x": 1}}], [], "a column has values of several types"),
        ([GOOD | {"score": 2**70}], [], "or that Parquet has no type for"),
        ([GOOD | {"meta": {}}], [], "a column cannot be written as Parquet"),
        ([GOOD | {"score": 0.5}, GOOD | {"prompt": "Why?", "score": 2**62 + 1}], [], "of several types"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    rlaif: Command, rows: list[dict[str, Any]], options: list[str], message: str
) -> None:
    done = rlaif("clean", write(rlaif.folder / "in.jsonl", rows), "--to", "out", *options)
    assert done.code == 2
    assert message in done.err
    assert not (rlaif.folder / "out").exists()


def test_another_cleaning_replaces_its_folder_and_no_other(rlaif: Command) -> None:
    name = write(rlaif.folder / "pairs.jsonl", ROWS)
    assert rlaif("clean", name, "--to", "out").code == 0
    assert rlaif("clean", name, "--to", "out", "--set", "leaks=[]").code == 0
    assert len(rows_in(rlaif.folder / "out")) == 3
    (rlaif.folder / "mine").mkdir()
    (rlaif.folder / "mine/notes.txt").write_text("notes")
    done = rlaif("clean", name, "--to", "mine")
    assert done.code == 2
    assert "mine is not a dataset that rlaif wrote" in done.err
    assert (rlaif.folder / "mine/notes.txt").read_text() == "notes"
    done = rlaif("import", name, "--to", "out")
    assert done.code == 2
    assert "out was written by `rlaif clean`; name another folder" in done.err


def test_an_interrupted_cleaning_says_that_it_starts_over(rlaif: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rlaif.cleaning._card", interrupted)  # the last step
    done = rlaif("clean", write(rlaif.folder / "pairs.jsonl", ROWS), "--to", "out")
    assert (done.code, done.err) == (130, "interrupted: nothing was written; the same command starts over\n")
    assert not (rlaif.folder / "out").exists()


def test_broken_lines_go_and_the_rest_stays(rlaif: Command) -> None:
    name = rlaif.write("pairs.jsonl", f"{json.dumps(GOOD)}\n{{broken\n")
    done = rlaif("clean", name, "--to", "out", "--set", "malformed=false")
    assert done.code == 0, done.err
    assert "malformed" in done.out
    assert rows_in(rlaif.folder / "out") == [GOOD]


def test_text_of_the_data_moves_no_cursor(rlaif: Command) -> None:
    name = write(rlaif.folder / "pairs.jsonl", [GOOD, GOOD | {"prompt": "\x1b[2J[red]?", "chosen": ""}])
    done = rlaif("clean", name, "--to", "out")
    assert "\x1b" not in done.out
    assert "\\x1b[2J[red]?" in done.out
