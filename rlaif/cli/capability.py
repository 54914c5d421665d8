"""`rlaif eval capability`: what models can do besides, before and after training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlaif.cli.options import RunsDir


def capability(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Folders of weights or adapters, hub names. First: before.")
    ],
    tasks: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Ours, those of lm-evaluation-harness, or YAML files. [our three]"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many items of each task. [all]")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Items computed together.")] = 16,
    run: Annotated[str | None, typer.Option(help="Its name. [after the last model]")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write it there. [runs/RUN/evaluation]")] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json instead of tables.")] = False,
) -> None:
    """How well models solve tasks with known answers; the others against the first, item by item.

    Our own three (sums, common knowledge, instructions) need no network, and fit a small model on a CPU.
    What was computed for the same weights is not computed again. Writes evaluation.json and evaluation.md.
    """
    from rich.console import Console

    from rlaif.cli.tables import print_line, print_table
    from rlaif.cli.text import harmless
    from rlaif.evaluate import capability as evaluated
    from rlaif.evaluate.models import run_name
    from rlaif.evaluate.report import FOLDER
    from rlaif.runs import checked_name

    folder = out or runs_dir / checked_name(run or run_name("capability", models[-1])) / FOLDER
    chosen = [task.strip() for task in tasks.split(",") if task.strip()] if tasks else []

    def starts(model: str, log: Path) -> None:
        typer.echo(harmless(f"asking {model}, its log: {log}"), err=True)

    found = evaluated.capability(models, folder, chosen, limit, batch_size, starts)
    written = evaluated.write(found, folder)
    if as_json:
        typer.echo(evaluated.as_json(found), nl=False)
        return
    console = Console()
    print_table(console, *evaluated.scores_table(found), names=2)
    if found.paired:
        print_table(console, *evaluated.paired_table(found), names=2)
    print_line(console, evaluated.LEGEND, "dim")
    print_line(console, f"\nin {folder}: {', '.join(path.name for path in written)}")
