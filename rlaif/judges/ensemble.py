"""What several reward models say of one prompt's responses, as one score each.

Coste et al. 2023 (arXiv:2310.02743): the least score, or the mean less a multiple of the spread, is harder to exploit
than any one model's. A model trained on comparisons knows its scores only up to a constant for each prompt, so all but
the mean first see each member's scores less their mean over the prompt's responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median, stdev
from typing import Literal

Combine = Literal["mean", "median", "min", "penalised"]


def combined(group: Sequence[Sequence[float]], how: Combine = "mean", penalty: float = 1.0) -> list[float]:
    """One score for each response of a prompt, of which `group` has those of every member.

    `penalised`: the mean less `penalty` times the spread. Only differences within the group mean something.
    """
    if how == "mean" or not group:
        return [fmean(scores) for scores in group]
    level = fmean(fmean(scores) for scores in group)
    return [level + _one(scores, how, penalty) for scores in centred(group)]


def spreads(group: Sequence[Sequence[float]]) -> list[float]:
    """The standard deviation of the members' scores of each response, as far as they can be compared."""
    return [stdev(scores) if len(scores) > 1 else 0.0 for scores in centred(group)]


def centred(group: Sequence[Sequence[float]]) -> list[list[float]]:
    """Each member's scores less their mean over the responses."""
    means = [fmean(scores) for scores in zip(*group, strict=True)]
    return [[score - mean for score, mean in zip(scores, means, strict=True)] for scores in group]


def _one(scores: Sequence[float], how: Combine, penalty: float) -> float:
    match how:
        case "mean":
            return fmean(scores)
        case "median":
            return median(scores)
        case "min":
            return min(scores)
        case "penalised":
            return fmean(scores) - penalty * (stdev(scores) if len(scores) > 1 else 0.0)
