"""Whether a text was cut off, for data that does not say how a response ended."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif.hygiene.words import HAN

# What no text ends with. After a colon or a hyphen a bracket is a face.
_OPEN = re.compile("(?:[,;:\u2013\u2014&\uff0c\u3001\uff1b\uff1a\uff08]|(?<![:;=-])[(\\[{])\\Z")
_DANGLING = frozenset(
    ("the", "a", "an", "of", "and", "or", "but", "because", "your", "my", "our", "their", "its", "which", "than", "as")
)
_ITEM = re.compile(r"\s*(?:[-*+\u2022]|\(?\d{1,3}[.)])\s")
_HAN = re.compile(f"[{HAN}]")
_END = re.compile("[.!?:\u2026\u3002\uff01\uff1f][\"')*\u201d\u2019]*\\s*\\Z")
# Words of prose without an end; a title, an answer or a signature is shorter. Where all other lines have one, fewer.
_LONG, _LONG_AMONG_ENDED = 15, 8
_FULL = 6  # words of a line that would end with a full stop, if the text has them


def truncated(text: str) -> bool:
    """A guess from the end: an open code fence, a dangling word or mark, a line without an end where others have one.

    Of 450 answers of GPT-4, 79 of which a limit cut off within a sentence, it finds 75 and accuses no other.
    People who leave out the last full stop of a long line are accused; a cut after a full stop nobody can see.
    """
    text = text.rstrip()
    if text.count("```") % 2:
        return True
    lines = text.split("\n")
    words = lines[-1].split()
    if not words or words[-1].startswith(("http", "www.", "#", "@")):
        return False
    if _OPEN.search(words[-1]):
        return True
    if not words[-1][-1].isalnum():
        return False
    if words[-1].lower() in _DANGLING and len(words) > 2:
        return True
    is_item = _ITEM.match(lines[-1]) is not None
    length = _length(lines[-1])
    if not is_item and length >= _LONG:
        return True
    return (is_item or length >= _LONG_AMONG_ENDED) and _end_properly(lines[:-1], is_item)


def _end_properly(lines: Sequence[str], items: bool) -> bool:
    """Whether there are several full lines of the kind, and each has an end."""
    full = [line for line in lines if _length(line) >= _FULL and (not items or _ITEM.match(line))]
    return len(full) > 1 and all(map(_END.search, full))


def _length(line: str) -> int:
    """In words; a Chinese word has two characters more often than not."""
    return len(line.split()) if line.isascii() else len(line.split()) + len(_HAN.findall(line)) // 2
