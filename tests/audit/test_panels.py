"""What panels of judges and of people say, against loops over the verdicts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations as pairs_of
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.audit.measures import agreement, winners
from rlaif.audit.panels import (
    Combination,
    alike,
    ballots,
    bradley_terry,
    combinations,
    dawid_skene,
    gold_weights,
    kappa_matrix,
    krippendorff_alpha,
    majority,
    panel_figures,
    spare,
    weighted,
)
from rlaif.audit.table import FloatArray, Items, Judged
from rlaif.figures import kappa
from rlaif.panel import combined, log_odds

NAN = math.nan
WON = st.sampled_from([0.0, 0.5, 1.0, NAN])


@st.composite
def verdicts(draw: st.DrawFn, least: int = 2) -> FloatArray:
    """They are (judges, items)."""
    judges, n = draw(st.integers(least, 4)), draw(st.integers(1, 12))
    return np.array(draw(st.lists(WON, min_size=judges * n, max_size=judges * n))).reshape(judges, n)


def cast(won: FloatArray) -> FloatArray:
    """The ballots of judges whose winner does not depend on the order."""
    return np.nan_to_num(2 * won - 1)


def items(gold: Sequence[float] | FloatArray, **known: object) -> Items:
    n = len(gold)
    return Items(tuple(map(str, range(n))), np.array(gold, float), np.full((n, 2), NAN), **known)  # type: ignore[arg-type]


def judges(won: FloatArray) -> list[Judged]:
    return [
        Judged(f"j{i}", row, np.full(len(row), NAN), ("ok",) * len(row), both_orders=False) for i, row in enumerate(won)
    ]


def noisy(gold: FloatArray, right: Sequence[float], seed: int = 0) -> FloatArray:
    """(judges, n) Verdicts that are right so often, independently."""
    rng = np.random.default_rng(seed)
    return np.array([np.where(rng.random(len(gold)) < share, gold, 1 - gold) for share in right])


@given(verdicts())
@settings(deadline=None)
def test_the_matrix_holds_the_kappa_of_each_two_raters(won: FloatArray) -> None:
    found = kappa_matrix(won)
    for i, row in enumerate(won):
        for j, other in enumerate(won):
            expected = kappa(row, other).value
            assert found[i][j] == (None if expected is None else pytest.approx(expected))


def alpha_by_pairs(labels: FloatArray) -> float | None:
    """1 - observed / expected disagreement over all pairs of labels, each item's weighted by 1 / (its labels - 1)."""
    units = [[x for x in column if not math.isnan(x)] for column in labels.T.tolist()]
    units = [unit for unit in units if len(unit) > 1]
    everything = [x for unit in units for x in unit]
    n = len(everything)
    observed = sum(sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units)
    expected = sum(a != b for a, b in permutations(everything, 2)) / (n - 1) if n else 0.0
    return 1 - observed / expected if expected else None


@given(verdicts())
@settings(deadline=None)
def test_alpha_is_one_less_the_disagreement_over_that_by_chance(won: FloatArray) -> None:
    expected = alpha_by_pairs(won)
    assert krippendorff_alpha(won) == (None if expected is None else pytest.approx(expected))


@given(verdicts(least=3))
@settings(deadline=None)
def test_a_judge_is_spare_where_the_majority_stays_without_it(won: FloatArray) -> None:
    for one in spare([f"j{i}" for i in range(len(won))], cast(won)):
        j = int(one.judge[1:])
        changes = []
        for column in won.T:
            others = [p for i, p in enumerate(column.tolist()) if i != j and p in (0.0, 1.0)]
            if column[j] in (0.0, 1.0) and others:
                with_it = combined("majority", [*others, float(column[j])])
                without = combined("majority", others)
                changes.append(abs(np.sign(round(with_it - 0.5, 9)) - np.sign(round(without - 0.5, 9))) / 2)
        assert one.n == len(changes)
        assert one.changes == (pytest.approx(sum(changes) / len(changes)) if changes else None)


