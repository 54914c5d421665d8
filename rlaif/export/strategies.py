"""Verdicts, scores, sides -> preference pairs, purely: the same record and settings give the same pairs.

The order of the candidates does not matter: where nothing else decides, a hash of their texts does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations, pairwise
from math import fsum, sqrt
from typing import NamedTuple

from rlaif.export.candidates import Candidates, chance
from rlaif.export.closure import implied
from rlaif.export.comparisons import Comparison
from rlaif.export.pairs import NEARNESS, ROUNDING, TIE, NoPair, Outcome, Pair, Tie, judged, scored, soft
from rlaif.export.settings import ExportSettings, Strategy
from rlaif.types import Record


class Found(NamedTuple):
    """A record's pairs, or why there is none; `ties` only with `ties: soft`."""

    pairs: tuple[Pair, ...]
    ties: tuple[Pair, ...]
    reason: str | None  # a NoPair, or why all of them were left out


NOTHING = Found((), (), None)


def pairs_of(
    record: Record, settings: ExportSettings, floor: float | None = None
) -> tuple[tuple[Pair, ...], str | None]:
    """The record's pairs, or why there is none; `floor` is the run's value of `settings.quality_floor`."""
    pairs, _, reason = found_in(record, settings, floor)
    return pairs, reason


def found_in(record: Record, settings: ExportSettings, floor: float | None = None) -> Found:
    """The same with what is no pair but a soft label; both together at most `max_pairs_per_prompt`, pairs first."""
    if not settings.pairs:
        return NOTHING
    candidates = Candidates(record, settings, floor)
    pairs: dict[frozenset[str], Pair] = {}  # two strategies may name the same two texts: one pair
    ties: dict[frozenset[str], Pair] = {}
    reasons: list[NoPair] = []
    for strategy in _drawn(settings.pairs, record):
        outcomes = [_within_gap(one, candidates, settings) for one in _STRATEGIES[strategy](candidates, settings)]
        for outcome in outcomes:
            if isinstance(outcome, Pair):
                pairs.setdefault(_texts(candidates, outcome), outcome)
            elif isinstance(outcome, Tie):
                ties.setdefault(_texts(candidates, outcome.pair), outcome.pair)
        if not pairs:
            reasons.append(_nearest(outcomes))
    most = settings.max_pairs_per_prompt
    hard = tuple(pairs.values())[:most]
    about_even = [tie for texts, tie in ties.items() if texts not in pairs]
    return Found(hard, tuple(about_even[: most - len(hard)]), None if hard else reasons[0])


def _drawn(strategies: tuple[Strategy, ...], record: Record) -> Iterable[Strategy]:
    return strategies if len(strategies) == 1 else sorted(strategies, key=lambda name: chance(record, name))


def _texts(candidates: Candidates, pair: Pair) -> frozenset[str]:
    return frozenset((candidates.texts[pair.chosen], candidates.texts[pair.rejected]))


def _nearest(outcomes: list[Outcome]) -> NoPair:
    reasons = [one.reason if isinstance(one, Tie) else one for one in outcomes if not isinstance(one, Pair)]
    return max(reasons, key=NEARNESS.__getitem__)


def _within_gap(outcome: Outcome, candidates: Candidates, settings: ExportSettings) -> Outcome:
    if settings.max_length_gap is None or isinstance(outcome, str):
        return outcome
    pair = outcome.pair if isinstance(outcome, Tie) else outcome
    return outcome if candidates.length_gap(pair.chosen, pair.rejected) <= settings.max_length_gap else "length_gap"


def _best_vs_worst(candidates: Candidates, settings: ExportSettings) -> list[Outcome]:
    """The candidate of the highest quality against the one of the lowest."""

    def worst(others: list[int], quality: dict[int, float], best: int) -> int:
        lowest = min(quality[i] for i in others)
        return min((i for i in others if quality[i] == lowest), key=candidates.chance)

    return [_best_against("best_vs_worst", worst, candidates, settings)]


def _best_vs_random(candidates: Candidates, settings: ExportSettings) -> list[Outcome]:
    """The best candidate against any other: rejected ones of every quality (Zephyr, arXiv:2310.16944; Tulu 3)."""

    def any_other(others: list[int], quality: dict[int, float], best: int) -> int:
        worse = [i for i in others if quality[best] - quality[i] >= TIE]  # one as good as the best would be no pair
        return min(worse or others, key=candidates.chance)

    return [_best_against("best_vs_random", any_other, candidates, settings)]


