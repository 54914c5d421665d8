"""`rlaif label RUN`: which of two responses is better, asked blind, one key a pair."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif.cli.options import RunsDir

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif.audit.labels import LabelFile, Shown
    from rlaif.store import RunFolder
    from rlaif.types import Messages

# A text is cut to so many lines of its place on the screen, unless it is asked for whole.
_LEAST_LINES = 6
_KEYS = "a  b  t: equally good  s: skip  u: undo  m: more of the texts  q: quit"


def label(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    n: Annotated[int, typer.Option("--n", min=1, help="How many pairs, with those you labelled before.")] = 50,
    annotator: Annotated[str, typer.Option("--as", metavar="NAME", help="Who labels; several people may.")] = "me",
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ask nothing: write what was labelled as a file to audit any judge on."),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Say which of two responses is better, without knowing whose they are; an audit then holds judges to it.

    Every answer is on disk at once: quit when you like, and go on with the same command. Without a terminal the
    answers are read from standard input, one a line.
    """
    from rich.console import Console

    from rlaif.audit.labels import LabelFile, to_label
    from rlaif.errors import ConfigError
    from rlaif.runs import existing_run

    if not annotator.strip():
        raise ConfigError("--as '': give a name, or leave it out")
    folder = existing_run(runs_dir, run)
    if write is not None:
        _write(folder, write)
        return
    pairs = to_label(folder, annotator, n)
    file = LabelFile(folder, annotator)
    console = Console()
    if file.mended:
        typer.echo("the last line of labels.jsonl was not whole, and was dropped: that pair is asked again", err=True)
    done = _ask(console, pairs, file, _key if sys.stdin.isatty() else _line)
    left = len(pairs) - done
    more = f"; {left:,} are left: the same command goes on" if left else ""
    console.print(f"{done:,} of {len(pairs):,} pairs have your answer{more}", soft_wrap=True, highlight=False)
    where = "" if runs_dir == Path("runs") else f" --runs-dir {runs_dir}"
    judged = any(record.verdicts for record in folder.records())
    if judged:
        typer.echo(f"hold the run's judges to it: rlaif judge audit --run {run}{where}")
    else:
        typer.echo(f"hold any judge to it: rlaif label {run} --write gold.jsonl{where}")


def _write(folder: RunFolder, path: Path) -> None:
    import msgspec

    from rlaif.audit.live import gold_of
    from rlaif.errors import ConfigError
    from rlaif.store import write_whole

    if path.suffix != ".jsonl":
        raise ConfigError(f"--write {path}: the file has one JSON object a line; give it a name that ends with .jsonl")
    rows = gold_of(folder)
    if not rows:
        raise ConfigError(f"run '{folder.name}' has no labels yet: rlaif label {folder.name}")
    write_whole(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    typer.echo(f"{len(rows):,} labelled pairs in {path}: rlaif judge audit {path} --judge MODEL")


def _ask(console: Console, pairs: list[Shown], file: LabelFile, read: Callable[[], str]) -> int:
    """Until all pairs have an answer, or the person has enough; gives how many have one."""
    said = file.said()
    order = [i for i, shown in enumerate(pairs) if shown.pair not in said]
    given: list[int] = []  # in this session, for undo
    at, whole = 0, False
    while at < len(order):
        shown = pairs[order[at]]
        _show(console, shown, f"pair {order[at] + 1} of {len(pairs)}", whole)
        key, whole = read(), False
        match key:
            case "a" | "b":
                file.add(shown.pair, shown.meant("a" if key == "a" else "b"))
            case "t":
                file.add(shown.pair, "tie")
            case "s":
                file.add(shown.pair, "skipped")
            case "u" if given:
                at -= 1
                file.add(pairs[given.pop()].pair, "undone")
                continue
            case "u":
                console.print("nothing to undo in this session")
                continue
            case "m":
                whole = True
                continue
            case "q" | "":
                break
            case _:
                console.print(f"keys: {_KEYS}", highlight=False)
                continue
        given.append(order[at])
        at += 1
    return len(pairs) - len(order) + at


def _show(console: Console, shown: Shown, title: str, whole: bool) -> None:
    from rich.rule import Rule

    from rlaif.cli.text import said

    room = max(_LEAST_LINES, (console.height - 8) // 3)
    console.print()
    console.print(Rule(said(title), style="dim"))
    cut = False
    for head, text in (("prompt", _prompt(shown.prompt)), ("A", shown.a), ("B", shown.b)):
        lines = said(text).wrap(console, console.width)
        console.print(said(head, "bold"))
        for line in lines if whole else lines[:room]:
            console.print(line)
        if not whole and len(lines) > room:
            cut = True
            console.print(said(f"... {len(lines) - room} more lines: m", "dim"))
        console.print()
    console.print(_KEYS if cut else _KEYS.replace("  m: more of the texts", ""), style="dim", highlight=False)


def _prompt(prompt: Messages) -> str:
    """A single turn as it is, a conversation with its roles."""
    if len(prompt) == 1:
        return prompt[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt)


def _key() -> str:
    """One key; Ctrl-C and Ctrl-D end it like q, since nothing is lost."""
    try:
        key = typer.getchar().lower()
    except (KeyboardInterrupt, EOFError):
        return "q"
    return "q" if key in "\x03\x04" else key if key.isprintable() else "?"


def _line() -> str:
    """The first letter of a line; "" at the end."""
    line = sys.stdin.readline()
    return line.strip().lower()[:1] or "?" if line else ""