def test_the_most_alike_come_first() -> None:
    gold = np.ones(300)
    won = noisy(gold, [0.7, 0.7, 0.7, 1.0])
    won[2] = np.where(np.arange(300) < 250, won[0], won[2])
    won[1, 5] = NAN
    found = alike(["a", "b", "c", "right"], won, gold)
    assert found[0].judges == ("a", "c")
    assert {one.judges for one in found} == set(pairs_of("abc", 2))
    for one in found:
        a, b = (1 - won["abc".index(name)] for name in one.judges)
        both = ~np.isnan(a + b)
        assert one.n == both.sum()
        assert one.correlation == pytest.approx(np.corrcoef(a[both], b[both])[0, 1])


@given(verdicts(), st.lists(st.sampled_from([-1.5, 0.0, 0.3, 2.0]), min_size=4, max_size=4))
@settings(deadline=None)
def test_verdicts_are_combined_as_an_export_combines_them(won: FloatArray, weights: list[float]) -> None:
    by_weight = weighted(cast(won), np.array(weights[: len(won)]))
    for i, column in enumerate(won.T.tolist()):
        said = [(p, weight) for p, weight in zip(column, weights, strict=False) if not math.isnan(p)]
        expected = combined("weighted", [p for p, _ in said], [weight for _, weight in said]) if said else 0.5
        assert by_weight[i] == (0.5 if abs(expected - 0.5) < 1e-9 else float(expected > 0.5))
        plain = combined("majority", [p for p, _ in said]) if said else 0.5
        assert majority(cast(won))[i] == (0.5 if abs(plain - 0.5) < 1e-9 else float(plain > 0.5))


def by_name(found: Sequence[Combination]) -> dict[str, float]:
    return {one.method: one.accuracy.value for one in found if one.accuracy.value is not None}


def test_labels_mend_a_panel_with_an_adversary() -> None:
    gold = np.random.default_rng(1).integers(0, 2, 400).astype(float)
    found = by_name(combinations(judges(noisy(gold, [0.8, 0.8, 0.1])), gold))
    assert set(found) == {"mean", "majority", "weighted", "best", "dawid_skene"}
    assert found["weighted"] > found["majority"] + 0.15
    assert found["weighted"] > found["best"] > found["majority"]


def test_weights_are_measured_on_other_labels_than_they_are_made_by() -> None:
    gold = np.random.default_rng(2).integers(0, 2, 100).astype(float)
    coins = noisy(gold, [0.5] * 60)
    weights = gold_weights([str(i) for i in range(60)], coins, gold)
    assert weights is not None
    by_own_labels = agreement(weighted(cast(coins), np.array(list(weights.values()))), gold).mean()
    assert by_own_labels > 0.75
    assert by_name(combinations(judges(coins), gold))["weighted"] == pytest.approx(0.5, abs=0.15)


def test_fewer_labels_than_twenty_make_no_weights() -> None:
    gold = np.array([1.0] * 19 + [NAN] * 30)
    won = noisy(np.ones(49), [0.9, 0.8])
    assert set(by_name(combinations(judges(won), gold))) == {"mean", "majority", "dawid_skene"}
    assert gold_weights(["a", "b"], won, gold) is None
    gold[19] = 1.0
    weights = gold_weights(["a", "b"], won, gold)
    right = agreement(won, gold)[:, :20].sum(axis=1)
    assert weights == log_odds({"a": (right[0], 20), "b": (right[1], 20)})


def expectation_maximisation(won: FloatArray, rounds: int) -> list[float]:
    """P(first) of each item by Dawid & Skene, in loops, for verdicts of 0 and 1."""
    judged, n = won.shape
    p = [sum(won[:, i]) / judged for i in range(n)]
    for _ in range(rounds):
        prior = sum(p) / n
        # confusion[j][truth] = P(judge j says 1)
        says = [
            (
                sum((1 - p[i]) * won[j, i] for i in range(n)) / sum(1 - q for q in p),
                sum(p[i] * won[j, i] for i in range(n)) / sum(p),
            )
            for j in range(judged)
        ]
        for i in range(n):
            first, second = prior, 1 - prior
            for j in range(judged):
                first *= says[j][1] if won[j, i] else 1 - says[j][1]
                second *= says[j][0] if won[j, i] else 1 - says[j][0]
            p[i] = first / (first + second)
    return p