def _mean_minus_2sd(candidates: Candidates, settings: ExportSettings) -> list[Outcome]:
    """The best candidate against the one nearest to two standard deviations below the mean (arXiv:2502.16825).

    Of many candidates the worst is an outlier that teaches little. Of five or fewer it is the worst all the same: none
    of n can be more than sqrt(n - 1) standard deviations from their mean.
    """

    def nearest(others: list[int], quality: dict[int, float], best: int) -> int:
        mean = fsum(quality.values()) / len(quality)
        sd = sqrt(fsum((one - mean) ** 2 for one in quality.values()) / len(quality))
        distance = {i: abs(quality[i] - mean + 2 * sd) for i in others}
        # Two at the same distance, or but for rounding: the worse one, as where there are few.
        close = min(distance.values()) + ROUNDING
        return min((i for i in others if distance[i] <= close), key=lambda i: (quality[i], candidates.chance(i)))

    return [_best_against("mean_minus_2sd", nearest, candidates, settings)]


def _best_against(
    strategy: Strategy,
    rejected_of: Callable[[list[int], dict[int, float], int], int],
    candidates: Candidates,
    settings: ExportSettings,
) -> Outcome:
    """`rejected_of` takes the other candidates that may be rejected, all qualities, and the best."""
    if candidates.too_few:
        return candidates.too_few
    quality = candidates.quality()
    if isinstance(quality, str):
        return quality
    highest = max(quality.values())
    best = min((i for i in quality if quality[i] == highest), key=candidates.chance)
    others = [i for i in quality if i != best]
    if not others:
        return "unparsed"
    allowed = [i for i in others if candidates.barred(i) is None]
    if not allowed:
        return max((candidates.barred(i) or "low_quality" for i in others), key=NEARNESS.__getitem__)
    if candidates.is_weak(best):
        return "weak_preferred"
    rejected = rejected_of(allowed, quality, best)
    margin = quality[best] - quality[rejected]
    if candidates.scored:
        return "tie" if margin < TIE else scored(candidates.ratings, best, rejected, margin, strategy, settings)
    return judged(candidates.comparisons.of(best, rejected), best, rejected, margin, strategy, settings)


def _above_margin(candidates: Candidates, settings: ExportSettings) -> list[Outcome]:
    """All pairs that are clear enough, clearest first: as many as `max_pairs_per_prompt` lets through."""
    if candidates.too_few:
        return [candidates.too_few]
    outcomes = [_of_two(candidates, a, b, settings) for a, b in combinations(candidates.distinct, 2)]
    return sorted(outcomes, key=lambda one: _clearness(one, candidates))


def _of_two(candidates: Candidates, a: int, b: int, settings: ExportSettings) -> Outcome:
    """By scores where these are the quality, else by what the judge says of these two, whatever it says of others."""
    if candidates.scored:
        means = candidates.ratings.means
        if a not in means or b not in means:
            return "unscored"
        chosen, rejected = (a, b) if means[a] >= means[b] else (b, a)
        comparison, margin = None, (means[chosen] - means[rejected]) / 2
    else:
        comparison = candidates.comparisons.of(a, b)
        if comparison is None:
            return "unparsed" if candidates.comparisons.asked(a, b) else "no_verdict"
        chosen, rejected = (a, b) if comparison.p >= 0.5 else (b, a)
        comparison = comparison if chosen == a else comparison.mirrored()
        margin = 2 * comparison.p - 1
    if candidates.is_weak(chosen):
        return "weak_preferred"
    if barred := candidates.barred(rejected):
        return barred
    if comparison is None:
        return "tie" if margin < TIE else scored(candidates.ratings, chosen, rejected, margin, "above_margin", settings)
    return judged(comparison, chosen, rejected, margin, "above_margin", settings)


def _clearness(outcome: Outcome, candidates: Candidates) -> tuple[float, bytes]:
    """Sorts the clearest to the front."""
    if isinstance(outcome, str):
        return 0.0, b""
    pair = outcome.pair if isinstance(outcome, Tie) else outcome
    return -(pair.margin or 0.0), candidates.chance(pair.chosen) + candidates.chance(pair.rejected)


def _closure(candidates: Candidates, settings: ExportSettings) -> list[Outcome]:
    """What the verdicts imply of two candidates that no judge compared: a beats b, b beats c, so a beats c.

    p is the product along the path, the probability that all of its steps are right if their errors are independent;
    where several paths lead there, that of the likeliest. Each step must be a pair of its own by these settings, and so
    must p. Pairs that verdicts compare are never made here: that is for the other strategies.
    """
    if candidates.too_few:
        return [candidates.too_few]
    comparisons = candidates.comparisons

    def step(a: int, b: int) -> float | None:
        seen = comparisons.of(a, b)
        clear = seen is not None and judged(seen, a, b, 2 * seen.p - 1, "closure", settings)
        return clear.p if isinstance(clear, Pair) else None

    def prefers(a: int, b: int) -> bool:
        seen = comparisons.of(a, b)
        return seen is not None and seen.p - 0.5 >= TIE

    outcomes: list[Outcome] = []
    for path, p in implied(candidates.distinct, step, prefers):
        steps = [seen for a, b in pairwise(path) if (seen := comparisons.of(a, b))]
        if comparisons.of(path[0], path[-1]) is None:
            outcomes.append(_implied(candidates, path[0], path[-1], p, steps, settings))
    return sorted(outcomes, key=lambda one: _clearness(one, candidates)) or ["not_implied"]


