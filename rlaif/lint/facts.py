"""A row of a dataset -> what is to be known of it, as bits and numbers of a fixed size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rlaif.foreign.shapes import Example, Shape, example
from rlaif.hygiene.duplicates import key
from rlaif.hygiene.leaks import leak
from rlaif.hygiene.refusal import is_refusal
from rlaif.hygiene.repetition import repeats
from rlaif.hygiene.style import style
from rlaif.hygiene.truncation import truncated
from rlaif.lint.rules import FORMATS, ROW, SIDE
from rlaif.types import Messages

ROW_BIT: Mapping[str, int] = {name: 1 << i for i, name in enumerate(ROW)}
SIDE_BIT: Mapping[str, int] = {name: 1 << i for i, name in enumerate((*SIDE, "refusal", *FORMATS))}
GOOD, BAD = 1, 2  # bits of `sides`: which of them the row has

FACTS = np.dtype(
    [
        ("row", "<u4"),
        ("chosen", "<u4"),
        ("rejected", "<u4"),
        ("sides", "<u1"),
        ("looked", "<u1"),
        ("prompt_key", "<u8"),
        ("chosen_key", "<u8"),
        ("rejected_key", "<u8"),
        ("prompt_chars", "<u4"),
        ("chosen_chars", "<u4"),
        ("rejected_chars", "<u4"),
    ]
)


class Facts(NamedTuple):
    """The fields of FACTS. Bits of ROW_BIT, and for each side of SIDE_BIT; keys are 0 for what is not there.

    What is chosen and rejected of an unpaired row: `sides_of`.
    `looked`: the row is in the sample for what takes long.
    """

    row: int
    chosen: int = 0
    rejected: int = 0
    sides: int = 0
    looked: int = 0
    prompt_key: int = 0
    chosen_key: int = 0
    rejected_key: int = 0
    prompt_chars: int = 0
    chosen_chars: int = 0
    rejected_chars: int = 0


@dataclass(frozen=True, slots=True)
class Ways:
    """How rows are looked at: every `every`-th, by its text's hash, for what takes long; `max_length` in tokens."""

    shape: Shape
    max_length: int
    every: int = 1


def facts(values: Mapping[str, Any], ways: Ways) -> tuple[Facts, Example]:  # Any: whatever the row holds
    """Never raises."""
    shape = ways.shape
    found = example(values, shape)
    good, bad = sides_of(found)
    row = _as_written(values, shape)
    for problem in found.problems:
        if problem == "role_error":
            if _NOT_SPLIT.isdisjoint(found.problems):  # else the sides hold what was to be the prompt
                row |= _role_bits(found)
        elif problem != "no_prompt" or shape.form != "text":  # of text without a prompt column every row has it
            row |= _BIT_OF.get(problem, 0)
    asked = found.prompt[-1].content if found.prompt else ""
    prompt, chosen, rejected = joined(found.prompt), joined(good), joined(bad)
    prompt_bytes = _bytes(prompt)
    if prompt_bytes >= ways.max_length * _BYTES_A_TOKEN:
        row |= ROW_BIT["prompt_too_long"]
    elif prompt_bytes + max(_bytes(chosen), _bytes(rejected)) > ways.max_length * _BYTES_A_TOKEN:
        row |= ROW_BIT["row_too_long"]
    if found.prompt and 0 < len(asked.strip()) < _SHORT:
        row |= ROW_BIT["short_prompt"]
    if _is_bad(prompt) or _is_bad(chosen) or _is_bad(rejected):
        row |= ROW_BIT["bad_text"]
    chosen_key, rejected_key = _key(chosen) if good else 0, _key(rejected) if bad else 0
    looked = (chosen_key or rejected_key) % ways.every == 0
    return Facts(
        row,
        _side_bits(chosen, asked, looked) if chosen else 0,
        _side_bits(rejected, asked, looked) if rejected else 0,
        (GOOD if good else 0) | (BAD if bad else 0),
        looked,
        _key(prompt) if prompt and not prompt.isspace() else 0,
        chosen_key,
        rejected_key,
        len(prompt),
        len(chosen),
        len(rejected),
    ), found


def sides_of(found: Example) -> tuple[Messages, Messages]:
    """The good and the bad one: a completion is bad where its label says so, else good."""
    return (found.chosen, found.rejected) if found.label is not False else ((), found.chosen)


def joined(turns: Messages) -> str:
    return turns[0].content if len(turns) == 1 else "\n\n".join([turn.content for turn in turns])


UNREADABLE = Facts(ROW_BIT["unreadable"])

_BYTES_A_TOKEN = 4  # of English; of Chinese rather 3 to 4.5, so that one guess serves
_SHORT = 8

