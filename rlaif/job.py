"""One generate job, from settings to dataset: what the command and `rlaif.generate` share."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import uvloop

from rlaif.config import Settings, assigned, changed, load_settings, meaning, stages_of
from rlaif.constitution import Constitution, load_constitution
from rlaif.context import Context
from rlaif.documents import load
from rlaif.errors import ConfigError, Pending
from rlaif.journal import Journal
from rlaif.llm import Tally
from rlaif.models import display_name, open_models
from rlaif.preflight import preflight
from rlaif.runner import Progress, Runner
from rlaif.runs import begin_or_go_on, checked_name, existing_run, settings_of, write_settings
from rlaif.source import PromptReader
from rlaif.stages import Stage
from rlaif.store import RunFolder, RunLock, write_whole
from rlaif.summary import Funnel, funnel_of, summary
from rlaif.templates import Templates

if TYPE_CHECKING:
    from rlaif.export import Example, ExportSummary

# The embedded model makes 30-100 tokens a second on a laptop's CPU.
LOCAL_LIMIT = 16

Status = Literal["done", "interrupted", "dry_run"]


@dataclass(slots=True)
class Job:
    """A run under way, as an observer sees it."""

    settings: Settings
    folder: RunFolder
    total: int | None  # prompts, if known
    calls_per_record: int  # at most
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


def generate(
    pipeline: str = "cai",
    *,
    constitution: str | None = None,
    prompts: str | None = None,
    limit: int | None = None,
    policy: str | None = None,
    judge: str | None = None,
    run: str | None = None,
    runs_dir: str | Path = "runs",
    seed: int | None = None,
    set: Sequence[str] = (),
    dry_run: bool = False,
    rebuild: bool = False,
    allow_code: bool = False,
    environment: Mapping[str, str] | None = None,
    observer: Observer | None = None,
) -> Result:
    """Make preference data; the same as the command `rlaif generate`, argument for option.

    `pipeline`, `constitution` and `prompts` are bundled names or paths, `policy` and `judge` models
    as `provider/model`. `environment` is where keys are looked up (default: the process's).
    Run again with the same arguments to go on after any interruption; nothing answered is asked twice.

    Raises:
        ConfigError: settings that cannot be used. StoreError, ProviderError: the run stopped; what
            was answered is kept.
    """
    options: dict[str, object] = {
        "constitution": constitution,
        "prompts": prompts,
        "limit": limit,
        "models.policy": policy,
        "models.judge": judge,
        "seed": seed,
    }
    settings = load_settings(pipeline, options, set)
    limited = settings.limit is None and any(spec.provider == "local" for spec in settings.models.values())
    if limited:
        settings = settings.model_copy(update={"limit": LOCAL_LIMIT})
    name = run or f"{settings.name}-{time.strftime('%Y-%m-%d')}"
    return _run(
        settings,
        RunFolder(Path(runs_dir), checked_name(name)),
        dry_run=dry_run,
        rebuild=rebuild,
        allow_code=allow_code,
        environment=os.environ if environment is None else environment,
        observer=observer,
        limited_for_local=limited,
    )


def retry(
    run: str,
    *,
    runs_dir: str | Path = "runs",
    allow_code: bool = False,
    environment: Mapping[str, str] | None = None,
    observer: Observer | None = None,
) -> Result:
    """Ask again for what failed in a run, and only for that; everything else comes from the journal."""
    folder = existing_run(runs_dir, run)
    failed = frozenset(
        number for number in folder.part_numbers() if any(r.outcome == "failed" for r in folder.read_part(number))
    )
    return _run(
        settings_of(folder),
        folder,
        rebuild=failed,
        retry_failed=True,
        allow_code=allow_code,
        environment=os.environ if environment is None else environment,
        observer=observer,
    )


def export(
    run: str,
    *,
    runs_dir: str | Path = "runs",
    set: Sequence[str] = (),
) -> Result:
    """Make a run's datasets anew from its parts, with `export.*` settings changed; asks no model.

    The changed settings are written to run.yaml, so that the next `generate` keeps them.
    """
    folder = existing_run(runs_dir, run)
    changes = assigned(set)
    for path in changes:
        if not path.startswith("export."):
            raise ConfigError(f"--set {path}: an export changes export.* only; for other settings generate a new --run")
    document = load(folder.settings)
    settings = changed(replace(document, data=document.data["settings"]), changes)
    with RunLock(folder):
        write_settings(folder, settings, document.data["meaning"])
        previous = json.loads(folder.summary.read_bytes()) if folder.summary.is_file() else {}
        duplicates = previous.get("duplicate_prompts", 0)
        return _finished(Job(settings, folder, None, 0), load_constitution(settings.constitution), "done", duplicates)


def _run(
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
    templates = Templates(settings.templates)
    reader = PromptReader(settings.prompts, settings.limit)
    if settings.export.pairs and not any(stage.judges() for _, stage in stages):
        raise ConfigError("export.pairs needs verdicts: add a 'judge' stage to the pipeline, or set export.pairs=[]")
    for purpose in sorted({purpose for _, stage in stages for purpose in stage.purposes()}):
        constitution.draw("", purpose)  # raises if no principle has the text
    job = Job(settings, folder, _count(reader), _calls_per_record(stages), limited_for_local)
    with contextlib.ExitStack() as held:
        if not dry_run:
            folder.create()
            held.enter_context(RunLock(folder))
            begin_or_go_on(settings, folder, meaning(settings, constitution, templates))
        status = _run_in_loop(
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
            )
        )
        if dry_run:
            return Result(folder.name, folder.path, "dry_run", _summary(job, Funnel(), "dry_run", reader.duplicates))
        return _finished(job, constitution, status, reader.duplicates)


def _run_in_loop(job: Coroutine[None, None, Status]) -> Status:
    """In a thread of its own where this one has a running loop already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return uvloop.run(job)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(uvloop.run, job).result()


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
) -> Status:
    """All calls of the job: models opened and asked, parts written, models closed."""
    async with Journal(job.folder.path.parent / "calls.sqlite") as journal:
        asked = {role for _, stage in stages for role in stage.roles()}
        specs = {role: spec for role, spec in job.settings.models.items() if role in asked}
        models = open_models(specs, journal, environment, job.folder.path, sending=sending, retry_failed=retry_failed)
        context = replace(context, models=models)
        runner = Runner(job.folder, stages, context, window=job.settings.window, rebuild=rebuild, writing=sending)
        job.progress, job.tallies = runner.progress, context.tallies
        try:
            with _stopped_by_ctrl_c(runner), _rare_garbage_collection(), observer(job):
                with contextlib.suppress(Pending):  # Ctrl-C already: the runner begins nothing then
                    for llm in {id(llm): llm for llm in models.values()}.values():
                        llm.traits = await preflight(llm, context.at("preflight").tally(llm))
                        job.notices += llm.notices
                await runner.run(reader)
        finally:
            for llm in models.values():
                await llm.close()
    if not sending:
        return "dry_run"
    return "interrupted" if runner.stopping else "done"


