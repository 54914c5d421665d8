"""`rlaif diff A B`: whose pairs changed between two runs over the same prompts, and by which principles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif.cli.options import RunsDir

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rlaif.authoring.diff import Changes
    from rlaif.rundiff import Example, Fate, RunDiff, Side, What

SHOWN_LINES = 20  # of settings, and of principles


def diff(
    a: Annotated[str, typer.Argument(metavar="RUN_A", help="Name of a run.")],
    b: Annotated[str, typer.Argument(metavar="RUN_B", help="Name of another one over the same prompts.")],
    runs_dir: RunsDir = Path("runs"),
    limit: Annotated[int, typer.Option(min=0, max=3, help="Examples of each kind of change.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two runs: pairs that flipped, came and went, and the principles that are behind it."""
    from rlaif import rundiff

    found = rundiff.diff(runs_dir, a, b)
    if as_json:
        import json

        typer.echo(json.dumps(found.plain(), indent=2))
        return
    from rich.console import Console

    show(Console(), found, limit)


def show(console: Console, found: RunDiff, examples: int) -> None:
    """`examples` of each kind of change, at most."""
    from rlaif.cli.text import said

    _head(console, found)
    _settings(console, found)
    console.print(_pairs(found))
    if found.parts:
        console.print(_principles(found))
        signs = f"-n drawn in '{found.a.run}' only, +n in '{found.b.run}' only, ~n in both with another outcome;"
        console.print(said(f"{signs} of each chain of rounds the first that differs", "dim"))
    taken: Counter[Fate] = Counter()
    for example in found.examples:
        taken[example.fate] += 1
        if taken[example.fate] <= examples:
            _example(console, example)


def _head(console: Console, found: RunDiff) -> None:
    from rlaif.cli.text import said

    a, b = found.a, found.b
    prompts = f"{found.both:,} prompt{'' if found.both == 1 else 's'} in both"
    alone = "".join(f"; {side.alone:,} only in '{side.run}'" for side in (a, b) if side.alone)
    console.print(said(f"from run '{a.run}' to run '{b.run}': {prompts}{alone}", "bold"))
    for side in (a, b):
        if note := _note(side):
            console.print(said(note, "yellow"))


def _note(side: Side) -> str:
    if side.status == "done":
        return ""
    return f"run '{side.run}' is not finished ({side.status}): its {side.records:,} records so far are compared"


def _settings(console: Console, found: RunDiff) -> None:
    from rlaif.cli.text import said

    lines = [*(_constitution(found.constitution) if found.constitution else ()), *found.settings]
    if not lines:
        console.print("the same settings")
    for line in lines[:SHOWN_LINES]:
        console.print(said(f"  {line}"))
    if len(lines) > SHOWN_LINES:
        console.print(f"  ... {len(lines) - SHOWN_LINES:,} more: --json")


def _constitution(changes: Changes) -> Iterator[str]:
    fields: dict[str, list[str]] = {}
    for one in changes.reworded:
        fields.setdefault(one.principle, []).append(one.field)
    for what, names in (
        ("added", changes.added),
        ("removed", changes.removed),
        ("renamed", [f"{one.before} -> {one.after}" for one in changes.renamed]),
        ("reworded", [f"{name} ({', '.join(texts)})" for name, texts in fields.items()]),
        ("weight", [f"{one.name} {one.before:g} -> {one.after:g}" for one in changes.weights]),
        ("changed", [f"{one.name}: {one.before} -> {one.after}" for one in changes.metadata]),
    ):
        if names:
            yield f"constitution, {what}: {', '.join(names)}"


def _pairs(found: RunDiff) -> Table:
    from rlaif.cli.text import said

    rows = _table("pairs", "all", "new texts", last="why there is none")
    names: dict[Fate, str] = {
        "agree": "agree",
        "flipped": "flipped: chosen and rejected swapped",
        "other_chosen": "another response is chosen",
        "other_rejected": "another response is rejected",
        "lost": "lost",
        "gained": "gained",
    }
    why = {"lost": found.lost, "gained": found.gained}
    for fate, name in names.items():
        reasons = _counts(why.get(fate, Counter()).most_common())
        before = "before: " if reasons and fate == "gained" else ""
        rows.add_row(name, f"{found.pairs[fate]:,}", f"{found.new_texts[fate]:,}", said(before + reasons))
    if found.no_pair:
        rows.add_row("records without a pair in both", f"{found.no_pair:,}", "", "")
    return rows


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts)


