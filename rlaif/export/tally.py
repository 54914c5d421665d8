"""What an export counted: attrition, pairs, and how far the judges can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # plain JSON

from rlaif.export.pairs import Pair
from rlaif.export.principles import PrincipleStats, PrincipleTally
from rlaif.export.rows import Split
from rlaif.export.selection import kept
from rlaif.export.settings import Config
from rlaif.export.strategies import NOTHING, Found
from rlaif.types import Messages, Record


@dataclass(frozen=True, slots=True)
class JudgeStats:
    """One judge's verdicts, counted. A verdict is usable when both orders gave an answer."""

    verdicts: int
    usable: int
    consistent: int  # the same winner in both orders
    first_picks: float  # of 2 * usable answers, those for the response shown first; a draw is half

    @property
    def unusable_share(self) -> float:
        return 1 - self.usable / self.verdicts

    @property
    def swap_consistency(self) -> float | None:
        return self.consistent / self.usable if self.usable else None

    @property
    def position_bias(self) -> float | None:
        """P(the response shown first wins) - 0.5."""
        return self.first_picks / (2 * self.usable) - 0.5 if self.usable else None


@dataclass(frozen=True, slots=True)
class Example:
    """The clearest pair of the run, to show; `revision` where there are none: the rejected text is the draft."""

    id: str
    prompt: Messages
    chosen: str
    rejected: str
    p: float | None = None
    margin: float | None = None
    revision: str | None = None  # the principle it was made by

    @property
    def said(self) -> str:
        """What says that chosen is better, in words."""
        if self.revision is not None:
            return f"by the principle '{self.revision}'"
        if self.p is not None:
            return f"p(chosen) = {self.p:.2f}"
        return "by side" if self.margin is None else f"by score, margin {self.margin:.2f}"


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """`rows` by configuration and split; lengths in characters, mean.

    `outcomes` like "ok", "dropped: refusal"; `strategies` like "best_vs_worst", "best_vs_worst by score".
    """

    folder: Path
    rows: Mapping[Config, Mapping[Split, int]]
    records: int
    outcomes: Mapping[str, int]
    pairs: int
    strategies: Mapping[str, int]
    no_pair: Mapping[str, int]
    judges: Mapping[str, JudgeStats]
    raters: Mapping[str, tuple[int, int]]  # (ratings asked for, those that gave none)
    longer_chosen: float  # pairs whose chosen response is the longer one; equal lengths are half
    chosen_chars: float
    rejected_chars: float
    example: Example | None
    ties: int = 0  # rows of `preference_soft` that are in no other dataset
    left_out: Mapping[str, int] = field(default_factory=dict)  # pairs that were made, by why they are in no dataset
    left_out_examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # ids of the first records
    principles: Mapping[str, PrincipleStats] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """What summary.json says of the dataset."""
        return {
            "pairs": self.pairs,
            "ties": self.ties,
            "no_pair": dict(self.no_pair),
            "left_out": dict(self.left_out),
            "left_out_examples": {why: list(ids) for why, ids in self.left_out_examples.items()},
            "rows": {config: dict(splits) for config, splits in self.rows.items()},
        }


