"""Critique a response by a principle and rewrite it; the rewrite takes its place; repeat.

Bai et al. 2022 (arXiv:2212.08073), section 3.1 (SL-CAI).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from functools import partial
from typing import Annotated, Self

import msgspec
from pydantic import Field, model_validator

from rlaif.constitution import Principle, Purpose
from rlaif.context import Context
from rlaif.llm import ask_all
from rlaif.stages import Stage, Temperature, Tokens
from rlaif.stages.sample import as_response
from rlaif.types import REFUSALS, Completion, Drop, Message, Record, Response

# What the critique template asks for when there is nothing to criticise; "No issues, but ..." is a criticism.
_CLEAN = re.compile(
    r"\W*(?:no issues\b|(?:没有|未)(?:发现)?(?:任何|什么)?问题)"
    r"(?!.*(?:\b(?:although|but|except|however|though|yet)\b|但|不过|然而|可是|除了|除外|只是|虽然|尽管))",
    re.IGNORECASE | re.DOTALL,
)


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
        firsts = [i for i in record.live() if record.responses[i].revises is None and record.responses[i].text]
        drafts = firsts[: self.drafts]
        chains = await ask_all(*(self._chain(record, draft, context) for draft in drafts))
        for draft, chain in zip(drafts, chains, strict=True):
            parent = draft
            for response in chain:
                index = len(record.responses)
                linked = msgspec.structs.replace(response, revises=parent)
                parent = index if _stands(response) else parent
                record = record.having(responses=(*record.responses, linked))
                if self.critique and not response.critique:
                    record = record.having(drops=(*record.drops, Drop(index, "no_critique")))
        return record

    async def _chain(self, record: Record, draft: int, context: Context) -> list[Response]:
        """The revisions of one draft, oldest first; what they revise is not yet in them."""
        text = record.responses[draft].text
        chain: list[Response] = []
        used: set[str] = set()
        for step in range(self.rounds):
            excluded = frozenset() if self.replacement else frozenset(used)
            turn = f"{draft}/{step}"
            principle = context.constitution.draw(context.draw_id(record.id, turn), self.purpose, excluded)
            used.add(principle.id)
            conversation = (*record.prompt, Message("assistant", text))
            critique = await self._critique(conversation, principle, step, turn, context) if self.critique else None
            if self.until_clean and critique is not None and finds_nothing(critique):
                break
            if critique == "":  # the critic refused or said nothing: the round is counted, and the next one drawn
                chain.append(Response("", context.model(self.model).name, "refusal", principle=principle.id))
                continue
            template = "revise" if self.critique else "revise_directly"
            completion, name = await context.by(
                self.model,
                f"revision {turn}",
                partial(
                    context.ask_by,
                    template=template,
                    conversation=conversation,
                    values={"principle": principle, "critique": critique, "few_shot": self.few_shot},
                    temperature=self.temperature,
                    max_tokens=self.max_tokens,
                    stop=self.stop,
                    sample=step,
                ),
            )
            revision = msgspec.structs.replace(
                as_response(completion, name),
                principle=principle.id,
                critique=critique,
            )
            chain.append(revision)
            text = revision.text if _stands(revision) else text
        return chain

    async def _critique(
        self, conversation: tuple[Message, ...], principle: Principle, step: int, turn: str, context: Context
    ) -> str:
        completion, _ = await context.by(
            self.model,
            f"critique {turn}",
            partial(
                context.ask_by,
                template="critique",
                conversation=conversation,
                values={"principle": principle, "few_shot": self.few_shot},
                temperature=self.temperature,
                max_tokens=self.critique_max_tokens,
                stop=self.stop,
                sample=step,
            ),
            refused=_refused,
        )
        return "" if _refused(completion) else completion.text.strip()

    @model_validator(mode="after")
    def _critiques_to_be_clean(self) -> Self:
        if self.until_clean and not self.critique:
            raise ValueError("`until_clean` reads the critique; it needs `critique: true`")
        return self

    def roles(self) -> tuple[str, ...]:
        return (self.model,)

    @property
    def purpose(self) -> Purpose:
        return "critique" if self.critique else "revision"

    def draws(self) -> Mapping[Purpose, int]:
        return {self.purpose: 1 if self.replacement else self.rounds}

    def plan(self, candidates: int, principles: int, voters: Set[str] = frozenset()) -> tuple[int, int]:
        chains = min(self.drafts, candidates)
        return chains * self.rounds * (2 if self.critique else 1), candidates + chains


def finds_nothing(critique: str) -> bool:
    return _CLEAN.match(critique) is not None


def _refused(completion: Completion) -> bool:
    return completion.finish_reason in REFUSALS


def _stands(revision: Response) -> bool:
    """An empty, cut off or refused rewrite is kept, and filtered, but not built on."""
    return bool(revision.text) and revision.finish_reason == "stop"
