"""What each principle did in a run: what it was drawn for, what it changed, and whose side it was on in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from statistics import fmean

from rlaif.export.pairs import Pair
from rlaif.stages.revise import finds_nothing
from rlaif.types import REFUSALS, VOTES, Record, Response, Verdict

# A verdict between them prefers neither of the two.
_BELOW, _ABOVE = 0.4, 0.6
# How much a revision changes is measured on so many of each principle, then on every 256th record: words are slow.
_MEASURED, _OTHERS = 200, "00"


@dataclass(frozen=True, slots=True)
class PrincipleStats:
    """One principle's part in a run, counted. What was not asked of it is 0, a mean of nothing None.

    A critique that ended a chain (`until_clean`) left nothing in the record, and is not in it.
    """

    drawn: int = 0  # rounds of critique and revision, and responses asked to meet or miss it (contrast)
    critiques: int = 0
    fired: int = 0  # critiques that found something
    revisions: int = 0  # that say something
    changed: int = 0  # of them, those that are not what they revise
    change: float | None = None  # mean share of words that are others, over `changed` ones or a sample of them
    dropped: int = 0  # its responses that a filter dropped
    refused: int = 0  # critiques and revisions that were refused, or are empty
    chosen: int = 0  # its responses in pairs
    rejected: int = 0
    verdicts: int = 0
    decided: int = 0  # those more than 0.1 from even
    unusable: int = 0  # unparsed, refused, or no clear letter
    agreed: int = 0  # decided verdicts on the two responses of a pair that are for the chosen one
    against: int = 0  # ... for the rejected one
    conflicts: int = 0  # another principle decided for the other one of the same two


@dataclass(slots=True)
class _Counts:
    """The same while records stream by."""

    drawn: int = 0
    critiques: int = 0
    fired: int = 0
    revisions: int = 0
    changed: int = 0
    dropped: int = 0
    refused: int = 0
    chosen: int = 0
    rejected: int = 0
    verdicts: int = 0
    decided: int = 0
    unusable: int = 0
    agreed: int = 0
    against: int = 0
    conflicts: int = 0
    measured: int = 0
    change: float = 0.0

    def stats(self) -> PrincipleStats:
        counts = {name: getattr(self, name) for name in _NAMES if name != "change"}
        return PrincipleStats(**counts, change=self.change / self.measured if self.measured else None)


_NAMES = tuple(field.name for field in fields(PrincipleStats))


class PrincipleTally:
    """Counts records, each once, with its pairs; about 10 microseconds each."""

    def __init__(self) -> None:
        self._counts: dict[str, _Counts] = {}

    def add(self, record: Record, pairs: Sequence[Pair] = ()) -> None:
        """`pairs` are the record's; none where it ended otherwise than well."""
        measuring = record.id.startswith(_OTHERS)
        for response in record.responses:
            if (principle := response.principle) is not None:
                self._response(record, response, self._counts.get(principle) or self._of(principle), measuring)
        for drop in record.drops:
            if (principle := record.responses[drop.response].principle) is not None:
                self._of(principle).dropped += 1
        for pair in pairs:
            self._pair(record, pair)
        if record.verdicts:
            self._verdicts(record, pairs)

    def stats(self) -> dict[str, PrincipleStats]:
        """By id, in its order."""
        return {name: counts.stats() for name, counts in sorted(self._counts.items())}

    def _of(self, principle: str) -> _Counts:
        counts = self._counts.get(principle)
        if counts is None:
            counts = self._counts[principle] = _Counts()
        return counts

    def _response(self, record: Record, response: Response, counts: _Counts, measuring: bool) -> None:
        counts.drawn += 1
        if response.critique:
            counts.critiques += 1
            counts.fired += not finds_nothing(response.critique)
        text = response.text
        if not text or response.finish_reason in REFUSALS:
            counts.refused += 1
            return
        if response.revises is None:
            return
        counts.revisions += 1
        before = record.responses[response.revises].text
        if text != before:
            counts.changed += 1
            if measuring or counts.measured < _MEASURED:
                counts.measured += 1
                counts.change += _change(before, text)

    def _pair(self, record: Record, pair: Pair) -> None:
        chosen, rejected = record.responses[pair.chosen].principle, record.responses[pair.rejected].principle
        if chosen is not None:
            self._of(chosen).chosen += 1
        if rejected is not None:
            self._of(rejected).rejected += 1

    def _verdicts(self, record: Record, pairs: Sequence[Pair]) -> None:
        sides = {(pair.chosen, pair.rejected) for pair in pairs}
        decided: dict[tuple[int, int], Verdict] = {}
        several = False  # hardly ever: one principle is drawn for two responses
        for verdict in record.verdicts:
            counts = self._counts.get(verdict.principle) or self._of(verdict.principle)
            counts.verdicts += 1
            p, first, second = verdict.p_first, verdict.first, verdict.second
            if p is None or verdict.outcome not in VOTES:
                counts.unusable += 1
            elif p > _ABOVE or p < _BELOW:
                counts.decided += 1
                won, lost = (first, second) if p > _ABOVE else (second, first)
                if (won, lost) in sides:
                    counts.agreed += 1
                elif (lost, won) in sides:
                    counts.against += 1
                several = several or decided.setdefault((first, second), verdict) is not verdict
        if several:
            self._conflicts(record.verdicts)

    def _conflicts(self, verdicts: Sequence[Verdict]) -> None:
        """Several judges of one principle are its one opinion, their mean."""
        leads: dict[tuple[int, int], dict[str, list[float]]] = {}
        for verdict in verdicts:
            if verdict.p_first is not None and verdict.outcome in VOTES:
                of_pair = leads.setdefault((verdict.first, verdict.second), {})
                of_pair.setdefault(verdict.principle, []).append(verdict.p_first)
        for of_pair in leads.values():
            means = [(principle, fmean(each)) for principle, each in of_pair.items()]
            for (one, p), (other, its_p) in combinations(means, 2):
                if min(p, its_p) < _BELOW and max(p, its_p) > _ABOVE:
                    self._of(one).conflicts += 1
                    self._of(other).conflicts += 1


