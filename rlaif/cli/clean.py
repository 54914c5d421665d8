"""`rlaif clean DATASET --to FOLDER`: any preference dataset, without the rows that nobody wants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif.cli.options import from_the_start, settings

if TYPE_CHECKING:
    from rlaif.cleaning import Cleaned
    from rlaif.hygiene.clean import Texts

_SHORT = 60  # characters of a text in the table


def clean(
    address: Annotated[
        str, typer.Argument(help="A JSONL, JSON, CSV or Parquet file; a folder, FOLDER#CONFIG; OWNER/NAME of the hub.")
    ],
    to: Annotated[Path, typer.Option(help="The folder to make.")],
    config: Annotated[str | None, typer.Option(help="The configuration, of several.")] = None,
    split: Annotated[str | None, typer.Option(help="One split only. [all]")] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="ROLE=NAME,...", help="Which column is what: prompt, chosen, label, ...")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Like near=0.8, or evals=[test.jsonl#question]. Repeatable."),
    ] = None,
) -> None:
    """Leave out rows of a preference dataset: empty, identical, said before, with traces of how they were made.

    The folder has all other rows unchanged, as Parquet; dropped.jsonl with what went and why; and a card.
    Settings that are on: empty, identical, malformed, exact, leaks. More: near=0.8 (nearly the same words),
    semantic=0.95 (the same meaning), evals=[FILE#COLUMN] (test items), repetition, truncated, refusal.
    """
    from rlaif.cleaning import clean_dataset
    from rlaif.cli.generate import mapping
    from rlaif.hygiene.clean import Clean

    chosen = settings(Clean, assignments)
    with from_the_start():
        done = clean_dataset(address, to, chosen, config=config, split=split, columns=mapping("columns", columns))
    _say(done)


def _say(done: Cleaned) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rlaif.cli.text import harmless, said

    typer.echo(harmless(f"read as {done.shape}"))
    counts = done.dropped.counts
    if counts:
        table = Table(box=box.SIMPLE)
        table.add_column("left out for")
        table.add_column("rows", justify="right")
        table.add_column("for example")
        for reason, n in counts.most_common():
            example = done.dropped.examples[reason][0]
            because = f"{example.because}: " if example.because else ""
            table.add_row(reason, f"{n:,}", said(because + _texts(example.row)))
        Console().print(table)
    for split, n in done.read.items():
        typer.echo(harmless(f"{split}: {done.kept[split]:,} of {n:,} rows stay"))
    all_of_them = f", with all {counts.total():,} that went in dropped.jsonl" if counts else ""
    typer.echo(harmless(f"dataset: {done.folder}{all_of_them}"))


def _texts(row: Texts) -> str:
    """Both sides where there are two, each cut."""
    cut = [text if len(text) <= _SHORT else f"{text[:_SHORT]}..." for text in row[:3] if text]
    return " | ".join(cut)
