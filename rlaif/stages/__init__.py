"""The steps of a pipeline: each an async function of (record, context) whose settings are its fields."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Set
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlaif.constitution import Purpose
from rlaif.context import Context
from rlaif.types import Record

Evidence = Literal["all", "revisions", "scores", "strong", "weak"]
Temperature = Annotated[float, Field(ge=0, le=2)]
Tokens = Annotated[int, Field(ge=1)]


class Stage(BaseModel):
    """Base of all stages. Frozen: a stage keeps nothing between records.

    `only` names the prompt sets it is for; records of others pass by. Empty: all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    only: tuple[str, ...] = ()

    @abstractmethod
    async def __call__(self, record: Record, context: Context) -> Record:
        """The record with more in it; or ended, as dropped with a reason.

        Raises CallFailed (the record fails) and Pending (it is replayed in the next pass).
        """

    def roles(self) -> tuple[str, ...]:
        """The model roles it asks."""
        return ()

    def draws(self) -> Mapping[Purpose, int]:
        """What it draws principles for, and how many different ones a record may need."""
        return {}

    def leaves(self) -> frozenset[Evidence]:
        """What pairs can be made from: verdicts between `all` candidates or on `revisions`, `scores`, a side."""
        return frozenset()

    def plan(self, candidates: int, principles: int, voters: Set[str] = frozenset()) -> tuple[int, int]:
        """(calls at most, candidates afterwards) for a record with `candidates`, under so many principles.

        `voters` are the roles whose models give no log-probabilities.
        """
        return 0, candidates
