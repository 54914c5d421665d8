"""Ratings and rankings -> pairs: the better answer over the worse one, with how much better it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

from rlaif.foreign.candidates import Candidate

Pick = Literal["best_vs_worst", "all"]


class Compared(NamedTuple):
    """`margin` is from 0 to 1: 1 between the two ends of the scale, or between the first and the last rank."""

    better: Candidate
    worse: Candidate
    margin: float


def span_of(answers: Sequence[Candidate]) -> float:
    """From the first to the last rank; 1 if there is only one."""
    scores = [answer.score for answer in answers if answer.score is not None]
    return (max(scores) - min(scores)) or 1.0 if scores else 1.0


def compared(
    answers: Sequence[Candidate], span: float, *, pick: Pick = "best_vs_worst", most: int | None = None
) -> list[Compared] | str:
    """The pairs, the widest first, at most `most`; or why there is none.

    The order of the answers does not matter: of equally good ones the texts decide. Answers that say the same are one
    candidate; those that are rated differently say that the ratings are not to be relied on, and give none.
    """
    if sum(answer.score is not None for answer in answers) < 2:
        return "too_few_rated"
    rated = _distinct(answers)
    if len(rated) < 2:
        return "identical"
    rated.sort(key=lambda answer: (-(answer.score or 0.0), _text(answer)))
    if rated[0].score == rated[-1].score:
        return "tie"
    chances = [(rated[0], rated[-1])] if pick == "best_vs_worst" else combinations(rated, 2)
    found = [
        Compared(better, worse, ((better.score or 0.0) - (worse.score or 0.0)) / span)
        for better, worse in chances
        if better.score != worse.score
    ]
    found.sort(key=lambda pair: -pair.margin)  # stable: of equal margins, those of the best answers first
    return found[:most]


def _distinct(answers: Sequence[Candidate]) -> list[Candidate]:
    by_text: dict[str, list[Candidate]] = {}
    for answer in answers:
        if answer.score is not None:
            by_text.setdefault(_text(answer), []).append(answer)
    return [
        min(same, key=lambda one: one.model or "") for same in by_text.values() if len({one.score for one in same}) == 1
    ]


def _text(answer: Candidate) -> str:
    return answer.turns[-1].content.strip()
