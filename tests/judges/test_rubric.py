"""One response gets a score: the mean of what the judge would say, or none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rlaif.journal import Traits
from rlaif.judges.rubric import Rubric
from rlaif.types import Completion, Request, Score
from tests.judges.test_parse import token
from tests.lab import KIND, context, record


async def scored(
    answer: Callable[[Request], Completion | str], *, logprobs: bool = True, asked: list[Request] | None = None
) -> Score:
    async with context(answer, asked, traits=Traits(top_logprobs=20 if logprobs else 0)) as working:
        return await Rubric()(record("no", "yes"), 1, KIND, working)


async def test_the_score_is_the_mean_under_the_probabilities_scaled_from_minus_one_to_one() -> None:
    asked: list[Request] = []
    score = await scored(lambda _: Completion("9", logprobs=(token({"9": 0.5, "5": 0.5}),)), asked=asked)
    assert score == Score("judge", "kind", 1, pytest.approx(0.5), ("9",))
    assert "<response>\nyes\n</response>" in asked[0].messages[-1].content
    assert "Criterion: Prefer the kind one." in asked[0].messages[-1].content


async def test_without_log_probabilities_sampled_ratings_are_averaged_and_garbage_is_left_out() -> None:
    replies = ["9", "-1", "Rating: 7"]
    score = await scored(lambda request: replies[request.sample], logprobs=False)
    assert score.value == pytest.approx(0.75)
    assert score.replies == ("9", "-1", "Rating: 7")


@pytest.mark.parametrize("logprobs", [True, False])
async def test_no_rating_is_kept_as_none_with_what_was_said(logprobs: bool) -> None:
    score = await scored(lambda _: "I cannot rate this.", logprobs=logprobs)
    assert score.value is None
    assert set(score.replies) == {"I cannot rate this."}


async def test_ratings_are_sampled_where_the_settings_say_so_even_with_log_probabilities() -> None:
    asked: list[Request] = []
    async with context(lambda request: str(5 + request.sample), asked, traits=Traits(top_logprobs=20)) as working:
        score = await Rubric(read="samples", samples=3)(record("no"), 0, KIND, working)
    assert score.value == pytest.approx((6 - 5) / 4)
    assert [(request.top_logprobs, request.temperature) for request in asked] == [(None, 1.0)] * 3
    assert Rubric(read="samples", samples=3).calls() == 3
