"""`rlaif eval safety`, `compare`, `agreement`: models held against prompts, each other, and people's labels."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif.cli.generate import AllowCode, MaxCalls, MaxCost, MaxTime, end, mapping, observer
from rlaif.cli.options import RunsDir
from rlaif.cli.tables import print_line, print_table
from rlaif.cli.text import harmless

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif.evaluate.asking import Answered
    from rlaif.evaluate.headtohead import HeadToHead
    from rlaif.evaluate.near import Near
    from rlaif.evaluate.report import Found
    from rlaif.evaluate.safety import Safety
    from rlaif.evaluate.sheet import Agreement
    from rlaif.job import Result

evaluate = typer.Typer(
    help="Models held against prompts, against each other, and their evaluation against people's labels.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL", help="provider/model, or the folder of one. The first is before."),
]
ColumnsOption = typer.Option(metavar="ROLE=NAME,...", help="Which column is what: prompt, category. [known names]")
WhereOption = typer.Option(metavar="NAME=VALUE,...", help="Only the rows with these values, like label=safe.")
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many prompts of each set. [all]")]
RunName = Annotated[str | None, typer.Option("--run", help="Its name. [after the last model and all that is asked]")]
Against = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DATA", help="Training data: warn of prompts that are in it. A set, file or folder. Repeatable."
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, like models.m1.slots=8 of the first. Repeatable."),
]
Plots = Annotated[bool, typer.Option(help="Draw them too.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what asking would take, and ask nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print evaluation.json to standard output instead of tables.")]


@evaluate.command("safety")
def safety(
    models: Models,
    unsafe: Annotated[
        str, typer.Option(metavar="PROMPTS", help="To be refused: a bundled set; JSONL, CSV or Parquet; hf://DATASET.")
    ] = "redteam",
    safe: Annotated[str, typer.Option(metavar="PROMPTS", help="To be answered.")] = "borderline",
    columns_unsafe: Annotated[str | None, ColumnsOption] = None,
    columns_safe: Annotated[str | None, ColumnsOption] = None,
    where_unsafe: Annotated[str | None, WhereOption] = None,
    where_safe: Annotated[str | None, WhereOption] = None,
    limit: Limit = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 128,
    judge: Annotated[str | None, typer.Option(metavar="MODEL", help="A second opinion on who refuses.")] = None,
    constitution: Annotated[
        str | None, typer.Option(help="The judge rates each answer by a principle of this one, too.")
    ] = None,
    classifier: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="A second opinion on harm: a text classifier, or package.module:Class."),
    ] = None,
    against: Against = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Write answers to label by hand: rlaif eval agreement.")
    ] = None,
    sheet_size: Annotated[int, typer.Option(min=1, help="How many of them.")] = 60,
    run: RunName = None,
    runs_dir: RunsDir = Path("runs"),
    assignments: Assignments = None,
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    max_time: MaxTime = None,
    dry_run: DryRun = False,
    plots: Plots = True,
    as_json: AsJson = False,
) -> None:
    """Do models refuse what they should, and only that?

    One greedy answer to each prompt; whether it refuses is read from its text. Writes evaluation.json, .md and plots
    into the run's folder. Exit codes: as of generate.
    """
    from rlaif.budget import Limits
    from rlaif.errors import ConfigError
    from rlaif.evaluate.asking import Asking, Options, ask
    from rlaif.evaluate.classifier import load_classifier
    from rlaif.evaluate.models import judge_of, models_of
    from rlaif.evaluate.notes import safety_notes
    from rlaif.evaluate.prompts import PromptSet
    from rlaif.evaluate.safety import SAFE, UNSAFE
    from rlaif.evaluate.safety import safety as safety_of
    from rlaif.evaluate.sheet import check_new, write_sheet

    if constitution is not None and judge is None:
        raise ConfigError("--constitution is what a judge rates by: give --judge MODEL, too")
    if sheet is not None:
        check_new(sheet)
    classifiers = {name: load_classifier(name) for name in classifier or ()}
    judging = judge_of(judge) if judge else None
    stages = [{"rate": {"rubric": "compliance"}}] if judge else []
    stages += [{"rate": {"principles": "draw"}}] if constitution else []
    asking = Asking(
        kind="safety",
        models=models_of(models),
        sets={
            UNSAFE: PromptSet(unsafe, mapping("columns-unsafe", columns_unsafe), mapping("where-unsafe", where_unsafe)),
            SAFE: PromptSet(safe, mapping("columns-safe", columns_safe), mapping("where-safe", where_safe)),
        },
        max_tokens=max_tokens,
        stages=tuple(stages),
        judge=judging.spec if judging else None,
        constitution=constitution,
        limit=limit,
        assignments=tuple(assignments or ()),
    )
    limits = Limits.of(max_cost, max_calls, max_time)
    options = Options(runs_dir, os.environ, run, observer(as_json), limits, dry_run=dry_run)
    result, answered = ask(asking, options)
    if answered is None:
        end(result, as_json)
        return
    found = safety_of(answered, judging.name if judging else None, classifiers)
    notes = safety_notes(found, answered, _near(against, answered))
    if sheet is not None:
        n = write_sheet(answered, sheet, sheet_size)
        told = f"{n:,} answers to label in {sheet}; then: rlaif eval agreement {shlex.quote(str(sheet))}"
        typer.echo(harmless(told), err=True)
    _end(replace(found, notes=notes), answered, result, plots, as_json)


@evaluate.command("compare")
def compare(
    models: Models,
    judge: Annotated[str, typer.Option(metavar="MODEL", help="Who prefers one of two answers.")],
    prompts: Annotated[
        str, typer.Option(help="A bundled set; a JSONL, CSV or Parquet file; hf://DATASET.")
    ] = "helpful",
    columns: Annotated[str | None, ColumnsOption] = None,
    where: Annotated[str | None, WhereOption] = None,
    constitution: Annotated[str, typer.Option(help="By what the judge prefers: bundled or a file.")] = "general",
    limit: Limit = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 512,
    against: Against = None,
    run: RunName = None,
    runs_dir: RunsDir = Path("runs"),
    assignments: Assignments = None,
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    max_time: MaxTime = None,
    dry_run: DryRun = False,
    allow_code: AllowCode = False,
    plots: Plots = True,
    as_json: AsJson = False,
) -> None:
    """Whose answers does a judge prefer, in both orders?

    One greedy answer of each model to each prompt, and every two of them compared. Writes evaluation.json, .md and
    plots into the run's folder. Exit codes: as of generate.
    """
    from rlaif.budget import Limits
    from rlaif.errors import ConfigError
    from rlaif.evaluate.asking import Asking, Options, ask
    from rlaif.evaluate.headtohead import head_to_head
    from rlaif.evaluate.models import judge_of, models_of
    from rlaif.evaluate.notes import comparison_notes
    from rlaif.evaluate.prompts import PromptSet
    from rlaif.evaluate.strengths import check_installed

    if len(models) < 2:
        raise ConfigError("give two models or more to compare")
    if len(models) > 2:
        check_installed()
    judging = judge_of(judge)
    asking = Asking(
        kind="compare",
        models=models_of(models),
        sets={"prompts": PromptSet(prompts, mapping("columns", columns), mapping("where", where))},
        max_tokens=max_tokens,
        stages=({"judge": {}},),
        judge=judging.spec,
        constitution=constitution,
        limit=limit,
        assignments=tuple(assignments or ()),
    )
    limits = Limits.of(max_cost, max_calls, max_time)
    options = Options(runs_dir, os.environ, run, observer(as_json), limits, dry_run=dry_run, allow_code=allow_code)
    result, answered = ask(asking, options)
    if answered is None:
        end(result, as_json)
        return
    found = head_to_head(answered, judging.name)
    notes = comparison_notes(found, answered, _near(against, answered))
    _end(replace(found, notes=notes), answered, result, plots, as_json)


@evaluate.command("agreement")
def agreement(
    sheet: Annotated[Path, typer.Argument(help="What --sheet wrote, with comply, partial or refuse as labels.")],
    column: Annotated[str, typer.Option(help="Whose labels.")] = "label",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to standard output instead of tables.")] = False,
) -> None:
    """How far do the detector and people agree on a sheet? Asks no model."""
    from rlaif.evaluate.sheet import agreement as agreement_of

    found = agreement_of(sheet, column)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
        return
    _show_agreement(found)


def _near(against: Sequence[str] | None, answered: Answered) -> list[Near]:
    from rlaif.evaluate.near import near

    return [near(source, answered.records) for source in against or ()]


def _end(found: Found, answered: Answered, result: Result, plots: bool, as_json: bool) -> None:
    """Write it, show it, and exit with the code of how the run ended."""
    from rich.console import Console

    from rlaif.evaluate.report import as_json as json_of
    from rlaif.evaluate.report import write
    from rlaif.evaluate.safety import Safety

    written = write(found, answered, result.folder, plots=plots)
    if as_json:
        typer.echo(json_of(found), nl=False)
    else:
        console = Console()
        if isinstance(found, Safety):
            _show_safety(console, found)
        else:
            _show_comparison(console, found)
        for note in found.notes:
            print_line(console, f"- {note}")
        print_line(console, f"\nin {written[0].parent}: {', '.join(path.name for path in written)}")
    if result.failed:
        raise typer.Exit(1)


def _show_safety(console: Console, found: Safety) -> None:
    from rlaif.evaluate import text

    print_table(console, *text.safety_table(found))
    print_line(console, text.SAFETY_LEGEND, "dim")
    if found.paired:
        print_table(console, *text.paired_table(found.paired), names=2)
        print_line(console, text.PAIRED_LEGEND, "dim")
    if (second := text.opinions_table(found))[1]:
        print_table(console, *second, names=3)
        print_line(console, text.agreement_line(found), "dim")
    if (rated := text.constitution_table(found))[1]:
        print_table(console, *rated)
        print_line(console, "the judge's mean score by the constitution, from -1 to 1", "dim")
    print_table(console, *text.style_table([(model.model, model.style) for model in found.models]))
    print_line(console, text.STYLE_LEGEND, "dim")


def _show_comparison(console: Console, found: HeadToHead) -> None:
    from rlaif.evaluate import text

    print_table(console, *text.pairs_table(found), names=2)
    print_line(console, text.PAIRS_LEGEND, "dim")
    if found.bradley_terry:
        print_table(console, *text.strengths_table(found))
        print_line(console, "Bradley-Terry, in log-odds to beat the average of these models", "dim")
    print_table(console, *text.style_table([(one.model, one.style) for one in found.models]))
    print_line(console, text.STYLE_LEGEND, "dim")


def _show_agreement(found: Agreement) -> None:
    from rich.console import Console

    from rlaif.figures import decimal, percent

    console = Console()
    left = f", {found.unlabelled:,} without a label" if found.unlabelled else ""
    print_line(console, f"{found.labelled:,} labelled answers{left}")
    kappa, of_three = (decimal(one) or "undefined" for one in (found.kappa, found.kappa_of_three))
    print_line(console, f"the detector is right in {percent(found.right)}")
    print_line(console, f"kappa of refused or not: {kappa}; of the three classes: {of_three}")
    lines = [[said, *(f"{n:,}" for n in by.values())] for said, by in found.counts.items()]
    print_table(console, ["people", *(f"detector: {said}" for said in found.counts)], lines)
