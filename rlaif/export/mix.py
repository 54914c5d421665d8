"""What the pairs are about, and how often the chosen response refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from rlaif.export.pairs import Pair
from rlaif.hygiene.refusal import is_refusal
from rlaif.types import REFUSALS, Record

_LOOKED_AT = 2048  # pairs at most: to see a refusal takes 0.1 ms


@dataclass(slots=True)
class Mix:
    """Counts while records stream by; of many pairs those with the lowest hashes tell of refusals, in any order."""

    _categories: Counter[str] = field(default_factory=Counter)
    _refuses: dict[bytes, bool] = field(default_factory=dict)  # by the pair's hash
    _below: bytes = b"\xff" * 9

    def add(self, record: Record, pairs: Sequence[Pair]) -> None:
        for number, pair in enumerate(pairs):
            self._categories[record.category or ""] += 1
            key = blake2b(f"{record.id}/{number}".encode(), digest_size=8).digest()
            if key < self._below:
                chosen = record.responses[pair.chosen]
                self._refuses[key] = chosen.finish_reason in REFUSALS or is_refusal(chosen.text)
        if len(self._refuses) > _LOOKED_AT:
            kept = sorted(self._refuses)[: _LOOKED_AT // 2]
            self._below = kept[-1] + b"\0"
            self._refuses = {key: self._refuses[key] for key in kept}

    @property
    def categories(self) -> Mapping[str, int]:
        """Pairs by the prompt's category, the most first; none where the prompts have no categories."""
        counts = dict(sorted(self._categories.items(), key=lambda item: (-item[1], item[0])))
        return counts if any(counts) else {}

    @property
    def refusals(self) -> tuple[int, int]:
        """(pairs whose chosen response refuses, partly or fully; pairs looked at)."""
        return sum(self._refuses.values()), len(self._refuses)
