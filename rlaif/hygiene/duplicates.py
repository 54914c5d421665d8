"""Rows that say what an earlier row said: exactly, or in nearly the same words (MinHash, Broder 1997)."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from rlaif.hygiene.words import normalised, plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THRESHOLD = 0.8
GRAM = 5  # words
BANDS, IN_BAND = 14, 8  # of the 112 hashes: finds 56 % of the pairs at a similarity of 0.7, 92 % at 0.8, 99.9 % at 0.9
# Texts made from one template share bands without being alike; of each band so many are looked at, the latest.
_CANDIDATES = 100
_CHECKED = 3  # by their texts: those that look most alike
_SEED = 20_000


def exact(texts: Sequence[str]) -> list[int]:
    """For each row the index of the first one that says the same but for case and white space; its own if none."""
    first: dict[bytes, int] = {}
    return [first.setdefault(key(text), row) for row, text in enumerate(texts)]


def near(texts: Sequence[str], threshold: float = THRESHOLD) -> list[int]:
    """For each row that of the rows kept whose 5-grams are most nearly the same; its own if none is near.

    Every row that is not kept is near to the one named, by the Jaccard similarity itself, not an estimate of it.
    Five words or fewer are near only to the same words.
    """
    seen = Near(threshold, texts)
    return [row if (like := seen.add(text)) is None else like for row, text in enumerate(texts)]


def key(*texts: str) -> bytes:
    """16 bytes that are the same for texts that say the same but for case and white space."""
    return blake2b("\0".join(map(normalised, texts)).encode(errors="surrogatepass"), digest_size=16).digest()


class Near:
    """The rows kept so far, about 350 bytes each however long they are.

    Candidates are those with a band in common. They are held against the threshold by the share of the 112 hashes
    that agree, whose error is 0.04 (one standard deviation at 0.8), or by the `texts` themselves if they are at hand.
    """

    def __init__(self, threshold: float = THRESHOLD, texts: Sequence[str] | None = None) -> None:
        import numpy as np  # late, as everywhere here: 0.1 s that most commands do without

        self._threshold = threshold
        self._texts = texts
        self._grams = _Grams()
        chance = np.random.default_rng(_SEED)
        self._factors = chance.integers(0, 1 << 32, (BANDS * IN_BAND, 1), dtype=np.uint32) | np.uint32(1)
        self._mix = chance.integers(0, 1 << 32, IN_BAND, dtype=np.uint32) | np.uint32(1)
        self._count = 0
        self._rows = array("I")  # of each kept text, its number
        self._signatures = bytearray()  # of each kept text, a byte of each hash
        self._bands = _Bands()

    def add(self, text: str) -> int | None:
        """The number of the kept text that is nearest to this one; None if none is near, and then it is kept."""
        import numpy as np

        number, self._count = self._count, self._count + 1
        grams = self._grams(text)
        hashes = (self._factors * (grams >> np.uint64(32)).astype(np.uint32)).min(axis=1)
        signature = (hashes >> np.uint32(8)).astype(np.uint8)
        bands = ((hashes.reshape(BANDS, IN_BAND) * self._mix).sum(axis=1, dtype=np.uint32)).tolist()
        candidates = self._bands.with_one_of(bands)
        if (like := self._most_alike(candidates, signature, grams)) is not None:
            return like
        self._bands.add(bands)
        self._rows.append(number)
        self._signatures += signature.tobytes()
        return None

    def _most_alike(self, candidates: list[int], signature: NDArray[np.uint8], grams: NDArray[np.uint64]) -> int | None:
        import numpy as np

        if not candidates:
            return None
        kept = np.frombuffer(self._signatures, dtype=np.uint8).reshape(-1, len(signature))[candidates]
        # One byte in 256 agrees by chance.
        estimates = ((kept == signature).mean(axis=1) - 1 / 256) / (1 - 1 / 256)
        for i in (-estimates).argsort(kind="stable")[:_CHECKED].tolist():
            row: int = self._rows[candidates[i]]
            likeness = float(estimates[i]) if self._texts is None else self._jaccard(grams, self._texts[row])
            if likeness >= self._threshold:
                return row
        return None

    def _jaccard(self, grams: NDArray[np.uint64], text: str) -> float:
        import numpy as np

        ours, theirs = np.unique(grams), np.unique(self._grams(text))
        both = len(np.intersect1d(ours, theirs, assume_unique=True))
        return both / (len(ours) + len(theirs) - both)


class _Grams:
    """Texts as hashes of their runs of five words: those of a polynomial over the bytes, so of any run at once."""

    def __init__(self) -> None:
        import numpy as np

        chance = np.random.default_rng(_SEED + 1)
        self._letters = chance.integers(0, 1 << 64, 256, dtype=np.uint64)
        self._base = int(chance.integers(0, 1 << 62)) | 1  # odd: it has an inverse
        self._grow(1 << 12)

    def __call__(self, text: str) -> NDArray[np.uint64]:
        import numpy as np

        letters = np.frombuffer(f" {plain(text)} ".encode(errors="surrogatepass"), dtype=np.uint8)
        if len(letters) >= len(self._powers):
            self._grow(2 * len(letters))
        spaces = (letters == ord(" ")).nonzero()[0]
        last = max(1, len(spaces) - GRAM)
        starts, ends = spaces[:last], spaces[-last:]  # of a run, the spaces before and after it
        sums = (self._letters.take(letters) * self._powers[: len(letters)]).cumsum()
        hashes: NDArray[np.uint64] = (sums[ends] - sums[starts]) * self._inverses[starts]
        hashes ^= hashes >> np.uint64(32)  # the low bits of a product know only the low bits of its factors
        hashes *= np.uint64(0x9E37_79B9_7F4A_7C15)
        hashes ^= hashes >> np.uint64(29)
        return hashes

    def _grow(self, length: int) -> None:
        import numpy as np

        self._powers, self._inverses = (
            np.multiply.accumulate(np.array([1, *[x] * (length - 1)], dtype=np.uint64))
            for x in (self._base, pow(self._base, -1, 1 << 64))
        )


class _Bands:
    """Which kept texts have a band in common: a hash table with chains, in arrays (a dict takes 1.3 kB a text)."""

    def __init__(self) -> None:
        self._heads = array("I", bytes(4 << 12))  # of each slot, 1 + its latest entry; 0: none
        self._keys, self._next = array("I"), array("I")  # of each entry, which is text * BANDS + band

    def with_one_of(self, bands: Sequence[int]) -> list[int]:
        """The kept texts, in their order."""
        found: set[int] = set()
        mask = len(self._heads) - 1
        for band, key in enumerate(bands):
            left = _CANDIDATES
            entry = self._heads[(key + band * 0x9E37_79B9) & mask]
            while entry and left:
                if self._keys[entry - 1] == key and (entry - 1) % BANDS == band:
                    found.add((entry - 1) // BANDS)
                    left -= 1
                entry = self._next[entry - 1]
        return sorted(found)

    def add(self, bands: Sequence[int]) -> None:
        if len(self._keys) + BANDS > len(self._heads):
            self._double()
        for key in bands:
            self._chain(key)
            self._keys.append(key)

    def _double(self) -> None:
        self._heads = array("I", bytes(8 * len(self._heads)))
        self._next = array("I")
        for key in self._keys:
            self._chain(key)

    def _chain(self, key: int) -> None:
        entry = len(self._next)
        slot = (key + entry % BANDS * 0x9E37_79B9) & (len(self._heads) - 1)
        self._next.append(self._heads[slot])
        self._heads[slot] = entry + 1
