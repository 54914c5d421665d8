"""A labelled file as items and what judges said of them: JSONL, CSV or Parquet, with columns by any names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from rlaif.audit.table import FloatArray, Items, Judged
from rlaif.errors import ConfigError
from rlaif.rows import rows_of
from rlaif.types import VerdictOutcome

# What a column can be; one of that name is taken for it unless the mapping says otherwise.
ROLES = {
    "item": "what the rows of one item have in common; without it, its prompt and responses",
    "prompt": "the prompt",
    "a": "the first response",
    "b": "the second response",
    "label": "which of the two people find better",
    "annotators": "several people's labels: their columns, or one that holds lists",
    "group": "the category of the item",
    "judge": "who judged",
    "principle": "by which principle",
    "winner": "which response won, by a judge that was asked in one order",
    "winner_ab": "which won with the first response shown first",
    "winner_ba": "which won with the second response shown first; 1 and a are still the item's first response",
    "p_ab": "the judge's probability for the first response, shown first",
    "p_ba": "the judge's probability for the first response, shown second",
    "generator_a": "the model that wrote the first response",
    "generator_b": "the model that wrote the second response",
    "cost_usd": "what the verdict cost",
}
_WORDS = {"1": 1.0, "a": 1.0, "first": 1.0, "true": 1.0, "2": 0.0, "b": 0.0, "second": 0.0, "false": 0.0}
_WORDS |= {"tie": 0.5, "0.5": 0.5}
_REFUSALS = frozenset({"refusal", "refused", "content_filter"})
_ORDERS = (("winner_ab", "winner_ba"), ("p_ab", "p_ba"), ("winner",))
_PROBLEMS: tuple[VerdictOutcome, ...] = ("refusal", "unparsed")  # the worse first
_Answer = tuple[float, VerdictOutcome]  # in one order: P(the item's first response is better), nan for no answer


def read_labelled(
    path: Path, columns: Mapping[str, str] | None = None, labels: Mapping[str, str] | None = None
) -> tuple[Items, list[Judged]]:
    """The file's items in its order, and its judges; none where it holds labels only.

    `columns` says which column has which role of ROLES ("judge": "model+strategy" joins two). `labels` says what the
    file's words for a label and a winner mean ("0": "a"); then no others are known.
    Raises ConfigError("FILE:LINE: what is wrong; the way out").
    """
    table = _Table(path, columns or {}, labels or {})
    if not table.has("label", "annotators", *chain(*_ORDERS)):
        way_out = "name them with --columns label=NAME, and a judge's answers with winner_ab=NAME,winner_ba=NAME"
        raise ConfigError(f"{path}: no labels and no verdicts among the columns {table.there}; {way_out}")
    item_of, first_rows = _items(table)
    labelled = _Labels(table, item_of, len(first_rows))
    annotators = {name: labelled.by_item(name, values) for name, values in _annotators(table).items()}
    gold = labelled.by_item(table.name("label"), table.values("label")) if table.has("label") else None
    lengths = [[_length(value) for value in table.values(role)] for role in ("a", "b")]
    ids = table.texts("item") if table.has("item") else [str(number) for number in range(1, len(table.rows) + 1)]
    writers = list(zip(table.texts("generator_a"), table.texts("generator_b"), strict=True))
    groups = table.texts("group")
    items = Items(
        ids=tuple(ids[row] or "" for row in first_rows),
        gold=majority(annotators, len(first_rows)) if gold is None else gold,
        lengths=np.array(lengths, dtype=np.float64).T[first_rows],
        generators=tuple(writers[row] for row in first_rows) if table.has("generator_a", "generator_b") else (),
        annotators=annotators,
        groups=tuple(groups[row] for row in first_rows) if table.has("group") else (),
    )
    return items, _judges(table, item_of, len(first_rows))


def read_classes(path: Path, raters: Sequence[str]) -> tuple[tuple[str, ...], FloatArray]:
    """The classes into which raters, a column each, put the rows; (raters, rows) the number of each one's choice.

    nan where a rater made none. Raises ConfigError as above.
    """
    table = _Table(path, {}, {})
    for name in raters:
        table.must_have(name, "name those of the raters")
    chosen = [[_text(row.get(name)) for row in table.rows] for name in raters]
    classes = sorted({choice for choices in chosen for choice in choices if choice is not None})
    number: dict[str | None, float] = {name: float(i) for i, name in enumerate(classes)}
    return tuple(classes), np.array([[number.get(choice, math.nan) for choice in choices] for choices in chosen])


# --- rows as items, labels and verdicts ---


class _Table:
    """The rows, and which columns have which role."""

    def __init__(self, path: Path, columns: Mapping[str, str], labels: Mapping[str, str]) -> None:
        self.path = path
        self.places: list[str] = []
        self.rows: list[Mapping[str, Any]] = []  # Any: whatever the file holds; checked where it is used
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
        for where, values in rows_of(path, "labels"):
            self.places.append(where)
            self.rows.append(values)
        if not self.rows:
            raise ConfigError(f"{path}: no rows in it; give a file with at least one")
        self.names = list(dict.fromkeys(name for row in self.rows for name in row))
        self.roles: dict[str, tuple[str, ...]] = {role: (role,) for role in ROLES if role in self.names}
        for role, chosen in columns.items():
            if role not in ROLES:
                raise ConfigError(f"--columns {role}={chosen}: no role '{role}'{_close(role, list(ROLES))}")
            self.roles[role] = tuple(chosen.split("+"))
            for name in self.roles[role]:
                self.must_have(name, f"choose with --columns {role}=NAME")
        self.words = {_word(word): _meaning(word, meant) for word, meant in labels.items()} or _WORDS
        self.own_words = bool(labels)

    @property
    def there(self) -> str:
        return ", ".join(self.names)

    def must_have(self, name: str, way_out: str) -> None:
        if name not in self.names:
            raise ConfigError(f"{self.path}: no column '{name}'; there are: {self.there}; {way_out}")

    def has(self, *roles: str) -> bool:
        return any(role in self.roles for role in roles)

    def name(self, role: str) -> str:
        return "+".join(self.roles[role])

    def at(self, row: int) -> str:
        return self.places[row]

    def line(self, row: int) -> str:
        """Of a row in the same file as the one that is spoken of."""
        return self.places[row].rpartition(":")[2].strip()

    def values(self, role: str) -> list[Any]:  # Any: as in the file
        names = self.roles.get(role, ())
        return [row.get(names[0]) for row in self.rows] if len(names) == 1 else list(self.texts(role))

    def texts(self, role: str) -> list[str | None]:
        """The column as text, joined by blanks of several; None where it is empty or nowhere."""
        names = self.roles.get(role, ())
        if not names:
            return [None] * len(self.rows)
        if len(names) == 1:
            return [_text(row.get(names[0])) for row in self.rows]
        return [" ".join(filter(None, (_text(row.get(name)) for name in names))) or None for row in self.rows]

    def side(self, value: object, row: int, name: str) -> float:
        """1: the first response is meant, 0: the second, 0.5 a tie; nan where nothing stands."""
        word = _word(value)
        found = math.nan if not word else self.words.get(word)
        if found is None:
            raise ConfigError(f"{self.at(row)}: '{name}' is {value!r}; {self.way_out(word)}")
        return found

    def way_out(self, word: str) -> str:
        if word == "0" and not self.own_words:
            return "is 0 the first response or the second? Say it with --labels 0=a,1=b or 0=b,1=a"
        known = ", ".join(self.words)
        return f"known are {known}: say what the file's words mean with --labels WORD=a,WORD=b,WORD=tie"


def _items(table: _Table) -> tuple[list[int], list[int]]:
    """Of each row its item's number, and of each item its first row."""
    index: dict[object, int] = {}
    item_of: list[int] = []
    firsts: list[int] = []
    for row, key in enumerate(_keys(table)):
        if key is None:
            raise ConfigError(f"{table.at(row)}: '{table.name('item')}' is empty; every row needs its item")
        found = index.setdefault(key, len(firsts))
        if found == len(firsts):
            firsts.append(row)
        item_of.append(found)
    return item_of, firsts


