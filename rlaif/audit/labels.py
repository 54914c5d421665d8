"""People's labels of a run's pairs: which are shown, and `labels.jsonl`, to which every answer is added at once."""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from heapq import nsmallest
from itertools import combinations
from typing import IO, Literal, NamedTuple

import msgspec

from rlaif.errors import ConfigError, StoreError
from rlaif.store import RunFolder
from rlaif.types import Messages, Record

# What a person says of a pair. `skipped` is not asked again; `undone` takes back what was said before it.
Choice = Literal["first", "second", "tie", "skipped", "undone"]
_SIDES: dict[Choice, float] = {"first": 1.0, "second": 0.0, "tie": 0.5}

PairKey = tuple[str, int, int]  # record id, the indices of its two responses


class Label(msgspec.Struct, frozen=True):
    """A line of labels.jsonl: of two responses of a record, by their index, which one the annotator finds better."""

    record: str
    first: int
    second: int
    label: Choice
    annotator: str
    time: str

    @property
    def pair(self) -> PairKey:
        return self.record, self.first, self.second


class Shown(NamedTuple):
    """A pair as an annotator sees it: nothing tells who wrote the responses or what a judge thinks of them."""

    pair: PairKey
    prompt: Messages
    a: str
    b: str
    swapped: bool  # a is the second response

    def meant(self, side: Literal["a", "b"]) -> Choice:
        return "first" if (side == "a") != self.swapped else "second"


def label_of(choice: Choice) -> float:
    """P(the first response is better), as the audit has it; nan where nothing was said."""
    return _SIDES.get(choice, math.nan)


def to_label(folder: RunFolder, annotator: str, n: int) -> list[Shown]:
    """`n` pairs of the run, or all there are: the same for everyone, and in the same order, as chance has it.

    The order comes from the pairs' own identity, so that a larger `n` goes on where a smaller one ended. Which of the
    two is shown as A is each annotator's own chance. Where judges compared, their pairs are meant, else all
    candidates'.
    """
    chosen = nsmallest(n, _pairs(folder), key=lambda found: _chance(*found[1]))
    if not chosen:
        raise ConfigError(f"run '{folder.name}' has no pairs to label: no finished record has two different responses")
    return [_shown(record, pair, annotator) for record, pair in chosen]


def _pairs(folder: RunFolder) -> Iterator[tuple[Record, PairKey]]:
    for record in folder.records():
        judged = {(min(v.first, v.second), max(v.first, v.second)) for v in record.verdicts}
        for first, second in sorted(judged or set(combinations(record.candidates(), 2))):
            one, other = record.responses[first].text.strip(), record.responses[second].text.strip()
            if one != other:
                yield record, (record.id, first, second)


def _shown(record: Record, pair: PairKey, annotator: str) -> Shown:
    _, first, second = pair
    texts = record.responses[first].text, record.responses[second].text
    swapped = _chance(annotator, *pair) % 2 == 1
    a, b = texts[::-1] if swapped else texts
    return Shown(pair, record.prompt, a, b, swapped)


def _chance(*identity: str | int) -> int:
    return int.from_bytes(blake2b("\0".join(map(str, identity)).encode(), digest_size=8).digest())


# --- the file ---


def read_labels(folder: RunFolder) -> dict[PairKey, dict[str, Choice]]:
    """Pair -> annotator -> the last they said of it, but for what they took back. A torn last line is passed over."""
    found: dict[PairKey, dict[str, Choice]] = {}
    for label in _read(folder)[0]:
        said = found.setdefault(label.pair, {})
        said[label.annotator] = label.label
        if label.label == "undone":
            del said[label.annotator]
    return {pair: said for pair, said in found.items() if said}


class LabelFile:
    """labels.jsonl of a run, to be added to by one annotator."""

    def __init__(self, folder: RunFolder, annotator: str) -> None:
        self._folder, self._annotator = folder, annotator
        self._path = folder.path / _NAME
        self.mended = self._mend()

    def said(self) -> dict[PairKey, Choice]:
        """What this annotator has said, in earlier sessions too."""
        labels = read_labels(self._folder).items()
        return {pair: said[self._annotator] for pair, said in labels if self._annotator in said}

    def add(self, pair: PairKey, choice: Choice) -> None:
        """On disk when this returns."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._opened() as file:
            file.write(msgspec.json.encode(Label(*pair, choice, self._annotator, now)) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _mend(self) -> bool:
        """Cut off a line that a killed process did not end, so that the next one does not become a part of it."""
        if not self._path.exists():
            return False
        with self._opened() as file:
            _, whole = _read(self._folder)
            torn = self._path.stat().st_size > whole
            if torn:
                file.truncate(whole)
        return torn

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """For adding, by one process at a time."""
        try:
            with self._path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be written: {error.strerror or error}; what was labelled before is kept"
            ) from error


_NAME = "labels.jsonl"


def _read(folder: RunFolder) -> tuple[list[Label], int]:
    """The labels, and how many bytes of whole lines there are."""
    path = folder.path / _NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    whole = content.rfind(b"\n") + 1
    return list(_parsed(path.name, content[:whole].splitlines())), whole


def _parsed(name: str, lines: Iterable[bytes]) -> Iterator[Label]:
    decode = msgspec.json.Decoder(Label).decode
    for number, line in enumerate(lines, 1):
        try:
            yield decode(line)
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"{name}:{number}: no label as `rlaif label` writes it ({error}); remove the line"
            ) from None
