"""`rlaif judge audit`, `compare`, `agreement`: how far judges, and people, can be trusted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif.cli.generate import AllowCode, Assignments, Batch, MaxCalls, MaxCost, MaxTime, end, mapping, observer, pair
from rlaif.cli.options import RunsDir
from rlaif.cli.tables import print_line, print_table
from rlaif.cli.text import harmless

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif.audit.live import Answers
    from rlaif.audit.report import Audit, Classes, Comparison
    from rlaif.audit.table import Items, Judged

judge = typer.Typer(
    help="How far judges can be trusted: against people's labels, and against each other.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
File = Annotated[
    Path | None, typer.Argument(help="Items with labels and verdicts: JSONL, CSV or Parquet, gzipped or not.")
]
Run = Annotated[
    str | None,
    typer.Option(help="A run instead of a file: its verdicts, by the labels of `rlaif label`; with --judge, its name."),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="ROLE=NAME,...",
        help="Which column is what: item, prompt, a, b, label, annotators, group, judge, principle, winner, winner_ab, "
        "winner_ba, p_ab, p_ba, generator_a, generator_b, cost_usd. Several are joined: judge=model+strategy.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="WORD=SIDE,...",
        help="What the labels mean: 0=a,1=b,2=tie. [1, a, first, true; 2, b, second, false; tie]",
    ),
]
_CONFLICTS = 20  # lines
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output instead of tables.")]


@judge.command("audit")
def audit(
    file: File = None,
    run: Run = None,
    columns: Columns = None,
    labels: Labels = None,
    own: Annotated[
        list[str] | None,
        typer.Option(metavar="JUDGE=GENERATOR", help="Whose responses are the judge's own, if not of its name."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report. [NAME-audit; of a run, in its folder]")
    ] = None,
    plots: Annotated[bool, typer.Option(help="Draw them too.")] = True,
    as_json: AsJson = False,
    runs_dir: RunsDir = Path("runs"),
    model: Annotated[
        str | None, typer.Option("--judge", metavar="MODEL", help="Ask this judge about the file's items: a run.")
    ] = None,
    constitution: Annotated[str | None, typer.Option(help="Ask by this one. [the pipeline's]")] = None,
    pipeline: Annotated[str | None, typer.Option(help="Ask as the judge stages of this pipeline do. [rejudge]")] = None,
    assignments: Assignments = None,
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    max_time: MaxTime = None,
    batch: Batch = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what asking would take, and ask nothing.")] = False,
    allow_code: AllowCode = False,
) -> None:
    """Hold verdicts against people's labels: those of a file or run, or new ones by --judge, --pipeline.

    Writes audit.json, audit.md for a dataset's card, and plots.
    """
    from rich.console import Console

    from rlaif.errors import ConfigError

    live = model is not None or pipeline is not None or constitution is not None
    limits = (max_cost, max_calls, max_time)
    if not live and (assignments or limits != (None, None, None) or dry_run or batch or allow_code):
        raise ConfigError(
            "--set, --max-*, --dry-run, --batch and --allow-code are for asking a judge: give --judge MODEL"
        )

    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder")
    with _installed():
        from rlaif.audit.report import as_json as json_of
        from rlaif.audit.report import audited, write

        judges: Sequence[Judged]
        if live:
            name, answers, folder = _asked(
                file,
                as_json,
                columns=mapping("columns", columns),
                labels=mapping("labels", labels),
                pipeline=pipeline or "rejudge",
                judge=model,
                constitution=constitution,
                run=run,
                runs_dir=runs_dir,
                set=assignments or (),
                dry_run=dry_run,
                max_cost=max_cost,
                max_calls=max_calls,
                max_time=max_time,
                batch=batch,
                allow_code=allow_code,
            )
            items, judges, together = answers.items, answers.judges, answers.together
        else:
            name, items, judges, together = _read(file, run, columns, labels, runs_dir)
            folder = runs_dir / name / "labels-audit" if run else Path(f"{_stem(name)}-audit")
        own_of = {who: (whose,) for who, whose in (pair("own", one) for one in own or ())}
        there = [judged.judge for judged in judges]
        for who in own_of:
            if who not in there:
                raise ConfigError(f"--own {who}: no judge of that name; there are: {', '.join(there)}")
        found = audited(name, items, judges, own_of, together)
        folder = out or folder
        written = write(found, folder, plots=plots)
    if as_json:
        typer.echo(json_of(found), nl=False)
        return
    console = Console()
    _show_audit(console, found)
    print_line(console, f"\nin {folder}: {', '.join(path.name for path in written)}")


@judge.command("compare")
def compare(
    file: File = None,
    run: Run = None,
    columns: Columns = None,
    labels: Labels = None,
    against: Annotated[
        str | None, typer.Option(metavar="JUDGE", help="Compare each with this one. [all with all; of many, the best]")
    ] = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Judges, and principles, beside each other on the same items; asks no model.

    Models, prompts and principles are judges each: name the columns that tell them apart, as judge=model+prompt.
    """
    from rich.console import Console

    from rlaif.errors import ConfigError

    with _installed():
        from rlaif.audit.report import compared

        name, items, judges, together = _read(file, run, columns, labels, runs_dir)
        judges = [*judges, *([together] if together else [])]
        names = [judged.judge for judged in judges]
        if against is not None and against not in names:
            raise ConfigError(f"no judge '{against}' in {name}; there are: {', '.join(names) or 'none'}")
        found = compared(items, judges, against)
    if as_json:
        typer.echo(_json(found))
        return
    _show_comparison(Console(), found)


