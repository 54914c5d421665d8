"""An estimate with its 95% interval, of shares, means, agreement and differences; and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rlaif.statistics import wilson

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """An estimate from `n` items with its 95% interval; all None where nothing can be said."""

    value: float | None
    low: float | None
    high: float | None
    n: int


NOTHING = Figure(None, None, None, 0)


def share(count: int, of: int) -> Figure:
    if not of:
        return NOTHING
    return Figure(count / of, *wilson(count, of), of)


def mean(values: FloatArray, lowest: float = 0.0, highest: float = 1.0) -> Figure:
    """The mean of what is not nan, all of it between `lowest` and `highest`.

    Wilson's interval for so many coin tosses as would have the values' variance: for zeros and ones that is their
    number, and it is more for what varies less than they do.
    """
    values = (values[~np.isnan(values)] - lowest) / (highest - lowest)
    n = len(values)
    if not n:
        return NOTHING
    total, squares = float(values.sum()), float(values @ values)
    # With half a value more at either end: a sample without variance does not prove that there is none.
    centre = (total + 0.5) / (n + 1)
    variance = (squares + 0.5) / (n + 1) - centre**2
    return _figure(total / n, centre, variance, n, lowest, highest)


def kappa(a: FloatArray, b: FloatArray) -> Figure:
    """Cohen's kappa of two raters, who may give any number of different labels; nan is none.

    "Undecided" is a label as any other, as in published kappas. Undefined, and empty, where both give only one and
    the same label. The interval is that of `mean` with kappa's asymptotic variance (Fleiss, Cohen & Everitt 1969).
    """
    both = ~(np.isnan(a) | np.isnan(b))
    n = int(np.count_nonzero(both))
    if not n:
        return NOTHING
    labels, codes = np.unique(np.concatenate([a[both], b[both]]), return_inverse=True)
    k = len(labels)
    if k == 1:
        return Figure(None, None, None, n)
    counts = np.bincount(codes[:n] * k + codes[n:], minlength=k * k).reshape(k, k)
    value, _ = _kappa(counts)
    # As in `mean`: one agreement and one disagreement more, spread evenly.
    smooth = counts + np.where(np.eye(k, dtype=bool), 1 / k, 1 / (k * (k - 1)))
    centre, variance = _kappa(smooth)
    return _figure((value + 1) / 2, (centre + 1) / 2, variance / 4, n, -1.0, 1.0)


def _kappa(counts: npt.NDArray[Any]) -> tuple[float, float]:  # Any: whole counts or smoothed ones
    """Kappa of a table of counts, whole or not, and the variance of one item's influence on it."""
    shares = counts / counts.sum()
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed, expected = float(np.trace(shares)), float(rows @ columns)
    influence = (np.eye(len(shares)) - observed) * (1 - expected) - (1 - observed) * (
        columns[:, None] + rows[None, :] - 2 * expected
    )
    variance = float((shares * influence**2).sum()) / (1 - expected) ** 4
    return (observed - expected) / (1 - expected), variance


def _figure(value: float, centre: float, variance: float, n: int, lowest: float, highest: float) -> Figure:
    tosses = max(1, round(n * centre * (1 - centre) / variance))
    low, high = wilson(value * tosses, tosses)
    width = highest - lowest
    return Figure(lowest + width * value, lowest + width * low, lowest + width * high, n)


# --- as text ---


def percent(figure: Figure) -> str:
    """80.0% [71, 87]: the value and its 95% interval."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    return f"{figure.value:.1%} [{100 * figure.low:.0f}, {100 * figure.high:.0f}]"


def decimal(figure: Figure, digits: int = 2) -> str:
    """0.60 [0.44, 0.73]."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    return f"{figure.value:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def points(figure: Figure) -> str:
    """A difference in percentage points, with a star where its interval does not hold 0."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    return f"{100 * figure.value:+.1f}{'*' if figure.low > 0 or figure.high < 0 else ''}"


def spread(figure: Figure) -> str:
    """+3.0 [-1.2, +7.1]: a difference in percentage points."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    return f"{100 * figure.value:+.1f} [{100 * figure.low:+.1f}, {100 * figure.high:+.1f}]"


def plain(figure: Figure, form: str = ".0%") -> str:
    return "" if figure.value is None else format(figure.value, form)


def maybe(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about the same confidence: how sure they were on average, and how often right."""

    confidence: float
    accuracy: float
    n: int


def calibration_of(confidence: FloatArray, right: FloatArray) -> tuple[float | None, tuple[Bin, ...]]:
    """The expected calibration error and its bins, of equal size as far as equal confidences allow.

    A judge that knows only "sure" has one bin.
    """
    n = len(confidence)
    if not n:
        return None, ()
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, confidence)
    counts = np.bincount(bins)
    sure, correct = np.bincount(bins, confidence), np.bincount(bins, right)
    there = np.flatnonzero(counts)
    found = tuple(Bin(float(sure[i] / counts[i]), float(correct[i] / counts[i]), int(counts[i])) for i in there)
    return float(np.abs(sure - correct).sum() / n), found
