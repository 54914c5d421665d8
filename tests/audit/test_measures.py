"""The figures of one judge, against loops over the items and against scikit-learn."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, cohen_kappa_score

from rlaif.audit.measures import coverage_curve, figures, winners
from rlaif.audit.table import FloatArray, Items, Judged
from rlaif.figures import NOTHING, kappa, mean
from rlaif.statistics import wilson
from rlaif.types import VerdictOutcome

NAN = math.nan


def column(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float64)


def items(gold: FloatArray, **known: Any) -> Items:
    n = len(gold)
    return Items(tuple(map(str, range(n))), gold, known.pop("lengths", np.full((n, 2), NAN)), **known)


def judged(p_ab: FloatArray, p_ba: FloatArray | None = None, name: str = "judge", **known: Any) -> Judged:
    n = len(p_ab)
    outcomes: tuple[VerdictOutcome, ...] = known.pop("outcomes", ("ok",) * n)
    return Judged(
        name, p_ab, np.full(n, NAN) if p_ba is None else p_ba, outcomes, both_orders=p_ba is not None, **known
    )


# What a judge may say of an item in one order, and what people may say.
SAID = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 2 / 3, 0.9, 1.0, NAN])
LABEL = st.sampled_from([0.0, 0.5, 1.0, NAN])
LENGTH = st.sampled_from([10.0, 20.0, 30.0, NAN])
WRITER = st.sampled_from(["judge", "other", None])
ITEM = st.tuples(SAID, SAID, LABEL, st.tuples(LENGTH, LENGTH), st.tuples(WRITER, WRITER))


def side(p: float) -> float:
    return 0.5 if abs(p - 0.5) < 1e-9 else float(p > 0.5)


def average(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


# P in one order and in the other, the label, the lengths, the generators.
Row = tuple[float, float, float, tuple[float, float], tuple[str | None, str | None]]


def slowly(rows: list[Row]) -> dict[str, float | None]:
    """Each figure's value by the definition in words, item by item."""
    found: dict[str, list[float]] = {
        name: []
        for name in (
            "accuracy", "accuracy_one_order", "accuracy_consistent", "consistency", "position_bias", "prefers_longer",
            "people_prefer_longer", "length_bias", "longer_is_better", "brier", "overconfidence", "prefers_own",
            "self_preference",
        )
    }  # fmt: skip
    for ab, ba, gold, (long_a, long_b), (by_a, by_b) in rows:
        people = not math.isnan(gold)
        if gold in (0.0, 1.0) and not math.isnan(ab):
            found["accuracy_one_order"].append(1 - abs(side(ab) - gold))
        if math.isnan(ab) or math.isnan(ba):
            continue
        p = (ab + ba) / 2
        won = side(p)
        same = side(ab) == side(ba) != 0.5
        found["consistency"].append(float(same))
        # Shown first are the first response in one order and the second response in the other.
        found["position_bias"].append((side(ab) + (1 - side(ba))) / 2 - 0.5)
        if gold in (0.0, 1.0):
            right = 1 - abs(won - gold)
            found["accuracy"].append(right)
            if same:
                found["accuracy_consistent"].append(right)
            found["brier"].append((p - gold) ** 2)
            found["overconfidence"].append(max(p, 1 - p) - right)
            if not math.isnan(long_a + long_b):
                pick = 0.5 if long_a == long_b else float(long_a > long_b)
                found["longer_is_better"].append(1 - abs(pick - gold))
        if long_a != long_b and not math.isnan(long_a + long_b):
            found["prefers_longer"].append(won if long_a > long_b else 1 - won)
            if people:
                found["people_prefer_longer"].append(gold if long_a > long_b else 1 - gold)
                found["length_bias"].append(found["prefers_longer"][-1] - found["people_prefer_longer"][-1])
        if by_a and by_b and (by_a == "judge") != (by_b == "judge"):
            found["prefers_own"].append(won if by_a == "judge" else 1 - won)
            if people:
                own = gold if by_a == "judge" else 1 - gold
                found["self_preference"].append(found["prefers_own"][-1] - own)
    return {name: average(values) for name, values in found.items()}


