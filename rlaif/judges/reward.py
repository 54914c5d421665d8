"""A reward model as judge: it scores each response for itself, and the difference says which one is better.

By Bradley and Terry, P(first is better) = sigmoid(score of first - score of second), as such models are trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from typing import Literal

import msgspec

from rlaif.constitution import Principle
from rlaif.context import Context
from rlaif.judges import PairComparer, Principles
from rlaif.llm import ask_all
from rlaif.types import REFUSALS, Completion, Message, Record, Verdict


class RewardModel(PairComparer):
    """Settings of a reward model; `model` is a role whose provider is `reward`.

    It knows no principle and no order: its verdicts have the principle "reward", one a pair whatever the stage's
    `principles` are, with the same probability in both orders.
    """

    kind: Literal["reward"] = "reward"
    model: str = "reward"

    async def __call__(
        self, record: Record, pairs: Sequence[tuple[int, int]], principles: Principles, context: Context
    ) -> list[Verdict]:
        return await ask_all(*(self._compare(record, first, second, context) for first, second in pairs))

    async def compare(self, record: Record, first: int, second: int, principle: Principle, context: Context) -> Verdict:
        return await self._compare(record, first, second, context)

    async def _compare(self, record: Record, first: int, second: int, context: Context) -> Verdict:
        """Each response is scored once: the journal knows those of the pairs before."""
        replies = await ask_all(*(self._ask(record, response, context) for response in (first, second)))
        verdict = Verdict(
            judge=context.model(self.model).name,
            principle="reward",
            first=first,
            second=second,
            method="reward",
            replies=tuple(reply.text for reply in replies),
        )
        one, other = map(_score, replies)
        if one is None or other is None:
            refused = any(reply.finish_reason in REFUSALS for reply in replies)
            return msgspec.structs.replace(verdict, outcome="refusal" if refused else "unparsed")
        p = (1.0 + math.tanh((one - other) / 2)) / 2  # the sigmoid, without an overflow
        return msgspec.structs.replace(verdict, p_first=p, p_ab=p, p_ba=p, consistent=one != other)

    async def _ask(self, record: Record, response: int, context: Context) -> Completion:
        answer = Message("assistant", record.responses[response].text)
        return await context.ask(self.model, (*record.prompt, answer))

    def roles(self) -> tuple[str, ...]:
        return (self.model,)

    def calls_a_pair(self, voters: Set[str] = frozenset()) -> int:
        return 2

    def calls(self, responses: int, pairs: int, principles: int, voters: Set[str] = frozenset()) -> int:
        return min(responses, 2 * pairs)


def _score(reply: Completion) -> float | None:
    try:
        value = float(reply.text)
    except ValueError:
        return None
    return value if math.isfinite(value) and reply.finish_reason not in REFUSALS else None
