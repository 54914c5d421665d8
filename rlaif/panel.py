"""What several judges say together, from what each of them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from statistics import fmean
from typing import Literal

from rlaif.errors import ConfigError

Panel = Literal["mean", "majority", "weighted"]

# Labels that a judge must have been checked on before its word is weighed: fewer say too little about it.
LEAST_GOLD = 20
# Bounds of how many items more a judge counts as checked on (see `log_odds`): one keeps its weight finite, and with
# a thousand all weights are as good as equal.
_LEAST_SHRINKAGE, _MOST_SHRINKAGE = 1.0, 1000.0


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


def weight_of(judge: str, weights: Mapping[str, float]) -> float:
    """Raises ConfigError if it has none."""
    if judge not in weights:
        known = ", ".join(weights) or "none"
        raise ConfigError(f"export.weights has no weight for the judge '{judge}'; it has: {known}")
    return weights[judge]


def log_odds(right: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """A judge's weight: the log-odds of its accuracy, given (right, of) on labelled items by judge.

    A judge that is wrong more often than right has a negative weight: its vote is turned round. With few labels the
    accuracies are uncertain, and are drawn towards their mean as if each judge had been checked on more items, all
    judged as well as the mean: on many more if the accuracies differ no more than by chance, so that a panel of equals
    is nearly a majority, and on few if they do. That number is the beta-binomial's, by the method of moments.
    In benchmarks/judging/simulate.py, with 20 labels, it costs equal judges 0.3 to 0.8 points, where ten items more
    for each cost up to 1.5, and gains 7 to 21 where one is adversarial.
    """
    everything = sum(n for _, n in right.values())
    common = (sum(k for k, _ in right.values()) + 1) / (everything + 2)
    more = _shrinkage([(k, n) for k, n in right.values() if n], common)
    accuracies = {name: (k + more * common) / (n + more) for name, (k, n) in right.items()}
    odds = {name: log(accuracy / (1 - accuracy)) for name, accuracy in accuracies.items()}
    return {name: odds[name] if right[name][1] else 0.0 for name in right}  # who never answered has no say


def _shrinkage(right: Sequence[tuple[float, int]], common: float) -> float:
    if len(right) < 2:
        return _MOST_SHRINKAGE
    of_one = common * (1 - common)
    seen = sum((k / n - common) ** 2 for k, n in right) / (len(right) - 1)
    beyond_chance = seen - fmean(of_one / n for _, n in right)
    if beyond_chance <= 0:
        return _MOST_SHRINKAGE
    return min(max(of_one / beyond_chance - 1, _LEAST_SHRINKAGE), _MOST_SHRINKAGE)
