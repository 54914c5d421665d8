"""One judge beside people's labels: each figure with its 95% interval.

A verdict's winner is the response with more than half of the probability; with exactly half, or with one vote for each
in the two orders, it is undecided and counts as half right. Who is right is asked only of items where people decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from rlaif.audit.table import FloatArray, Items, Judged
from rlaif.figures import Bin, Figure, calibration_of, kappa, mean, share

# A wider gap between two probabilities is no rounding error of their mean.
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class JudgeFigures:
    """What an audit says of one judge.

    `usable`, `refused`, `unparsed` and `undecided` (it said "tie" or "both bad") are shares of the items it was
    asked about. `consistency` is the share of verdicts with the same winner in both orders. `position_bias` is
    P(it picks what is shown first) - 0.5. `prefers_longer` stands beside `people_prefer_longer`, `length_bias` is the
    difference on the same items, and `longer_is_better` the accuracy of a judge that sees nothing but lengths.
    `overconfidence` is its mean confidence less its accuracy. `ece` has no interval: in small samples it is too high,
    for a perfectly calibrated judge too. `self_preference` is how much more often it prefers its own response to
    another's than people do.
    """

    judge: str
    asked: int
    usable: Figure
    refused: Figure
    unparsed: Figure
    undecided: Figure
    accuracy: Figure
    accuracy_one_order: Figure
    accuracy_consistent: Figure
    consistency: Figure
    kappa: Figure
    position_bias: Figure
    prefers_longer: Figure
    people_prefer_longer: Figure
    length_bias: Figure
    longer_is_better: Figure
    brier: Figure
    overconfidence: Figure
    ece: float | None
    calibration: tuple[Bin, ...]
    prefers_own: Figure
    self_preference: Figure
    calls: int | None
    cost_usd: float | None
    cost_per_label: float | None
    by_group: dict[str, Figure]


def figures(items: Items, judged: Judged, own: Collection[str] = ()) -> JudgeFigures:
    """All of them. `own` are the generators that count as the judge itself, by default the one of its name."""
    p = judged.p
    won = winners(p)
    gold = decided(items.gold)
    right = agreement(won, gold)
    known = ~np.isnan(right)
    same = _same_winner(judged)
    said = Counter(judged.outcomes)
    asked = len(judged.outcomes) - said[None]
    usable = int(np.count_nonzero(~np.isnan(p)))
    confidence = np.where(known, np.maximum(p, 1.0 - p), np.nan)
    ece, calibration = calibration_of(confidence[known], right[known])
    longer = np.sign(items.lengths[:, 0] - items.lengths[:, 1])
    longer_won = _towards(won, longer)
    longer_better = _towards(np.where(np.isnan(won), np.nan, items.gold), longer)
    own_side = _own_side(items, own or (judged.judge,))
    own_won = _towards(won, own_side)
    return JudgeFigures(
        judge=judged.judge,
        asked=asked,
        usable=share(usable, asked),
        refused=share(said["refusal"], asked),
        unparsed=share(said["unparsed"] + said["low_mass"], asked),
        undecided=share(said["tie"] + said["both_bad"], asked),
        accuracy=mean(right),
        accuracy_one_order=mean(agreement(winners(judged.p_ab), gold)),
        accuracy_consistent=mean(right[same == 1.0]),
        consistency=mean(same),
        kappa=kappa(won, winners(items.gold)),
        position_bias=_position_bias(judged),
        prefers_longer=mean(longer_won),
        people_prefer_longer=mean(longer_better),
        length_bias=mean(longer_won - longer_better, -1.0),
        longer_is_better=mean(np.where(known, agreement((longer + 1.0) / 2, gold), np.nan)),
        brier=mean((p - gold) ** 2),
        overconfidence=mean(confidence - right, -1.0),
        ece=ece,
        calibration=calibration,
        prefers_own=mean(own_won),
        self_preference=mean(own_won - _towards(items.gold, own_side), -1.0),
        calls=judged.calls,
        cost_usd=judged.cost_usd,
        cost_per_label=judged.cost_usd / usable if judged.cost_usd is not None and usable else None,
        by_group=_by_group(items, right),
    )


def winners(p: FloatArray) -> FloatArray:
    """1 where the first response wins, 0 where the second does, 0.5 undecided; nan stays."""
    half = p - 0.5
    return np.where(np.abs(half) < _SAME, 0.5, np.sign(half) / 2 + 0.5)


def decided(gold: FloatArray) -> FloatArray:
    """The labels without ties and shares of people below a majority: 1, 0 or nan."""
    won = winners(gold)
    return np.where(won == 0.5, np.nan, won)


def agreement(won: FloatArray, gold: FloatArray) -> FloatArray:
    """1 right, 0 wrong, 0.5 undecided; nan where either is."""
    return 1.0 - np.abs(won - gold)


def _same_winner(judged: Judged) -> FloatArray:
    """(n,) Whether both orders have the same winner, 1 or 0; nan where one is missing."""
    ab, ba = winners(judged.p_ab), winners(judged.p_ba)
    return np.where(np.isnan(ab + ba), np.nan, (ab == ba) & (ab != 0.5))


def _position_bias(judged: Judged) -> Figure:
    """Over items with both orders: in one order alone, a bias is not to be told from better first responses."""
    picked_first = (winners(judged.p_ab) + 1.0 - winners(judged.p_ba)) / 2
    return mean(picked_first - 0.5, -0.5, 0.5)


def _towards(won: FloatArray, side: FloatArray) -> FloatArray:
    """`won` seen from one response: the first where `side` is 1, the second where it is -1, else nan."""
    return np.where(side == 1.0, won, np.where(side == -1.0, 1.0 - won, np.nan))


def _own_side(items: Items, own: Collection[str]) -> FloatArray:
    """1 where only the first response is of the judge's own making, -1 the second."""
    if not items.generators:
        return np.zeros(len(items))
    return np.array([float((a in own) - (b in own)) if a and b else 0.0 for a, b in items.generators])


def _by_group(items: Items, right: FloatArray) -> dict[str, Figure]:
    names = sorted({group for group in items.groups if group is not None})
    groups = np.array(items.groups, dtype=object)
    return {name: mean(right[groups == name]) for name in names}


@dataclass(frozen=True, slots=True)
class Point:
    """Of the labelled verdicts with at least this confidence: how many there are, and their accuracy."""

    confidence: float
    coverage: float
    accuracy: Figure


def coverage_curve(items: Items, judged: Judged, points: int = 50) -> tuple[Point, ...]:
    """What is left, and how good it is, when only sure verdicts count; from the surest to all of them."""
    right = agreement(winners(judged.p), decided(items.gold))
    known = ~np.isnan(right)
    right, p = right[known], judged.p[known]
    if not len(right):
        return ()
    confidence = np.maximum(p, 1.0 - p)
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    # Equal confidences come together or not at all.
    ends = np.flatnonzero(np.append(np.diff(confidence) < 0, True)) + 1
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, points).round().astype(int))]
    return tuple(Point(float(confidence[end - 1]), end / len(right), mean(right[:end])) for end in ends.tolist())
