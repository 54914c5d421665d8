"""Draw candidate responses to the prompt."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlaif.context import Context
from rlaif.llm import ask_all
from rlaif.stages import Stage, Temperature, Tokens
from rlaif.types import Completion, Drop, Message, Messages, Record, Response


class Sample(Stage):
    """`n` responses from each of `models` at each of `temperatures`; identical ones are dropped.

    At temperature 0 one is drawn: there is only one greedy answer.
    Temperature 1 is what Bai et al. 2022 (arXiv:2212.08073) sample with.
    """

    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("policy",)
    n: Annotated[int, Field(ge=1)] = 4
    temperatures: Annotated[tuple[Temperature, ...], Field(min_length=1)] = (1.0,)
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Tokens = 512
    system: str | None = None  # put before the prompt for sampling; no part of the dataset
    stop: tuple[str, ...] = ()

    async def __call__(self, record: Record, context: Context) -> Record:
        messages = record.prompt if self.system is None else _with_system(self.system, record.prompt)
        draws = [(m, t, i) for m in self.models for t in self.temperatures for i in range(self.n if t else 1)]
        completions = await ask_all(
            *(
                context.ask(
                    model,
                    messages,
                    temperature=temperature,
                    top_p=self.top_p,
                    max_tokens=self.max_tokens,
                    stop=self.stop,
                    sample=i,
                )
                for model, temperature, i in draws
            )
        )
        first = len(record.responses)
        responses = tuple(
            as_response(completion, context.model(model).name)
            for completion, (model, _, _) in zip(completions, draws, strict=True)
        )
        seen: set[str] = {response.text.strip() for response in record.responses}
        drops = []
        for index, response in enumerate(responses, first):
            if response.text.strip() in seen:
                drops.append(Drop(index, "duplicate"))
            seen.add(response.text.strip())
        return record.having(responses=record.responses + responses, drops=record.drops + tuple(drops))

    def roles(self) -> tuple[str, ...]:
        return self.models

    def plan(self, candidates: int, principles: int) -> tuple[int, int]:
        drawn = len(self.models) * sum(self.n if temperature else 1 for temperature in self.temperatures)
        return drawn, candidates + drawn


def _with_system(text: str, prompt: Messages) -> Messages:
    """A prompt's own system turn comes after `text`, in the same turn: many models take only one."""
    if prompt[0].role == "system":
        return (Message("system", f"{text}\n\n{prompt[0].content}"), *prompt[1:])
    return (Message("system", text), *prompt)


def as_response(completion: Completion, model: str) -> Response:
    return Response(
        text=completion.text.strip(),
        model=model,
        finish_reason=completion.finish_reason,
        reasoning=completion.reasoning,
    )