def _implied(
    candidates: Candidates, chosen: int, rejected: int, p: float, steps: list[Comparison], settings: ExportSettings
) -> Outcome:
    if candidates.is_weak(chosen):
        return "weak_preferred"
    if barred := candidates.barred(rejected):
        return barred
    margin = 2 * p - 1
    if p < max(settings.min_p - ROUNDING, 0.5 + TIE) or margin < settings.min_margin - ROUNDING:
        return "low_margin"
    judges = tuple(sorted({judge for one in steps for judge in one.judges}))
    principles = tuple(sorted({principle for one in steps for principle in one.principles}))
    return Pair(chosen, rejected, margin, p, "closure", judges, principles, any(one.reasoned for one in steps))


def _revision_vs_original(candidates: Candidates, settings: ExportSettings) -> list[Outcome]:
    """Each last revision against its first draft, kept only where the judge prefers the revision; clearest first."""
    texts, record = candidates.texts, candidates.record
    chains = [(i, draft) for i in texts if (draft := record.draft_of(i)) != i and draft in texts]
    if not chains:
        return ["no_revision"]
    strict = settings.model_copy(update={"require_consistent": True})
    outcomes = [_revised(candidates, revision, draft, strict) for revision, draft in chains]
    return sorted(outcomes, key=lambda one: _clearness(one, candidates))


def _revised(candidates: Candidates, revision: int, draft: int, settings: ExportSettings) -> Outcome:
    if candidates.texts[revision] == candidates.texts[draft]:
        return "identical"
    if not candidates.comparisons.asked(revision, draft):
        return "no_verdict"
    if barred := candidates.barred(draft):
        return barred
    comparison = candidates.comparisons.of(revision, draft)
    if comparison is not None and comparison.p <= 0.5 - TIE:
        return soft("revision_not_better", comparison, revision, draft, "revision_vs_original", settings)
    margin = 2 * comparison.p - 1 if comparison else 0.0
    return judged(comparison, revision, draft, margin, "revision_vs_original", settings)


def _strong_vs_weak(candidates: Candidates, settings: ExportSettings) -> list[Outcome]:
    """A response of the strong model or prompt against one of the weak one, of the same principle if any; each once.

    Delta learning (Geng et al. 2025, arXiv:2507.06187), contrasting prompts (RLCD, arXiv:2307.12950).
    """
    strong, weak = candidates.of_side("strong"), candidates.of_side("weak")
    pairs = [pair for principle in strong for pair in zip(strong[principle], weak.get(principle, ()), strict=False)]
    return [_sided(candidates, *pair, settings) for pair in pairs] or ["one_sided"]


def _sided(candidates: Candidates, strong: int, weak: int, settings: ExportSettings) -> Outcome:
    """Needs no verdict and no scores, but must not go against them."""
    if candidates.texts[strong] == candidates.texts[weak]:
        return "identical"
    if barred := candidates.barred(weak):
        return barred
    seen = candidates.comparisons.of(strong, weak)
    if seen is not None:
        margin = 2 * seen.p - 1
        if seen.both_bad:
            return "both_bad"
        if margin <= -2 * TIE:
            return "weak_preferred"
        if margin < 2 * TIE:
            return soft("tie", seen, strong, weak, "strong_vs_weak", settings)
        if margin < settings.min_margin - ROUNDING:
            return "low_margin"
        return Pair(strong, weak, margin, seen.p, "strong_vs_weak", seen.judges, seen.principles, seen.reasoned)
    ratings = candidates.ratings_of(strong, weak)
    if len(ratings.means) == 2:
        higher = ratings.means[strong] - ratings.means[weak]
        if higher < TIE:
            return "tie" if higher > -TIE else "weak_preferred"
        return scored(ratings, strong, weak, higher / 2, "strong_vs_weak", settings)
    principle = candidates.record.responses[strong].principle
    return Pair(strong, weak, None, None, "strong_vs_weak", principles=(principle,) if principle else ())


_STRATEGIES: dict[Strategy, Callable[[Candidates, ExportSettings], list[Outcome]]] = {
    "best_vs_worst": _best_vs_worst,
    "best_vs_random": _best_vs_random,
    "mean_minus_2sd": _mean_minus_2sd,
    "above_margin": _above_margin,
    "closure": _closure,
    "revision_vs_original": _revision_vs_original,
    "strong_vs_weak": _strong_vs_weak,
}
