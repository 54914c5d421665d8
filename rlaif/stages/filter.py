"""Drop responses that must not be judged or trained on, each with its reason; no model is asked."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, get_args

from pydantic import Field

from rlaif.context import Context
from rlaif.hygiene.leaks import critique_leak, role_tags
from rlaif.hygiene.repetition import repeats
from rlaif.hygiene.truncation import truncated
from rlaif.hygiene.words import plain
from rlaif.stages import Stage
from rlaif.types import REFUSALS, Drop, Record, Response

Rule = Literal[
    "empty",
    "refused",
    "truncated",
    "repetition",
    "role_tags",
    "critique_leak",
    "prompt_echo",
    "no_op_revision",
    "cut_off",
]
# The last one is a guess from the text: for where a stop sequence ends it, and nothing says so.
RULES: tuple[Rule, ...] = get_args(Rule)[:-1]


class Filter(Stage):
    """Applies `rules` in their order; the first that fits names the reason.

    A record left with fewer than `min_candidates` is dropped, its reason that of most of its responses.
    """

    rules: tuple[Rule, ...] = RULES
    min_candidates: Annotated[int, Field(ge=0)] = 2

    async def __call__(self, record: Record, context: Context) -> Record:
        found = ((index, self.reason(record, index)) for index in record.live())
        drops = record.drops + tuple(Drop(index, reason) for index, reason in found if reason is not None)
        record = record.having(drops=drops)
        if len(record.candidates()) >= self.min_candidates:
            return record
        reasons = Counter(drop.reason for drop in drops).most_common(1)
        return record.ended("dropped", reasons[0][0] if reasons else "too_few_candidates", context.stage)

    def reason(self, record: Record, index: int) -> Rule | None:
        """The first rule that response `index` breaks."""
        return next((rule for rule in self.rules if _broken(rule, record, record.responses[index])), None)


def _broken(rule: Rule, record: Record, response: Response) -> bool:
    text = response.text
    match rule:
        case "empty":
            return not text.strip()
        case "refused":
            return response.finish_reason in REFUSALS
        case "truncated":
            return response.finish_reason == "length"
        case "cut_off":
            return truncated(text)
        case "repetition":
            return repeats(text)
        case "role_tags":
            return role_tags(text)
        case "critique_leak":
            return response.revises is not None and (
                critique_leak(text) or plain(text) == plain(response.critique or "")
            )
        case "prompt_echo":
            return plain(text) == plain(record.prompt[-1].content)
        case "no_op_revision":
            return response.revises is not None and plain(text) == plain(record.responses[response.revises].text)
