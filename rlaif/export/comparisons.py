"""What the judges said about each two of a record's candidates, seen from either side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import fsum
from statistics import fmean
from typing import Literal, NamedTuple

from rlaif.panel import Panel, combined, weight_of
from rlaif.types import VOTES, Record, same_winner


class Comparison(NamedTuple):
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
        return Comparison(1 - self.p_ba, 1 - self.p_ab, *self[2:])


class Comparisons:
    """Looks verdicts up by text, so that it does not matter which of two equal candidates was judged.

    `texts` holds the candidates that say something; `distinct` is one index for each text, in the order of the texts:
    whatever the order of the candidates, the same sums are made in the same order. Where several judges looked at a
    pair, `panel` says what they say together, by their `weights` if it is `weighted`.
    """

    def __init__(self, record: Record, panel: Panel = "mean", weights: Mapping[str, float] | None = None) -> None:
        self._panel, self._weights = panel, weights or {}
        self.texts = {i: text for i in record.candidates() if (text := record.responses[i].text.strip())}
        alike: dict[str, list[int]] = {}
        for i, text in self.texts.items():
            alike.setdefault(text, []).append(i)
        groups = [tuple(group) for _, group in sorted(alike.items())]
        self.distinct = tuple([group[0] if len(group) == 1 else _speaker(record, group) for group in groups])
        self.alike = dict(zip(self.distinct, groups, strict=True))  # all that say the same
        self._place = {i: place for place, group in enumerate(groups) for i in group}
        self._between: dict[tuple[int, int], Comparison | None] = {}
        if record.verdicts:
            self._read(record)

    def asked(self, a: int, b: int) -> bool:
        """Whether any judge was asked, whatever came out."""
        one, other = self._place[a], self._place[b]
        return ((one, other) if one < other else (other, one)) in self._between

    def of(self, a: int, b: int) -> Comparison | None:
        """Seen from `a`; None when no verdict is usable."""
        one, other = self._place[a], self._place[b]
        if one <= other:
            return self._between.get((one, other))
        comparison = self._between.get((other, one))
        return comparison and comparison.mirrored()

    def complete(self) -> bool:
        """Whether a judge was asked about each two of them."""
        return all(places in self._between for places in combinations(range(len(self.distinct)), 2))

    def win_rates(self) -> dict[int, float]:
        """Each candidate's mean probability to beat the others; who has no usable verdict is missing."""
        wins: list[list[float]] = [[] for _ in self.distinct]
        for (low, high), comparison in self._between.items():
            if comparison is not None and low != high:
                p = (comparison.p_ab + comparison.p_ba) / 2
                wins[low].append(p)
                wins[high].append(1 - p)
        # fsum: exact, so that the order of the verdicts does not matter
        return {i: fsum(rates) / len(rates) for i, place in self._place.items() if (rates := wins[place])}

    def _read(self, record: Record) -> None:
        place = self._place
        usable: dict[tuple[int, int], list[Comparison]] = {}
        for verdict in record.verdicts:
            first, second = place.get(verdict.first), place.get(verdict.second)
            if first is None or second is None:
                continue
            votes = usable.setdefault((first, second) if first < second else (second, first), [])
            both = verdict.in_both_orders
            if both is None or verdict.outcome not in VOTES:
                continue  # a refusal, garbage, or an answer in one order only is no vote
            p_ab, p_ba = both if first <= second else (1 - both[1], 1 - both[0])
            reasoned, bad = verdict.rationale is not None, verdict.outcome == "both_bad"
            votes.append(Comparison(p_ab, p_ba, (verdict.judge,), (verdict.principle,), reasoned, bad, verdict.weight))
        self._between = {key: self._together(votes) for key, votes in usable.items()}

    def _together(self, votes: list[Comparison]) -> Comparison | None:
        """Each judge's weighted mean over what it was asked, then the panel's."""
        if not votes:
            return None
        if len(votes) == 1 and self._panel == "mean":
            return votes[0]
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


def _speaker(record: Record, group: Sequence[int]) -> int:
    """Of candidates that say the same, the one that stands for them: a weak one only if all of them are."""

    def rank(i: int) -> tuple[bool, str, str, str, int]:
        made = record.responses[i]
        return made.side == "weak", made.side or "", made.model, made.principle or "", i

    return min(group, key=rank)


def _mean(name: Literal["p_ab", "p_ba", "both_bad"], votes: Sequence[Comparison]) -> float:
    return fmean((getattr(vote, name) for vote in votes), (vote.weight for vote in votes))
