# ruff: noqa: RUF001  full-width marks are what Chinese is written with
"""Test items are found in rows that hold them: by 8-grams, short ones word by word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import ConfigError
from rlaif.hygiene.contamination import Evals, Hit, contaminated
from rlaif.hygiene.words import words

QUESTION = "A train leaves the station at nine and travels at sixty miles an hour; when does it arrive in York?"


def by_hand(row: str, evals: list[str]) -> Hit | None:
    """The rule, one item and one run of eight after the other."""
    said, best = words(row), None
    for number, item in enumerate(evals):
        tokens = words(item)
        if len(tokens) < 8:
            hit = Hit(number, 1.0) if tokens and tokens == said else None
            if hit:
                return hit
        else:
            runs = [said[i : i + 8] for i in range(len(said) - 7)]
            held = {i + k for i in range(len(tokens) - 7) if tokens[i : i + 8] in runs for k in range(8)}
            hit = Hit(number, len(held) / len(tokens)) if len(held) / len(tokens) > 0.5 else None
        if hit and (best is None or hit.share > best.share):
            best = hit
    return best


_SAID = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=30).map(" ".join)


@given(st.lists(_SAID, max_size=4), st.lists(_SAID, max_size=4), st.integers(0, 30))
def test_it_finds_what_the_rule_says(rows: list[str], evals: list[str], cut: int) -> None:
    rows += [f"x {item[:cut]} x {item[cut:]}" for item in evals]
    short_first = sorted(evals, key=lambda item: len(words(item)) >= 8)
    assert contaminated(rows, short_first) == [by_hand(row, short_first) for row in rows]


def test_an_item_is_found_whole_or_in_part_and_with_other_marks() -> None:
    rows = [
        f"Solve this: {QUESTION} Show your work.",
        QUESTION.upper().replace(";", " --"),
        " ".join(QUESTION.split()[:12]),
        " ".join(QUESTION.split()[:8]),
        "When does the train arrive in York?",
    ]
    found = contaminated(rows, ["Name a colour.", QUESTION])
    assert [hit and hit.item for hit in found] == [1, 1, 1, None, None]
    assert [hit and round(hit.share, 2) for hit in found[:3]] == [1.0, 1.0, round(12 / 20, 2)]


def test_a_short_item_is_found_only_where_it_is_all_that_is_said() -> None:
    evals = ["What is the capital of France?"]
    rows = ["what is the capital of france", "Tell me: what is the capital of France?", "What is the capital of Spain?"]
    assert contaminated(rows, evals) == [Hit(0, 1.0), None, None]


def test_the_texts_of_a_row_count_together_but_no_run_spans_two() -> None:
    said = QUESTION.split()
    whole = Evals([QUESTION])
    assert whole.hit(" ".join(said[:7]), " ".join(said[7:14])) is None
    assert whole.hit(" ".join(said[:8]), " ".join(said[8:16])) == Hit(0, 16 / 20)


def test_chinese_is_read_character_by_character() -> None:
    item = "一列火车早上九点从车站出发，每小时行驶六十公里，什么时候到达？"
    assert contaminated([f"请回答：{item}", "一列火车早上九点出发。"], [item]) == [Hit(0, 1.0), None]


def test_items_are_read_from_files_of_any_format_and_named_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": 1, "question": QUESTION}) + "\n")
    (tmp_path / "b.csv").write_text(f'id,task\n1,"{QUESTION} Now!"\n2,\n')
    turns = [{"role": "user", "content": "Name a colour."}]
    (tmp_path / "c.jsonl").write_text(json.dumps({"messages": turns}) + "\n" + json.dumps({"messages": ["Two", "now"]}))
    evals = Evals.read([f"{tmp_path}/a.jsonl", f"{tmp_path}/b.csv#task", f"{tmp_path}/c.jsonl"])
    assert [Path(name).name for name in evals.names] == ["a.jsonl:1", "b.csv:2", "c.jsonl:1", "c.jsonl:2"]
    assert evals.hit("two now") == Hit(3, 1.0)
    assert evals.hit(QUESTION) == Hit(0, 1.0)


@pytest.mark.parametrize(
    ("content", "given", "message"),
    [
        ('{"a": 1}', "e.jsonl", "none of the columns prompt, question"),
        ('{"a": "b"}', "e.jsonl#c", "no column 'c'; there are: a; write"),
        ('{"prompt": 3}', "e.jsonl", "column 'prompt' is no text"),
        ('{"prompt": ""}', "e.jsonl", "no test items"),
        ("", "e.jsonl", "no test items"),
        ("x", "other.jsonl", "no such file of test items"),
    ],
)
def test_files_without_items_are_refused(tmp_path: Path, content: str, given: str, message: str) -> None:
    (tmp_path / "e.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=message):
        Evals.read([f"{tmp_path}/{given}"])