def _principles(found: RunDiff) -> Table:
    """Those with the most changed pairs first."""
    from rlaif.cli.text import said

    rows = _table("principle", "rounds", "verdicts", "changed pairs")
    edits = _edits(found.constitution) if found.constitution else {}
    ranked = sorted(found.parts, key=lambda name: (-found.behind[name], -found.parts[name].total(), name))
    for name in ranked[:SHOWN_LINES]:
        part = found.parts[name]
        rounds = _moves(part, "rounds_gone", "rounds_come", "rounds_other")
        verdicts = _moves(part, "verdicts_gone", "verdicts_come", "verdicts_other")
        edit = f" ({', '.join(edits[name])})" if name in edits else ""
        rows.add_row(said(f"{name}{edit}"), rounds, verdicts, f"{found.behind[name]:,}")
    if len(ranked) > SHOWN_LINES:
        rows.add_row(f"... {len(ranked) - SHOWN_LINES:,} more: --json", "", "", "")
    return rows


def _edits(changes: Changes) -> dict[str, list[str]]:
    """What was done to each principle."""
    edits: dict[str, list[str]] = {}
    for word, names in (
        ("added", changes.added),
        ("removed", changes.removed),
        ("renamed", [name for one in changes.renamed for name in (one.before, one.after)]),
        ("reworded", list(dict.fromkeys(one.principle for one in changes.reworded))),
        ("weight", [one.name for one in changes.weights]),
    ):
        for name in names:
            edits.setdefault(name, []).append(word)
    return edits


def _moves(part: Counter[What], gone: What, come: What, other: What) -> str:
    signs = ((part[gone], "-"), (part[come], "+"), (part[other], "~"))
    return " ".join(f"{sign}{count:,}" for count, sign in signs if count)


def _table(first: str, *numbers: str, last: str | None = None) -> Table:
    from rich import box
    from rich.table import Table

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows.add_column(first, overflow="fold")
    for name in numbers:
        rows.add_column(name, justify="right", no_wrap=True)
    if last is not None:
        rows.add_column(last)
    return rows


_WHAT: dict[What, str] = {
    "rounds_gone": "no longer revises by {}",
    "rounds_come": "revises by {} now",
    "rounds_other": "revised otherwise by {}",
    "verdicts_gone": "no longer judged by {}",
    "verdicts_come": "judged by {} now",
    "verdicts_other": "judged otherwise by {}",
}
_FATE: dict[Fate, str] = {
    "agree": "agrees, with new texts",
    "flipped": "flipped",
    "other_chosen": "another response is chosen",
    "other_rejected": "another response is rejected",
    "lost": "lost",
    "gained": "gained",
}
_CAUSES = 4


def _example(console: Console, example: Example) -> None:
    from rlaif.cli.text import said

    why = [_WHAT[cause.what].format(cause.principle) for cause in example.causes]
    why = [*why[:_CAUSES], *([f"{len(why) - _CAUSES} more"] if len(why) > _CAUSES else [])]
    reason = f" ({example.reason.replace('_', ' ')})" if example.reason else ""
    console.print(said(f"\n{example.id}: {_FATE[example.fate]}{reason}", "bold"), soft_wrap=True)
    if why:
        console.print(said(f"  {'; '.join(why)}"))
    lines = [("prompt", example.prompt, "")]
    for when, pair in (("before", example.before), ("now", example.after)):
        if pair is None:
            lines.append((when, "no pair", "dim"))
        else:
            lines += [(f"{when}, chosen", pair[0], "green"), (f"{when}, rejected", pair[1], "red")]
    for label, text, style in lines:
        room = max(20, console.width - 20)
        line = " ".join(text.split())
        console.print(said(f"  {label:<17}{line if len(line) <= room else line[: room - 4] + ' ...'}", style))
