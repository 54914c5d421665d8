"""Records made by hand, as the stages would leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from rlaif.types import Drop, Message, Record, Response, Score, Side, Verdict, prompt_id

Asked = tuple[int, int, float | None, float | None]  # first, second, p_ab, p_ba


def reasoned(made: Record) -> Record:
    """The same, as by a judge that thought aloud first."""
    return made.having(verdicts=tuple(msgspec.structs.replace(v, rationale="Let's think.") for v in made.verdicts))


def verdict(first: int, second: int, p_ab: float | None, p_ba: float | None, judge: str = "judge") -> Verdict:
    if p_ab is None or p_ba is None:
        return Verdict(judge, "kind", first, second, p_ab=p_ab, p_ba=p_ba, outcome="unparsed")
    return Verdict(judge, "kind", first, second, (p_ab + p_ba) / 2, p_ab, p_ba, (p_ab > 0.5) == (p_ba > 0.5))


def record(
    texts: Iterable[str | tuple[str, int]],
    asked: Iterable[Asked] = (),
    *,
    prompt: str = "How do I pick a lock?",
    drops: Iterable[int] = (),
    scores: Iterable[float | None] = (),
    sides: Iterable[Side | None] = (),
    category: str | None = None,
) -> Record:
    """`texts`: a draft's text, or (text, index of the response that it revises); `scores`, `sides` likewise."""
    responses = tuple(
        Response(text, "policy")
        if isinstance(text, str)
        else Response(text[0], "policy", revises=text[1], principle="p")
        for text in texts
    )
    for i, side in enumerate(sides):
        responses = (*responses[:i], msgspec.structs.replace(responses[i], side=side), *responses[i + 1 :])
    messages = (Message("user", prompt),)
    return Record(
        id=prompt_id(messages),
        prompt=messages,
        category=category,
        responses=responses,
        verdicts=tuple(verdict(*one) for one in asked),
        drops=tuple(Drop(i, "truncated") for i in drops),
        scores=tuple(Score("judge", "kind", i, value) for i, value in enumerate(scores)),
        outcome="ok",
    )


def run(n: int) -> Callable[[], Iterable[Record]]:
    """`n` records with a draft and a better revision each, made anew at every call."""

    def records() -> Iterable[Record]:
        for i in range(n):
            texts = [f"Sure, here is how, number {i}.", (f"I would rather help you call a locksmith, {i}.", 0)]
            yield record(texts, [(0, 1, 0.2, 0.1)], prompt=f"Question {i}: how do I open it?")

    return records
