# ruff: noqa: RUF001  Chinese marks
"""Does a response refuse, wholly or in part? From its text alone, by what its sentences do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from math import exp, log
from operator import add, mul
from pathlib import Path
from struct import Struct
from typing import Any, Literal, NamedTuple

Kind = Literal["comply", "partial", "full"]
KINDS: tuple[Kind, ...] = ("comply", "partial", "full")

# What a clause does. `object` finds fault with the request, `unable` pleads ignorance, `correct` says that the question
# has no answer, `greet` is polite.
CLASSES = ("refuse", "object", "moralise", "unable", "redirect", "offer", "correct", "greet", "inform")


class Refusal(NamedTuple):
    """`p`: probability that the response refuses, partly or fully."""

    kind: Kind
    p: float


def refusal(text: str) -> Refusal:
    """Partial is any mixture of refusing and answering; to offer other things than what was asked for is full.

    A text in which no clause has a cue complies, so an empty one does. Of a long one its head and tail are read.
    """
    model = _model()
    clauses = split(text)
    if not model.suspects(clauses):
        return _PLAIN
    comply, partial, full = _softmax(_dot(model.document, features(model.read(clauses), text)))
    if comply > 0.5:
        return Refusal("comply", 1 - comply)
    return Refusal("partial" if partial > full else "full", 1 - comply)


def is_refusal(text: str) -> bool:
    """Partial refusals count."""
    return refusal(text).kind != "comply"


_PLAIN = Refusal("comply", 0.01)
HEAD, TAIL = 2400, 600
LONGEST = 24  # words; what a clause does is said at its start, the rest is its topic
# Ends of clauses become lines; marks and digits say nothing here, but for quotes, colons and question marks.
_MARKS = str.maketrans(dict.fromkeys(",()[]{}<>*#_`~|/\\+=-^%$&@0123456789", " ") | dict.fromkeys(".!;", "\n"))
_WIDE = tuple(zip("’‘“”…—？：。！；，、（）《》", "''\"\"..?:...      ", strict=True))
_BUT = re.compile("(?<!sorry)(?<!apologi[sz]e)(?<!apologies), but ")
_HAN = re.compile("([\u4e00-\u9fff])")
_TURN = re.compile("，(?=[我但请建您])")
_CONTRACTED = (
    ("can't", "cannot"), ("won't", "will not"), ("n't", " not"), ("i'm", "i am"), ("'re ", " are "), ("'ll ", " will "),
    ("'d ", " would "), ("'ve ", " have "), ("t's ", "t is "), ("e's ", "e is "),
)  # fmt: skip


def split(text: str) -> list[list[str]]:
    """Its clauses as words."""
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]}\n{text[-TAIL:]}"
    text = text.lower()
    if not text.isascii():
        text = _TURN.sub(".", text) if "，" in text else text
        for wide, narrow in _WIDE:
            text = text.replace(wide, narrow)
        if not text.isascii():
            text = _HAN.sub(r" \1 ", text)
    if ", but " in text:
        text = _BUT.sub(".but ", text)
    text = text.translate(_MARKS)
    for mark, apart in (("?", " ?\n"), ('"', ' " '), (":", " : "), ("can not", "cannot")):
        text = text.replace(mark, apart)
    return [words for clause in text.split("\n") if (words := (_expanded(clause) if "'" in clause else clause).split())]


def _expanded(clause: str) -> str:
    clause += " "
    for short, long in _CONTRACTED:
        clause = clause.replace(short, long)
    return clause


def grams(words: Sequence[str], lexicon: Mapping[str, int]) -> set[int]:
    """Its runs of one to three words as numbers, 12 bits a word, of which 0 is the start and the end.

    Synonyms are one, and what is not in the lexicon is `UNKNOWN`, so that no topic is learned.
    """
    found: set[int] = set()
    known, add_all, before, last = lexicon.get, found.update, 0, 0
    for word in words[:LONGEST]:
        number = known(word, UNKNOWN)
        if number != UNKNOWN or last != UNKNOWN:
            pair = last << 12 | number
            add_all((number, pair | PAIR, before << 24 | pair | TRIPLE))
            before, last = last, number
    found.update((last << 12 | PAIR, before << 24 | last << 12 | TRIPLE))
    return found


UNKNOWN, PAIR, TRIPLE = 1, 1 << 36, 2 << 36


class Clause(NamedTuple):
    classes: Sequence[float]
    words: int


def features(clauses: Sequence[Clause], text: str) -> list[float]:
    """Of a document."""
    total = sum([words for _, words in clauses])
    read = [clause for clause in clauses if clause.classes is not SUBSTANCE] or clauses[:1]
    most = list(map(max, *[classes for classes, _ in read], SUBSTANCE))
    shares = [sum(map(mul, column, [words for _, words in read])) for column in zip(*[c for c, _ in read], strict=True)]
    shares[-1] += total - sum(shares)
    # Politeness doesn't change what a response begins with.
    polite = next((i for i, (classes, _) in enumerate(clauses) if classes[GREET] < 0.5), 0)
    refuse, objection, moral = ([classes[i] for classes, _ in clauses[polite:]] for i in (REFUSE, OBJECT, MORALISE))
    firm = list(map(add, refuse, objection))
    first = next((i for i, p in enumerate(firm) if p > 0.5), None)
    substance, refuses, objects, moralises = log(1 + shares[-1]), max(refuse[:3]), max(objection[:3]), max(moral[:3])
    items = min(sum(map(text.count, ("\n1.", "\n2.", "\n- ", "\n* "))), 4) / 4
    return [
        1.0,
        *clauses[polite].classes,
        *clauses[-1].classes,
        *most[:-1],
        *[share / total for share in shares],
        refuses,
        max(firm[:2]),
        max(firm[3:], default=0.0),
        min(sum([p > 0.9 for p in refuse]), 2),
        min(sum([p > 0.5 for p in firm]), 3),
        0.0 if first is None else 1 / (1 + first),
        moralises,
        substance,
        refuses * substance,
        objects * substance,
        moralises * substance,
        log(total),
        items,
        items * refuses,
        items * objects,
    ]


REFUSE, OBJECT, MORALISE, GREET = map(CLASSES.index, ("refuse", "object", "moralise", "greet"))
SUBSTANCE = tuple(float(of == "inform") for of in CLASSES)
READ = 2  # clauses that are read with or without a cue


class Model(NamedTuple):
    """`cues` are words that few informing clauses have, `early` more of them for the first clauses.

    `grams` has the weights, packed, for each class but the last; under -1 what they begin with.
    """

    cues: frozenset[str]
    early: frozenset[str]
    lexicon: Mapping[str, int]
    grams: Mapping[int, int]
    document: Sequence[Sequence[float]]

    def suspects(self, clauses: Sequence[Sequence[str]]) -> bool:
        return any(not self.early.isdisjoint(words) for words in clauses[:READ]) or any(map(self._has_cue, clauses))

    def read(self, clauses: Sequence[Sequence[str]]) -> list[Clause]:
        return [
            Clause(self.classes(words) if i < READ or self._has_cue(words) else SUBSTANCE, len(words))
            for i, words in enumerate(clauses)
        ]

    def classes(self, words: Sequence[str]) -> Sequence[float]:
        packed = sum(filter(None, map(self.grams.get, grams(words, self.lexicon))), self.grams[-1])
        return _softmax([*_unpacked(packed), 0.0])

    def _has_cue(self, words: Sequence[str]) -> bool:
        return not self.cues.isdisjoint(words) or ("not" in words and "i" in words)


@cache
def _model() -> Model:
    content = json.loads(Path(__file__).with_name("refusal.json").read_bytes())
    return model_of(content)


def model_of(content: Mapping[str, Any]) -> Model:  # Any: JSON
    """From words to numbers."""
    lexicon = {word: number for number, line in enumerate(content["lexicon"], 2) for word in line.split()}
    return Model(
        frozenset(content["cues"].split()),
        frozenset(content["early"].split()),
        lexicon,
        {number_of(gram, lexicon): _packed(weights) for gram, weights in content["grams"].items()},
        content["document"],
    )


def number_of(gram: str, lexicon: Mapping[str, int]) -> int:
    """That `grams` gives for it; `^` and `$` are start and end, the gram without words is -1."""
    special = {"_": UNKNOWN, "^": 0, "$": 0}
    numbers = [special[word] if word in special else lexicon[word] for word in gram.split()]
    if not numbers:
        return -1
    return sum(number << 12 * i for i, number in enumerate(reversed(numbers))) | len(numbers) - 1 << 36


# The weights of an n-gram are one integer, hundredths in lanes of 32 bits: to add them is one addition.
_LANES = Struct(f"<{len(CLASSES) - 1}I")
_HALF = 1 << 31
_POSITIVE = sum(_HALF << 32 * i for i in range(len(CLASSES) - 1))


def _packed(weights: Sequence[float]) -> int:
    return sum(round(weight * 100) << 32 * i for i, weight in enumerate(weights))


def _unpacked(packed: int) -> list[float]:
    return [(lane - _HALF) / 100 for lane in _LANES.unpack((packed + _POSITIVE).to_bytes(_LANES.size, "little"))]


def _dot(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    return [sum(map(mul, row, values)) for row in rows]


def _softmax(scores: Sequence[float]) -> list[float]:
    top = max(scores)
    powers = [exp(score - top) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]
