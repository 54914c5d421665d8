"""How a text is written, in counts: what a judge may prefer for no good reason, and a trained model then overdoes."""

from __future__ import annotations

import re
from typing import NamedTuple

_EMOJI = re.compile("[\u2600-\u27bf\u2b50\u2b55\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff]")
_HEADING = re.compile(r"#{1,6} ")
_ITEM = re.compile(r"(?:[-*+\u2022\u2013]|\(?\d{1,3}[.)])\s")
_ITEM_STARTS = frozenset("-*+\u2022\u2013(0123456789")


class Style(NamedTuple):
    """`lists` are list items, `bold` and `code` spans or blocks, `urls` links."""

    lists: int
    headings: int
    bold: int
    code: int
    urls: int
    emoji: int


def style(text: str) -> Style:
    lists = headings = 0
    for line in text.split("\n"):
        line = line.lstrip()
        if not line:
            continue
        if line[0] in _ITEM_STARTS:
            lists += _ITEM.match(line) is not None
        elif line[0] == "#":
            headings += _HEADING.match(line) is not None
    fences = text.count("```")
    return Style(
        lists=lists,
        headings=headings,
        bold=text.count("**") // 2,
        code=fences // 2 + (text.count("`") - 3 * fences) // 2,
        urls=text.count("http://") + text.count("https://"),
        emoji=0 if text.isascii() else len(_EMOJI.findall(text)),
    )
