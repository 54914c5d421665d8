"""How a text is written, in counts: what a judge may prefer for no good reason, and a trained model then overdoes."""

from __future__ import annotations

import re
from typing import NamedTuple

from rlaif.hygiene.words import HAN

_HAN = re.compile(f"[{HAN}]+")
_EMOJI = re.compile("[\u2600-\u27bf\u2b50\u2b55\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff]")
_HEADING = re.compile(r"#{1,6} ")
_ITEM = re.compile(r"(?:[-*+\u2022\u2013]|\(?\d{1,3}[.)])\s")
_ITEM_STARTS = frozenset("-*+\u2022\u2013(0123456789")


class Style(NamedTuple):
    """`lists` are list items, `bold` and `code` spans or blocks, `urls` links."""

    chars: int
    words: int
    sentences: int
    lines: int
    lists: int
    headings: int
    bold: int
    code: int
    urls: int
    emoji: int
    exclamations: int
    asks: bool  # it ends with a question


def style(text: str) -> Style:
    stripped = text.strip()
    lists = headings = lines = numbers = 0
    for line in stripped.split("\n"):
        line = line.lstrip()
        if not line:
            continue
        lines += 1
        if line[0] in _ITEM_STARTS:
            if item := _ITEM.match(line):
                lists += 1
                numbers += item[0][-2] == "."
        elif line[0] == "#":
            headings += _HEADING.match(line) is not None
    ascii_only = text.isascii()
    fences = text.count("```")
    ends = sum(map(stripped.count, (". ", "? ", "! ", ".\n", "?\n", "!\n"))) + (stripped[-1:] in (".", "?", "!"))
    if not ascii_only:
        ends += sum(map(text.count, "\u3002\uff1f\uff01"))
    return Style(
        chars=len(text),
        words=len(text.split()) if ascii_only else _words(text),
        sentences=ends - numbers,
        lines=lines,
        lists=lists,
        headings=headings,
        bold=text.count("**") // 2,
        code=fences // 2 + (text.count("`") - 3 * fences) // 2,
        urls=text.count("http://") + text.count("https://"),
        emoji=0 if ascii_only else len(_EMOJI.findall(text)),
        exclamations=text.count("!") + (0 if ascii_only else text.count("\uff01")),
        asks=stripped[-1:] in ("?", "\uff1f"),
    )


def _words(text: str) -> int:
    """A Chinese or Japanese character is one."""
    runs = _HAN.findall(text)
    return sum(map(len, runs)) + len(_HAN.sub(" ", text).split()) if runs else len(text.split())