@contextlib.contextmanager
def _stopped_by_ctrl_c(runner: Runner) -> Iterator[None]:
    """The first Ctrl-C stops new calls and drains those in flight; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        runner.stop()
        loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.add_signal_handler(signal.SIGINT, stop)
    except (ValueError, RuntimeError):  # not the main thread
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextlib.contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    """While records flow. Few of our objects form cycles, and looking for them took a quarter of the time."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextlib.contextmanager
def _unobserved(job: Job) -> Iterator[None]:
    yield


def _count(reader: PromptReader) -> int | None:
    """How many prompts there are; None where counting would mean reading a large file twice."""
    if reader.path.stat().st_size > 50_000_000:
        return reader.limit
    return sum(1 for _ in reader)


def _calls_per_record(stages: Sequence[tuple[str, Stage]]) -> int:
    calls, candidates = 0, 0
    for _, stage in stages:
        more, candidates = stage.plan(candidates)
        calls += more
    return calls


def _finished(job: Job, constitution: Constitution, status: Status, duplicates: int) -> Result:
    folder = job.folder
    funnel = funnel_of(folder.records())
    exported = _exported(folder, job.settings, constitution) if funnel.records else None
    content = _summary(job, funnel, status, duplicates, exported)
    write_whole(folder.summary, json.dumps(content, indent=2).encode())
    return Result(folder.name, folder.path, status, content, None if exported is None else exported.example)


def _summary(
    job: Job, funnel: Funnel, status: Status, duplicates: int, exported: ExportSummary | None = None
) -> dict[str, Any]:
    return summary(
        funnel,
        job.tallies,
        status=status,
        duplicates=duplicates,
        wall_s=time.monotonic() - job.started,
        dataset=None if exported is None else _dataset_counts(exported),
    )


def _exported(folder: RunFolder, settings: Settings, constitution: Constitution) -> ExportSummary:
    """The run's datasets, made anew from its parts; asks no model."""
    from rlaif.export import About, export_dataset

    about = About(
        run=folder.name,
        constitution_name=constitution.name,
        constitution_version=constitution.version,
        licence=constitution.licence,
        language=constitution.language,
        models={role: display_name(spec) for role, spec in settings.models.items()},
        prompts=Path(settings.prompts.path).name,
        pipeline=settings.name,
        stages=tuple(entry.kind for entry in settings.stages),
    )
    return export_dataset(folder.records, folder.dataset, settings.export, about=about)


def _dataset_counts(exported: ExportSummary) -> dict[str, Any]:
    return {
        "pairs": exported.pairs,
        "no_pair": dict(exported.no_pair),
        "rows": {config: dict(splits) for config, splits in exported.rows.items()},
    }
