"""Verdicts, scores, sides -> preference pairs, purely: the same record and settings give the same pairs."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from rlaif.export.comparisons import Comparison, Comparisons
from rlaif.export.ratings import Ratings, ratings_of, score_of
from rlaif.export.settings import ExportSettings, Strategy
from rlaif.types import Record, Side

NoPair = Literal[
    "single_candidate",  # fewer than two live candidates
    "identical",  # they all say the same
    "no_revision",  # no live revision beside its live first draft
    "one_sided",  # no live strong response beside a live weak one of its principle
    "no_verdict",  # no judge was asked, or not about these: a later filter made another response the candidate
    "unparsed",  # the judge was asked and gave no usable answer
    "unscored",  # fewer than two candidates have scores for the same aspect, or a quality floor and none
    "low_quality",  # the rejected response is below the floor
    "tie",
    "both_bad",  # says most judges
    "inconsistent",  # the winner changes with the order
    "low_margin",  # p < min_p, or margin < min_margin
    "revision_not_better",
    "weak_preferred",
]
TIE = 0.005  # p that rounds to 0.50 prefers nothing
_ROUNDING = 1e-9  # (0.6 + 0.7) / 2 is a hair under 0.65


@dataclass(frozen=True, slots=True)
class Pair:
    """`p` is the judge's probability that `chosen` beats `rejected`: a soft label; None if none compared the two.

    `margin` is how much higher chosen's quality is (0 to 1): the difference of win rates over all
    candidates for best_vs_*, else 2p - 1; by scores, half the difference of means; None if nobody judged.
    """

    chosen: int
    rejected: int
    margin: float | None
    p: float | None
    strategy: Strategy
    judges: tuple[str, ...] = ()
    principles: tuple[str, ...] = ()
    reasoned: bool = False

    @property
    def by(self) -> Literal["verdict", "score", "side"]:
        """What says that chosen is better."""
        return "verdict" if self.p is not None else "side" if self.margin is None else "score"

    @property
    def soft_label(self) -> float | None:
        """`p` as it is exported: in [0.40, 0.60] after reasoning, which drives it to 0 and 1.

        Bai et al. 2022 (arXiv:2212.08073), section 4.1. Thresholds look at `p` itself.
        """
        return self.p if self.p is None or not self.reasoned else min(0.6, max(0.4, self.p))

    @property
    def reward_margin(self) -> float:
        """`margin` for a loss, which must not claim more than `soft_label` does; 0 if nobody judged."""
        label = self.soft_label
        return 2 * label - 1 if self.reasoned and label is not None else self.margin or 0.0


def pairs_of(
    record: Record, settings: ExportSettings, floor: float | None = None
) -> tuple[tuple[Pair, ...], NoPair | None]:
    """The record's pairs, or why there is none; `floor` is the run's value of `settings.quality_floor`."""
    if not settings.pairs:
        return (), None
    candidates = _Candidates(record, settings, floor)
    found: list[Pair] = []
    reasons: list[NoPair] = []
    for strategy in sorted(settings.pairs, key=lambda name: _chance(record, name)):
        for outcome in _STRATEGIES[strategy](candidates, settings):
            if isinstance(outcome, str):
                reasons.append(outcome)
            elif candidates.texts_of(outcome) not in map(candidates.texts_of, found):
                found.append(outcome)  # two strategies may name the same two texts: one pair
    if found:
        return tuple(found[: settings.max_pairs_per_prompt]), None
    return (), reasons[0]


def _chance(record: Record, what: str) -> bytes:
    return blake2b(f"{record.id}/{what}".encode()).digest()


class _Candidates:
    """A record's live candidates that say something, and what was said of them."""

    def __init__(self, record: Record, settings: ExportSettings, floor: float | None) -> None:
        self.record = record
        self.floor = floor
        self.comparisons = Comparisons(record, settings.panel, settings.weights)
        self.texts = self.comparisons.texts
        self.ratings = ratings_of(record, self.comparisons.distinct)

    @property
    def scored(self) -> bool:
        """Whether their quality is their scores: where verdicts do not compare them all."""
        return bool(self.record.scores) and not (self.record.verdicts and self.comparisons.complete())

    def texts_of(self, pair: Pair) -> set[str]:
        return {self.texts[pair.chosen], self.texts[pair.rejected]}

    def of_side(self, side: Side) -> dict[str | None, list[int]]:
        """By the principle that they were asked to meet or miss, if any; each text once."""
        first: dict[tuple[str, str | None], int] = {}
        for i, text in self.texts.items():
            if self.record.responses[i].side == side:
                first.setdefault((text, self.record.responses[i].principle), i)
        found: dict[str | None, list[int]] = {}
        for (_, principle), i in first.items():
            found.setdefault(principle, []).append(i)
        return found

    def barred(self, response: int) -> NoPair | None:
        """Why the response must not be a rejected one: with a floor, its pointwise score must reach it."""
        if self.floor is None:
            return None
        score = score_of(self.record, response)
        return "unscored" if score is None else "low_quality" if score < self.floor else None

    def quality(self) -> dict[int, float] | NoPair:
        """Win rates, or half of mean scores: differences are from 0 to 1 either way."""
        if self.scored:
            scores = {i: mean / 2 for i, mean in self.ratings.means.items()}
            return scores if len(scores) > 1 else "unscored"
        if not self.comparisons.complete():
            return "no_verdict"
        rates = self.comparisons.win_rates()
        return {i: rates[i] for i in self.comparisons.distinct if i in rates} or "unparsed"


