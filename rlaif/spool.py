"""Answers on their way home: a worker's journal is a file on its machine, and what is new in it is sent on.

What is sent may be sent again: a row is there once, and a ledger is charged with what it grew by.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import msgspec

from rlaif import schema
from rlaif.errors import StoreError
from rlaif.journal import CHARGE, PUT
from rlaif.packing import Answer, Packing

_ROWS_AT_ONCE = 2000  # some MB
_FINDS_AT_ONCE = 4000

Row = tuple[bytes, str, int, int, bytes]  # key, the model's identity, at, failed, body
Model = tuple[str, str, bytes | None]  # identity, name, traits
Line = tuple[Any, ...]  # a line of the ledger
_COUNTS = 4  # of a line's columns, so many name it


class Home:
    """The runs' journal, on their machine: rows come in, answers go out. Every method may be repeated."""

    def __init__(self, path: Path) -> None:
        self._db = schema.open_file(path)
        with self._db:
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS spools (id TEXT PRIMARY KEY, row INTEGER NOT NULL, ledger BLOB NOT NULL)"
            )

    def models(self) -> list[Model]:
        return self._db.execute("SELECT identity, name, traits FROM models").fetchall()

    def knows_any(self, identities: Iterable[str]) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM calls WHERE model = (SELECT id FROM models WHERE identity = ?))"
        return any(self._db.execute(query, (identity,)).fetchone()[0] for identity in identities)

    def find(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The bodies of the answers to these requests."""
        rows = (self._db.execute("SELECT body FROM calls WHERE key = ?", (key,)).fetchone() for key in keys)
        return [row and row[0] for row in rows]

    def row_of(self, spool: str) -> int:
        """The last row of a spool that is here."""
        found = self._db.execute("SELECT row FROM spools WHERE id = ?", (spool,)).fetchone()
        return found[0] if found else 0

    def take(self, spool: str, last: int, rows: Sequence[Row], models: Sequence[Model], ledger: Sequence[Line]) -> None:
        """The next rows of a spool, up to its row `last`, and all of its ledger as it is now, in one transaction."""
        with self._db:
            self._db.executemany(
                "INSERT INTO models (identity, name, traits) VALUES (?, ?, ?) "
                "ON CONFLICT (identity) DO UPDATE SET traits = coalesce(excluded.traits, traits)",
                models,
            )
            number = dict(self._db.execute("SELECT identity, id FROM models").fetchall())
            self._db.executemany(PUT, [(key, number[identity], *rest) for key, identity, *rest in rows])
            found = self._db.execute("SELECT row, ledger FROM spools WHERE id = ?", (spool,)).fetchone()
            # A ledger only grows: what it grew by is charged here, so that a parcel sent twice is charged once.
            charged = {tuple(line[:_COUNTS]): line[_COUNTS:] for line in msgspec.json.decode(found[1])} if found else {}
            for line in ledger:
                where, counts = line[:_COUNTS], line[_COUNTS:]
                before = charged.get(where, [0] * len(counts))
                self._db.execute(CHARGE, (*where, *(now - then for now, then in zip(counts, before, strict=True))))
            self._db.execute(
                "INSERT OR REPLACE INTO spools VALUES (?, ?, ?)",
                (spool, max(last, found[0] if found else 0), msgspec.json.encode(ledger)),
            )

    def forget(self, spool: str) -> None:
        """Its file is gone: it will send no more."""
        with self._db:
            self._db.execute("DELETE FROM spools WHERE id = ?", (spool,))


class Spool:
    """A journal file of one worker's life, and the way home from it.

    A file without an owner is one whose worker was killed: the next worker on its machine sends home what is in it.
    """

    def __init__(self, folder: Path, home: Any, name: str | None = None) -> None:  # Any: the handle of a Home
        self.name = name or uuid4().hex
        self.path = folder / f"{self.name}.sqlite"
        self._lock = self._locked(folder / f"{self.name}.lock")
        self._home = home
        self._sent: int | None = 0 if name is None else None
        self._beside: tuple[list[Model], list[Line]] | None = None  # what went with the last rows

    @staticmethod
    def _locked(path: Path) -> IO[bytes]:
        """Raises BlockingIOError where it has an owner. The lock goes with the process, however it ends."""
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        return file

    @cached_property
    def _db(self) -> Any:  # Any: sqlite3.Connection, of a file that the journal has made
        return schema.open_file(self.path)

    async def send_home(self) -> None:
        """Everything that was committed until now; returns when it is in the journal there."""
        if self._sent is None:
            self._sent = await self._home.row_of.remote(self.name)
        while True:
            last, rows, models, ledger = await asyncio.to_thread(self._parcel, self._sent)
            if not rows and (models, ledger) == self._beside:
                return
            await self._home.take.remote(self.name, last, rows, models, ledger)
            self._sent, self._beside = last, (models, ledger)
            if len(rows) < _ROWS_AT_ONCE:
                return

    def _parcel(self, after: int) -> tuple[int, list[Row], list[Model], list[Line]]:
        query = "SELECT calls.id, key, identity, at, failed, body FROM calls JOIN models ON models.id = model"
        # Read before the rows: charged early or late, an answer is charged in the same parcel or the next.
        ledger = self._db.execute("SELECT * FROM ledger").fetchall()
        rows = self._db.execute(f"{query} WHERE calls.id > ? ORDER BY calls.id LIMIT {_ROWS_AT_ONCE}", (after,))
        numbered = rows.fetchall()
        models = self._db.execute("SELECT identity, name, traits FROM models").fetchall()
        return (numbered[-1][0] if numbered else after), [row[1:] for row in numbered], models, ledger

    async def remove(self) -> None:
        """After the last `send_home`."""
        self._db.close()
        for suffix in (".sqlite", ".sqlite-wal", ".sqlite-shm", ".lock"):
            self.path.with_suffix(suffix).unlink(missing_ok=True)
        self._lock.close()
        await self._home.forget.remote(self.name)


class Lookup:
    """Asks home for answers, many at once: while one question is under way the next one gathers."""

    def __init__(self, home: Any) -> None:  # Any: the handle of a Home
        self.on = False  # of a first run there is nothing to be found
        self._home = home
        self._unpack = Packing().unpack
        self._waiting: list[tuple[bytes, asyncio.Future[Answer | None]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def __call__(self, key: bytes) -> Answer | None:
        if not self.on:
            return None
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return await future

    async def _ask(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_FINDS_AT_ONCE], self._waiting[_FINDS_AT_ONCE:]
            try:
                bodies = await self._home.find.remote([key for key, _ in group])
                answers = [None if body is None else self._unpack(body) for body in bodies]
            except Exception as error:  # whatever it is, no caller may wait for ever
                for _, future in group:
                    future.set_exception(StoreError(f"the runs' journal does not answer: {error}"))
            else:
                for (_, future), answer in zip(group, answers, strict=True):
                    future.set_result(answer)
        self._asking = None


def scratch_folder(home: str) -> Path:
    """This user's folder on this machine for the spools of one runs' folder; TMPDIR moves it."""
    folder = Path(tempfile.gettempdir()) / f"rlaif-{os.getuid()}" / home
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.parent.stat().st_uid != os.getuid():
        raise StoreError(f"{folder.parent} is somebody else's: set TMPDIR to a folder of your own on every machine")
    return folder


async def send_orphans(folder: Path, home: Any) -> None:  # Any: the handle of a Home
    """What killed workers left on this machine."""
    for path in folder.glob("*.sqlite"):
        with suppress(BlockingIOError):
            orphan = Spool(folder, home, path.stem)
            if path.exists():  # nobody sent it while we came here
                await orphan.send_home()
            await orphan.remove()
            shutil.rmtree(folder / path.stem, ignore_errors=True)
