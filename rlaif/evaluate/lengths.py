"""The win rate that would be if the answers were equally long (Dubois et al. 2024, arXiv:2404.04475).

For each pair of models, over prompts x, a logistic regression on outcomes of 1, 0.5 and 0:

    logit P(a wins at x) = model + length * tanh((characters of a - of b) / sd) + difficulty * d(x)

The rate is its mean over the prompts with the length's term left out. d(x), centred, is how often b loses at x to the
other models; of two models there is none, and the term is not there. All weights have a weak ridge, so that a model
that always wins has a finite one. The published method differs: it fits all models at once, and d(x) is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif.figures import FloatArray

RIDGE = 0.1
_RESAMPLES = 1000
_STEPS, _CLOSE = 25, 1e-6


@dataclass(frozen=True, slots=True)
class Controlled:
    """The rate with its percentile interval over prompts drawn anew, and the fitted weights.

    `length` is in log-odds, for a response that is much longer; None where all lengths are alike.
    """

    value: float
    low: float
    high: float
    n: int
    model: float
    length: float | None
    difficulty: float | None


def length_controlled(
    outcomes: FloatArray, longer_by: FloatArray, difficulty: FloatArray | None = None, seed: int = 0
) -> Controlled | None:
    """`longer_by`: characters, of the first response over the second. None without outcomes."""
    n = len(outcomes)
    if not n:
        return None
    columns = [np.ones(n)]
    spread = float(longer_by.std())
    has_length = bool(longer_by.any())
    if has_length:
        # A difference that is always the same has no spread to be measured by.
        columns.append(np.tanh(longer_by / (spread or float(np.abs(longer_by).mean()))))
    has_difficulty = difficulty is not None and float(difficulty.std()) > 0
    if difficulty is not None and has_difficulty:
        columns.append((difficulty - difficulty.mean()) / difficulty.std())
    features = np.column_stack(columns)
    (weights,) = fit(features, outcomes, np.ones((1, n)))
    # Among those drawn are a win and a loss, half a prompt each: where one model always wins, draws of what it won
    # alone would all say the same, as if that were certain.
    average = np.eye(1, len(weights))
    chances = np.append(np.ones(n), [0.5, 0.5]) / (n + 1)
    drawn = np.random.default_rng(seed).multinomial(n, chances, size=_RESAMPLES).astype(np.float64)
    pool = np.vstack([features, average, average])
    fits = fit(pool, np.append(outcomes, [1.0, 0.0]), drawn, weights)
    if has_length:
        pool[:, 1] = 0.0
    low, high = np.quantile(_rates(pool, fits, drawn), [0.025, 0.975]).tolist()
    value = float(_rates(pool[:n], weights[None], np.ones((1, n)))[0])
    return Controlled(
        value,
        min(low, value),
        max(high, value),
        n,
        float(weights[0]),
        float(weights[1]) if has_length else None,
        float(weights[-1]) if has_difficulty else None,
    )


def fit(features: FloatArray, outcomes: FloatArray, counts: FloatArray, start: FloatArray | None = None) -> FloatArray:
    """(fits, weights) by Newton's method, for each row of `counts`: how often each of the n outcomes is there."""
    n, k = features.shape
    weights = np.zeros((len(counts), k)) + (0.0 if start is None else start)
    products = (features[:, :, None] * features[:, None, :]).reshape(n, k * k)
    for _ in range(_STEPS):
        p = _sigmoid(weights @ features.T)
        slope = (counts * (outcomes - p)) @ features - RIDGE * weights
        curvature = ((counts * p * (1 - p)) @ products).reshape(-1, k, k)
        step = np.linalg.solve(curvature + RIDGE * np.eye(k), slope[..., None])[..., 0]
        # A full step from far away may overshoot.
        step *= np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-12))
        weights += step
        if np.abs(step).max() < _CLOSE:
            break
    return weights


def _rates(features: FloatArray, weights: FloatArray, counts: FloatArray) -> FloatArray:
    """(fits,) The mean prediction."""
    predicted = _sigmoid(weights @ features.T)
    means: FloatArray = (predicted * counts).sum(axis=1) / counts.sum(axis=1)
    return means


def _sigmoid(logits: FloatArray) -> FloatArray:
    result: FloatArray = 0.5 * (1.0 + np.tanh(logits / 2))  # overflows nowhere
    return result
