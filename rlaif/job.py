"""One job, from checked settings to the dataset: models met, prompts through the stages, pairs exported."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlaif.budget import BATCH, Budget, Limits
from rlaif.config import Settings, asked_roles, meaning, stages_of
from rlaif.constitution import load_constitution
from rlaif.context import Context
from rlaif.errors import ConfigError, Pending
from rlaif.estimate import Estimate, Measured, foreseen, from_sample
from rlaif.journal import Charge, Journal, Traits
from rlaif.llm import LLM, Tally
from rlaif.models import open_models, with_fallbacks
from rlaif.plan import calls_per_record, check_draws, check_export, check_responses, check_roles, check_weights
from rlaif.preflight import preflight, question
from rlaif.prices import Price, Prices, cost_usd, load_prices, updated
from rlaif.process import rare_garbage_collection, run_in_loop, stopped_by_signals
from rlaif.runner import Progress, Runner
from rlaif.runs import (
    check_meaning,
    export_records,
    read_summary,
    write_settings,
    write_summary,
)
from rlaif.source import PromptReader
from rlaif.stages import Stage
from rlaif.stages.revise import Revise
from rlaif.store import RunFolder, RunLock, write_whole
from rlaif.summary import (
    Drafts,
    Funnel,
    enough_drafts,
    funnel_of,
    of_invocation,
    of_ledger,
    of_run,
    refusing,
    reused,
)
from rlaif.templates import Templates
from rlaif.types import Record

if TYPE_CHECKING:
    from rlaif.distributed import RayRunner
    from rlaif.export import Example

# Of the window: a record under way takes some kilobytes.
_NARROWEST, _WIDEST = 256, 8192
Status = Literal["done", "stopped", "interrupted", "dry_run"]
Executor = Literal["local", "ray"]


@dataclass(slots=True)
class Job:
    """A run under way, as an observer sees it."""

    settings: Settings
    folder: RunFolder
    total: int | None  # prompts, if known
    calls_per_record: int = 0  # at most
    models: int = 0  # each is asked once before the run
    limited_for_local: bool = False
    progress: Progress = field(default_factory=Progress)
    tallies: Mapping[tuple[str, str], Tally] = field(default_factory=dict)
    asked: Sequence[LLM] = ()
    notices: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    prices: Mapping[str, Price | None] = field(default_factory=dict)  # by the models' names
    bills: Mapping[str, Price | None] = field(default_factory=dict)  # by their names in the ledger
    budget: Budget | None = None
    ledger: Sequence[Charge] = ()  # of all invocations; when this one has ended
    took_s: float = 0.0  # without the models' start
    at_once: int = 0  # records
    estimate: Estimate | None = None
    new: bool = True  # this is its first invocation
    revised: bool = False  # its drafts are
    warning: str = ""  # what may be a reason to stop before the bill grows

    def cost_usd(self, model: str, counts: Tally | Charge) -> float | None:
        """None where the price is not known."""
        price = (self.prices if isinstance(counts, Tally) else self.bills).get(model)
        if not counts.prompt_tokens + counts.completion_tokens:
            return 0.0 if counts.sent == counts.failed or price is not None else None  # nothing was answered
        return None if price is None else _cost_usd(price, counts)


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended; `summary` is what summary.json holds, `example` one pair's texts.

    `estimate` is what a dry run or a sample says of the calls to come.
    """

    run: str
    folder: Path
    status: Status
    summary: dict[str, Any]  # Any: plain JSON
    example: Example | None = None
    estimate: Estimate | None = None

    @property
    def failed(self) -> int:
        """Records that failed; `retry` asks again for what they lack."""
        count: int = self.summary["outcomes"].get("failed", 0)
        return count

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"


