"""An audit before the bill: the judges of a run are asked about labelled items first, and must reach a bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from rlaif.audit.live import audit_live
from rlaif.audit.report import Audit, audited, write
from rlaif.budget import Limits
from rlaif.config import Settings
from rlaif.errors import AuditFailed, ConfigError
from rlaif.estimate import Estimate
from rlaif.figures import Figure, decimal
from rlaif.job import Observer, Result
from rlaif.runs import checked_name
from rlaif.store import RunFolder

_LIBRARIES = ("choix", "crowdkit", "krippendorff", "matplotlib", "scipy")


@dataclass(frozen=True, slots=True)
class Gate:
    """What the judges are held to: a labelled file, and the least kappa between their word and people's."""

    labelled: Path
    min_kappa: float | None = None
    columns: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.min_kappa is not None and not -1 < self.min_kappa < 1:
            raise ConfigError(
                f"--min-kappa {self.min_kappa:g}: a kappa is under 1; chance is 0, people often reach 0.6"
            )
        if missing := [name for name in _LIBRARIES if find_spec(name) is None]:
            raise ConfigError(f"--audit needs {' and '.join(missing)}; run: pip install 'rlaif-kit[audit]'")


def run_audited(
    gate: Gate,
    settings: Settings,
    folder: RunFolder,
    run: Callable[[Limits | None], Result],
    *,
    dry_run: bool = False,
    allow_code: bool = False,
    environment: Mapping[str, str],
    observer: Observer | None = None,
    limits: Limits | None = None,
) -> Result:
    """The audit as the run NAME-audit, then `run` with what it has left of the limits; the report goes into its data.

    Raises:
        AuditFailed: the judges are below the bar; `run` was not begun.
    """
    begun = time.monotonic()
    asked, answers = audit_live(
        settings,
        gate.labelled,
        RunFolder(folder.path.parent, checked_name(f"{folder.name}-audit")),
        columns=gate.columns,
        dry_run=dry_run,
        allow_code=allow_code,
        environment=environment,
        observer=observer,
        limits=limits,
    )
    if dry_run:
        return _with_audit(run(limits), asked.estimate)
    if asked.status != "done":
        return asked
    if asked.failed:
        raise AuditFailed(
            f"the audit stopped the run: {asked.failed:,} of its {len(answers.items):,} items failed, and the others "
            f"are not the whole of what people labelled; nothing else was asked. Ask again: rlaif retry {asked.run}, "
            "then run the same command again"
        )
    audit = audited(gate.labelled.name, answers.items, answers.judges, together=answers.together)
    if gate.min_kappa is not None:
        _check(gate, audit, answers.word, asked)
    used_up, left = _left(limits, asked, time.monotonic() - begun)
    if used_up is not None:
        return replace(asked, status="stopped", summary=asked.summary | {"status": "stopped", "stopped_by": used_up})
    write(audit, folder.audit)
    return run(left)


def _check(gate: Gate, audit: Audit, word: str | None, asked: Result) -> None:
    """Raises AuditFailed; the report then stays with the audit's own run."""
    assert gate.min_kappa is not None
    kappa = next((judge.kappa for judge in audit.judges if judge.judge == word), Figure(None, None, None, 0))
    if kappa.value is not None and kappa.value >= gate.min_kappa:
        return
    write(audit, asked.folder / "audit")
    said = (
        f"kappa {decimal(kappa)} with the {kappa.n:,} labels" if kappa.value is not None else "no kappa with the labels"
    )
    raise AuditFailed(
        f"the audit stopped the run: {word or 'the judge'} has {said} of {gate.labelled.name} (95% interval in "
        f"brackets), under --min-kappa {gate.min_kappa:g}; nothing else was asked. Read {asked.folder}/audit/audit.md; "
        "take another judge or constitution, with another --run, or another bar"
    )


def _left(limits: Limits | None, asked: Result, took_s: float) -> tuple[str | None, Limits | None]:
    """(what the audit has used up, what it has left)."""
    if limits is None:
        return None, None
    spent = asked.summary["ledger"]
    if limits.max_calls is not None and spent["sent"] >= limits.max_calls:
        return f"--max-calls {limits.max_calls:,} reached by the audit", None
    seconds = None if limits.max_time_s is None else limits.max_time_s - took_s
    if seconds is not None and seconds <= 0:
        return f"--max-time reached by the audit: {limits.max_time_s:g} s", None
    return None, replace(limits, max_time_s=seconds, spent_usd=spent["cost_usd"] or 0.0, calls=spent["sent"])


def _with_audit(result: Result, audit: Estimate | None) -> Result:
    """A dry run's estimate with the audit's lines before it."""
    if audit is None or result.estimate is None:
        return result
    lines = tuple(replace(line, stage=f"audit: {line.stage}") for line in audit.lines)
    estimate = replace(result.estimate, lines=lines + result.estimate.lines)
    return replace(result, estimate=estimate, summary=result.summary | {"estimate": estimate.plain()})
