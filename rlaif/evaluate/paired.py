"""Two models on the same prompts: how much they differ, and whether chance explains it."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt

import numpy as np
import numpy.typing as npt

from rlaif.statistics import wilson

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Change:
    """The share after less the share before, on the `n` prompts that both answered.

    The interval is Newcombe's for paired shares. `only_before` and `only_after` count the prompts where the two
    differ, and `mcnemar_p` is the exact, two-sided probability of so uneven a split if they were equally good.
    """

    difference: float | None
    low: float | None
    high: float | None
    n: int
    only_before: int
    only_after: int
    mcnemar_p: float | None


def change(before: BoolArray, after: BoolArray) -> Change:
    n = len(before)
    only_before = int(np.count_nonzero(before & ~after))
    only_after = int(np.count_nonzero(after & ~before))
    if not n:
        return Change(None, None, None, 0, 0, 0, None)
    both = int(np.count_nonzero(before & after))
    low, high = newcombe(both, only_after, only_before, n - both - only_before - only_after)
    return Change(
        (only_after - only_before) / n, low, high, n, only_before, only_after, mcnemar(only_before, only_after)
    )


def newcombe(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """The 95% interval of p_first - p_second of paired observations.

    Method 10 of Newcombe 1998, Statistics in Medicine 17:2635: Wilson's intervals of the two shares, put together by
    their correlation, which is corrected for continuity.
    """
    a, b, c, d = both, only_first, only_second, neither
    n = a + b + c + d
    first, second = (a + b) / n, (a + c) / n
    (low1, high1), (low2, high2) = wilson(a + b, n), wilson(a + c, n)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    excess = a * d - b * c
    excess_corrected = max(excess - n / 2, 0.0) if excess > 0 else excess
    phi = excess_corrected / sqrt(margins) if margins else 0.0
    below, above = (first - low1, high2 - second), (high1 - first, second - low2)
    difference = first - second
    return difference - _together(*below, phi), difference + _together(*above, phi)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact and two-sided: twice the binomial's tail, 1 where nothing tells the two apart."""
    n = only_first + only_second
    tail = sum(comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / 2**n))


def _together(one: float, other: float, phi: float) -> float:
    squared = one * one - 2 * phi * one * other + other * other
    return sqrt(max(0.0, squared))
