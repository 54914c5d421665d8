"""The evaluation's statistics against slower ones, and against what was planted."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binomtest

from rlaif.evaluate.lengths import RIDGE, fit, length_controlled
from rlaif.evaluate.paired import change, mcnemar, newcombe
from rlaif.evaluate.strengths import strengths
from rlaif.figures import FloatArray
from rlaif.statistics import wilson

counts = st.integers(0, 40)


@given(counts, counts)
def test_mcnemar_is_the_binomial_test_of_the_prompts_that_differ(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)


@given(counts, counts, counts, counts)
def test_newcombes_interval_holds_the_difference_and_turns_with_it(a: int, b: int, c: int, d: int) -> None:
    n = a + b + c + d
    if not n:
        return
    low, high = newcombe(a, b, c, d)
    assert -1 <= low <= (b - c) / n + 1e-12
    assert (b - c) / n - 1e-12 <= high <= 1
    assert newcombe(a, c, b, d) == pytest.approx((-high, -low))


def test_without_a_correlation_newcombes_interval_is_that_of_two_samples() -> None:
    (low1, high1), (low2, high2) = wilson(40, 80), wilson(20, 80)
    # 40 and 20 of 80, with as many in common as chance gives.
    low, high = newcombe(10, 30, 10, 30)
    assert low == pytest.approx(0.25 - math.hypot(0.5 - low1, high2 - 0.25))
    assert high == pytest.approx(0.25 + math.hypot(high1 - 0.5, 0.25 - low2))


def test_newcombes_interval_holds_the_truth_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    shares = np.array([0.30, 0.25, 0.05, 0.40])  # both, only first, only second, neither
    drawn = chance.multinomial(100, shares, size=2000).tolist()
    inside = [low <= 0.20 <= high for low, high in (newcombe(*row) for row in drawn)]
    assert 0.94 <= np.mean(inside) <= 0.975


def test_a_change_is_the_later_share_less_the_earlier() -> None:
    before = np.array([True, True, True, True, False, False])
    found = change(before, np.array([True, False, False, False, True, False]))
    assert (found.difference, found.only_before, found.only_after) == (pytest.approx(-1 / 3), 3, 1)
    assert found.low is not None
    assert found.high is not None
    assert found.low < -1 / 3 < found.high
    assert found.mcnemar_p == pytest.approx(binomtest(1, 4).pvalue)
    nothing = change(before[:0], before[:0])
    assert (nothing.difference, nothing.mcnemar_p, nothing.n) == (None, None, 0)


# --- length ---


def planted(
    n: int, model: float, length: float, seed: int = 0, *, longer: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Outcomes of the regression's own model, and the differences of lengths they come from."""
    chance = np.random.default_rng(seed)
    longer_by = chance.normal(longer, 300.0, n)
    p = 1 / (1 + np.exp(-(model + length * np.tanh(longer_by / longer_by.std()))))
    return (chance.random(n) < p).astype(np.float64), longer_by


def test_a_planted_length_effect_is_found_and_taken_out() -> None:
    outcomes, longer_by = planted(1500, 0.0, 2.0, longer=300.0)
    assert outcomes.mean() > 0.7  # the longer model wins, by nothing else
    found = length_controlled(outcomes, longer_by)
    assert found is not None
    assert found.length == pytest.approx(2.0, abs=0.3)
    assert found.value == pytest.approx(0.5, abs=0.05)
    assert found.low < 0.5 < found.high


def test_a_better_model_is_better_whatever_its_lengths() -> None:
    outcomes, longer_by = planted(1500, 1.0, -1.5, longer=300.0)
    assert outcomes.mean() < 0.6
    found = length_controlled(outcomes, longer_by)
    assert found is not None
    assert found.value == pytest.approx(1 / (1 + math.exp(-1.0)), abs=0.05)


def test_without_an_effect_of_length_the_rate_is_the_plain_one() -> None:
    outcomes, longer_by = planted(400, 0.7, 0.0)
    found = length_controlled(outcomes, longer_by)
    assert found is not None
    assert found.value == pytest.approx(outcomes.mean(), abs=0.02)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    truth = 1 / (1 + math.exp(-0.4))
    found = [length_controlled(*planted(150, 0.4, 1.0, seed)) for seed in range(40)]
    assert sum(one is not None and one.low <= truth <= one.high for one in found) >= 35


def test_the_fit_is_the_maximum_of_the_penalised_likelihood() -> None:
    outcomes, longer_by = planted(200, 0.3, 1.0)
    features = np.column_stack([np.ones(200), np.tanh(longer_by / longer_by.std())])

    def loss(weights: FloatArray) -> float:
        logits = features @ weights
        return float(np.sum(np.logaddexp(0, logits) - outcomes * logits) + RIDGE / 2 * weights @ weights)

    expected = minimize(loss, np.zeros(2), tol=1e-12).x
    assert fit(features, outcomes, np.ones((1, 200)))[0] == pytest.approx(expected, abs=1e-4)


