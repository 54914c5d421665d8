"""What reward models are held against: prompts with answers of which it is known that one is better than another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import NamedTuple

from rlaif.errors import ConfigError
from rlaif.foreign import Dataset, Row, Shape, example, open_dataset, shape_of
from rlaif.foreign.shapes import answers, fatal
from rlaif.types import Messages, prompt_id

# Enough for half a percent on an accuracy; more is asked for.
MOST = 10_000
_TEST = "test"


class Group(NamedTuple):
    """The answers to one prompt, each the turns after it, and which of two is better: (better, worse, margin).

    `ratings` are of all of them, None where only the order is known; the margin is in the data's own unit.
    """

    prompt: Messages
    answers: tuple[Messages, ...]
    pairs: tuple[tuple[int, int, float | None], ...]
    ratings: tuple[float, ...] | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """In characters."""
        return tuple(sum(len(turn.content) for turn in answer) for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Labelled:
    """`dropped` counts rows that give no pair, by the reason."""

    address: str
    shape: str
    splits: tuple[str, ...]
    groups: tuple[Group, ...]
    dropped: Counter[str]


def read_groups(
    address: str,
    config: str | None = None,
    split: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    runs_dir: Path = Path("runs"),
) -> Labelled:
    """The first `limit` groups of a dataset, or of a run by its name: of its test split, where it has one.

    Raises ConfigError.
    """
    own = runs_dir / address / "dataset"
    where = str(own) if not Path(address).exists() and own.is_dir() else address
    dataset = open_dataset(where, config, split)
    if split is None and _TEST in dataset.splits and len(dataset.splits) > 1:
        dataset = open_dataset(where, config, _TEST)
    shape = shape_of(dataset.columns, dataset.first(), roles=columns)
    if shape.pairing == "unpaired":
        raise ConfigError(
            f"{address} has single answers, good or bad: a reward model compares answers to the same prompt; give "
            "pairs, or answers with ranks or ratings"
        )
    dropped: Counter[str] = Counter()
    if shape.pairing == "rated":
        found: Iterable[Group] = _of_rated(dataset, shape, dropped)
    else:
        of_row = _ranked if shape.pairing == "ranked" else _paired
        found = _of_rows(dataset, shape, dropped, of_row)
    groups = tuple(islice(found, limit or MOST))
    if not groups:
        why = ", ".join(f"{reason} {n:,}" for reason, n in dropped.most_common()) or "no rows"
        raise ConfigError(f"{address}: no pair to compare in it ({why})")
    return Labelled(address, str(shape), dataset.splits, groups, dropped)


_Reads = Callable[[Row, Shape], Group | str]  # str: why there is none


def _of_rows(dataset: Dataset, shape: Shape, dropped: Counter[str], of_row: _Reads) -> Iterator[Group]:
    for row in dataset.rows(shape.columns):
        found = "unreadable" if row.fault is not None else of_row(row, shape)
        if isinstance(found, Group):
            yield found
        else:
            dropped[found] += 1


def _paired(row: Row, shape: Shape) -> Group | str:
    read = example(row.values, shape)
    if reason := fatal(read.problems):
        return reason
    return Group(read.prompt, (read.chosen, read.rejected), ((0, 1, read.margin),))


def _ranked(row: Row, shape: Shape) -> Group | str:
    problems: list[str] = []
    prompt, found = answers(row.values, shape, problems)
    if reason := fatal(problems):
        return reason
    rated = [(one.turns, one.score) for one in found if one.score is not None]
    return _compared(prompt, rated)


def _of_rated(dataset: Dataset, shape: Shape, dropped: Counter[str]) -> Iterator[Group]:
    """Rows with an answer each, brought together by their prompts."""
    prompts: dict[str, Messages] = {}
    rated: dict[str, list[tuple[Messages, float]]] = {}
    for row in dataset.rows(shape.columns):
        read = example(row.values, shape) if row.fault is None else None
        if read is None or fatal(read.problems) or read.margin is None:
            dropped[(read and fatal(read.problems)) or "unreadable"] += 1
            continue
        name = prompt_id(read.prompt)
        prompts[name] = read.prompt
        rated.setdefault(name, []).append((read.chosen, read.margin))
    for name, of_prompt in rated.items():
        found = _compared(prompts[name], of_prompt)
        if isinstance(found, Group):
            yield found
        else:
            dropped[found] += len(of_prompt)


def _compared(prompt: Messages, rated: list[tuple[Messages, float]]) -> Group | str:
    if len(rated) < 2:
        return "too_few_rated"
    ratings = tuple(rating for _, rating in rated)
    pairs = tuple(
        (i, j, ratings[i] - ratings[j]) if ratings[i] > ratings[j] else (j, i, ratings[j] - ratings[i])
        for i, j in combinations(range(len(rated)), 2)
        if ratings[i] != ratings[j]
    )
    return Group(prompt, tuple(turns for turns, _ in rated), pairs, ratings) if pairs else "tie"
