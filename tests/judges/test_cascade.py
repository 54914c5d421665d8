"""The cheap judge is relied on where it is sure; what it said elsewhere is kept and is no vote."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaif.errors import CallFailed, ProviderError
from rlaif.export.comparisons import Comparisons
from rlaif.judges.cascade import Cascade
from rlaif.judges.pairwise import Pairwise
from rlaif.stages.judge import Judge
from rlaif.types import Completion, Record, Request, TokenLogprob, Verdict
from tests.lab import KIND, TRUE, context, letter, record, shown, through

Answer = Callable[[Request], Completion | str]
GOOD, BAD = "the good one", "the bad one"
CHEAP, DEAR = Pairwise(model="cheap"), Pairwise(model="dear")


def gives(p: float) -> Answer:
    """P(GOOD) wherever it stands."""
    return lambda request: letter(p if shown(request)[0] == GOOD else 1 - p)


def four(a: float, b: float, tie: float, bad: float) -> Answer:
    """GOOD, BAD, equally good and both bad with these probabilities, wherever they stand."""

    def answer(request: Request) -> Completion:
        first = shown(request)[0] == GOOD
        options = {"A": a if first else b, "B": b if first else a, "C": tie, "D": bad}
        top = tuple((option, math.log(p)) for option, p in options.items() if p)
        said = max(options, key=lambda option: options[option])
        return Completion(said, logprobs=(TokenLogprob(said, math.log(options[said]), top),))

    return answer


async def judged(
    cheap: Answer, dear: Answer | None = None, made: Record | None = None, judge: Cascade | None = None
) -> tuple[list[Verdict], int, int]:
    """The verdicts, and how often each judge was asked."""
    dear = dear or gives(0.2)
    counts = {"cheap": 0, "dear": 0}

    def counted(role: str, answer: Answer) -> Answer:
        def count(request: Request) -> Completion | str:
            counts[role] += 1
            return answer(request)

        return count

    judge = judge or Cascade(judges=(CHEAP, DEAR))
    async with context({"cheap": counted("cheap", cheap), "dear": counted("dear", dear)}) as working:
        found = await judge(made or record(GOOD, BAD), [(0, 1)], lambda _: [KIND], working)
    return found, counts["cheap"], counts["dear"]


@pytest.mark.parametrize("p", [0.95, 0.05])
async def test_a_sure_judge_is_the_last_one_asked(p: float) -> None:
    (verdict,), cheap, dear = await judged(gives(p))
    assert (verdict.judge, verdict.outcome, cheap, dear) == ("cheap", "ok", 2, 0)


@pytest.mark.parametrize(
    "cheap",
    [
        gives(0.7),
        gives(0.5),
        lambda _: letter(0.99),  # sure of the place, not of the response
        lambda request: letter(0.99) if shown(request)[0] == GOOD else letter(0.5),
    ],
)
async def test_one_that_is_not_sure_is_followed_by_the_next_whose_word_counts(cheap: Answer) -> None:
    (first, last), asked, dear = await judged(cheap)
    assert (first.judge, first.outcome, last.judge, last.outcome) == ("cheap", "escalated", "dear", "ok")
    assert first.p_first is not None  # what it said is kept, for the audit
    assert (asked, dear) == (2, 2)


async def test_the_last_ones_word_counts_however_unsure_it_is() -> None:
    found, *_ = await judged(gives(0.5), gives(0.5))
    assert [(verdict.judge, verdict.outcome) for verdict in found] == [("cheap", "escalated"), ("dear", "ok")]


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Completion("I can't.", "refusal"), "refusal"),
        (letter(0.9, mass=0.1), "low_mass"),
        (Completion("?"), "unparsed"),
    ],
)
async def test_no_answer_is_escalated_too_and_stays_what_it_was(reply: Completion, outcome: str) -> None:
    found, *_ = await judged(lambda _: reply)
    assert [(verdict.judge, verdict.outcome) for verdict in found] == [("cheap", outcome), ("dear", "ok")]


@pytest.mark.parametrize(
    ("shares", "outcomes"),
    [
        ((0.05, 0.0, 0.9, 0.05), ["tie"]),
        ((0.2, 0.1, 0.6, 0.1), ["escalated", "ok"]),
        ((0.05, 0.0, 0.05, 0.9), ["both_bad"]),
        ((0.3, 0.2, 0.1, 0.4), ["escalated", "ok"]),
        ((0.9, 0.0, 0.05, 0.05), ["ok"]),
    ],
)
async def test_a_tie_and_two_bad_ones_are_relied_on_where_the_judge_is_sure_of_them(
    shares: tuple[float, float, float, float], outcomes: list[str]
) -> None:
    cascade = Cascade(judges=(Pairwise(model="cheap", ties=True), DEAR))
    found, *_ = await judged(four(*shares), judge=cascade)
    assert [verdict.outcome for verdict in found] == outcomes


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.55, 0.99))
async def test_naming_the_responses_the_other_way_round_asks_the_same_judges_and_mirrors_the_verdict(
    p_ab: float, p_ba: float, confidence: float
) -> None:
    cascade = Cascade(judges=(CHEAP, DEAR), confidence=confidence)

    def cheap(request: Request) -> Completion:
        return letter(p_ab if shown(request)[0] == GOOD else p_ba)

    one, *counts = await judged(cheap, judge=cascade)
    other, *mirrored = await judged(cheap, made=record(BAD, GOOD), judge=cascade)
    assert counts == mirrored
    assert [verdict.outcome for verdict in one] == [verdict.outcome for verdict in other]
    assert one[-1].p_first == pytest.approx(1 - (other[-1].p_first or 0))
    sure = (p_ab - 0.5) * (0.5 - p_ba) > 0 and max(p := (p_ab + 1 - p_ba) / 2, 1 - p) >= confidence
    assert len(one) == 2 - sure


async def test_each_pair_and_principle_goes_its_own_way_down_the_cascade() -> None:
    stage = Judge(by=(Cascade(judges=(CHEAP, DEAR)),), principles="all")

    def cheap(request: Request) -> Completion:
        sure = "Prefer the kind one" in request.messages[-1].content and "cc" in shown(request)
        return letter((0.95 if shown(request)[0] == "cc" else 0.05) if sure else 0.5)

    answers = {"cheap": cheap, "dear": gives(0.5)}
    after, asked = await through(stage, record("a", "bb", "cc"), answers, principles=(KIND, TRUE))
    said = [(v.first, v.second, v.principle, v.judge) for v in after.verdicts if v.outcome == "ok"]
    assert said == [
        (0, 1, "kind", "dear"),
        (0, 1, "true", "dear"),
        (0, 2, "kind", "cheap"),
        (0, 2, "true", "dear"),
        (1, 2, "kind", "cheap"),
        (1, 2, "true", "dear"),
    ]
    assert len(asked) == 2 * (6 + 4) < stage.plan(3, 2)[0] == 2 * (6 + 6)
    assert stage.roles() == ("cheap", "dear")
    comparison = Comparisons(after).of(0, 2)
    assert comparison is not None
    assert comparison.judges == ("cheap", "dear")


async def test_an_escalated_verdict_is_no_vote_in_the_comparison() -> None:
    found, *_ = await judged(gives(0.7), gives(0.1))
    comparison = Comparisons(record(GOOD, BAD).having(verdicts=tuple(found))).of(0, 1)
    assert comparison is not None
    assert (comparison.judges, comparison.p) == (("dear",), pytest.approx(0.1))


async def test_three_judges_are_asked_one_after_the_other_until_one_is_sure() -> None:
    cascade = Cascade(judges=(CHEAP, Pairwise(model="middle"), DEAR))
    asked: list[Request] = []
    async with context({"cheap": gives(0.6), "middle": gives(0.9), "dear": gives(0.1)}, asked) as working:
        found = await cascade(record(GOOD, BAD), [(0, 1)], lambda _: [KIND], working)
    assert [(verdict.judge, verdict.outcome) for verdict in found] == [("cheap", "escalated"), ("middle", "ok")]
    assert len(asked) == 4 < cascade.calls(2, 1, 1) == 6


async def test_a_cheap_judge_that_fails_fails_the_record_before_the_dear_one_is_paid_for() -> None:
    def fails(_: Request) -> Completion:
        raise ProviderError("bad_request", "no")

    counts: list[Request] = []
    async with context({"cheap": fails, "dear": gives(0.9)}, counts) as working:
        with pytest.raises(CallFailed):
            await Cascade(judges=(CHEAP, DEAR))(record(GOOD, BAD), [(0, 1)], lambda _: [KIND], working)
    assert len(counts) == 2


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"judges": [{"model": "a"}]}, "needs two judges or more, the cheapest first"),
        ({"judges": [{"model": "a"}, {"model": "b", "vote": 3}]}, "Extra inputs"),
        ({"judges": [{}, {}], "confidence": 0.5}, "greater than 0.5"),
    ],
)
def test_settings_of_no_cascade_are_refused_with_one_reason(settings: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why) as caught:
        Cascade.model_validate(settings)
    assert caught.value.error_count() == 1
