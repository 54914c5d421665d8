"""What runs at a worker: parts through the stages, with models and a journal of its own. It needs no shared disk."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import msgspec

from rlaif.config import Settings, asked_roles, stages_of
from rlaif.constitution import Constitution
from rlaif.context import Context
from rlaif.errors import ConfigError, ProviderError, ProviderErrorKind, RlaifError, StoreError
from rlaif.journal import Journal, Traits
from rlaif.llm import Tally
from rlaif.models import open_models, with_fallbacks
from rlaif.preflight import preflight, question
from rlaif.process import rare_garbage_collection
from rlaif.runner import Progress, Runner
from rlaif.spool import Lookup, Spool, scratch_folder, send_orphans
from rlaif.stages import Stage
from rlaif.store import RunFolder
from rlaif.templates import Templates
from rlaif.types import Record
from rlaif.version import __version__

_SEND_EVERY_S = 0.5


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know; from the files of the run's machine only what cannot be there already."""

    settings: Settings
    window: int  # records under way, of each part
    constitution: Constitution
    run: str
    home: str  # names the runs' folder among those of all machines
    templates: str  # fingerprint
    identities: Mapping[str, str]  # by role
    keys: Mapping[str, str]  # environment variables
    settled: frozenset[int]
    retry_failed: bool
    allow_code: bool
    version: str = __version__


class Trouble(NamedTuple):
    """An error on its way home: exceptions with fields of their own cannot be pickled."""

    kind: str
    message: str
    provider_error: ProviderErrorKind | None = None

    @classmethod
    def of(cls, error: RlaifError) -> Trouble:
        return cls(type(error).__name__, str(error), error.kind if isinstance(error, ProviderError) else None)

    def error(self) -> RlaifError:
        if self.provider_error is not None:
            return ProviderError(self.provider_error, self.message)
        return ConfigError(self.message) if self.kind == "ConfigError" else StoreError(self.message)


class Met(NamedTuple):
    """What the first worker found out about the models, by their names."""

    traits: Mapping[str, Traits]
    notices: list[str]


class Ended(NamedTuple):
    """A part from a worker: its file's content, None if the run was stopped before it was whole."""

    content: bytes | None
    progress: Progress
    trouble: Trouble | None = None


class LaneReport(NamedTuple):
    in_flight: int
    limit: float
    refused: int
    broken: bool


class Report(NamedTuple):
    """A worker's counts: those of its open parts by their number, the others since it was born as `life`."""

    life: str
    open: Mapping[int, Progress]
    tallies: Mapping[tuple[str, str], Tally]
    lanes: Mapping[tuple[str, str], LaneReport]  # (model, lane)
    seconds: Mapping[str, list[float]]  # model -> latencies since the last report
    notices: list[str]


