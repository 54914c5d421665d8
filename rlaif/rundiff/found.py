"""What is found between two runs: what became of each pair, and the part that each principle has in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from rlaif.authoring.diff import Changes

# What became of a pair. "other_chosen": another response wins; "other_rejected": the same one, over another.
Fate = Literal["agree", "flipped", "other_chosen", "other_rejected", "gained", "lost"]
FATES: tuple[Fate, ...] = get_args(Fate)
# A principle's part in it. Of each chain of revisions the first round that differs, since the later ones follow from
# it; of verdicts those on candidates that both runs asked about.
What = Literal[
    "rounds_gone",  # drawn for it in the first run only
    "rounds_come",  # ... in the second run only
    "rounds_other",  # in both, for the same text, which became another one
    "verdicts_gone",
    "verdicts_come",
    "verdicts_other",  # in both, on the same two texts, with another probability
]
WHATS: tuple[What, ...] = get_args(What)


class Cause(NamedTuple):
    principle: str
    what: What


@dataclass(frozen=True, slots=True)
class Example:
    """One changed pair: the texts that were chosen and rejected in each run, None where there was no pair."""

    id: str
    fate: Fate
    prompt: str
    before: tuple[str, str] | None
    after: tuple[str, str] | None
    reason: str | None  # why one of the runs has none
    causes: tuple[Cause, ...]


@dataclass(slots=True)
class Side:
    """One of the runs, as far as it is to be said of it."""

    run: str
    records: int
    status: str
    alone: int = 0  # records that the other one has not


@dataclass(slots=True)
class RunDiff:
    """`pairs` and `new_texts` (of them, those one of whose texts is new) are by fate; reasons are NoPair.

    `parts` is by principle; `behind` counts the changed pairs of the records in which it has a part.
    """

    a: Side
    b: Side
    constitution: Changes | None  # None if one of the runs did not keep it
    settings: list[str]
    pairs: Counter[Fate] = field(default_factory=Counter)
    new_texts: Counter[Fate] = field(default_factory=Counter)
    no_pair: int = 0  # records without one in both
    lost: Counter[str] = field(default_factory=Counter)
    gained: Counter[str] = field(default_factory=Counter)
    new_drafts: int = 0  # records whose drafts are not the same
    parts: dict[str, Counter[What]] = field(default_factory=dict)
    behind: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    @property
    def both(self) -> int:
        return self.a.records - self.a.alone

    @property
    def changed(self) -> int:
        return self.pairs.total() - self.pairs["agree"]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        changes = None if self.constitution is None else asdict(self.constitution)
        if changes is not None:
            del changes["redrawn"]  # simulated; the records say what was drawn
        return {
            "a": asdict(self.a),
            "b": asdict(self.b),
            "records_in_both": self.both,
            "constitution": changes,
            "settings": self.settings,
            "pairs": {fate: {"all": self.pairs[fate], "new_texts": self.new_texts[fate]} for fate in FATES},
            "no_pair_in_both": self.no_pair,
            "lost": dict(self.lost.most_common()),
            "gained": dict(self.gained.most_common()),
            "records_with_new_drafts": self.new_drafts,
            "principles": {
                name: {what: part[what] for what in WHATS} | {"pairs": self.behind[name]}
                for name, part in sorted(self.parts.items())
            },
            "examples": [asdict(one) | {"causes": [cause._asdict() for cause in one.causes]} for one in self.examples],
        }
