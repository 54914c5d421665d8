"""Compare candidates by the constitution: names its comparisons, asks for each in both orders."""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field

from rlaif.constitution import Principle, Purpose
from rlaif.context import Context
from rlaif.judges.pairwise import Pairwise
from rlaif.judges.rubric import Rubric
from rlaif.llm import ask_all
from rlaif.stages import Evidence, Stage
from rlaif.types import Record

Comparisons = Literal["all", "revisions"]


class Judge(Stage):
    """Pairwise verdicts on the record's candidates.

    `comparisons`: `all` pairs of candidates; `revisions`, each last revision with its own draft.
    `principles`: one drawn per label by weight (section 4 of Bai et al. 2022), or `all` of them.
    """

    comparisons: Annotated[tuple[Comparisons, ...], Field(min_length=1)] = ("all",)
    principles: Literal["draw", "all"] = "draw"
    by: Pairwise = Pairwise()

    async def __call__(self, record: Record, context: Context) -> Record:
        pairs = self.pairs(record)
        verdicts = await ask_all(
            *(
                self.by(record, first, second, principle, context)
                for first, second in pairs
                for principle in _principles(self.principles, record, f"{first}-{second}", context)
            )
        )
        return record.having(verdicts=record.verdicts + tuple(verdicts))

    def pairs(self, record: Record) -> list[tuple[int, int]]:
        """The comparisons asked for, as (first, second) response indices, each once, in order."""
        candidates = record.candidates()
        pairs = set(combinations(candidates, 2)) if "all" in self.comparisons else set()
        if "revisions" in self.comparisons:
            live = set(record.live())
            pairs |= {(d, i) for i in candidates if (d := record.draft_of(i)) != i and d in live}
        return sorted(pairs)

    def roles(self) -> tuple[str, ...]:
        return (self.by.model,)

    def draws(self) -> Mapping[Purpose, int]:
        return {"judge": 1}

    def leaves(self) -> frozenset[Evidence]:
        return frozenset(self.comparisons) | ({"revisions"} if "all" in self.comparisons else set())

    def plan(self, candidates: int, principles: int, voters: Set[str] = frozenset()) -> tuple[int, int]:
        pairs = candidates * (candidates - 1) // 2 if "all" in self.comparisons else candidates // 2
        return pairs * self.by.calls(voters) * (principles if self.principles == "all" else 1), candidates


class Rate(Stage):
    """Pointwise scores of the record's candidates, by drawn or all principles."""

    principles: Literal["draw", "all"] = "all"
    by: Rubric = Rubric()

    async def __call__(self, record: Record, context: Context) -> Record:
        scores = await ask_all(
            *(
                self.by(record, candidate, principle, context)
                for principle in _principles(self.principles, record, "rate", context)
                for candidate in record.candidates()
            )
        )
        return record.having(scores=record.scores + tuple(scores))

    def leaves(self) -> frozenset[Evidence]:
        return frozenset({"scores"})

    def roles(self) -> tuple[str, ...]:
        return (self.by.model,)

    def draws(self) -> Mapping[Purpose, int]:
        return {"judge": 1}

    def plan(self, candidates: int, principles: int, voters: Set[str] = frozenset()) -> tuple[int, int]:
        return candidates * self.by.calls(voters) * (principles if self.principles == "all" else 1), candidates


def _principles(which: Literal["draw", "all"], record: Record, step: str, context: Context) -> list[Principle]:
    if which == "draw":
        return [context.constitution.draw(context.draw_id(record.id, step), "judge")]
    return [principle for principle in context.constitution.principles if principle.judge]
