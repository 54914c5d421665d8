"""What the judges said about each two of a record's candidates, seen from either side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Literal

from rlaif.panel import Panel, combined, weight_of
from rlaif.types import VOTES, Record, same_winner


@dataclass(frozen=True, slots=True)
class Comparison:
    """All usable verdicts on two candidates, averaged, seen from one of them.

    `p_ab` is its probability to win when it was shown first, `p_ba` when it was shown second.
    """

    p_ab: float
    p_ba: float
    judges: tuple[str, ...]
    principles: tuple[str, ...]
    reasoned: bool = False  # a judge thought aloud first
    both_bad: bool = False  # most judges say so
    weight: float = 1.0  # of one verdict, among its judge's

    @property
    def p(self) -> float:
        return (self.p_ab + self.p_ba) / 2

    @property
    def consistent(self) -> bool:
        """The same winner in both orders."""
        return same_winner(self.p_ab, self.p_ba)

    def mirrored(self) -> Comparison:
        """Seen from the other side, "shown first" becomes "shown second"."""
        return replace(self, p_ab=1 - self.p_ba, p_ba=1 - self.p_ab)


class Comparisons:
    """Looks verdicts up by text, so that it does not matter which of two equal candidates was judged.

    `texts` holds the candidates that say something; `distinct` is the first index of each text. Where several judges
    looked at a pair, `panel` says what they say together, by their `weights` if it is `weighted`.
    """

    def __init__(self, record: Record, panel: Panel = "mean", weights: Mapping[str, float] | None = None) -> None:
        self._panel, self._weights = panel, weights or {}
        self.texts = {i: text for i in record.candidates() if (text := record.responses[i].text.strip())}
        first: dict[str, int] = {}
        for i, text in self.texts.items():
            first.setdefault(text, i)
        self.distinct = tuple(first.values())
        self._first = {i: first[text] for i, text in self.texts.items()}
        self._between: dict[tuple[int, int], Comparison | None] = {}
        self._read(record)

    def asked(self, a: int, b: int) -> bool:
        """Whether any judge was asked, whatever came out."""
        return self._key(a, b) in self._between

    def of(self, a: int, b: int) -> Comparison | None:
        """Seen from `a`; None when no verdict is usable."""
        low, high = self._key(a, b)
        comparison = self._between.get((low, high))
        return comparison if comparison is None or self._first[a] == low else comparison.mirrored()

    def complete(self) -> bool:
        """Whether a judge was asked about each two of them."""
        return all(self.asked(a, b) for a, b in combinations(self.distinct, 2))

    def win_rates(self) -> dict[int, float]:
        """Each candidate's mean probability to beat the others; who has no usable verdict is missing."""
        wins: dict[int, list[float]] = {i: [] for i in self.distinct}
        for a, b in combinations(self.distinct, 2):
            if comparison := self.of(a, b):
                wins[a].append(comparison.p)
                wins[b].append(1 - comparison.p)
        return {i: fmean(rates) for i, first in self._first.items() if (rates := wins[first])}

    def _key(self, a: int, b: int) -> tuple[int, int]:
        low, high = sorted((self._first[a], self._first[b]))
        return low, high

    def _read(self, record: Record) -> None:
        usable: dict[tuple[int, int], list[Comparison]] = {}
        for verdict in record.verdicts:
            if verdict.first not in self._first or verdict.second not in self._first:
                continue
            low, high = self._key(verdict.first, verdict.second)
            votes = usable.setdefault((low, high), [])
            both = verdict.in_both_orders
            if verdict.outcome not in VOTES or both is None:
                continue  # a refusal, garbage, or an answer in one order only is no vote
            reasoned, bad = verdict.rationale is not None, verdict.outcome == "both_bad"
            seen = Comparison(*both, (verdict.judge,), (verdict.principle,), reasoned, bad, verdict.weight)
            votes.append(seen if self._first[verdict.first] == low else seen.mirrored())
        self._between = {key: self._together(votes) for key, votes in usable.items()}

    def _together(self, votes: list[Comparison]) -> Comparison | None:
        """Each judge's weighted mean over what it was asked, then the panel's."""
        if not votes:
            return None
        by_judge: dict[str, list[Comparison]] = {}
        for vote in votes:
            by_judge.setdefault(vote.judges[0], []).append(vote)
        judges = sorted(by_judge)
        weights = [weight_of(judge, self._weights) for judge in judges] if self._panel == "weighted" else ()
        return Comparison(
            combined(self._panel, [_mean("p_ab", by_judge[judge]) for judge in judges], weights),
            combined(self._panel, [_mean("p_ba", by_judge[judge]) for judge in judges], weights),
            tuple(judges),
            tuple(sorted({principle for vote in votes for principle in vote.principles})),
            any(vote.reasoned for vote in votes),
            fmean(_mean("both_bad", by_judge[judge]) for judge in judges) > 0.5,
        )


def _mean(name: Literal["p_ab", "p_ba", "both_bad"], votes: Sequence[Comparison]) -> float:
    return fmean((getattr(vote, name) for vote in votes), (vote.weight for vote in votes))
