"""One job, from checked settings to the dataset: models met, prompts through the stages, pairs exported."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlaif.budget import BATCH, Budget, Limits
from rlaif.config import Settings, asked_roles, meaning, stages_of
from rlaif.constitution import load_constitution
from rlaif.context import Context
from rlaif.errors import ConfigError, Pending
from rlaif.estimate import Measured, foreseen
from rlaif.job.ended import Result, finished, invocation
from rlaif.job.models import check_models, close_models, meet, planned_calls, records_at_once, voters
from rlaif.job.sampled import extrapolated
from rlaif.job.under_way import Job, Observer, Status, cost_of
from rlaif.journal import Charge, Journal
from rlaif.models import open_models, with_fallbacks
from rlaif.plan import check_draws, check_export, check_responses, check_roles, check_weights
from rlaif.preflight import question
from rlaif.prices import Prices, load_prices
from rlaif.process import rare_garbage_collection, run_in_loop, stopped_by_signals
from rlaif.runner import Runner
from rlaif.runs import check_meaning, write_settings
from rlaif.source import PromptReader
from rlaif.stages import Stage
from rlaif.stages.revise import Revise
from rlaif.store import RunFolder, RunLock, write_whole
from rlaif.summary import Drafts, Funnel, enough_drafts, of_run, refusing
from rlaif.templates import Templates
from rlaif.types import Record

if TYPE_CHECKING:
    from rlaif.distributed import RayRunner

Executor = Literal["local", "ray"]


def run(
    settings: Settings,
    folder: RunFolder,
    *,
    dry_run: bool = False,
    rebuild: bool | frozenset[int] = False,
    settled: frozenset[int] | None = None,
    allow_code: bool,
    executor: Executor = "local",
    environment: Mapping[str, str],
    observer: Observer | None,
    limited_for_local: bool = False,
    limits: Limits | None = None,
    sample: int | None = None,
) -> Result:
    """`sample`: go through so many records only, and estimate the others.

    `settled`: ask again for the calls that failed, but for those of these records, by their ranks.
    """
    everything = 0 if sample is None else sum(1 for _ in PromptReader(settings.prompts, settings.limit))
    if sample is not None:
        settings = settings.model_copy(update={"limit": min(sample, everything)})
    prices = load_prices(Path(settings.prices) if settings.prices else None)
    stages = stages_of(settings, allow_code=allow_code)
    constitution = load_constitution(settings.constitution)
    templates = Templates(settings.templates, constitution.language)
    reader = PromptReader(settings.prompts, settings.limit)
    check_responses(stages, settings.prompts)
    check_export(settings.export, stages)
    check_roles(settings, stages)
    check_draws(stages, constitution)
    job = Job(settings, folder, _count(reader), limited_for_local=limited_for_local, notices=folder.notices)
    if not constitution.language.lower().startswith(templates.language):
        job.notices.append(f"no templates in '{constitution.language}': every turn around the texts is English")
    now = meaning(settings, stages, constitution, templates)
    check_meaning(folder, now)
    job.new = not folder.settings.is_file()
    job.revised = any(isinstance(stage, Revise) for _, stage in stages)

    def begin() -> None:
        if not dry_run:
            write_settings(folder, settings, now)
            write_whole(folder.constitution, constitution.model_dump_json(indent=2).encode())

    with contextlib.ExitStack() as held:
        if not dry_run:
            folder.create()
            held.enter_context(RunLock(folder))
            folder.sweep()
        status = run_in_loop(
            _records(
                job,
                Context({}, constitution, templates, settings.seed, settled=settled or frozenset()),
                stages,
                reader,
                prices,
                limits,
                sending=not dry_run,
                rebuild=rebuild,
                retry_failed=settled is not None,
                allow_code=allow_code,
                executor="local" if dry_run else executor,
                environment=dict(environment),
                observer=observer or _unobserved,
                # Not before the models have answered: a start that fails does not use up the run's name.
                begin=begin,
            )
        )
        if dry_run:
            content = invocation(job, status) | of_run(Funnel(), reader.duplicates, None)
            return Result(folder.name, folder.path, status, content, estimate=job.estimate)
        job.ledger = run_in_loop(_ledger(folder))
        if sample is not None and status == "done":
            job.estimate = extrapolated(job, [name for name, _ in stages], everything)
        return finished(job, now, status, reader.duplicates)


async def _records(
    job: Job,
    context: Context,
    stages: Sequence[tuple[str, Stage]],
    reader: PromptReader,
    prices: tuple[Prices, ...],
    limits: Limits | None,
    *,
    sending: bool,
    rebuild: bool | frozenset[int],
    retry_failed: bool,
    allow_code: bool,
    executor: Executor,
    environment: dict[str, str],
    observer: Observer,
    begin: Callable[[], None],
) -> Status:
    """All calls of the job: models opened and asked, parts written, models closed."""
    async with Journal(job.folder.path.parent / "calls.sqlite", read_only=not sending) as journal:
        settings = job.settings
        budget = job.budget = Budget(**asdict(limits)) if limits else None
        models = open_models(
            with_fallbacks({role: settings.models[role] for role in asked_roles(stages)}),
            journal,
            environment,
            job.folder.path,
            sending=sending,
            retry_failed=retry_failed,
            notices=job.notices,
            one_engine_at_a_time=settings.one_engine_at_a_time and sending,
            prices=prices,
            budget=budget,
        )
        check_weights(settings.export, stages, {role: llm.name for role, llm in models.items()})
        of_batches = {llm.name: llm.price and llm.price.in_batch for llm in models.values()}
        job.bills = {llm.name: llm.price for llm in models.values()}
        job.prices = {llm.name: of_batches[llm.name] if llm.batch else llm.price for llm in models.values()}
        job.bills |= {name + BATCH: price for name, price in of_batches.items()}
        if budget is not None:
            spent = {charge: job.bills.get(charge.model) for charge in journal.ledger(job.folder.name)}
            budget.check_prices({**job.prices, **{charge.model: price for charge, price in spent.items()}})
            budget.carry(
                sum(cost_of(price, charge) for charge, price in spent.items() if price is not None),
                sum(charge.sent for charge in spent),
            )
        if not sending:
            await check_models(models.values())
        context = replace(context, models=models)
        job.calls_per_record = planned_calls(context, stages, settings)
        job.asked = list({id(llm): llm for llm in models.values()}.values())
        job.models = len(job.asked)
        window = records_at_once(settings, models.values())
        fleet: RayRunner | None = None
        runner: Runner
        if executor == "ray":
            from rlaif.distributed import RayRunner

            if (limits and (limits.max_cost_usd, limits.max_calls) != (None, None)) or any(m.batch for m in job.asked):
                raise ConfigError(
                    "--executor ray: costs, calls and batches are kept in one process: leave out --max-cost, "
                    "--max-calls and --batch, or run without Ray"
                )
            runner = fleet = RayRunner(
                job.folder,
                stages,
                context,
                settings=settings,
                window=window,
                environment=environment,
                say=job.notices.append,
                rebuild=rebuild,
                retry_failed=retry_failed,
                allow_code=allow_code,
            )
        else:
            show_to = _refusals(job) if sending and (job.revised or settings.export.pairs) else None
            runner = Runner(
                job.folder, stages, context, window=window, rebuild=rebuild, writing=sending, show_to=show_to
            )
        job.at_once = min(window, sum(lane.most for llm in models.values() for lane in llm.lanes.all))
        job.progress, job.tallies = runner.progress, context.tallies
        prompts = reader if sending else Measured(reader)

        def interrupted() -> None:
            runner.stop()
            job.draining = True

        try:
            with stopped_by_signals(interrupted), rare_garbage_collection(), _kept(budget, runner.stop), observer(job):
                try:
                    # The first to be asked in the run comes last here: of engines that take turns it is then loaded.
                    met = await fleet.meet() if fleet is not None else {}
                    for llm in reversed(job.asked):
                        llm.traits = met.get(llm.name) or await meet(llm, context.at("preflight").tally(llm))
                        llm.probe_with(question(llm, llm.traits), partial(context.at("probe").tally, llm))
                except Pending:  # Ctrl-C before the run began: its name is still free
                    return _ended(budget, runner)
                job.calls_per_record = planned_calls(context, stages, settings)
                begin()
                begun = time.monotonic()
                await runner.run(prompts)
                job.draining = False
                job.took_s = time.monotonic() - begun
            if isinstance(prompts, Measured):
                without = voters(context, settings)
                job.estimate = foreseen(context, stages, without, prompts.sets, runner.progress.pending)
        finally:
            if fleet is not None:
                await fleet.close()
            await close_models(models.values())
    return _ended(budget, runner) if sending else "dry_run"


def _refusals(job: Job) -> Callable[[Record], bool]:
    """Looks at the first drafts there are, and warns once if most of them refuse."""
    drafts, enough = Drafts(), enough_drafts(job.total)

    def look(record: Record) -> bool:
        drafts.read(record)
        if drafts.n < enough:
            return True
        if warning := refusing(drafts.n, drafts.refusals, job.revised):
            job.warning = f"{warning}; Ctrl-C ends the run and keeps what was answered"
            job.notices.append(job.warning)
        return False

    return look


def _ended(budget: Budget | None, runner: Runner) -> Status:
    if budget is not None and budget.exhausted is not None:
        return "stopped"
    return "interrupted" if runner.stopping else "done"


@contextlib.contextmanager
def _kept(budget: Budget | None, stop: Callable[[], None]) -> Iterator[None]:
    """The run stops when the budget is used up, or its time."""
    if budget is None:
        yield
        return
    budget.when_exhausted = stop
    watching = asyncio.get_running_loop().create_task(budget.watch())
    try:
        yield
    finally:
        watching.cancel()


@contextlib.contextmanager
def _unobserved(job: Job) -> Iterator[None]:
    yield


async def _ledger(folder: RunFolder) -> list[Charge]:
    async with Journal(folder.path.parent / "calls.sqlite", read_only=True) as journal:
        return journal.ledger(folder.name)


def _count(reader: PromptReader) -> int | None:
    """How many prompts there are; None where counting would mean reading a large set twice."""
    return reader.limit if reader.large else sum(1 for _ in reader)