def _best_vs_worst(candidates: _Candidates, settings: ExportSettings) -> list[Pair | NoPair]:
    """The candidate of the highest quality against the one of the lowest."""
    return [_best_against("best_vs_worst", candidates, settings)]


def _best_vs_random(candidates: _Candidates, settings: ExportSettings) -> list[Pair | NoPair]:
    """The best candidate against any other: rejected ones of every quality (Zephyr, arXiv:2310.16944; Tulu 3)."""
    return [_best_against("best_vs_random", candidates, settings)]


def _best_against(
    strategy: Literal["best_vs_worst", "best_vs_random"], candidates: _Candidates, settings: ExportSettings
) -> Pair | NoPair:
    record, texts = candidates.record, candidates.texts
    if len(candidates.comparisons.distinct) < 2:
        return "single_candidate" if len(texts) < 2 else "identical"
    quality = candidates.quality()
    if isinstance(quality, str):
        return quality
    best, *others = sorted(quality, key=lambda i: (-quality[i], i))
    if strategy == "best_vs_worst":
        others.sort(key=lambda i: (quality[i], i))
    else:  # by what they say, so that their order does not matter; one as good as the best would be no pair
        others = [i for i in others if quality[best] - quality[i] >= TIE] or others
        others.sort(key=lambda i: _chance(record, texts[i]))
    rejected = next((i for i in others if candidates.barred(i) is None), None)
    if rejected is None:
        return candidates.barred(others[0]) or "low_quality"
    if record.responses[best].side == "weak":  # asked to go against a principle, say: it is never an example to follow
        return "weak_preferred"
    margin = quality[best] - quality[rejected]
    if candidates.scored:
        return "tie" if margin < TIE else _scored(candidates.ratings, best, rejected, margin, strategy, settings)
    return _judged(candidates.comparisons.of(best, rejected), best, rejected, margin, strategy, settings)


def _revision_vs_original(candidates: _Candidates, settings: ExportSettings) -> list[Pair | NoPair]:
    """Each last revision against its first draft, kept only where the judge prefers the revision; clearest first."""
    texts, record = candidates.texts, candidates.record
    chains = [(i, draft) for i in texts if (draft := record.draft_of(i)) != i and draft in texts]
    if not chains:
        return ["no_revision"]
    strict = settings.model_copy(update={"require_consistent": True})
    outcomes = [_revised(candidates, revision, draft, strict) for revision, draft in chains]
    return sorted(outcomes, key=lambda one: 0.0 if isinstance(one, str) else -(one.p or 0.0))


