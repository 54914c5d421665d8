"""Critique a response by a principle and rewrite it; the rewrite takes its place; repeat.

Bai et al. 2022 (arXiv:2212.08073), section 3.1 (SL-CAI).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from pydantic import Field

from rlaif.constitution import Principle, Purpose
from rlaif.context import Context
from rlaif.llm import ask_all
from rlaif.stages import Stage, Temperature, Tokens
from rlaif.stages.sample import as_response
from rlaif.types import Message, Record, Response

# What the critique template asks for when there is nothing to criticise.
CLEAN = "no issues"


class Revise(Stage):
    """`rounds` rewrites of the first `drafts` live responses, each by a principle drawn by weight.

    The critique is dropped after its round, as in the paper. `until_clean` ends a chain when the
    critique finds nothing (needs `critique`). Without `critique` the rewrite is asked for directly,
    which is as good for large models (section 3.5).
    """

    model: str = "policy"
    rounds: Annotated[int, Field(ge=1)] = 4
    drafts: Annotated[int, Field(ge=1)] = 1
    critique: bool = True
    replacement: bool = True  # may a principle be drawn again for the same response
    until_clean: bool = False
    few_shot: bool = True
    temperature: Temperature = 1.0
    critique_max_tokens: Tokens = 256
    max_tokens: Tokens = 512
    stop: tuple[str, ...] = ()  # for critiques and rewrites alike

    async def __call__(self, record: Record, context: Context) -> Record:
        chains = await ask_all(*(self._chain(record, draft, context) for draft in record.live()[: self.drafts]))
        for chain in chains:
            shift = len(record.responses)
            linked = tuple(
                response if i == 0 else msgspec.structs.replace(response, revises=shift + i - 1)
                for i, response in enumerate(chain)
            )
            record = record.having(responses=record.responses + linked)
        return record

    async def _chain(self, record: Record, draft: int, context: Context) -> list[Response]:
        """The revisions of one draft, oldest first; the first is linked to the draft."""
        text = record.responses[draft].text
        chain: list[Response] = []
        used: set[str] = set()
        for step in range(self.rounds):
            excluded = frozenset() if self.replacement else frozenset(used)
            drawn = context.draw_id(record.id, f"{draft}/{step}")
            principle = context.constitution.draw(drawn, self.purposes()[0], excluded)
            used.add(principle.id)
            conversation = (*record.prompt, Message("assistant", text))
            critique = await self._critique(conversation, principle, step, context) if self.critique else None
            if self.until_clean and critique is not None and critique.lower().lstrip(" \"'*").startswith(CLEAN):
                break
            template = "revise" if self.critique else "revise_directly"
            messages = context.templates.render(
                template, conversation, principle=principle, critique=critique, few_shot=self.few_shot
            )
            completion = await context.ask(
                self.model,
                messages,
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                stop=self.stop,
                sample=step,
            )
            revision = msgspec.structs.replace(
                as_response(completion, context.model(self.model).name),
                principle=principle.id,
                critique=critique,
                revises=draft,
            )
            chain.append(revision)
            text = revision.text or text  # an empty rewrite is kept, and filtered, but not built on
        return chain

    async def _critique(
        self, conversation: tuple[Message, ...], principle: Principle, step: int, context: Context
    ) -> str:
        messages = context.templates.render("critique", conversation, principle=principle, few_shot=self.few_shot)
        completion = await context.ask(
            self.model,
            messages,
            temperature=self.temperature,
            max_tokens=self.critique_max_tokens,
            stop=self.stop,
            sample=step,
        )
        return completion.text.strip()

    def roles(self) -> tuple[str, ...]:
        return (self.model,)

    def purposes(self) -> tuple[Purpose, ...]:
        return ("critique",) if self.critique else ("revision",)

    def plan(self, candidates: int) -> tuple[int, int]:
        chains = min(self.drafts, candidates)
        return chains * self.rounds * (2 if self.critique else 1), candidates + chains
