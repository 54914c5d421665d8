"""Judges and principles beside each other, against loops."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.audit.compare import conflicts, differences, mcnemar, principle_figures
from rlaif.audit.table import FloatArray, Items, Judged
from rlaif.figures import NOTHING

NAN = math.nan


def items(gold: FloatArray) -> Items:
    return Items(tuple(map(str, range(len(gold)))), gold, np.full((len(gold), 2), NAN))


def judged(name: str, p: list[float] | FloatArray, principles: tuple[str | None, ...] = ()) -> Judged:
    n = len(p)
    return Judged(name, np.array(p, float), np.full(n, NAN), ("ok",) * n, principles, both_orders=False)


@given(st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None)
def test_mcnemars_p_is_that_of_a_fair_coin_with_half_of_what_was_seen(only_first: int, only_second: int) -> None:
    n = only_first + only_second
    if n == 0:
        assert mcnemar(0, 0) is None
        return
    seen = comb(n, only_first)
    # Both tails: every split as unlikely as this one or more so; this one and its mirror image count half.
    expected = sum(comb(n, k) * (0.5 if comb(n, k) == seen else 1.0) for k in range(n + 1) if comb(n, k) <= seen) / 2**n
    if 2 * only_first == n:
        expected = 1.0  # no split is likelier: nothing speaks against equal judges
    assert mcnemar(only_first, only_second) == pytest.approx(expected)


def test_two_judges_differ_by_the_items_that_only_one_got_right() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 200).astype(float)
    a = np.where(rng.random(200) < 0.9, gold, 1 - gold)
    b = np.where(rng.random(200) < 0.7, gold, 1 - gold)
    a[:5], b[5:10], b[10] = NAN, 0.5, NAN
    (found,) = differences(items(gold), [judged("a", a), judged("b", b)])
    compared = [i for i in range(200) if not math.isnan(a[i] + b[i])]
    rights = [(1 - abs(a[i] - gold[i]), 1 - abs(b[i] - gold[i])) for i in compared]
    assert found.accuracy.n == len(compared) == 194
    assert found.accuracy.value == pytest.approx(sum(x - y for x, y in rights) / 194)
    assert found.only_first == sum(x > y for x, y in rights)
    assert found.only_second == sum(x < y for x, y in rights)
    assert found.mcnemar == mcnemar(found.only_first, found.only_second)
    assert found.mcnemar is not None
    assert found.mcnemar < 0.001

    # Resampling the items themselves gives the same interval.
    each = np.array([x - y for x, y in rights])
    means = sorted(each[rng.integers(0, 194, 194)].mean() for _ in range(10_000))
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((means[250], means[9750]), abs=0.012)
    assert differences(items(gold), [judged("a", a), judged("b", b)]) == (found,)  # drawn from the seed


def test_all_judges_can_be_held_against_one() -> None:
    three = [judged(name, [1, 0, 1]) for name in ("a", "b", "c")]
    gold = np.array([1.0, 1.0, 1.0])
    assert [(one.first, one.second) for one in differences(items(gold), three)] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [(one.first, one.second) for one in differences(items(gold), three, "b")] == [("a", "b"), ("c", "b")]


@pytest.mark.parametrize("gold", [[NAN, NAN], [0.5, 0.5], []])
def test_without_labels_there_is_no_difference_to_tell(gold: list[float]) -> None:
    (found,) = differences(items(np.array(gold)), [judged(name, [1.0] * len(gold)) for name in "ab"])
    assert (found.accuracy, found.mcnemar) == (NOTHING, None)
    json.dumps(asdict(found), allow_nan=False)


def test_how_often_a_principle_is_asked_decides_and_agrees() -> None:
    gold = np.array([1.0, 1.0, 0.0, NAN])
    by = ("kind", "short", "kind", "kind")
    first = Judged("a", np.array([0.9, 0.2, 0.55, 0.9]), np.full(4, NAN), ("ok", "ok", "ok", "ok"), by, False)
    second = Judged("b", np.array([0.7, NAN, NAN, NAN]), np.full(4, NAN), ("ok", "refusal", None, None), by, False)
    kind, short = principle_figures(items(gold), [first, second])
    assert (kind.principle, kind.asked, kind.decides.value, kind.decides.n) == ("kind", 4, 0.75, 4)
    assert (kind.accuracy.value, kind.accuracy.n) == (pytest.approx(2 / 3), 3)
    assert (short.principle, short.asked, short.decides.value, short.accuracy.value) == ("short", 2, 1.0, 0.0)


def test_principles_conflict_where_they_prefer_different_responses_of_an_item() -> None:
    kind = judged("j · kind", [0.9, 0.8, 0.2, 0.5], ("kind",) * 4)
    short = judged("j · short", [0.9, 0.1, 0.9, 0.9], ("short",) * 4)
    drawn = judged("other", [NAN, 0.2, 0.3, NAN], ("true", "kind", None, None))
    (found,) = conflicts(items(np.ones(4)), [kind, short, drawn])
    # The second item's p by "kind" is (0.8 + 0.2) / 2: no winner.
    assert found.principles == ("kind", "short")
    assert (found.conflicts.value, found.conflicts.n) == (0.5, 2)


def test_verdicts_without_principles_have_no_figures_of_them() -> None:
    plain = [judged("a", [1, 0]), judged("b", [1, 1])]
    assert principle_figures(items(np.ones(2)), plain) == ()
    assert conflicts(items(np.ones(2)), plain) == ()
