# ruff: noqa: RUF001  full-width marks are what Chinese is written with
"""Near and exact duplicates: what is alike is found, what is not stays, and both in any order of reading."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.hygiene.duplicates import Near, exact, near
from rlaif.hygiene.words import words

VOCABULARY = [f"word{i}" for i in range(2000)]


def text(seed: int, length: int = 120) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=length))


def with_changes(said: str, changes: int, seed: int = 0) -> str:
    chance, changed = random.Random(seed), said.split()
    for i in chance.sample(range(len(changed)), changes):
        changed[i] = "changed"
    return " ".join(changed)


def jaccard(a: str, b: str) -> float:
    def grams(said: str) -> set[tuple[str, ...]]:
        every = words(said) or [said.strip()]
        return set(zip(*(every[i:] for i in range(5)), strict=False)) or {tuple(every)}

    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


def test_exact_duplicates_differ_in_case_and_white_space_only() -> None:
    rows = ["How are you?", "how  are\nyou?", "How are you", "STRASSE", "straße", "How are you?"]
    assert exact(rows) == [0, 0, 2, 3, 3, 0]


def test_a_row_with_a_few_other_words_is_near_and_one_with_many_is_not() -> None:
    first = text(1)
    rows = [first, text(2), with_changes(first, 2), with_changes(first, 30), f"{first.upper()}!"]
    assert near(rows) == [0, 1, 0, 3, 0]


def test_every_row_is_its_own_or_near_to_a_row_that_stays() -> None:
    chance = random.Random(3)
    rows = [text(seed) for seed in range(40)]
    rows += [with_changes(chance.choice(rows), chance.randrange(6), seed) for seed in range(200)]
    found = near(rows)
    assert len(set(found)) < 150  # most changed ones are found
    for row, like in enumerate(found):
        if like != row:
            assert like < row
            assert found[like] == like
            assert jaccard(rows[row], rows[like]) >= 0.8


def test_nine_in_ten_pairs_at_the_threshold_are_found_and_all_that_are_nearly_the_same() -> None:
    found = {1: [0, 0], 3: [0, 0]}
    for changes, count in found.items():
        for seed in range(150):
            first = text(seed, 140)
            second = with_changes(first, changes, seed)
            assert jaccard(first, second) > 0.78
            count[near([first, second], threshold=0.7)[1] == 0] += 1
    assert found[1][True] == 150
    assert found[3][True] > 130


def test_estimates_are_close_to_the_truth() -> None:
    for seed in range(60):
        first = text(seed, 150)
        changes = 1 if seed % 2 else 20
        seen = Near(0.7)
        seen.add(first)
        like = seen.add(with_changes(first, changes, seed))
        assert (like is not None) == (changes == 1), jaccard(first, with_changes(first, changes, seed))


@given(st.lists(st.text(max_size=60), max_size=8))
def test_the_same_text_again_is_found_whatever_it_is(rows: list[str]) -> None:
    twice = [*rows, *rows]
    assert all(like < len(rows) for like in near(twice))
    assert all(like < len(rows) for like in exact(twice))
    seen = Near()
    assert [seen.add(row) is None for row in twice][len(rows) :] == [False] * len(rows)


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("Yes.", "yes", True),
        ("Yes.", "No.", False),
        ("", " ", True),
        ("\U0001f44d", "\U0001f44e", False),
        ("What is the capital of France?", "What is the capital of Spain?", False),
        ("今天天气很好，我们一起去公园散步吧。" * 3, "今天天气很好！我们一起去公园散步吧。" * 3, True),
        ("今天天气很好，我们一起去公园散步吧。", "明天我要在家里学习中文，不去公园。", False),
    ],
)
def test_short_and_chinese_texts(first: str, second: str, alike: bool) -> None:
    assert (near([first, second])[1] == 0) == alike


def test_texts_made_from_one_template_are_read_in_linear_time() -> None:
    frame = text(5, 82)
    rows = [f"{frame} {text(seed + 100, 18)}" for seed in range(1500)]  # 0.68 alike: most have a band in common
    assert near(rows) == list(range(1500))


def test_the_table_grows_and_forgets_nothing() -> None:
    seen = Near()
    rows = [text(seed, 12) for seed in range(3000)]
    assert [seen.add(row) for row in rows] == [None] * 3000
    assert [seen.add(row) for row in rows] == list(range(3000))
