"""Which column of a preference dataset is what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from rlaif.errors import ConfigError
from rlaif.foreign.candidates import items_in, number, ratings_in
from rlaif.foreign.shapes import Pairing, Shape, Values, truth
from rlaif.foreign.turns import Form, is_transcript, turns_of
from rlaif.foreign.winners import compared_columns


def shape_of(
    columns: Sequence[str],
    first_rows: Sequence[Values],
    *,
    roles: Mapping[str, str] | None = None,
    pairing: Pairing | None = None,
) -> Shape:
    """Raises ConfigError, with the way out, where no column can be what it takes.

    `roles` names columns that have other names, by what _ROLES lists. With `pairing` only that is looked for.
    """
    given = dict(roles or {})
    for role, name in given.items():
        if role not in _ROLES:
            raise ConfigError(f"no role '{role}' of a column; there are: {', '.join(_ROLES)}")
        if any(part not in columns for part in name.split("+")) and role not in ("score", "rank"):
            raise ConfigError(f"no column '{name}' for {role}; there are: {', '.join(columns)}")
    for role, usual in (("system", _SYSTEM), ("category", _CATEGORY)):
        if role not in given and (known := [name for name in usual if name in columns]):
            given[role] = known[0]
    sides = {name for pair in _SIDES for name in pair}
    there = [name for name in columns if name in sides or any(row.get(name) is not None for row in first_rows)]
    for look in (_paired, _ranked, _unpaired, _rated):
        found = look(there, first_rows, given)
        if found is not None and pairing in (None, found.pairing):
            return found
    wanted = f" that is {pairing}" if pairing else ""
    raise ConfigError(
        f"no preference data{wanted} in the columns {', '.join(columns)}; it takes chosen and rejected; or a prompt, a "
        "completion and a label or score; or a prompt and a list of answers with ranks or ratings. Say which column is "
        "which, like --columns chosen=NAME,rejected=NAME"
    )


_ROLES = (
    "prompt",
    "chosen",
    "rejected",
    "a",
    "b",
    "winner",
    "completion",
    "label",
    "answers",
    "score",
    "rank",
    "system",
    "category",
    "margin",
)
_PROMPT = (
    "prompt",
    "instruction",
    "question",
    "query",
    "input",
    "context",
    "history",
    "conversation",
    "conversations",
    "messages",
)
_SIDES = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("preferred", "dispreferred"),
    ("preferred_output", "non_preferred_output"),
    ("preferred", "rejected"),
    ("accepted", "rejected"),
    ("better", "worse"),
    ("winner", "loser"),
)
_SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("rating_chosen", "rating_rejected"),
    ("chosen_avg_rating", "rejected_avg_rating"),
)
_COMPLETION = ("completion", "response", "answer", "output", "generation", "text", "messages")
_LABEL = ("label", "thumbs", "thumb", "feedback", "vote", "liked", "is_good", "preference")
_SYSTEM = ("system", "system_prompt")
_CATEGORY = ("category", "type", "topic", "subset", "source", "task")


def _paired(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> Shape | None:
    sides = next(((a, b) for a, b in _SIDES if a in names and b in names), (None, None))
    chosen, rejected = given.get("chosen") or sides[0], given.get("rejected") or sides[1]
    winner = None
    if chosen is None or rejected is None or "winner" in given:
        compared = compared_columns(names, rows, given)
        if compared is None:
            return None
        chosen, rejected, winner = compared
    prompt = _prompt_column(names, rows, given)
    scores = next(((a, b) for a, b in _SCORES if a in names and b in names), (None, None))
    return Shape(
        "paired",
        _form(rows, chosen),
        prompt,
        _form(rows, prompt) if prompt else None,
        chosen=chosen,
        rejected=rejected,
        chosen_score=scores[0],
        rejected_score=scores[1],
        margin=given.get("margin") or ("margin" if "margin" in names else None),
        winner=winner,
        **_beside(names, given, prompt),
    )


def _ranked(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> Shape | None:
    items = items_in(names, rows, given)
    prompt = _prompt_column([name for name in names if items is None or name != items.column], rows, given)
    if items is None or prompt is None:
        return None
    form: Form = "messages" if items.messages else "text"
    return Shape("ranked", form, prompt, _form(rows, prompt), items=items, **_beside(names, given, prompt))


def _unpaired(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> Shape | None:
    return _one_answer(names, rows, given, "unpaired")


def _rated(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> Shape | None:
    return _one_answer(names, rows, given, "rated")


def _one_answer(
    names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str], pairing: Literal["unpaired", "rated"]
) -> Shape | None:
    prompt = _prompt_column(names, rows, given)
    others = [name for name in names if name != prompt]
    completion = given.get("completion") or next((name for name in _COMPLETION if name in others), None)
    if completion is None:
        return None
    form = _form(rows, completion)
    if prompt is None and form == "text":
        return None
    shape = Shape(
        pairing,
        form,
        prompt,
        _form(rows, prompt) if prompt else None,
        completion=completion,
        **_beside(names, given, prompt),
    )
    if pairing == "unpaired":
        label = given.get("label") or next((name for name in _LABEL if name in others), None)
        labels = [] if label is None else [row.get(label) for row in rows]
        stars = next((value for value in labels if abs(number(value) or 0) > 1), None)  # of 1 to 5, 1 is no thumb up
        if "label" in given and stars is not None:
            raise ConfigError(f"'{label}' has {stars}, neither up nor down; a rating is named --columns score={label}")
        if label is None or stars is not None:
            return None
        if "label" not in given and not any(truth(value) is not None for value in labels):
            return None
        signed = any(value == -1 or value == "-1" for value in labels)
        return replace(shape, label=label, zero_is_down=not signed)
    rated = ratings_in(others, rows, given)
    return None if rated is None else replace(shape, rated=rated)


def _prompt_column(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> str | None:
    return given.get("prompt") or next((name for name in _PROMPT if name in names and _asks(rows, name)), None)


def _asks(rows: Sequence[Values], column: str) -> bool:
    """Not a whole conversation, as `messages` often is: those end with the assistant."""
    if column not in ("conversation", "conversations", "messages"):
        return True
    value = next((value for row in rows if (value := row.get(column)) is not None), None)
    turns = turns_of(value, "text", "user", []) if isinstance(value, list) else ()
    return not turns or turns[-1].role != "assistant"


def _beside(
    names: Sequence[str], given: Mapping[str, str], prompt: str | None
) -> dict[str, Any]:  # Any: as mypy sees **
    context = "input" if prompt == "instruction" and "input" in names else None
    return {"context": context, "system": given.get("system"), "category": given.get("category")}


# Lists of messages as CSV keeps them: as JSON, or as Python prints them.
_DUMPED = re.compile(r"""\s*(?:array\()?\[\s*\{\s*['"](?:role|content|from|value)['"]\s*:""")


def _form(rows: Sequence[Values], column: str) -> Form:
    """By most of the first rows' values."""
    values = [row.get(column) for row in rows]
    texts = [value for value in values if isinstance(value, str)]
    if texts and 2 * sum(_DUMPED.match(text) is not None for text in texts) > len(texts):
        raise ConfigError(f"column '{column}' has messages written as text; store them as lists (.jsonl, .parquet)")
    if sum(isinstance(value, (list, dict)) for value in values) > len(texts):
        return "messages"
    return "transcript" if texts and 2 * sum(map(is_transcript, texts)) > len(texts) else "text"
