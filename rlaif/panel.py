"""What several judges say together, from what each of them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from statistics import fmean
from typing import Literal

Panel = Literal["mean", "majority", "weighted"]

# Labels that a judge must have been checked on before its word is weighed: fewer say too little about it.
LEAST_GOLD = 20
# Weights are drawn towards that of the judges' common accuracy, as if each had been checked on so many items more.
_SHRINKAGE = 10.0


def combined(panel: Panel, p: Sequence[float], weights: Sequence[float] = ()) -> float:
    """P(the first is better) by all judges, of whose probabilities `p` has one each.

    `mean` of them; `majority`, the share of the judges that prefer the first, a half each where they don't know;
    `weighted`, the log-odds of independent judges with these `weights` (see `log_odds`): their votes, not how
    sure they are, which few judges know.

    >>> combined("mean", [0.9, 0.2, 0.7]), combined("majority", [0.9, 0.2, 0.7])
    (0.6, 0.6666666666666666)
    """
    if panel == "mean":
        return fmean(p)
    votes = [(one > 0.5) - (one < 0.5) for one in p]
    if panel == "majority":
        return (fmean(votes) + 1) / 2
    total = sum(weight * vote for weight, vote in zip(weights, votes, strict=True))
    return 1 / (1 + exp(-total)) if total > 0 else 1 - 1 / (1 + exp(total))


def log_odds(right: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """A judge's weight: the log-odds of its accuracy, given (right, of) on labelled items by judge.

    A judge that is wrong more often than right has a negative weight: its vote is turned round. With few labels
    the accuracies are uncertain, and are drawn towards their mean: a panel of equals is then nearly a majority.
    """
    everything = sum(n for _, n in right.values())
    common = (sum(k for k, _ in right.values()) + 1) / (everything + 2)
    accuracies = {name: (k + _SHRINKAGE * common) / (n + _SHRINKAGE) for name, (k, n) in right.items()}
    return {name: log(accuracy / (1 - accuracy)) for name, accuracy in accuracies.items()}
