"""What the judges said of single responses, and what of it can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from types import MappingProxyType

from rlaif.statistics import quantile
from rlaif.types import Record, Score

_NONE: Mapping[int, Sequence[int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Ratings:
    """Responses by their weighted mean over the same judges and principles, -1 to 1; empty if they share none."""

    means: Mapping[int, float] = field(default_factory=dict)
    judges: tuple[str, ...] = ()
    principles: tuple[str, ...] = ()


def scores_of(record: Record, *responses: int) -> list[tuple[Score, float]]:
    """Pointwise scores of a response, or of several that say the same; a judge that gave no rating is no score."""
    return [(score, score.value) for score in record.scores if score.response in responses and score.value is not None]


def score_of(record: Record, *responses: int) -> float | None:
    """The mean over judges and principles by their weights, from -1 to 1."""
    scores = scores_of(record, *responses)
    return fmean([value for _, value in scores], [score.weight for score, _ in scores]) if scores else None


def ratings_of(record: Record, responses: Iterable[int], alike: Mapping[int, Sequence[int]] = _NONE) -> Ratings:
    """Compared by what all rated ones have a value for: a lost rating must not change what the others mean.

    A response that no judge rated is left out; `alike` names the responses that say the same as one of them.
    """
    if not record.scores:
        return Ratings()
    rated = {i: aspects for i in responses if (aspects := _aspects(record, alike.get(i, (i,))))}
    common = sorted(set.intersection(*map(set, rated.values()))) if rated else []
    if not common:
        return Ratings()
    weights = [weight for *_, weight in common]
    return Ratings(
        {i: fmean([fmean(aspects[aspect]) for aspect in common], weights) for i, aspects in rated.items()},
        tuple(sorted({judge for judge, *_ in common})),
        tuple(sorted({principle for _, principle, _ in common})),
    )


def _aspects(record: Record, responses: Sequence[int]) -> dict[tuple[str, str, float], list[float]]:
    """(judge, principle, weight) -> values, more than one if it was asked more than once."""
    aspects: dict[tuple[str, str, float], list[float]] = {}
    for score, value in scores_of(record, *responses):
        aspects.setdefault((score.judge, score.principle, score.weight), []).append(value)
    return aspects


def floor_of(records: Callable[[], Iterable[Record]], q: float | None) -> float | None:
    """The run-wide quantile of the candidates' mean scores; the least score there is if none was rated."""
    if q is None:
        return None
    ended_well = (record for record in records() if record.outcome == "ok")
    scores = [s for record in ended_well for i in record.candidates() if (s := score_of(record, i)) is not None]
    return quantile(scores, q) if scores else -1.0
