"""One response rated 1-9 by a principle: the mean over the digits' probabilities, not the most likely digit.

Lee et al. 2023 (arXiv:2309.00267), direct RLAIF, with 1-9 because "10" is two tokens in most vocabularies.
"""

from __future__ import annotations

from collections.abc import Set
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlaif.constitution import Principle
from rlaif.context import Context
from rlaif.errors import ConfigError
from rlaif.judges.pairwise import as_text
from rlaif.judges.parse import expected_rating, rating
from rlaif.llm import ask_all
from rlaif.types import REFUSALS, Record, Score


class Rubric(BaseModel):
    """Settings of a pointwise judge.

    `read`: the rating from `logprobs` of the digit, or the mean of `samples` sampled ratings (Yuan et al. 2024,
    arXiv:2401.10020, section 2.2, average three); None: log-probabilities where the model gives them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "judge"
    read: Literal["logprobs", "samples"] | None = None
    samples: Annotated[int, Field(ge=1)] = 3
    min_mass: Annotated[float, Field(ge=0, le=1)] = 0.2

    def calls(self, voters: Set[str] = frozenset()) -> int:
        """Calls of one rating."""
        sampled = self.read == "samples" or (self.read is None and self.model in voters)
        return self.samples if sampled else 1

    async def __call__(self, record: Record, response: int, principle: Principle, context: Context) -> Score:
        """The rating as a score in [-1, 1]."""

        async def rate(role: str) -> tuple[Score, bool]:
            return await self._rate(role, record, response, principle, context)

        (score, _), _ = await context.by(self.model, f"{response} {principle.id}", rate, lambda rated: rated[1])
        return score

    async def _rate(
        self, role: str, record: Record, response: int, principle: Principle, context: Context
    ) -> tuple[Score, bool]:
        """The score, and whether the judge refused to give one."""
        llm = context.model(role)
        shown: dict[str, object] = {
            "principle": principle,
            "conversation": as_text(record.prompt),
            "response": record.responses[response].text,
        }
        ask = partial(context.ask_by, role, "judge_rubric", record.prompt, shown)
        if self.read == "logprobs" and not llm.traits.top_logprobs:
            raise ConfigError(f"read: logprobs, but {llm.name} gives none; set by.read to samples, or leave it out")
        if self.read != "samples" and llm.traits.top_logprobs:
            replies = [await ask(max_tokens=3, logprobs=True)]
            mean = expected_rating(replies[0].logprobs or (), self.min_mass)
        else:
            replies = await ask_all(*(ask(temperature=1.0, max_tokens=16, sample=i) for i in range(self.samples)))
            ratings = [value for reply in replies if (value := rating(reply.text)) is not None]
            mean = sum(ratings) / len(ratings) if ratings else None
        score = Score(
            judge=llm.name,
            principle=principle.id,
            response=response,
            value=None if mean is None else (mean - 5.0) / 4.0,
            replies=tuple(reply.text for reply in replies),
        )
        return score, mean is None and all(reply.finish_reason in REFUSALS for reply in replies)
