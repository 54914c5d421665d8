"""Bradley-Terry strengths of several models, by choix, from who wins against whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from rlaif.errors import ConfigError
from rlaif.figures import FloatArray

_RESAMPLES = 300
# Each two have won so many more times against each other: keeps who won always finite.
_REGULARISED = 0.1


@dataclass(frozen=True, slots=True)
class Strength:
    """Log-odds to beat the average one of these models, with the interval of prompts drawn anew."""

    model: str
    strength: float
    low: float
    high: float


def check_installed() -> None:
    """Before anything is asked. Raises ConfigError."""
    if not find_spec("choix"):
        raise ConfigError("ranking more than two models needs choix; run: pip install 'rlaif-kit[audit]'")


def strengths(names: Sequence[str], won: Mapping[tuple[int, int], FloatArray], seed: int = 0) -> tuple[Strength, ...]:
    """The strongest first. `won` has for each pair (i, j) 1 where i won, 0.5 for a tie, nan without a verdict."""
    from choix import ilsr_pairwise_dense

    n = len(next(iter(won.values())))
    chance = np.random.default_rng(seed)
    counts = np.vstack([np.ones(n), chance.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)])
    wins = np.full((len(counts), len(names), len(names)), _REGULARISED)
    # Jeffreys' half a win of either, so that prompts that all say the same are not taken for certain.
    wins[1:] += chance.gamma(0.5, size=wins[1:].shape)
    for (i, j), values in won.items():
        there = ~np.isnan(values)
        wins[:, i, j] += counts[:, there] @ values[there]
        wins[:, j, i] += counts[:, there] @ (1 - values[there])
    fitted = np.array([ilsr_pairwise_dense(one, max_iter=10_000) for one in wins])
    low, high = np.quantile(fitted[1:], [0.025, 0.975], axis=0)
    found = [
        Strength(name, float(fitted[0, i]), float(min(low[i], fitted[0, i])), float(max(high[i], fitted[0, i])))
        for i, name in enumerate(names)
    ]
    return tuple(sorted(found, key=lambda one: -one.strength))
