"""Against values from scipy and numpy."""

from __future__ import annotations

import pytest

from rlaif.statistics import quantile, wilson


def test_wilson_interval() -> None:
    # scipy.stats.binomtest(8, 10).proportion_ci(method="wilson")
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == pytest.approx(1.0)
    assert wilson(0, 0) == (0.0, 1.0)


def test_quantile_interpolates() -> None:
    # numpy.quantile([4, 1, 3, 2], [0, 0.25, 0.5, 1])
    assert [quantile([4, 1, 3, 2], q) for q in (0, 0.25, 0.5, 1)] == [1, 1.75, 2.5, 4]
    assert quantile([7.0], 0.3) == 7.0
