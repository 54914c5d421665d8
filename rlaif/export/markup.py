"""Markdown that no text of a user or a model can leave, on a page that makes HTML of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def code(text: str) -> str:
    """Inline code that the text cannot leave, in a table neither; what a terminal would obey is dropped."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return "`" + " ".join(shown.replace("`", "'").replace("|", "/").split()) + "`"


def fenced(text: str, language: str = "") -> str:
    """A block of code; its fence is longer than any row of backticks in the text."""
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    shown = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text.replace("\r\n", "\n"))
    return f"{ticks}{language}\n{shown.strip(chr(10))}\n{ticks}\n"


def folded(title: str, content: str) -> str:
    """Shown when it is clicked; `title` is ours, and plain: no Markdown is read in it."""
    return f"<details>\n<summary>{title}</summary>\n\n{content}\n</details>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int | None = None) -> str:
    """Of cells that are Markdown; all columns from `numbers` on are aligned to the right."""
    first = len(head) if numbers is None else numbers
    rule = ["---" if column < first else "---:" for column in range(len(head))]
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]]) + "\n"
