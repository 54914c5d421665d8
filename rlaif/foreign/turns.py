"""Whatever a column holds, as turns: text, message lists of any dialect, transcripts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from rlaif.types import Message, Messages, Role

Form = Literal["text", "messages", "transcript"]

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
# A turn begins after an empty line; "Human: " inside a turn is text. One at the very start may lack that line.
_MARK = re.compile(r"\n\n(Human|Assistant):")
_START = re.compile(r"\s*(Human|Assistant):")
_KEYS = (("role", "content"), ("from", "value"), ("role", "value"), ("role", "text"), ("speaker", "text"))


def turns_of(value: Any, form: Form, role: Role, problems: list[str]) -> Messages:  # Any: whatever the row holds
    """Empty, and a problem named, where it can be no turns. Plain text is the turn of `role`."""
    if isinstance(value, str):
        return transcript(value, problems) if form == "transcript" else (Message(role, value),)
    if isinstance(value, dict):
        value = _columns_as_turns(value)
    if not isinstance(value, list):
        problems.append("not_text")
        return ()
    found = []
    for turn in value:
        message = _message(turn, problems)
        if message is None:
            return ()
        found.append(message)
    return tuple(found)


def transcript(text: str, problems: list[str]) -> Messages:
    r"""The turns of "\n\nHuman: ...\n\nAssistant: ...", stripped; what comes before the first is the system's."""
    pieces = _MARK.split(f"\n\n{text.lstrip()}" if _START.match(text) else text)
    turns = [Message("system", before)] if (before := pieces[0].strip()) else []
    for who, said in zip(pieces[1::2], pieces[2::2], strict=True):
        turns.append(Message("user" if who == "Human" else "assistant", said.strip()))
    if len(pieces) == 1:
        problems.append("no_turns")
    return tuple(turns)


def is_transcript(text: str) -> bool:
    return _START.match(text) is not None


def _message(turn: Any, problems: list[str]) -> Message | None:
    if not isinstance(turn, dict):
        problems.append("not_text")
        return None
    if "role" in turn and "content" in turn:
        who, said = turn["role"], turn["content"]
    else:
        keys = next((keys for keys in _KEYS if keys[0] in turn and keys[1] in turn), None)
        if keys is None:
            problems.append("not_text")
            return None
        who, said = turn[keys[0]], turn[keys[1]]
    role = ROLES.get(who) or ROLES.get(who.strip().lower()) if isinstance(who, str) else None
    if isinstance(said, list):  # parts, as APIs write them: [{"type": "text", "text": ...}]
        said = _joined(said)
    if not isinstance(said, str):
        problems.append("not_text")
        return None
    if role is None:
        problems.append("unknown_role")
        return None
    return Message(role, said)


def _joined(parts: list[Any]) -> str | None:
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    return "".join(map(str, texts)) if texts and all(isinstance(text, str) for text in texts) else None


def _columns_as_turns(value: dict[Any, Any]) -> Any:
    """A struct of lists, as older datasets keep messages, as a list of structs."""
    if isinstance(value.get("messages"), list):  # OpenAI's files for preferences: {"messages": [...], "tools": [...]}
        return value["messages"]
    columns = list(value.values())
    if columns and all(isinstance(column, list) for column in columns) and len({len(c) for c in columns}) == 1:
        return [dict(zip(value, turn, strict=True)) for turn in zip(*columns, strict=True)]
    return [value] if "role" in value or "from" in value else None