def test_dawid_skene_finds_what_loops_find_and_more_than_the_majority() -> None:
    gold = np.random.default_rng(3).integers(0, 2, 300).astype(float)
    won = noisy(gold, [0.95, 0.9, 0.6, 0.55, 0.55])
    found = dawid_skene(won)
    p = np.array(expectation_maximisation(won, 50))
    sure = np.abs(p - 0.5) > 0.3  # it stops when little changes, before the last doubts are settled
    assert sure.mean() > 0.8
    assert (found == (p > 0.5))[sure].all()
    assert (found == gold).mean() > (majority(cast(won)) == gold).mean() + 0.05


def test_dawid_skene_leaves_out_what_nobody_judged() -> None:
    found = dawid_skene(np.array([[1.0, NAN, 0.0, 0.5], [1.0, NAN, 0.0, NAN]]))
    assert found[0] == 1.0
    assert math.isnan(found[1])
    assert np.isnan(dawid_skene(np.full((2, 3), NAN))).all()


def minorise_maximise(games: list[tuple[str, str, float]], more: float, rounds: int = 3000) -> dict[str, float]:
    """Bradley-Terry by Hunter's MM in loops, each two that met having won `more` times more."""
    met = {frozenset(game[:2]) for game in games}
    names = sorted({name for game in games for name in game[:2]})
    wins = dict.fromkeys(names, 0.0)
    count = dict.fromkeys(met, 2 * more)
    for a, b, won in games:
        wins[a] += won
        wins[b] += 1 - won
        count[frozenset((a, b))] += 1
    for pair in met:
        for name in pair:
            wins[name] += more
    strength = dict.fromkeys(names, 1.0)
    for _ in range(rounds):
        strength = {
            name: wins[name] / sum(n / sum(strength[x] for x in pair) for pair, n in count.items() if name in pair)
            for name in names
        }
    logs = {name: math.log(one) for name, one in strength.items()}
    return {name: one - sum(logs.values()) / len(logs) for name, one in logs.items()}


def test_strengths_are_those_of_bradley_terry_with_ties_half_a_win() -> None:
    rng = np.random.default_rng(4)
    pairs = [(str(a), str(b)) for a, b in rng.choice(list("abcd"), (120, 2))]
    won = rng.choice([0.0, 0.5, 1.0, NAN], 120)
    won[[pair == ("a", "b") for pair in pairs]] = 1.0
    found = bradley_terry(pairs, won)
    games = [(a, b, w) for (a, b), w in zip(pairs, won.tolist(), strict=True) if a != b and not math.isnan(w)]
    assert found is not None
    assert found.n == len(games)
    assert found.components == (("a", "b", "c", "d"),)
    assert found.strengths == pytest.approx(minorise_maximise(games, 0.1), abs=1e-4)


def test_generators_that_never_met_are_told_apart() -> None:
    found = bradley_terry([("a", "b"), ("c", "d"), ("c", "d"), ("e", "e")], np.array([1.0, 0.0, 1.0, 1.0]))
    assert found is not None
    assert found.components == (("a", "b"), ("c", "d"))
    assert found.strengths["a"] == pytest.approx(-found.strengths["b"])
    assert 0 < found.strengths["a"] < 5  # who won always is not infinitely strong
    assert found.strengths["c"] == pytest.approx(0.0, abs=1e-6)
    assert bradley_terry([("a", "a")], np.array([1.0])) is None