def _keys(table: _Table) -> Iterable[object]:
    if table.has("item"):
        return table.texts("item")
    if not table.has("judge", "principle"):
        return range(len(table.rows))
    texts = [role for role in ("prompt", "a", "b") if table.has(role)]
    if not texts:
        raise ConfigError(
            f"{table.path}: rows of several verdicts, and nothing says which are about the same item; "
            "name its columns with --columns item=NAME, or item=NAME+NAME"
        )
    return zip(*(table.texts(role) for role in texts), strict=True)


class _Labels(NamedTuple):
    table: _Table
    item_of: Sequence[int]
    n: int

    def by_item(self, name: str, values: Sequence[object]) -> FloatArray:
        """(n,) What a column says of each item; it must say the same in all of the item's rows."""
        found = np.full(self.n, math.nan)
        said_in: dict[int, int] = {}
        for row, (item, value) in enumerate(zip(self.item_of, values, strict=True)):
            side = self.table.side(value, row, name)
            if math.isnan(side):
                continue
            if found[item] != side and said_in.setdefault(item, row) != row:
                before = self.table.line(said_in[item])
                raise ConfigError(
                    f"{self.table.at(row)}: '{name}' is {value!r}, but line {before} says otherwise of the same item; "
                    "correct one of them, or tell the items apart with --columns item=NAME+NAME"
                )
            found[item] = side
        return found


