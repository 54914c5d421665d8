"""Two responses, one principle, both orders; the probabilities are averaged before anything is decided.

Lee et al. 2023 (arXiv:2309.00267), section 3: a judge asked in one order often prefers a position.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Self

import msgspec
from pydantic import Field, model_validator

from rlaif.constitution import Principle
from rlaif.context import Context
from rlaif.judges import PairComparer
from rlaif.judges.parse import chosen_option, option_probabilities
from rlaif.judges.votes import decided
from rlaif.llm import ask_all
from rlaif.types import REFUSALS, ROUNDING, Completion, Messages, Record, Verdict, same_winner

Problem = Literal["unparsed", "refusal", "low_mass"]
# The letters of a judge's answer: the two responses; with `ties` also "equally good" and "both bad".
_TWO, _FOUR = "AB", "ABCD"


class Pairwise(PairComparer):
    """Settings of a pairwise judge.

    `reasoning` lets it think aloud first (two calls an order); log-probabilities then tend to 0 and 1.
    `ties` lets it say that the two are equally good, or both bad.
    Without log-probabilities both orders are sampled in turn, `min_votes` to `votes` times together, until the
    posterior of the winner is `stop_at` (see rlaif.judges.votes). `stop_at` null, and a provider's batches, where each
    look would be another day, take all `votes`.
    """

    kind: Literal["pairwise"] = "pairwise"
    model: str = "judge"
    reasoning: bool = False
    reasoning_max_tokens: Annotated[int, Field(ge=1)] = 256
    ties: bool = False
    votes: Annotated[int, Field(ge=2, multiple_of=2)] = 12
    min_votes: Annotated[int, Field(ge=2, multiple_of=2)] = 4
    stop_at: Annotated[float, Field(gt=0.5, lt=1.0)] | None = 0.9
    min_mass: Annotated[float, Field(ge=0, le=1)] = 0.2

    @model_validator(mode="before")
    @classmethod
    def _fewer_votes(cls, data: object) -> object:
        """`votes` alone may be fewer than `min_votes` by default are."""
        if isinstance(data, dict) and isinstance(votes := data.get("votes"), int) and "min_votes" not in data:
            return data | {"min_votes": max(2, min(4, votes - votes % 2))}
        return data

    @model_validator(mode="after")
    def _no_fewer(self) -> Self:
        if self.min_votes > self.votes:
            raise ValueError(f"min_votes is {self.min_votes}, more than votes, {self.votes}")
        return self

    def roles(self) -> tuple[str, ...]:
        return (self.model,)

    def calls_a_pair(self, voters: Set[str] = frozenset()) -> int:
        return (self.votes if self.model in voters else 2) + (2 if self.reasoning else 0)

    async def compare(self, record: Record, first: int, second: int, principle: Principle, context: Context) -> Verdict:
        async def compare(role: str) -> Verdict:
            return await self._compare(role, record, first, second, principle, context)

        verdict, _ = await context.by(
            self.model, f"{first} {second} {principle.id}", compare, lambda verdict: verdict.outcome == "refusal"
        )
        return verdict

    async def _compare(
        self, role: str, record: Record, first: int, second: int, principle: Principle, context: Context
    ) -> Verdict:
        one, other = await ask_all(
            self._order(role, record, first, second, principle, context),
            self._order(role, record, second, first, principle, context),
        )
        if context.model(role).traits.top_logprobs:
            ab, ba = await ask_all(self._by_logprobs(one, context), self._by_logprobs(other, context))
        else:
            ab, ba = await self._by_votes(one, other, context)
        verdict = Verdict(
            judge=context.model(role).name,
            principle=principle.id,
            first=first,
            second=second,
            p_ab=ab.p_a,
            p_ba=None if ba.p_a is None else 1.0 - ba.p_a,
            votes=ab.votes + tuple(None if vote is None else not vote for vote in ba.votes),
            method="logprobs" if context.model(role).traits.top_logprobs else "votes",
            replies=ab.replies + ba.replies,
            rationale=_rationales(first, ab.rationale, second, ba.rationale),
        )
        return self._outcome(verdict, ab, ba)

    def _outcome(self, verdict: Verdict, ab: _Reading, ba: _Reading) -> Verdict:
        if verdict.p_ab is None or verdict.p_ba is None:
            return msgspec.structs.replace(verdict, outcome=_worst(ab.problem, ba.problem))
        p_first = (verdict.p_ab + verdict.p_ba) / 2
        consistent = same_winner(verdict.p_ab, verdict.p_ba)
        verdict = msgspec.structs.replace(verdict, p_first=p_first, consistent=consistent)
        if not self.ties:
            return verdict
        tie, bad = (ab.tie + ba.tie) / 2, (ab.bad + ba.bad) / 2
        neither = (tie + bad) / 2
        most = max(p_first - neither, 1.0 - p_first - neither) - ROUNDING
        outcome = "both_bad" if bad >= max(tie, most) else "tie" if tie >= most else "ok"
        return msgspec.structs.replace(verdict, p_tie=tie, p_bad=bad, outcome=outcome)

    async def _order(self, role: str, record: Record, a: int, b: int, principle: Principle, context: Context) -> _Order:
        shown: dict[str, object] = {
            "principle": principle,
            "conversation": as_text(record.prompt),
            "response_a": record.responses[a].text,
            "response_b": record.responses[b].text,
            "ties": self.ties,
        }
        if not self.reasoning:
            return _Order(role, "judge_pairwise", record.prompt, shown, None)
        thought = await context.ask_by(
            role, "judge_pairwise_reason", record.prompt, shown, max_tokens=self.reasoning_max_tokens
        )
        rationale = thought.text.strip()
        return _Order(role, "judge_pairwise_decide", record.prompt, shown | {"reasoning": rationale}, rationale)

    async def _by_logprobs(self, order: _Order, context: Context) -> _Reading:
        reply = await context.ask_by(*order.question, max_tokens=3, logprobs=True)
        rationale = order.rationale or reply.reasoning  # of a model that thinks by itself
        if reply.finish_reason in REFUSALS:
            return _Reading(None, (reply.text,), rationale, problem="refusal")
        found = option_probabilities(reply.logprobs or (), self._options, self.min_mass)
        if found is None:
            return _Reading(None, (reply.text,), rationale, problem="low_mass" if reply.logprobs else "unparsed")
        tie, bad = found.get("C", 0.0), found.get("D", 0.0)
        return _Reading(found["A"] + (tie + bad) / 2, (reply.text,), rationale, tie=tie, bad=bad)

    async def _by_votes(self, ab: _Order, ba: _Order, context: Context) -> tuple[_Reading, _Reading]:
        """One vote in each order at a time, `min_votes` at once."""
        replies: tuple[list[Completion], list[Completion]] = ([], [])
        patient = self.stop_at is None or context.model(ab.role).batch
        while True:
            have = len(replies[0])
            more = (self.votes if patient else self.min_votes) // 2 - have
            both = [(order, have + i) for order in (ab, ba) for i in range(max(1, more))]
            answers = await ask_all(*(self._vote(order, sample, context) for order, sample in both))
            half = len(answers) // 2
            replies[0].extend(answers[:half])
            replies[1].extend(answers[half:])
            # Of a batch too: what is read must not depend on how it was asked.
            for enough in range(min(self.min_votes // 2, len(replies[0])), len(replies[0]) + 1):
                readings = (
                    self._counted(replies[0][:enough], ab.rationale),
                    self._counted(replies[1][:enough], ba.rationale),
                )
                if self._settled(*readings):
                    return readings
            if 2 * len(replies[0]) >= self.votes:
                return readings

    async def _vote(self, order: _Order, sample: int, context: Context) -> Completion:
        return await context.ask_by(*order.question, temperature=1.0, max_tokens=16, sample=sample)

    def _settled(self, ab: _Reading, ba: _Reading) -> bool:
        first, second = [vote for vote in ab.votes if vote is not None], [vote for vote in ba.votes if vote is not None]
        wins = sum(first) + len(second) - sum(second)
        return self.stop_at is not None and decided(wins, len(first) + len(second), self.stop_at)

    def _counted(self, replies: Iterable[Completion], rationale: str | None) -> _Reading:
        """(votes for A + 1) / (votes + 2): two of two is no certainty (Laplace). What is no choice is no vote."""
        replies = list(replies)
        rationale = rationale or next((reply.reasoning for reply in replies if reply.reasoning), None)
        texts = tuple(reply.text for reply in replies)
        said = [chosen_option(reply.text, self._options) for reply in replies if reply.finish_reason not in REFUSALS]
        choices = [choice for choice in said if choice is not None]
        if not choices:
            refused = all(reply.finish_reason in REFUSALS for reply in replies)
            return _Reading(None, texts, rationale, problem="refusal" if refused else "unparsed")
        count = len(choices)
        tie, bad = choices.count("C") / count, choices.count("D") / count
        votes = tuple(choice == "A" if choice in _TWO else None for choice in choices)
        p_a = (choices.count("A") + (tie + bad) * count / 2 + 1) / (count + 2)
        return _Reading(p_a, texts, rationale, votes, tie, bad)

    @property
    def _options(self) -> str:
        return _FOUR if self.ties else _TWO


class _Order(NamedTuple):
    """One of the two orders, ready to be asked about."""

    role: str
    template: str
    conversation: Messages
    shown: dict[str, object]
    rationale: str | None

    @property
    def question(self) -> tuple[str, str, Messages, dict[str, object]]:
        return self[:4]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one order said: the probability for the response shown as A, or what went wrong.

    `p_a` has a half of those of `tie` and `bad`.
    """

    p_a: float | None
    replies: tuple[str, ...]
    rationale: str | None
    votes: tuple[bool | None, ...] = ()
    tie: float = 0.0
    bad: float = 0.0
    problem: Problem | None = None


def _worst(*problems: Problem | None) -> Problem:
    """Of both orders; a refusal is what a fallback may mend."""
    return "refusal" if "refusal" in problems else next(filter(None, problems), "unparsed")


def _rationales(first: int, ab: str | None, second: int, ba: str | None) -> str | None:
    """What the judge thought aloud in each order; "response A" is another one in each."""
    thoughts = [f"[response {shown} as A] {text}" for shown, text in ((first, ab), (second, ba)) if text]
    return "\n\n".join(thoughts) or None


def as_text(conversation: Messages) -> str:
    """A conversation as a judge reads it: `User: ...` and `Assistant: ...`, a blank line between turns."""
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in conversation)