@judge.command("agreement")
def agreement(
    file: Annotated[Path, typer.Argument(help="JSONL, CSV or Parquet, gzipped or not.")],
    raters: Annotated[
        list[str], typer.Argument(help="Columns, a rater's choices each: people, models, their verdict.")
    ],
    as_json: AsJson = False,
) -> None:
    """How far raters agree who put every row into one of several classes; for labels that compare nothing."""
    from rich.console import Console

    with _installed():
        from rlaif.audit.report import classes_of

        found = classes_of(file, raters)
    if as_json:
        typer.echo(_json(found))
        return
    _show_classes(Console(), found)


def _stem(name: str) -> str:
    """A file's name without what says its format."""
    return re.sub(r"\.(jsonl|ndjson|csv|parquet)(\.gz)?$", "", name, flags=re.IGNORECASE)


def _read(
    file: Path | None, run: str | None, columns: str | None, labels: str | None, runs_dir: Path
) -> tuple[str, Items, Sequence[Judged], Judged | None]:
    """The file's or run's name, its items, judges, and what these say together."""
    from rlaif.errors import ConfigError

    if (file is None) == (run is None):
        raise ConfigError("give a labelled file, or --run NAME for the verdicts of a run")
    if file is not None:
        from rlaif.audit.read import read_labelled

        return file.name, *read_labelled(file, mapping("columns", columns), mapping("labels", labels)), None
    from rlaif.audit.live import of_run
    from rlaif.runs import existing_run

    assert run is not None
    if columns or labels:
        raise ConfigError("--columns and --labels are for a file; a run has columns of its own")
    return run, *of_run(existing_run(runs_dir, run))


def _asked(file: Path | None, as_json: bool, **given: Any) -> tuple[str, Answers, Path]:  # Any: as of api.audit
    """A live audit: the file's name, the answers, where their report goes. Ends the command if not all are there."""
    from rlaif import api
    from rlaif.errors import ConfigError

    if file is None:
        raise ConfigError("--judge, --pipeline and --constitution ask a judge about a labelled file: give the file too")
    result, answers = api.audit(file, observer=observer(as_json), **given)
    if result.status != "done":
        end(result, as_json)
        raise typer.Exit
    if result.failed:
        note = f"{result.failed:,} items failed and are not in the figures; ask again: rlaif retry {result.run}"
        typer.echo(harmless(note), err=True)
    return file.name, answers, result.folder / "audit"


@contextmanager
def _installed() -> Iterator[None]:
    """The libraries of an audit are an extra."""
    from rlaif.errors import ConfigError

    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"an audit needs {error.name}; run: pip install 'rlaif-kit[audit]'") from error


def _json(found: object) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode()


# --- tables ---


def _show_audit(console: Console, audit: Audit) -> None:
    from rlaif.audit.text import LEGEND, rows
    from rlaif.figures import decimal, percent

    print_line(console, f"{audit.source}: {audit.items:,} items, {audit.labelled:,} of them labelled")
    if audit.longer_is_better.n:
        print_line(console, f"the longer response is the better one in {percent(audit.longer_is_better)}")
    if audit.judges:
        print_table(console, *rows(audit.judges))
        print_line(console, LEGEND, "dim")
    if people := audit.panel.annotators:
        gold = [[name, decimal(figure)] for name, figure in audit.panel.annotators_to_gold.items()]
        print_table(console, ["annotator", "kappa with the label"], gold)
        print_line(console, f"Krippendorff's alpha of the annotators: {_alpha(people.alpha)}")
    if judges := audit.panel.judges:
        print_line(console, f"Krippendorff's alpha of the judges: {_alpha(judges.alpha)}")
    for note in audit.notes:
        print_line(console, f"- {note}")


def _show_comparison(console: Console, found: Comparison) -> None:
    from rlaif.figures import percent, spread

    if found.against is not None:
        print_line(console, f"each against {found.against}")
    head = ["judge", "against", "items", "points better", "it better", "the other", "McNemar p"]
    lines = [
        [one.first, one.second, f"{one.accuracy.n:,}", spread(one.accuracy), f"{one.only_first:,}",
         f"{one.only_second:,}", "" if one.mcnemar is None else f"{one.mcnemar:.2g}"]
        for one in found.differences
    ]  # fmt: skip
    if lines:
        print_table(console, head, lines, names=2)
        print_line(
            console, "95% intervals in brackets, of items drawn anew; a p for each two, uncorrected for their number"
        )
    else:
        print_line(console, "one judge only: nothing to compare it with")
    if found.principles:
        head = ["principle", "asked", "decides", "right"]
        lines = [
            [one.principle, f"{one.asked:,}", percent(one.decides), percent(one.accuracy)] for one in found.principles
        ]
        print_table(console, head, lines)
    if found.conflicts:
        lines = [[*one.principles, f"{one.conflicts.n:,}", percent(one.conflicts)] for one in found.conflicts]
        print_table(console, ["principle", "and", "items", "prefer different responses"], lines[:_CONFLICTS], names=2)
        if (more := len(lines) - _CONFLICTS) > 0:
            print_line(console, f"... and {more:,} more: --json")


def _show_classes(console: Console, found: Classes) -> None:
    from rlaif.figures import decimal

    print_line(console, f"{found.rows:,} rows in {len(found.classes)} classes: {', '.join(found.classes)}")
    lines = [[a, b, f"{kappa.n:,}", decimal(kappa, 3)] for a, b, kappa in found.pairs]
    print_table(console, ["rater", "and", "rows", "kappa"], lines, names=2)
    print_line(console, f"Krippendorff's alpha of all: {_alpha(found.alpha)}")


def _alpha(alpha: float | None) -> str:
    return "undefined: there is no disagreement to be had" if alpha is None else f"{alpha:.3f}"
