"""Every answered LLM call, on disk before anyone sees it.

SQLite in WAL mode with `synchronous=NORMAL`: a killed process loses nothing that was handed on; a
power cut may lose the last moments, never the file. Not for network file systems (no WAL there).
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec
import zstandard

from rlaif.errors import StoreError
from rlaif.types import Completion, Failure, Value

Answer = Completion | Failure

# One entry a version: what brings a file of the version before up to it.
_MIGRATIONS = (
    """
CREATE TABLE models (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, name TEXT NOT NULL, traits BLOB);
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,      -- Request.key(); WITHOUT ROWID would make the file three times larger
    model INTEGER NOT NULL,
    at INTEGER NOT NULL,           -- unix time, s
    failed INTEGER NOT NULL,
    body BLOB NOT NULL             -- zstd of the answer's JSON
);
""",
    """
CREATE TABLE ledger (
    run TEXT NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL,
    day TEXT NOT NULL,             -- of the answer, UTC
    sent INTEGER NOT NULL, failed INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (run, stage, model, day)
);
""",
)
_PUT = """
INSERT INTO calls (key, model, at, failed, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET at=excluded.at, failed=excluded.failed, body=excluded.body WHERE failed
"""
_CHARGE = """
INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, stage, model, day) DO UPDATE SET sent = sent + excluded.sent, failed = failed + excluded.failed,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens, cached_tokens = cached_tokens + excluded.cached_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens
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
    """The journal file at `path`, made if there is none. Several processes may use one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decode = msgspec.json.Decoder(Answer).decode
        self._encode = msgspec.json.Encoder().encode
        self._compress = zstandard.ZstdCompressor(level=3).compress
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._waiting: list[tuple[bytes, int, Answer, asyncio.Future[Answer]]] = []
        self._charges: list[Charge] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._migrate()
            self._reader = self._connect()
            self._writer = self._connect()
            self._last_row: int = self._reader.execute("SELECT coalesce(max(rowid), 0) FROM calls").fetchone()[0]
            self._found = bytearray((self._last_row >> 3) + 1)  # a bit for each answer from before
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"the journal {path} cannot be opened: {error}; make it writable, or use another --runs-dir"
            ) from error

    def get(self, key: bytes) -> Answer | None:
        """The answer this request got before, if any; a few microseconds."""
        found = self.find(key)
        return None if found is None else found[0]

    def find(self, key: bytes) -> tuple[Answer, bool] | None:
        """The answer, and whether it is from before the journal was opened and found for the first time since."""
        try:
            row = self._reader.execute("SELECT body, rowid FROM calls WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"the journal {self.path} cannot be read: {error}; use another --runs-dir") from error
        if row is None:
            return None
        body, number = row
        place, bit = number >> 3, 1 << (number & 7)
        first = number <= self._last_row and not self._found[place] & bit
        if first:
            self._found[place] |= bit
        return self._decode(self._decompress(body)), first

    async def put(self, key: bytes, model: int, answer: Answer, charge: Charge | None = None) -> Answer:
        """Returns once the answer is committed: what the journal holds for `key` from now on.

        While one group of answers is committed the next one gathers. If another process was
        faster, its answer is returned, so that both go on with the same one. The charge is in the
        same transaction: what is journaled is in the ledger, once, whatever is killed when.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, model, answer, future))
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
        return [Charge(*row) for row in self._reader.execute(query, (run,))]

    async def close(self) -> None:
        if self._writing is not None:
            await self._writing
        self._thread.shutdown()
        self._reader.close()
        self._writer.close()

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def model(self, identity: str, name: str) -> int:
        """The row number of a model, made if it is new."""
        with self._transaction():
            self._writer.execute(
                "INSERT INTO models (identity, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (identity, name)
            )
        number: int = self._reader.execute("SELECT id FROM models WHERE identity = ?", (identity,)).fetchone()[0]
        return number

    def identities_of(self, name: str) -> list[str]:
        """The identities under which answers of a model of this name are kept."""
        query = "SELECT identity FROM models WHERE name = ? AND EXISTS (SELECT 1 FROM calls WHERE model = models.id)"
        return [row[0] for row in self._reader.execute(query, (name,))]

    def has_calls(self, identity: str) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM calls WHERE model = (SELECT id FROM models WHERE identity = ?))"
        return bool(self._reader.execute(query, (identity,)).fetchone()[0])

    def traits(self, model: int) -> Traits | None:
        row = self._reader.execute("SELECT traits FROM models WHERE id = ?", (model,)).fetchone()
        return None if row is None or row[0] is None else msgspec.json.decode(row[0], type=Traits)

    def set_traits(self, model: int, traits: Traits) -> None:
        with self._transaction():
            self._writer.execute("UPDATE models SET traits = ? WHERE id = ?", (self._encode(traits), model))

    def sizes(self) -> list[tuple[str, int, int, int]]:
        """Per model: (identity, calls, of them failed, bytes of answers)."""
        query = """SELECT identity, count(calls.id), coalesce(sum(failed), 0), coalesce(sum(length(body)), 0)
                   FROM models LEFT JOIN calls ON calls.model = models.id GROUP BY models.id ORDER BY identity"""
        return list(self._reader.execute(query))

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

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60.0, check_same_thread=False)
        connection.execute("PRAGMA synchronous=NORMAL")
        deadline = time.monotonic() + 60.0
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return connection
            except sqlite3.OperationalError as error:
                # Processes that make the file at the same moment: for this switch SQLite does not wait by itself.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    connection.close()
                    raise
            time.sleep(0.01)

    def _migrate(self) -> None:
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            for migration in _MIGRATIONS[version:]:
                for statement in filter(str.strip, migration.split(";\n")):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version={max(version, len(_MIGRATIONS))}")
            connection.commit()
        if version > len(_MIGRATIONS):
            raise StoreError(f"{self.path} was written by a newer rlaif: upgrade, or use another --runs-dir")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._writer:
                yield
        except sqlite3.Error as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> StoreError:
        return StoreError(
            f"the journal {self.path} cannot be written: {error}; "
            "what it holds is safe: make room and run the same command again"
        )

    def _write(self) -> None:
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_groups())

    async def _write_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or self._charges:  # no await after the last look, so no entry is left behind
            group, self._waiting = self._waiting, []
            charges, self._charges = self._charges, []
            try:
                stored = await loop.run_in_executor(self._thread, self._commit, [entry[:3] for entry in group], charges)
            except Exception as error:  # whatever it is, no caller may wait for ever
                failure = self._unwritable(error)
                for *_, future in group:
                    if not future.done():
                        future.set_exception(failure)
            else:
                for (_, _, answer, future), other in zip(group, stored, strict=True):
                    if not future.done():
                        future.set_result(answer if other is None else other)
        self._writing = None

    def _commit(self, group: Iterable[tuple[bytes, int, Answer]], charges: Iterable[Charge]) -> list[Answer | None]:
        """One transaction; None where our answer was kept, else the one that was there before."""
        now = int(time.time())
        stored: list[Answer | None] = []
        with self._writer:
            for key, model, answer in group:
                body = self._compress(self._encode(answer))
                values = (key, model, now, isinstance(answer, Failure), body)
                kept = self._writer.execute(_PUT, values).rowcount
                if kept:
                    stored.append(None)
                else:
                    row = self._writer.execute("SELECT body FROM calls WHERE key = ?", (key,)).fetchone()
                    stored.append(self._decode(zstandard.decompress(row[0])))
            self._writer.executemany(_CHARGE, _sums(charges))
        return stored


def _sums(charges: Iterable[Charge]) -> Iterator[Charge]:
    """One charge a line of the ledger: a group of answers has hundreds for a few lines."""
    lines: dict[tuple[str, str, str, str], list[Charge]] = {}
    for charge in charges:
        lines.setdefault(charge[:4], []).append(charge)
    for line, own in lines.items():
        _, _, _, _, *amounts = zip(*own, strict=True)
        yield Charge(*line, *map(sum, amounts))
