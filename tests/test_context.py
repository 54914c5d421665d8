"""A request has the form that its model takes, and chance that comes from identity."""

from __future__ import annotations

from typing import Any

import pytest

from rlaif.errors import ConfigError
from rlaif.journal import Traits
from rlaif.types import Message, Request
from tests.lab import KIND, context

MESSAGES = (Message("system", "Be brief."), Message("user", "Hello"))


async def asked(traits: Traits, *, seed: int = 3, extra: dict[str, object] | None = None, **settings: Any) -> Request:
    requests: list[Request] = []
    async with context(lambda _: "Hi", requests, traits=traits, seed=seed, extra=extra) as working:
        await working.ask("policy", MESSAGES, **settings)
    return requests[0]


async def test_parameters_that_the_model_takes_are_sent() -> None:
    request = await asked(
        Traits(top_logprobs=20), temperature=0.7, top_p=0.9, max_tokens=8, stop=("\n",), logprobs=True, sample=2
    )
    assert request == Request(
        model="test#policy",
        messages=MESSAGES,
        temperature=0.7,
        top_p=0.9,
        max_tokens=8,
        stop=("\n",),
        top_logprobs=20,
        seed=3,
        sample=2,
    )


async def test_parameters_that_the_model_rejects_are_left_out() -> None:
    traits = Traits(rejected=("temperature", "top_p", "stop", "seed"))
    request = await asked(traits, temperature=0.7, top_p=0.9, stop=("\n",), logprobs=True)
    assert (request.temperature, request.top_p, request.stop, request.top_logprobs) == (None, None, (), None)
    assert not request.provider_seed
    assert request.seed == 3  # two seeds are two sets of samples, even if the model can't be told


async def test_the_system_prompt_opens_the_first_user_turn_of_a_model_without_that_role() -> None:
    request = await asked(Traits(system_role=False))
    assert request.messages == (Message("user", "Be brief.\n\nHello"),)


async def test_the_seed_is_in_sampled_requests_only_so_greedy_answers_are_shared_between_runs() -> None:
    sampled = [await asked(Traits(), seed=seed, temperature=1.0) for seed in (1, 2)]
    greedy = [await asked(Traits(), seed=seed) for seed in (1, 2)]
    assert sampled[0].key() != sampled[1].key()
    assert greedy[0].key() == greedy[1].key()


async def test_the_providers_own_fields_are_part_of_the_request() -> None:
    extra: dict[str, object] = {"body": {"min_p": 0.1}}
    with_extra, without = await asked(Traits(), extra=extra), await asked(Traits())
    assert with_extra.extra == extra
    assert with_extra.key() != without.key()


async def test_an_unknown_role_names_those_there_are() -> None:
    async with context(lambda _: "") as working:
        with pytest.raises(ConfigError, match="unknown model role 'critic'; known: policy, judge"):
            working.model("critic")


async def test_draws_depend_on_seed_record_stage_and_step_and_calls_are_counted_by_stage() -> None:
    async with context(lambda _: "x", seed=7) as working:
        assert working.at("revise").draw_id("abc", "0/1") == "7/abc/revise/0/1"
        await working.at("revise").ask("policy", MESSAGES)
        await working.at("judge").ask("policy", MESSAGES)
        sent = {key: (tally.sent, tally.from_journal) for key, tally in working.tallies.items()}
        assert sent == {("revise", "policy"): (1, 0), ("judge", "policy"): (0, 0)}  # asked once, by the first


async def test_the_end_of_the_shared_prefix_goes_with_a_templates_request() -> None:
    values = {"principle": KIND, "few_shot": True}
    conversation = (Message("user", "a"), Message("assistant", "b"))
    requests: list[Request] = []
    async with context(lambda _: "Hi", requests) as working:
        await working.ask_by("policy", "critique", conversation, values)
        await working.ask_by("policy", "critique", (Message("system", "Be brief."), *conversation), values)
    shared = working.templates.shared("critique", True)
    assert shared == 7  # the system turn and three worked turns of each side
    assert [request.shared for request in requests] == [shared, 0]
    assert requests[0].messages[shared:][:2] == conversation
