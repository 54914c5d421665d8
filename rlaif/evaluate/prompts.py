"""The prompts that models are held against: a bundled set or anyone's file, by its columns, and only some of its rows.

The columns of published sets are known by their names: XSTest's prompt and type, SimpleSafetyTests' prompts_final and
harm_area, and the like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import Any

import msgspec

from rlaif import hub
from rlaif.errors import ConfigError
from rlaif.resources import find
from rlaif.rows import Row, rows_of

# Looked for in this order.
_PROMPT = ("prompt", "prompts_final", "goal", "behavior", "question", "instruction", "query", "messages", "text")
_CATEGORY = ("harm_area", "category", "type", "subset", "topic")
_ROLES = ("prompt", "category")


@dataclass(frozen=True, slots=True)
class PromptSet:
    """`columns`: prompt and category by the file's names. `where`: only rows with these values, column by column."""

    path: str
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)

    def lines(self, limit: int | None = None) -> list[bytes]:
        """The rows as JSON lines {"prompt", "category"}; raises ConfigError where there are none."""
        for role in self.columns:
            if role not in _ROLES:
                raise ConfigError(f"{self.path}: unknown column role '{role}'; known: {', '.join(_ROLES)}")
        found = list(islice(self._lines(), limit))
        if not found:
            only = " and ".join(f"{name} = {value}" for name, value in self.where.items())
            raise ConfigError(f"{self.path}: no prompts" + (f" where {only}" if only else " in it"))
        return found

    def _lines(self) -> Iterator[bytes]:
        for row in self._rows():
            names = list(row.values)
            prompt = self._column(row.where, names, "prompt", _PROMPT)
            category = self._column(row.where, names, "category", _CATEGORY)
            if prompt is None:
                raise _lacks(row.where, "prompt", names)
            if all(self._value(row, name, names) == value for name, value in self.where.items()):
                said = None if category is None else row.values[category]
                yield msgspec.json.encode({"prompt": _said(row, prompt), "category": said}) + b"\n"

    def _rows(self) -> Iterator[Row]:
        if not self.path.startswith(hub.PREFIX):
            return rows_of(find("data", self.path), "prompts")
        rows = enumerate(hub.rows(self.path, hub.columns(self.path)), 1)
        return (Row(f"{self.path}: row {number}", values) for number, values in rows)

    def _column(self, where: str, names: Sequence[str], role: str, known: Sequence[str]) -> str | None:
        if (given := self.columns.get(role)) is None:
            return next((name for name in known if name in names), None)
        if given not in names:
            raise _lacks(where, given, names)
        return given

    def _value(self, row: Row, name: str, names: Sequence[str]) -> str:
        if name not in row.values:
            raise _lacks(row.where, name, names)
        return _as_text(row.values[name])


def _said(row: Row, column: str) -> str | list[Any]:  # Any: messages, looked at when the run reads them
    value = row.values[column]
    if not isinstance(value, (str, list)) or not (value.strip() if isinstance(value, str) else value):
        raise ConfigError(f"{row.where}: '{column}' is no text; fill it in, remove the row, or name another column")
    return value


def _as_text(value: Any) -> str:  # Any: whatever the file holds
    """As a user types it: true, 3, safe."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _lacks(where: str, wanted: str, names: Sequence[str]) -> ConfigError:
    hint = "say which one it is by the set's columns, as prompt=NAME" if wanted == "prompt" else "name one of these"
    if near := get_close_matches(wanted, names, n=1):
        hint = f"did you mean '{near[0]}'?"
    return ConfigError(f"{where}: no column '{wanted}'; there are: {', '.join(names) or 'none'}; {hint}")
