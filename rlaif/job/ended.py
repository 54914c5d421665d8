"""How a job ended: its summary, its dataset, and what a caller gets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.estimate import Estimate
from rlaif.job.under_way import Job, Status
from rlaif.prices import updated
from rlaif.runs import export_records, read_summary, write_summary
from rlaif.summary import funnel_of, of_invocation, of_ledger, of_run, reused

if TYPE_CHECKING:
    from rlaif.export import Example


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


def finished(job: Job, meaning: dict[str, Any], status: Status, duplicates: int) -> Result:
    """summary.json is written first without the dataset, in case that cannot be made."""
    folder = job.folder
    funnel = funnel_of(folder.records())
    last = invocation(job, status) | {"ledger": of_ledger(job.ledger, job.cost_usd)}
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


def invocation(job: Job, status: Status) -> dict[str, Any]:
    content = of_invocation(job.tallies, status, time.monotonic() - job.started, job.cost_usd)
    if job.budget is not None:
        content["stopped_by"] = job.budget.exhausted
    if job.estimate is not None:
        content["estimate"] = job.estimate.plain()
    known = {name: None if price is None else price.model_dump() for name, price in job.prices.items()}
    return content | {"prices": {"file": job.settings.prices, "updated": updated(), "usd_per_million": known}}
