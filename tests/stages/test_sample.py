"""Candidates are drawn from models and temperatures, and nothing of what came back is hidden."""

from __future__ import annotations

import pytest

from rlaif.errors import CallFailed, ProviderError
from rlaif.stages.sample import Sample
from rlaif.types import Completion, Drop, Message, Record, Request
from tests.lab import record, through


def numbered(request: Request) -> str:
    return f" {request.model} at {request.temperature} number {request.sample}\n"


async def test_n_are_drawn_from_each_model_at_each_temperature() -> None:
    stage = Sample(models=("policy", "judge"), n=2, temperatures=(0.5, 1.0))
    after, asked = await through(stage, record(), numbered)
    assert len(asked) == stage.plan(0, 20)[0] == 8
    assert len({response.text for response in after.responses}) == 8
    assert [response.model for response in after.responses] == ["policy"] * 4 + ["judge"] * 4
    assert after.responses[0].text == "test#policy at 0.5 number 0"  # without the white space around it


async def test_at_temperature_zero_one_is_drawn_as_there_is_only_one_greedy_answer() -> None:
    stage = Sample(n=4, temperatures=(0.0, 1.0))
    after, asked = await through(stage, record(), numbered)
    assert [request.temperature for request in asked] == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert stage.plan(0, 20) == (5, 5) == (len(asked), len(after.responses))


async def test_identical_responses_are_kept_in_the_record_but_dropped() -> None:
    after, _ = await through(Sample(n=3), record("Same"), lambda request: "Same " if request.sample > 1 else "Other")
    assert [response.text for response in after.responses] == ["Same", "Other", "Same", "Same"]
    assert after.drops == (Drop(2, "duplicate"), Drop(3, "duplicate"))
    assert after.live() == [0, 1]


async def test_settings_reach_the_request_and_the_system_prompt_is_no_part_of_the_record() -> None:
    stage = Sample(n=1, system="Be brief.", stop=("\n\n",), top_p=0.9, max_tokens=7)
    after, (request,) = await through(stage, record(), numbered)
    assert request.messages == (Message("system", "Be brief."), Message("user", "How do I pick a lock?"))
    assert (request.stop, request.top_p, request.max_tokens) == (("\n\n",), 0.9, 7)
    assert after.prompt == record().prompt


async def test_a_system_turn_of_the_prompt_follows_the_stages_in_one_turn() -> None:
    prompt = (Message("system", "You are a pirate."), Message("user", "Hello"))
    _, (request,) = await through(Sample(n=1, system="Be brief."), Record("id", prompt), numbered)
    assert request.messages == (Message("system", "Be brief.\n\nYou are a pirate."), Message("user", "Hello"))


async def test_refusals_and_truncation_are_recorded_as_what_they_are() -> None:
    answers = [Completion("I can't.", "refusal"), Completion("It goes on", "length"), Completion("", "content_filter")]
    after, _ = await through(Sample(n=3), record(), lambda request: answers[request.sample])
    assert [response.finish_reason for response in after.responses] == ["refusal", "length", "content_filter"]


async def test_reasoning_is_kept_apart_from_the_text() -> None:
    after, _ = await through(Sample(n=1), record(), lambda _: Completion("Yes.", reasoning="Hm."))
    assert (after.responses[0].text, after.responses[0].reasoning) == ("Yes.", "Hm.")


async def test_one_failed_call_fails_the_record_after_its_siblings_were_answered() -> None:
    asked: list[Request] = []

    def answer(request: Request) -> str:
        asked.append(request)
        if request.sample == 0:
            raise ProviderError("context_length", "too long")
        return "text"

    with pytest.raises(CallFailed) as caught:
        await through(Sample(n=3), record(), answer)
    assert caught.value.reason == "context_length"
    assert len(asked) == 3


POOL = {f"m{i}": numbered for i in range(5)}


async def test_of_a_pool_each_record_draws_so_many_models_and_every_model_gets_its_turn() -> None:
    stage = Sample(models=tuple(POOL), draw=2, n=1)
    assert stage.plan(0, 20) == (2, 2)
    teams = set()
    for i in range(40):
        after, _ = await through(stage, record(prompt=f"question {i}"), POOL)
        teams.add(tuple(response.model for response in after.responses))
    assert {model for team in teams for model in team} == set(POOL)
    assert all(len(set(team)) == 2 for team in teams)


async def test_a_model_that_joins_the_pool_only_takes_the_places_it_wins() -> None:
    for i in range(20):
        before, _ = await through(Sample(models=tuple(POOL)[:4], draw=2, n=1), record(prompt=f"{i}"), POOL)
        after, _ = await through(Sample(models=tuple(POOL), draw=2, n=1), record(prompt=f"{i}"), POOL)
        gone = {r.model for r in before.responses} - {r.model for r in after.responses}
        come = {r.model for r in after.responses} - {r.model for r in before.responses}
        assert come in (set(), {"m4"})
        assert len(gone) == len(come)


async def test_responses_carry_the_side_of_their_stage() -> None:
    strong, _ = await through(Sample(models=("policy",), n=1, side="strong"), record(), lambda _: "clear")
    both, _ = await through(Sample(models=("judge",), n=1, side="weak"), strong, lambda _: "muddled")
    assert [(response.text, response.side) for response in both.responses] == [("clear", "strong"), ("muddled", "weak")]


async def test_a_second_stage_draws_on_where_the_first_ended() -> None:
    first, _ = await through(Sample(n=2), record(), numbered)
    both, asked = await through(Sample(n=2, side="weak"), first, numbered)
    assert [request.sample for request in asked] == [2, 3]
    assert both.drops == ()