Observer = Callable[[Job], contextlib.AbstractContextManager[object]]


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
            content = _invocation(job, status) | of_run(Funnel(), reader.duplicates, None)
            return Result(folder.name, folder.path, status, content, estimate=job.estimate)
        job.ledger = run_in_loop(_ledger(folder))
        if sample is not None and status == "done":
            job.estimate = _from_sample(job, [name for name, _ in stages], everything)
        return _finished(job, now, status, reader.duplicates)


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
                sum(_cost_usd(price, charge) for charge, price in spent.items() if price is not None),
                sum(charge.sent for charge in spent),
            )
        if not sending:
            await _check_models(models.values())
        context = replace(context, models=models)
        job.calls_per_record = _planned(context, stages, settings)
        job.asked = list({id(llm): llm for llm in models.values()}.values())
        job.models = len(job.asked)
        window = _window(settings, models.values())
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
            show_to = _refusals(job) if sending else None
            runner = Runner(
                job.folder, stages, context, window=window, rebuild=rebuild, writing=sending, show_to=show_to
            )
        job.at_once = min(window, sum(lane.most for llm in models.values() for lane in llm.lanes.all))
        job.progress, job.tallies = runner.progress, context.tallies
        prompts = reader if sending else Measured(reader)
        try:
            with stopped_by_signals(runner.stop), rare_garbage_collection(), _kept(budget, runner.stop), observer(job):
                try:
                    # The first to be asked in the run comes last here: of engines that take turns it is then loaded.
                    met = await fleet.meet() if fleet is not None else {}
                    for llm in reversed(job.asked):
                        llm.traits = met.get(llm.name) or await _met(llm, context.at("preflight").tally(llm))
                        llm.probe_with(question(llm, llm.traits), partial(context.at("probe").tally, llm))
                except Pending:  # Ctrl-C before the run began: its name is still free
                    return _ended(budget, runner)
                job.calls_per_record = _planned(context, stages, settings)
                begin()
                begun = time.monotonic()
                await runner.run(prompts)
                job.took_s = time.monotonic() - begun
            if isinstance(prompts, Measured):
                voters = _voters(context, settings)
                job.estimate = foreseen(context, stages, voters, prompts.sets, runner.progress.pending)
        finally:
            if fleet is not None:
                await fleet.close()
            await _close(models.values())
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


def _cost_usd(price: Price, counts: Tally | Charge) -> float:
    tokens = counts.prompt_tokens, counts.cached_tokens, counts.completion_tokens, counts.written_tokens
    return cost_usd(price, *tokens)


async def _ledger(folder: RunFolder) -> list[Charge]:
    async with Journal(folder.path.parent / "calls.sqlite", read_only=True) as journal:
        return journal.ledger(folder.name)


def _from_sample(job: Job, stages: Sequence[str], everything: int) -> Estimate:
    """For the records after those that ran, by what these took in this invocation, or else in the ones before it.

    What the ledger has beyond these was asked for others of the run, and need not be asked again.
    """
    whole: dict[tuple[str, str], Tally] = {}
    for charge in job.ledger:
        key = charge.stage, charge.model.removesuffix(BATCH)
        counts = Tally(charge.sent, 0, charge.failed, prompt_tokens=charge.prompt_tokens)
        counts.cached_tokens, counts.completion_tokens = charge.cached_tokens, charge.completion_tokens
        counts.written_tokens = charge.written_tokens
        whole[key] = whole.get(key, Tally()) + counts
    ran = max(1, job.progress.records + job.progress.skipped)
    tallies, known = {}, {}
    for key, tally in whole.items():
        if key[0] not in stages:
            continue
        of_these = job.tallies.get(key, Tally())
        answered = of_these.sent - of_these.retried - of_these.failed
        needed = answered + of_these.from_journal
        others = tally.sent - tally.failed - needed
        if job.progress.skipped:  # parts that were not looked at: their calls are in the ledger only
            tallies[key], ran = tally, max(ran, job.folder.size())
        elif needed:
            known[key] = max(0, others)
            tallies[key] = of_these if answered > 0 else _as_many(tally, needed)
    tallies = {key: tallies[key] for name in stages for key in tallies if key[0] == name}
    now = sum(job.tallies.values(), start=Tally())
    prices = {model: job.prices.get(model) for _, model in tallies}
    wall_s = job.took_s * (1 + now.from_journal / now.sent) if now.sent else 0.0
    left = max(0, everything - ran)
    found = from_sample(tallies, prices, ran, left, wall_s, job.at_once, known=known)
    measured = {name for name, _ in tallies}
    unmeasured = tuple(dict.fromkeys(name for name, _ in job.tallies if name in stages and name not in measured))
    time_s = found.time_s if wall_s and not job.progress.skipped else None
    return replace(found, time_s=time_s, records=left, unmeasured=unmeasured)


