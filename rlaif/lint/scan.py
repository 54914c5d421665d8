"""A whole dataset looked at, in parts and on several cores; the result is the same however many there are."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rlaif.errors import StoreError
from rlaif.foreign.arrow import table_of
from rlaif.foreign.read import Dataset, Row, Share
from rlaif.foreign.shapes import Example
from rlaif.lint.facts import FACTS, UNREADABLE, Facts, Ways, facts, sides_of
from rlaif.lint.tally import MOST, Array, Excerpt, Tally
from rlaif.lint.twins import KEYS, Place, Spill, Twins, twins
from rlaif.types import Messages

_BLOCK = 1024  # rows whose texts are in memory
_PART = 8 << 20  # bytes of a file that are read as one part, nearly; never by the number of processes
_FEW, _MOST_PARTS = 8, 500
_ROW_BYTES = 2000  # of a dataset of the hub, whose bytes are not known
_SHOWN = 160  # characters of a text in an example


@dataclass(frozen=True, slots=True)
class Scan:
    """The tally of each split in order, and rows that are like others; places in it are (split, row from 1)."""

    splits: dict[str, Tally]
    twins: Twins
    examples: dict[str, list[tuple[tuple[str, int], tuple[str, int]]]]

    @property
    def whole(self) -> Tally:
        """All splits together; its examples are of no use."""
        return reduce(Tally.plus, self.splits.values(), Tally())


def scan(dataset: Dataset, ways: Ways, processes: int = 1, limit: int | None = None) -> Scan:
    """`limit`: only the first so many rows of each file, in this process."""
    shares = list(dataset.shares) if limit is not None else dataset.chunks(_parts(dataset), ways.shape.columns)
    splits: dict[str, Tally] = {}
    starts = []  # of each share, in its split
    with TemporaryDirectory(prefix="rlaif-lint-") as name:
        folder = Path(name)
        jobs = [(share, ways, folder, number, limit) for number, share in enumerate(shares)]
        for share, tally in zip(shares, _run(jobs, processes), strict=True):
            before = splits.get(share.split, Tally())
            starts.append(before.rows)
            splits[share.split] = before.plus(tally)
        found = twins(folder, [share.split for share in shares], MOST)

    def named(place: Place) -> tuple[str, int]:
        return shares[place[0]].split, starts[place[0]] + place[1] + 1

    examples = {kind: [(named(a), named(b)) for a, b in pairs] for kind, pairs in (found.examples or {}).items()}
    return Scan(splits, found, examples)


Job = tuple[Share, Ways, Path, int, int | None]


def _run(jobs: Sequence[Job], processes: int) -> Iterator[Tally]:
    """In order, a few ahead: a tally has a megabyte of histograms."""
    if processes < 2 or len(jobs) < 2:
        yield from (_counted(*job) for job in jobs)
        return
    # spawn: a fork of a process that has threads (pyarrow's, the hub's) can hang
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)), spawn, initializer=_deaf) as pool:
        left = iter(jobs)
        waiting: list[Future[Tally]] = [pool.submit(_counted, *job) for job in islice(left, 2 * processes)]
        try:
            while waiting:
                yield waiting.pop(0).result()
                waiting += [pool.submit(_counted, *job) for job in islice(left, 1)]
        except BrokenProcessPool as error:
            raise StoreError("a process that read the dataset was killed; try --processes 1, or more memory") from error
        finally:
            for future in waiting:
                future.cancel()


def _deaf() -> None:
    """Ctrl-C reaches the children too: the parent alone says something about it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _counted(share: Share, ways: Ways, folder: Path, number: int, limit: int | None) -> Tally:
    tally = Tally()
    spill = Spill(folder, number)
    rows = islice(share.rows(), limit)
    try:
        while block := list(islice(rows, _BLOCK)):
            _add(block, ways, tally, spill, number)
    finally:
        spill.close()
    return tally


def _add(block: Sequence[Row], ways: Ways, tally: Tally, spill: Spill, number: int) -> None:
    found = [_facts(row, ways) for row in block]
    table = np.array([one for one, _ in found], FACTS)
    start = tally.rows
    for name, mask in tally.add(table).items():
        examples = tally.examples.setdefault(name, [])
        for i in np.flatnonzero(mask)[: MOST - len(examples)]:
            examples.append(_excerpt(start + int(i), block[i], found[i][1], tail=name == "truncated"))
    spill.add(_keys(table, number, start))
    if (column := ways.shape.category) is not None:
        tally.add_categories(Counter(str(row.values.get(column)) for row in block if row.fault is None))


def _facts(row: Row, ways: Ways) -> tuple[Facts, Example | None]:
    return (UNREADABLE, None) if row.fault is not None else facts(row.values, ways)


def _keys(table: Array, share: int, start: int) -> Array:
    """Of rows that say anything."""
    keys = np.empty(len(table), KEYS)
    for name in ("prompt", "chosen", "rejected"):
        keys[name] = table[f"{name}_key"]
    keys["share"] = share
    keys["row"] = np.arange(start, start + len(table))
    return keys[table["sides"] != 0]


def _excerpt(number: int, row: Row, found: Example | None, tail: bool) -> Excerpt:
    if found is None:
        return Excerpt(number, row.fault or "", "", "")
    good, bad = sides_of(found)
    return Excerpt(number, _end(found.prompt), _end(good, tail), _end(bad, tail))


def _end(turns: Messages, tail: bool = False) -> str:
    text = turns[-1].content if turns else ""
    if len(text) <= _SHOWN:
        return text
    return f"... {text[-_SHOWN:]}" if tail else f"{text[:_SHOWN]} ..."


def _parts(dataset: Dataset) -> int:
    """Of a Parquet file no more than it has row groups, or a few: what is before a part in its group is read, too."""
    size = groups = 0
    for share in dataset.shares:
        path = Path(share.source)
        size += path.stat().st_size if path.is_file() else (share.stop or 0) * _ROW_BYTES
        if path.suffix.lower() == ".parquet":
            with table_of(path) as file:
                groups += file.num_row_groups
    return min(1 + size // _PART, max(groups, _FEW) if groups else _MOST_PARTS, _MOST_PARTS)
