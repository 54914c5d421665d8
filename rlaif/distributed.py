"""Parts over Ray actors: handed out, written as they come back, and handed out again where a worker is lost."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from hashlib import blake2b
from typing import Any

from rlaif.backends import ENGINES, ModelSpec
from rlaif.config import RayCluster, Settings
from rlaif.context import Context
from rlaif.errors import ConfigError, Pending, ProviderError, StoreError
from rlaif.journal import Traits
from rlaif.llm import LLM, Tally
from rlaif.models import with_fallbacks
from rlaif.runner import Progress, Runner, chunks
from rlaif.spool import Home
from rlaif.stages import Stage
from rlaif.store import PART_RECORDS, RunFolder, write_whole
from rlaif.types import Record
from rlaif.worker import Ended, Met, Plan, Report, Trouble, Worker

# While the stragglers of one part are waited for, the records of the next one keep the models busy.
_PARTS_AT_ONCE = 2
_REPORT_EVERY_S, _REPORT_S = 0.5, 3.0
# So many times in a row, without a finished part in between: it is not the machine, it is what we do there.
_LOST_IN_A_ROW = 5
_LOST_FOR_GOOD_S = 60.0


class RayRunner(Runner):
    """A Runner whose parts are made by workers on a Ray cluster. `close` it.

    It asks no model itself: `meet` lets the first worker do it, for it is from there that they must be reached.
    """

    def __init__(
        self,
        folder: RunFolder,
        stages: Sequence[tuple[str, Stage]],
        context: Context,
        *,
        settings: Settings,
        window: int,
        environment: Mapping[str, str],
        say: Callable[[str], None],
        rebuild: bool | frozenset[int] = False,
        retry_failed: bool = False,
        allow_code: bool = False,
    ) -> None:
        super().__init__(folder, stages, context, window=window, rebuild=rebuild)
        specs = with_fallbacks(settings.models)
        engines = {llm.identity for role, llm in context.models.items() if specs[role].provider in ENGINES}
        if len(engines) > 1 and settings.one_engine_at_a_time:
            raise ConfigError(
                "--executor ray: a worker loads every model once and keeps it; these would take turns in its memory: "
                "serve them and give their addresses, or set one_engine_at_a_time=false"
            )
        self._cluster: RayCluster = settings.ray
        runs = folder.path.parent.resolve()
        self._journal_path = runs / "calls.sqlite"
        self._plan = Plan(
            settings,
            window,
            context.constitution,
            folder.name,
            blake2b(f"{socket.gethostname()}:{runs}".encode(), digest_size=8).hexdigest(),
            context.templates.fingerprint,
            {role: llm.identity for role, llm in context.models.items()},
            _keys(specs.values(), environment),
            context.settled,
            retry_failed,
            allow_code,
        )
        self._say = say
        self._home: Any = None  # Any: actor handles
        self._workers: list[Any] = []
        self._again: deque[tuple[int, list[Record]]] = deque()  # parts of lost workers
        self._begun: set[int] = set()
        self._open: dict[int, Progress] = {}
        self._ended = Progress()
        self._reports: dict[str, Report] = {}  # the last one of every worker's every life
        self._connected = False
        self._held = ExitStack()
        self._changed = asyncio.Condition()
        self._over = asyncio.Event()
        self._up: set[int] = set()  # places of workers that have begun; others may wait for room for ever

    async def meet(self) -> Mapping[str, Traits]:
        """What the models can do, by their names. Connects to the cluster and starts the first worker, which asks them.

        Raises as `preflight` does, and Pending where the run was stopped meanwhile.
        """
        ray = _ray(self._cluster)
        # Ray prints to the standard output when a worker dies, and that belongs to the command's result.
        self._held.enter_context(redirect_stdout(sys.stderr))
        self._connected = _connect(ray, self._cluster)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        home = ray.remote(Home).options(
            name=self._plan.home, num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
        )
        there = ray.cluster_resources()
        if there.get("CPU", 0) < self._cluster.cpus or there.get("GPU", 0) < self._cluster.gpus:
            raise ConfigError(
                f"ray.cpus={self._cluster.cpus:g}, ray.gpus={self._cluster.gpus:g}: no worker fits on this cluster of "
                f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
            )
        self._home = home.remote(self._journal_path)
        self._actor = ray.remote(Worker).options(
            num_cpus=self._cluster.cpus, num_gpus=self._cluster.gpus, max_restarts=-1, max_concurrency=1000
        )
        self._workers = [self._actor.remote(self._plan)]
        # A worker that is lost meanwhile begins anew, there or elsewhere.
        asking = self._workers[0].meet.options(max_task_retries=_LOST_IN_A_ROW)
        met: Met | Trouble = await asking.remote()
        self._up.add(0)
        if isinstance(met, Trouble):
            raise met.error()
        if self.stopping:
            raise Pending
        for notice in met.notices:
            self._say(notice)
        return met.traits

    async def run(self, prompts: Iterable[Record]) -> None:
        """Every part that is not finished, by whichever worker is free. Raises the first fatal error."""
        self.progress.passes = 1
        more = self._cluster.workers - len(self._workers)
        self._workers += [self._actor.remote(self._plan) for _ in range(more)]
        self._todo = self._unfinished(prompts)
        watching = asyncio.create_task(self._watch())
        tasks = [self._serve(place) for place in range(len(self._workers)) for _ in range(_PARTS_AT_ONCE)]
        await asyncio.gather(*tasks)
        watching.cancel()
        await self._look()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        super().stop()
        for worker in self._workers:
            worker.stop.remote()

    async def close(self) -> None:
        """The last answers come home, and the workers go. A cluster that we started goes too."""
        with self._held:
            begun = [self._workers[place].close.remote() for place in sorted(self._up)]
            for error in await asyncio.gather(*begun, return_exceptions=True):
                if error is not None:
                    self._say(f"the last answers of a worker may not be home, and would be asked for again: {error}")
            for actor in (*self._workers, *([self._home] if self._home else [])):
                _ray(self._cluster).kill(actor)
            if self._connected:
                _ray(self._cluster).shutdown()

    def _unfinished(self, prompts: Iterable[Record]) -> Iterator[tuple[int, list[Record]]]:
        for number, records in enumerate(chunks(prompts, PART_RECORDS)):
            if not self._is_finished(number, len(records)):
                yield number, records

    async def _next(self) -> tuple[int, list[Record]] | None:
        """A part to be made; waits while one under way may yet be lost and come back."""
        async with self._changed:
            while not self.stopping:
                part = self._again.popleft() if self._again else next(self._todo, None)
                if part is not None:
                    self._open[part[0]] = Progress()
                    return part
                if not self._open:
                    break
                await self._changed.wait()
        return None

    async def _serve(self, place: int) -> None:
        import ray.exceptions

        lost = 0
        try:
            if not await self._started(place):
                return
            while (part := await self._next()) is not None:
                number, records = part
                fresh = number not in self._begun
                self._begun.add(number)
                try:
                    self._end(number, len(records), await self._workers[place].part.remote(number, records, fresh))
                    lost = 0
                except ray.exceptions.RayActorError as error:
                    lost += 1
                    if lost == _LOST_IN_A_ROW:
                        raise StoreError(
                            f"a Ray worker was lost {lost} times in a row, last on part {number}: {error}"
                        ) from error
                    self._open[number] = Progress()
                    await self._back(place)
                    self._again.append(part)
                    self._open.pop(number, None)
                async with self._changed:
                    self._changed.notify_all()
        except BaseException as error:  # whatever it is, the others end in order: `run` raises it
            self._fail(error)
        self._over.set()
        async with self._changed:
            self._changed.notify_all()

    async def _started(self, place: int) -> bool:
        """False where the others had done everything before there was room on the cluster for this one."""
        up = asyncio.ensure_future(self._workers[place].meet.remote())
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait({up, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if not up.done():
            up.cancel()
            return False
        if up.exception() is None:  # else its first part says what is wrong
            self._up.add(place)
        return True

    async def _back(self, place: int) -> None:
        """Waits for a lost worker: what it had answered is in a file of its machine, and comes home when it starts.

        A machine that stays away is not waited for longer than what it answered last is worth.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOST_FOR_GOOD_S):
                while not self.stopping:
                    try:
                        await self._workers[place].meet.remote()
                        self._up.add(place)
                        return
                    except Exception:  # Ray has several words for an actor that is not there
                        await asyncio.sleep(0.5)

    def _end(self, number: int, size: int, ended: Ended) -> None:
        self._open.pop(number, None)
        self._ended = _sum((self._ended, ended.progress))
        if ended.trouble is not None:
            raise ended.trouble.error()
        if ended.content is not None:
            write_whole(self._folder.part_path(number), ended.content)
            self._written.add(number)
        elif not self.stopping:
            raise ConfigError(
                f"part {number} waits for answers that come later, and nobody takes them there: batches need "
                "--executor local"
            )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            await self._look()

    async def _look(self) -> None:
        """The counts of all workers as they are now, into what observers see."""
        found = await asyncio.gather(
            *(asyncio.wait_for(self._workers[place].report.remote(), _REPORT_S) for place in sorted(self._up)),
            return_exceptions=True,
        )
        reports = [report for report in found if isinstance(report, Report)]
        for report in reports:
            self._reports[report.life] = report
            for notice in report.notices:
                self._say(notice)
            self._open.update({number: p for number, p in report.open.items() if number in self._open})
        tallies = [report.tallies for report in self._reports.values()]
        for key in {key for one in tallies for key in one}:
            self._context.tallies[key] = sum((one[key] for one in tallies if key in one), start=Tally())
        for llm in self._models:
            self._show(llm, reports)
        shown = _sum((self._ended, *self._open.values()))
        for name in ("records", "outcomes", "in_stage", "through_stage"):
            setattr(self.progress, name, getattr(shown, name))

    def _show(self, llm: LLM, reports: Sequence[Report]) -> None:
        """The lanes here send nothing: they show what those of all workers do."""
        for lane in llm.lanes.all:
            now = [report.lanes[llm.name, lane.name] for report in reports]
            lane.in_flight = sum(one.in_flight for one in now)
            lane.throttle.limit = sum(one.limit for one in now)
            lane.broken = ProviderError("server", lane.name) if any(one.broken for one in now) else None
            lane.refused = sum(report.lanes[llm.name, lane.name].refused for report in self._reports.values())
        for seconds in (report.seconds.get(llm.name, ()) for report in reports):
            for one in seconds:
                if llm.observe is not None:
                    llm.observe(one)


