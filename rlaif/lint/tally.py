"""What the rows of a dataset add up to; parts of it are counted apart and put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rlaif.lint.facts import BAD, GOOD, ROW_BIT, SIDE_BIT
from rlaif.lint.rules import SIDE

MOST = 3  # examples of a rule
LONGEST = 1 << 16  # characters; for the histogram and the AUC longer texts are that long
_CATEGORIES = 1000  # names that are counted; what comes after them is "(others)"

Array = Any  # of FACTS, or of bool; numpy's own types for records say no more


class Excerpt(NamedTuple):
    """A row to look at: its number in its share from 0, and how its texts begin."""

    row: int
    prompt: str
    chosen: str
    rejected: str


@dataclass(slots=True)
class Tally:
    """Counts of one split, or of a part of it: `plus` gives those of both.

    `rows_with` is by rule; `good`, `bad` and the next three by fact of SIDE_BIT: rows whose chosen, or rejected, side
    has it, and of pairs those of which only one side, or both, have it. `looked*` count rows in the sample for what
    takes long. Histograms are of characters.
    """

    rows: int = 0
    pairs: int = 0
    goods: int = 0
    bads: int = 0
    looked: int = 0
    looked_pairs: int = 0
    looked_goods: int = 0
    looked_bads: int = 0
    longer: int = 0  # pairs whose chosen is the longer
    equal: int = 0
    rows_with: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    only_good: Counter[str] = field(default_factory=Counter)
    only_bad: Counter[str] = field(default_factory=Counter)
    both: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    prompt_chars: int = 0
    good_chars: int = 0
    bad_chars: int = 0
    good_lengths: Array = field(default_factory=lambda: np.zeros(LONGEST + 1, np.int64))
    bad_lengths: Array = field(default_factory=lambda: np.zeros(LONGEST + 1, np.int64))
    examples: dict[str, list[Excerpt]] = field(default_factory=dict)

    def add(self, facts: Array) -> dict[str, Array]:
        """Counts these rows; gives for each rule with examples the rows that broke it, if there are any."""
        chosen, rejected, sides = facts["chosen"], facts["rejected"], facts["sides"]
        good, bad = (sides & GOOD) != 0, (sides & BAD) != 0
        pairs = good & bad
        self.rows += len(facts)
        self.pairs += int(pairs.sum())
        self.goods += int(good.sum())
        self.bads += int(bad.sum())
        looked = facts["looked"] != 0
        self.looked += int(looked.sum())
        self.looked_pairs += int((looked & pairs).sum())
        self.looked_goods += int((looked & good).sum())
        self.looked_bads += int((looked & bad).sum())
        self.prompt_chars += int(facts["prompt_chars"].sum(dtype=np.int64))
        self._add_lengths(facts, good, bad, pairs)
        broken = {}
        for name, bit in ROW_BIT.items():
            if (has := (facts["row"] & bit) != 0).any():
                broken[name] = has
        for name, bit in SIDE_BIT.items():
            on_good, on_bad = (chosen & bit) != 0, (rejected & bit) != 0
            if not (either := on_good | on_bad).any():
                continue
            counted = {"only_good": on_good & ~on_bad, "only_bad": on_bad & ~on_good, "both": on_good & on_bad}
            for what, mask in counted.items():
                getattr(self, what)[name] += int((mask & pairs).sum())
            self.good[name] += int(on_good.sum())
            self.bad[name] += int(on_bad.sum())
            if name in SIDE:
                broken[name] = either
            elif name == "refusal":
                kinds = {"chosen": "only_good", "rejected": "only_bad", "both": "both"}
                broken |= {f"refusal_{kind}": counted[what] & pairs for kind, what in kinds.items()}
        for name, mask in broken.items():
            self.rows_with[name] += int(mask.sum())
        return {name: mask for name, mask in broken.items() if len(self.examples.get(name, ())) < MOST}

    def _add_lengths(self, facts: Array, good: Array, bad: Array, pairs: Array) -> None:
        chosen = np.minimum(facts["chosen_chars"], LONGEST)
        rejected = np.minimum(facts["rejected_chars"], LONGEST)
        self.longer += int((facts["chosen_chars"] > facts["rejected_chars"])[pairs].sum())
        self.equal += int((facts["chosen_chars"] == facts["rejected_chars"])[pairs].sum())
        self.good_chars += int(facts["chosen_chars"][good].sum(dtype=np.int64))
        self.bad_chars += int(facts["rejected_chars"][bad].sum(dtype=np.int64))
        self.good_lengths += np.bincount(chosen[good], minlength=LONGEST + 1)
        self.bad_lengths += np.bincount(rejected[bad], minlength=LONGEST + 1)

    def add_categories(self, names: Mapping[str, int]) -> None:
        for name, n in names.items():
            known = name in self.categories or len(self.categories) < _CATEGORIES
            self.categories[name if known else OTHERS] += n

    def plus(self, other: Tally) -> Tally:
        """The examples of `other` count their rows on."""
        found = Tally(
            **{name: getattr(self, name) + getattr(other, name) for name in _ADDED},
            examples={name: list(self.examples.get(name, ())) for name in {**self.examples, **other.examples}},
        )
        found.add_categories(self.categories)
        found.add_categories(other.categories)
        for name, examples in other.examples.items():
            later = [example._replace(row=example.row + self.rows) for example in examples]
            found.examples[name] = [*found.examples[name], *later][:MOST]
        return found


OTHERS = "(others)"
_ADDED: Sequence[str] = (
    *("rows", "pairs", "goods", "bads", "looked", "looked_pairs", "looked_goods", "looked_bads", "longer", "equal"),
    *("rows_with", "good", "bad", "only_good", "only_bad", "both", "prompt_chars", "good_chars", "bad_chars"),
    *("good_lengths", "bad_lengths"),
)
