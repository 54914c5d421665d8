"""Labelled files as they lie on people's disks: any names, any words for a label; a problem is said with its line."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.audit.read import majority, read_classes, read_labelled
from rlaif.errors import ConfigError

Row = dict[str, Any]  # Any: a cell of a file


def jsonl(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(*winners: str | None, **more: object) -> list[Row]:
    """One row an item; the winner in both orders."""
    return [{"item": i, "winner_ab": w, "winner_ba": w, **more} for i, w in enumerate(winners)]


def test_rows_of_several_judges_are_columns_over_the_same_items(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "answers.jsonl",
        [
            {"set": "x", "idx": 0, "model": "m", "how": "plain", "label": 1, "winner_ab": "1", "winner_ba": "2"},
            {"set": "x", "idx": 1, "model": "m", "how": "plain", "label": 2, "winner_ab": "2", "winner_ba": "2"},
            {"set": "x", "idx": 1, "model": "m", "how": "cot", "label": 2, "winner_ab": "1", "winner_ba": "tie"},
        ],
    )
    items, (plain, cot) = read_labelled(path, {"item": "set+idx", "judge": "model+how", "group": "set"})
    assert items.ids == ("x 0", "x 1")
    assert items.groups == ("x", "x")
    assert items.gold.tolist() == [1.0, 0.0]
    assert (plain.judge, cot.judge) == ("m plain", "m cot")
    assert (plain.p_ab.tolist(), plain.p_ba.tolist()) == ([1.0, 0.0], [0.0, 0.0])
    assert plain.p.tolist() == [0.5, 0.0]
    assert np.isnan(cot.p_ab[0])
    assert cot.outcomes == (None, "ok")
    assert cot.p[1] == 0.75


@pytest.mark.parametrize("word", ["1", "a", " A ", "first", "True", 1, 1.0, True])
def test_each_word_for_the_first_response(tmp_path: Path, word: object) -> None:
    items, judges = read_labelled(
        jsonl(tmp_path / "f.jsonl", [{"label": word}, {"label": "tie"}, {"label": None}, {"label": 0.5}])
    )
    assert items.gold[0] == 1.0
    assert items.gold[1] == 0.5
    assert np.isnan(items.gold[2])
    assert judges == []


def test_words_of_the_file_s_own_replace_the_known_ones(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "f.jsonl", [{"label": 0}, {"label": 1}, {"label": "same"}])
    items, _ = read_labelled(path, labels={"0": "a", "1": "b", "Same": "tie"})
    assert items.gold.tolist() == [1.0, 0.0, 0.5]


def test_what_is_no_winner_is_an_answer_that_is_no_vote(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "f.jsonl",
        [
            {"winner_ab": "1", "winner_ba": "refusal"},
            {"winner_ab": "I'd rather talk", "winner_ba": "refused"},
            {"winner_ab": "As an AI", "winner_ba": "2"},
            {"winner_ab": None, "winner_ba": "2"},
            {"winner_ab": "tie", "winner_ba": "tie"},
            {"winner_ab": "both_bad", "winner_ba": "both_bad"},
        ],
    )
    _, (judge,) = read_labelled(path)
    assert judge.outcomes == ("refusal", "refusal", "unparsed", "unparsed", "tie", "both_bad")
    assert np.isnan(judge.p[:4]).all()
    assert judge.p[4:].tolist() == [0.5, 0.5]


def test_probabilities_and_a_judge_of_one_order_are_read_too(tmp_path: Path) -> None:
    _, (sure,) = read_labelled(jsonl(tmp_path / "p.jsonl", [{"p_ab": 0.9, "p_ba": "0.5"}, {"p_ab": None, "p_ba": 1}]))
    assert sure.p[0] == pytest.approx(0.7)
    assert sure.outcomes == ("ok", "unparsed")
    _, (once,) = read_labelled(jsonl(tmp_path / "w.jsonl", [{"winner": "b", "cost_usd": 0.25}, {"winner": "a"}]))
    assert once.p.tolist() == [0.0, 1.0]
    assert not once.both_orders
    assert once.cost_usd == 0.25


def test_lengths_generators_and_people_come_with_the_item(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "f.jsonl",
        [
            {"prompt": "?", "a": "long", "b": "", "by": ["1", "1", "2"], "generator_a": "m", "generator_b": None},
            {"prompt": "?", "a": "x", "b": "xy", "by": ["1", "2"]},
            {"prompt": "?", "a": "x", "b": "xy", "by": None},
        ],
    )
    items, _ = read_labelled(path, {"annotators": "by"})
    assert items.lengths[1].tolist() == [1.0, 2.0]
    assert items.lengths[0, 1] == 0.0
    assert items.generators == (("m", None), (None, None), (None, None))
    assert list(items.annotators) == ["by 1", "by 2", "by 3"]
    assert items.annotators["by 2"][:2].tolist() == [1.0, 0.0]
    # Without a label of the file's own, what most people say is gold, and a tie where they are divided.
    assert items.gold[:2].tolist() == [1.0, 0.5]
    assert np.isnan(items.gold[2])


def test_verdicts_by_several_principles_are_a_judge_by_each(tmp_path: Path) -> None:
    rows = said("1", "2", judge="m", principle="kind") + said("2", "2", judge="m", principle="short")
    _, judges = read_labelled(jsonl(tmp_path / "f.jsonl", rows))
    assert [judge.judge for judge in judges] == ["m by kind", "m by short"]
    assert judges[0].principles == ("kind", "kind")
    drawn = [row | {"principle": f"p{i}"} for i, row in enumerate(said("1", "2", judge="m"))]
    _, (one,) = read_labelled(jsonl(tmp_path / "g.jsonl", drawn))
    assert (one.judge, one.principles) == ("m", ("p0", "p1"))


def test_every_format_holds_the_same(tmp_path: Path) -> None:
    rows: list[Row] = [{"item": "1", "label": "a", "winner": "b"}, {"item": "2", "label": "", "winner": "a"}]
    with gzip.open(tmp_path / "f.csv.gz", "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "f.parquet")
    for path in (jsonl(tmp_path / "f.jsonl", rows), tmp_path / "f.csv.gz", tmp_path / "f.parquet"):
        items, (judge,) = read_labelled(path)
        assert items.ids == ("1", "2")
        assert items.gold[0] == 1.0
        assert np.isnan(items.gold[1])
        assert judge.p.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{"text": "x"}], {}, "no labels and no verdicts among the columns text; .*--columns label=NAME"),
        ([{"label": "a"}, {"label": "better"}], {}, r"f\.jsonl:2: 'label' is 'better'; known are .*--labels WORD=a"),
        ([{"label": 1}, {"label": 0}], {}, r"f\.jsonl:2: 'label' is 0; is 0 the first .*--labels 0=a,1=b or 0=b,1=a"),
        ([{"winner": "1"}, {"winner": 0}], {}, r"f\.jsonl:2: 'winner' is 0; is 0 the first"),
        ([{"winner": "left"}, {"winner": "right"}], {}, r"f\.jsonl:1: 'winner' is 'left'; known are"),
        ([{"label": "a"}], {"label": "gold"}, "no column 'gold'; there are: label; choose with --columns label=NAME"),
        ([{"label": "a"}], {"lable": "label"}, "no role 'lable'; did you mean 'label'"),
        ([{"p_ab": 0.5, "p_ba": 1.5}], {}, r"f\.jsonl:1: 'p_ba' is 1.5; a probability is from 0 to 1"),
        ([{"winner_ba": "1"}], {}, "'winner_ba' without 'winner_ab'; name its column with --columns winner_ab=NAME"),
        (said("1", "1", judge="m") + said("2", judge="m"), {}, r"f\.jsonl:3: m has judged this item in line 1 already"),
        ([{"judge": "m", "winner": "1"}], {}, "which are about the same item; .*--columns item=NAME"),
        ([{"item": 1, "label": 1}, {"item": None, "label": 1}], {}, r"f\.jsonl:2: 'item' is empty"),
        (
            [{"item": 1, "label": 1}, {"item": 1, "label": 2}],
            {},
            r":2: 'label' is 2, but line 1 says otherwise",
        ),
        ([{"winner": "1", "cost_usd": "dear"}], {}, r"f\.jsonl:1: 'cost_usd' is no number"),
        ([{"who": ["1"]}, {"who": "1"}], {"annotators": "who"}, r"f\.jsonl:2: 'who' is '1', and a list elsewhere"),
        ([], {}, "no rows in it"),
    ],
)
def test_a_problem_is_said_with_its_line_and_the_way_out(
    tmp_path: Path, rows: Sequence[Row], columns: Mapping[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_labelled(jsonl(tmp_path / "f.jsonl", rows), columns)


def test_a_file_that_is_no_table_is_said(tmp_path: Path) -> None:
    for name, text, message in [
        ("f.json", "[]", "'.json' file; write them as one JSON object a line"),
        ("f.jsonl", '{"label": 1}\n[1]\n', r"f.jsonl:2: not one JSON object"),
        ("f.csv", 'label\n"1\n', "f.csv:2: broken CSV"),
        ("g.csv", "label\n1,2\n", "g.csv:2: 2 fields, but 1 columns"),
        ("f.parquet", "PAR", "not a readable Parquet file"),
        ("f.jsonl.gz", "plain", "cannot be read further"),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_labelled(tmp_path / name)
    with pytest.raises(ConfigError, match="no such file"):
        read_labelled(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"label\ncaf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.csv:2: not UTF-8"):
        read_labelled(tmp_path / "latin.csv")


def test_what_most_annotators_say_is_the_label_and_a_tie_is_a_saying_too(tmp_path: Path) -> None:
    said = [["tie", "tie", "a"], ["a", "b", "a"], ["a", "b", "tie"], ["a", "b"], ["b", None], [None, None]]
    gold = majority({str(i): np.array([VALUES[row[i]] if i < len(row) else NAN for row in said]) for i in range(3)}, 6)
    assert gold.tolist()[:5] == [0.5, 1.0, 0.5, 0.5, 0.0]
    assert math.isnan(gold[5])


NAN = math.nan
VALUES = {"a": 1.0, "b": 0.0, "tie": 0.5, None: NAN}


def test_labels_mean_a_b_or_tie(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--labels 0=x: a word means a"):
        read_labelled(jsonl(tmp_path / "f.jsonl", [{"label": 0}]), labels={"0": "x"})


def test_a_class_is_whatever_stands_there_and_an_empty_cell_is_none(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "f.jsonl", [{"one": "full", "two": 3}, {"one": "", "two": "none"}])
    classes, chosen = read_classes(path, ["one", "two"])
    assert classes == ("3", "full", "none")
    assert chosen[1].tolist() == [0.0, 2.0]
    assert chosen[0, 0] == 1.0
    assert np.isnan(chosen[0, 1])
    with pytest.raises(ConfigError, match="no column 'three'; there are: one, two"):
        read_classes(path, ["one", "three"])


def test_the_replayed_judges_of_the_public_file_are_all_there(public_data: Callable[[str], Path]) -> None:
    path = public_data("llmbar_judge_replay_dev.jsonl.gz")
    items, judges = read_labelled(path, {"item": "subset+idx", "judge": "judge+strategy", "group": "subset"})
    assert (len(items), len(judges)) == (415, 65)
    assert sum(outcome is not None for judge in judges for outcome in judge.outcomes) == 15_950