@dataclass(slots=True)
class Tally:
    """Counts while records stream by."""

    outcomes: Counter[str] = field(default_factory=Counter)
    strategies: Counter[str] = field(default_factory=Counter)
    no_pair: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    ties: int = 0
    _principles: PrincipleTally = field(default_factory=PrincipleTally)
    _judges: dict[str, _Counts] = field(default_factory=dict)
    _ratings: Counter[str] = field(default_factory=Counter)
    _unusable: Counter[str] = field(default_factory=Counter)
    _longer: float = 0.0
    _chosen_chars: int = 0
    _rejected_chars: int = 0
    _example: Example | None = None
    _revision: Example | None = None
    _left_out: dict[str, list[str]] = field(default_factory=dict)

    def add(self, record: Record, found: Found, why: Sequence[str | None]) -> Found:
        """What of it is exported: all but the pairs and ties that are left out for a reason."""
        outcome = record.outcome or "unfinished"
        self.outcomes[f"{outcome}: {record.reason}" if record.reason else outcome] += 1
        if record.outcome != "ok":
            self._principles.add(record)
            return NOTHING
        exported = kept(found, why)
        self._leave_out(record, found, why)
        self._principles.add(record, exported.pairs)
        self._judge(record)
        if exported.reason:
            self.no_pair[exported.reason] += 1
        for pair in exported.pairs:
            self._pair(record, pair)
        self.ties += len(exported.ties)
        if self._revision is None:
            self._revision = _revised(record)
        return exported

    def _leave_out(self, record: Record, found: Found, why: Sequence[str | None]) -> None:
        for reason in why:
            if reason is not None:
                self.left_out[reason] += 1
                examples = self._left_out.setdefault(reason, [])
                if len(examples) < _EXAMPLES:
                    examples.append(record.id)

    def summary(self, folder: Path, rows: Mapping[Config, Mapping[Split, int]]) -> ExportSummary:
        pairs = self.strategies.total()
        return ExportSummary(
            folder=folder,
            rows=rows,
            records=self.outcomes.total(),
            outcomes=dict(self.outcomes.most_common()),
            pairs=pairs,
            strategies=dict(self.strategies.most_common()),
            no_pair=dict(self.no_pair.most_common()),
            judges={name: counts.stats() for name, counts in sorted(self._judges.items())},
            raters={name: (asked, self._unusable[name]) for name, asked in sorted(self._ratings.items())},
            longer_chosen=self._longer / pairs if pairs else 0.0,
            chosen_chars=self._chosen_chars / pairs if pairs else 0.0,
            rejected_chars=self._rejected_chars / pairs if pairs else 0.0,
            example=self._example or self._revision,
            ties=self.ties,
            left_out=dict(self.left_out.most_common()),
            left_out_examples={reason: tuple(examples) for reason, examples in self._left_out.items()},
            principles=self._principles.stats(),
        )

    def _judge(self, record: Record) -> None:
        for score in record.scores:
            self._ratings[score.judge] += 1
            self._unusable[score.judge] += score.value is None
        for verdict in record.verdicts:
            counts = self._judges.get(verdict.judge)
            if counts is None:
                counts = self._judges[verdict.judge] = _Counts()
            counts.verdicts += 1
            if verdict.p_ab is None or verdict.p_ba is None:
                continue
            counts.usable += 1
            counts.consistent += verdict.consistent is True
            # `first` was shown first in one order, `second` in the other.
            counts.half_first_picks += _halves(verdict.p_ab) + _halves(1 - verdict.p_ba)

    def _pair(self, record: Record, pair: Pair) -> None:
        chosen, rejected = record.responses[pair.chosen].text, record.responses[pair.rejected].text
        self.strategies[pair.strategy if pair.by == "verdict" else f"{pair.strategy} by {pair.by}"] += 1
        self._chosen_chars += len(chosen)
        self._rejected_chars += len(rejected)
        self._longer += 1.0 if len(chosen) > len(rejected) else 0.5 if len(chosen) == len(rejected) else 0.0
        if self._example is None or _clearness(pair) > _clearness(self._example):
            self._example = _example(record, pair)


_EXAMPLES = 3


def _example(record: Record, pair: Pair) -> Example:
    chosen, rejected = record.responses[pair.chosen].text, record.responses[pair.rejected].text
    return Example(record.id, record.prompt, chosen, rejected, pair.p, pair.margin)


def _revised(record: Record) -> Example | None:
    """The record's last revision beside its draft."""
    if all(response.revises is None for response in record.responses):
        return None
    for i in reversed(record.live()):
        made = record.responses[i]
        if made.revises is not None and made.text:
            draft = record.responses[record.draft_of(i)].text
            return Example(record.id, record.prompt, made.text, draft, revision=made.principle or "")
    return None


def _clearness(pair: Pair | Example) -> tuple[bool, float]:
    """A judge's comparison first, then scores, then what nobody judged."""
    return pair.p is not None, pair.margin or 0.0 if pair.p is None else pair.p


def _halves(p: float) -> int:
    return 2 if p > 0.5 else 1 if p == 0.5 else 0


@dataclass(slots=True)
class _Counts:
    """A judge's verdicts while records stream by: there are more of them than of anything else."""

    verdicts: int = 0
    usable: int = 0
    consistent: int = 0
    half_first_picks: int = 0

    def stats(self) -> JudgeStats:
        return JudgeStats(self.verdicts, self.usable, self.consistent, self.half_first_picks / 2)
