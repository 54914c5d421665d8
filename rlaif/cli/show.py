"""`rlaif show RUN [ID]`: a run's records in a list, or one of them as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from rlaif.types import Record, Verdict

RUNS_DIR = typer.Option(help="Folder of all runs and of the journal they share.")


def show(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    record_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="A record's id, or its first digits.")] = None,
    runs_dir: Annotated[Path, RUNS_DIR] = Path("runs"),
    limit: Annotated[int, typer.Option(help="How many records the list shows.")] = 20,
) -> None:
    """Read what a run made: the list of its records, or one record as a page."""
    from itertools import islice

    from rich.console import Console

    from rlaif.errors import ConfigError
    from rlaif.runs import existing_run

    folder = existing_run(runs_dir, run)
    console = Console()
    if record_id is None:
        _list(console, list(islice(folder.records(), limit)), run, sum(1 for _ in folder.records()))
        return
    record = next((record for record in folder.records() if record.id.startswith(record_id)), None)
    if record is None:
        raise ConfigError(f"no record '{record_id}' in run '{run}'; list them with: rlaif show {run}")
    _page(console, record)


def _list(console: Console, records: list[Record], run: str, total: int) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("id", "outcome", "category", "responses", "verdicts"):
        rows.add_column(name, no_wrap=True)
    rows.add_column("prompt", overflow="ellipsis", no_wrap=True)
    for record in records:
        outcome = f"{record.outcome}: {record.reason}" if record.reason else f"{record.outcome}"
        counts = (str(len(record.responses)), str(len(record.verdicts)))
        prompt = " ".join(record.prompt[-1].content.split())
        rows.add_row(record.id, outcome, Text(record.category or ""), *counts, Text(prompt))
    console.print(rows)
    console.print(f"{len(records)} of {total} records; read one with: rlaif show {run} ID")


def _page(console: Console, record: Record) -> None:
    from rich.rule import Rule
    from rich.text import Text

    console.print(Rule(f"record {record.id}"))
    about = [record.outcome or "unfinished", record.reason, record.detail, record.category, record.source]
    console.print(Text(" | ".join(part for part in about if part), style="dim"))
    for message in record.prompt:
        console.print(Text(f"\n{message.role}", style="bold"))
        console.print(Text(message.content))
    dropped = {drop.response: drop.reason for drop in record.drops}
    for index, response in enumerate(record.responses):
        kind = "draft" if response.revises is None else f"revision of {response.revises} by {response.principle}"
        reason = f", dropped: {dropped[index]}" if index in dropped else ""
        console.print()
        console.print(Rule(Text(f"response {index}: {kind}, {response.model}{reason}"), align="left", style="dim"))
        if response.critique:
            console.print(Text(f"critique: {response.critique}\n", style="italic"))
        if response.revises is None:
            console.print(Text(response.text))
        else:
            console.print(word_diff(record.responses[response.revises].text, response.text))
    if record.verdicts:
        console.print()
        console.print(Rule(Text("verdicts"), align="left", style="dim"))
    for verdict in record.verdicts:
        console.print(_verdict(verdict))
    for score in record.scores:
        console.print(Text(f"response {score.response}: {score.value:+.2f} by {score.principle} ({score.judge})"))


def _verdict(verdict: Verdict) -> Text:
    from rich.text import Text

    between = f"{verdict.first} against {verdict.second} by {verdict.principle} ({verdict.judge}): "
    if verdict.p_first is None or verdict.p_ab is None or verdict.p_ba is None:
        return Text(between + f"no vote, {verdict.outcome}; replies {list(verdict.replies)}")
    winner = verdict.first if verdict.p_first > 0.5 else verdict.second
    agreed = "both orders agree" if verdict.consistent else "the orders disagree"
    numbers = f"p({verdict.first}) = {verdict.p_first:.2f} ({verdict.p_ab:.2f} shown first, {verdict.p_ba:.2f} second)"
    text = Text(f"{between}{numbers}, {winner} wins, {agreed}")
    if verdict.rationale:
        text.append(f"\n{verdict.rationale}", style="italic")
    return text


def word_diff(before: str, after: str) -> Text:
    """`after`, with what is new in green and what is gone struck through in red."""
    from difflib import SequenceMatcher

    from rich.text import Text

    old, new = before.split(" "), after.split(" ")
    text = Text()
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag in ("replace", "delete"):
            text.append(" ".join(old[i:j]) + " ", style="red strike")
        if tag != "delete":
            text.append(" ".join(new[k:m]) + " ", style="" if tag == "equal" else "green")
    return text
