"""What a person sees when a run is over: the funnel, where the data is, one pair, what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rlaif.cli.estimate import show_estimate
from rlaif.cli.text import said
from rlaif.job import Result
from rlaif.prices import dollars
from rlaif.summary import refusing

if TYPE_CHECKING:
    from rlaif.export import Example

_SHOWN_CHARACTERS = 700
_FAILURES = 10


def show_ending(result: Result, *, asked: bool = True) -> None:
    """`asked`: models were; False after an export."""
    console = Console()
    if result.status == "dry_run":
        _show_dry_run(console, result)
        return
    if result.summary["records"]:
        _show_funnel(console, result.summary)
    if result.example is not None:
        _show_pair(console, result.example)
    calls = result.summary["calls"]
    if asked:
        console.print(
            f"calls: {calls['sent']:,} sent, {calls['from_journal']:,} from the journal, {calls['failed']:,} failed; "
            f"{result.summary['wall_s']:.1f} s"
        )
        if (reused := result.summary.get("reused")) and reused["answers"]:
            console.print(f"reused {reused['answers']:,} of {reused['of']:,} answers from earlier runs")
        if cost := _cost(result.summary):
            console.print(cost)
    if result.summary["dataset"] is not None:
        _print_whole(console, f"dataset: {result.dataset}")
        if first := next(iter(result.summary["dataset"]["rows"]), None):
            _print_whole(console, f'load it: datasets.load_dataset("{result.dataset}", "{first}")')
    _show_what_next(console, result)


def _show_what_next(console: Console, result: Result) -> None:
    runs_dir = result.folder.parent
    run = result.run if runs_dir == Path("runs") else f"{result.run} --runs-dir {runs_dir}"
    if result.summary["records"]:
        _print_whole(console, f"look at records: rlaif show {run}")
        _show_refusals(console, result)
    if result.estimate is not None:
        if result.estimate.records:
            console.print(f"by these, what {result.estimate.records:,} other records will take, and 95% ranges:")
            show_estimate(console, result.estimate)
        console.print("to go on: the same command without --estimate; what ran is kept")
    if result.status == "interrupted":
        _print_whole(console, "interrupted: what was answered is kept; run the same command again to go on", "yellow")
    if result.status == "stopped":
        why = result.summary["stopped_by"]
        higher = "" if why.startswith("--max-time") else " with a higher limit"
        sent = result.summary["ledger"]["sent"]
        _print_whole(console, f"stopped: {why} ({sent:,} calls sent in this run so far)", "yellow")
        _print_whole(console, f"what was answered is kept: the same command{higher} goes on", "yellow")
    if result.failed:
        _show_failures(console, result, run)
        records = "1 record" if result.failed == 1 else f"{result.failed:,} records"
        _print_whole(console, f"{records} failed; ask again for what is missing: rlaif retry {run}", "red")


def _show_refusals(console: Console, result: Result) -> None:
    """Of the first drafts: always before the bill grows, later only if they are most."""
    n, refusals = result.summary["drafts"]["n"], result.summary["drafts"]["refusals"]
    if warning := refusing(n, refusals, bool(result.summary["funnel"]["revisions"])):
        console.print(f"{warning}.", style="yellow")
    elif result.estimate is not None:
        console.print(f"{refusals:,} of {n:,} first drafts refuse")


def _show_failures(console: Console, result: Result, run: str) -> None:
    for failure in result.summary["failures"][:_FAILURES]:
        reason = f"{failure['stage']}: {failure['detail'] or failure['reason']}"
        console.print(said(f"failed: {failure['id']}  {reason}"), soft_wrap=not console.is_terminal)
    if result.failed > _FAILURES:
        _print_whole(console, f"... all {result.failed:,}: rlaif show {run} --outcome failed --limit {result.failed}")


def _print_whole(console: Console, text: str, style: str = "") -> None:
    """A line that may be copied: never broken."""
    console.print(said(text, style), soft_wrap=True)


def _show_dry_run(console: Console, result: Result) -> None:
    known, estimate = result.summary["calls"]["from_journal"], result.estimate
    if estimate is None or not estimate.calls:
        console.print(f"dry run: nothing was sent. All {known:,} calls are in the journal.")
        return
    console.print("dry run: nothing was sent. Still to be asked, at most:")
    show_estimate(console, estimate)
    if known:
        most = known + estimate.calls
        console.print(
            f"Of these {most:,} answers at least {known:,} are in the journal already; a record is looked at as far as "
            "its first new question."
        )
    console.print("Guessed from the lengths of prompts and limits; --estimate 20 measures it.")


def _cost(summary: dict[str, Any]) -> str | None:
    """None for models that cost nothing; what is not known is said."""
    now, run = summary["cost_usd"], summary["ledger"]["cost_usd"]
    if now == run == 0:
        return None
    said_now, said_run = ("unknown" if usd is None else f"{dollars(usd)} USD" for usd in (now, run))
    unknown = sorted({line["model"] for line in summary["ledger"]["lines"] if line["cost_usd"] is None})
    of = f" (no price for {', '.join(unknown)})" if unknown else ""
    return f"cost: {said_now}" + ("" if now == run else f"; of the whole run {said_run}") + of


def _show_funnel(console: Console, summary: dict[str, Any]) -> None:
    funnel = summary["funnel"]
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows.add_column("funnel")
    rows.add_column("count", justify="right", no_wrap=True)
    rows.add_column("lost on the way")
    rows.add_row("prompts", f"{summary['records']:,}", _counts({"duplicates": summary["duplicate_prompts"]}))
    rows.add_row("responses", f"{funnel['responses']:,}", _counts(funnel["responses_dropped"]))
    if funnel["revisions"]:
        rows.add_row("  of them revisions", f"{funnel['revisions']:,}", "")
    for made in ("verdicts", "scores"):
        if counts := funnel[made]:
            unusable = {name: count for name, count in counts.items() if name != "ok"}
            rows.add_row(made, f"{sum(counts.values()):,}", _counts(unusable))
    rows.add_row("records ok", f"{summary['outcomes'].get('ok', 0):,}", _counts(funnel["dropped"] | funnel["failed"]))
    dataset = summary["dataset"]
    if dataset is not None:
        if dataset["pairs"] or dataset["no_pair"]:
            rows.add_row("pairs", f"{dataset['pairs']:,}", _counts(dataset["no_pair"]))
        for config, splits in dataset["rows"].items():
            if config != "preference":
                rows.add_row(f"{config} rows", f"{sum(splits.values()):,}", "")
    console.print(rows)


def _counts(counts: dict[str, int]) -> Text:
    return said(", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count))


def _show_pair(console: Console, example: Example) -> None:
    body = Text()
    kind, better, worse = (
        ("pair", "chosen", "rejected") if example.revision is None else ("revision", "revised", "draft")
    )
    for label, style, text in (
        ("prompt", "bold", "\n\n".join(message.content for message in example.prompt)),
        (better, "bold green", example.chosen),
        (worse, "bold red", example.rejected),
    ):
        body.append(f"{label}\n", style=style)
        body.append_text(said(f"{text[:_SHOWN_CHARACTERS]}{' ...' if len(text) > _SHOWN_CHARACTERS else ''}\n\n"))
    body.rstrip()
    console.print(Panel(body, title=f"one {kind}, {example.said}", box=box.ROUNDED))
