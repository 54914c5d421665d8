"""What several judges say together is between what they say, whoever is asked first and whichever way round."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.panel import Panel, combined, log_odds

PANELS: tuple[Panel, ...] = ("mean", "majority", "weighted")
# Not closer to a half than a judge could mean it.
P = st.floats(0, 1).filter(lambda p: p == 0.5 or abs(p - 0.5) > 1e-9)
VOICES = st.lists(st.tuples(P, st.floats(-5, 5)), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("panel", "expected"), [("mean", 0.6), ("majority", 2 / 3), ("weighted", 1 / (1 + math.exp(-1.5)))]
)
def test_the_three_panels(panel: Panel, expected: float) -> None:
    assert combined(panel, [0.9, 0.2, 0.7], [2.0, 1.5, 1.0]) == pytest.approx(expected)


@pytest.mark.parametrize("panel", PANELS)
@given(VOICES)
def test_the_other_way_round_is_the_mirror_and_the_order_of_judges_does_not_matter(
    panel: Panel, voices: list[tuple[float, float]]
) -> None:
    p, weights = [one for one, _ in voices], [weight for _, weight in voices]
    together = combined(panel, p, weights)
    assert 0 <= together <= 1
    assert combined(panel, [1 - one for one in p], weights) == pytest.approx(1 - together)
    assert combined(panel, p[::-1], weights[::-1]) == pytest.approx(together)


@pytest.mark.parametrize("panel", PANELS)
@given(st.lists(P, min_size=1, max_size=9), st.data())
def test_a_judge_that_changes_its_mind_towards_the_first_never_makes_it_less_likely(
    panel: Panel, p: list[float], data: st.DataObject
) -> None:
    i = data.draw(st.integers(0, len(p) - 1))
    higher = data.draw(P.filter(lambda one: one >= p[i]))
    weights = [1.0] * len(p)
    assert combined(panel, [*p[:i], higher, *p[i + 1 :]], weights) >= combined(panel, p, weights) - 1e-12


@given(st.lists(P, min_size=1, max_size=7), st.floats(0.1, 5))
def test_with_equal_weights_the_weighted_winner_is_that_of_the_majority(p: list[float], weight: float) -> None:
    majority = combined("majority", p) - 0.5
    weighted = combined("weighted", p, [weight] * len(p)) - 0.5
    assert (majority > 1e-9, majority < -1e-9) == (weighted > 1e-9, weighted < -1e-9)


@given(st.lists(st.floats(0.51, 0.99), min_size=1, max_size=6), st.data())
def test_weighted_is_the_posterior_of_independent_judges(accuracies: list[float], data: st.DataObject) -> None:
    votes = [data.draw(st.booleans()) for _ in accuracies]
    weights = [math.log(one / (1 - one)) for one in accuracies]
    first, second = (
        math.prod(one if vote == truth else 1 - one for one, vote in zip(accuracies, votes, strict=True))
        for truth in (True, False)
    )
    assert combined("weighted", [float(vote) for vote in votes], weights) == pytest.approx(first / (first + second))


def test_heavy_weights_are_certain_without_an_overflow() -> None:
    assert combined("weighted", [1.0, 1.0], [800.0, 800.0]) == 1.0
    assert combined("weighted", [0.0, 0.0], [800.0, 800.0]) == 0.0


def test_one_that_does_not_know_has_no_vote() -> None:
    for panel, p in product(("majority", "weighted"), (0.9, 0.1)):
        alone = combined(panel, [p], [1.0])
        assert (combined(panel, [p, 0.5], [1.0, 3.0]) > 0.5) == (alone > 0.5)
    assert combined("weighted", [0.5], [3.0]) == combined("majority", [0.5]) == 0.5


def test_every_judge_needs_a_weight() -> None:
    with pytest.raises(ValueError, match="zip"):
        combined("weighted", [0.9, 0.1], [1.0])


# --- weights from labelled items ---


def test_a_judge_that_is_more_often_right_weighs_more_and_one_that_is_wrong_is_turned_round() -> None:
    weights = log_odds({"good": (90, 100), "fair": (75, 100), "chance": (50, 100), "adversary": (10, 100)})
    assert weights["good"] > weights["fair"] > weights["chance"] > 0 > weights["adversary"]
    assert combined("weighted", [0.0], [weights["adversary"]]) > 0.5


@given(st.integers(20, 400), st.data())
def test_weights_are_finite_and_in_the_order_of_the_accuracies(n: int, data: st.DataObject) -> None:
    right = data.draw(st.lists(st.integers(0, n), min_size=1, max_size=6))
    weights = log_odds({f"judge {i}": (k, n) for i, k in enumerate(right)})
    assert all(map(math.isfinite, weights.values()))
    by_weight = [weights[f"judge {i}"] for i in sorted(range(len(right)), key=lambda i: right[i])]
    assert all(one <= other + 1e-12 for one, other in pairwise(by_weight))


def test_judges_that_differ_by_chance_are_nearly_equals() -> None:
    weights = log_odds({"a": (15, 20), "b": (16, 20), "c": (14, 20)})
    assert max(weights.values()) / min(weights.values()) < 1.6
    for p in product((0.0, 1.0), repeat=3):
        assert (combined("weighted", p, list(weights.values())) > 0.5) == (sum(p) > 1.5)
