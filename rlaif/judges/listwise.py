"""All responses at once, ranked, as often as there are responses, each time with them in other places.

What a model ranks depends on the order that it sees (Tang et al. 2023, arXiv:2310.07712), so the responses go round:
each stands in every place once.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import partial
from string import ascii_uppercase
from typing import Annotated, Literal

import msgspec
from pydantic import Field

from rlaif.constitution import Principle
from rlaif.context import Context
from rlaif.errors import ConfigError
from rlaif.judges import Comparer, Principles
from rlaif.judges.pairwise import as_text
from rlaif.judges.parse import ranking
from rlaif.llm import ask_all
from rlaif.types import REFUSALS, Completion, Record, Verdict, same_winner


class Listwise(Comparer):
    """Settings of a listwise judge.

    `rotations`: how often it is asked; as often as there are responses unless told. With fewer every second order is
    the one before backwards, so that each two are seen both ways round.
    """

    kind: Literal["listwise"] = "listwise"
    model: str = "judge"
    rotations: Annotated[int, Field(ge=2)] | None = None

    async def __call__(
        self, record: Record, pairs: Sequence[tuple[int, int]], principles: Principles, context: Context
    ) -> list[Verdict]:
        """One ranking by each principle tells of all pairs; its replies are kept with the first of them."""
        if not pairs:
            return []
        found = await ask_all(*(self._judge(record, pairs, principle, context) for principle in principles("list")))
        return [verdict for verdicts in found for verdict in verdicts]

    async def _judge(
        self, record: Record, pairs: Sequence[tuple[int, int]], principle: Principle, context: Context
    ) -> list[Verdict]:
        async def rank(role: str) -> list[Verdict]:
            return await self._rank(role, record, pairs, principle, context)

        verdicts, _ = await context.by(
            self.model, f"list {principle.id}", rank, lambda found: any(one.outcome == "refusal" for one in found)
        )
        return verdicts

    async def _rank(
        self, role: str, record: Record, pairs: Sequence[tuple[int, int]], principle: Principle, context: Context
    ) -> list[Verdict]:
        listed = sorted({response for pair in pairs for response in pair})
        self._check(len(listed))
        orders = self._orders(listed)
        replies = await ask_all(*(self._ask(role, record, order, principle, context) for order in orders))
        seen = [_Seen(order, _ranked(reply, order)) for order, reply in zip(orders, replies, strict=True)]
        refused = any(reply.finish_reason in REFUSALS for reply in replies)
        verdict = partial(_verdict, seen=seen, refused=refused, judge=context.model(role).name, principle=principle.id)
        first, *others = (verdict(*pair) for pair in pairs)
        return [msgspec.structs.replace(first, replies=tuple(reply.text for reply in replies)), *others]

    async def _ask(
        self, role: str, record: Record, order: Sequence[int], principle: Principle, context: Context
    ) -> Completion:
        letters = ascii_uppercase[: len(order)].lower()
        shown: dict[str, object] = {
            "principle": principle,
            "conversation": as_text(record.prompt),
            "responses": [(letter, record.responses[i].text) for letter, i in zip(letters, order, strict=True)],
        }
        return await context.ask_by(
            role, "judge_listwise", record.prompt, shown, max_tokens=self.max_tokens(len(order))
        )

    @staticmethod
    def _check(responses: int) -> None:
        if responses > len(ascii_uppercase):
            raise ConfigError(
                f"a listwise judge tells {len(ascii_uppercase)} responses apart, not {responses}: sample fewer, "
                "or judge by pairs"
            )

    def _orders(self, listed: list[int]) -> list[list[int]]:
        count = len(listed)
        if self.rotations is None or self.rotations >= count:
            return [_from(listed, start) for start in range(count)]
        starts = [i * count // self.rotations for i in range(0, self.rotations, 2)]
        both = [order for start in starts for order in (_from(listed, start), _from(listed, start)[::-1])]
        return both[: self.rotations]

    @staticmethod
    def max_tokens(responses: int) -> int:
        """Of an answer: A > B > C is two tokens a letter, and a few to open with."""
        return 2 * responses + 12

    def roles(self) -> tuple[str, ...]:
        return (self.model,)

    def calls(self, responses: int, pairs: int, principles: int, voters: Set[str] = frozenset()) -> int:
        self._check(responses)
        return principles * min(self.rotations or responses, responses) if pairs else 0


class _Seen(msgspec.Struct, frozen=True):
    """An order and what the judge made of it, best first; None if that was no ranking."""

    shown: Sequence[int]
    ranked: Sequence[int] | None


def _from(listed: list[int], start: int) -> list[int]:
    return listed[start:] + listed[:start]


def _ranked(reply: Completion, order: Sequence[int]) -> list[int] | None:
    letters = ascii_uppercase[: len(order)]
    found = None if reply.finish_reason in REFUSALS else ranking(reply.text, letters)
    return None if found is None else [order[letters.index(letter)] for letter in found]


def _verdict(first: int, second: int, *, seen: Sequence[_Seen], refused: bool, judge: str, principle: str) -> Verdict:
    """The share of the rankings with `first` above `second`, by which of them was shown before the other."""
    ab: list[bool] = []
    ba: list[bool] = []
    for one in seen:
        if one.ranked is not None:
            votes = ab if one.shown.index(first) < one.shown.index(second) else ba
            votes.append(one.ranked.index(first) < one.ranked.index(second))
    p_ab, p_ba = _share(ab), _share(ba)
    verdict = Verdict(judge, principle, first, second, p_ab=p_ab, p_ba=p_ba, votes=(*ab, *ba), method="ranking")
    if p_ab is None or p_ba is None:
        return msgspec.structs.replace(verdict, outcome="refusal" if refused else "unparsed")
    consistent = same_winner(p_ab, p_ba)
    return msgspec.structs.replace(verdict, p_first=(p_ab + p_ba) / 2, consistent=consistent)


def _share(votes: Sequence[bool]) -> float | None:
    """(votes for it + 1) / (votes + 2), as of sampled votes (Laplace)."""
    return (sum(votes) + 1) / (len(votes) + 2) if votes else None