_BIT_OF: Mapping[str, int] = {
    "not_text": ROW_BIT["not_text"],
    "no_prompt": ROW_BIT["no_prompt"],
    "no_turns": ROW_BIT["no_prompt"],
    "empty_prompt": ROW_BIT["empty_prompt"],
    "empty_chosen": ROW_BIT["empty_response"],
    "empty_rejected": ROW_BIT["empty_response"],
    "prefix_mismatch": ROW_BIT["prefix_mismatch"],
    "unknown_role": ROW_BIT["dialect"],
    "identical": ROW_BIT["identical"],
    "no_label": ROW_BIT["bad_label"],
    "empty_turn": ROW_BIT["empty_turn"],
    "prompt_mismatch": ROW_BIT["prompt_mismatch"],
}


_NOT_SPLIT = frozenset({"prefix_mismatch", "no_prompt"})


def _role_bits(found: Example) -> int:
    bits = 0
    if any(side and side[-1].role != "assistant" for side in (found.chosen, found.rejected)):
        bits |= ROW_BIT["ends_on_user"]
    if any(turn.role == "system" for turn in (*found.prompt[1:], *found.chosen, *found.rejected)):
        bits |= ROW_BIT["late_system"]
    return bits or ROW_BIT["role_order"]


# --- what a trainer gets to see ---


def _as_written(values: Mapping[str, Any], shape: Shape) -> int:
    """What only the columns as they are tell: `example` understands more than TRL does."""
    if shape.items is not None:
        return 0
    names = (shape.prompt, shape.chosen, shape.rejected, shape.completion)
    written = [values.get(name) for name in names if name is not None]
    bits = 0
    for value in written:
        if not isinstance(value, str):
            bits |= _value_bits(value)
    if any(isinstance(value, str) for value in written) and any(isinstance(value, list) for value in written):
        bits |= ROW_BIT["mixed_types"]
    elif shape.prompt is not None and shape.pairing == "paired" and _is_twice(values, shape):
        bits |= ROW_BIT["prompt_twice"]
    if shape.label is not None and values.get(shape.label) not in (0, 1):  # of which True and False are two
        bits |= ROW_BIT["bad_label"]
    if shape.margin == "margin" and not isinstance(values.get("margin"), (int, float)):
        bits |= ROW_BIT["bad_margin"]
    return bits


_ROLES = frozenset({"system", "user", "assistant"})


def _value_bits(value: Any) -> int:
    if isinstance(value, list):
        bits = 0
        for turn in value:
            bits |= _turn_bits(turn)
        return bits
    return ROW_BIT["dialect"] if isinstance(value, dict) else 0


def _turn_bits(turn: Any) -> int:
    if not isinstance(turn, dict):
        return 0  # `example` says not_text
    role = turn.get("role")
    if not isinstance(role, str) or role not in _ROLES or "content" not in turn:
        return ROW_BIT["dialect"]
    return ROW_BIT["none_padded"] if len(turn) > 2 and None in turn.values() else 0


def _is_twice(values: Mapping[str, Any], shape: Shape) -> bool:
    prompt = values.get(shape.prompt or "")
    sides = values.get(shape.chosen or ""), values.get(shape.rejected or "")
    if isinstance(prompt, str):
        start = prompt.strip()
        return len(start) >= _SHORT and all(isinstance(side, str) and side.lstrip().startswith(start) for side in sides)
    return bool(prompt) and all(
        isinstance(side, list) and side and isinstance(side[0], dict) and side[0].get("role") in ("user", "system")
        for side in sides
    )


# --- texts ---


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _key(text: str) -> int:
    return int.from_bytes(key(text)[:8], "little") or 1


def _side_bits(text: str, asked: str, looked: bool) -> int:
    bits = 0
    if (traced := leak(text, asked)) is not None:
        bits |= SIDE_BIT[traced]
    if truncated(text):
        bits |= _TRUNCATED
    if looked:
        bits |= (_REFUSAL if is_refusal(text) else 0) | (_REPETITION if repeats(text) else 0)
    return bits | _format_bits(text)


def _format_bits(text: str) -> int:
    bits, written = 0, style(text)
    for fact, bit in _FORMAT_BITS:
        if getattr(written, fact):
            bits |= bit
    return bits


_REFUSAL, _TRUNCATED, _REPETITION = (SIDE_BIT[name] for name in ("refusal", "truncated", "repetition"))
_FORMAT_BITS = tuple((fact, SIDE_BIT[fact]) for fact in FORMATS)

# Not tab and line ends. The second: what UTF-8 looks like that was read as Latin-1 or Windows-1252.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_MOJIBAKE = re.compile(
    "[\u00c3\u00c2][\u0080-\u00bf]|\u00e2\u20ac[\u0080-\u203a\u2122]|\u00ef\u00bf\u00bd|\u00f0\u0178"
)


def _is_bad(text: str) -> bool:
    if _CONTROL.search(text) is not None:
        return True
    return not text.isascii() and _MOJIBAKE.search(text) is not None
