"""Draw candidate responses to the prompt."""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import partial
from hashlib import blake2b
from typing import Annotated

from pydantic import Field, field_validator

from rlaif.backends import FALLBACK
from rlaif.context import Context
from rlaif.llm import ask_all
from rlaif.stages import Evidence, Stage, Temperature, Tokens
from rlaif.types import Completion, Drop, Message, Messages, Record, Response, Side

# Their samples are numbered from here.
_OF_FALLBACKS = 1_000_000


class Sample(Stage):
    """`n` responses from each of `models` at each of `temperatures`; identical ones are dropped.

    At temperature 0 one is drawn: there is only one greedy answer.
    Temperature 1 is what Bai et al. 2022 (arXiv:2212.08073) sample with.
    `draw`: for each prompt only so many of `models`, as from a pool (UltraFeedback, arXiv:2310.01377, section 2.2).
    `side` marks the responses as from a strong or a weak model.
    """

    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("policy",)
    draw: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1)] = 4
    temperatures: Annotated[tuple[Temperature, ...], Field(min_length=1)] = (1.0,)
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Tokens = 512
    system: str | None = None  # put before the prompt for sampling; no part of the dataset
    stop: tuple[str, ...] = ()
    side: Side | None = None

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(models)) < len(models):
            raise ValueError("names a model twice; draw more from each with n")
        return models

    async def __call__(self, record: Record, context: Context) -> Record:
        messages = record.prompt if self.system is None else _with_system(self.system, record.prompt)
        draws = self._draws(record, context)
        answers = await ask_all(
            *(
                context.by(role, f"{temperature} {number}", partial(self._draw, messages, temperature, number, context))
                for role, temperature, number in draws
            )
        )
        return with_responses(record, [as_response(completion, name, self.side) for completion, name in answers])

    async def _draw(
        self, messages: Messages, temperature: float, number: int, context: Context, role: str
    ) -> Completion:
        if role.endswith(FALLBACK):  # it may be asked for samples of its own too
            number += _OF_FALLBACKS
        return await context.ask(
            role,
            messages,
            temperature=temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            stop=self.stop,
            sample=number,
        )

    def _draws(self, record: Record, context: Context) -> list[tuple[str, float, int]]:
        """(role, temperature, number of the sample).

        What a model was asked for before, here or in an earlier stage, it is not asked for again in another role.
        """
        here: dict[tuple[str, float], int] = {}
        draws: list[tuple[str, float, int]] = []
        for role in self._drawn(record, context):
            name, other = context.model(role).name, context.models.get(role + FALLBACK)
            names = (name, other.name) if other else (name,)
            asked = sum(response.revises is None and response.model in names for response in record.responses)
            for temperature in self.temperatures:
                if not temperature:
                    draws.append((role, 0.0, 0))
                    continue
                first = here.get((name, temperature), asked)
                draws += [(role, temperature, first + i) for i in range(self.n)]
                here[name, temperature] = first + self.n
        return draws

    def _drawn(self, record: Record, context: Context) -> Sequence[str]:
        """The models of this record: by rendezvous, so that one more in the pool changes only what it wins."""
        if self.draw is None or self.draw >= len(self.models):
            return self.models
        drawn = context.draw_id(record.id, "models")
        ranked = sorted(self.models, key=lambda role: blake2b(f"{drawn}\0{role}".encode(), digest_size=8).digest())
        return [role for role in self.models if role in ranked[: self.draw]]

    def roles(self) -> tuple[str, ...]:
        return self.models

    def plan(self, candidates: int, principles: int, voters: Set[str] = frozenset()) -> tuple[int, int]:
        models = min(len(self.models), self.draw or len(self.models))
        drawn = models * sum(self.n if temperature else 1 for temperature in self.temperatures)
        return drawn, candidates + drawn

    def leaves(self) -> frozenset[Evidence]:
        return frozenset({self.side} if self.side else ())


def _with_system(text: str, prompt: Messages) -> Messages:
    """A prompt's own system turn comes after `text`, in the same turn: many models take only one."""
    if prompt[0].role == "system":
        return (Message("system", f"{text}\n\n{prompt[0].content}"), *prompt[1:])
    return (Message("system", text), *prompt)


def with_responses(record: Record, responses: Sequence[Response]) -> Record:
    """The record with these candidates at its end; what was said before is dropped as a duplicate."""
    seen = {response.text.strip() for response in record.responses}
    drops = []
    for index, response in enumerate(responses, len(record.responses)):
        text = response.text.strip()
        if text in seen:
            drops.append(Drop(index, "duplicate"))
        seen.add(text)
    return record.having(responses=(*record.responses, *responses), drops=(*record.drops, *drops))


def as_response(completion: Completion, model: str, side: Side | None = None) -> Response:
    return Response(
        text=completion.text.strip(),
        model=model,
        finish_reason=completion.finish_reason,
        reasoning=completion.reasoning,
        side=side,
    )
