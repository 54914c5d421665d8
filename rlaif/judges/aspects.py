"""A rubric file: the aspects to rate a response by, with what the ends of the scale mean and what each weighs."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rlaif.constitution import Principle, Text
from rlaif.documents import check, load
from rlaif.resources import find

Rating = Annotated[int, Field(ge=1, le=9)]


class Aspect(BaseModel):
    """One thing to look at: `judge` says what is asked, `anchors` what a rating from 1 to 9 means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    judge: Text
    weight: Annotated[float, Field(strict=True, gt=0, le=1e9, allow_inf_nan=False)] = 1.0
    anchors: dict[Rating, Text] = Field(default_factory=dict)

    @property
    def principle(self) -> Principle:
        """As the templates take it, the anchors in the order of their numbers."""
        lines = [self.judge, *(f"{rating}: {text}" for rating, text in sorted(self.anchors.items()))]
        return Principle(id=self.id, judge="\n".join(lines), weight=self.weight)


class Aspects(BaseModel):
    """A named, versioned rubric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    version: Text
    licence: Text
    description: str = ""
    language: Text = "en"
    aspects: tuple[Aspect, ...]

    @field_validator("aspects")
    @classmethod
    def _distinct(cls, aspects: tuple[Aspect, ...]) -> tuple[Aspect, ...]:
        if not aspects:
            raise ValueError("must not be empty; give at least one aspect")
        ids = [aspect.id for aspect in aspects]
        if twice := [name for i, name in enumerate(ids) if name in ids[:i]]:
            raise ValueError(f"two aspects have the id '{twice[0]}'")
        return aspects

    @cached_property
    def principles(self) -> tuple[Principle, ...]:
        return tuple(aspect.principle for aspect in self.aspects)


def load_aspects(name_or_path: str | Path) -> Aspects:
    """A bundled rubric by name, or a YAML file; ConfigError with file and line if it is not valid."""
    return check(load(find("rubrics", name_or_path)), Aspects)
