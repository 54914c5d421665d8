"""Two responses that differ by design: one asked to meet a principle, one asked to go against it.

RLCD, Yang et al. 2023 (arXiv:2307.12950), section 3: the pair needs no judge. What asked for the
difference stands before the prompt for sampling only; it is no part of the dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import partial
from typing import Annotated

import msgspec
from pydantic import Field

from rlaif.constitution import Purpose
from rlaif.context import Context
from rlaif.llm import ask_all
from rlaif.stages import Evidence, Stage, Temperature, Tokens
from rlaif.stages.sample import as_response, with_responses
from rlaif.types import Record, Side

_SIDES: tuple[Side, ...] = ("strong", "weak")


class Contrast(Stage):
    """`n` pairs of responses (one at temperature 0), each by a principle drawn by weight.

    Both sides share the principle and the sample's number.
    """

    model: str = "policy"
    n: Annotated[int, Field(ge=1)] = 1
    temperature: Temperature = 1.0
    max_tokens: Tokens = 512
    stop: tuple[str, ...] = ()

    async def __call__(self, record: Record, context: Context) -> Record:
        draws = [
            (side, i, context.constitution.draw(context.draw_id(record.id, str(i)), "judge"))
            for i in range(self._pairs)
            for side in _SIDES
        ]
        answers = await ask_all(
            *(
                context.by(
                    self.model,
                    f"{side} {i}",
                    partial(
                        context.ask_by,
                        template=f"contrast_{side}",
                        conversation=record.prompt,
                        values={"principle": principle},
                        temperature=self.temperature,
                        max_tokens=self.max_tokens,
                        stop=self.stop,
                        sample=i,
                    ),
                )
                for side, i, principle in draws
            )
        )
        return with_responses(
            record,
            [
                msgspec.structs.replace(as_response(completion, name, side), principle=principle.id)
                for (completion, name), (side, _, principle) in zip(answers, draws, strict=True)
            ],
        )

    def roles(self) -> tuple[str, ...]:
        return (self.model,)

    def draws(self) -> Mapping[Purpose, int]:
        return {"judge": 1}

    def leaves(self) -> frozenset[Evidence]:
        return frozenset(_SIDES)

    def plan(self, candidates: int, principles: int, voters: Set[str] = frozenset()) -> tuple[int, int]:
        return 2 * self._pairs, candidates + 2 * self._pairs

    @property
    def _pairs(self) -> int:
        return self.n if self.temperature else 1  # there is only one greedy answer