def _revised(candidates: _Candidates, revision: int, draft: int, settings: ExportSettings) -> Pair | NoPair:
    if candidates.texts[revision] == candidates.texts[draft]:
        return "identical"
    if not candidates.comparisons.asked(revision, draft):
        return "no_verdict"
    if barred := candidates.barred(draft):
        return barred
    comparison = candidates.comparisons.of(revision, draft)
    if comparison is not None and comparison.p <= 0.5 - TIE:
        return "revision_not_better"
    margin = 2 * comparison.p - 1 if comparison else 0.0
    return _judged(comparison, revision, draft, margin, "revision_vs_original", settings)


def _strong_vs_weak(candidates: _Candidates, settings: ExportSettings) -> list[Pair | NoPair]:
    """The i-th response of the strong model or prompt against the i-th of the weak one, of the same principle if any.

    Delta learning (Geng et al. 2025, arXiv:2507.06187), contrasting prompts (RLCD, arXiv:2307.12950).
    """
    strong, weak = candidates.of_side("strong"), candidates.of_side("weak")
    pairs = [pair for principle in strong for pair in zip(strong[principle], weak.get(principle, ()), strict=False)]
    return [_sided(candidates, *pair, settings) for pair in pairs] or ["one_sided"]


def _sided(candidates: _Candidates, strong: int, weak: int, settings: ExportSettings) -> Pair | NoPair:
    """Needs no verdict and no scores, but must not go against them."""
    if candidates.texts[strong] == candidates.texts[weak]:
        return "identical"
    if barred := candidates.barred(weak):
        return barred
    seen = candidates.comparisons.of(strong, weak)
    if seen is not None:
        margin = 2 * seen.p - 1
        if margin < 0:
            return "weak_preferred"
        if margin < settings.min_margin - _ROUNDING:
            return "low_margin"
        return Pair(strong, weak, margin, seen.p, "strong_vs_weak", seen.judges, seen.principles, seen.reasoned)
    ratings = ratings_of(candidates.record, (strong, weak))
    if len(ratings.means) == 2:
        higher = ratings.means[strong] - ratings.means[weak]
        if higher <= -TIE:
            return "weak_preferred"
        return _scored(ratings, strong, weak, max(0.0, higher / 2), "strong_vs_weak", settings)
    principle = candidates.record.responses[strong].principle
    return Pair(strong, weak, None, None, "strong_vs_weak", principles=(principle,) if principle else ())


def _scored(
    ratings: Ratings, chosen: int, rejected: int, margin: float, strategy: Strategy, settings: ExportSettings
) -> Pair | NoPair:
    if margin < settings.min_margin - _ROUNDING:
        return "low_margin"
    return Pair(chosen, rejected, margin, None, strategy, ratings.judges, ratings.principles)


def _judged(
    comparison: Comparison | None,
    chosen: int,
    rejected: int,
    margin: float,
    strategy: Strategy,
    settings: ExportSettings,
) -> Pair | NoPair:
    """The pair, if the two's own comparison says so clearly enough."""
    if comparison is None:
        return "unparsed"
    if comparison.both_bad:
        return "both_bad"
    p = comparison.p
    if abs(p - 0.5) < TIE or margin < TIE:  # no margin: the judge's preferences run in a circle
        return "tie"
    if settings.require_consistent and not comparison.consistent:
        return "inconsistent"
    if p < max(settings.min_p - _ROUNDING, 0.5) or margin < settings.min_margin - _ROUNDING:
        return "low_margin"
    return Pair(chosen, rejected, margin, p, strategy, comparison.judges, comparison.principles, comparison.reasoned)


_STRATEGIES = {
    "best_vs_worst": _best_vs_worst,
    "best_vs_random": _best_vs_random,
    "revision_vs_original": _revision_vs_original,
    "strong_vs_weak": _strong_vs_weak,
}
