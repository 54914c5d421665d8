"""The folder that remembers batches: a JSON file for each before it is sent, its results once it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import msgspec

from rlaif.errors import StoreError

# Providers keep results for 29 or 30 days; what nobody asked for by then is forgotten here too.
_KEPT_S = 30 * 24 * 3600.0
_LOCK_S = 0.1


class Job(msgspec.Struct):
    """One batch, as its JSON file keeps it. It has ended once its results lie beside it.

    `name` is a token of our own. `calls` are in the order of the input's lines: custom_id, which is
    the request's key in hex, and how many times it has been submitted by then.
    """

    name: str
    provider: str
    base_url: str
    identity: str
    at: float  # unix time of the last step towards the provider
    calls: dict[str, int]
    state: Literal["intended", "submitted"] = "intended"
    batch_id: str = ""
    input_file_id: str = ""


class BatchFolder:
    """The files of one model's batches: `PREFIX-NAME.json` and, once it has ended, `PREFIX-NAME.results.jsonl`."""

    def __init__(self, path: Path, whose: str) -> None:
        self.path = path
        self._prefix = blake2b(whose.encode(), digest_size=6).hexdigest()

    def record(self, name: str) -> Path:
        return self.path / f"{self._prefix}-{name}.json"

    def results(self, name: str) -> Path:
        return self.path / f"{self._prefix}-{name}.results.jsonl"

    def input(self, name: str) -> Path:
        return self.path / f"{self._prefix}-{name}.input.jsonl"

    def names(self) -> set[str]:
        return {path.stem.partition("-")[2] for path in self.path.glob(f"{self._prefix}-*.json")}

    def read(self, name: str) -> Job | None:
        """None if it is not there any more. Raises StoreError if it is damaged."""
        path = self.record(name)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Job)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            text = f"{path} cannot be read ({error}); if you delete it, its calls are submitted and paid for again"
            raise StoreError(text) from error

    def write(self, job: Job) -> None:
        path = self.record(job.name)
        partial = path.with_name(path.name + ".partial")
        with written(path):
            with partial.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(job), indent=1))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            folder = os.open(self.path, os.O_RDONLY)  # or a power cut may take the name back
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def remove(self, name: str) -> None:
        for path in (self.record(name), self.results(name)):  # in this order: results without a batch are only litter
            path.unlink(missing_ok=True)

    def known_ids(self) -> frozenset[str]:
        """Batch ids of all models in the folder."""
        ids = set()
        for path in self.path.glob("*-*.json"):
            with contextlib.suppress(FileNotFoundError):
                ids.update(re.findall(rb'"batch_id": ?"([^"]+)"', path.read_bytes()))
        return frozenset(found.decode() for found in ids)

    def sweep(self) -> None:
        """Remove what is too old to be asked for."""
        for path in self.path.glob(f"{self._prefix}-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _KEPT_S:
                    path.unlink()

    @contextlib.asynccontextmanager
    async def locked(self, stop: asyncio.Event | None = None, *, at_once: bool = False) -> AsyncIterator[bool]:
        """Alone with these files; False if another process has them and there is to be no waiting."""
        with written(self.path):
            file = (self.path / f"{self._prefix}.lock").open("ab")
        with file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if at_once or (stop is not None and stop.is_set()):
                        yield False
                        return
                    await asyncio.sleep(_LOCK_S)
                    continue
                yield True
                return


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}; make room, and run the same command again: "
            "what was submitted is kept"
        ) from error
