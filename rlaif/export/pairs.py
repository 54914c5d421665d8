"""Verdicts -> preference pairs, purely: the same record and settings give the same pairs."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from statistics import fmean
from typing import Literal

from rlaif.errors import ConfigError
from rlaif.export.comparisons import Comparison, Comparisons
from rlaif.export.settings import ExportSettings, Strategy
from rlaif.types import Record

NoPair = Literal[
    "single_candidate",  # fewer than two live candidates
    "identical",  # they all say the same
    "no_revision",  # no live revision beside its live first draft
    "no_verdict",  # nothing was judged
    "unparsed",  # the judge was asked and gave no usable answer
    "unscored",  # a quality floor, but no pointwise score
    "low_quality",  # the rejected response is below the floor
    "tie",
    "inconsistent",  # the winner changes with the order
    "low_margin",  # p < min_p
    "revision_not_better",
]
TIE = 0.005  # p that rounds to 0.50 prefers nothing
_ROUNDING = 1e-9  # (0.6 + 0.7) / 2 is a hair under 0.65


@dataclass(frozen=True, slots=True)
class Pair:
    """`p` is the judge's probability that `chosen` beats `rejected`: a soft label.

    `margin` is how much higher chosen's quality is (0 to 1): the difference of win rates over all
    candidates for best_vs_worst, 2p - 1 for revision_vs_original.
    """

    chosen: int
    rejected: int
    margin: float
    p: float
    strategy: Strategy
    judges: tuple[str, ...]
    principles: tuple[str, ...]
    reasoned: bool = False

    @property
    def soft_label(self) -> float:
        """`p` as it is exported: in [0.40, 0.60] after reasoning, which drives it to 0 and 1.

        Bai et al. 2022 (arXiv:2212.08073), section 4.1. Thresholds look at `p` itself.
        """
        return min(0.6, max(0.4, self.p)) if self.reasoned else self.p


def pairs_of(
    record: Record, settings: ExportSettings, floor: float | None = None
) -> tuple[tuple[Pair, ...], NoPair | None]:
    """The record's pairs, or why there is none; `floor` is the run's value of `settings.quality_floor`.

    Raises ConfigError when a strategy needs comparisons that the judge was never asked for.
    """
    if not settings.pairs:
        return (), None
    candidates = _Candidates(record, floor)
    found: list[Pair] = []
    reasons: list[NoPair] = []
    for strategy in sorted(settings.pairs, key=lambda name: blake2b(f"{record.id}/{name}".encode()).digest()):
        outcome = _STRATEGIES[strategy](candidates, settings)
        if isinstance(outcome, str):
            reasons.append(outcome)
        else:  # two strategies may name the same two texts: one pair
            found += [pair for pair in outcome if candidates.texts_of(pair) not in map(candidates.texts_of, found)]
    if found:
        return tuple(found[: settings.max_pairs_per_prompt]), None
    return (), reasons[0]


def score_of(record: Record, response: int) -> float | None:
    """The mean of a response's pointwise scores."""
    values = [score.value for score in record.scores if score.response == response and score.value is not None]
    return fmean(values) if values else None


class _Candidates:
    """A record's live candidates that say something, and the verdicts on them."""

    def __init__(self, record: Record, floor: float | None) -> None:
        self.record = record
        self.floor = floor
        self.texts = {i: text for i in record.candidates() if (text := record.responses[i].text.strip())}
        self.comparisons = Comparisons(record, self.texts)

    def texts_of(self, pair: Pair) -> set[str]:
        return {self.texts[pair.chosen], self.texts[pair.rejected]}

    def barred(self, response: int) -> NoPair | None:
        """Why the response must not be a rejected one: with a floor, its pointwise score must reach it."""
        if self.floor is None:
            return None
        score = score_of(self.record, response)
        return "unscored" if score is None else "low_quality" if score < self.floor else None

    def ask(self, a: int, b: int, needs: str) -> Comparison | None:
        if not self.comparisons.asked(a, b):
            raise ConfigError(f"pairing strategy {needs} (record {self.record.id})")
        return self.comparisons.of(a, b)


