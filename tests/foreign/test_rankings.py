"""Ratings and ranks become pairs of a better and a worse answer, whatever order the answers come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.foreign.candidates import Candidate
from rlaif.foreign.rankings import compared, span_of
from rlaif.types import Message


def answer(text: str, score: float | None, model: str | None = None) -> Candidate:
    return Candidate((Message("assistant", text),), score, model)


def texts(answers: list[Candidate], **options: object) -> list[tuple[str, str, float]]:
    found = compared(answers, 4.0, **options)  # type: ignore[arg-type]
    assert not isinstance(found, str)
    return [(pair.better.turns[0].content, pair.worse.turns[0].content, pair.margin) for pair in found]


def test_the_best_stands_against_the_worst() -> None:
    assert texts([answer("b", 3), answer("a", 5), answer("c", 1), answer("d", None)]) == [("a", "c", 1.0)]


def test_all_pairs_come_widest_first_and_may_be_capped() -> None:
    answers = [answer("a", 5), answer("b", 4), answer("c", 1), answer("d", 1)]
    assert texts(answers, pick="all") == [
        ("a", "c", 1.0),
        ("a", "d", 1.0),
        ("b", "c", 0.75),
        ("b", "d", 0.75),
        ("a", "b", 0.25),
    ]
    assert texts(answers, pick="all", most=2) == [("a", "c", 1.0), ("a", "d", 1.0)]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([], "too_few_rated"),
        ([answer("a", 1), answer("b", None)], "too_few_rated"),
        ([answer("a", 1), answer(" a", 1)], "identical"),
        ([answer("a", 1), answer("a", 2)], "identical"),  # rated differently: not to be relied on
        ([answer("a", 1), answer("a", 2), answer("b", 3)], "identical"),
        ([answer("a", 1), answer("b", 1)], "tie"),
    ],
)
def test_why_there_is_no_pair(answers: list[Candidate], reason: str) -> None:
    assert compared(answers, 1.0) == reason


def test_ranks_span_from_the_first_to_the_last() -> None:
    ranked = [answer("a", -1), answer("b", -2), answer("c", -3), answer("d", None)]
    assert span_of(ranked) == 2
    assert span_of([answer("a", -1), answer("b", -7)]) == 6
    assert span_of([]) == 1


ANSWERS = st.lists(
    st.builds(answer, st.sampled_from("abcdef "), st.none() | st.integers(1, 5).map(float), st.none() | st.just("m")),
    max_size=8,
)


@given(ANSWERS, st.sampled_from(["best_vs_worst", "all"]), st.randoms())
def test_a_pair_is_never_of_equals_and_the_order_is_irrelevant(
    answers: list[Candidate], pick: str, chance: object
) -> None:
    found = compared(answers, span_of(answers), pick=pick)  # type: ignore[arg-type]
    shuffled = list(answers)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert compared(shuffled, span_of(answers), pick=pick) == found  # type: ignore[arg-type]
    if isinstance(found, str):
        assert found in ("too_few_rated", "identical", "tie")
        return
    assert found
    for better, worse, margin in found:
        assert better.turns[0].content.strip() != worse.turns[0].content.strip()
        assert (better.score or 0) > (worse.score or 0)
        assert 0 < margin <= 1
