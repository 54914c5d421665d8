"""How many of a run's responses refuse, from a sample that no order of them changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from rlaif.hygiene.refusal import is_refusal
from rlaif.types import REFUSALS, Response

SIZE = 1024  # to see a refusal takes 0.1 ms


def refuses(response: Response) -> bool:
    """By what its provider says, or by its text; partly counts."""
    return response.finish_reason in REFUSALS or is_refusal(response.text)


@dataclass(slots=True)
class RefusalSample:
    """Of more than `SIZE` responses those whose names have the lowest hashes."""

    _refuses: dict[bytes, bool] = field(default_factory=dict)
    _below: bytes = b"\xff" * 9

    def add(self, name: str, response: Response) -> None:
        """A name that was there before counts once."""
        key = blake2b(name.encode(), digest_size=8).digest()
        if key >= self._below or key in self._refuses:
            return
        self._refuses[key] = refuses(response)
        if len(self._refuses) > 2 * SIZE:
            kept = self._lowest()
            self._below = kept[-1] + b"\0"
            self._refuses = {key: self._refuses[key] for key in kept}

    @property
    def n(self) -> int:
        return min(len(self._refuses), SIZE)

    @property
    def refusals(self) -> int:
        return sum(self._refuses[key] for key in self._lowest())

    def _lowest(self) -> list[bytes]:
        return sorted(self._refuses)[:SIZE]
