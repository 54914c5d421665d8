"""What is said of a reward model by its scores: accuracy, calibration, ranks, and what length has to do with it.

A model trained on comparisons knows its scores only up to a constant for each prompt, so all but `scores` is of
differences between answers to one prompt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.evaluate.reward_pairs import Group
from rlaif.figures import NOTHING, Bin, Figure, FloatArray, calibration_of, mean
from rlaif.judges.ensemble import Combine
from rlaif.statistics import Z_95

_THIRDS = 3
_MOST_TAU = 5000  # pairs; a rank correlation looks at every two of them

Scores = tuple[float | None, ...]  # of a group's answers


@dataclass(frozen=True, slots=True)
class Length:
    """What length has to do with it.

    `correlation`: of a pair's difference in score with that in length (Spearman). `longer_is_better`: the accuracy
    of choosing the longer answer, and `gain` how much better the model is on the same pairs; the others are the
    model's accuracy where the better answer is longer, and where it is shorter.
    """

    correlation: Figure
    longer_is_better: Figure
    gain: Figure
    accuracy_longer: Figure
    accuracy_shorter: Figure


@dataclass(frozen=True, slots=True)
class RewardFigures:
    """What an evaluation says of one reward model, or of several together.

    `accuracy`, `brier`, `overconfidence` and `kendall`, tau-b with the ratings of a prompt's answers, are means over
    prompts; an even score is half right. `kendall_margins` is tau-b of the pairs' differences with the data's margins.
    `brier`, `ece` and `overconfidence` are of sigmoid(difference), for which Bradley and Terry's model stands.
    """

    model: str
    identity: str | None
    pairs: int
    prompts: int
    failures: dict[str, int]
    accuracy: Figure
    kendall: Figure
    kendall_margins: Figure
    brier: Figure
    ece: float | None
    overconfidence: Figure
    calibration: tuple[Bin, ...]
    length: Length
    margin: float | None
    scores: dict[str, float]


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Whether an ensemble's spread, the standard deviation of its members' differences, tells of its errors.

    `correlation` is Spearman's of the spread with being wrong; `thirds` is the accuracy in each third of the pairs,
    the one with the least spread first.
    """

    members: tuple[str, ...]
    combine: Combine
    spread: float
    correlation: Figure
    thirds: tuple[Figure, ...]
    unanimous: Figure
    divided: Figure


@dataclass(frozen=True, slots=True)
class Evaluation:
    data: str
    shape: str
    splits: tuple[str, ...]
    dropped: dict[str, int]
    models: tuple[RewardFigures, ...]
    ensemble: Uncertainty | None = None


def reward_figures(
    name: str,
    groups: Sequence[Group],
    scores: Sequence[Scores],
    identity: str | None = None,
    failures: Mapping[str, int] | None = None,
) -> RewardFigures:
    """Of the pairs whose answers both have a score."""
    pairs = _Pairs.of(groups, scores)
    right = _right(pairs.difference)
    known = np.array([score for of_group in scores for score in of_group if score is not None], dtype=np.float64)
    p = (1.0 + np.tanh(pairs.difference / 2)) / 2
    confidence = np.maximum(p, 1.0 - p)
    ece, calibration = calibration_of(confidence, right)
    longer = pairs.longer
    margins = ~np.isnan(pairs.margin)
    return RewardFigures(
        model=name,
        identity=identity,
        pairs=len(right),
        prompts=len(np.unique(pairs.group)),
        failures=dict(failures or {}),
        accuracy=_by_group(right, pairs.group),
        kendall=mean(_kendalls(groups, scores), -1.0),
        kendall_margins=_kendall_margins(pairs.difference[margins], pairs.margin[margins]),
        brier=_by_group((1.0 - p) ** 2, pairs.group),
        ece=ece,
        overconfidence=_by_group(confidence - right, pairs.group, -1.0),
        calibration=calibration,
        length=Length(
            correlation=_spearman_figure(pairs.difference, longer),
            longer_is_better=_by_group(_right(longer), pairs.group),
            gain=_by_group(right - _right(longer), pairs.group, -1.0),
            accuracy_longer=_by_group(right[longer > 0], pairs.group[longer > 0]),
            accuracy_shorter=_by_group(right[longer < 0], pairs.group[longer < 0]),
        ),
        margin=float(pairs.difference.mean()) if len(right) else None,
        scores=_five(known),
    )