def principle_rows(stats: Mapping[str, PrincipleStats]) -> tuple[list[str], list[list[str]]]:
    """A table's head and rows, those drawn most first; columns in which nothing happened are left out."""
    columns = [(name, cell) for name, cell in _COLUMNS.items() if any(cell(one) != _NOTHING for one in stats.values())]
    rows = sorted(stats.items(), key=lambda item: (-item[1].drawn - item[1].verdicts, item[0]))
    return ["principle", *(name for name, _ in columns)], [[i, *(cell(one) for _, cell in columns)] for i, one in rows]


_NOTHING = "-"


def _count(n: int) -> str:
    return f"{n:,}" if n else _NOTHING


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else _NOTHING


_COLUMNS: dict[str, Callable[[PrincipleStats], str]] = {
    "drawn to revise": lambda one: _count(one.drawn),
    "critique found something": lambda one: _share(one.fired, one.critiques),
    "revision changed the text": lambda one: _share(one.changed, one.revisions),
    "words changed": lambda one: _NOTHING if one.change is None else f"{one.change:.0%}",
    "dropped": lambda one: _count(one.dropped),
    "refused": lambda one: _count(one.refused),
    "chosen / rejected": lambda one: f"{one.chosen:,} / {one.rejected:,}" if one.chosen + one.rejected else _NOTHING,
    "drawn to judge": lambda one: _count(one.verdicts),
    "decided": lambda one: _share(one.decided, one.verdicts - one.unusable),
    "unusable": lambda one: _count(one.unusable),
    "for the chosen": lambda one: _share(one.agreed, one.agreed + one.against),
    "conflicts": lambda one: _count(one.conflicts),
}


def _change(before: str, after: str) -> float:
    """The share of both texts' words that the other one lacks, as bags: a word that moved is no change."""
    old, new = before.split(), after.split()
    common = sum((Counter(old) & Counter(new)).values())
    return 1 - 2 * common / (len(old) + len(new)) if old or new else 0.0
