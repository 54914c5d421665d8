"""A dataset's rows -> pairs and labelled answers, whatever its shape."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from hashlib import blake2b
from os.path import commonpath
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rlaif.foreign.candidates import Candidate, number
from rlaif.foreign.rankings import compared, span_of
from rlaif.foreign.read import Dataset, Row
from rlaif.foreign.shapes import Shape, answers, example, fatal
from rlaif.hub import PREFIX
from rlaif.importing.settings import ImportSettings
from rlaif.importing.tally import Tally
from rlaif.types import Message, Messages, prompt_id


class Pair(NamedTuple):
    """`margin` is from 0 to 1, None where the source says nothing of it."""

    split: str
    prompt: Messages
    chosen: Messages
    rejected: Messages
    margin: float | None = None
    category: str | None = None
    models: tuple[str | None, str | None] = (None, None)


class Labelled(NamedTuple):
    split: str
    prompt: Messages
    completion: Messages
    label: bool
    category: str | None = None


def converted(
    dataset: Dataset, shape: Shape, settings: ImportSettings, tally: Tally, scratch: Path
) -> Iterator[Pair | Labelled]:
    """Each once, in the order of the rows; what gives nothing is tallied. `scratch` is a folder for what is sorted."""
    seen: set[int] = set()  # 64 bits a row
    rows = _told(dataset, tally)
    found = (
        _rated(rows, shape, settings, tally, scratch)
        if shape.pairing == "rated"
        else _each(rows, shape, settings, tally)
    )
    for where, one in found:
        if isinstance(one, Pair) and one.margin is not None and one.margin < settings.min_margin:
            tally.drop("low_margin", one.split, where, *_texts(one))
        elif (name := _name(one)) in seen:
            label = None if isinstance(one, Pair) else one.label
            tally.drop("duplicate", one.split, where, *_texts(one), label=label)
        else:
            seen.add(name)
            yield one


def scale_of(dataset: Dataset, shape: Shape) -> tuple[float, float] | None:
    """The least and the greatest rating there is: the whole dataset is read for it. None where none is needed.

    Of a column of margins from 0 to the greatest; None if that is 1 at most, for they are shares already.
    """
    if shape.pairing == "paired" and shape.margin is None and shape.chosen_score is None:
        return None
    if shape.pairing == "unpaired" or (shape.items is not None and shape.items.ranks):
        return None
    low, high = float("inf"), float("-inf")
    for row in dataset.rows(shape.columns):
        for rating in _ratings(row, shape):
            low, high = min(low, rating), max(high, rating)
    if shape.margin is not None:
        return (0.0, high) if high > 1 else None
    return (low, high) if low < high else None


def _ratings(row: Row, shape: Shape) -> list[float]:
    if shape.items is not None:
        scores: list[float | None] = [answer.score for answer in answers(row.values, shape, [])[1]]
    elif shape.rated is not None:
        scores = [shape.rated.of(row.values)]
    elif shape.margin is not None:
        scores = [number(row.values.get(shape.margin))]
    else:
        scores = [number(row.values.get(name)) for name in (shape.chosen_score, shape.rejected_score) if name]
    return [score for score in scores if score is not None]


def _told(dataset: Dataset, tally: Tally) -> Iterator[Row]:
    """The readable rows, with places that name no folder of this machine."""
    folder = _folder_of(dataset)
    for row in dataset.rows():
        tally.rows += 1
        where = row.where.removeprefix(folder)
        if row.fault is not None:
            tally.drop("unreadable", row.split, where, because=row.fault.rpartition(": ")[2])
        else:
            yield row._replace(where=where)


def _folder_of(dataset: Dataset) -> str:
    """What all places begin with, if it is a folder of this machine."""
    prefix = PREFIX if dataset.shares[0].source.startswith(PREFIX) else ""
    paths = [share.source.removeprefix(prefix) for share in dataset.shares]
    if prefix and not paths[0].startswith("/"):
        return ""
    return f"{prefix}{commonpath([path.rpartition('/')[0] for path in paths])}/"


# --- rows that stand for themselves ---


def _each(
    rows: Iterator[Row], shape: Shape, settings: ImportSettings, tally: Tally
) -> Iterator[tuple[str, Pair | Labelled]]:
    for row in rows:
        found = (
            _ranked(row, shape, settings, tally) if shape.pairing == "ranked" else _plain(row, shape, settings, tally)
        )
        for one in found:
            yield row.where, one


def _plain(row: Row, shape: Shape, settings: ImportSettings, tally: Tally) -> list[Pair | Labelled]:
    read = example(row.values, shape)
    if reason := fatal(read.problems):
        tally.drop(reason, row.split, row.where, *read[:3], because=_others(read.problems, reason))
        return []
    tally.notes.update(read.problems)
    prompt, chosen, rejected = _stripped(tally, read.prompt, read.chosen, read.rejected)
    category = _category(row, shape)
    if shape.pairing == "unpaired":
        return [Labelled(row.split, prompt, chosen, bool(read.label), category)]
    margin = None if read.margin is None else min(1.0, read.margin / _span(settings))
    return [Pair(row.split, prompt, chosen, rejected, margin, category)]


def _ranked(row: Row, shape: Shape, settings: ImportSettings, tally: Tally) -> list[Pair | Labelled]:
    problems: list[str] = []
    prompt, found = answers(row.values, shape, problems)
    if reason := fatal(problems):
        tally.drop(reason, row.split, row.where, prompt, because=_others(problems, reason))
        return []
    tally.notes.update(problems)
    span = span_of(found) if shape.items is not None and shape.items.ranks else _span(settings)
    return _pairs(row.where, row.split, prompt, found, span, _category(row, shape), settings, tally)


def _pairs(
    where: str,
    split: str,
    prompt: Messages,
    found: list[Candidate],
    span: float,
    category: str | None,
    settings: ImportSettings,
    tally: Tally,
) -> list[Pair | Labelled]:
    pairs = compared(found, span, pick=settings.pick, most=settings.max_pairs_per_prompt)
    if isinstance(pairs, str):
        tally.drop(pairs, split, where, prompt)
        return []
    made: list[Pair | Labelled] = []
    for better, worse, margin in pairs:
        asked, chosen, rejected = _stripped(tally, prompt, better.turns, worse.turns)
        made.append(Pair(split, asked, chosen, rejected, min(1.0, margin), category, (better.model, worse.model)))
    return made


# --- rated answers, of which those to one prompt belong together ---


def _rated(
    rows: Iterator[Row], shape: Shape, settings: ImportSettings, tally: Tally, scratch: Path
) -> Iterator[tuple[str, Pair | Labelled]]:
    """Sorted by prompt on disk: the answers to one may be far apart."""
    with closing(sqlite3.connect(scratch / "answers.sqlite", isolation_level=None)) as table:
        table.execute("PRAGMA journal_mode = OFF")
        table.execute("PRAGMA synchronous = OFF")
        table.execute("CREATE TABLE answer (prompt TEXT, number INTEGER, first INTEGER, content BLOB)")
        table.execute("BEGIN")
        table.executemany("INSERT INTO answer VALUES (?, ?, 0, ?)", _answers(rows, shape, tally))
        table.execute("CREATE INDEX by_prompt ON answer (prompt, number)")
        table.execute("COMMIT")
        order = "SELECT prompt FROM answer GROUP BY prompt ORDER BY MIN(number)"
        for (prompt,) in table.execute(order):
            of_prompt = table.execute("SELECT content FROM answer WHERE prompt = ? ORDER BY number", (prompt,))
            group = [_decode(content) for (content,) in of_prompt]
            first = group[0]
            found = [Candidate(one.completion, one.score) for one in group]
            span = _span(settings)
            for pair in _pairs(first.where, first.split, first.prompt, found, span, first.category, settings, tally):
                yield first.where, pair


class _Answer(msgspec.Struct, array_like=True, gc=False):
    where: str
    split: str
    prompt: Messages
    completion: Messages
    score: float
    category: str | None


_decode = msgspec.msgpack.Decoder(_Answer).decode


def _answers(rows: Iterator[Row], shape: Shape, tally: Tally) -> Iterator[tuple[str, int, bytes]]:
    encode = msgspec.msgpack.Encoder().encode
    for row_number, row in enumerate(rows):
        read = example(row.values, shape)
        reason = fatal(read.problems)
        if reason or read.margin is None:
            reason = reason or "too_few_rated"
            tally.drop(reason, row.split, row.where, *read[:2], because=_others(read.problems, reason))
            continue
        tally.notes.update(read.problems)
        prompt, completion, _ = _stripped(tally, read.prompt, read.chosen, ())
        kept = _Answer(row.where, row.split, prompt, completion, read.margin, _category(row, shape))
        yield f"{row.split} {prompt_id(prompt)}", row_number, encode(kept)


# --- small things ---


def _texts(one: Pair | Labelled) -> tuple[Messages, ...]:
    return (one.prompt, one.chosen, one.rejected) if isinstance(one, Pair) else (one.prompt, one.completion)


def _others(problems: Sequence[str], reason: str) -> str | None:
    return ", ".join(problem for problem in problems if problem != reason) or None


def _stripped(tally: Tally, *parts: Messages) -> list[Messages]:
    """White space around a turn is the file's; to a model it is a token more."""
    found = [tuple(_strip(turn) for turn in part) for part in parts]
    if any(a is not b for old, new in zip(parts, found, strict=True) for a, b in zip(old, new, strict=True)):
        tally.notes["outer_space"] += 1
    return found


def _strip(turn: Message) -> Message:
    text = turn.content.strip()
    return turn if len(text) == len(turn.content) else Message(turn.role, text)


def _span(settings: ImportSettings) -> float:
    return 1.0 if settings.scale is None else settings.scale[1] - settings.scale[0]


def _category(row: Row, shape: Shape) -> str | None:
    value: Any = None if shape.category is None else row.values.get(shape.category)
    return str(value) if isinstance(value, (str, int)) and value != "" else None


def _name(one: Pair | Labelled) -> int:
    if isinstance(one, Pair):
        return name_of({"prompt": one.prompt, "chosen": one.chosen, "rejected": one.rejected})
    return name_of({"prompt": one.prompt, str(one.label): one.completion})


def name_of(sides: Mapping[str, Messages]) -> int:
    """64 bits of what is said, and by whom."""
    digest = blake2b(digest_size=8)
    for side, turns in sides.items():
        digest.update(f"\0{side}".encode())
        for turn in turns:
            digest.update(f"\0{turn.role}\0{turn.content}".encode(errors="surrogatepass"))
    return int.from_bytes(digest.digest())
