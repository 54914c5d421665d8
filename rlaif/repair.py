"""A damaged journal made anew from all of its rows that check out."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from rlaif.errors import StoreError
from rlaif.journal import Traits
from rlaif.packing import Packing
from rlaif.schema import open_file
from rlaif.sqlite_pages import Column, Pages
from rlaif.types import Failure

# Where SQLite's connections hold a shared lock on a file in WAL mode (os.h of SQLite: SHARED_FIRST, SHARED_SIZE).
_LOCK_AT, _LOCK_BYTES = 0x40000002, 510


class Repaired(NamedTuple):
    """How many answers the new journal has, how many more the old one had, and where that one is now."""

    kept: int
    lost: int
    damaged: Path


def repair(path: Path) -> Repaired:
    """Put a new journal in the place of a damaged one, which stays beside it. Raises StoreError.

    `lost` is a lower bound where pages of the index are damaged too: it is the index that knows what was there.
    """
    new = path.with_name(path.name + ".partial")
    try:
        _remove(new)
        with _alone(path) as file:
            kept, lost, charged = _rebuilt(Pages.all_of(path, file), new)
            if not kept and not charged:
                raise StoreError(f"nothing in {path} can be read as a journal: move it away to begin a new one")
            return Repaired(kept, lost, _exchanged(path, new))
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"the journal {path} cannot be made anew: {error}; it is as it was") from error
    finally:
        with suppress(OSError):
            _remove(new)


def not_in_use(path: Path) -> None:
    """Raises StoreError if a process has the journal open, or nobody may write it."""
    try:
        with _alone(path):
            return
    except OSError as error:
        raise StoreError(f"the journal {path} cannot be written: {error.strerror}") from error


@contextmanager
def _alone(path: Path) -> Iterator[IO[bytes]]:
    """No other process has the journal open now, or opens it. Raises StoreError."""
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_BYTES, _LOCK_AT)
        except BlockingIOError:
            raise StoreError(
                f"the journal {path} is in use: wait for the runs of {path.parent}, or stop them"
            ) from None
        yield file


def _rebuilt(pages: Pages, new: Path) -> tuple[int, int, int]:
    """The numbers of answers kept and lost, and of the ledger's lines kept.

    Rows are told by their shapes: no two tables share one.
    """
    unpack = Packing().unpack
    with closing(open_file(new)) as journal:
        journal.execute("CREATE TEMP TABLE known (key BLOB PRIMARY KEY) WITHOUT ROWID")
        for number, row in pages.rows():
            match row:
                case (_, bytes(key), model, at, _, bytes(body)) if len(key) == 16:
                    with suppress(ValueError):
                        failed = isinstance(unpack(body), Failure)
                        values = (key, _int(model), _int(at), failed, body)
                        journal.execute("INSERT OR IGNORE INTO calls VALUES (NULL, ?, ?, ?, ?, ?)", values)
                case (bytes(key), int()) if len(key) == 16:
                    journal.execute("INSERT OR IGNORE INTO known VALUES (?)", (key,))
                case (_, str(identity), str(name), bytes() | None as traits):
                    line = (number, identity, name, _checked(traits))
                    journal.execute("INSERT OR IGNORE INTO models VALUES (?, ?, ?, ?)", line)
                case (str(), str(), str(), str(), int(), int(), int(), int(), int(), int()):
                    journal.execute("INSERT OR IGNORE INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        # A number that is free would go to the next new model, and these answers with it.
        journal.execute(
            "INSERT OR IGNORE INTO models SELECT DISTINCT model, 'unknown ' || model, 'unknown', NULL FROM calls"
        )
        journal.commit()
        kept: int = journal.execute("SELECT count(*) FROM calls").fetchone()[0]
        lost: int = journal.execute(
            "SELECT count(*) FROM known WHERE NOT EXISTS (SELECT 1 FROM calls WHERE calls.key = known.key)"
        ).fetchone()[0]
        charged: int = journal.execute("SELECT count(*) FROM ledger").fetchone()[0]
    return kept, lost, charged


def _int(column: Column) -> int:
    """What says whose an answer is, and of when, matters less than the answer."""
    return column if isinstance(column, int) else 0


def _checked(traits: bytes | None) -> bytes | None:
    try:
        if traits is not None:
            msgspec.json.decode(traits, type=Traits)
    except msgspec.DecodeError:
        return None  # the model is met again
    return traits


def _exchanged(path: Path, new: Path) -> Path:
    """At no moment is there no journal: a run that began one would pay for everything again."""
    damaged = path.with_name(f"{path.name}.damaged-{time.strftime('%Y-%m-%d-%H%M%S')}")
    try:
        damaged.hardlink_to(path)
    except OSError:  # a file system without hard links
        shutil.copy2(path, damaged)
    wal = _beside(path, "-wal")
    if wal.exists():  # it must not be applied to the new file
        wal.replace(_beside(damaged, "-wal"))
    _beside(path, "-shm").unlink(missing_ok=True)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(path)
    return damaged


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _remove(journal: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        _beside(journal, suffix).unlink(missing_ok=True)
