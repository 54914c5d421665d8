"""Ids of principles that come without one, made from their words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rlaif.authoring.words import content, tokens, words_of

LONGEST = 28


class Texts(NamedTuple):
    """What a file says of one principle."""

    critique: str | None = None
    revision: str | None = None
    judge: str | None = None
    name: str | None = None  # the file's own, if it can be read


def ids(texts: Sequence[Texts], language: str) -> Iterator[str]:
    """Short and unique, from the words that few others have: `age-appropriate-children`."""
    told = [_telling(text, language) for text in texts]
    common = Counter(word for words in told for word in words)
    used: set[str] = set()
    for text, words in zip(texts, told, strict=True):
        name = base = text.name or _slug(words, common) or "principle"
        count = 1
        while name in used:
            count += 1
            name = f"{base}-{count}"
        used.add(name)
        yield name


def _telling(text: Texts, language: str) -> list[str]:
    """The words that are not in every principle, each once; of a critique only where the others are few.

    Of a script without spaces the characters, but for an opening that every principle has.
    """
    known = words_of(language)
    words: list[str] = []
    for told in (text.revision or text.judge or "", text.critique or ""):
        if len(words) < 2:
            words += content(told, known)
            if words and all(len(word) == 1 for word in words):
                while known and (opening := known.frame.match(told)):
                    told = told[opening.end() :]
                return tokens(told)
    return list(dict.fromkeys(re.sub("['\u2019]", "", word) for word in words))


def _slug(words: list[str], common: Counter[str]) -> str:
    if all(len(word) == 1 for word in words):  # characters of a script without spaces
        return "".join(words[:8])
    chosen = sorted(words, key=lambda word: (common[word], len(word) < 4))[:3]
    slug = "-".join(word for word in words if word in chosen)
    return slug if len(slug) <= LONGEST else slug[: LONGEST + 1].rpartition("-")[0] or slug[:LONGEST]
