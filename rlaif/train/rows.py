"""One row of a dataset -> the columns that TRL's trainer reads, or why it would train nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlaif.errors import ConfigError
from rlaif.train.settings import Method
from rlaif.types import Message, prompt_id

# The texts that a row must have; of several forms the first that is there. A pair's prompt may stand in both sides.
_TEXTS: Mapping[Method, tuple[tuple[str, ...], ...]] = {
    "sft": (("prompt", "completion"), ("messages",), ("text",)),
    "dpo": (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
    "orpo": (("prompt", "chosen", "rejected"),),
    "reward": (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
    "kto": (("prompt", "completion"),),
    "grpo": (("prompt",),),
    "rloo": (("prompt",),),
}
_ALL_TEXTS = ("prompt", "chosen", "rejected", "completion", "messages", "text")
Row = dict[str, Any]  # Any: text or messages, numbers; of prompts whatever else a reward function may want


def trl_row(values: Mapping[str, Any], method: Method, where: str, *, soft: bool = False, margins: bool = True) -> Row:
    """Raises ConfigError for columns that are missing or of the wrong kind."""
    forms = [names for names in _TEXTS[method] if all(name in values for name in names)]
    # A column that another form fills is null in this row; where none is filled, null is an empty text.
    filled = (names for names in forms if all(values[name] is not None for name in names))
    texts = next(filled, forms[0] if forms else None)
    if texts is None:
        wanted = " or ".join(", ".join(names) for names in _TEXTS[method])
        there = ", ".join(values) or "none"
        raise ConfigError(f"{where}: {method} reads the columns {wanted}; there are: {there}; see `rlaif import`")
    row: Row = {name: _text(values[name], f"{where}: {name}") for name in texts}
    if len({isinstance(text, str) for text in row.values() if text}) > 1:
        raise ConfigError(f"{where}: {' and '.join(texts)} must all be text or all lists of messages")
    if method == "kto":
        if not isinstance(values.get("label"), bool):
            raise ConfigError(f"{where}: kto reads a column label, true or false; there is {values.get('label')!r}")
        row["label"] = values["label"]
    if method == "sft" and "completion" in row:
        row["truncated"] = values.get("truncated") is True
    if soft:
        row["p"] = _probability(values.get("p"), where)
    if method == "reward" and margins and isinstance(values.get("margin"), (int, float)):
        row["margin"] = float(values["margin"])
    if method in ("grpo", "rloo"):
        # A reward function may read any other column; text of other forms is none of it.
        row |= {name: value for name, value in values.items() if name not in _ALL_TEXTS}
    return row


def left_out(row: Row, *, soft: bool = False) -> str | None:
    """Why a row would teach nothing, or the wrong thing."""
    for name in _ALL_TEXTS:
        if name in row and not _said(row[name]):
            return f"empty {name}"
    if "chosen" in row and row["chosen"] == row["rejected"]:
        return "chosen equals rejected"
    if soft and row["p"] is None:
        return "no p"
    return None


def prompt_of(row: Mapping[str, Any]) -> str:
    """The prompt's name. Of pairs and conversations without a prompt: all turns but the last answer."""
    prompt: Any = row.get("prompt")
    if prompt is None:
        whole: Any = next((row[name] for name in ("chosen", "messages", "text") if row.get(name) is not None), [])
        prompt = whole if isinstance(whole, str) else _before_the_answer(whole)
        if isinstance(whole, str) and isinstance(row.get("rejected"), str):
            prompt = _common(whole, row["rejected"])
    turns: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return prompt_id(tuple(Message(turn["role"], turn["content"]) for turn in turns))


def form_of(row: Mapping[str, Any]) -> str:
    return "text" if isinstance(next(row[name] for name in _ALL_TEXTS if name in row), str) else "messages"


def _text(value: Any, where: str) -> str | list[dict[str, str]]:
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise ConfigError(f"{where} is a {type(value).__name__}; it must be text or a list of messages")
    turns = []
    for turn in value:
        given = {key: inner for key, inner in turn.items() if inner is not None} if isinstance(turn, dict) else {}
        if given.keys() != {"role", "content"} or not all(isinstance(inner, str) for inner in given.values()):
            raise ConfigError(f"{where} must be a list of {{role, content}}, both text; there is {_short(turn)}")
        turns.append({"role": given["role"], "content": given["content"]})
    return turns


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _probability(value: object, where: str) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"{where}: p is the probability that chosen is better, 0 to 1; there is {value!r}")
    return float(value)


def _said(text: str | list[dict[str, str]]) -> bool:
    return bool(text.strip()) if isinstance(text, str) else bool(text) and bool(text[-1]["content"].strip())


def _before_the_answer(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=len(turns))
    return turns[:last]


def _common(one: str, other: str) -> str:
    end = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:end]
