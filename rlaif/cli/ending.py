"""What a person sees when a run is over: the funnel, where the data is, one pair, what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rlaif.cli.text import said
from rlaif.job import Result

if TYPE_CHECKING:
    from rlaif.export import Example

_SHOWN_CHARACTERS = 700


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
    if result.summary["dataset"] is not None:
        _print_whole(console, f"dataset: {result.dataset}")
        if first := next(iter(result.summary["dataset"]["rows"]), None):
            _print_whole(console, f'load it: datasets.load_dataset("{result.dataset}", "{first}")')
    runs_dir = result.folder.parent
    run = result.run if runs_dir == Path("runs") else f"{result.run} --runs-dir {runs_dir}"
    if result.summary["records"]:
        _print_whole(console, f"look at records: rlaif show {run}")
    if result.status == "interrupted":
        _print_whole(console, "interrupted: what was answered is kept; run the same command again to go on", "yellow")
    if result.failed:
        records = "1 record" if result.failed == 1 else f"{result.failed:,} records"
        _print_whole(console, f"{records} failed; ask again for what is missing: rlaif retry {run}", "red")


def _print_whole(console: Console, text: str, style: str = "") -> None:
    """A line that may be copied: never broken."""
    console.print(said(text, style), soft_wrap=True)


def _show_dry_run(console: Console, result: Result) -> None:
    unsent = sum(stage["unsent"] for stage in result.summary["stages"])
    known = result.summary["calls"]["from_journal"]
    if not unsent:
        console.print(f"dry run: nothing was sent. All {known:,} calls are in the journal.")
        return
    console.print(f"dry run: nothing was sent. {known:,} calls are in the journal; {unsent:,} would be sent next,")
    console.print("and more after them: what a stage asks depends on the answers before it.")


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
