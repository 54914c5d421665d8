"""Rows that repeat or contradict others, by 64-bit hashes that wait in files: 32 bytes a row on disk, not in memory.

Two different texts have the same hash once in 2^64 comparisons: for a million rows, in one dataset of 40 million.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# A row's hashes, 0 for a text that is not there. Of an unpaired row its completion is the chosen one if its label is
# true, else the rejected one: so a completion with both labels looks like a pair that is also turned round.
KEYS = np.dtype([("prompt", "<u8"), ("chosen", "<u8"), ("rejected", "<u8"), ("share", "<u4"), ("row", "<u4")])
_PARTS = 16  # files of a share; the same prompt is always in the same one, and only one at a time is in memory

Array = Any  # of KEYS; numpy's own types for records say no more
Place = tuple[int, int]  # share, row in it from 0


class Spill:
    """The files that one share of a dataset writes."""

    def __init__(self, folder: Path, share: int) -> None:
        self._files = [(folder / f"{part}-{share}").open("wb") for part in range(_PARTS)]

    def add(self, keys: Array) -> None:
        parts = keys["prompt"] >> np.uint64(60)
        for part, file in enumerate(self._files):
            file.write(keys[parts == part].tobytes())

    def close(self) -> None:
        for file in self._files:
            file.close()


@dataclass(frozen=True, slots=True)
class Twins:
    """Counts of rows, and the first of them, each with the row that it is like.

    `shared` are rows of a later split whose prompt is in an earlier one, by split.
    """

    prompts: int = 0
    pairs: int = 0
    conflicts: int = 0
    shared: Mapping[str, int] | None = None
    examples: Mapping[str, Sequence[tuple[Place, Place]]] | None = None


def twins(folder: Path, splits: Sequence[str], most: int = 3) -> Twins:
    """`splits` names the split of each share; examples are the first `most` of a kind."""
    names = list(dict.fromkeys(splits))
    split_of = np.array([names.index(split) for split in splits])
    counts = np.zeros(3, np.int64)
    shared = np.zeros(len(names), np.int64)
    examples: dict[str, list[tuple[Place, Place]]] = {"prompts": [], "pairs": [], "conflicts": [], "shared": []}
    for part in range(_PARTS):
        files = [folder / f"{part}-{share}" for share in range(len(splits))]
        keys = np.concatenate([np.fromfile(file, KEYS) for file in files])
        if not len(keys):
            continue
        of_prompt = _Groups(keys[keys["prompt"] != 0], ["prompt"])
        of_pair = _Groups(keys, ["prompt", "low", "high", "flipped"])
        of_two = _Groups(keys, ["prompt", "low", "high"])
        later = of_prompt.first_of(split_of[of_prompt.keys["share"]])
        both = of_two.both(of_two.keys["chosen"] > of_two.keys["rejected"])
        later_splits = split_of[of_prompt.keys["share"]][later]
        shared += np.bincount(later_splits, minlength=len(names))
        found = {
            "prompts": of_prompt.examples(~of_prompt.starts, most),
            "pairs": of_pair.examples(~of_pair.starts, most),
            "conflicts": of_two.examples(both, most, turned=True),
            "shared": of_prompt.examples(later, most),
        }
        counts += [int((~of_prompt.starts).sum()), int((~of_pair.starts).sum()), int(both.sum())]
        examples = {kind: sorted(examples[kind] + found[kind])[:most] for kind in examples}
    by_split = {name: int(n) for name, n in zip(names, shared, strict=True) if n}
    return Twins(int(counts[0]), int(counts[1]), int(counts[2]), by_split, examples)


class _Groups:
    """Rows sorted so that those alike in `by` stand together, in each group in their order."""

    def __init__(self, keys: Array, by: Iterable[str]) -> None:
        low, high = np.minimum(keys["chosen"], keys["rejected"]), np.maximum(keys["chosen"], keys["rejected"])
        columns = {"prompt": keys["prompt"], "low": low, "high": high, "flipped": keys["chosen"] > keys["rejected"]}
        chosen = [columns[name] for name in by]
        order = np.lexsort((keys["row"], keys["share"], *reversed(chosen)))
        self.keys = keys[order]
        self.starts = np.zeros(len(keys), bool)
        self.starts[:1] = True
        for column in chosen:
            self.starts[1:] |= column[order][1:] != column[order][:-1]
        self._group = np.cumsum(self.starts) - 1
        self._first = np.flatnonzero(self.starts)

    def first_of(self, values: Array) -> Array:
        """The rows whose value is not that of their group's first."""
        return values != values[self._first][self._group] if len(values) else np.zeros(0, bool)

    def both(self, flags: Array) -> Array:
        """The rows of groups in which some have the flag and some don't."""
        if not len(flags):
            return np.zeros(0, bool)
        some = np.bincount(self._group, flags)
        mixed = (some > 0) & (some < np.bincount(self._group))
        return mixed[self._group] & (self.keys["chosen"] != self.keys["rejected"])

    def examples(self, which: Array, most: int, turned: bool = False) -> list[tuple[Place, Place]]:
        """The first rows in question, each with the first of its group, or the first that is the other way round."""
        at = np.flatnonzero(which)
        order = np.lexsort((self.keys["row"][at], self.keys["share"][at]))
        return [(_place(self.keys[i]), _place(self.keys[self._like(i, turned)])) for i in at[order][:most]]

    def _like(self, i: int, turned: bool) -> int:
        group = self._group[i]
        first: int = self._first[group]
        if not turned:
            return first
        last = self._first[group + 1] if group + 1 < len(self._first) else len(self.keys)
        chosen = self.keys["chosen"]
        return first + int(np.argmax(chosen[first:last] != chosen[i]))


def _place(key: Array) -> Place:
    return int(key["share"]), int(key["row"])
