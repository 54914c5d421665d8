"""When sampled votes have said enough: the posterior of a fair prior, looked at after each pair of them."""

from __future__ import annotations

from math import comb


def posterior(wins: int, votes: int) -> float:
    """P(the first one wins most votes of this judge), after `wins` of `votes`, with the prior Beta(1, 1).

    It takes the votes for independent. Those of one model on one item are correlated, so that it says how sure the
    judge is of itself, not how sure we can be of the judge.

    >>> posterior(2, 2), posterior(4, 4) > 0.96
    (0.875, True)
    """
    # The upper tail of Beta(1 + wins, 1 + votes - wins) at one half, for whole numbers.
    tail: int = sum(comb(votes + 1, j) for j in range(wins + 1))
    return float(tail) / 2.0 ** (votes + 1)


def decided(wins: int, votes: int, stop_at: float) -> bool:
    """Whether more votes would hardly change the winner."""
    p = posterior(wins, votes)
    return max(p, 1.0 - p) >= stop_at
