"""A dataset is opened by its address, wherever it lies, and gives the same rows whole or in shares."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from rlaif.errors import ConfigError
from rlaif.export import About, ExportSettings, export_dataset
from rlaif.foreign.arrow import table_rows
from rlaif.foreign.read import open_dataset
from tests.export.made import run
from tests.foreign.made import jsonl, table, turns

ROWS = [{"prompt": f"Question {i}?", "chosen": f"Good {i}.", "rejected": f"Bad {i}."} for i in range(50)]


def prompts(address: Path | str, config: str | None = None, split: str | None = None) -> list[tuple[str, str]]:
    return [(row.split, row.values["prompt"]) for row in open_dataset(str(address), config, split).rows()]


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.parquet", "a.csv", "a.json", "a.json.gz", "lines.json"]
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("a.json") and "jsonl" not in name:
        jsonl(path, [])
        path.write_bytes(json.dumps(ROWS, indent=1).encode())
        if name.endswith(".gz"):
            import gzip

            path.write_bytes(gzip.compress(path.read_bytes()))
    elif name.endswith(".csv"):
        path.write_text("prompt,chosen,rejected\n" + "".join(",".join(row.values()) + "\n" for row in ROWS))
    elif name.endswith(".parquet"):
        table(path, ROWS, row_group=7)
    else:
        jsonl(path, ROWS)
    found = open_dataset(str(path))
    assert found.columns == ("prompt", "chosen", "rejected")
    assert found.splits == ("train",)
    assert [dict(row.values) for row in found.rows()] == ROWS
    assert found.size == (50 if name.endswith(".parquet") else None)


def test_a_row_says_where_it_is(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ROWS[:2])
    assert [row.where for row in open_dataset(str(path)).rows()] == [f"{path}:1", f"{path}:2"]
    path = table(tmp_path / "a.parquet", ROWS[:2])
    assert [row.where for row in open_dataset(str(path)).rows()] == [f"{path}: row 1", f"{path}: row 2"]


def test_a_broken_line_is_a_fault_and_not_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "a"}\nnone\n\n[1]\n{"prompt": "\xff"}\n{"prompt": "b"}')
    rows = list(open_dataset(str(path)).rows())
    assert [row.values.get("prompt") for row in rows] == ["a", None, None, None, "b"]
    assert [row.fault is None for row in rows] == [True, False, False, False, True]
    assert rows[1].where == f"{path}:2"
    assert open_dataset(str(path)).first() == [{"prompt": "a"}, {"prompt": "b"}]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50, 80])
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.jsonl.gz", "folder"])
def test_shares_are_the_same_rows_in_the_same_order(tmp_path: Path, name: str, n: int) -> None:
    path = tmp_path / name
    if name == "folder":
        jsonl(path / "train-1.jsonl", ROWS[:20])
        table(path / "train-2.parquet", ROWS[20:40])
        jsonl(path / "test.jsonl", ROWS[40:])
    elif name.endswith("parquet"):
        table(path, ROWS, row_group=7)
    else:
        jsonl(path, ROWS)
    found = open_dataset(str(path))
    chunks = pickle.loads(pickle.dumps(found.chunks(n)))
    assert [row for share in chunks for row in share.rows()] == list(found.rows())
    assert len(chunks) <= max(n, 3) + 1
    if name in ("a.jsonl", "a.parquet") and n < 20:
        assert len(chunks) == n


@given(
    lines=st.lists(st.sampled_from(['{"a": 1}', "", "  ", "x", '{"a": "\\n"}', '{"a": "' + "y" * 90 + '"}'])),
    n=st.integers(1, 9),
    end=st.booleans(),
)
def test_lines_keep_their_numbers_wherever_a_file_is_cut(
    lines: list[str], n: int, end: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    path.write_text('{"a": 0}\n' + "\n".join(lines) + ("\n" if end else ""))
    found = open_dataset(str(path))
    rows = [row for share in found.chunks(n) for row in share.rows()]
    assert rows == list(found.rows())
    numbers = [int(row.where.rpartition(":")[2]) for row in rows]
    assert numbers == [1, *(i for i, line in enumerate(lines, 2) if line.strip())]


def test_only_the_named_columns_of_a_table_are_read(tmp_path: Path) -> None:
    found = open_dataset(str(table(tmp_path / "a.parquet", ROWS)))
    assert {tuple(row.values) for row in found.rows(["chosen", "elsewhere"])} == {("chosen",)}
    assert next(iter(found.chunks(2, ["prompt"])[1].rows())).values == {"prompt": "Question 25?"}


def test_rows_from_the_middle_of_a_table_need_not_begin_with_a_group(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", ROWS, row_group=8)
    assert [number for number, _ in table_rows(path, 5, 19)] == list(range(6, 20))
    assert list(table_rows(path, 50)) == []


# --- folders ---


def test_the_dataset_of_a_run_is_read_by_its_card(tmp_path: Path) -> None:
    about = About(run="demo", constitution_name="safety", constitution_version="1.0")
    summary = export_dataset(run(40), tmp_path / "dataset", ExportSettings(), about=about)
    found = open_dataset(str(tmp_path / "dataset"))
    assert (found.config, found.splits, found.size) == ("preference", ("train", "test"), summary.pairs)
    assert len(list(found.rows())) == 40
    assert open_dataset(f"{tmp_path}/dataset#sft").config == "sft"
    assert open_dataset(str(tmp_path / "dataset"), "kto", "test").splits == ("test",)
    assert open_dataset(f"hf://{tmp_path}/dataset#kto").config == "kto"
    with pytest.raises(ConfigError, match="no configuration 'pref'; there are: preference, sft, kto"):
        open_dataset(str(tmp_path / "dataset"), "pref")
    with pytest.raises(ConfigError, match="no split 'dev'; there are: train, test"):
        open_dataset(str(tmp_path / "dataset"), split="dev")


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train.jsonl", "test.jsonl"], ["train", "test"]),
        (["data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"], ["train", "validation"]),
        (["train/a.jsonl", "dev/a.jsonl.gz"], ["train", "validation"]),
        (["part-1.jsonl", "part-2.jsonl"], ["train"]),
        (["latest.jsonl"], ["train"]),  # no "test" in it
        (["my_eval.csv", "training_rows.parquet"], ["train", "test"]),
    ],
)
def test_splits_are_told_by_names(tmp_path: Path, files: list[str], splits: list[str]) -> None:
    for name in files:
        path = tmp_path / "set" / name
        if name.endswith(".csv"):
            path.parent.mkdir(exist_ok=True)
            path.write_text("prompt\nq\n")
        else:
            (table if name.endswith("parquet") else jsonl)(path, ROWS[:2])
    (tmp_path / "set/notes.txt").write_text("none")
    assert list(open_dataset(str(tmp_path / "set")).splits) == splits


def test_folders_that_are_no_splits_are_configurations(tmp_path: Path) -> None:
    for name in ("harmless-base", "helpful-base"):
        for split in ("train", "test"):
            jsonl(tmp_path / "hh" / name / f"{split}.jsonl.gz", [{"prompt": f"{name} {split}"}])
    assert prompts(tmp_path / "hh", "helpful-base", "test") == [("test", "helpful-base test")]
    with pytest.raises(ConfigError, match=r"several configurations: harmless-base, helpful-base; write .*hh#harmless"):
        open_dataset(str(tmp_path / "hh"))


@pytest.mark.parametrize(
    "declared",
    [
        "{config_name: default, data_files: '*.jsonl'}",
        "{config_name: default, data_files: [a.jsonl, b.jsonl]}",
        "{config_name: default, data_files: {train: [a.jsonl, b.jsonl]}}",
        "{config_name: default, data_files: [{split: train, path: [a.jsonl, 'b.*']}]}",
        "{config_name: default, data_dir: ''}",
    ],
)
def test_a_card_may_name_files_in_any_way_that_the_hub_reads(tmp_path: Path, declared: str) -> None:
    jsonl(tmp_path / "a.jsonl", [{"prompt": "a"}])
    jsonl(tmp_path / "b.jsonl", [{"prompt": "b"}])
    (tmp_path / "README.md").write_text(f"---\nconfigs: [{declared}]\n---\n# Mine\n")
    assert prompts(tmp_path) == [("train", "a"), ("train", "b")]


def test_a_card_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    jsonl(tmp_path / "secret.jsonl", [{"prompt": "s"}])
    jsonl(tmp_path / "set/a.jsonl", [{"prompt": "a"}])
    for path in ("../secret.jsonl", str(tmp_path / "secret.jsonl")):
        (tmp_path / "set/README.md").write_text(f"---\nconfigs: [{{config_name: x, data_files: '{path}'}}]\n---\n")
        assert prompts(tmp_path / "set") == [("train", "a")]


def test_what_the_library_saved_or_keeps_in_its_cache_is_read_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    messages = [{**row, "chosen": turns(row["prompt"], row["chosen"])} for row in ROWS]
    one = datasets.Dataset.from_list(messages)
    datasets.DatasetDict(train=one, test=one.select(range(5))).save_to_disk(tmp_path / "saved")
    for address in (str(tmp_path / "saved"), f"hf://{tmp_path}/saved"):
        found = open_dataset(address)
        assert (found.splits, found.size) == (("train", "test"), 55)
        assert [row for share in found.chunks(4, ["chosen"]) for row in share.rows()] == list(found.rows(["chosen"]))
        assert next(iter(found.rows())).values == messages[0]
    assert len(prompts(f"hf://{tmp_path}/saved:test[:2]")) == 2
    assert len(prompts(tmp_path / "saved", split="test")) == 5


# --- what is none ---


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nowhere.jsonl", r"no file or folder nowhere.jsonl; give a .jsonl, .csv or .parquet file"),
        ("runs/none/dataset", "no file or folder runs/none/dataset"),
        ("notes.txt", r"notes.txt: cannot be read; give a .jsonl,"),
        ("empty.jsonl", "empty.jsonl: no rows in it"),
        ("broken.jsonl", r"broken.jsonl:1: not one JSON object a line"),
        ("broken.json", r"broken.json: not JSON"),
        ("broken.parquet", "broken.parquet: not a readable Parquet file"),
        ("broken.csv", "broken.csv:2: broken CSV"),
        ("empty.parquet", "empty.parquet: no rows in it"),
        ("twice.parquet", "twice.parquet: several columns are named 'a'; rename them"),
        ("nothing", r"nothing: no .jsonl, .* file in it"),
        ("card", "its head is no YAML"),
    ],
)
def test_what_cannot_be_read_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "notes.txt": "a",
        "empty.jsonl": "\n",
        "broken.jsonl": "a\nb\n",
        "broken.json": '[{"a": 1}',
        "broken.parquet": "PAR1",
        "broken.csv": 'prompt\n"a\n',
    }.items():
        (tmp_path / name).write_text(text)
    parquet.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "empty.parquet")
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "card").mkdir()
    (tmp_path / "card/README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(ConfigError, match=says) as caught:
        list(open_dataset(address).rows())
    assert "\n" not in str(caught.value)


def test_one_file_has_no_configurations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is one file and has no configurations; leave out 'x'"):
        open_dataset(str(jsonl(tmp_path / "a.jsonl", ROWS)), "x")
