"""Answers with ratings or ranks: UltraFeedback's completions, Nectar's answers, scores beside a list, aspects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from rlaif.foreign.turns import Form, turns_of
from rlaif.types import Messages

Values = Mapping[str, Any]  # Any: whatever the row holds
By = tuple[str, ...]

_ITEMS = ("completions", "answers", "responses", "candidates", "generations", "outputs", "choices")
_TEXT = ("response", "answer", "text", "completion", "content", "output", "generated_text", "messages")
_RANK = ("rank", "ranking")
_SCORE = ("score", "rating", "reward", "stars", "quality")
_BESIDE_SCORES = ("scores", "ratings", "rewards", "score")
_BESIDE_RANKS = ("ranks", "rankings", "rank", "ranking")
_MODELS = ("model", "models", "generator", "model_name")
# What is good the more there is of it. HelpSteer's complexity and verbosity are not; nor is UltraFeedback's
# overall_score: it was parsed from the critique's text, and of thousands a 1 became a 10.
ASPECTS = (
    "helpfulness",
    "honesty",
    "truthfulness",
    "instruction_following",
    "correctness",
    "coherence",
    "harmlessness",
    "safety",
)


class Candidate(NamedTuple):
    """An answer; `score` is higher for a better one, the negative of its rank. None: not rated."""

    turns: Messages
    score: float | None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """A column with a list of answers, and where their ratings are: in each of them, or in lists `beside` it."""

    column: str
    text: str | None  # the field with the answer; None: the items are the answers
    score: str | None = None
    rank: str | None = None
    aspects: str | None = None
    inside: bool = True
    model: str | None = None
    messages: bool = False
    signed: bool = False  # -1 is a rating, not a missing one

    @property
    def beside(self) -> tuple[str, ...]:
        named = () if self.inside else (self.score, self.rank, self.model)
        return tuple(name for name in named if name)

    @property
    def ranks(self) -> bool:
        return self.rank is not None


@dataclass(frozen=True, slots=True)
class Rated:
    """The columns whose mean rates an answer."""

    columns: tuple[str, ...]
    signed: bool = False

    def of(self, row: Values) -> float | None:
        ratings = [r for name in self.columns if (r := rating(row.get(name), self.signed)) is not None]
        return fmean(ratings) if ratings else None


def items_in(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> Items | None:
    """None where no column has lists of answers with anything that rates them."""
    column = given.get("answers") or next((n for n in _ITEMS if n in names and _first(rows, n) is not None), None)
    first = None if column is None else _first(rows, column)
    if column is None or first is None:
        return None
    if not isinstance(first, dict) or ("role" in first and "content" in first):
        return _beside_a_list(column, names, rows, given, not isinstance(first, (str, dict)))
    text = next((name for name in _TEXT if name in first), None)
    if text is None:
        return None
    aspects = "annotations" if isinstance(first.get("annotations"), dict) else None
    rank = given.get("rank") or next((name for name in _RANK if name in first), None)
    score = given.get("score") or next((name for name in _SCORE if name in first), None)
    if "score" in given:
        rank = aspects = None
    elif aspects or "rank" in given:
        score = None
    if aspects is None and rank is None and score is None:
        return None
    model = next((name for name in _MODELS if name in first), None)
    scores = [item.get(score) for row in rows for item in _list(row, column) if isinstance(item, dict)] if score else []
    return Items(
        column,
        text,
        None if rank else score,
        None if aspects else rank,
        aspects,
        model=model,
        messages=isinstance(first[text], list),
        signed=_signed(scores),
    )


def _beside_a_list(
    column: str, names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str], messages: bool
) -> Items | None:
    lists = [name for name in names if name != column and any(isinstance(row.get(name), list) for row in rows)]
    rank = given.get("rank") or next((name for name in _BESIDE_RANKS if name in lists), None)
    score = given.get("score") or next((name for name in _BESIDE_SCORES if name in lists), None)
    if "score" in given:
        rank = None
    if rank is None and score is None:
        return None
    model = next((name for name in _MODELS if name in lists), None)
    scores = [value for row in rows for value in _list(row, score)] if score else []
    score = None if rank else score
    return Items(column, None, score, rank, None, False, model, messages, _signed(scores))


def ratings_in(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> Rated | None:
    """The column with the score, else all that are aspects; None where none holds a number."""
    if "score" in given:
        columns = tuple(given["score"].split("+"))
    else:
        numeric = [name for name in names if any(number(row.get(name)) is not None for row in rows)]
        score = next((name for name in _SCORE if name in numeric), None)
        columns = (score,) if score else tuple(name for name in ASPECTS if name in numeric)
    if not columns or not any(number(row.get(name)) is not None for row in rows for name in columns):
        return None
    return Rated(columns, _signed([row.get(name) for row in rows for name in columns]))


def candidates_of(row: Values, items: Items, form: Form, problems: list[str]) -> list[Candidate]:
    """Those that say something; one that cannot be read leaves the others."""
    found = []
    values = _list(row, items.column)
    if not any(isinstance(value, dict) or items.text is None for value in values):
        problems.append("not_text")
    beside = {name: _list(row, name) for name in items.beside}
    for i, value in enumerate(values):
        if items.text is not None and not isinstance(value, dict):
            continue
        text = value.get(items.text) if items.text is not None else value
        of = value if items.inside else {name: one[i] if i < len(one) else None for name, one in beside.items()}
        own: list[str] = []
        turns = turns_of(text, form, "assistant", own)
        if own or not turns or not turns[-1].content.strip():
            continue
        model = of.get(items.model) if items.model else None
        found.append(Candidate(turns[-1:], _score(of, items), model if isinstance(model, str) else None))
    return found


def rating(value: Any, signed: bool = False) -> float | None:
    """A number, or text that is one. -1 is how several sets write that there is none, unless others are below 0."""
    found = number(value)
    return None if found is None or (found == -1 and not signed) else found


def number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:  # "N/A"
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _score(of: Mapping[str, Any], items: Items) -> float | None:
    if items.rank is not None:
        rank = rating(of.get(items.rank))
        return None if rank is None else -rank
    if items.score is not None:
        return rating(of.get(items.score), items.signed)
    aspects = of.get(items.aspects or "")
    ratings = [_aspect(value) for value in aspects.values()] if isinstance(aspects, dict) else []
    known = [value for value in ratings if value is not None]
    return fmean(known) if known else None


def _aspect(value: Any) -> float | None:
    """4, "4", or {"Rating": "4", ...}."""
    if isinstance(value, dict):
        value = next((value[name] for name in ("Rating", "rating", "score") if name in value), None)
    return rating(value)


def _signed(values: Sequence[Any]) -> bool:
    return any((found := number(value)) is not None and found < 0 and found != -1 for value in values)


def _list(row: Values, column: str) -> list[Any]:
    value = row.get(column)
    if isinstance(value, dict):  # a struct of lists, as older datasets keep a list of structs
        lists = list(value.values())
        if lists and all(isinstance(one, list) for one in lists) and len({len(one) for one in lists}) == 1:
            return [dict(zip(value, item, strict=True)) for item in zip(*lists, strict=True)]
    return value if isinstance(value, list) else []


def _first(rows: Sequence[Values], column: str) -> Any:
    return next((item for row in rows for item in _list(row, column) if item is not None), None)
