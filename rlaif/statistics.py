"""Small pure statistics that reports share."""

from __future__ import annotations

from math import sqrt

Z_95 = 1.959964  # the standard normal's 97.5th percentile


def wilson(successes: float, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's interval for a share, 95% by default; (0, 1) when nothing was observed.

    Unlike the normal approximation it holds for few observations and for shares near 0 and 1.
    """
    if n == 0:
        return (0.0, 1.0)
    share, z2 = successes / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return (max(0.0, centre - half), min(1.0, centre + half))


def quantile(values: list[float], q: float) -> float:
    """The value below which a share `q` lies, interpolated linearly. `values` must not be empty."""
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])
