"""Two responses, one principle, both orders; the probabilities are averaged before anything is decided.

Lee et al. 2023 (arXiv:2309.00267), section 3: a judge asked in one order often prefers a position.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from rlaif.constitution import Principle
from rlaif.context import Context
from rlaif.judges.parse import chosen_option, probability_of_a
from rlaif.llm import ask_all
from rlaif.types import REFUSALS, Completion, Messages, Record, Verdict

Problem = Literal["unparsed", "refusal", "low_mass"]


class Pairwise(BaseModel):
    """Settings of a pairwise judge.

    `reasoning` lets it think aloud first (two calls an order); log-probabilities then tend to 0 and 1.
    Without log-probabilities each order is sampled `votes` / 2 times.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "judge"
    reasoning: bool = False
    reasoning_max_tokens: Annotated[int, Field(ge=1)] = 256
    votes: Annotated[int, Field(ge=2, multiple_of=2)] = 4
    min_mass: Annotated[float, Field(ge=0, le=1)] = 0.2

    def calls(self, voters: Set[str] = frozenset()) -> int:
        """Calls of one comparison; more if the judge is one of the roles that vote."""
        return (self.votes if self.model in voters else 2) + (2 if self.reasoning else 0)

    async def __call__(
        self, record: Record, first: int, second: int, principle: Principle, context: Context
    ) -> Verdict:
        async def compare(role: str) -> Verdict:
            return await self._compare(role, record, first, second, principle, context)

        verdict, _ = await context.by(
            self.model, f"{first} {second} {principle.id}", compare, lambda verdict: verdict.outcome == "refusal"
        )
        return verdict

    async def _compare(
        self, role: str, record: Record, first: int, second: int, principle: Principle, context: Context
    ) -> Verdict:
        ab, ba = await ask_all(
            self._one_order(role, record, first, second, principle, context),
            self._one_order(role, record, second, first, principle, context),
        )
        p_ab = ab.p_a
        p_ba = None if ba.p_a is None else 1.0 - ba.p_a
        verdict = Verdict(
            judge=context.model(role).name,
            principle=principle.id,
            first=first,
            second=second,
            p_ab=p_ab,
            p_ba=p_ba,
            votes=ab.votes + tuple(not vote for vote in ba.votes),
            method="logprobs" if context.model(role).traits.top_logprobs else "votes",
            replies=ab.replies + ba.replies,
            rationale=_rationales(first, ab.rationale, second, ba.rationale),
        )
        if p_ab is None or p_ba is None:
            return msgspec.structs.replace(verdict, outcome=_worst(ab.problem, ba.problem))
        same_winner = (p_ab - 0.5) * (p_ba - 0.5) > 0  # a tie in one order is no winner
        return msgspec.structs.replace(verdict, p_first=(p_ab + p_ba) / 2, consistent=same_winner)

    async def _one_order(
        self, role: str, record: Record, a: int, b: int, principle: Principle, context: Context
    ) -> _Reading:
        shown: dict[str, object] = {
            "principle": principle,
            "conversation": as_text(record.prompt),
            "response_a": record.responses[a].text,
            "response_b": record.responses[b].text,
        }
        rationale = None
        template = "judge_pairwise"
        if self.reasoning:
            thought = await context.ask_by(
                role, "judge_pairwise_reason", record.prompt, shown, max_tokens=self.reasoning_max_tokens
            )
            rationale = shown["reasoning"] = thought.text.strip()
            template = "judge_pairwise_decide"
        if context.model(role).traits.top_logprobs:
            completion = await context.ask_by(role, template, record.prompt, shown, max_tokens=3, logprobs=True)
            return _read_logprobs(completion, self.min_mass, rationale)
        replies = await ask_all(
            *(
                context.ask_by(role, template, record.prompt, shown, temperature=1.0, max_tokens=16, sample=i)
                for i in range(self.votes // 2)
            )
        )
        return _count_votes(replies, rationale)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one order said: the probability for the response shown as A, or what went wrong."""

    p_a: float | None
    votes: tuple[bool, ...]
    replies: tuple[str, ...]
    rationale: str | None
    problem: Problem | None


def _read_logprobs(reply: Completion, min_mass: float, rationale: str | None) -> _Reading:
    rationale = rationale or reply.reasoning  # of a model that thinks by itself
    if reply.finish_reason in REFUSALS:
        return _Reading(None, (), (reply.text,), rationale, "refusal")
    p_a = probability_of_a(reply.logprobs or (), min_mass)
    problem: Problem | None = None if p_a is not None else "low_mass" if reply.logprobs else "unparsed"
    return _Reading(p_a, (), (reply.text,), rationale, problem)


def _count_votes(replies: list[Completion], rationale: str | None) -> _Reading:
    """(votes for A + 1) / (votes + 2): two of two is no certainty (Laplace). A reply that did not choose is no vote."""
    rationale = rationale or next((reply.reasoning for reply in replies if reply.reasoning), None)
    choices = [chosen_option(reply.text) for reply in replies if reply.finish_reason not in REFUSALS]
    votes = tuple(choice == "A" for choice in choices if choice is not None)
    texts = tuple(reply.text for reply in replies)
    if not votes:
        refused = all(reply.finish_reason in REFUSALS for reply in replies)
        return _Reading(None, (), texts, rationale, "refusal" if refused else "unparsed")
    return _Reading((sum(votes) + 1) / (len(votes) + 2), votes, texts, rationale, None)


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