def _sum(parts: Iterable[Progress]) -> Progress:
    total = Progress()
    for part in parts:
        total.records += part.records
        total.outcomes.update(part.outcomes)
        total.in_stage.update(part.in_stage)
        total.through_stage.update(part.through_stage)
    return total


def _keys(specs: Iterable[ModelSpec], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that the models name, and no other: what is sent may be read by all on the cluster."""
    named = {"OPENAI_API_KEY", "ANTHROPIC_API_KEY"}
    for spec in specs:
        named |= {name for name in spec.key_names if name}
        named |= {value[1:] for value in spec.headers.values() if value.startswith("$")}
    return {name: environment[name] for name in sorted(named) if name in environment}


def _ray(cluster: RayCluster) -> Any:  # Any: the module
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if cluster.address == "local":
        # Read at the import: a cluster of this machine alone then listens on the loopback, not on every address.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ConfigError("--executor ray needs Ray: pip install 'rlaif-kit[ray]'") from error
    return ray


def _connect(ray: Any, cluster: RayCluster) -> bool:  # Any: the module
    """True if it was done here, and is ours to undo."""
    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": None}
    if cluster.address == "local":
        quiet |= {"include_dashboard": False, "num_cpus": max(1, round(cluster.workers * cluster.cpus))}
    try:
        ray.init(address=cluster.address, **{name: value for name, value in quiet.items() if value is not None})
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"ray.address={cluster.address}: {error}") from error
    return True
