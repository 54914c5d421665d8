"""Compare candidates by the constitution: names its comparisons, asks for each in both orders."""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from rlaif.constitution import Principle, Purpose
from rlaif.context import Context
from rlaif.judges import Comparer
from rlaif.judges.cascade import Cascade
from rlaif.judges.code import CodeComparer
from rlaif.judges.pairwise import Pairwise
from rlaif.judges.rubric import Rubric
from rlaif.llm import ask_all
from rlaif.stages import Evidence, Stage
from rlaif.types import Record

Comparisons = Literal["all", "revisions"]


def _kind(value: Any) -> str:  # Any: whatever a file holds
    return str(value.get("kind", "pairwise") if isinstance(value, dict) else value.kind)


AnyComparer = Annotated[
    Annotated[Pairwise, Tag("pairwise")] | Annotated[Cascade, Tag("cascade")] | Annotated[CodeComparer, Tag("code")],
    Discriminator(_kind),
]


class Judge(Stage):
    """Pairwise verdicts on the record's candidates.

    `comparisons`: `all` pairs of candidates; `revisions`, each last revision with its own draft.
    `principles`: one drawn per label by weight (section 4 of Bai et al. 2022), or `all` of them.
    `by`: one judge, or several that look at the same pairs, a panel; `export.panel` says how their verdicts are put
    together.
    """

    comparisons: Annotated[tuple[Comparisons, ...], Field(min_length=1)] = ("all",)
    principles: Literal["draw", "all"] = "draw"
    by: Annotated[tuple[AnyComparer, ...], Field(min_length=1)] = (Pairwise(),)

    @field_validator("by", mode="before")
    @classmethod
    def _one_alone(cls, value: object) -> object:
        return value if isinstance(value, (list, tuple)) else (value,)

    async def __call__(self, record: Record, context: Context) -> Record:
        pairs = self.pairs(record)

        def principles(step: str) -> list[Principle]:
            return _principles(self.principles, record, step, context)

        verdicts = await ask_all(*(judge(record, pairs, principles, context) for judge in self.by))
        return record.having(verdicts=record.verdicts + tuple(verdict for found in verdicts for verdict in found))

    def pairs(self, record: Record) -> list[tuple[int, int]]:
        """The comparisons asked for, as (first, second) response indices, each once, in order."""
        candidates = record.candidates()
        pairs = set(combinations(candidates, 2)) if "all" in self.comparisons else set()
        if "revisions" in self.comparisons:
            live = set(record.live())
            pairs |= {(d, i) for i in candidates if (d := record.draft_of(i)) != i and d in live}
        return sorted(pairs)

    def roles(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(role for judge in self.by for role in judge.roles()))

    def draws(self) -> Mapping[Purpose, int]:
        return {"judge": 1}

    def leaves(self) -> frozenset[Evidence]:
        return frozenset(self.comparisons) | ({"revisions"} if "all" in self.comparisons else set())

    def plan(self, candidates: int, principles: int, voters: Set[str] = frozenset()) -> tuple[int, int]:
        by_one = sum(calls for _, calls in self.planned(candidates, voters))
        return by_one * (principles if self.principles == "all" else 1), candidates

    def planned(self, candidates: int, voters: Set[str] = frozenset()) -> list[tuple[Comparer, int]]:
        """(judge, calls by one principle at most); the judges of a cascade one by one, as if none were ever sure."""
        pairs = candidates * (candidates - 1) // 2 if "all" in self.comparisons else candidates // 2
        single = [one for judge in self.by for one in (judge.judges if isinstance(judge, Cascade) else (judge,))]
        return [(judge, judge.calls(candidates, pairs, voters)) for judge in single]


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
