"""A dataset linted: its figures and findings, as values and as JSON."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rlaif.errors import ConfigError
from rlaif.foreign.columns import shape_of
from rlaif.foreign.read import Dataset, open_dataset
from rlaif.foreign.shapes import Shape, example
from rlaif.hygiene.duplicates import near
from rlaif.lint.contract import contract, trainers
from rlaif.lint.facts import Ways, joined
from rlaif.lint.findings import Finding, Lengths, Row, Sides, finding, findings, lengths, ordered, sides
from rlaif.lint.rules import FORMATS, RULES, Level
from rlaif.lint.scan import scan
from rlaif.lint.tally import Tally
from rlaif.version import __version__

# Of the JSON. Raise it when a key goes or changes its meaning; new keys are no change.
FORMAT = 1
SAMPLE = 50_000  # rows, nearly, that are looked at for refusals and repetition where there are more
NEAR = 20_000  # rows that are compared by `near`
_BINS = 40
_BYTES_A_ROW = 500  # of packed text, where only reading tells how many rows there are: rather too few


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows by length: bin i holds texts of `i * width` characters and more; the last one also all longer ones."""

    width: int
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """`splits` has the rows of each; `formats` and `refusals` are by side; `rules` are those that were checked.

    `looked` rows are in the sample for refusals and repetition, `near` were looked at for near duplicates.
    """

    source: str
    config: str | None
    columns: tuple[str, ...]
    shape: str
    trl: str
    max_length: int
    trainers: tuple[str, ...]
    rows: int
    pairs: int
    splits: Mapping[str, int]
    categories: Mapping[str, int]
    lengths: Lengths
    histogram: Histogram
    formats: Mapping[str, Sides]
    refusals: Sides
    looked: int
    near: int
    rules: tuple[str, ...]
    findings: tuple[Finding, ...]

    def count(self, level: Level) -> int:
        return sum(one.level == level for one in self.findings)

    @property
    def worst(self) -> Level | None:
        return self.findings[0].level if self.findings else None


def linted(
    address: str,
    config: str | None = None,
    split: str | None = None,
    *,
    rules: Collection[str] = (),
    limit: int | None = None,
    max_length: int | None = None,
    near_too: bool = False,
    columns: Mapping[str, str] | None = None,
    processes: int = 1,
) -> Report:
    """`rules`: only these. `near_too`: near duplicates besides, which else only `rules` can name.

    `limit`: only the first so many rows of each file. `max_length` in tokens, else TRL's. `columns` names those that
    have other names, as in rlaif.foreign.shapes. Raises ConfigError for an address or rule that is not there, and for
    what is no preference dataset.
    """
    if unknown := sorted(set(rules) - set(RULES)):
        raise ConfigError(f"unknown rule '{unknown[0]}'; known: {', '.join(RULES)}")
    dataset = open_dataset(address, config, split)
    shape = _shape(dataset, columns)
    taken = contract()
    most = max_length or taken.max_length
    found = scan(dataset, Ways(shape, most, _every(dataset, limit)), processes, limit)
    whole = found.whole
    if not whole.rows:
        raise ConfigError(f"{address}: no rows in it; give a dataset with at least one")
    checked = set(rules) or {*RULES} - {"near_duplicates"}  # it takes long
    if near_too:
        checked.add("near_duplicates")
    called = _called(address, config)
    made = findings(found, shape, called, checked)
    compared = 0
    if "near_duplicates" in checked:
        compared, more = _near(dataset, shape, called, limit)
        made += more
    return Report(
        source=address,
        config=dataset.config,
        columns=dataset.columns,
        shape=str(shape) if shape.label or shape.rated or not shape.completion else _UNLABELLED,
        trl=str(taken),
        max_length=most,
        trainers=trainers(shape),
        rows=whole.rows,
        pairs=whole.pairs,
        splits={name: tally.rows for name, tally in found.splits.items()},
        categories=dict(sorted(whole.categories.items(), key=lambda one: (-one[1], one[0]))),
        lengths=lengths(whole),
        histogram=_histogram(whole),
        formats={fact: sides(whole, fact) for fact in FORMATS},
        refusals=sides(whole, "refusal"),
        looked=whole.looked,
        near=compared,
        rules=tuple(rule for rule in RULES if rule in checked),
        findings=ordered(made),
    )


