"""Records through stages: a bounded window of them, part by part, pass by pass until nothing is pending."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from rlaif.context import Context
from rlaif.errors import CallFailed, Pending
from rlaif.stages import Stage
from rlaif.store import PART_RECORDS, RunFolder, encode
from rlaif.types import Outcome, Record

# A straggler holds back its part, in memory. Past this many unfinished parts, and one more for so many records of
# the window, no new one is begun: a wide window passes over many parts while one slow answer is on its way.
OPEN_PARTS, _WINDOW_OF_A_PART = 4, 250


@dataclass(slots=True)
class Progress:
    """Counts of this invocation, read by whoever shows them."""

    records: int = 0  # finished now
    skipped: int = 0  # in parts finished before
    pending: int = 0  # let go in the current pass
    passes: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    in_stage: Counter[str] = field(default_factory=Counter)  # stage name -> records in it now
    through_stage: Counter[str] = field(default_factory=Counter)  # stage name -> records that left it


@dataclass(slots=True)
class _Part:
    """A part under way: its finished records, encoded, by their place."""

    number: int
    size: int
    lines: dict[int, bytes] = field(default_factory=dict)
    ended: int = 0  # finished or let go
    through_stage: Counter[str] = field(default_factory=Counter)


class Runner:
    """Runs `stages` over prompts and writes the parts of `folder`.

    Args:
        stages: (name, stage), in order.
        window: records under way at once.
        rebuild: make these finished parts anew; True for all.
        writing: False in a dry run, which writes no part.
        show_to: is shown each record with responses after each stage, until it has seen enough and gives False.
    """

    def __init__(
        self,
        folder: RunFolder,
        stages: Sequence[tuple[str, Stage]],
        context: Context,
        *,
        window: int = 256,
        rebuild: bool | frozenset[int] = False,
        writing: bool = True,
        show_to: Callable[[Record], bool] | None = None,
    ) -> None:
        self.progress = Progress()
        self._folder = folder
        self._stages = list(stages)
        self._context = context
        self._models = list({id(llm): llm for llm in context.models.values()}.values())
        self._window = asyncio.Semaphore(window)
        self._open_parts = asyncio.Semaphore(OPEN_PARTS + window // _WINDOW_OF_A_PART)
        self._rebuild = rebuild
        self._written: set[int] = set()
        self._records_written = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        self._writing = writing
        self._show_to = show_to
        self.stopping = False

    async def run(self, prompts: Iterable[Record]) -> None:
        """Passes over `prompts` (re-iterable, the same each time) until no record is pending.

        Returns early after `stop`, or when no backend has more to give (a dry run). Raises the first
        fatal error once the calls in flight are in the journal; finished parts stay.
        """
        while True:
            self.progress.passes += 1
            self.progress.pending = 0
            self.progress.records = self._records_written  # what a pass let go is counted again
            await self._one_pass(prompts)
            if self._error is not None:
                raise self._error
            if self.stopping or not self.progress.pending:
                return
            if not await self._settle_models():
                return

    def stop(self) -> None:
        """Begin nothing new; calls in flight end in the journal, then `run` returns."""
        self.stopping = True
        for llm in self._models:
            llm.stop()

    async def _settle_models(self) -> bool:
        """Lets the backends that queue get their answers; True if a new pass can get further.

        Batches are handed in when nothing else can go on, so that they are full; all wait at the same
        time, and the first that ends is enough.
        """
        if any([await llm.settle() for llm in self._models if not llm.batched]):
            return True
        waits = [asyncio.create_task(llm.settle()) for llm in self._models if llm.batched]
        try:
            for ended in asyncio.as_completed(waits):
                if await ended:
                    return True
            return False
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _one_pass(self, prompts: Iterable[Record]) -> None:
        try:
            await self._begin_all(prompts)
        except BaseException as error:  # a bad row, a damaged part: what is under way is drained first
            self._fail(error)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _begin_all(self, prompts: Iterable[Record]) -> None:
        for number, records in enumerate(chunks(prompts, PART_RECORDS)):
            if self._is_finished(number, len(records)):
                continue
            await self._open_parts.acquire()
            part = _Part(number, len(records))
            for place, record in enumerate(records):
                await self._window.acquire()
                if self.stopping:
                    break
                task = asyncio.create_task(self._through(record, part, place))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            if self.stopping:
                break

    def _is_finished(self, number: int, size: int) -> bool:
        """Is the part on disk, and as large as it should be now (a raised limit fills up the last one)?"""
        if number in self._written:
            return True
        on_disk = self._folder.part_size(number)
        again = self._rebuild is True or (self._rebuild and number in self._rebuild)
        # With a smaller limit than before a part would shrink: it stays as it is.
        if on_disk < size or (again and on_disk == size):
            return False
        self._written.add(number)
        self.progress.skipped += size
        return True

    async def _through(self, record: Record, part: _Part, place: int) -> None:
        try:
            ended = await self._stages_of(record, part, part.number * PART_RECORDS + place)
            if ended is None:
                self.progress.pending += 1
            else:
                part.lines[place] = encode(ended)
        except BaseException as error:  # whatever it is, it ends the run, in order: `run` raises it
            self._fail(error)
        part.ended += 1
        if part.ended == part.size:
            await self._settle(part)
        self._window.release()

    async def _stages_of(self, record: Record, part: _Part, rank: int) -> Record | None:
        """The record at its end; None if it waits for an answer."""
        progress = self.progress
        for name, stage in self._stages:
            if stage.only and record.prompt_set not in stage.only:
                continue
            progress.in_stage[name] += 1
            try:
                record = await stage(record, self._context.at(name, rank))
            except Pending:
                return None
            except CallFailed as failure:
                record = record.ended("failed", failure.reason, name).having(detail=str(failure))
            finally:
                progress.in_stage[name] -= 1
            if self._show_to is not None and record.responses and not self._show_to(record):
                self._show_to = None
            progress.through_stage[name] += 1
            part.through_stage[name] += 1
            if record.outcome is not None:
                break
        else:
            record = record.ended("ok")
        progress.records += 1
        if record.outcome is not None:
            progress.outcomes[record.outcome] += 1
        return record

    async def _settle(self, part: _Part) -> None:
        """All of the part's records ended: write it, unless some were let go."""
        try:
            if self._writing and len(part.lines) == part.size:
                lines = [part.lines[place] for place in range(part.size)]
                await asyncio.to_thread(self._folder.write_part, part.number, lines)
                self._written.add(part.number)
                self._records_written += part.size
            else:
                self.progress.through_stage.subtract(part.through_stage)  # the next pass counts them again
        except BaseException as error:
            self._fail(error)
        self._open_parts.release()

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self.stop()


def chunks(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    iterator = iter(records)
    while chunk := list(islice(iterator, size)):
        yield chunk
