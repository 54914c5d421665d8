"""A provider's batch API: calls are queued in files, cost half, and are answered within a day.

Every batch has a JSON file in one folder, written before the provider is asked to take it, so that
neither a kill nor days of waiting lose or repeat what is paid for. Processes may share the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, NoReturn

from rlaif.backends import ModelSpec, identity_of
from rlaif.backends.batch_api import BatchApi, FailedForGood, Look
from rlaif.backends.batch_folder import BatchFolder, Job, written
from rlaif.backends.batch_results import Results, line_without_answer, offsets_in
from rlaif.errors import Pending, ProviderError
from rlaif.types import Completion, Request

# So many batches in a row that could not be handed in end the run.
_SUBMIT_ATTEMPTS = 5
_ENVELOPE_BYTES = 64  # around the lines of one file
_LAST_STEP_S = 10.0  # for an upload or a download under way when the run is stopped


@dataclass(slots=True, eq=False)
class _Batch:
    job: Job
    ours: bool  # submitted by this process
    results: Results | None = None  # once it has ended
    handed_out: set[str] = field(default_factory=set)  # since `settle` was called
    done: set[str] = field(default_factory=set)  # in the journal by now, or in a newer batch

    def close(self) -> None:
        if self.results is not None:
            self.results.close()


class BatchBackend:
    """Answers from finished batches; other calls are queued and Pending until `settle` has seen to them.

    Args:
        api: the provider's interface.
        folder: of the JSON files, made if there is none; shared by models, runs and processes.
        identity: what the model's answers are filed under; batches of other identities are left alone.
        attempts: submissions of one call, where its failure may pass.
        wait_s: between looks at batches under way: the first, and what it grows to.
        grace_s: so long after a `create` without a reply its batch may still appear.
    """

    def __init__(
        self,
        api: BatchApi,
        folder: Path,
        identity: str,
        *,
        attempts: int = 6,
        wait_s: tuple[float, float] = (5.0, 60.0),
        grace_s: float = 30.0,
    ) -> None:
        self._api = api
        self.live = api.live
        self._identity = identity
        self._folder = BatchFolder(folder, f"{api.provider}|{api.base_url}|{identity}")
        self._attempts = attempts
        self._first_wait_s, self._longest_wait_s = wait_s
        self._grace_s = grace_s
        self._batches: list[_Batch] = []
        self._queue: dict[str, tuple[int, int, int]] = {}  # custom_id -> (offset, length, attempt)
        self._spool: IO[bytes] | None = None  # the queued lines; it has no name and goes with the process
        self._tried: dict[str, int] = {}  # custom_id -> submissions, of calls in no batch now
        self._opened = False
        self._opening = asyncio.Lock()
        self._stopped = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._news = False  # a call may have an answer now, or may be queued now
        self._largest = api.max_calls  # calls a file
        self._at_once: int | None = None  # batches, once the provider had no room for more
        self._not_before = 0.0  # monotonic
        self._refused_in_a_row = 0
        self._trouble = ""

    async def complete(self, request: Request) -> Completion:
        """The answer from a finished batch. Raises Pending until there is one, and FailedForGood if none will come."""
        if not self._opened:
            await self._open()
            self._news = False  # what lies there is for this very pass
        name = request.key().hex()
        if name in self._queue:
            raise Pending
        batch = self._holder(name)
        if batch is None:
            self._enqueue(name, request, self._tried.get(name, 0) + 1)
        if batch.results is None:
            raise Pending
        try:
            completion = self._api.read(request, batch.results.line(name))
        except ProviderError as error:
            self._ask_again(batch, name, request, error)
        batch.handed_out.add(name)
        return completion

    async def settle(self) -> bool:
        """Submits what is queued and waits for a batch to end; True if a new pass can get further.

        One that is cancelled leaves what it was doing to the next one, or to `close`.
        """
        self._let_go()
        wait_s = self._first_wait_s
        while not self._stopped.is_set():
            if self._working is None:
                self._working = asyncio.create_task(self._step())
            if not await self._or_stopped(self._working):
                return False
            step, self._working = self._working, None
            step.result()
            if self._news:
                self._news = False
                return True
            if not self._queue and all(batch.results for batch in self._batches):
                return False
            await self._pause(wait_s)
            wait_s = min(wait_s * 1.5, self._longest_wait_s)
        return False

    def stop(self) -> None:
        """Wake `settle`, which returns False. Batches stay where they are: the next run finds them."""
        self._stopped.set()

    async def close(self) -> None:
        self.stop()
        if self._working is not None:
            await asyncio.wait({self._working}, timeout=_LAST_STEP_S)
            self._working.cancel()  # wherever it is: the folder says what the next run must look up
            await asyncio.gather(self._working, return_exceptions=True)
        self._let_go()
        if self._opened:
            async with self._folder.locked(at_once=True) as locked:
                if locked:
                    self._forget()
        await self._api.close()
        for batch in self._batches:
            batch.close()
        if self._spool is not None:
            self._spool.close()

    @property
    def waiting(self) -> str:
        """What it waits for, in words; empty if for nothing."""
        jobs = [batch.job for batch in self._batches if batch.results is None]
        calls = sum(len(job.calls) for job in jobs)
        parts = []
        if jobs:
            oldest = _duration(time.time() - min(job.at for job in jobs))
            batches = f"{len(jobs)} batch{'es' if len(jobs) > 1 else ''}"
            parts.append(f"{batches} ({calls:,} call{'s' if calls != 1 else ''}) at {self._api.place}, oldest {oldest}")
        if self._queue:
            parts.append(f"{len(self._queue):,} calls not submitted yet")
        if self._trouble and parts:
            parts.append(self._trouble)
        return "; ".join(parts)

    # Calls

    def _holder(self, name: str) -> _Batch | None:
        """The batch with the latest attempt at a call."""
        holders = [batch for batch in self._batches if name in batch.job.calls]
        return max(holders, key=lambda batch: batch.job.calls[name]) if holders else None

    def _ask_again(self, batch: _Batch, name: str, request: Request, error: ProviderError) -> NoReturn:
        """Queue a call that failed, or raise for good."""
        attempt = batch.job.calls[name]
        if error.transient and attempt < self._attempts:
            self._enqueue(name, request, attempt + 1)
        if error.fatal and not batch.ours:
            # An earlier run's key or address: since then it may have been put right.
            self._enqueue(name, request, attempt + 1)
        batch.handed_out.add(name)
        if not error.transient:
            raise error
        text = f"{error} (after {attempt} batch{'es' if attempt > 1 else ''})"
        raise FailedForGood(error.kind, text, status=error.status, parameter=error.parameter) from error

    def _enqueue(self, name: str, request: Request, attempt: int) -> NoReturn:
        line = self._api.line(name, request)
        if len(line) + 1 + _ENVELOPE_BYTES > self._api.max_bytes:
            raise ProviderError("bad_request", f"the call has {len(line):,} bytes, more than a batch file may have")
        with written(self._folder.path):
            if self._spool is None:
                self._spool = tempfile.TemporaryFile(dir=self._folder.path)  # noqa: SIM115 # closed by `close`
            offset = self._spool.seek(0, os.SEEK_END)
            self._spool.write(line + b"\n")
        self._queue[name] = (offset, len(line) + 1, attempt)
        raise Pending

    # Between passes

    async def _open(self) -> None:
        async with self._opening:
            if self._opened:
                return
            with written(self._folder.path):
                self._folder.path.mkdir(parents=True, exist_ok=True)
                self._folder.sweep()
            await self._refresh()
            self._opened = True

    async def _step(self) -> None:
        """Load what has ended, then submit what is queued: the provider works while the next pass runs."""
        if not self._opened:
            await self._open()
        await self._refresh()
        for batch in list(self._batches):
            if batch.job.state == "submitted" and batch.results is None and not self._stopped.is_set():
                await self._look(batch)
        async with self._folder.locked(self._stopped) as locked:
            if not locked:
                return
            await self._refresh()
            for batch in list(self._batches):
                if batch.job.state == "intended":
                    await self._find(batch)
            await self._submit()
            self._forget()

    async def _refresh(self) -> None:
        """What other processes did, or an earlier one: new batches, results, batches all handed out."""
        names = self._folder.names()
        for batch in list(self._batches):
            if batch.results is not None:
                continue
            if batch.job.name not in names:
                self._drop(batch)
            elif batch.job.state == "intended" and (job := self._folder.read(batch.job.name)) is not None:
                batch.job = job
        known = {batch.job.name for batch in self._batches}
        for name in sorted(names - known):
            job = self._folder.read(name)
            if job is not None:
                self._batches.append(_Batch(job, ours=False))
        for batch in self._batches:
            if batch.results is None:
                await self._load(batch)

    async def _load(self, batch: _Batch) -> None:
        path = self._folder.results(batch.job.name)
        with contextlib.suppress(FileNotFoundError):
            batch.results = await asyncio.to_thread(Results, path, batch.job.calls)
            self._news = True

    async def _look(self, batch: _Batch) -> None:
        try:
            found = await self._api.look(batch.job)
            self._trouble = ""
            if found.state == "ended":
                await self._fetch(batch, found)
        except ProviderError as error:
            if error.kind == "not_found":
                raise self._unknown(batch, error) from error
            if not error.transient:
                raise
            self._trouble = f"last look: {error}"  # it may take days: an outage among them is nothing
            return
        if found.state == "no room":
            self._free(batch)
            self._take_less(len(batch.job.calls))
        elif found.state == "ended":
            self._largest = min(self._api.max_calls, self._largest * 2)

    async def _fetch(self, batch: _Batch, found: Look) -> None:
        """The results, whole or not at all, and a line of ours for each call without one."""
        path = self._folder.results(batch.job.name)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            with written(partial), partial.open("w+b") as file:
                for source in found.sources:
                    await self._fetch_source(batch, source, file)
                answered = await asyncio.to_thread(offsets_in, file, batch.job.calls)
                file.seek(0, os.SEEK_END)
                for number, name in enumerate(batch.job.calls):
                    if name not in answered:
                        error = found.unanswered.get(number) or found.unanswered.get(None)
                        file.write(line_without_answer(name, error or self._missing(batch)))
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        await self._load(batch)

    async def _fetch_source(self, batch: _Batch, source: str, file: BinaryIO) -> None:
        try:
            await self._api.fetch(batch.job, source, file)
        except ProviderError as error:
            if error.kind != "not_found":
                raise
            # Somebody deleted the file: its calls have no answer.
        file.write(b"\n")

    def _unknown(self, batch: _Batch, error: ProviderError) -> ProviderError:
        record = self._folder.record(batch.job.name)
        return ProviderError(
            "not_found",
            f"{self._api.place} does not know batch {batch.job.batch_id}: take the key it was submitted with, or "
            f"delete {record}, and its {len(batch.job.calls):,} calls are submitted again ({error})",
        )

    def _missing(self, batch: _Batch) -> ProviderError:
        return ProviderError("server", f"{self._api.place}: batch {batch.job.batch_id} ended without this call")

    async def _find(self, batch: _Batch) -> None:
        """A batch that nobody recorded: its process was killed, or the reply was lost. With the lock held."""
        try:
            found = await self._api.find(batch.job, self._folder.known_ids())
        except ProviderError as error:
            if not error.transient:
                raise
            self._trouble = f"last look: {error}"
            return
        if found is not None:
            batch.job.batch_id, batch.job.state = found, "submitted"
            self._folder.write(batch.job)
            self._refused_in_a_row = 0
        elif not 0 <= time.time() - batch.job.at < self._grace_s:
            self._free(batch)

    async def _submit(self) -> None:
        """Files of queued calls, one after the other. With the lock held, so that nobody submits the same."""
        for name, (_, _, attempt) in list(self._queue.items()):
            holder = self._holder(name)
            if holder is not None and holder.job.calls[name] >= attempt:
                del self._queue[name]  # another process was faster
        while self._queue and not self._stopped.is_set() and self._may_submit():
            names = self._next_file()
            calls = {name: self._queue[name][2] for name in names}
            job = Job(uuid.uuid4().hex, self._api.provider, self._api.base_url, self._identity, time.time(), calls)
            if not await self._hand_in(job):
                break
        if not self._queue and self._spool is not None:
            self._spool.close()
            self._spool = None

    async def _hand_in(self, job: Job) -> bool:
        """One batch to the provider; False if it takes no other now."""
        lines = self._folder.input(job.name)
        try:
            assert self._spool is not None
            self._spool.flush()
            await asyncio.to_thread(self._write_input, job, lines)
            try:
                job.input_file_id = await self._api.upload(job, lines)
            except ProviderError as error:
                return self._not_taken(job, error)
            job.at = time.time()
            self._folder.write(job)  # from here on there may be a batch
            batch = _Batch(job, ours=True)
            try:
                job.batch_id = await self._api.create(job, lines)
                job.state = "submitted"
                self._folder.write(job)
                self._refused_in_a_row = 0
            except ProviderError as error:
                if error.kind not in ("server", "timeout"):
                    self._folder.remove(job.name)
                    return self._not_taken(job, error)
                self._count_refusal(error)  # taken or not: `_find` finds out
        finally:
            lines.unlink(missing_ok=True)
        for name in job.calls:
            del self._queue[name]
            self._tried.pop(name, None)
            if (holder := self._holder(name)) is not None:
                holder.done.add(name)
        self._batches.append(batch)
        return job.state == "submitted"

    def _not_taken(self, job: Job, error: ProviderError) -> bool:
        """The provider has certainly no such batch; True if a smaller one may be taken now."""
        if error.status == 413 and len(job.calls) > 1:
            self._largest = len(job.calls) // 2
            return True
        if error.kind == "rate_limit":
            self._take_less(len(job.calls))
        elif error.transient:
            self._count_refusal(error)
        else:
            raise error
        self._trouble = str(error)
        return False

    def _count_refusal(self, error: ProviderError) -> None:
        self._trouble = str(error)
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= _SUBMIT_ATTEMPTS:
            raise error

    def _take_less(self, calls: int) -> None:
        """The provider has no room: wait for a batch of ours to end, or, if there is none, make smaller ones."""
        under_way = sum(batch.results is None for batch in self._batches)
        self._at_once = max(1, under_way)
        if not under_way:
            self._largest = max(1, calls // 2)
            self._not_before = time.monotonic() + self._longest_wait_s

    def _may_submit(self) -> bool:
        under_way = sum(batch.results is None for batch in self._batches)
        return (self._at_once is None or under_way < self._at_once) and time.monotonic() >= self._not_before

    def _next_file(self) -> list[str]:
        names: list[str] = []
        size = _ENVELOPE_BYTES
        for name, (_, length, _) in self._queue.items():
            size += length
            if names and (size > self._api.max_bytes or len(names) >= self._largest):
                break
            names.append(name)
        return names

    def _write_input(self, job: Job, path: Path) -> None:
        assert self._spool is not None
        with written(path), path.open("wb") as file:
            for name in job.calls:
                offset, length, _ = self._queue[name]
                # Not the file's own position: a call may be queued at the same time.
                file.write(os.pread(self._spool.fileno(), length, offset))

    def _free(self, batch: _Batch) -> None:
        """The provider has no such batch, or took none of its calls: they count as never submitted."""
        self._folder.remove(batch.job.name)
        for name, attempt in batch.job.calls.items():
            if attempt > 1:
                self._tried[name] = attempt - 1
        self._drop(batch)

    def _drop(self, batch: _Batch) -> None:
        batch.close()
        self._batches.remove(batch)
        self._news = True

    def _let_go(self) -> None:
        """Between passes and at the end no call is in flight: what was handed out is in the journal."""
        for batch in self._batches:
            batch.done |= batch.handed_out
            batch.handed_out.clear()

    def _forget(self) -> None:
        """Nobody will ask for what is done. With the lock held."""
        for batch in list(self._batches):
            if not batch.done:
                continue
            job = self._folder.read(batch.job.name)
            left = {} if job is None else {name: n for name, n in job.calls.items() if name not in batch.done}
            if left:
                batch.job.calls = left
                self._folder.write(batch.job)
            else:
                self._folder.remove(batch.job.name)
                batch.close()
                self._batches.remove(batch)
            if batch.results is not None:
                batch.results.forget(batch.done)
            batch.done.clear()

    async def _or_stopped(self, step: asyncio.Task[None]) -> bool:
        """Waits for `step`, False if the run was stopped before; a cancelled wait leaves the step alone."""
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({step, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        return step.done()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)


def _duration(seconds: float) -> str:
    minutes = max(0, round(seconds / 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"


def open_batches(spec: ModelSpec, environment: dict[str, str], folder: Path) -> BatchBackend:
    """The batches of the model's provider; `folder` remembers them. Raises ConfigError as a live model does."""
    api: BatchApi
    if spec.provider == "openai":
        from rlaif.backends.openai_batch import OpenAIBatches

        api = OpenAIBatches.from_spec(spec, environment)
    else:
        from rlaif.backends.anthropic_batch import AnthropicBatches

        api = AnthropicBatches.from_spec(spec, environment)
    return BatchBackend(api, folder, identity_of(spec), attempts=spec.attempts)
