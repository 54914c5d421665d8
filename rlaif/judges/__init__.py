"""Which of two responses is better by a principle, and how good is one: answers of a model, read with care."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence, Set

from pydantic import BaseModel, ConfigDict

from rlaif.constitution import Principle
from rlaif.context import Context
from rlaif.llm import ask_all
from rlaif.types import Record, Verdict

# (step of the stage) -> what a label is judged by: one principle drawn for that step, or all of them.
Principles = Callable[[str], Sequence[Principle]]


class Comparer(BaseModel):
    """Base of what compares responses; its fields are its settings in a `judge` stage's `by`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    async def __call__(
        self, record: Record, pairs: Sequence[tuple[int, int]], principles: Principles, context: Context
    ) -> list[Verdict]:
        """Verdicts on these pairs of the record's responses.

        Raises CallFailed (the record fails) and Pending (it is replayed in the next pass).
        """

    @abstractmethod
    def roles(self) -> tuple[str, ...]:
        """The model roles it asks."""

    @abstractmethod
    def calls(self, responses: int, pairs: int, principles: int, voters: Set[str] = frozenset()) -> int:
        """At most, by so many principles; `voters` are the roles whose models give no log-probabilities."""


class PairComparer(Comparer):
    """Base of what looks at one pair at a time."""

    @abstractmethod
    async def compare(self, record: Record, first: int, second: int, principle: Principle, context: Context) -> Verdict:
        """Its verdict on two responses, by their index. Raises as above."""

    @abstractmethod
    def calls_a_pair(self, voters: Set[str] = frozenset()) -> int:
        """At most."""

    async def __call__(
        self, record: Record, pairs: Sequence[tuple[int, int]], principles: Principles, context: Context
    ) -> list[Verdict]:
        return await ask_all(
            *(
                self.compare(record, first, second, principle, context)
                for first, second in pairs
                for principle in principles(f"{first}-{second}")
            )
        )

    def calls(self, responses: int, pairs: int, principles: int, voters: Set[str] = frozenset()) -> int:
        return pairs * principles * self.calls_a_pair(voters)