def test_a_model_that_always_wins_has_a_finite_fit() -> None:
    found = length_controlled(np.ones(50), np.linspace(-10, 10, 50))
    assert found is not None
    assert 0.95 < found.value < 1.0
    assert math.isfinite(found.model)


@pytest.mark.parametrize("n", [1, 20])
def test_a_few_wins_without_a_loss_are_no_certainty(n: int) -> None:
    found = length_controlled(np.ones(n), np.linspace(-10, 10, n))
    assert found is not None
    assert found.low < 1.1 * wilson(n, n)[0]
    ranked = strengths(["a", "b", "c"], {(0, 1): np.ones(n), (0, 2): np.ones(n), (1, 2): np.full(n, 0.5)})
    assert all(one.high - one.low > 0.5 for one in ranked)


def test_equal_lengths_have_no_term_and_lengths_that_always_differ_by_as_much_have_one() -> None:
    outcomes = np.array([1.0, 0.0, 1.0, 0.5])
    same, always = (length_controlled(outcomes, np.full(4, by)) for by in (0.0, 100.0))
    assert same is not None
    assert always is not None
    assert (same.length, same.value) == (None, pytest.approx(0.6, abs=0.02))
    assert always.length is not None
    assert length_controlled(np.array([]), np.array([])) is None


def test_difficulty_is_a_term_of_its_own() -> None:
    chance = np.random.default_rng(1)
    difficulty = chance.random(1000)
    p = 1 / (1 + np.exp(-(0.5 + 2.0 * (difficulty - difficulty.mean()) / difficulty.std())))
    outcomes = (chance.random(1000) < p).astype(np.float64)
    found = length_controlled(outcomes, chance.normal(0, 100, 1000), difficulty)
    assert found is not None
    assert found.difficulty == pytest.approx(2.0, abs=0.4)
    assert found.value == pytest.approx(outcomes.mean(), abs=0.01)


# --- strengths ---


def games(skills: list[float], n: int, seed: int = 0) -> dict[tuple[int, int], FloatArray]:
    chance = np.random.default_rng(seed)
    return {
        (i, j): (chance.random(n) < 1 / (1 + np.exp(skills[j] - skills[i]))).astype(np.float64)
        for i, j in combinations(range(len(skills)), 2)
    }


def test_planted_strengths_are_found_within_their_intervals() -> None:
    found = strengths(["weak", "middle", "strong"], games([-1.0, 0.0, 1.0], 800))
    assert [one.model for one in found] == ["strong", "middle", "weak"]
    assert [one.strength for one in found] == pytest.approx([1.0, 0.0, -1.0], abs=0.15)
    assert all(one.low < one.strength < one.high for one in found)
    assert sum(one.strength for one in found) == pytest.approx(0.0, abs=1e-6)


def test_strengths_are_the_most_likely_ones() -> None:
    won = games([-1.0, 0.0, 1.0], 60)
    won[0, 2][:10], won[1, 2][5:9] = np.nan, 0.5

    def loss(strength: FloatArray) -> float:
        total = 1e-9 * float(strength @ strength)  # their sum is free
        for (i, j), values in won.items():
            wins, losses = np.nansum(values) + 0.1, np.nansum(1 - values) + 0.1
            difference = strength[i] - strength[j]
            total += wins * np.logaddexp(0, -difference) + losses * np.logaddexp(0, difference)
        return total

    expected = minimize(loss, np.zeros(3), tol=1e-12).x
    found = {one.model: one.strength for one in strengths(["0", "1", "2"], won)}
    assert [found[name] for name in "012"] == pytest.approx(expected - expected.mean(), abs=1e-4)


def test_ties_and_prompts_without_a_verdict_move_nobody() -> None:
    won = games([0.5, 0.0, -0.5], 300)
    more = {pair: np.concatenate([values, np.full(200, np.nan)]) for pair, values in won.items()}
    plain, padded = (
        {one.model: one.strength for one in strengths(["a", "b", "c"], outcomes)} for outcomes in (won, more)
    )
    assert plain == pytest.approx(padded)
    tied = strengths(["a", "b", "c"], {pair: np.full(50, 0.5) for pair in won})
    assert [one.strength for one in tied] == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)


def test_who_always_wins_has_a_finite_strength() -> None:
    found = strengths(["a", "b", "c"], {(0, 1): np.ones(20), (0, 2): np.ones(20), (1, 2): np.full(20, 0.5)})
    assert found[0].model == "a"
    assert all(math.isfinite(value) for one in found for value in (one.strength, one.low, one.high))