def _annotators(table: _Table) -> dict[str, list[Any]]:  # Any: as in the file
    """Name -> labels by row: of each column, or of each place in the lists of one."""
    names = table.roles.get("annotators", ())
    columns = {name: [row.get(name) for row in table.rows] for name in names}
    if len(names) != 1 or not any(isinstance(value, list) for value in columns[names[0]]):
        return columns
    (name,) = names
    for row, value in enumerate(columns[name]):
        if not isinstance(value, list | None):
            raise ConfigError(f"{table.at(row)}: '{name}' is {value!r}, and a list elsewhere; write a list here too")
    places = max(len(value or ()) for value in columns[name])
    return {
        f"{name} {place + 1}": [value[place] if value and place < len(value) else None for value in columns[name]]
        for place in range(places)
    }


def majority(annotators: Mapping[str, FloatArray], n: int) -> FloatArray:
    """What most of them say, a tie where two sayings have as many; nan where nobody labelled."""
    if not annotators:
        return np.full(n, math.nan)
    labels = np.array(list(annotators.values()))
    kinds = np.array([0.0, 0.5, 1.0])
    counts = np.array([np.count_nonzero(labels == kind, axis=0) for kind in kinds])
    most = counts.max(axis=0)
    clear = np.count_nonzero(counts == most, axis=0) == 1
    return np.where(most == 0, math.nan, np.where(clear, kinds[counts.argmax(axis=0)], 0.5))


def _judges(table: _Table, item_of: Sequence[int], n: int) -> list[Judged]:
    orders = next((found for one in _ORDERS if (found := [role for role in one if table.has(role)])), [])
    if not orders:
        return []
    if orders[0] in ("winner_ba", "p_ba"):
        missing = orders[0].replace("ba", "ab")
        raise ConfigError(
            f"{table.path}: '{orders[0]}' without '{missing}'; name its column with --columns {missing}=NAME"
        )
    answers = [_probabilities(table, role) if role.startswith("p_") else _winners(table, role) for role in orders]
    principles = table.texts("principle")
    costs = _costs(table) if table.has("cost_usd") else None
    judges: list[Judged] = []
    for judge, rows in _rows_by_judge(table, item_of, principles).items():
        p = np.full((2, n), math.nan)
        outcomes: list[VerdictOutcome | None] = [None] * n
        by: list[str | None] = [None] * n
        for item, row in rows.items():
            said = [answer[row] for answer in answers]
            p[: len(said), item] = [side for side, _ in said]
            outcomes[item] = _together([outcome for _, outcome in said])
            by[item] = principles[row]
        judges.append(
            Judged(
                judge,
                p_ab=p[0],
                p_ba=p[1],
                outcomes=tuple(outcomes),
                principles=tuple(by) if table.has("principle") else (),
                both_orders=len(orders) == 2,
                cost_usd=None if costs is None else math.fsum(costs[row] for row in rows.values()),
            )
        )
    return judges


