"""The package's functions, which the commands of the same names call: generate, retry, export, audit."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.backends import short_form
from rlaif.budget import Limits
from rlaif.config import assigned, batched, load_settings, stages_of
from rlaif.errors import ConfigError
from rlaif.job import Executor, Observer, Result
from rlaif.job import run as run_job
from rlaif.plan import check_export
from rlaif.runs import (
    checked_name,
    existing_run,
    export_records,
    meaning_of,
    read_summary,
    settings_of,
    write_summary,
)
from rlaif.store import RunFolder, RunLock
from rlaif.summary import funnel_of, of_invocation, of_run

if TYPE_CHECKING:
    from rlaif.audit.live import Answers

# The embedded model makes 30-100 tokens a second on a laptop's CPU.
LOCAL_LIMIT = 16


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
    estimate: int | None = None,
    max_cost: float | None = None,
    max_calls: int | None = None,
    max_time: float | str | None = None,
    batch: bool = False,
    rebuild: bool = False,
    audit: str | Path | None = None,
    audit_columns: Mapping[str, str] | None = None,
    min_kappa: float | None = None,
    allow_code: bool = False,
    executor: Executor = "local",
    environment: Mapping[str, str] | None = None,
    observer: Observer | None = None,
) -> Result:
    """Make preference data; the same as the command `rlaif generate`, argument for option.

    `pipeline`, `constitution` and `prompts` are bundled names or paths, `policy` and `judge` models
    as `provider/model`. `environment` is where keys are looked up (default: the process's).
    Run again with the same arguments to go on after any interruption; nothing answered is asked twice.

    `estimate` goes through so many records only, and says in the result's `estimate` what the others will take.
    `max_cost` (US dollars), `max_calls` and `max_time` (seconds, or like "2h") end the run with status "stopped"
    before they are exceeded; the first two count over all invocations of the run. `batch` asks the models of
    providers with a batch API through that: half the price, an answer within a day.

    `audit` is a file of pairs that people labelled, `audit_columns` says which of its columns is what (see
    rlaif.audit.read): this pipeline's judges are asked about them first, as the run NAME-audit within the same limits,
    and the report becomes a part of the dataset. Below `min_kappa` nothing else is asked.

    Raises:
        ConfigError: settings that cannot be used. AuditFailed: the judges are below `min_kappa`.
        StoreError, ProviderError: the run stopped; what was answered is kept.
    """
    for option, model in (("policy", policy), ("judge", judge)):
        if model is not None:
            _check_form(option, model)
    limits = Limits.of(max_cost, max_calls, max_time)
    if estimate is not None and (estimate < 1 or dry_run):
        raise ConfigError(f"--estimate {estimate}: give the number of records to try, and no --dry-run with it")
    options: dict[str, object] = {
        "constitution": constitution,
        "limit": limit,
        "models.policy": policy,
        "models.judge": judge,
        "seed": seed,
    }
    settings = load_settings(pipeline, options | _prompts(pipeline, prompts), set)
    if batch:
        settings = batched(settings)
    limited = settings.limit is None and any(spec.provider == "local" for spec in settings.models.values())
    if limited:
        settings = settings.model_copy(update={"limit": LOCAL_LIMIT})
    name = f"{settings.name}-{time.strftime('%Y-%m-%d')}" if run is None else run
    folder = RunFolder(Path(runs_dir), checked_name(name))
    environment = os.environ if environment is None else environment
    job = partial(
        run_job,
        settings,
        folder,
        dry_run=dry_run,
        rebuild=rebuild,
        allow_code=allow_code,
        executor=executor,
        environment=environment,
        observer=observer,
        limited_for_local=limited,
        sample=estimate,
    )
    if audit is None:
        if min_kappa is not None or audit_columns:
            raise ConfigError("--min-kappa and --audit-columns are for --audit FILE, with pairs that people labelled")
        return job(limits=limits)
    from rlaif.audit.gate import Gate, run_audited  # late: numpy takes 0.1 s

    gate = Gate(Path(audit), min_kappa, audit_columns)
    # What is wrong with the run itself is said before the audit is paid for.
    one = settings.model_copy(update={"limit": 1})
    run_job(one, folder, dry_run=True, allow_code=allow_code, environment=environment, observer=None, limits=limits)
    return run_audited(
        gate,
        settings,
        folder,
        lambda left: job(limits=left),
        dry_run=dry_run,
        allow_code=allow_code,
        environment=environment,
        observer=observer,
        limits=limits,
    )


def _prompts(pipeline: str, prompts: str | None) -> dict[str, object]:
    """What `--prompts` sets: all sets; of one with responses the path alone, since its columns are what it is for."""
    if prompts is None:
        return {}
    given = any(one.responses for one in load_settings(pipeline, {}).prompts)
    return {"prompts.path" if given else "prompts": prompts}


def _check_form(option: str, model: str) -> None:
    try:
        short_form(model)
    except ValueError as error:
        raise ConfigError(f"--{option}: {error}") from None


def audit(
    labelled: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    pipeline: str = "rejudge",
    judge: str | None = None,
    constitution: str | None = None,
    run: str | None = None,
    runs_dir: str | Path = "runs",
    seed: int | None = None,
    set: Sequence[str] = (),
    dry_run: bool = False,
    max_cost: float | None = None,
    max_calls: int | None = None,
    max_time: float | str | None = None,
    batch: bool = False,
    allow_code: bool = False,
    environment: Mapping[str, str] | None = None,
    observer: Observer | None = None,
) -> tuple[Result, Answers]:
    """Ask a judge about the items of a labelled file: `rlaif judge audit FILE --judge MODEL`, before its figures.

    It is a run of the judge stages of `pipeline` on the file's responses, so that all that holds for `generate` holds
    here: what was answered is not asked twice, a limit ends it in order, and `run` goes on with it.
    `columns` and `labels` are those of rlaif.audit.read.read_labelled. Gives the run's result and the judges' answers,
    of which rlaif.audit.report.audited makes the figures and `write` the files.
    """
    from rlaif.audit.live import audit_live  # late: numpy takes 0.1 s

    if judge is not None:
        _check_form("judge", judge)
    options: dict[str, object] = {"constitution": constitution, "models.judge": judge, "seed": seed}
    settings = load_settings(pipeline, options, set)
    if batch:
        settings = batched(settings)
    if run is None:  # one for each judge and file, so that the next one does not have to be named
        asked = "\0".join([pipeline, judge or "", constitution or "", str(seed), *set])
        words = re.sub(r"[^\w.]+", "-", f"audit-{Path(labelled).name}-{Path(judge or pipeline).name}")
        run = f"{words[:90]}-{blake2b(asked.encode(), digest_size=3).hexdigest()}"
    return audit_live(
        settings,
        Path(labelled),
        RunFolder(Path(runs_dir), checked_name(run)),
        columns=columns,
        labels=labels,
        dry_run=dry_run,
        allow_code=allow_code,
        environment=os.environ if environment is None else environment,
        observer=observer,
        limits=Limits.of(max_cost, max_calls, max_time),
    )


def retry(
    run: str,
    *,
    runs_dir: str | Path = "runs",
    max_cost: float | None = None,
    max_calls: int | None = None,
    max_time: float | str | None = None,
    allow_code: bool = False,
    executor: Executor = "local",
    environment: Mapping[str, str] | None = None,
    observer: Observer | None = None,
) -> Result:
    """Go on with a run, and ask again for what failed in it; what was answered comes from the journal.

    The limits are those of `generate`.
    """
    limits = Limits.of(max_cost, max_calls, max_time)
    folder = existing_run(runs_dir, run)
    parts, settled = folder.failed()
    return run_job(
        settings_of(folder),
        folder,
        rebuild=parts,
        settled=settled,
        allow_code=allow_code,
        executor=executor,
        environment=os.environ if environment is None else environment,
        observer=observer,
        limits=limits,
    )


def export(
    run: str,
    *,
    runs_dir: str | Path = "runs",
    set: Sequence[str] = (),
) -> Result:
    """Make a run's datasets anew from its parts, with `export.*` settings changed; asks no model.

    The next `generate` of this run exports by its pipeline's own settings again.
    """
    folder = existing_run(runs_dir, run)
    changes = assigned(set)
    for path in changes:
        if not path.startswith("export."):
            raise ConfigError(f"--set {path}: an export changes export.* only; for other settings generate a new --run")
    settings = settings_of(folder, changes)
    if not any(entry.code for entry in settings.stages):
        check_export(settings.export, stages_of(settings, allow_code=False))
    with RunLock(folder):
        exported = export_records(folder, settings, meaning_of(folder))
        content = read_summary(folder)
        duplicates = content.get("duplicate_prompts", 0)
        # What the last invocation asked and paid is still what it was.
        last = content if "calls" in content else of_invocation({}, "interrupted", 0.0)
        content = last | of_run(funnel_of(folder.records()), duplicates, exported.plain(), exported.principles)
        write_summary(folder, content)
    return Result(folder.name, folder.path, "done", content, exported.example)