@given(st.lists(ITEM, max_size=25))
@settings(max_examples=300, deadline=None)
def test_each_figure_is_what_a_loop_over_the_items_finds(rows: list[Row]) -> None:
    ab, ba, gold = (column(*(row[i] for row in rows)) for i in range(3))
    lengths = np.array([row[3] for row in rows], dtype=float).reshape(len(rows), 2)
    found = figures(items(gold, lengths=lengths, generators=tuple(row[4] for row in rows)), judged(ab, ba))
    for name, value in slowly(rows).items():
        figure = getattr(found, name)
        assert figure.value == (None if value is None else pytest.approx(value, abs=1e-12)), name
        if value is not None:
            assert figure.low - 1e-12 <= figure.value <= figure.high + 1e-12, name
    json.dumps(asdict(found), allow_nan=False)


@given(st.lists(st.tuples(LABEL, LABEL), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_kappa_is_that_of_scikit_learn(rows: list[tuple[float, float]]) -> None:
    a, b = column(*(row[0] for row in rows)), column(*(row[1] for row in rows))
    both = [(int(2 * x), int(2 * y)) for x, y in rows if not math.isnan(x + y)]
    found = kappa(a, b)
    assert found.n == len(both)
    if len({label for pair in both for label in pair}) < 2:
        assert found.value is None
        return
    assert found.value == pytest.approx(cohen_kappa_score(*zip(*both, strict=True)), abs=1e-12)
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.value + 1e-12 <= found.high + 2e-12 <= 1 + 3e-12


def test_kappas_interval_is_as_wide_as_leaving_out_one_item_at_a_time_says() -> None:
    rng = np.random.default_rng(0)
    gold = rng.choice([0.0, 0.5, 1.0], 1500, p=[0.6, 0.1, 0.3])
    said = np.where(rng.random(1500) < 0.8, gold, rng.choice([0.0, 0.5, 1.0], 1500))
    left = np.array([kappa(np.delete(said, i), np.delete(gold, i)).value for i in range(1500)], float)
    error = math.sqrt(1499 / 1500 * ((left - left.mean()) ** 2).sum())
    found = kappa(said, gold)
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.02)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=200))
@settings(deadline=None)
def test_the_interval_of_zeros_and_ones_is_wilsons(values: list[float]) -> None:
    found = mean(column(*values))
    assert (found.low, found.high) == pytest.approx(wilson(sum(values), len(values)))


def test_what_varies_less_than_coin_tosses_has_a_narrower_interval_and_no_variance_is_not_believed() -> None:
    rng = np.random.default_rng(0)
    values = rng.beta(20, 20, 1000)
    found = mean(values)
    assert found.high is not None
    assert found.low is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(1000), rel=0.05)
    always = mean(np.full(50, 0.5))
    assert always.low is not None
    assert 0.01 < 0.5 - always.low < 0.05


def test_the_brier_score_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    gold, p = rng.integers(0, 2, 200).astype(float), rng.random(200)
    found = figures(items(gold), judged(p))
    assert found.brier.value == pytest.approx(brier_score_loss(gold, p))


def test_calibration_bins_hold_equally_many_and_equal_confidences_stay_together() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(400)
    gold = (rng.random(400) < p).astype(float)
    found = figures(items(gold), judged(p))
    order = np.argsort(np.maximum(p, 1 - p))
    apart = []
    for part in np.array_split(order, 10):
        sure = [max(p[i], 1 - p[i]) for i in part]
        right = [float((p[i] > 0.5) == gold[i]) for i in part]
        apart.append((sum(sure) / 40, sum(right) / 40, 40))
    assert [(one.confidence, one.accuracy, one.n) for one in found.calibration] == [pytest.approx(one) for one in apart]
    assert found.ece == pytest.approx(sum(n * abs(sure - right) for sure, right, n in apart) / 400)

    hard = figures(items(column(1, 1, 1, 0)), judged(column(1, 1, 0.5, 1)))
    assert [(one.confidence, one.accuracy, one.n) for one in hard.calibration] == [
        (0.5, 0.5, 1),
        (1.0, pytest.approx(2 / 3), 3),
    ]


def test_a_judge_that_always_picks_what_is_shown_first_is_at_chance_and_never_consistent() -> None:
    found = figures(items(column(1, 0, 1, 1)), judged(np.ones(4), np.zeros(4)))
    assert (found.accuracy.value, found.consistency.value, found.position_bias.value) == (0.5, 0.0, 0.5)
    assert found.accuracy_one_order.value == 0.75
    assert found.accuracy_consistent == NOTHING


