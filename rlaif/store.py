"""The run folder: settings, parts, summary and lock; every file appears whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec
import zstandard

from rlaif.errors import StoreError
from rlaif.types import Record

PART_RECORDS = 1000  # the unit that other machines can take, and that a crash can unmake


def write_whole(path: Path, data: bytes) -> None:
    """Write beside `path`, flush to disk, rename: a reader sees the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise _unwritable(path, error) from error


class RunFolder:
    """The folder of one run, `runs_dir/name`; `notices` say what was found wrong in it and is mended by a run."""

    def __init__(self, runs_dir: Path, name: str) -> None:
        self.path = runs_dir / name
        self.name = name
        self.parts = self.path / "parts"
        self.settings = self.path / "run.yaml"
        self.constitution = self.path / "constitution.json"  # a copy: the user's file may change
        self.summary = self.path / "summary.json"
        self.dataset = self.path / "dataset"
        self.audit = self.path / "audit"  # of its judges; a part of every dataset it exports
        self.notices: list[str] = []

    def create(self) -> None:
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def sweep(self) -> None:
        """Remove what a killed process left half-written; only with the lock held."""
        for partial in self.parts.glob("*.partial"):
            partial.unlink()

    def part_path(self, number: int) -> Path:
        return self.parts / f"part-{number:05d}.jsonl.zst"

    def write_part(self, number: int, lines: Iterable[bytes]) -> None:
        """`lines` are records as `encode` gives them, in the order of the prompts."""
        # With a checksum: a disk that gives back another byte than it was given is noticed.
        compress = zstandard.ZstdCompressor(level=3, write_checksum=True).compress
        write_whole(self.part_path(number), compress(b"".join(line + b"\n" for line in lines)))

    def read_part(self, number: int) -> list[Record]:
        """Raises StoreError if the part is damaged."""
        path = self.part_path(number)
        try:
            return [decode(line) for line in self._lines(path).splitlines()]
        except msgspec.DecodeError as error:
            raise _Damaged(path, error) from error

    def _lines(self, path: Path) -> bytes:
        try:
            return zstandard.ZstdDecompressor().decompress(path.read_bytes())
        except zstandard.ZstdError as error:
            raise _Damaged(path, error) from error
        except OSError as error:  # EIO too: another try may read it
            raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error

    def part_size(self, number: int) -> int:
        """How many records a part has; 0 if it is not there, or damaged: then it is made anew from the journal."""
        path = self.part_path(number)
        try:
            return self._lines(path).count(b"\n") if path.exists() else 0
        except _Damaged as damage:
            self.notices.append(f"{path} was damaged ({damage.__cause__}) and is made anew from the journal")
            return 0

    def size(self) -> int:
        """How many records its finished parts have."""
        return sum(map(self.part_size, self.part_numbers()))

    def part_numbers(self) -> list[int]:
        return sorted(int(path.name[5:10]) for path in self.parts.glob("part-*.jsonl.zst"))

    def failed(self) -> tuple[frozenset[int], frozenset[int]]:
        """The parts with records that failed, and the ranks of those in them that did not."""
        parts, settled = set(), set[int]()
        for number in self.part_numbers():
            records = self.read_part(number)
            if any(record.outcome == "failed" for record in records):
                parts.add(number)
                ranks = enumerate(records, number * PART_RECORDS)
                settled.update(rank for rank, record in ranks if record.outcome != "failed")
        return frozenset(parts), frozenset(settled)

    def records(self) -> Iterator[Record]:
        """All records of the finished parts, a part at a time in memory."""
        for number in self.part_numbers():
            yield from self.read_part(number)


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be written: {error.strerror or error}; make room or use another --runs-dir or --out, "
        "and run the same command again: what was done is kept"
    )


class _Damaged(StoreError):
    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(f"{path} is damaged ({error}): run `generate` again, which makes it anew from the journal")


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Record).decode


class RunLock:
    """One writer a run: a second process is refused. The lock goes with the process, however it ends."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / ".lock"
        self._run = folder.name
        self._file: IO[str] | None = None

    def __enter__(self) -> RunLock:
        try:
            self._file = self._path.open("a+")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert self._file is not None
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise StoreError(
                f"run '{self._run}' is being written by process {owner}; wait for it, or choose another --run name"
            ) from None
        except OSError as error:
            raise _unwritable(self._path, error) from error
        try:
            self._file.truncate(0)
            self._file.write(str(os.getpid()))
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
