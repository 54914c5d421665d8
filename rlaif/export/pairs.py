"""What a pair is, and what two responses need to become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from rlaif.export.comparisons import Comparison
from rlaif.export.ratings import Ratings
from rlaif.export.settings import ExportSettings, Strategy

# Why a record has no pair; of several reasons the one that came nearest to a pair counts, the last of these.
NoPair = Literal[
    "single_candidate",  # fewer than two live candidates
    "identical",  # they all say the same
    "no_revision",  # no live revision beside its live first draft
    "one_sided",  # no live strong response beside a live weak one of its principle
    "no_verdict",  # no judge was asked, or not about these: a later filter made another response the candidate
    "unparsed",  # the judge was asked and gave no usable answer
    "unscored",  # fewer than two candidates have scores for the same aspect, or a quality floor and none
    "not_implied",  # no verdicts lead from one to the other of two responses that nobody compared
    "low_quality",  # the rejected response is below the floor
    "weak_preferred",
    "revision_not_better",
    "tie",
    "both_bad",  # says most judges
    "inconsistent",  # the winner changes with the order
    "low_margin",  # p < min_p, or margin < min_margin
    "length_gap",  # one is longer by more than max_length_gap
]
NEARNESS = {reason: place for place, reason in enumerate(get_args(NoPair))}
TIE = 0.005  # p that rounds to 0.50 prefers nothing
SOFT_TIE = 0.05  # with `ties: soft`, p from 0.45 to 0.55 is a tie; the hard pairs' thresholds come first
ROUNDING = 1e-9  # (0.6 + 0.7) / 2 is a hair under 0.65


@dataclass(frozen=True, slots=True)
class Pair:
    """`p` is the judge's probability that `chosen` beats `rejected`: a soft label; None if none compared the two.

    `margin` is how much higher chosen's quality is (0 to 1): the difference of win rates over all
    candidates for best_vs_* and mean_minus_2sd, else 2p - 1; by scores, half the difference of means; None if nobody
    judged. A closure's `p` is the product along the path.
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


class Tie(NamedTuple):
    """Two responses that the judge found about as good: no pair, for `reason`, but a soft label near a half."""

    pair: Pair
    reason: NoPair


Outcome = Pair | Tie | NoPair


def judged(
    comparison: Comparison | None,
    chosen: int,
    rejected: int,
    margin: float,
    strategy: Strategy,
    settings: ExportSettings,
) -> Outcome:
    """The pair, if the two's own comparison says so clearly enough."""
    if comparison is None:
        return "unparsed"
    if comparison.both_bad:
        return "both_bad"
    reason = _unclear(comparison, margin, settings)
    if reason is None:
        return _pair(comparison, chosen, rejected, margin, strategy)
    return soft(reason, comparison, chosen, rejected, strategy, settings)


def soft(
    reason: NoPair, comparison: Comparison, chosen: int, rejected: int, strategy: Strategy, settings: ExportSettings
) -> Tie | NoPair:
    """What is no pair for this reason may still be a tie."""
    if settings.ties == "drop" or comparison.both_bad or abs(comparison.p - 0.5) > SOFT_TIE + ROUNDING:
        return reason
    return Tie(_pair(comparison, chosen, rejected, 2 * comparison.p - 1, strategy), reason)


def scored(
    ratings: Ratings, chosen: int, rejected: int, margin: float, strategy: Strategy, settings: ExportSettings
) -> Pair | NoPair:
    if margin < settings.min_margin - ROUNDING:
        return "low_margin"
    return Pair(chosen, rejected, margin, None, strategy, ratings.judges, ratings.principles)


def _unclear(comparison: Comparison, margin: float, settings: ExportSettings) -> NoPair | None:
    p = comparison.p
    if abs(p - 0.5) < TIE or margin < TIE:  # no margin: the judge's preferences run in a circle
        return "tie"
    if settings.require_consistent and not comparison.consistent:
        return "inconsistent"
    if p < max(settings.min_p - ROUNDING, 0.5) or margin < settings.min_margin - ROUNDING:
        return "low_margin"
    return None


def _pair(comparison: Comparison, chosen: int, rejected: int, margin: float, strategy: Strategy) -> Pair:
    return Pair(
        chosen,
        rejected,
        margin,
        comparison.p,
        strategy,
        comparison.judges,
        comparison.principles,
        comparison.reasoned,
    )