def test_the_panel_of_a_file() -> None:
    gold = np.random.default_rng(5).integers(0, 2, 60).astype(float)
    people = noisy(gold, [0.95, 0.9], seed=1)
    audited = items(
        gold, annotators={"ann": people[0], "bob": people[1]}, generators=tuple([("x", "y"), ("y", None)] * 30)
    )
    found = panel_figures(audited, judges(noisy(gold, [0.9, 0.8, 0.7])))
    assert found.judges is not None
    assert found.annotators is not None
    assert found.judges.raters == ("j0", "j1", "j2")
    assert found.annotators.kappas[0][1] == pytest.approx(kappa(*people).value)
    assert found.annotators_to_gold["ann"] == kappa(people[0], gold)
    assert len(found.spare) == len(found.alike) == 3
    assert found.weights is not None
    assert found.weights["j0"] > found.weights["j2"] > 0
    assert [(one.source, one.n) for one in found.strengths] == [("people", 30), ("judges", 30)]
    json.dumps(asdict(found), allow_nan=False)


@pytest.mark.parametrize(
    ("gold", "won"),
    [
        ([], [[], []]),
        ([NAN], [[NAN], [NAN]]),
        ([NAN, NAN], [[1, 0], [1, 0]]),
        ([1, 0], [[NAN, NAN], [NAN, NAN]]),
        ([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]]),
        ([1], [[1], [0]]),
        ([1] * 25, [[1] * 25, [1] * 25, [1] * 25]),
        ([1] * 25, [[NAN] * 25, [0] * 25]),
        ([1, 0], [[1, 0]]),
    ],
)
def test_where_a_panel_has_nothing_to_say_its_figures_are_empty(gold: list[float], won: list[list[float]]) -> None:
    n = len(gold)
    found = panel_figures(items(gold, generators=(("a", "b"),) * n), judges(np.array(won, float).reshape(len(won), n)))
    json.dumps(asdict(found), allow_nan=False)
    if len(won) == 1:
        assert (found.judges, found.spare, found.combinations, found.weights) == (None, (), (), None)


def test_equal_judges_weigh_nearly_the_same_and_one_that_is_wrong_is_turned_round() -> None:
    equal = log_odds({"a": (15, 20), "b": (16, 20), "c": (14, 20)})
    assert max(equal.values()) - min(equal.values()) < 0.05
    assert sum(equal.values()) / 3 == pytest.approx(math.log(3), abs=0.1)
    mixed = log_odds({"a": (15, 20), "b": (16, 20), "c": (3, 20)})
    assert mixed["c"] < -1
    assert mixed["b"] > mixed["a"] > 0.7


@given(st.dictionaries(st.text(max_size=2), st.integers(0, 60).flatmap(
    lambda n: st.tuples(st.integers(0, 2 * n).map(lambda k: k / 2), st.just(n))
)))  # fmt: skip
@settings(deadline=None)
def test_weights_are_finite_and_in_the_order_of_the_accuracies(right: dict[str, tuple[float, int]]) -> None:
    weights = log_odds(right)
    assert set(weights) == set(right)
    assert all(map(math.isfinite, weights.values()))
    for a, b in permutations(right, 2):
        if right[a][1] == right[b][1] and right[a][0] > right[b][0]:
            assert weights[a] > weights[b]


def test_a_panel_is_audited_as_an_export_puts_it_together() -> None:
    rng = np.random.default_rng(7)
    judges = [hard(f"j{i}", rng.random((2, 400)).round(2)) for i in range(3)]
    weights = [2.0, 0.5, -1.0]
    for panel, found in (
        ("majority", majority(ballots(judges, 400))),
        ("weighted", weighted(ballots(judges, 400), np.array(weights))),
    ):
        for i, winner in enumerate(found):
            both = [combined(panel, [float(p[i]) for p in order], weights) for order in orders(judges)]
            assert winner == pytest.approx(float(winners(np.array([np.mean(both)]))[0]))


def hard(name: str, p: FloatArray) -> Judged:
    return Judged(name, p[0], p[1], ("ok",) * p.shape[1])


def orders(judges: list[Judged]) -> tuple[list[FloatArray], list[FloatArray]]:
    return [judged.p_ab for judged in judges], [judged.p_ba for judged in judges]
