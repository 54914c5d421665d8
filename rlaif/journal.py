"""Every answered LLM call, on disk before anyone sees it.

SQLite in WAL mode with `synchronous=NORMAL`: a killed process loses nothing that was handed on; a
power cut may lose the last moments, never the file.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, NamedTuple

import msgspec

from rlaif import schema
from rlaif.disk import check_room, refuse_shared
from rlaif.errors import StoreError
from rlaif.packing import Answer, Packing
from rlaif.types import Failure, Value

_Entry = tuple[bytes, int, bool, bytes]  # key, model, failed, the answer's JSON

# A full disk is asked again after so many seconds: the answers in hand are paid for.
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
_LOOK_EVERY_S = 1.0
PUT = """
INSERT INTO calls (key, model, at, failed, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET at=excluded.at, failed=excluded.failed, body=excluded.body WHERE failed
"""
CHARGE = """
INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, stage, model, day) DO UPDATE SET sent = sent + excluded.sent, failed = failed + excluded.failed,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens, cached_tokens = cached_tokens + excluded.cached_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    written_tokens = written_tokens + excluded.written_tokens
"""


class Charge(NamedTuple):
    """What calls came to, and for whom: a line of the ledger, or what is added to one."""

    run: str
    stage: str
    model: str
    day: str  # 2026-11-21, UTC
    sent: int
    failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    written_tokens: int = 0  # of the prompt's, to the provider's cache


class Traits(Value, frozen=True):
    """What the first call to a model taught us; kept, so that the keys of a later run come out equal.

    `top_logprobs` is how many alternatives a token comes with (0: no log-probabilities), `rejected`
    the request parameters the model does not take.
    """

    top_logprobs: int = 0
    system_role: bool = True
    rejected: tuple[str, ...] = ()
    thinks: bool = False  # a reasoning model: it needs tokens before its answer begins


class Journal:
    """The journal file at `path`, made if there is none. Several processes may use one file.

    With `read_only` nothing is written, not even a missing file; `put`, `charge`, `set_traits` and `prune` fail.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._packing = Packing()
        self._waiting: list[tuple[_Entry, Answer, asyncio.Future[Answer]]] = []
        self._charges: list[Charge] = []
        self._writing: asyncio.Task[None] | None = None
        self._one_writer = Lock()  # of the thread and the loop, which share a connection
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._look_again = 0.0
        self._full = False
        self._read_only = read_only
        try:
            with ExitStack() as files:
                if read_only:
                    self._reader = self._writer = files.enter_context(closing(schema.open_read_only(path)))
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    refuse_shared(path.parent)
                    self._reader = files.enter_context(closing(schema.open_file(path)))
                    self._writer = files.enter_context(closing(schema.open_file(path)))
                self._last_row: int = self._reader.execute("SELECT coalesce(max(rowid), 0) FROM calls").fetchone()[0]
                self._found = bytearray((self._last_row >> 3) + 1)  # a bit for each answer from before
                self._files = files.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise self._failed("opened", error, "make it writable, or use another --runs-dir") from error
        except (MemoryError, OverflowError, ValueError) as error:
            raise self._damaged(error) from error  # no file has so many rows, or fewer than none

    def check_room(self) -> None:
        """Before a call is sent: is there room for its answer? Looks once a second. Raises StoreError."""
        now = time.monotonic()
        if now >= self._look_again or self._full:
            check_room(self.path.parent, full=self._full)
            self._look_again = now + _LOOK_EVERY_S

    def get(self, key: bytes) -> Answer | None:
        """The answer this request got before, if any; a few microseconds."""
        found = self.find(key)
        return None if found is None else found[0]

    def find(self, key: bytes) -> tuple[Answer, bool] | None:
        """The answer, and whether it is from before the journal was opened and found for the first time since."""
        try:
            row = self._reader.execute("SELECT body, rowid FROM calls WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        if row is None:
            return None
        body, number = row
        place, bit = number >> 3, 1 << (number & 7)
        first = 0 < number <= self._last_row and not self._found[place] & bit
        if first:
            self._found[place] |= bit
        return self._unpacked(body), first

    async def put(self, key: bytes, model: int, answer: Answer, charge: Charge | None = None) -> Answer:
        """Returns once the answer is committed: what the journal holds for `key` from now on.

        While one group of answers is committed the next one gathers. If another process was
        faster, its answer is returned, so that both go on with the same one. The charge is in the
        same transaction: what is journaled is in the ledger, once, whatever is killed when.
        """
        try:
            entry = (key, model, isinstance(answer, Failure), self._packing.json(answer))
        except UnicodeEncodeError as error:  # half a character: no other answer of the group shall suffer for it
            raise StoreError(f"an answer cannot be written to the journal {self.path}: {error}") from error
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, answer, future))
        if charge is not None:
            self._charges.append(charge)
        self._write()
        return await future

    def charge(self, charge: Charge) -> None:
        """For calls whose answer is not kept; written with the next group, at the latest at `close`."""
        self._charges.append(charge)
        self._write()

    def ledger(self, run: str) -> list[Charge]:
        """What the calls of a run came to over all its invocations, by day, stage and model."""
        query = "SELECT * FROM ledger WHERE run = ? ORDER BY day, stage, model"
        return [Charge(*row) for row in self._rows(query, run)]

    async def close(self) -> None:
        if self._charges:
            self._write()
        if self._writing is not None:
            await self._writing
        self._thread.shutdown()
        self._files.close()

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def model(self, identity: str, name: str) -> int:
        """The row number of a model, made if it is new; 0 if it is and nothing may be written."""
        query = "SELECT id FROM models WHERE identity = ?"
        known = self._rows(query, identity)
        if self._read_only:
            return known[0][0] if known else 0
        if not known:
            with self._transaction():
                self._writer.execute(
                    "INSERT INTO models (identity, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (identity, name)
                )
            known = self._rows(query, identity)
        number: int = known[0][0]
        return number

    def identities_of(self, name: str) -> list[str]:
        """The identities under which answers of a model of this name are kept."""
        query = "SELECT identity FROM models WHERE name = ? AND EXISTS (SELECT 1 FROM calls WHERE model = models.id)"
        return [row[0] for row in self._rows(query, name)]

    def has_calls(self, identity: str) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM calls WHERE model = (SELECT id FROM models WHERE identity = ?))"
        return bool(self._rows(query, identity)[0][0])

    def traits(self, model: int) -> Traits | None:
        rows = self._rows("SELECT traits FROM models WHERE id = ? AND traits IS NOT NULL", model)
        return msgspec.json.decode(rows[0][0], type=Traits) if rows else None

    def set_traits(self, model: int, traits: Traits) -> None:
        with self._transaction():
            self._writer.execute("UPDATE models SET traits = ? WHERE id = ?", (msgspec.json.encode(traits), model))

    def sizes(self) -> list[tuple[str, int, int, int]]:
        """Per model: (identity, calls, of them failed, bytes of answers)."""
        query = """SELECT identity, count(calls.id), coalesce(sum(failed), 0), coalesce(sum(length(body)), 0)
                   FROM models LEFT JOIN calls ON calls.model = models.id GROUP BY models.id ORDER BY identity"""
        return self._rows(query)

    def prune(self, *, model: str | None = None, before: int | None = None, failed_only: bool = False) -> int:
        """Forget answers: of one model (by identity), older than a unix time, or failures only.

        Returns how many. What is forgotten is paid for again when it is asked again.
        """
        where, values = ["1"], []
        if model is not None:
            where.append("model = (SELECT id FROM models WHERE identity = ?)")
            values.append(model)
        if before is not None:
            where.append("at < ?")
            values.append(str(before))
        if failed_only:
            where.append("failed")
        with self._transaction():
            count = self._writer.execute(f"DELETE FROM calls WHERE {' AND '.join(where)}", values).rowcount
            if model is not None:
                self._writer.execute("UPDATE models SET traits = NULL WHERE identity = ?", (model,))
        with self._transaction():
            self._writer.execute("VACUUM")
        return count

    def _unpacked(self, body: bytes) -> Answer:
        try:
            return self._packing.unpack(body)
        except ValueError as error:
            raise self._damaged(error) from error

    def _rows(self, query: str, *values: object) -> list[Any]:  # Any: a tuple as the query gives it
        try:
            return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._one_writer, self._writer:
                yield
        except sqlite3.Error as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception, lost: int = 0) -> StoreError:
        lack = f"{lost} answers under way are not kept, " if lost else ""
        return self._failed("written", error, f"{lack}what it holds is safe: make room and run the same command again")

    def _unreadable(self, error: Exception) -> StoreError:
        return self._failed("read", error, "use another --runs-dir")

    def _failed(self, what: str, error: Exception, way_out: str) -> StoreError:
        if _code(error) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._damaged(error)
        return StoreError(f"the journal {self.path} cannot be {what}: {error}; {way_out}")

    def _damaged(self, error: Exception) -> StoreError:
        return StoreError(
            f"the journal {self.path} is damaged: {error}; save what can be read with "
            f"`rlaif journal repair --runs-dir {self.path.parent}`, then run the same command again"
        )

    def _write(self) -> None:
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_groups())

    async def _write_groups(self) -> None:
        while self._waiting or self._charges:  # no await after the last look, so no entry is left behind
            group, self._waiting = self._waiting, []
            charges, self._charges = self._charges, []
            try:
                stored = await self._committed([entry for entry, *_ in group], charges)
            except Exception as error:  # whatever it is, no caller may wait for ever
                failure = self._unwritable(error, len(group))
                for *_, future in group:
                    if not future.done():
                        future.set_exception(failure)
                self._charges = charges + self._charges  # paid for all the same
                if not self._waiting:
                    break
            else:
                for (_, answer, future), other in zip(group, stored, strict=True):
                    if future.done():
                        continue
                    try:
                        future.set_result(answer if other is None else self._unpacked(other))
                    except StoreError as error:
                        future.set_exception(error)
        self._writing = None

    async def _committed(self, group: list[_Entry], charges: list[Charge]) -> list[bytes | None]:
        """Waits a little for room on a full disk; meanwhile `check_room` lets no more calls out."""
        loop = asyncio.get_running_loop()
        for pause_s in (*_PAUSES_S, None):
            try:
                stored = await loop.run_in_executor(self._thread, self._commit, group, charges)
            except sqlite3.OperationalError as error:
                # A used-up quota is an error in writing.
                self._full = _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
                if not self._full or pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
            else:
                self._full = False
                return stored
        raise AssertionError("the loop either returns or raises")

    def _commit(self, group: Iterable[_Entry], charges: Iterable[Charge]) -> list[bytes | None]:
        """One transaction; None where our answer was kept, else the body of the one that was there before."""
        now = int(time.time())
        stored: list[bytes | None] = []
        with self._one_writer, self._writer:
            for key, model, failed, answer in group:
                kept = self._writer.execute(PUT, (key, model, now, failed, self._packing.pack(answer))).rowcount
                if kept:
                    stored.append(None)
                else:
                    stored.append(self._writer.execute("SELECT body FROM calls WHERE key = ?", (key,)).fetchone()[0])
            self._writer.executemany(CHARGE, _sums(charges))
        return stored


def _code(error: Exception) -> int:
    """SQLite's own extended code; 0 where the error is not SQLite's, but its module's, say."""
    return getattr(error, "sqlite_errorcode", 0)


def _sums(charges: Iterable[Charge]) -> Iterator[Charge]:
    """One charge a line of the ledger: a group of answers has hundreds for a few lines."""
    lines: dict[tuple[str, str, str, str], list[Charge]] = {}
    for charge in charges:
        lines.setdefault(charge[:4], []).append(charge)
    for line, own in lines.items():
        _, _, _, _, *amounts = zip(*own, strict=True)
        yield Charge(*line, *map(sum, amounts))
