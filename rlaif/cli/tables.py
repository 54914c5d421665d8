"""Tables and lines on a terminal: no text of a user or a model is obeyed, and none is broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_NAME = 34  # characters


def print_line(console: Console, text: str, style: str = "") -> None:
    from rlaif.cli.text import said

    console.print(said(text, style))


def print_table(console: Console, head: Sequence[str], lines: Sequence[Sequence[str]], names: int = 1) -> None:
    """The first columns are `names`. What the terminal has no room for is left out, from the right, and named."""
    from rich import box
    from rich.table import Table

    from rlaif.cli.text import said

    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    widths[:names] = [min(width, _NAME) for width in widths[:names]]
    fits = [n for n in range(names + 1, len(head) + 1) if sum(widths[:n]) + 2 * n <= console.width]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i in range(max(fits, default=names + 1)):
        table.add_column(
            head[i], justify="left" if i < names else "right", no_wrap=True, overflow="ellipsis", max_width=widths[i]
        )
    for line in lines:
        table.add_row(*(said(cell) for cell in line[: len(table.columns)]))
    console.print(table)
    if left_out := head[len(table.columns) :]:
        console.print(said(f"no room here for: {', '.join(left_out)}", "dim"))