def _best_vs_worst(candidates: _Candidates, settings: ExportSettings) -> list[Pair] | NoPair:
    """The candidate with the highest win rate against the one with the lowest."""
    distinct = candidates.comparisons.distinct
    if len(distinct) < 2:
        return "single_candidate" if len(candidates.texts) < 2 else "identical"
    if not candidates.record.verdicts:
        return "no_verdict"
    wins: dict[int, list[float]] = {i: [] for i in distinct}
    for a, b in combinations(distinct, 2):
        if comparison := candidates.ask(a, b, _NEEDS_ALL):
            wins[a].append(comparison.p)
            wins[b].append(1 - comparison.p)
    quality = {i: fmean(rates) for i, rates in wins.items() if rates}
    if not quality:
        return "unparsed"
    best = max(quality, key=lambda i: (quality[i], -i))
    others = sorted((i for i in quality if i != best), key=lambda i: (quality[i], i))
    worst = next((i for i in others if candidates.barred(i) is None), None)
    if worst is None:
        return candidates.barred(others[0]) or "low_quality"
    comparison = candidates.ask(best, worst, _NEEDS_ALL)
    return _judged(comparison, best, worst, quality[best] - quality[worst], "best_vs_worst", settings)


def _revision_vs_original(candidates: _Candidates, settings: ExportSettings) -> list[Pair] | NoPair:
    """Each last revision against its first draft, kept only where the judge prefers the revision."""
    texts, record = candidates.texts, candidates.record
    chains = [(i, draft) for i in texts if (draft := record.draft_of(i)) != i and draft in texts]
    if not chains:
        return "no_revision"
    if not record.verdicts and any(texts[revision] != texts[draft] for revision, draft in chains):
        return "no_verdict"
    strict = settings.model_copy(update={"require_consistent": True})
    outcomes = [_revised(candidates, revision, draft, strict) for revision, draft in chains]
    found = [pair for outcome in outcomes if not isinstance(outcome, str) for pair in outcome]
    if found:
        return sorted(found, key=lambda pair: (-pair.p, pair.chosen))
    return outcomes[0]


def _revised(candidates: _Candidates, revision: int, draft: int, settings: ExportSettings) -> list[Pair] | NoPair:
    if candidates.texts[revision] == candidates.texts[draft]:
        return "identical"
    comparison = candidates.ask(revision, draft, _NEEDS_REVISIONS)
    if barred := candidates.barred(draft):
        return barred
    if comparison is not None and comparison.p <= 0.5 - TIE:
        return "revision_not_better"
    margin = 2 * comparison.p - 1 if comparison else 0.0
    return _judged(comparison, revision, draft, margin, "revision_vs_original", settings)


def _judged(
    comparison: Comparison | None,
    chosen: int,
    rejected: int,
    margin: float,
    strategy: Strategy,
    settings: ExportSettings,
) -> list[Pair] | NoPair:
    """The pair, if the two's own comparison says so clearly enough."""
    if comparison is None:
        return "unparsed"
    p = comparison.p
    if abs(p - 0.5) < TIE or margin < TIE:  # no margin: the judge's preferences run in a circle
        return "tie"
    if settings.require_consistent and not comparison.consistent:
        return "inconsistent"
    if p < max(settings.min_p - _ROUNDING, 0.5):
        return "low_margin"
    return [Pair(chosen, rejected, margin, p, strategy, comparison.judges, comparison.principles, comparison.reasoned)]


_NEEDS_ALL = "'best_vs_worst' needs verdicts between all candidates: add a 'judge' stage with comparisons: [all]"
_NEEDS_REVISIONS = (
    "'revision_vs_original' needs verdicts of revisions against their drafts: "
    "add a 'judge' stage with comparisons: [revisions] or [all]"
)
_STRATEGIES = {"best_vs_worst": _best_vs_worst, "revision_vs_original": _revision_vs_original}
