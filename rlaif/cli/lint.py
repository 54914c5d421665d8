"""`rlaif lint`: what is wrong with a preference dataset, anyone's; no model is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif.cli.generate import mapping

if TYPE_CHECKING:
    from rlaif.lint.report import Report


def lint(
    dataset: Annotated[
        str, typer.Argument(help="A .jsonl, .csv or .parquet file, a folder of them, or OWNER/NAME of the hub.")
    ],
    config: Annotated[str | None, typer.Option(help="Of several this one. [preference, default]")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split. [all]")] = None,
    rules: Annotated[str | None, typer.Option(metavar="NAME,...", help="Only these. [all but near_duplicates]")] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="ROLE=NAME,...", help="Columns of other names: prompt, chosen, rejected, label, ..."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows of each file. [all]")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Of the training, in tokens. [TRL's default]")] = None,
    near: Annotated[bool, typer.Option("--near", help="Look for near duplicates, too, in the first rows.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON; - prints it instead.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as one HTML page.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="How many at a time. [one for each core]")] = None,
) -> None:
    """Check a preference dataset: schema, turns, duplicates, contradictions, biases, leaks. Asks no model.

    Exit code 0: no errors; 1: errors, with --strict also warnings; 2: it cannot be read as a preference dataset.
    """
    from rlaif.errors import ConfigError
    from rlaif.lint.report import as_json as json_of
    from rlaif.lint.report import linted
    from rlaif.store import write_whole

    for path in (as_json, html):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{path.parent} is no folder; make it first")
    report = linted(
        dataset,
        config,
        split,
        rules=[name.strip() for name in (rules or "").split(",") if name.strip()],
        limit=limit,
        max_length=max_length,
        near_too=near,
        columns=mapping("columns", columns),
        processes=processes or os.cpu_count() or 1,
    )
    printed = as_json is not None and str(as_json) == "-"
    if as_json is not None and not printed:
        write_whole(as_json, json_of(report))
    if html is not None:
        from rlaif.lint.page import page

        write_whole(html, page(report).encode(errors="replace"))
    if printed:
        typer.echo(json_of(report), nl=False)
    else:
        _show(report)
        for path in (as_json, html):
            if path is not None:
                typer.echo(f"written: {path}")
    if report.count("error") or (strict and report.count("warning")):
        raise typer.Exit(1)


def _show(report: Report) -> None:
    from rich.console import Console

    from rlaif.cli.text import said
    from rlaif.lint.text import lines

    console = Console(soft_wrap=True, highlight=False)
    for text, style in lines(report, console.width):
        console.print(said(text, style))