_UNLABELLED = "single answers in completion, without labels"


def as_json(report: Report) -> bytes:
    """The fields of Report and of what is in it; a share is {value, low, high, n}."""
    content = {"format": FORMAT, "rlaif": __version__, **msgspec.to_builtins(report)}
    return msgspec.json.format(_encode(content), indent=1) + b"\n"


def _encode(content: Any) -> bytes:  # Any: JSON
    """Lone surrogates, which a JSON file can hold and UTF-8 cannot, become question marks."""
    try:
        return msgspec.json.encode(content)
    except UnicodeEncodeError:
        return msgspec.json.encode(_writable(content))


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_writable(key): _writable(inner) for key, inner in value.items()}
    return [_writable(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _called(address: str, config: str | None) -> str:
    """In a command that is proposed."""
    if len(address) > _LONG:
        return "DATASET"
    return shlex.quote(address) + (f" --config {config}" if config else "")


_LONG = 40  # an address of more characters is not repeated with each finding


def _shape(dataset: Dataset, columns: Mapping[str, str] | None) -> Shape:
    """Also that of answers without labels, which SFT takes."""
    first = dataset.first()
    try:
        return shape_of(dataset.columns, first, roles=columns)
    except ConfigError:
        if columns or not {"prompt", "completion"} <= set(dataset.columns) or not first:
            raise
    forms = {name: "text" if isinstance(first[0].get(name), str) else "messages" for name in ("prompt", "completion")}
    category = "category" if "category" in dataset.columns else None
    return Shape(
        "unpaired",
        "text" if forms["completion"] == "text" else "messages",
        "prompt",
        "text" if forms["prompt"] == "text" else "messages",
        completion="completion",
        category=category,
    )


def _every(dataset: Dataset, limit: int | None) -> int:
    size = dataset.size
    if size is None:
        size = sum(Path(share.source).stat().st_size for share in dataset.shares) // _BYTES_A_ROW
    return 1 + (size if limit is None else min(limit * len(dataset.shares), size)) // SAMPLE


def _near(dataset: Dataset, shape: Shape, called: str, limit: int | None) -> tuple[int, list[Finding]]:
    """How many rows were looked at, and the finding. Rows that say nothing, or cannot be read, are like no other."""
    texts, places = [], []
    numbers: Counter[str] = Counter()
    limited = (row for share in dataset.shares for row in islice(share.rows(), limit))
    for row in islice(dataset.rows(shape.columns) if limit is None else limited, NEAR):
        numbers[row.split] += 1
        text = "\n".join(map(joined, example(row.values, shape)[:3]))
        if row.fault is None and not text.isspace():
            texts.append(text)
            places.append(f"{row.split} row {numbers[row.split]}")
    looked = numbers.total()
    like = near(texts)
    again = [i for i, first in enumerate(like) if first != i]
    rows = tuple(Row(places[i], places[like[i]]) for i in again[:3])
    return looked, [finding("near_duplicates", len(again), looked, called, rows=rows)] if again else []


def _histogram(whole: Tally) -> Histogram:
    """Up to the length that one text in a hundred exceeds."""
    both = np.cumsum(whole.good_lengths + whole.bad_lengths)
    longest = int(np.searchsorted(both, 0.99 * both[-1])) if both[-1] else 0
    width = max(1, -(-longest // _BINS))
    width = next((step for step in _STEPS if step >= width), width)
    return Histogram(width, _binned(whole.good_lengths, width), _binned(whole.bad_lengths, width))


_STEPS = tuple(step * 10**power for power in range(5) for step in (1, 2, 3, 4, 5, 6, 8))


def _binned(lengths: Any, width: int) -> tuple[int, ...]:
    bins = np.bincount(np.minimum(np.arange(len(lengths)) // width, _BINS - 1), lengths, minlength=_BINS)
    return tuple(int(n) for n in bins)
