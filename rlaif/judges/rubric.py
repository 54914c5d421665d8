"""One response rated 1-9 by a principle: the mean over the digits' probabilities, not the most likely digit.

Lee et al. 2023 (arXiv:2309.00267), section 3.3, with 1-9 because "10" is two tokens in most vocabularies.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rlaif.constitution import Principle
from rlaif.context import Context
from rlaif.judges.pairwise import as_text
from rlaif.judges.parse import expected_rating, rating
from rlaif.llm import ask_all
from rlaif.types import Record, Score


class Rubric(BaseModel):
    """Settings of a pointwise judge. Without log-probabilities `samples` ratings are averaged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "judge"
    samples: Annotated[int, Field(ge=1)] = 3
    min_mass: Annotated[float, Field(ge=0, le=1)] = 0.2

    async def __call__(self, record: Record, response: int, principle: Principle, context: Context) -> Score:
        """The rating as a score in [-1, 1]."""
        messages = context.templates.render(
            "judge_rubric",
            record.prompt,
            principle=principle,
            conversation=as_text(record.prompt),
            response=record.responses[response].text,
        )
        llm = context.model(self.model)
        if llm.traits.top_logprobs:
            replies = [await context.ask(self.model, messages, max_tokens=3, logprobs=True)]
            mean = expected_rating(replies[0].logprobs or (), self.min_mass)
        else:
            replies = await ask_all(
                *(
                    context.ask(self.model, messages, temperature=1.0, max_tokens=16, sample=i)
                    for i in range(self.samples)
                )
            )
            ratings = [value for reply in replies if (value := rating(reply.text)) is not None]
            mean = sum(ratings) / len(ratings) if ratings else None
        return Score(
            judge=llm.name,
            principle=principle.id,
            response=response,
            value=None if mean is None else (mean - 5.0) / 4.0,
            replies=tuple(reply.text for reply in replies),
        )
