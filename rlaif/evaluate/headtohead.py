"""Whose answers a judge prefers, of each two models, with and without what longer answers gain; a rank of several.

A judge sees every two different answers in both orders. One wins where it is preferred in both; else, and where the
two say the same, it is a tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rlaif.evaluate.asking import Answered, by_category
from rlaif.evaluate.lengths import Controlled, length_controlled
from rlaif.evaluate.paired import mcnemar
from rlaif.evaluate.strengths import Strength, strengths
from rlaif.evaluate.style import Style, style_of
from rlaif.figures import Figure, FloatArray, mean, share
from rlaif.types import VOTES, Record, same_winner


@dataclass(frozen=True, slots=True)
class Compared:
    """A model, and how it writes."""

    model: str
    identity: str
    style: Style


@dataclass(frozen=True, slots=True)
class Pair:
    """Of `n` prompts with a verdict, or with one answer of both, `same`: shares that `a` wins, ties and loses.

    A tie is half a win in `win_rate`. `sign_p` is the exact probability of so uneven a split of wins and losses if
    both were equally good. `consistency`: different answers with the same winner in both orders. `unjudged` prompts
    have no usable verdict and are in no figure.
    """

    a: str
    b: str
    n: int
    win: Figure
    tie: Figure
    loss: Figure
    win_rate: Figure
    sign_p: float
    length_controlled_win_rate: Controlled | None
    consistency: Figure
    same: int
    unjudged: int
    by_category: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class HeadToHead:
    """`failed` prompts have no answer of every model, and are in no figure."""

    run: str
    judge: str
    models: tuple[Compared, ...]
    pairs: tuple[Pair, ...]
    bradley_terry: tuple[Strength, ...]
    failed: int
    notes: tuple[str, ...] = ()


def head_to_head(answered: Answered, judge: str) -> HeadToHead:
    records, models = answered.records, answered.models
    names = [model.name for model in models]
    lengths = np.array([[len(one.text) for one in record.responses] for record in records], dtype=np.float64)
    outcomes = {(i, j): outcome(records, i, j) for i, j in combinations(range(len(models)), 2)}
    won = {pair: values for pair, (values, _) in outcomes.items()}
    pairs = []
    for (i, j), (values, consistent) in outcomes.items():
        there = ~np.isnan(values)
        n = int(there.sum())
        wins, losses = (int(np.count_nonzero(values == side)) for side in (1.0, 0.0))
        pairs.append(
            Pair(
                names[i],
                names[j],
                n,
                win=share(wins, n),
                tie=share(n - wins - losses, n),
                loss=share(losses, n),
                win_rate=mean(values),
                sign_p=mcnemar(losses, wins),
                length_controlled_win_rate=length_controlled(
                    values[there], (lengths[:, i] - lengths[:, j])[there], _difficulty(won, j, i)[there]
                ),
                consistency=mean(consistent),
                same=sum(_text(record, i) == _text(record, j) for record in records),
                unjudged=len(records) - n,
                by_category={name: mean(values[of_it]) for name, of_it in by_category(records).items()},
            )
        )
    compared = tuple(
        Compared(model.name, model.identity, style_of([record.responses[i] for record in records]))
        for i, model in enumerate(models)
    )
    ranked = strengths(names, won) if len(models) > 2 else ()
    return HeadToHead(answered.run, judge, compared, tuple(pairs), ranked, answered.failed)


def outcome(records: Sequence[Record], i: int, j: int) -> tuple[FloatArray, FloatArray]:
    """(n,) 1 where model i wins, 0 where j does, 0.5 for a tie, nan unjudged; and whether both orders agree."""
    values, consistent = np.full(len(records), np.nan), np.full(len(records), np.nan)
    for k, record in enumerate(records):
        if _text(record, i) == _text(record, j):
            values[k] = 0.5
        elif (p := _preferred(record, i, j)) is not None:
            consistent[k] = same_winner(*p)
            values[k] = 0.5 if not consistent[k] else float(sum(p) > 1.0)
    return values, consistent


def _preferred(record: Record, i: int, j: int) -> tuple[float, float] | None:
    """The judge's probabilities for the answer of i in both orders, averaged over the principles by their weights."""
    first, second = _text(record, i), _text(record, j)
    said: list[tuple[float, float, float]] = []
    for verdict in record.verdicts:
        both = verdict.in_both_orders
        texts = _text(record, verdict.first), _text(record, verdict.second)
        if verdict.outcome not in VOTES or both is None:
            continue
        if texts == (first, second):
            said.append((*both, verdict.weight))
        elif texts == (second, first):
            said.append((1 - both[1], 1 - both[0], verdict.weight))
    total = sum(weight for *_, weight in said)
    if not total:
        return None
    return sum(p * weight for p, _, weight in said) / total, sum(p * weight for _, p, weight in said) / total


def _text(record: Record, i: int) -> str:
    return record.responses[i].text.strip()


def _difficulty(won: Mapping[tuple[int, int], FloatArray], model: int, other: int) -> FloatArray:
    """How hard each prompt is for a model: how often it loses there to all others but `other`; 0.5 of no others."""
    lost = [
        values if pair[1] == model else 1 - values
        for pair, values in won.items()
        if model in pair and other not in pair
    ]
    if not lost:
        return np.full(len(next(iter(won.values()))), 0.5)
    stacked = np.array(lost)
    known = ~np.isnan(stacked)
    # With a tie more: of a prompt that no other pair has a verdict on nothing is known.
    shares: FloatArray = (np.where(known, stacked, 0.0).sum(axis=0) + 0.5) / (known.sum(axis=0) + 1)
    return shares
