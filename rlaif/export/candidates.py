"""A record's live candidates, and what was said of them."""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b

from rlaif.export.comparisons import Comparisons
from rlaif.export.pairs import NoPair
from rlaif.export.ratings import Ratings, ratings_of, score_of
from rlaif.export.settings import ExportSettings
from rlaif.types import Record, Side


def chance(record: Record, what: str) -> bytes:
    """Where nothing else decides: drawn from the record and a text, so that no order matters."""
    return blake2b(f"{record.id}/{what}".encode(), digest_size=16).digest()


class Candidates:
    """Those that say something; each text is one of them, whichever says it first.

    `floor` is the least mean score of a rejected one.
    """

    def __init__(self, record: Record, settings: ExportSettings, floor: float | None) -> None:
        self.record = record
        self.floor = floor
        self.comparisons = Comparisons(record, settings.panel, settings.weights)
        self.texts = self.comparisons.texts
        self.distinct = self.comparisons.distinct

    @cached_property
    def ratings(self) -> Ratings:
        return self.ratings_of(*self.distinct)

    def ratings_of(self, *responses: int) -> Ratings:
        return ratings_of(self.record, responses, self.comparisons.alike)

    @cached_property
    def scored(self) -> bool:
        """Whether their quality is their scores: where verdicts do not compare them all."""
        return bool(self.record.scores) and not (self.record.verdicts and self.comparisons.complete())

    @property
    def too_few(self) -> NoPair | None:
        if len(self.distinct) > 1:
            return None
        return "single_candidate" if len(self.texts) < 2 else "identical"

    def chance(self, response: int) -> bytes:
        return chance(self.record, self.texts[response])

    def length_gap(self, one: int, other: int) -> int:
        return abs(len(self.texts[one]) - len(self.texts[other]))

    def is_weak(self, response: int) -> bool:
        """Asked to go against a principle, say: it is never an example to follow."""
        return self.record.responses[response].side == "weak"

    def of_side(self, side: Side) -> dict[str | None, list[int]]:
        """By the principle that they were asked to meet or miss, if any; each text once, in an order by chance."""
        first: dict[tuple[str, str | None], int] = {}
        for i, text in self.texts.items():
            if self.record.responses[i].side == side:
                first.setdefault((text, self.record.responses[i].principle), i)
        found: dict[str | None, list[int]] = {}
        for (_, principle), i in sorted(first.items(), key=lambda item: chance(self.record, f"{item[0]}")):
            found.setdefault(principle, []).append(i)
        return found

    def barred(self, response: int) -> NoPair | None:
        """Why the response must not be a rejected one: with a floor, its pointwise score must reach it."""
        if self.floor is None:
            return None
        score = score_of(self.record, *self.comparisons.alike.get(response, (response,)))
        return "unscored" if score is None else "low_quality" if score < self.floor else None

    def quality(self) -> dict[int, float] | NoPair:
        """Win rates, or half of mean scores: differences are from 0 to 1 either way."""
        if self.scored:
            scores = {i: mean / 2 for i, mean in self.ratings.means.items()}
            return scores if len(scores) > 1 else "unscored"
        if not self.comparisons.complete():
            return "no_verdict"
        rates = self.comparisons.win_rates()
        return {i: rates[i] for i in self.distinct if i in rates} or "unparsed"
