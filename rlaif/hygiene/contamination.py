"""Rows that hold what a model will be tested on: 8-grams of the test items (Tulu 3, arXiv:2411.15124)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlaif.errors import ConfigError
from rlaif.hygiene.words import words
from rlaif.rows import rows_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

N = 8
SHARE = 0.5
COLUMNS = ("prompt", "question", "problem", "instruction", "query", "input", "text", "turns", "messages", "goal")
_SEED = 30_000
_SIEVE_BITS = 22
_BEYOND_SIEVE = 64 - _SIEVE_BITS


class Hit(NamedTuple):
    """A row holds `share` of the words of test item number `item`."""

    item: int
    share: float


def contaminated(texts: Sequence[str], evals: Sequence[str], share: float = SHARE) -> list[Hit | None]:
    """For each row the test item that it holds most of, if that is over `share` of the item's words.

    Words count that lie in a run of eight which the row has, too. An item of fewer than eight words has none: it is
    held by a row that says the same, word by word, and nothing else. In Chinese and Japanese a character is a word.
    """
    items = Evals(evals, share)
    return [items.hit(text) for text in texts]


class Evals:
    """Test items, to hold rows against; `names` say where each one stands."""

    def __init__(self, items: Sequence[str], share: float = SHARE, names: Sequence[str] = ()) -> None:
        import numpy as np

        self.names = names or [f"item {i}" for i in range(len(items))]
        self._share = share
        self._short: dict[tuple[str, ...], int] = {}
        self._ids: dict[str, int] = {}  # of a word that is in an item; 0: of any other
        self._lengths: dict[int, int] = {}
        self._factors = np.random.default_rng(_SEED).integers(0, 1 << 64, N, dtype=np.uint64) | np.uint64(1)
        hashes, places = [np.empty(0, np.uint64)], [np.empty((0, 2), np.int64)]
        for i, item in enumerate(items):
            said = words(item)
            if len(said) < N:
                if said:
                    self._short.setdefault(tuple(said), i)
                continue
            self._lengths[i] = len(said)
            ids = np.array([self._ids.setdefault(word, len(self._ids) + 1) for word in said], np.uint64)
            hashes.append(self._grams(ids))
            places.append(np.column_stack([np.full(len(hashes[-1]), i), np.arange(len(hashes[-1]))]))
        all_hashes = np.concatenate(hashes)
        order = all_hashes.argsort(kind="stable")
        self._hashes, self._places = all_hashes[order], np.concatenate(places)[order]
        # Nearly no run of a row is in an item: a look at one byte tells, a binary search takes thirty times as long.
        self._sieve = np.zeros(1 << _SIEVE_BITS, bool)
        self._sieve[self._hashes >> _BEYOND_SIEVE] = True

    @classmethod
    def read(cls, files: Sequence[str], share: float = SHARE) -> Evals:
        """The items of FILE or FILE#COLUMN; raises ConfigError for files without them."""
        found = [item for file in files for item in _items(file)]
        return cls([text for _, text in found], share, [where for where, _ in found])

    def hit(self, *row: str) -> Hit | None:
        """The item that the texts of a row together hold most of; the first if there are several."""
        said = [words(text) for text in row]
        for text in said:
            if (short := self._short.get(tuple(text))) is not None:
                return Hit(short, 1.0)
        covered: defaultdict[int, set[int]] = defaultdict(set)
        for item, place in self._held(said):
            covered[item].update(range(place, place + N))
        shares = [Hit(item, len(which) / self._lengths[item]) for item, which in sorted(covered.items())]
        most = max(shares, key=lambda hit: hit.share, default=None)
        return most if most and most.share > self._share else None

    def _held(self, texts: Sequence[Sequence[str]]) -> Iterator[tuple[int, int]]:
        """Item and place of every run of eight words that is in one of the texts."""
        import numpy as np

        # Other words, and the gaps between the texts, are 0: no run of an item has one, so such a run is not found.
        get = self._ids.get
        ids = np.array([id for text in texts for id in (*map(get, text, repeat(0)), 0)], np.uint64)
        hashes = self._grams(ids)
        hashes = hashes[self._sieve.take(hashes >> _BEYOND_SIEVE)]
        if not len(hashes):
            return
        hashes = np.unique(hashes)
        first, after = self._hashes.searchsorted(hashes), self._hashes.searchsorted(hashes, side="right")
        for start, end in zip(first.tolist(), after.tolist(), strict=True):
            yield from self._places[start:end].tolist()

    def _grams(self, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """A hash of each run of eight; none of fewer."""
        last = max(0, len(ids) - N + 1)
        hashes: NDArray[np.uint64] = ids[:last] * self._factors[0]
        for i in range(1, N):
            hashes += ids[i : i + last] * self._factors[i]
        return hashes


def _items(file: str) -> Iterator[tuple[str, str]]:
    """Each item's place and text."""
    path, wanted = file, ""
    if not Path(file).is_file() and "#" in file:
        path, _, wanted = file.rpartition("#")
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file of test items; give FILE or FILE#COLUMN")
    column = ""
    found = False
    for where, values in rows_of(Path(path), "test items"):
        column = column or _column(path, wanted, list(values))
        if text := _text(where, column, values.get(column)):
            found = True
            yield where, text
    if not found:
        raise ConfigError(f"{path}: no test items; the file is empty" + (f", or its column '{column}'" * bool(column)))


def _column(path: str, wanted: str, names: Sequence[str]) -> str:
    for name in [wanted] if wanted else COLUMNS:
        if name in names:
            return name
    lack = f"no column '{wanted}'" if wanted else "none of the columns " + ", ".join(COLUMNS)
    raise ConfigError(f"{path}: {lack}; there are: {', '.join(names)}; write {path}#COLUMN")


def _text(where: str, column: str, value: Any) -> str:  # Any: whatever the file holds
    """A string, or the texts of a list of strings or messages."""
    match value:
        case None:
            return ""
        case str():
            return value
        case [*turns] if all(isinstance(turn, str) for turn in turns):
            return "\n".join(turns)
        case [*turns] if all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns):
            return "\n".join(turn["content"] for turn in turns)
    raise ConfigError(f"{where}: column '{column}' is no text, nor a list of messages; name another with FILE#COLUMN")