def uncertainty(
    names: Sequence[str],
    combine: Combine,
    groups: Sequence[Group],
    members: Sequence[Sequence[Scores]],
    together: Sequence[Scores],
) -> Uncertainty:
    """Of the pairs that all members have scores for."""
    common = [
        [
            tuple(None if whole is None else score for score, whole in zip(own, all_of_them, strict=True))
            for own, all_of_them in zip(member, together, strict=True)
        ]
        for member in members
    ]
    differences = np.array([_Pairs.of(groups, scores).difference for scores in common])
    pairs = _Pairs.of(groups, together)
    right = _right(pairs.difference)
    if not len(right):
        return Uncertainty(tuple(names), combine, 0.0, NOTHING, (), NOTHING, NOTHING)
    spread = differences.std(axis=0, ddof=1)
    one_voice = np.abs(np.sign(differences).sum(axis=0)) == len(members)
    order = np.argsort(spread, kind="stable")
    thirds = tuple(_by_group(right[part], pairs.group[part]) for part in np.array_split(order, _THIRDS) if len(part))
    return Uncertainty(
        members=tuple(names),
        combine=combine,
        spread=float(spread.mean()),
        correlation=_spearman_figure(spread, 1.0 - right),
        thirds=thirds,
        unanimous=_by_group(right[one_voice], pairs.group[one_voice]),
        divided=_by_group(right[~one_voice], pairs.group[~one_voice]),
    )


# --- pairs ---


@dataclass(frozen=True, slots=True)
class _Pairs:
    """(n,) each: of the pairs that are known the better one's score less the other's, the same of their lengths.

    `margin` is the data's own (nan: none), `group` the number of the prompt.
    """

    difference: FloatArray
    longer: FloatArray
    margin: FloatArray
    group: FloatArray

    @staticmethod
    def of(groups: Sequence[Group], scores: Sequence[Scores]) -> _Pairs:
        rows: list[tuple[float, float, float, float]] = []
        for number, (group, own) in enumerate(zip(groups, scores, strict=True)):
            lengths = group.lengths
            for better, worse, margin in group.pairs:
                one, other = own[better], own[worse]
                if one is not None and other is not None:
                    given = math.nan if margin is None else margin
                    rows.append((one - other, lengths[better] - lengths[worse], given, number))
        columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
        return _Pairs(*columns)


def _right(difference: FloatArray) -> FloatArray:
    """1, 0, or 0.5 for no difference."""
    return np.asarray((np.sign(difference) + 1.0) / 2)


def _by_group(values: FloatArray, group: FloatArray, lowest: float = 0.0) -> Figure:
    """The mean of each prompt's mean: pairs of one prompt are no independent observations."""
    if not len(values):
        return NOTHING
    _, places = np.unique(group, return_inverse=True)
    return mean(np.bincount(places, values) / np.bincount(places), lowest)


def _five(values: FloatArray) -> dict[str, float]:
    if not len(values):
        return {}
    ends = {"lowest": values.min(), "highest": values.max()}
    return {name: float(v) for name, v in {"mean": values.mean(), "deviation": values.std(), **ends}.items()}


# --- correlation by ranks ---


def kendall(a: FloatArray, b: FloatArray) -> float:
    """Tau-b; nan where one of them says the same of all."""
    agree, of_a, of_b = 0.0, 0.0, 0.0
    for i in range(len(a) - 1):
        one, other = np.sign(a[i + 1 :] - a[i]), np.sign(b[i + 1 :] - b[i])
        agree += float(one @ other)
        of_a += float(one @ one)
        of_b += float(other @ other)
    return agree / math.sqrt(of_a * of_b) if of_a and of_b else math.nan


def spearman(a: FloatArray, b: FloatArray) -> float:
    """Rho; nan where one of them says the same of all."""
    one, other = _ranks(a), _ranks(b)
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / size if size else math.nan


def _ranks(values: FloatArray) -> FloatArray:
    """Equal ones share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], dtype=np.float64)


def _kendalls(groups: Sequence[Group], scores: Sequence[Scores]) -> FloatArray:
    """Of each group with ratings; nan where there is none."""
    found: list[float] = []
    for group, own in zip(groups, scores, strict=True):
        if group.ratings is None:
            continue
        known = [(rating, score) for rating, score in zip(group.ratings, own, strict=True) if score is not None]
        ratings, given = np.array(known, dtype=np.float64).reshape(-1, 2).T
        found.append(kendall(ratings, given))
    return np.array(found, dtype=np.float64)


def _kendall_margins(differences: FloatArray, margins: FloatArray) -> Figure:
    """Its interval by Fieller, Hartley & Pearson 1957."""
    a, b = differences[:_MOST_TAU], margins[:_MOST_TAU]
    return _by_z(kendall(a, b), len(a), math.sqrt(0.437 / max(1, len(a) - 4)))


def _spearman_figure(a: FloatArray, b: FloatArray) -> Figure:
    """Its interval by Bonett & Wright 2000."""
    value = spearman(a, b) if len(a) else math.nan
    return _by_z(value, len(a), math.sqrt((1 + value**2 / 2) / max(1, len(a) - 3)))


def _by_z(value: float, n: int, error: float) -> Figure:
    if math.isnan(value) or n < 5:
        return Figure(None, None, None, n)
    z = math.atanh(max(-1 + 1e-9, min(1 - 1e-9, value)))
    return Figure(value, math.tanh(z - Z_95 * error), math.tanh(z + Z_95 * error), n)
