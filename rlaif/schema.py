"""The tables of the journal's file, made where they are missing, and the connections to it."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from rlaif.errors import StoreError

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
    body BLOB NOT NULL             -- zstd of the answer's JSON, with the dictionary _PHRASES
);
""",
    """
CREATE TABLE ledger (
    run TEXT NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL,
    day TEXT NOT NULL,             -- of the answer, UTC
    sent INTEGER NOT NULL, failed INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    written_tokens INTEGER NOT NULL,
    PRIMARY KEY (run, stage, model, day)
);
""",
)
# Half of what smaller pages leave empty at their ends; larger ones make a commit write more.
_PAGE_BYTES = 8192


def open_file(path: Path) -> sqlite3.Connection:
    """A connection that writes, to a file that is made if there is none. Raises StoreError, sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=60.0, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")  # of a new file
        connection.execute("PRAGMA synchronous=NORMAL")
        _switch_to_wal(connection)
        connection.execute("BEGIN IMMEDIATE")
        version = _migrate(connection, path)
        connection.execute(f"PRAGMA user_version={version}")
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that leaves the disk as it is: what a file lacks, or all if there is none, is made in memory."""
    if not path.exists():
        connection = sqlite3.connect(":memory:")
        _migrate(connection, path)
        return connection
    # Readers of a WAL file keep a small file beside it; where they may not, it is read as it stands.
    for immutable in (0, 1):
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable={immutable}"
        connection = sqlite3.connect(uri, uri=True, timeout=60.0)
        try:
            _migrate(connection, path, temporary=True)
        except BaseException as error:
            connection.close()
            if immutable or not isinstance(error, sqlite3.OperationalError):
                raise
        else:
            return connection
    raise AssertionError("the loop either returns or raises")


def _migrate(connection: sqlite3.Connection, path: Path, *, temporary: bool = False) -> int:
    """The version of the tables that are there now."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(_MIGRATIONS):
        raise StoreError(f"{path} was written by a newer rlaif: upgrade, or use another --runs-dir")
    for migration in _MIGRATIONS[version:]:
        for statement in filter(str.strip, migration.split(";\n")):
            connection.execute(statement.replace("CREATE", "CREATE TEMP") if temporary else statement)
    return len(_MIGRATIONS)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + 60.0
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # Processes that make the file at the same moment: for this switch SQLite does not wait by itself.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
