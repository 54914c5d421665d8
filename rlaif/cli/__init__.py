"""The command `rlaif`: parses, calls one function, prints."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rlaif.cli import (
    capability,
    clean,
    constitution,
    diff,
    evaluate,
    files,
    generate,
    importing,
    judge,
    label,
    lint,
    loop,
    push,
    rewards,
    serve,
    show,
    suggest,
    train,
)
from rlaif.cli.text import harmless
from rlaif.errors import ConfigError, ProviderError, RlaifError
from rlaif.version import __version__

app = typer.Typer(
    name="rlaif",
    help="From a written constitution to preference data and an aligned model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"rlaif {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Options of the command itself."""


class _DataOrSuggest(TyperGroup):
    """`rlaif train DATA...` needs no word of its own, as `rlaif train suggest DATA` does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: click's, which typer carries within it
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["run", *args])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == "run" else name, command, rest


_train = typer.Typer(
    cls=_DataOrSuggest, rich_markup_mode=None, help="Fine-tune a model with TRL; `train suggest` says by which method."
)

app.command("generate")(generate.generate)
app.command("retry")(generate.retry)
app.command("export")(generate.export)
app.command("label")(label.label)
app.command("show")(show.show)
app.command("diff")(diff.diff)
app.command("lint")(lint.lint)
app.command("clean")(clean.clean)
app.command("import")(importing.import_)
app.command("push")(push.push)
app.command("list")(files.list_all)
app.command("copy")(files.copy)
app.command("convert")(files.convert)
_train.command("run", hidden=True)(train.train)
_train.command("suggest")(suggest.suggest)
app.add_typer(_train, name="train")
app.command("loop")(loop.loop)
app.command("serve")(serve.serve)
evaluate.evaluate.command("reward")(rewards.reward)
evaluate.evaluate.command("capability")(capability.capability)
app.add_typer(evaluate.evaluate, name="eval")
app.add_typer(judge.judge, name="judge")
app.add_typer(constitution.constitution, name="constitution")
app.add_typer(files.journal, name="journal")


_INTERRUPTED = 130  # also what typer makes of a KeyboardInterrupt


def main() -> None:
    """Exit codes: 0 done, 1 some records failed or an error, 2 bad usage or settings, 3 a limit, 130 interrupted."""
    try:
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
    except typer.TyperException as error:
        message = error.format_message()
        is_help = message.startswith("Usage:")  # a command without arguments answers with its help
        typer.echo(message if is_help else f"rlaif: {harmless(message)} (rlaif --help)", err=True)
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("interrupted; run the same command again to go on", err=True)
        code = _INTERRUPTED
    except RlaifError as error:
        typer.echo(f"rlaif: {harmless(str(error))}", err=True)
        code = 2 if isinstance(error, ConfigError) else 1
        if isinstance(error, ProviderError):
            typer.echo("the run stopped; what was answered is kept: run the same command again to go on", err=True)
    except BrokenPipeError:  # `rlaif show RUN | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
