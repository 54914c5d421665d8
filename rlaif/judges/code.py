"""A judge of the user's own, by the name of its class, until the settings that name it are trusted."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from rlaif.context import Context
from rlaif.errors import ConfigError
from rlaif.judges import Comparer, Principles
from rlaif.types import Record, Verdict


class CodeComparer(Comparer):
    """`by: {kind: code, code: "package.module:Class", settings: {...}}`, a subclass of rlaif.judges.Comparer."""

    kind: Literal["code"] = "code"
    code: Annotated[str, StringConstraints(pattern=r"^[\w.]+:\w+$")]
    settings: dict[str, Any] = Field(default_factory=dict)  # Any: checked by the class itself

    async def __call__(
        self, record: Record, pairs: Sequence[tuple[int, int]], principles: Principles, context: Context
    ) -> list[Verdict]:
        raise ConfigError(f"judge '{self.code}' is code: run it with --allow-code if you trust this file")

    def roles(self) -> tuple[str, ...]:
        return ()

    def calls(self, responses: int, pairs: int, principles: int, voters: Set[str] = frozenset()) -> int:
        return 0
