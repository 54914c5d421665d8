"""`rlaif loop`: rounds of generate, train and evaluate, a line for each step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif.cli.options import RunsDir

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from rlaif.loop.plan import Place
    from rlaif.loop.report import Round
    from rlaif.loop.rounds import Ended, Event, Judged
    from rlaif.loop.settings import LoopSettings
    from rlaif.loop.steps import Step


def loop(
    file: Annotated[str, typer.Argument(metavar="LOOP", help="Bundled loop or a YAML file.")],
    rounds: Annotated[int | None, typer.Option(min=1, help="How many; may grow later. [the file's]")] = None,
    out: Annotated[Path | None, typer.Option(help="The loop's folder. [loops/NAME, as the file is called]")] = None,
    runs_dir: RunsDir = Path("runs"),
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any setting, like generate.limit=50 or dpo.beta=0.2. Repeatable."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and list the commands; run none of them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json instead of a table.")] = False,
) -> None:
    """Improve a model round by round: generate from it, train it, evaluate it, and take it only if it is better.

    Every step is a command of its own with a log. The same command again goes on where the last one stopped.
    Exit codes: 0 all rounds were taken, 1 a step failed or a gate held a model back, 2 bad settings, 130 interrupted.
    """
    from rich.console import Console

    from rlaif.loop.plan import Place
    from rlaif.loop.settings import load_loop
    from rlaif.runs import checked_name

    path, settings = load_loop(file, assignments or (), rounds)
    place = Place(out or Path("loops") / path.stem, runs_dir)
    checked_name(place.run(settings.rounds, "capability"))  # it begins the names of runs and models
    _check_commands(settings, place)
    console = Console(stderr=as_json)
    if dry_run:
        _show_plan(console, settings, place)
        return
    _check_installed(settings)
    from rlaif.loop.rounds import run_loop

    found: list[Round] = []
    with closing(run_loop(settings, place)) as events:
        for event in _shown(console, events):
            found.append(event.round)
    if as_json:
        from rlaif.loop.report import FILE

        typer.echo((place.out / FILE).read_text("utf-8"), nl=False)
    else:
        _show_end(console, place, found)
    if not found[-1].promoted:
        raise typer.Exit(1)


def _check_commands(settings: LoopSettings, place: Place) -> None:
    """Before hours of generating: an option that a command does not have, or a value that is none of it."""
    from typer.core import TyperGroup
    from typer.main import get_command

    from rlaif.cli import app
    from rlaif.errors import ConfigError
    from rlaif.loop.plan import steps

    for step in steps(settings, place, 1, settings.model, settings.model):
        command: Any = get_command(app)  # Any: click's, which typer carries within it
        arguments = list(step.arguments)
        try:
            while isinstance(command, TyperGroup):
                context = command.make_context(None, arguments)
                _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
            command.make_context(None, arguments)
        except typer.TyperException as error:
            raise ConfigError(f"{step.name}: {error.format_message()}; it would be: {step.command}") from None


def _check_installed(settings: LoopSettings) -> None:
    """Before hours of generating."""
    from importlib.util import find_spec

    from rlaif.errors import ConfigError

    if missing := [name for name in ("torch", "transformers", "trl") if find_spec(name) is None]:
        raise ConfigError(f"a loop trains, and needs {', '.join(missing)}; run: pip install 'rlaif-kit[train]'")
    if settings.engine == "vllm" and find_spec("vllm") is None:
        raise ConfigError("engine: vllm is not installed; run: pip install 'rlaif-kit[vllm]', or use transformers")


def _shown(console: Console, events: Iterator[Event]) -> Iterator[Judged]:
    """Prints a line for what has ended, and on a terminal what is under way; gives the rounds that are over."""
    from rlaif.loop.rounds import Begun, Ended, Judged, Waiting

    waited = False
    event = next(events, None)
    while event is not None:
        match event:
            case Waiting(step):
                if not waited:
                    _line(console, f"this loop was killed, and its step {step} is still at work; waiting for it")
                waited = True
            case Begun(step):
                with _under_way(console, step):
                    event = next(events, None)
                continue
            case Ended():
                _show_step(console, event)
            case Judged():
                _show_round(console, event)
                yield event
        event = next(events, None)


@contextmanager
def _under_way(console: Console, step: Step) -> Iterator[None]:
    """On a terminal a line that says for how long, and the last word of its log; elsewhere one line at the start."""
    from rich.live import Live

    begun = time.monotonic()
    if not console.is_terminal:
        _line(console, f"round {step.round}  {step.name}: begins; its log: {step.log}")
        yield
        return
    with Live(
        get_renderable=lambda: _now(step, time.monotonic() - begun, console.width),
        console=console,
        refresh_per_second=2,
        transient=True,
    ):
        yield


def _now(step: Step, seconds: float, width: int) -> Text:
    from rlaif.cli.text import said
    from rlaif.loop.report import duration
    from rlaif.loop.steps import last_line

    text = said(f"round {step.round}  {step.name:{_WIDTH}}  {duration(seconds):>12}  {last_line(step.log)}", "dim")
    text.truncate(width - 1, overflow="ellipsis")
    return text


_WIDTH = len("eval-capability")
_WIDE = 100  # columns of a terminal that have room for all of the table's


def _show_step(console: Console, ended: Ended) -> None:
    from rlaif.loop.report import duration

    took = "done before" if ended.before else duration(ended.report.seconds)
    _line(console, f"round {ended.step.round}  {ended.step.name:{_WIDTH}}  {took:>12}  {ended.report.said}")


def _show_round(console: Console, judged: Judged) -> None:
    found = judged.round
    style = "green" if found.promoted else "red"
    before = " (before)" if judged.before else ""
    _line(console, f"round {found.number}  {'taken' if found.promoted else 'not taken'}{before}: {found.reason}", style)


def _show_end(console: Console, place: Place, rounds: list[Round]) -> None:
    from rich import box
    from rich.table import Table

    from rlaif.cli.text import said
    from rlaif.loop.report import HEAD, TEXT, rows

    lines = rows(rounds)
    left_out = () if console.width >= _WIDE else ("words", "time")
    kept = [i for i, name in enumerate(HEAD) if name not in left_out and (not name or any(line[i] for line in lines))]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i in kept:
        table.add_column(HEAD[i], justify="right" if 0 < i < len(HEAD) - 1 else "left")
    for line in lines:
        table.add_row(*(said(line[i]) for i in kept))
    console.print(table)
    taken = [found for found in rounds if found.promoted]
    current = taken[-1].model if taken else rounds[0].first
    _line(console, f"model: {current.model} ({current.identity}); {place.current} names it")
    _line(console, f"report: {place.out / TEXT}")


def _show_plan(console: Console, settings: LoopSettings, place: Place) -> None:
    from rlaif.loop.rounds import planned

    plan = planned(settings, place)
    for step, done in plan:
        _line(console, f"{'done  ' if done else '      '}{step.command}")
    left = sum(not done for _, done in plan)
    _line(console, f"dry run: nothing was run. {left} of {len(plan)} steps in {settings.rounds} rounds are left")


def _line(console: Console, text: str, style: str = "") -> None:
    from rlaif.cli.text import said

    console.print(said(text, style), soft_wrap=not console.is_terminal)  # a log is of no width
