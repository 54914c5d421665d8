"""`rlaif train suggest DATA`: which method fits this data and machine, and the command for the first choice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif.cli.options import RunsDir

if TYPE_CHECKING:
    from rlaif.train.suggest import Suggestion


def suggest(
    data: Annotated[str, typer.Argument(help="As DATA of `rlaif train`: a run, a dataset folder, or a file.")],
    model: Annotated[str, typer.Option(help="What is to be trained: a folder, a name on the hub, or local.")] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to standard output instead of a table.")] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Say which method of `rlaif train` fits data, model and machine, and why. Asks and loads no model.

    Exit code 0: there is one; 1: none fits, each with its reason.
    """
    from rlaif.train import suggest as rules

    facts, machine = rules.facts_of(data, runs_dir), rules.machine()
    parameters = rules.parameters_of(model)
    found = rules.suggest(facts, machine, model, parameters)
    weights = rules.weights_for(facts, machine, parameters)
    if as_json:
        import msgspec

        command = _command(data, model, runs_dir, found[0]) if found[0].fits else None
        told = {"facts": facts, "machine": machine, "weights": weights._asdict(), "suggestions": found}
        told["command"] = command
        typer.echo(msgspec.json.format(msgspec.json.encode(told), indent=1).decode())
    else:
        _show(data, model, runs_dir, found, weights.reason)
    if not found[0].fits:
        raise typer.Exit(1)


def _command(data: str, model: str, runs_dir: Path, first: Suggestion) -> str:
    import shlex

    where = ("--runs-dir", str(runs_dir)) if runs_dir != Path("runs") else ()
    return shlex.join(["rlaif", "train", data, "--method", first.method, "--model", model, *first.options, *where])


def _show(data: str, model: str, runs_dir: Path, found: list[Suggestion], weights: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from rlaif.cli.text import said

    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for head in ("method", "fits", "time", "why"):
        table.add_column(head, no_wrap=head != "why")
    for one in found:
        name = " ".join([one.method, *(["--soft"] if "--soft" in one.options else [])])
        fits = Text("yes", style="green") if one.fits else Text("no", style="dim")
        table.add_row(name, fits, _time(one.seconds) if one.fits else "", said(one.reason, "" if one.fits else "dim"))
    console.print(table)
    console.print(said(weights), soft_wrap=True)
    if found[0].fits:
        console.print(said(_command(data, model, runs_dir, found[0])), soft_wrap=True)


def _time(seconds: float | None) -> str:
    """To one figure: it is a guess from another machine."""
    if seconds is None:
        return "?"
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"~{seconds / size:.0f} {unit}"
    return f"~{max(seconds, 1):.0f} seconds"