def _rows_by_judge(
    table: _Table, item_of: Sequence[int], principles: Sequence[str | None]
) -> dict[str, dict[int, int]]:
    """Judge -> item -> row. A judge that judged an item by several principles counts as one judge by each."""
    names = table.texts("judge") if table.has("judge") else ["the judge"] * len(table.rows)
    asked = [(name, item) for name, item in zip(names, item_of, strict=True) if name is not None]
    if len(set(asked)) < len(asked) and table.has("principle"):
        names = [name and f"{name} by {principle}" for name, principle in zip(names, principles, strict=True)]
    found: dict[str, dict[int, int]] = {}
    for row, (name, item) in enumerate(zip(names, item_of, strict=True)):
        if name is None:  # a row of a label only
            continue
        before = found.setdefault(name, {}).setdefault(item, row)
        if before != row:
            raise ConfigError(
                f"{table.at(row)}: {name} has judged this item in line {table.line(before)} already; if they are "
                "two judges, or two items, say by which columns: --columns judge=NAME+NAME,item=NAME+NAME"
            )
    return found


def _winners(table: _Table, role: str) -> list[_Answer]:
    """What is no winner is an answer all the same: a refusal or garbage, which an audit counts."""
    found: list[_Answer] = []
    values = table.values(role)
    for row, value in enumerate(values):
        word = _word(value)
        side = table.words.get(word)
        if side is not None:
            found.append((side, "tie" if side == 0.5 else "ok"))
        elif word == "0" and not table.own_words:
            raise ConfigError(f"{table.at(row)}: '{table.name(role)}' is {value!r}; {table.way_out(word)}")
        elif word == "both_bad":
            found.append((0.5, "both_bad"))
        else:
            found.append((math.nan, "refusal" if word in _REFUSALS else "unparsed"))
    if all(math.isnan(side) for side, _ in found):
        raise ConfigError(f"{table.at(0)}: '{table.name(role)}' is {values[0]!r}; {table.way_out('')}")
    return found


def _probabilities(table: _Table, role: str) -> list[_Answer]:
    found: list[_Answer] = []
    for row, value in enumerate(table.values(role)):
        p = _number(value)
        if p is None and _word(value):
            found.append((math.nan, "refusal" if _word(value) in _REFUSALS else "unparsed"))
        elif p is None:
            found.append((math.nan, "unparsed"))
        elif 0 <= p <= 1:
            found.append((p, "ok"))
        else:
            raise ConfigError(f"{table.at(row)}: '{table.name(role)}' is {value!r}; a probability is from 0 to 1")
    return found


def _together(outcomes: Sequence[VerdictOutcome]) -> VerdictOutcome:
    """Of both orders."""
    for problem in _PROBLEMS:
        if problem in outcomes:
            return problem
    return outcomes[0] if len(set(outcomes)) == 1 else "ok"


def _costs(table: _Table) -> list[float]:
    costs = [_number(value) if _word(value) else 0.0 for value in table.values("cost_usd")]
    for row, cost in enumerate(costs):
        if cost is None:
            raise ConfigError(
                f"{table.at(row)}: '{table.name('cost_usd')}' is no number; give US dollars or leave it empty"
            )
    return [cost or 0.0 for cost in costs]


# --- values ---


def _text(value: object) -> str | None:
    """A cell as text; None for an empty one. 3.0 is what a table makes of a 3 beside empty cells."""
    if isinstance(value, str):
        return value or None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _json(value).decode()


def _length(response: object) -> float:
    return 0.0 if response == "" else float(len(text)) if (text := _text(response)) is not None else math.nan


_json = msgspec.json.Encoder().encode


def _word(value: object) -> str:
    return (_text(value) or "").strip().lower()


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _meaning(word: str, meant: str) -> float:
    side = {"a": 1.0, "b": 0.0, "tie": 0.5}.get(meant.strip().lower())
    if side is None:
        raise ConfigError(f"--labels {word}={meant}: a word means a (the first response), b (the second) or tie")
    return side


def _close(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"