def _as_many(tally: Tally, calls: int) -> Tally:
    """What so many of its answered calls came to, on average."""
    share = calls / max(1, tally.sent - tally.failed)
    tokens = tally.prompt_tokens, tally.completion_tokens, tally.cached_tokens, tally.written_tokens
    prompt, completion, cached, written = (round(count * share) for count in tokens)
    counts = Tally(sent=calls, prompt_tokens=prompt, completion_tokens=completion)
    counts.cached_tokens, counts.written_tokens = cached, written
    return counts


def _window(settings: Settings, models: Iterable[LLM]) -> int:
    """Records under way: enough for every model to be full, though most records wait for another one."""
    places = sum(lane.most for llm in models for lane in llm.lanes.all)
    return settings.window or min(_WIDEST, max(_NARROWEST, 2 * places))


async def _check_models(models: Iterable[LLM]) -> None:
    """Keys and packages, which only opening finds out; nothing is started or sent."""
    for llm in models:
        for lane in llm.lanes.all:
            await lane.open_backend().close()


async def _close(models: Iterable[LLM]) -> None:
    """All of them, whatever one raises."""
    ends = await asyncio.gather(*(llm.close() for llm in models), return_exceptions=True)
    for error in ends:
        if isinstance(error, BaseException):
            raise error


def _planned(context: Context, stages: Sequence[tuple[str, Stage]], settings: Settings) -> int:
    """Calls of a record at most."""
    given = max(len(one.responses) for one in settings.prompts)
    return calls_per_record(stages, len(context.constitution.principles), _voters(context, settings), given)


def _voters(context: Context, settings: Settings) -> set[str]:
    """The roles of models without log-probabilities, as far as it is known yet."""
    specs = with_fallbacks(settings.models)
    known = {role: llm.known_traits() for role, llm in context.models.items()}
    return {
        role
        for role, traits in known.items()
        if (traits is None and specs[role].provider == "anthropic") or (traits and not traits.top_logprobs)
    }


async def _met(llm: LLM, tally: Tally) -> Traits:
    """What the model can do; where another engine has its turn, that one ends here. Raises as `preflight` does."""
    try:
        return await preflight(llm, tally)
    except Pending:
        if not await llm.settle():
            raise
    return await preflight(llm, tally)


@contextlib.contextmanager
def _unobserved(job: Job) -> Iterator[None]:
    yield


def _count(reader: PromptReader) -> int | None:
    """How many prompts there are; None where counting would mean reading a large set twice."""
    return reader.limit if reader.large else sum(1 for _ in reader)


def _finished(job: Job, meaning: dict[str, Any], status: Status, duplicates: int) -> Result:
    """summary.json is written first without the dataset, in case that cannot be made."""
    folder = job.folder
    funnel = funnel_of(folder.records())
    last = _invocation(job, status) | {"ledger": of_ledger(job.ledger, job.cost_usd)}
    last["reused"] = _reused(job)
    content = last | of_run(funnel, duplicates, None)
    write_summary(folder, content)
    exported = export_records(folder, job.settings, meaning) if funnel.records else None
    if exported is not None:
        content = last | of_run(funnel, duplicates, exported.plain(), exported.principles)
        write_summary(folder, content)
    example = None if exported is None else exported.example
    return Result(folder.name, folder.path, status, content, example, job.estimate)


def _reused(job: Job) -> dict[str, int] | None:
    """None where it is not known: of records that were not looked at again, only an earlier summary says it."""
    if job.progress.skipped:
        return read_summary(job.folder).get("reused")
    return reused(job.tallies, () if job.new else job.ledger)


def _invocation(job: Job, status: Status) -> dict[str, Any]:
    content = of_invocation(job.tallies, status, time.monotonic() - job.started, job.cost_usd)
    if job.budget is not None:
        content["stopped_by"] = job.budget.exhausted
    if job.estimate is not None:
        content["estimate"] = job.estimate.plain()
    known = {name: None if price is None else price.model_dump() for name, price in job.prices.items()}
    return content | {"prices": {"file": job.settings.prices, "updated": updated(), "usd_per_million": known}}
