"""Compare candidates by the constitution: names its comparisons, asks for each in both orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from itertools import combinations
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec.structs import replace
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from rlaif.constitution import Principle, Purpose
from rlaif.context import Context
from rlaif.errors import CallFailed, ConfigError, Pending, RlaifError
from rlaif.judges import Comparer, Principles
from rlaif.judges.aspects import Aspects, load_aspects
from rlaif.judges.cascade import Cascade
from rlaif.judges.code import CodeComparer
from rlaif.judges.listwise import Listwise
from rlaif.judges.pairwise import Pairwise
from rlaif.judges.reward import RewardModel
from rlaif.judges.rubric import Rubric
from rlaif.llm import ask_all
from rlaif.stages import Evidence, Stage
from rlaif.types import Record, Score, Verdict

Comparisons = Literal["all", "revisions"]


def _kind(value: Any) -> str:  # Any: whatever a file holds
    return str(value.get("kind", "pairwise") if isinstance(value, dict) else getattr(value, "kind", "pairwise"))


AnyComparer = Annotated[
    Annotated[Pairwise, Tag("pairwise")]
    | Annotated[Listwise, Tag("listwise")]
    | Annotated[RewardModel, Tag("reward")]
    | Annotated[Cascade, Tag("cascade")]
    | Annotated[CodeComparer, Tag("code")],
    Discriminator(
        _kind,
        custom_error_type="unknown_judge",
        custom_error_message="unknown kind of judge; known: pairwise, listwise, reward, cascade, code",
    ),
]


class Judge(Stage):
    """Pairwise verdicts on the record's candidates.

    `comparisons`: `all` pairs of candidates; `revisions`, each last revision with its own draft.
    `principles`: one drawn per label by weight (section 4 of Bai et al. 2022), or `all` of them, whose verdicts are
    averaged by weight.
    `by`: one judge, or several that look at the same pairs, a panel; `export.panel` says how their verdicts are put
    together.
    """

    comparisons: Annotated[tuple[Comparisons, ...], Field(min_length=1)] = ("all",)
    principles: Literal["draw", "all"] = "draw"
    by: tuple[AnyComparer, ...] = (Pairwise(),)

    @field_validator("by", mode="before")
    @classmethod
    def _spelled_out(cls, value: object) -> object:
        """One judge need not be in a list, and a kind alone has its defaults: `by: listwise`."""
        judges = value if isinstance(value, (list, tuple)) else (value,)
        return tuple({"kind": one} if isinstance(one, str) else one for one in judges)

    @field_validator("by")
    @classmethod
    def _any(cls, judges: tuple[AnyComparer, ...]) -> tuple[AnyComparer, ...]:
        if not judges:  # not Field(min_length=1), which also complains when the only judge is faulty
            raise ValueError("must not be empty; name a judge")
        return judges

    async def __call__(self, record: Record, context: Context) -> Record:
        pairs = self.pairs(record)

        def principles(step: str) -> list[Principle]:
            return _principles(self.principles, record, step, context)

        verdicts = await ask_all(*(_verdicts(judge, record, pairs, principles, context) for judge in self.by))
        found = [verdict for of_judge in verdicts for verdict in of_judge]
        if self.principles == "all":  # one that is drawn was drawn by its weight
            weights = {principle.id: principle.weight for principle in context.constitution.principles}
            found = [replace(verdict, weight=weights.get(verdict.principle, 1.0)) for verdict in found]
        return record.having(verdicts=record.verdicts + tuple(found))

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
        asked = self.planned(candidates, principles, voters)
        return sum(calls for _, calls in asked), candidates

    def planned(self, candidates: int, principles: int, voters: Set[str] = frozenset()) -> list[tuple[Comparer, int]]:
        """(judge, calls at most); the judges of a cascade one by one, as if none were ever sure."""
        pairs = candidates * (candidates - 1) // 2 if "all" in self.comparisons else candidates // 2
        by = principles if self.principles == "all" else 1
        single = [one for judge in self.by for one in (judge.judges if isinstance(judge, Cascade) else (judge,))]
        return [(judge, judge.calls(candidates, pairs, by, voters)) for judge in single]


async def _verdicts(
    judge: Comparer, record: Record, pairs: Sequence[tuple[int, int]], principles: Principles, context: Context
) -> list[Verdict]:
    """What the judge says; of a judge of the user's own it is checked.

    Raises ConfigError for what is no verdict, and CallFailed where such a judge fails: the record alone, not the run.
    """
    if type(judge).__module__.startswith("rlaif."):
        return await judge(record, pairs, principles, context)
    name = f"judge '{type(judge).__module__}:{type(judge).__name__}'"
    try:
        verdicts = await judge(record, pairs, principles, context)
    except (RlaifError, Pending):
        raise
    except Exception as error:
        raise CallFailed("judge", f"{name} failed: {type(error).__name__}: {error}") from error
    try:
        found = msgspec.convert(msgspec.to_builtins(verdicts), list[Verdict])
    except (msgspec.ValidationError, TypeError) as error:
        raise ConfigError(f"{name} must return a list of rlaif.types.Verdict: {error}") from error
    for verdict in found:
        if (verdict.first, verdict.second) not in pairs:
            raise ConfigError(f"{name} has a verdict on {verdict.first} and {verdict.second}, which it was not asked")
        both = [p for p in (verdict.p_ab, verdict.p_ba, verdict.p_first) if p is not None]
        if not all(0 <= p <= 1 for p in both):
            raise ConfigError(f"{name} gives the probabilities {both}: each is from 0 to 1, or None")
    return found


class Rate(Stage):
    """Pointwise scores of the record's candidates, by drawn or all principles.

    `rubric`: a bundled one or a file, whose aspects are all rated instead, each with its weight. What it says is a
    part of the settings from then on.
    """

    principles: Literal["draw", "all"] = "all"
    rubric: Aspects | None = None
    by: Rubric = Rubric()

    @field_validator("rubric", mode="before")
    @classmethod
    def _read(cls, value: object) -> object:
        return load_aspects(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _all_aspects(self) -> Self:
        if self.rubric and self.principles == "draw":
            raise ValueError("a rubric's aspects are all rated; leave out `principles: draw`, or the rubric")
        return self

    async def __call__(self, record: Record, context: Context) -> Record:
        scores = await ask_all(
            *(
                self._rate(record, candidate, principle, context)
                for principle in self._principles(record, context)
                for candidate in record.candidates()
            )
        )
        return record.having(scores=record.scores + tuple(scores))

    async def _rate(self, record: Record, candidate: int, principle: Principle, context: Context) -> Score:
        score = await self.by(record, candidate, principle, context)
        return msgspec.structs.replace(score, weight=principle.weight) if self.rubric else score

    def _principles(self, record: Record, context: Context) -> Sequence[Principle]:
        if self.rubric:
            return self.rubric.principles
        return _principles(self.principles, record, "rate", context)

    def leaves(self) -> frozenset[Evidence]:
        return frozenset({"scores"})

    def roles(self) -> tuple[str, ...]:
        return (self.by.model,)

    def draws(self) -> Mapping[Purpose, int]:
        return {} if self.rubric else {"judge": 1}

    def plan(self, candidates: int, principles: int, voters: Set[str] = frozenset()) -> tuple[int, int]:
        rated = len(self.rubric.aspects) if self.rubric else principles if self.principles == "all" else 1
        return candidates * self.by.calls(voters) * rated, candidates


def _principles(which: Literal["draw", "all"], record: Record, step: str, context: Context) -> list[Principle]:
    if which == "draw":
        return [context.constitution.draw(context.draw_id(record.id, step), "judge")]
    return [principle for principle in context.constitution.principles if principle.judge]