def test_one_order_alone_shows_no_position_bias_and_no_consistency() -> None:
    found = figures(items(column(1, 0, 1)), judged(column(1, 1, 1)))
    assert found.accuracy.value == found.accuracy_one_order.value == pytest.approx(2 / 3)
    assert found.position_bias == found.consistency == found.accuracy_consistent == NOTHING


def test_refusals_garbage_and_ties_are_shares_of_what_was_asked() -> None:
    outcomes: tuple[VerdictOutcome | None, ...] = ("ok", "refusal", "unparsed", "low_mass", "both_bad", None)
    p = column(0.9, NAN, NAN, NAN, 0.5, NAN)
    found = figures(items(column(1, 1, 1, 1, 1, 1)), judged(p, p, outcomes=outcomes, calls=10, cost_usd=3.0))
    assert found.asked == 5
    assert [one.value for one in (found.usable, found.refused, found.unparsed, found.undecided)] == [0.4, 0.2, 0.4, 0.2]
    assert (found.calls, found.cost_usd, found.cost_per_label) == (10, 3.0, 1.5)


def test_a_tie_of_people_makes_nobody_right_and_is_a_label_of_kappa() -> None:
    found = figures(items(column(0.5, 1, 0, 0.5)), judged(column(0.5, 1, 0, 0.5)))
    assert (found.accuracy.n, found.accuracy.value) == (2, 1.0)
    assert (found.kappa.n, found.kappa.value) == (4, 1.0)


def test_own_generators_can_be_named() -> None:
    written = items(column(0, 0, 1), generators=(("mine", "b"), ("b", "mine"), ("b", "c")))
    found = figures(written, judged(column(1, 0, 1), name="a judge"))
    assert found.prefers_own == NOTHING
    found = figures(written, judged(column(1, 0, 1), name="a judge"), own={"mine"})
    assert (found.prefers_own.value, found.self_preference.value) == (1.0, 0.5)


def test_accuracy_by_group() -> None:
    found = figures(items(column(1, 1, 0, 1), groups=("x", "y", "x", None)), judged(column(1, 0, 0, 1)))
    assert {name: one.value for name, one in found.by_group.items()} == {"x": 1.0, "y": 0.0}


@pytest.mark.parametrize(
    ("gold", "p"),
    [
        (column(), column()),
        (column(NAN), column(NAN)),
        (column(NAN, NAN), column(0.7, 0.2)),
        (column(1, 0), column(NAN, NAN)),
        (column(0.5, 0.5), column(0.5, 0.5)),
        (column(1), column(1)),
    ],
)
@pytest.mark.parametrize("both", [True, False])
def test_where_nothing_can_be_said_a_figure_is_empty(gold: FloatArray, p: FloatArray, both: bool) -> None:
    found = figures(items(gold), judged(p, p if both else None))
    json.dumps(asdict(found), allow_nan=False)
    decided = not (len(gold) == 0 or np.isnan(gold + p).all() or (gold == 0.5).all())
    assert (found.accuracy.value is None) is not decided
    assert (found.ece is None) is not decided
    assert found.cost_per_label is None
    assert found.length_bias == found.self_preference == NOTHING


def test_the_curve_goes_from_the_surest_verdicts_to_all() -> None:
    found = coverage_curve(items(column(1, 0, 1, 1, NAN)), judged(column(0.9, 0.2, 0.6, 0.4, 0.99)))
    assert [(round(one.confidence, 9), one.coverage, one.accuracy.value) for one in found] == [
        (0.9, 0.25, 1.0),
        (0.8, 0.5, 1.0),
        (0.6, 1.0, 0.75),
    ]
    assert coverage_curve(items(column(NAN)), judged(column(1))) == ()
    many = coverage_curve(items(np.ones(999)), judged(np.linspace(0.5, 1, 999)), points=20)
    assert len(many) == 20
    assert many[-1].accuracy.n == 999


def test_winners() -> None:
    assert winners(column(0.2, 0.5, 1 / 3 + 1 / 6, 0.7)).tolist() == [0.0, 0.5, 0.5, 1.0]
    assert np.isnan(winners(column(NAN))).all()


def test_an_empty_figure_is_written_as_one() -> None:
    assert asdict(NOTHING) == {"value": None, "low": None, "high": None, "n": 0}
    assert mean(column(NAN, NAN)) is NOTHING
