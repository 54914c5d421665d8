"""`rlaif eval reward MODEL ... --data PAIRS`: how far reward models can be trusted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif.cli.generate import mapping
from rlaif.cli.options import RunsDir
from rlaif.cli.tables import print_line
from rlaif.cli.text import harmless

if TYPE_CHECKING:
    from rlaif.evaluate.reward_figures import Evaluation


def reward(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Folders of reward models, adapters too, or names on the hub."),
    ],
    data: Annotated[
        str,
        typer.Option(help="Labelled answers: a run's name, a JSONL, CSV or Parquet file, a folder, OWNER/NAME."),
    ],
    config: Annotated[str | None, typer.Option(help="Of several this one. [preference, default]")] = None,
    split: Annotated[str | None, typer.Option(help="This split. [test, where there is one; else all]")] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="ROLE=NAME,...", help="Columns of other names: prompt, chosen, rejected, answers, score."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N prompts. [10,000]")] = None,
    combine: Annotated[
        str, typer.Option(help="Several models together: mean, median, min, or penalised (mean less the spread).")
    ] = "mean",
    penalty: Annotated[float, typer.Option(min=0, help="Of --combine penalised: so many standard deviations.")] = 1.0,
    run: Annotated[str | None, typer.Option(help="Name of the evaluation. [eval-reward-MODEL]")] = None,
    runs_dir: RunsDir = Path("runs"),
    plots: Annotated[bool, typer.Option(help="Draw them too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to standard output instead of a table.")] = False,
) -> None:
    """Hold reward models against pairs of which the better answer is known, or against ratings.

    Accuracy beside that of choosing the longer answer, calibration, rank correlation with ratings; of several models
    also what they say together, and whether their disagreement tells of errors. Scores are journaled. Writes
    evaluation.json, evaluation.md and pictures into RUNS-DIR/NAME/evaluation.
    """
    from typing import get_args

    from rlaif.errors import ConfigError
    from rlaif.evaluate.models import run_name
    from rlaif.evaluate.reward_pairs import read_groups
    from rlaif.evaluate.reward_report import as_json as json_of
    from rlaif.evaluate.reward_report import write_rewards
    from rlaif.evaluate.rewards import evaluate_rewards
    from rlaif.judges.ensemble import Combine
    from rlaif.runs import checked_name

    how = next((known for known in get_args(Combine) if known == combine), None)
    if how is None:
        raise ConfigError(f"--combine {combine}: unknown; there are: {', '.join(get_args(Combine))}")
    folder = runs_dir / checked_name(run or run_name("eval-reward", *models))
    labelled = read_groups(data, config, split, columns=mapping("columns", columns), limit=limit, runs_dir=runs_dir)
    with _progress() as progress:
        found = evaluate_rewards(
            models, labelled, folder=folder, environment=os.environ, combine=how, penalty=penalty, progress=progress
        )
    files = write_rewards(found, folder, plots=plots)
    if as_json:
        typer.echo(json_of(found), nl=False)
        return
    _show(found)
    for path in files:
        typer.echo(harmless(f"written: {path}"))


@contextmanager
def _progress() -> Iterator[Any]:  # Any: what evaluate_rewards takes
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def note(model: str, done: int, of: int) -> None:
            if model not in tasks:
                tasks[model] = bars.add_task(harmless(model).replace("[", r"\["), total=of)
            bars.update(tasks[model], completed=done)

        yield note


def _show(found: Evaluation) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rlaif.cli.text import said
    from rlaif.evaluate.reward_report import LEGEND, notes, reward_table

    console = Console()
    head, lines = reward_table(found)
    # Models across: there are few of them, and many figures.
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column(head[0])
    for line in lines:
        drawn.add_column(said(line[0]), justify="right", overflow="fold")
    for i, name in enumerate(head[1:], 1):
        drawn.add_row(name, *(said(line[i]) for line in lines))
    print_line(console, f"{found.data}: {found.shape}; splits: {', '.join(found.splits)}")
    console.print(drawn)
    print_line(console, LEGEND, "dim")
    for note in notes(found):
        print_line(console, f"- {note}")
