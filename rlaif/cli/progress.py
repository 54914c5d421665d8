"""A run while it goes: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlaif.cli.text import harmless, said
from rlaif.job import Job
from rlaif.llm import Tally
from rlaif.prices import dollars

PLAIN_EVERY_S = 15.0


@contextmanager
def live(job: Job) -> Iterator[None]:
    """Redraws four times a second, from a thread of its own, until the run ends."""
    console = Console(stderr=True)
    console.print(said(heading(job)))
    with Live(get_renderable=lambda: table(job), console=console, refresh_per_second=4, transient=False):
        yield
    show_notices(console, job)


@contextmanager
def plain(job: Job) -> Iterator[None]:
    """One line at the start, every quarter of a minute, and at the end, on standard error."""
    over = threading.Event()

    shown = 0

    def news() -> None:
        nonlocal shown
        while shown < len(job.notices):
            print(f"note: {harmless(job.notices[shown])}", file=sys.stderr, flush=True)
            shown += 1

    def report() -> None:
        while not over.wait(PLAIN_EVERY_S):
            news()
            print(line(job), file=sys.stderr, flush=True)

    print(harmless(heading(job)), file=sys.stderr, flush=True)
    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        print(line(job), file=sys.stderr, flush=True)
        news()


def heading(job: Job) -> str:
    count = "all prompts" if job.total is None else f"{job.total:,} prompt{'' if job.total == 1 else 's'}"
    calls = "" if job.total is None else f", at most {job.total * job.calls_per_record + job.models:,} calls"
    small = " (the embedded model's default; more with --limit)" if job.limited_for_local else ""
    return f"run '{job.folder.name}': {count}{small}{calls}"


def show_notices(console: Console, job: Job) -> None:
    for notice in job.notices:
        if notice == job.warning:  # is above, in the table
            continue
        console.print(said(f"note: {notice}"), soft_wrap=not console.is_terminal)


def line(job: Job) -> str:
    total = _sum(job)
    done = job.progress.records + job.progress.skipped
    of = "" if job.total is None else f"/{job.total:,}"
    failed = f", {total.failed} calls failed" if total.failed else ""
    return (
        f"{done:,}{of} records, {total.sent:,} calls sent, {total.from_journal:,} from the journal{failed}, "
        f"{_rate(job, total)}, {_eta(job, total)}{_cost(job)}"
    )


def table(job: Job) -> RenderableType:
    total = _sum(job)
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    rows.add_column("stage", no_wrap=True)
    rows.add_column("model", overflow="ellipsis", min_width=6, max_width=32)  # gives way to the numbers
    numbers = ["records", "sent", "journal", *(["failed"] if total.failed else []), "tokens"]
    for name in numbers:
        rows.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    for (stage, model), tally in list(job.tallies.items()):
        if not _answered(tally) and stage not in job.progress.in_stage:
            continue  # a preflight whose answer was remembered
        counts: dict[str, str | Text] = {
            "records": f"{job.progress.through_stage[stage]:,}" if stage in job.progress.in_stage else "",
            "sent": f"{tally.sent:,}",
            "journal": f"{tally.from_journal:,}",
            "failed": Text(f"{tally.failed:,}", style="red" if tally.failed else ""),
            "tokens": _short(tally.prompt_tokens + tally.completion_tokens),
        }
        rows.add_row(stage, said(model.rpartition("/")[2]), *(counts[name] for name in numbers))
    done = job.progress.records + job.progress.skipped
    bar = Table.grid(padding=(0, 1))
    planned = (job.total or 0) * job.calls_per_record
    share = max(done / job.total, min(1.0, _answered(total) / planned)) if job.total and planned else 0.0
    bar.add_row(
        ProgressBar(total=1.0, completed=1.0 if done == job.total else share, width=30),
        f"{done:,}/{job.total:,} records" if job.total is not None else f"{done:,} records",
    )
    waits = [said(waiting, "yellow") for llm in job.asked for waiting in llm.waits_for]
    if job.warning:
        waits.append(said(job.warning, "bold yellow"))
    return Group(rows, bar, *waits, Text(f"{_rate(job, total)}, {_eta(job, total)}{_cost(job)}"))


def _sum(job: Job) -> Tally:
    total = Tally()
    for tally in list(job.tallies.values()):
        total.sent += tally.sent
        total.from_journal += tally.from_journal
        total.failed += tally.failed
        total.prompt_tokens += tally.prompt_tokens
        total.completion_tokens += tally.completion_tokens
    return total


def _short(count: int) -> str:
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:.2f}M"


def _answered(total: Tally) -> int:
    return total.sent + total.from_journal


def _rate(job: Job, total: Tally) -> str:
    elapsed = max(1e-3, time.monotonic() - job.started)
    return f"{total.completion_tokens / elapsed:,.0f} tokens/s"


def _cost(job: Job) -> str:
    """Of this invocation, or of the limit's share that is used up; nothing for models that cost nothing."""
    if job.budget is not None and job.budget.max_cost_usd is not None:
        return f", {dollars(job.budget.spent_usd)} of {dollars(job.budget.max_cost_usd)} USD spent"
    if all(price is not None and price.free for price in job.prices.values()):
        return ""
    costs = [job.cost_usd(model, tally) for (_, model), tally in list(job.tallies.items())]
    known = sum(usd for usd in costs if usd is not None)
    unknown = any(price is None for price in job.prices.values())
    if not known:
        return ", cost unknown" if unknown else ""
    return f", {dollars(known)} USD{' (not all prices are known)' if unknown else ''}"


def _eta(job: Job, total: Tally) -> str:
    """What the calls still planned take at the rate of this run so far; dropped records make it shorter."""
    elapsed = time.monotonic() - job.started
    if job.draining:
        return f"{clock(elapsed)} so far, stopping: what is in flight is finished and kept; Ctrl-C again ends at once"
    to_do = None if job.total is None else job.total - job.progress.skipped
    if job.progress.records == to_do:
        return f"took {clock(elapsed)}"
    if to_do is None or total.sent < 4:
        return f"{clock(elapsed)} so far"
    left = max(0, to_do * job.calls_per_record - _answered(total))
    return f"{clock(elapsed)} so far, about {clock(left * elapsed / total.sent)} left"


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
