"""What a linter says of a constitution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rlaif.constitution import Purpose

Level = Literal["error", "warning", "note"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


@dataclass(frozen=True, slots=True)
class Finding:
    """`principles` are the ids it is about; none if it is about the whole."""

    level: Level
    rule: str
    principles: tuple[str, ...]
    what: str
    way_out: str
