"""Judges beside each other on the same items, and principles beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from rlaif.audit.measures import agreement, decided, winners
from rlaif.audit.panels import won_by
from rlaif.audit.table import FloatArray, Items, Judged
from rlaif.figures import NOTHING, Figure, mean, share

_RESAMPLES = 10_000
# A principle decides where the judge is at least so far from not knowing.
_DECIDES = 0.1


@dataclass(frozen=True, slots=True)
class Difference:
    """Two judges on the `n` labelled items that both judged.

    `accuracy` is that of the first less that of the second. `only_first` and `only_second` count the items that only
    one of them got right, and `mcnemar` is the p-value (mid-p, two-sided) of so uneven a split if both were equally
    good; items that either left undecided are not among these.
    """

    first: str
    second: str
    accuracy: Figure
    only_first: int
    only_second: int
    mcnemar: float | None


@dataclass(frozen=True, slots=True)
class PrincipleFigures:
    """`asked`: verdicts by this principle; `decides`: the share of the usable ones where it matters."""

    principle: str
    asked: int
    decides: Figure
    accuracy: Figure


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two principles on the items that both have a winner for, and how often these are not the same."""

    principles: tuple[str, str]
    conflicts: Figure


def differences(
    items: Items, judges: Sequence[Judged], against: str | None = None, seed: int = 0
) -> tuple[Difference, ...]:
    """Of each two judges in their order, or of each with the one named `against`."""
    right = agreement(won_by(judges, len(items)), decided(items.gold))
    names = [judged.judge for judged in judges]
    pairs = combinations(range(len(judges)), 2)
    return tuple(
        _difference(names[i], names[j], right[i], right[j], seed)
        for i, j in (pairs if against is None else ((i, names.index(against)) for i in range(len(judges))))
        if names[i] != against
    )


def mcnemar(only_first: int, only_second: int) -> float | None:
    """The mid-p value: exact, but for half of the probability of what was seen. None if nothing tells them apart."""
    n = only_first + only_second
    if not n:
        return None
    from scipy.special import bdtr  # the binomial's distribution function; scipy.stats takes a second to load

    less = min(only_first, only_second)
    return float(bdtr(less, n, 0.5) + (bdtr(less - 1, n, 0.5) if less else 0.0))


def principle_figures(items: Items, judges: Sequence[Judged]) -> tuple[PrincipleFigures, ...]:
    """Over the verdicts of all these judges, by the principle that each was made by."""
    gold = decided(items.gold)
    found = []
    for name in _principles(judges):
        verdicts = [(judged.p[mask], gold[mask], judged, mask) for judged, mask in _by(judges, name)]
        p = np.concatenate([one for one, _, _, _ in verdicts])
        usable = int(np.count_nonzero(~np.isnan(p)))
        found.append(
            PrincipleFigures(
                name,
                sum(judged.outcomes[i] is not None for _, _, judged, mask in verdicts for i in np.flatnonzero(mask)),
                share(int(np.count_nonzero(np.abs(p - 0.5) > _DECIDES)), usable),
                mean(agreement(winners(p), np.concatenate([labels for _, labels, _, _ in verdicts]))),
            )
        )
    return tuple(found)


def conflicts(items: Items, judges: Sequence[Judged]) -> tuple[Conflict, ...]:
    """Each two principles that met on an item, the most conflicting first; a principle's p is its judges' mean."""
    names = _principles(judges)
    won = {name: winners(_mean_p(items, judges, name)) for name in names}
    found = []
    for a, b in combinations(names, 2):
        both = (won[a] != 0.5) & (won[b] != 0.5) & ~np.isnan(won[a] + won[b])
        if n := int(np.count_nonzero(both)):
            found.append(Conflict((a, b), share(int(np.count_nonzero(both & (won[a] != won[b]))), n)))
    return tuple(sorted(found, key=lambda one: -(one.conflicts.value or 0.0)))


def _difference(first: str, second: str, a: FloatArray, b: FloatArray, seed: int) -> Difference:
    both = ~np.isnan(a + b)
    a, b = a[both], b[both]
    only_first, only_second = int(np.count_nonzero(a > b)), int(np.count_nonzero(a < b))
    return Difference(
        first, second, _bootstrapped(a - b, seed), only_first, only_second, mcnemar(only_first, only_second)
    )


def _bootstrapped(differences: FloatArray, seed: int) -> Figure:
    """The mean of paired differences with its percentile interval.

    They have few values, so that a resample of the items is a draw of how many have which.
    """
    n = len(differences)
    if not n:
        return NOTHING
    values, counts = np.unique(differences, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=_RESAMPLES)
    low, high = np.quantile(drawn @ values / n, [0.025, 0.975])
    return Figure(float(differences.mean()), float(low), float(high), n)


def _principles(judges: Sequence[Judged]) -> list[str]:
    return sorted({name for judged in judges for name in judged.principles if name is not None})


def _by(judges: Sequence[Judged], principle: str) -> list[tuple[Judged, npt.NDArray[np.bool_]]]:
    """The judges that used this principle, and for which items."""
    masks = ((judged, np.array([name == principle for name in judged.principles], bool)) for judged in judges)
    return [(judged, mask) for judged, mask in masks if mask.any()]


def _mean_p(items: Items, judges: Sequence[Judged], principle: str) -> FloatArray:
    """(n,) nan where no judge has a usable verdict by this principle."""
    total, count = np.zeros(len(items)), np.zeros(len(items))
    for judged, mask in _by(judges, principle):
        there = mask & ~np.isnan(judged.p)
        total[there] += judged.p[there]
        count[there] += 1
    p = np.full(len(items), np.nan)
    np.divide(total, count, out=p, where=count > 0)
    return p
