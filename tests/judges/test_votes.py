"""Sampled votes end when they have said enough, never sooner and never later than they may."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaif.journal import Traits
from rlaif.judges.pairwise import Pairwise
from rlaif.judges.votes import decided, posterior
from rlaif.types import Completion, Record, Request, TokenLogprob, Verdict
from tests.lab import KIND, context, record, shown

GOOD, BAD = "the good one", "the bad one"
NO_LOGPROBS = Traits(top_logprobs=0)
Answer = Callable[[Request], Completion | str]
# What a vote may say, by the order and the number of the sample.
Replies = dict[tuple[bool, int], str]
REPLIES = st.sampled_from(["A", "B", "(B) is better", "Both are fine.", "A and B", "", "refuse"])


async def voted(
    answer: Answer, judge: Pairwise, made: Record | None = None, *, batch: bool = False
) -> tuple[Verdict, list[Request]]:
    asked: list[Request] = []
    async with context(answer, asked, traits=NO_LOGPROBS) as working:
        working.models["judge"].batch = batch
        return await judge.compare(made or record(GOOD, BAD), 0, 1, KIND, working), asked


def says(replies: Replies) -> Answer:
    def answer(request: Request) -> Completion | str:
        text = replies[shown(request)[0] == GOOD, request.sample]
        return Completion("I can't.", "refusal") if text == "refuse" else text

    return answer


def always(option: str) -> Answer:
    return lambda _: option


def prefers(text: str) -> Answer:
    return lambda request: "A" if shown(request)[0] == text else "B"


# --- the posterior ---


def by_integration(wins: int, votes: int) -> float:
    """P(theta > 1/2) under Beta(1 + wins, 1 + losses), by summing its density."""
    steps = 20_000
    density = [(i / steps) ** wins * (1 - i / steps) ** (votes - wins) for i in range(steps + 1)]
    return (sum(density[steps // 2 + 1 :]) + density[steps // 2] / 2) / sum(density)


@pytest.mark.parametrize(("wins", "votes"), [(0, 0), (1, 1), (2, 2), (3, 4), (4, 4), (1, 5), (9, 12), (6, 12), (0, 7)])
def test_the_posterior_is_the_upper_half_of_a_beta_distribution(wins: int, votes: int) -> None:
    assert posterior(wins, votes) == pytest.approx(by_integration(wins, votes), abs=1e-3)


@given(st.integers(0, 60).flatmap(lambda votes: st.tuples(st.integers(0, votes), st.just(votes))))
def test_what_one_side_wins_the_other_loses_and_more_wins_are_surer(counts: tuple[int, int]) -> None:
    wins, votes = counts
    assert posterior(wins, votes) + posterior(votes - wins, votes) == pytest.approx(1.0)
    assert posterior(wins + 1, votes + 1) > posterior(wins, votes) or posterior(wins, votes) == 1.0
    assert decided(wins, votes, 0.9) == decided(votes - wins, votes, 0.9)
    assert not decided(votes // 2, 2 * (votes // 2), 0.51)  # as many for each: never


# --- when it stops ---


@pytest.mark.parametrize("text", [GOOD, BAD])
async def test_four_votes_for_one_of_them_are_enough(text: str) -> None:
    verdict, asked = await voted(prefers(text), Pairwise())
    assert len(asked) == 4
    assert verdict.votes == (text == GOOD,) * 4
    assert verdict.consistent


async def test_a_judge_that_only_knows_places_is_asked_to_the_end_and_prefers_nothing() -> None:
    verdict, asked = await voted(always("A"), Pairwise())
    assert len(asked) == 12
    assert (verdict.p_first, verdict.consistent) == (pytest.approx(0.5), False)


@pytest.mark.parametrize("settings", [{"stop_at": None}, {"min_votes": 12}])
async def test_without_a_stop_all_votes_are_taken_at_once(settings: dict[str, object]) -> None:
    verdict, asked = await voted(prefers(GOOD), Pairwise.model_validate(settings))
    assert len(asked) == 12 == len(verdict.votes)
    assert (verdict.p_ab, verdict.p_ba) == pytest.approx((7 / 8, 7 / 8))


async def test_in_a_providers_batches_all_votes_are_taken_in_one_round() -> None:
    verdict, asked = await voted(prefers(GOOD), Pairwise(), batch=True)
    assert len(asked) == 12
    live, few = await voted(prefers(GOOD), Pairwise())
    assert len(few) == 4
    assert verdict == live, "how it was asked does not change what is read"


async def test_a_higher_bar_takes_more_votes() -> None:
    counts = [len((await voted(prefers(GOOD), Pairwise(stop_at=bar)))[1]) for bar in (0.8, 0.9, 0.97, 0.999)]
    assert counts == [4, 4, 6, 10]


def stops_at(judge: Pairwise, replies: Replies) -> int:
    """The number of votes after which anyone would stop who counts them one pair at a time."""
    wins = usable = 0
    for sample in range(judge.votes // 2):
        for first in (True, False):
            vote = {"A": True, "B": False, "(B) is better": False}.get(replies[first, sample])
            wins += vote is not None and vote == first
            usable += vote is not None
        asked = 2 * (sample + 1)
        if asked >= judge.min_votes and judge.stop_at and max(p := posterior(wins, usable), 1 - p) >= judge.stop_at:
            return asked
    return judge.votes


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries({(first, sample): REPLIES for first in (True, False) for sample in range(6)}),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([None, 0.75, 0.9, 0.95]),
)
async def test_votes_end_where_the_posterior_says_and_mirror_when_the_responses_are_named_the_other_way_round(
    replies: Replies, half: int, least: int, stop_at: float | None
) -> None:
    judge = Pairwise(votes=2 * half, min_votes=2 * min(half, least), stop_at=stop_at)
    verdict, asked = await voted(says(replies), judge)
    assert judge.min_votes <= len(asked) <= judge.votes == judge.calls_a_pair({"judge"})
    assert len(asked) == stops_at(judge, replies) == len(verdict.replies)
    assert sorted(request.sample for request in asked) == sorted(2 * list(range(len(asked) // 2)))
    other, asked_too = await voted(says(replies), judge, record(BAD, GOOD))
    assert len(asked_too) == len(asked)
    assert (other.p_first is None, other.outcome) == (verdict.p_first is None, verdict.outcome)
    if verdict.p_first is not None and other.p_first is not None:
        assert other.p_first == pytest.approx(1 - verdict.p_first)
        assert other.consistent == verdict.consistent
        assert sorted(other.votes) == sorted(not vote for vote in verdict.votes)


async def test_only_votes_count_towards_the_stop() -> None:
    # Of the first four two are no choice: two of two are 0.875, so one more of each order is asked.
    replies = {(first, sample): "A" if first else "B" for first in (True, False) for sample in range(6)}
    replies |= {(True, 0): "Both are good.", (False, 1): "refuse"}
    verdict, asked = await voted(says(replies), Pairwise())
    assert len(asked) == 6
    assert verdict.votes == (True,) * 4
    assert (verdict.p_ab, verdict.p_ba) == pytest.approx((3 / 4, 3 / 4))


def test_fewer_votes_than_the_usual_least_are_taken_as_the_least() -> None:
    assert (Pairwise(votes=2).min_votes, Pairwise(votes=6).min_votes, Pairwise().min_votes) == (2, 4, 4)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"votes": 6, "min_votes": 8}, "min_votes is 8, more than votes, 6"),
        ({"min_votes": 14}, "min_votes is 14, more than votes, 12"),
        ({"votes": 3}, "multiple of 2"),
        ({"votes": 0}, "greater than or equal to 2"),
        ({"stop_at": 0.5}, "greater than 0.5"),
        ({"stop_at": 1.0}, "less than 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_once(settings: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why) as caught:
        Pairwise.model_validate(settings)
    assert caught.value.error_count() == 1


# --- ties ---


@pytest.mark.parametrize(
    ("option", "outcome", "tie", "bad"), [("C", "tie", 1.0, 0.0), ("D", "both_bad", 0.0, 1.0), ("A", "ok", 0.0, 0.0)]
)
async def test_votes_may_say_that_neither_is_better(option: str, outcome: str, tie: float, bad: float) -> None:
    verdict, asked = await voted(prefers(GOOD) if option == "A" else always(option), Pairwise(ties=True))
    assert (verdict.outcome, verdict.p_tie, verdict.p_bad) == (outcome, tie, bad)
    assert all("C if they are equally good, D if both are bad." in request.messages[-1].content for request in asked)
    if option != "A":
        assert verdict.p_first == pytest.approx(0.5)
        assert verdict.votes == (None,) * 12  # none of them is for either: there is nothing to be sure of


async def test_ties_are_no_choice_for_a_judge_that_was_not_offered_them() -> None:
    verdict, asked = await voted(always("C"), Pairwise())
    assert (verdict.p_first, verdict.p_tie, verdict.outcome) == (None, None, "unparsed")
    assert not any("C if they" in request.messages[-1].content for request in asked)


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries({(f, s): st.sampled_from("ABCD") for f in (True, False) for s in range(4)}))
async def test_with_ties_too_the_other_way_round_is_the_mirror_and_all_shares_add_up(replies: Replies) -> None:
    judge = Pairwise(ties=True, votes=8, stop_at=None)
    one, _ = await voted(says(replies), judge)
    other, _ = await voted(says(replies), judge, record(BAD, GOOD))
    assert one.p_first is not None
    assert other.p_first is not None
    assert (one.outcome, one.p_tie, one.p_bad, one.consistent) == (
        other.outcome,
        other.p_tie,
        other.p_bad,
        other.consistent,
    )
    assert one.p_first == pytest.approx(1 - other.p_first)
    said = list(replies.values())
    assert one.p_tie == pytest.approx(said.count("C") / 8)
    assert one.p_bad == pytest.approx(said.count("D") / 8)
    assert math.isclose(sum(vote is None for vote in one.votes), said.count("C") + said.count("D"))
    for_good = sum(text == ("A" if first else "B") for (first, _), text in replies.items())
    for_bad = 8 - for_good - said.count("C") - said.count("D")
    counts = {"tie": said.count("C"), "both_bad": said.count("D"), "ok": max(for_good, for_bad)}
    assert counts[one.outcome] == max(counts.values())


MASS = st.integers(0, 20).map(lambda n: n / 20)


def four(a: float, b: float, tie: float, bad: float) -> Completion:
    total = a + b + tie + bad
    options = {name: mass / total for name, mass in zip("ABCD", (a, b, tie, bad), strict=True)}
    top = tuple((option, math.log(p)) for option, p in options.items() if p)
    said = max(options, key=lambda option: options[option])
    return Completion(said, logprobs=(TokenLogprob(said, math.log(options[said]), top),))


@settings(max_examples=60, deadline=None)
@given(st.tuples(MASS, MASS, MASS, MASS).filter(any), st.tuples(MASS, MASS, MASS, MASS).filter(any))
@example((0.05, 0, 0, 0), (0.25, 0.25, 0.15, 0.35))  # one order is exactly undecided, but for rounding
async def test_log_probabilities_of_ties_are_averaged_over_both_orders_and_mirror_too(
    ab: tuple[float, ...], ba: tuple[float, ...]
) -> None:
    found = []
    for made in (record(GOOD, BAD), record(BAD, GOOD)):
        async with context(lambda request: four(*(ab if shown(request)[0] == GOOD else ba))) as working:
            found.append(await Pairwise(ties=True).compare(made, 0, 1, KIND, working))
    one, other = found
    shares = [[mass / sum(order) for mass in order] for order in (ab, ba)]
    good, bad = (shares[0][0] + shares[1][1]) / 2, (shares[0][1] + shares[1][0]) / 2
    tie, both = (sum(order[i] for order in shares) / 2 for i in (2, 3))
    assert (one.p_tie, one.p_bad) == pytest.approx((tie, both))
    assert one.p_first == pytest.approx(good + (tie + both) / 2)
    assert other.p_first == pytest.approx(bad + (tie + both) / 2)
    assert (one.outcome, one.consistent) == (other.outcome, other.consistent)
    most = {"ok": max(good, bad), "tie": tie, "both_bad": both}
    assert most[one.outcome] == pytest.approx(max(most.values()))
