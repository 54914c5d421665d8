"""Texts as words, for whatever compares them; in Chinese and Japanese, which have no spaces, each character is one."""

from __future__ import annotations

import re

HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{HAN}]|[^\W{HAN}]+")
_HAN = re.compile(f"[{HAN}]")
_ANY = re.compile(r"\w+")
_SPACED = {code: " " for code in range(128) if not (chr(code).isalnum() or chr(code) == "_")}


def words(text: str) -> list[str]:
    """Without marks, in one case."""
    if text.isascii():
        return text.lower().translate(_SPACED).split()  # a third of the regular expression's time
    lower = text.lower()
    return _WORD.findall(lower) if _HAN.search(lower) else _ANY.findall(lower)


def plain(text: str) -> str:
    """The words alone; a text without any, such as an emoji, as it is."""
    return " ".join(words(text)) or text.strip()


def normalised(text: str) -> str:
    """The text in one case, with single spaces; its marks stay."""
    return " ".join(text.casefold().split())
