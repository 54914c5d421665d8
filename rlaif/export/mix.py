"""What the pairs are about, and how often the chosen response refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlaif.export.pairs import Pair
from rlaif.hygiene.refusing import RefusalSample
from rlaif.types import Record


@dataclass(slots=True)
class Mix:
    """Counts while records stream by; of many pairs a sample tells of refusals."""

    chosen: RefusalSample = field(default_factory=RefusalSample)
    _categories: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record, pairs: Sequence[Pair]) -> None:
        for number, pair in enumerate(pairs):
            self._categories[record.category or ""] += 1
            self.chosen.add(f"{record.id}/{number}", record.responses[pair.chosen])

    @property
    def categories(self) -> Mapping[str, int]:
        """Pairs by the prompt's category, the most first; none where the prompts have no categories."""
        counts = dict(sorted(self._categories.items(), key=lambda item: (-item[1], item[0])))
        return counts if any(counts) else {}
