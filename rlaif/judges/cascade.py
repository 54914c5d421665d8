"""A cheap judge first, a dear one only where the cheap one is not sure.

Jung et al. 2024 (arXiv:2407.18370): the confidence under which to escalate is chosen on labelled items, which is
what `rlaif judge audit` prints the curve for.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Annotated, Literal

import msgspec
from pydantic import Field, field_validator

from rlaif.constitution import Principle
from rlaif.context import Context
from rlaif.judges import Comparer, Principles
from rlaif.judges.pairwise import Pairwise
from rlaif.llm import ask_all
from rlaif.types import VOTES, Record, Verdict


class Cascade(Comparer):
    """Settings of a cascade.

    `judges` are asked in order until one is sure: its verdict has the same winner in both orders and a probability of
    at least `confidence` for it, or for a tie, or for both being bad. The last one's word counts whatever it is.
    What an earlier one said stays in the record as `escalated`, which is no vote.
    """

    kind: Literal["cascade"] = "cascade"
    judges: tuple[Pairwise, ...]
    confidence: Annotated[float, Field(gt=0.5, le=1.0)] = 0.8

    @field_validator("judges")
    @classmethod
    def _several(cls, judges: tuple[Pairwise, ...]) -> tuple[Pairwise, ...]:
        if len(judges) < 2:
            raise ValueError("a cascade needs two judges or more, the cheapest first")
        return judges

    async def __call__(
        self, record: Record, pairs: Sequence[tuple[int, int]], principles: Principles, context: Context
    ) -> list[Verdict]:
        found = await ask_all(
            *(
                self._compare(record, first, second, principle, context)
                for first, second in pairs
                for principle in principles(f"{first}-{second}")
            )
        )
        return [verdict for verdicts in found for verdict in verdicts]

    async def _compare(
        self, record: Record, first: int, second: int, principle: Principle, context: Context
    ) -> list[Verdict]:
        verdicts: list[Verdict] = []
        *cheaper, last = self.judges
        for judge in cheaper:
            verdict = await judge.compare(record, first, second, principle, context)
            if self._sure(verdict):
                return [*verdicts, verdict]
            if verdict.outcome in VOTES:  # what is no vote keeps the reason why
                verdict = msgspec.structs.replace(verdict, outcome="escalated")
            verdicts.append(verdict)
        return [*verdicts, await last.compare(record, first, second, principle, context)]

    def _sure(self, verdict: Verdict) -> bool:
        """A tie and two bad responses are the same in both orders by nature."""
        p = verdict.p_first
        if verdict.outcome not in VOTES or p is None:
            return False
        if verdict.outcome == "ok":
            return verdict.consistent is True and max(p, 1.0 - p) >= self.confidence
        return ((verdict.p_tie if verdict.outcome == "tie" else verdict.p_bad) or 0.0) >= self.confidence

    def roles(self) -> tuple[str, ...]:
        return tuple(role for judge in self.judges for role in judge.roles())

    def calls(self, responses: int, pairs: int, principles: int, voters: Set[str] = frozenset()) -> int:
        return sum(judge.calls(responses, pairs, principles, voters) for judge in self.judges)
