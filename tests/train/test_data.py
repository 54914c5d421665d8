"""What of DATA trains: shares by the prompt, no prompt of a test split, nothing that teaches nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from rlaif.errors import ConfigError
from rlaif.export import About, ExportSettings, export_dataset
from rlaif.train.data import HELD_OUT, Gathered, gathered, parsed, write
from rlaif.train.rows import prompt_of
from rlaif.train.settings import Method
from tests.export.made import run


def message(text: str, role: str = "user") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def pair(i: int, **more: Any) -> dict[str, Any]:
    said = {"chosen": message(f"Yes {i}.", "assistant"), "rejected": message(f"No {i}.", "assistant")}
    return {"prompt": message(f"Question {i}?"), **said, "p": 0.8, **more}


def put(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def taken(*data: str, method: Method = "dpo", soft: bool = False) -> Gathered:
    return gathered(data, method, Path("runs"), soft=soft)


def prompts(rows: list[dict[str, Any]]) -> set[str]:
    return {prompt_of(row) for row in rows}


@pytest.mark.parametrize(
    ("argument", "source", "weight", "cap"),
    [
        ("round-1", "round-1", 1.0, None),
        ("round-1=0.3", "round-1", 0.3, None),
        ("round-1=0.3,500", "round-1", 0.3, 500),
        ("runs/a=b/dataset#sft=1,2", "runs/a=b/dataset#sft", 1.0, 2),
        ("a=b", "a=b", 1.0, None),
    ],
)
def test_a_source_may_end_in_its_share_and_its_most_rows(
    argument: str, source: str, weight: float, cap: int | None
) -> None:
    found = parsed(argument)
    assert (found.source, found.weight, found.cap) == (source, weight, cap)


@pytest.mark.parametrize("argument", ["a=0", "a=1.5", "a=0.5,0", "a=1.2.3"])
def test_a_share_that_is_none_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match=r"write SOURCE=WEIGHT,CAP"):
        parsed(argument)


def test_a_file_whose_name_ends_like_a_share_is_that_file(tmp_path: Path) -> None:
    name = put(tmp_path / "a=0.5", [])
    assert (parsed(name).source, parsed(name).weight) == (name, 1.0)


def test_a_share_is_drawn_by_the_prompt_and_a_larger_one_keeps_the_rows_of_a_smaller(tmp_path: Path) -> None:
    name = put(tmp_path / "a.jsonl", [pair(i) for i in range(400)])
    small, large = taken(f"{name}=0.3"), taken(f"{name}=0.6")
    assert 80 < len(small.train) < 160 < 200 < len(large.train) < 280
    assert prompts(small.train) < prompts(large.train)
    assert small.data[0].left_out == {"not of the share": 400 - len(small.train)}
    shuffled = put(tmp_path / "b.jsonl", [pair(i) for i in reversed(range(400))])
    assert prompts(taken(f"{shuffled}=0.3").train) == prompts(small.train)


def test_a_cap_takes_the_same_rows_whatever_their_order_and_leaves_them_in_it(tmp_path: Path) -> None:
    forth = taken(put(tmp_path / "a.jsonl", [pair(i) for i in range(50)]) + "=1,7").train
    back = taken(put(tmp_path / "b.jsonl", [pair(i) for i in reversed(range(50))]) + "=1,7").train
    assert len(forth) == 7
    assert forth == back[::-1]


def test_a_prompt_of_any_sources_test_split_trains_in_none(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    put(first / "train.jsonl", [pair(i) for i in range(10)])
    put(first / "test.jsonl", [pair(i) for i in range(10, 13)])
    put(second / "train.jsonl", [pair(i) for i in range(8, 20)])
    put(second / "test.jsonl", [pair(2)])
    found = taken(str(first), str(second))
    assert [one.left_out.get(HELD_OUT) for one in found.data] == [1, 3]
    assert [(one.rows, one.test_rows) for one in found.data] == [(9, 3), (9, 1)]
    assert not prompts(found.train) & prompts(found.test)


def test_what_another_configuration_of_a_folder_holds_out_does_not_train_either(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    for config in ("preference", "sft"):
        (dataset / config).mkdir(parents=True)
    rows = [{"prompt": message(f"Q{i}?"), "completion": message("A", "assistant")} for i in range(4)]
    write(dataset / "sft", "train-00000-of-00001", rows)
    pairs = [{"prompt": message("Q3?"), "chosen": message("A"), "rejected": message("B")}]
    write(dataset / "preference", "test-00000-of-00001", pairs)
    found = taken(str(dataset), method="sft")
    assert (len(found.train), found.data[0].left_out) == (3, {HELD_OUT: 1})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rejected": message("Yes 0.", "assistant")}, "chosen equals rejected"),
        ({"rejected": message("  ", "assistant")}, "empty rejected"),
        ({"chosen": []}, "empty chosen"),
        ({"chosen": None}, "empty chosen"),
        ({"prompt": message("")}, "empty prompt"),
    ],
)
def test_a_row_that_teaches_nothing_is_left_out_and_counted(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    found = taken(put(tmp_path / "a.jsonl", [pair(0) | change, pair(1)]))
    assert (len(found.train), found.data[0].left_out) == (1, {reason: 1})


def test_soft_labels_need_a_p_in_each_row(tmp_path: Path) -> None:
    found = taken(put(tmp_path / "a.jsonl", [pair(0), pair(1, p=None)]), soft=True)
    assert found.data[0].left_out == {"no p": 1}
    assert [row["p"] for row in found.train] == [0.8]
    with pytest.raises(ConfigError, match=r"a\.jsonl:1: p is the probability .* there is 7"):
        taken(put(tmp_path / "a.jsonl", [pair(0, p=7)]), soft=True)


@pytest.mark.parametrize(
    ("row", "method", "said"),
    [
        (pair(0) | {"prompt": "Question?"}, "dpo", "must all be text or all lists of messages"),
        ({"question": "a"}, "dpo", "dpo reads the columns prompt, chosen, rejected or .* there are: question"),
        ({"prompt": "a", "completion": "b"}, "kto", "column label, true or false; there is None"),
        (pair(0, prompt=[{"role": "user", "content": "a", "tool_calls": [1]}]), "dpo", "a list of {role, content}"),
        (pair(0, prompt=7), "dpo", "prompt is a int; it must be text"),
    ],
)
def test_columns_of_the_wrong_kind_are_refused_with_their_place(
    row: dict[str, Any], method: Method, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"a\.jsonl:1: .*{said}"):
        taken(put(tmp_path / "a.jsonl", [row]), method=method)


def test_nothing_left_to_train_on_is_an_error_that_says_why(tmp_path: Path) -> None:
    name = put(tmp_path / "a.jsonl", [pair(0) | {"chosen": []}])
    with pytest.raises(ConfigError, match=r"no row is left to train on \(1 empty chosen\)"):
        taken(name)


def test_text_and_messages_are_not_mixed(tmp_path: Path) -> None:
    one = put(tmp_path / "a.jsonl", [pair(0)])
    other = put(tmp_path / "b.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(ConfigError, match="some rows are text and some are messages"):
        taken(one, other)


def test_a_margin_that_some_rows_lack_is_given_to_none(tmp_path: Path) -> None:
    rows = [{key: value for key, value in pair(i).items() if key != "p"} for i in range(2)]
    some = put(tmp_path / "a.jsonl", [rows[0] | {"margin": 0.1}, rows[1]])
    assert all("margin" not in row for row in taken(some, method="reward").train)
    every = put(tmp_path / "a.jsonl", [row | {"margin": 0.1} for row in rows])
    assert [row["margin"] for row in taken(every, method="reward").train] == [0.1, 0.1]


@pytest.mark.parametrize(
    ("method", "config"),
    [("sft", "sft"), ("dpo", "preference"), ("kto", "kto"), ("reward", "reward"), ("grpo", "prompts")],
)
def test_a_run_is_read_by_name_in_the_configuration_of_the_method(method: Method, config: str, tmp_path: Path) -> None:
    about = About(run="one", constitution_name="safety", constitution_version="1.0")
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "run.yaml").touch()
    with pytest.raises(ConfigError, match="the run one has no dataset; write it with `rlaif export one`"):
        gathered(["one"], method, tmp_path)
    summary = export_dataset(run(24), folder / "dataset", ExportSettings(test_fraction=0.3), about=about)
    found = gathered(["one"], method, tmp_path)
    assert found.data[0].config == config
    assert {"train": len(found.train), "test": len(found.test)} == dict(summary.rows[config])  # type: ignore[index]
    assert gathered([str(folder)], method, tmp_path).train == found.train


def test_an_unknown_name_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run 'nothing' in runs, and no file or folder of that name"):
        taken("nothing")


def test_the_digest_tells_the_rows_that_train_from_others(tmp_path: Path) -> None:
    name = put(tmp_path / "a.jsonl", [pair(i) for i in range(5)])
    first = taken(name).data[0].digest
    assert taken(name).data[0].digest == first
    put(tmp_path / "a.jsonl", [pair(i) for i in range(1, 6)])
    assert taken(name).data[0].digest != first


def test_rows_are_written_as_they_are(tmp_path: Path) -> None:
    rows = taken(put(tmp_path / "a.jsonl", [pair(i) for i in range(3)])).train
    write(tmp_path, "train", rows)
    assert parquet.read_table(tmp_path / "train.parquet").to_pylist() == rows
    with pytest.raises(ConfigError, match="values of several types"):
        write(tmp_path, "train", [{"prompt": "a", "x": 1}, {"prompt": "b", "x": "c"}])
