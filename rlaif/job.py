"""One job, from checked settings to the dataset: models met, prompts through the stages, pairs exported."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlaif.config import Settings, asked_roles, meaning, stages_of
from rlaif.constitution import load_constitution
from rlaif.context import Context
from rlaif.errors import Pending
from rlaif.journal import Journal, Traits
from rlaif.llm import LLM, Tally
from rlaif.models import open_models, with_fallbacks
from rlaif.plan import calls_per_record, check_draws, check_export, check_responses, check_roles
from rlaif.preflight import preflight, question
from rlaif.process import rare_garbage_collection, run_in_loop, stopped_by_signals
from rlaif.runner import Progress, Runner
from rlaif.runs import (
    check_meaning,
    dataset_counts,
    export_records,
    write_settings,
    write_summary,
)
from rlaif.source import PromptReader
from rlaif.stages import Stage
from rlaif.store import RunFolder, RunLock
from rlaif.summary import Funnel, funnel_of, of_invocation, of_run
from rlaif.templates import Templates

if TYPE_CHECKING:
    from rlaif.export import Example

# Of the window: a record under way takes some kilobytes.
_NARROWEST, _WIDEST = 256, 8192
Status = Literal["done", "interrupted", "dry_run"]


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
    notices: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended; `summary` is what summary.json holds, `example` one pair's texts."""

    run: str
    folder: Path
    status: Status
    summary: dict[str, Any]  # Any: plain JSON
    example: Example | None = None

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
    retry_failed: bool = False,
    allow_code: bool,
    environment: Mapping[str, str],
    observer: Observer | None,
    limited_for_local: bool = False,
) -> Result:
    stages = stages_of(settings, allow_code=allow_code)
    constitution = load_constitution(settings.constitution)
    templates = Templates(settings.templates, constitution.language)
    reader = PromptReader(settings.prompts, settings.limit)
    check_responses(stages)
    check_export(settings.export, stages)
    check_roles(settings, stages)
    check_draws(stages, constitution)
    job = Job(settings, folder, _count(reader), limited_for_local=limited_for_local)
    if not constitution.language.lower().startswith(templates.language):
        job.notices.append(f"no templates in '{constitution.language}': every turn around the texts is English")
    now = meaning(settings, stages, constitution, templates)
    check_meaning(folder, now)
    with contextlib.ExitStack() as held:
        if not dry_run:
            folder.create()
            held.enter_context(RunLock(folder))
            folder.sweep()
        status = run_in_loop(
            _records(
                job,
                Context({}, constitution, templates, settings.seed),
                stages,
                reader,
                sending=not dry_run,
                rebuild=rebuild,
                retry_failed=retry_failed,
                environment=dict(environment),
                observer=observer or _unobserved,
                # Not before the models have answered: a start that fails does not use up the run's name.
                begin=lambda: None if dry_run else write_settings(folder, settings, now),
            )
        )
        if dry_run:
            last = of_invocation(job.tallies, status, time.monotonic() - job.started)
            return Result(folder.name, folder.path, status, last | of_run(Funnel(), reader.duplicates, None))
        return _finished(job, now, status, reader.duplicates)


async def _records(
    job: Job,
    context: Context,
    stages: Sequence[tuple[str, Stage]],
    reader: PromptReader,
    *,
    sending: bool,
    rebuild: bool | frozenset[int],
    retry_failed: bool,
    environment: dict[str, str],
    observer: Observer,
    begin: Callable[[], None],
) -> Status:
    """All calls of the job: models opened and asked, parts written, models closed."""
    async with Journal(job.folder.path.parent / "calls.sqlite") as journal:
        settings = job.settings
        models = open_models(
            with_fallbacks({role: settings.models[role] for role in asked_roles(stages)}),
            journal,
            environment,
            job.folder.path,
            sending=sending,
            retry_failed=retry_failed,
            one_engine_at_a_time=settings.one_engine_at_a_time and sending,
        )
        if not sending:
            await _check_models(models.values())
        context = replace(context, models=models)
        job.calls_per_record = _planned(context, stages, settings)
        job.models = len({id(llm) for llm in models.values()})
        runner = Runner(
            job.folder, stages, context, window=_window(settings, models.values()), rebuild=rebuild, writing=sending
        )
        job.progress, job.tallies = runner.progress, context.tallies
        try:
            with stopped_by_signals(runner.stop), rare_garbage_collection(), observer(job):
                try:
                    # The first to be asked in the run comes last here: of engines that take turns it is then loaded.
                    for llm in reversed({id(llm): llm for llm in models.values()}.values()):
                        llm.traits = await _met(llm, context.at("preflight").tally(llm))
                        llm.lanes.question = question(llm, llm.traits)
                        job.notices += llm.notices
                except Pending:  # Ctrl-C before the run began: its name is still free
                    return "interrupted"
                job.calls_per_record = _planned(context, stages, settings)
                begin()
                await runner.run(reader)
        finally:
            await _close(models.values())
    if not sending:
        return "dry_run"
    return "interrupted" if runner.stopping else "done"


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
    """Calls of a record at most, as far as it is known yet which of the models give log-probabilities."""
    specs = with_fallbacks(settings.models)
    known = {role: llm.known_traits() for role, llm in context.models.items()}
    voters = {
        role
        for role, traits in known.items()
        if (traits is None and specs[role].provider == "anthropic") or (traits and not traits.top_logprobs)
    }
    return calls_per_record(stages, len(context.constitution.principles), voters)


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
    last = of_invocation(job.tallies, status, time.monotonic() - job.started)
    content = last | of_run(funnel, duplicates, None)
    write_summary(folder, content)
    exported = export_records(folder, job.settings, meaning) if funnel.records else None
    if exported is not None:
        content = last | of_run(funnel, duplicates, dataset_counts(exported))
        write_summary(folder, content)
    return Result(folder.name, folder.path, status, content, None if exported is None else exported.example)