class Worker:
    """Takes parts through the stages, with models of its own. An actor; its methods run side by side in one loop."""

    def __init__(self, plan: Plan) -> None:
        import ray

        self._plan = plan
        self._home = ray.get_actor(plan.home)
        self._starting: asyncio.Task[None] | None = None
        self._runners: dict[int, Runner] = {}
        self._seconds: dict[str, list[float]] = {}
        self._notices: list[str] = []
        self._stopped = False
        self._held = ExitStack()

    async def meet(self) -> Met | Trouble:
        """Opens the models, and asks those that nobody has asked before what they can do."""
        try:
            await self._started()
        except RlaifError as error:
            return Trouble.of(error)
        return Met({llm.name: llm.traits for llm in self._llms}, self._news())

    async def part(self, number: int, records: Sequence[Record], fresh: bool) -> Ended:
        """The part made of `records`; not `fresh`: it was begun elsewhere, and some of its answers are at home."""
        runner: Runner | None = None
        try:
            await self._started()
            self._lookup.on |= not fresh
            folder = RunFolder(self._folder, f"part-{number}")
            folder.create()
            runner = self._runners[number] = Runner(folder, self._stages, self._context, window=self._plan.window)
            if self._stopped:
                runner.stop()
            await runner.run(records)
            whole = folder.part_size(0) == len(records)
            content = folder.part_path(0).read_bytes() if whole else None
            shutil.rmtree(folder.path)
            return Ended(content, runner.progress)
        except RlaifError as error:
            return Ended(None, runner.progress if runner else Progress(), Trouble.of(error))
        finally:
            self._runners.pop(number, None)

    async def report(self) -> Report:
        await self._started()
        seconds = self._seconds
        self._listen()
        lanes = {
            (llm.name, lane.name): LaneReport(
                lane.in_flight, lane.throttle.limit, lane.refused, lane.broken is not None
            )
            for llm in self._llms
            for lane in llm.lanes.all
        }
        progress = {number: runner.progress for number, runner in self._runners.items()}
        return Report(self._spool.name, progress, self._context.tallies, lanes, seconds, self._news())

    async def stop(self) -> None:
        self._stopped = True
        for runner in list(self._runners.values()):
            runner.stop()

    async def close(self) -> None:
        """Ends the calls in flight, and sends home what is not there yet."""
        if self._starting is None:
            return
        try:
            await self._started()
        except RlaifError:
            return  # that was said by its first part
        self._sending.cancel()
        await asyncio.gather(*(llm.close() for llm in self._llms))
        await self._journal.close()
        await self._spool.send_home()
        await self._spool.remove()
        shutil.rmtree(self._folder.parent, ignore_errors=True)

    async def _started(self) -> None:
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        plan = self._plan
        if plan.version != __version__:
            raise ConfigError(
                f"a worker has rlaif {__version__} and the run {plan.version}: install one version everywhere"
            )
        scratch = scratch_folder(plan.home)
        await send_orphans(scratch, self._home)
        self._spool = Spool(scratch, self._home)
        self._journal = Journal(self._spool.path)
        for identity, name, traits in await self._home.models.remote():
            row = self._journal.model(identity, name)
            if traits is not None:
                self._journal.set_traits(row, msgspec.json.decode(traits, type=Traits))
        self._folder = scratch / self._spool.name / plan.run
        self._folder.mkdir(parents=True)
        self._context, self._stages = self._opened()
        self._llms = list({id(llm): llm for llm in self._context.models.values()}.values())
        self._lookup = Lookup(self._home)
        self._lookup.on = await self._home.knows_any.remote([llm.identity for llm in self._llms])
        for llm in self._llms:
            llm.elsewhere = self._lookup
            llm.traits = await preflight(llm, self._context.at("preflight").tally(llm))
            llm.probe_with(question(llm, llm.traits), partial(self._context.at("probe").tally, llm))
        self._listen()
        await self._spool.send_home()
        self._sending = asyncio.create_task(self._send_now_and_then())
        self._held.enter_context(rare_garbage_collection())

    def _opened(self) -> tuple[Context, list[tuple[str, Stage]]]:
        plan, settings = self._plan, self._plan.settings
        templates = Templates(settings.templates, plan.constitution.language)
        if templates.fingerprint != plan.templates:
            raise ConfigError("templates: a worker has other ones under the same paths: copy them to every machine")
        stages = stages_of(settings, allow_code=plan.allow_code)
        models = open_models(
            with_fallbacks({role: settings.models[role] for role in asked_roles(stages)}),
            self._journal,
            {**os.environ, **plan.keys},
            self._folder,
            retry_failed=plan.retry_failed,
            notices=self._notices,
            one_engine_at_a_time=False,
        )
        for role, llm in models.items():
            if llm.identity != plan.identities[role]:
                raise ConfigError(
                    f"models.{role}: a worker has {llm.identity} where the run has {plan.identities[role]}: "
                    "copy the same files to every machine"
                )
        return Context(models, plan.constitution, templates, settings.seed, settled=plan.settled), stages

    async def _send_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_SEND_EVERY_S)
            with suppress(Exception):  # a journal that is away for a moment: the rows wait, and are asked for again
                await self._spool.send_home()

    def _listen(self) -> None:
        """What requests take, from now until the next report."""
        self._seconds = {llm.name: [] for llm in self._llms}
        for llm in self._llms:
            llm.observe = self._seconds[llm.name].append

    def _news(self) -> list[str]:
        news = list(self._notices)
        self._notices.clear()
        return news
