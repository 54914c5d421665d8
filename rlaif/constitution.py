"""A constitution: weighted principles, and the draw of one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Set
from functools import cached_property
from hashlib import blake2b
from math import log
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from rlaif.documents import check, load
from rlaif.errors import ConfigError
from rlaif.resources import find

# What a principle is drawn for; the text of that name must be there. A critique implies a revision.
Purpose = Literal["critique", "revision", "judge"]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Principle(BaseModel):
    """One rule: how to critique and revise by it, how to judge by it, how often to draw it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    critique: Text | None = None
    revision: Text | None = None
    judge: Text | None = None
    weight: Annotated[float, Field(strict=True, gt=0, le=1e9, allow_inf_nan=False)] = 1.0
    tags: tuple[Text, ...] = ()

    @field_validator("id")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"{name!r} is no id; use letters, digits and . _ - only")
        return name

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.critique and not self.revision:
            raise ValueError(f"principle '{self.id}' has a critique but no revision; add `revision:`")
        if not self.revision and not self.judge:
            raise ValueError(f"principle '{self.id}' needs `revision:` (and `critique:`), or `judge:`, or all")
        return self

    def text(self, purpose: Purpose) -> str | None:
        return {"critique": self.critique, "revision": self.revision, "judge": self.judge}[purpose]


class Constitution(BaseModel):
    """A named, versioned list of principles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    version: Text
    licence: Text
    description: str = ""
    language: Text = "en"
    principles: tuple[Principle, ...]

    @field_validator("principles")
    @classmethod
    def _distinct(cls, principles: tuple[Principle, ...]) -> tuple[Principle, ...]:
        if not principles:  # not Field(min_length=1), which also complains when the only principle is faulty
            raise ValueError("must not be empty; give at least one principle")
        ids = [principle.id for principle in principles]
        if twice := [i for i, name in enumerate(ids) if name in ids[:i]]:
            raise ValidationError.from_exception_data("Constitution", [_duplicate(i, ids[i]) for i in twice])
        return principles

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits; equal for equal constitutions, however their files are written."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return blake2b(canonical.encode(), digest_size=16).hexdigest()

    def draw(self, draw_id: str, purpose: Purpose, excluding: Set[str] = frozenset()) -> Principle:
        """The principle of this draw, by weight; the same `draw_id` always draws the same one.

        Weighted rendezvous hashing: every principle scores weight / -ln(h), h uniform in (0, 1) from
        (draw_id, principle id), and the highest score wins. So a principle that is added or removed
        changes only the draws that it wins or held. Those `excluding` names by id stand aside.
        """
        head = draw_id.encode()
        best, winner = 0.0, None
        for weight, members in self._pools[purpose].items():
            # Of equal weights the one with the highest number: only that needs a logarithm.
            highest, first = b"", None
            for tail, principle in members:
                number = blake2b(head + tail, digest_size=8).digest()
                if number > highest and principle.id not in excluding:
                    highest, first = number, principle
            if first is not None:
                score = weight / -log(((int.from_bytes(highest, "big") >> 12) + 0.5) * _2_TO_MINUS_52)
                if score > best:
                    best, winner = score, first
        if winner is None:
            raise ConfigError(self._why_none(purpose))
        return winner

    @cached_property
    def _pools(self) -> dict[Purpose, dict[float, list[tuple[bytes, Principle]]]]:
        """By purpose and weight."""
        purposes: tuple[Purpose, ...] = ("critique", "revision", "judge")
        pools: dict[Purpose, dict[float, list[tuple[bytes, Principle]]]] = {purpose: {} for purpose in purposes}
        for purpose, pool in pools.items():
            for principle in self.principles:
                if principle.text(purpose):
                    pool.setdefault(principle.weight, []).append((f"\0{principle.id}".encode(), principle))
        return pools

    def _why_none(self, purpose: Purpose) -> str:
        if count := sum(map(len, self._pools[purpose].values())):
            return (
                f"constitution '{self.name}' has only {count} principle(s) with `{purpose}:` and all are used up; "
                "add principles, or draw fewer times or with replacement"
            )
        return f"no principle of constitution '{self.name}' has `{purpose}:`; add that text to at least one"


# h = (n + 0.5) * 2**-52 with n of 52 bits is exact and never 0 or 1; from 53 bits it could round up to 1.
_2_TO_MINUS_52 = 2.0**-52


def load_constitution(name_or_path: str | Path) -> Constitution:
    """A bundled constitution by name, or a YAML file; ConfigError with file and line if it is not valid."""
    return check(load(find("constitutions", name_or_path)), Constitution)


def _duplicate(index: int, name: str) -> InitErrorDetails:
    problem = PydanticCustomError("duplicate", "another principle has the id '{name}' already", {"name": name})
    return InitErrorDetails(type=problem, loc=(index, "id"), input=name)
