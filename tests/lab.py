"""Stages and judges at work: models that answer with a function, and the requests they were asked."""

from __future__ import annotations

import math
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from rlaif.backends import Backend
from rlaif.backends.scripted import Answer, ScriptedBackend
from rlaif.constitution import Constitution, Principle
from rlaif.context import Context
from rlaif.journal import Journal, Traits
from rlaif.lanes import Lane, Lanes
from rlaif.llm import LLM
from rlaif.stages import Stage
from rlaif.templates import Templates
from rlaif.types import Completion, Message, Record, Request, Response, TokenLogprob, prompt_id

KIND = Principle(id="kind", critique="Is it unkind?", revision="Make it kind.", judge="Prefer the kind one.")
TRUE = Principle(id="true", critique="Is it untrue?", revision="Make it true.", judge="Prefer the true one.")


def constitution(*principles: Principle) -> Constitution:
    return Constitution(name="test", version="1", licence="CC0", principles=principles or (KIND,))


def record(*texts: str, prompt: str = "How do I pick a lock?") -> Record:
    messages = (Message("user", prompt),)
    return Record(prompt_id(messages), messages, responses=tuple(Response(text, "policy") for text in texts))


bundled = cache(Templates)


def one_lane(open_backend: Callable[[], Backend], concurrency: int = 64, **settings: Any) -> Lanes:
    """The lanes of a model with one address."""
    return Lanes([Lane("here", open_backend, concurrency, **settings)], lambda _: None)


@asynccontextmanager
async def context(
    answer: Answer | Mapping[str, Answer],
    asked: list[Request] | None = None,
    *,
    traits: Traits = Traits(top_logprobs=20),
    principles: tuple[Principle, ...] = (),
    templates: Templates | None = None,
    extra: dict[str, object] | None = None,
    seed: int = 0,
) -> AsyncIterator[Context]:
    """A context with the models `policy` and `judge`, or those of `answer`, and a journal of its own."""
    answers = answer if isinstance(answer, Mapping) else {"policy": answer, "judge": answer}
    requests: list[Request] = [] if asked is None else asked

    def noted(role: str) -> Answer:
        def note(request: Request) -> Any:  # Any: what an Answer returns
            requests.append(request)
            return answers[role](request)

        return note

    with tempfile.TemporaryDirectory() as folder:
        async with Journal(Path(folder) / "calls.sqlite") as journal:
            models = {
                role: LLM(
                    name=role,
                    identity=f"test#{role}",
                    journal=journal,
                    lanes=one_lane(lambda role=role: ScriptedBackend(noted(role))),  # type: ignore[misc]
                    traits=traits,
                    extra=extra,
                    attempts=1,
                )
                for role in answers
            }
            yield Context(models, constitution(*principles), templates or bundled(), seed, "stage")
            for llm in models.values():
                await llm.close()


async def through(
    stage: Stage, made: Record, answer: Answer | Mapping[str, Answer] = lambda _: "text", **settings: Any
) -> tuple[Record, list[Request]]:
    """The record after `stage`, and what the models were asked."""
    asked: list[Request] = []
    async with context(answer, asked, **settings) as working:
        return await stage(made, working), asked


def letter(p_a: float, *, mass: float = 1.0, text: str | None = None) -> Completion:
    """A judge's one-letter reply with P(A) = p_a; what `mass` leaves went to other tokens."""
    options = {"A": p_a * mass, "B": (1 - p_a) * mass, "I": 1 - mass}
    top = tuple((option, math.log(p)) for option, p in options.items() if p > 0)
    said = text or max(options, key=lambda option: options[option])
    return Completion(said, logprobs=(TokenLogprob(said, math.log(max(options.values())), top),))


def shown(request: Request) -> tuple[str, str]:
    """What a judge sees as response A and as response B."""
    asked = request.messages[-1].content
    a = asked.partition("<response_a>\n")[2].partition("\n</response_a>")[0]
    b = asked.partition("<response_b>\n")[2].partition("\n</response_b>")[0]
    return a, b
