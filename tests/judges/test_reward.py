"""A reward model's verdict is the difference of its scores, the same in both orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaif.backends import ModelSpec
from rlaif.export.comparisons import Comparisons
from rlaif.journal import Journal, Traits
from rlaif.judges.reward import RewardModel
from rlaif.llm import Tally
from rlaif.models import open_models
from rlaif.preflight import preflight
from rlaif.prices import FREE
from rlaif.stages.judge import Judge
from rlaif.types import Completion, Message, Record, Request, Verdict
from tests.lab import KIND, TRUE, context, record, through

Scores = Mapping[str, float | str]


def scores(values: Scores) -> Callable[[Request], str]:
    return lambda request: f"{values[request.messages[-1].content]}"


async def judged(values: Scores, first: int = 0, second: int = 1) -> Verdict:
    async with context({"reward": scores(values)}) as working:
        return await RewardModel().compare(record(*values), first, second, KIND, working)


async def test_the_probability_is_the_sigmoid_of_the_difference_in_either_order() -> None:
    verdict = await judged({"good": 2.5, "bad": 1.5})
    assert verdict.p_first == pytest.approx(1 / (1 + math.exp(-1)))
    assert verdict.p_ab == verdict.p_ba == verdict.p_first
    assert (verdict.consistent, verdict.outcome, verdict.method) == (True, "ok", "reward")
    assert (verdict.replies, verdict.votes, verdict.principle) == (("2.5", "1.5"), (), "reward")


async def test_equal_scores_have_no_winner_and_far_ones_are_certain_without_an_overflow() -> None:
    even = await judged({"a": 1.0, "b": 1.0})
    assert (even.p_first, even.consistent) == (0.5, False)
    assert (await judged({"a": 1e4, "b": -1e4})).p_first == 1.0
    assert (await judged({"a": -1e4, "b": 1e4})).p_first == 0.0


@settings(max_examples=30, deadline=None)
@given(st.floats(-30, 30), st.floats(-30, 30))
async def test_naming_the_responses_the_other_way_round_mirrors_the_verdict(a: float, b: float) -> None:
    one, other = await judged({"a": a, "b": b}), await judged({"a": a, "b": b}, 1, 0)
    assert one.p_first is not None
    assert other.p_first is not None
    assert one.p_first == pytest.approx(1 - other.p_first, abs=1e-12)
    assert one.consistent == other.consistent


@pytest.mark.parametrize("reply", ["", "good", "nan", "inf", "A", "1.0 or so"])
async def test_what_is_no_number_is_no_vote(reply: str) -> None:
    verdict = await judged({"a": reply, "b": 1.0})
    assert (verdict.p_first, verdict.p_ab, verdict.outcome) == (None, None, "unparsed")
    assert verdict.replies == (reply, "1.0")


async def test_a_refusal_is_one_even_with_a_number() -> None:
    async with context({"reward": lambda _: Completion("1.0", "content_filter")}) as working:
        verdict = await RewardModel().compare(record("a", "b"), 0, 1, KIND, working)
    assert (verdict.p_first, verdict.outcome) == (None, "refusal")


async def test_each_response_is_asked_once_with_the_whole_conversation_and_no_criterion() -> None:
    asked: list[Request] = []
    values = {"a": 1.0, "b": 3.0, "c": 2.0}
    turns = (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Yes?"),
        Message("user", "How?"),
    )
    made: Record = record(*values).having(prompt=turns)
    async with context({"reward": scores(values)}, asked) as working:
        found = await RewardModel()(made, list(combinations(range(3), 2)), lambda _: [KIND, TRUE], working)
    assert len(found) == 3
    assert len(asked) == 3 == RewardModel().calls(3, 3, 16)
    assert all(request.messages[:-1] == turns for request in asked)
    assert sorted(request.messages[-1].content for request in asked) == ["a", "b", "c"]
    assert {request.messages[-1].role for request in asked} == {"assistant"}
    assert [one.p_first for one in found] == pytest.approx([1 / (1 + math.exp(2)), 1 / (1 + math.exp(1)), 0.7310586])


async def test_as_the_only_judge_of_a_stage_it_plans_a_call_a_response() -> None:
    stage = Judge.model_validate({"by": "reward"})
    after, asked = await through(stage, record("a", "b", "c"), {"reward": lambda _: "0.5"})
    assert (stage.roles(), len(after.verdicts), len(asked)) == (("reward",), 3, 3)
    assert stage.plan(3, 20, {"reward"}) == (3, 3)


async def test_with_all_principles_it_has_still_one_verdict_a_pair() -> None:
    stage = Judge.model_validate({"by": {"kind": "reward"}, "principles": "all"})
    after, _ = await through(stage, record("a", "b"), {"reward": lambda _: "0.5"}, principles=(KIND, TRUE))
    assert [verdict.principle for verdict in after.verdicts] == ["reward"]


async def test_several_reward_models_are_a_panel_with_a_verdict_each() -> None:
    stage = Judge.model_validate({"by": [{"kind": "reward", "model": "one"}, {"kind": "reward", "model": "other"}]})
    answers = {"one": scores({"a": 2.0, "b": 1.0}), "other": scores({"a": 0.0, "b": 3.0})}
    after, _ = await through(stage, record("a", "b"), answers)
    assert [(verdict.judge, verdict.p_first) for verdict in after.verdicts] == [
        ("one", pytest.approx(1 / (1 + math.exp(-1)))),
        ("other", pytest.approx(1 / (1 + math.exp(3)))),
    ]
    together = Comparisons(after, "mean").of(0, 1)
    assert together is not None
    assert together.p_ab == pytest.approx((1 / (1 + math.exp(-1)) + 1 / (1 + math.exp(3))) / 2)


async def test_the_preflight_has_no_question_for_a_reward_model_and_nothing_to_say_of_votes(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    spec = ModelSpec.model_validate(f"reward/{folder}")
    tally, notices = Tally(), list[str]()
    async with Journal(tmp_path / "calls.sqlite") as journal:
        llm = open_models({"reward": spec}, journal, {}, tmp_path, notices=notices)["reward"]
        assert await preflight(llm, tally) == Traits()
        assert not any(lane.opened for lane in llm.lanes.all)
        await llm.close()
    assert (llm.name, llm.price, tally, notices) == ("model", FREE, Tally(), [])


@pytest.mark.parametrize("text", ["reward", "reward/"])
def test_there_is_no_bundled_reward_model(text: str) -> None:
    with pytest.raises(ValidationError, match="a reward model needs a name: reward/MODEL"):
        ModelSpec.model_validate(text)
