"""The first call to a model: what it teaches about the model, and what it says when there is none to be had."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rlaif.backends.openai import OpenAIBackend
from rlaif.errors import ConfigError
from rlaif.journal import Journal, Traits
from rlaif.llm import LLM, Tally
from rlaif.preflight import preflight
from tests.lab import one_lane
from tests.server import Body, Reply, Server, completion

TOP = {"A": -0.1, "B": -2.5}


def able(body: Body) -> Reply:
    """A model that takes everything."""
    return completion("A", top=TOP if body.get("logprobs") else None)


def refused(parameter: str, text: str, code: str | None = "unsupported_value", status: int = 400) -> Reply:
    error = {"message": text, "type": "invalid_request_error", "param": parameter, "code": code}
    return status, {"error": error}, {}


def no_temperature(body: Body) -> Reply:
    if "temperature" in body:
        text = "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default is supported."
        return refused("temperature", text)
    return able(body)


def no_sampling(body: Body) -> Reply:
    """Anthropic's newer models, as a gateway passes their words on."""
    for parameter in ("temperature", "top_p"):
        if parameter in body:
            return refused("", f"`{parameter}` is deprecated for this model.", None)
    return able(body)


def no_seed(body: Body) -> Reply:
    if "seed" in body:
        return refused("seed", "Unsupported parameter: 'seed' is not supported with this model.")
    return able(body)


def no_stop(body: Body) -> Reply:
    if "stop" in body:
        return refused("stop", "Unsupported parameter: 'stop' is not supported with this model.")
    return able(body)


def five_logprobs(body: Body) -> Reply:
    if body.get("top_logprobs", 0) > 5:
        text = "Invalid value for 'top_logprobs': must be less than or equal to 5."
        return refused("top_logprobs", text, "invalid_value")
    return able(body)


def no_logprobs(body: Body) -> Reply:
    if "logprobs" in body:
        return refused("logprobs", "Unsupported parameter: 'logprobs' is not supported with this model.")
    return able(body)


def forbidden_logprobs(body: Body) -> Reply:
    if "logprobs" in body:
        error = {"message": "You are not allowed to request logprobs from this model", "param": None, "code": None}
        return 403, {"error": error}, {}
    return able(body)


def silent_about_logprobs(body: Body) -> Reply:
    return completion("A")


def one_logprob_only(body: Body) -> Reply:
    return completion("A", top={"A": -0.1})


def no_system_role(body: Body) -> Reply:
    if body["messages"][0]["role"] == "system":
        text = "Unsupported value: 'messages[0].role' does not support 'system' with this model."
        return refused("messages[0].role", text)
    return able(body)


def thinking(body: Body) -> Reply:
    """Spends its first 100 tokens on thoughts."""
    if body["max_tokens"] <= 100:
        return completion("", message={"role": "assistant", "content": None}, finish_reason="length")
    return able(body)


def thinking_aloud(body: Body) -> Reply:
    if body["max_tokens"] <= 100:
        return completion("<think>\nThe letters are A and", finish_reason="length")
    return able(body)


def picky(body: Body) -> Reply:
    """All of it at once."""
    for refuse in (no_temperature, no_stop, no_logprobs, no_system_role, thinking):
        reply = refuse(body)
        if isinstance(reply, tuple) or not reply["choices"][0]["message"]["content"]:
            return reply
    return completion("A")


@asynccontextmanager
async def llm_on(server: Server, folder: Path, *, api_key: str | None = None, **fields: Any) -> AsyncIterator[LLM]:
    async with Journal(folder / "journal.sqlite") as journal:
        llm = LLM(
            name="judge",
            identity="here#judge",
            journal=journal,
            lanes=one_lane(lambda: OpenAIBackend(server.url, "judge", api_key=api_key, key_name="MY_KEY")),
            **fields,
        )
        try:
            yield llm
        finally:
            await llm.close()


@pytest.mark.parametrize(
    ("model", "traits", "notice"),
    [
        (able, Traits(top_logprobs=20), None),
        (no_temperature, Traits(top_logprobs=20, rejected=("temperature",)), "does not take temperature"),
        (no_sampling, Traits(top_logprobs=20, rejected=("temperature", "top_p")), "does not take temperature, top_p"),
        (no_seed, Traits(top_logprobs=20, rejected=("seed",)), "does not take seed"),
        (no_stop, Traits(top_logprobs=20, rejected=("stop",)), "does not take stop"),
        (five_logprobs, Traits(top_logprobs=5), None),
        (no_logprobs, Traits(), "gives no log-probabilities: as a judge it votes by sampling"),
        (forbidden_logprobs, Traits(), "gives no log-probabilities"),
        (silent_about_logprobs, Traits(), "gives no log-probabilities"),
        (one_logprob_only, Traits(), "gives no log-probabilities"),
        (no_system_role, Traits(top_logprobs=20, system_role=False), "has no system role"),
        (thinking, Traits(top_logprobs=20, thinks=True), None),
        (thinking_aloud, Traits(top_logprobs=20, thinks=True), None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_the_first_call_learns_what_a_model_can_do_and_says_what_it_cannot(
    model: Callable[[Body], Reply], traits: Traits, notice: str | None, tmp_path: Path
) -> None:
    async with Server(model) as server, llm_on(server, tmp_path) as llm:
        assert await preflight(llm, Tally()) == traits
        assert llm.known_traits() == traits
    assert len(llm.notices) == (notice is not None)
    assert notice is None or llm.notices[0].startswith(f"judge {notice}")


async def test_a_model_that_lacks_many_things_is_known_after_few_calls(tmp_path: Path) -> None:
    tally = Tally()
    async with Server(picky) as server, llm_on(server, tmp_path) as llm:
        traits = await preflight(llm, tally)
    assert traits == Traits(0, system_role=False, rejected=("temperature", "stop"), thinks=True)
    assert len(llm.notices) == 3
    assert len(server.requests) == tally.sent <= 8


async def test_a_system_prompt_is_not_lost_where_there_is_no_role_for_it(tmp_path: Path) -> None:
    async with Server(no_system_role) as server, llm_on(server, tmp_path) as llm:
        await preflight(llm, Tally())
    system, user = (message["content"] for message in server.requests[0]["messages"])
    assert server.requests[1]["messages"] == [{"role": "user", "content": f"{system}\n\n{user}"}]


async def test_an_able_model_is_asked_once_with_the_providers_own_fields(tmp_path: Path) -> None:
    tally = Tally()
    async with Server(able) as server, llm_on(server, tmp_path, extra={"body": {"top_k": 1}}) as llm:
        await preflight(llm, tally)
    [request] = server.requests
    assert request["top_k"] == 1
    assert {"temperature", "seed", "stop", "top_logprobs"} <= set(request)
    assert (tally.sent, tally.prompt_tokens) == (1, 7)


async def test_temperature_and_top_p_are_tried_together_as_some_models_take_only_one(tmp_path: Path) -> None:
    def one_of_two(body: Body) -> Reply:
        if "temperature" in body and "top_p" in body:
            return 400, {"error": {"message": "temperature and top_p cannot both be specified"}}, {}
        return able(body)

    async with Server(one_of_two) as server, llm_on(server, tmp_path) as llm:
        assert await preflight(llm, Tally()) == Traits(top_logprobs=20, rejected=("top_p",))
    assert ["top_p" in request for request in server.requests] == [True, False]


async def test_what_was_learned_is_remembered_by_the_next_run(tmp_path: Path) -> None:
    async with Server(no_temperature) as server:
        async with llm_on(server, tmp_path) as llm:
            learned = await preflight(llm, Tally())
        asked = len(server.requests)
        tally = Tally()
        async with llm_on(server, tmp_path) as again:
            assert await preflight(again, tally) == learned
    assert len(server.requests) == asked == 2
    assert tally.sent == 0


async def test_another_model_in_the_same_journal_is_asked_for_itself(tmp_path: Path) -> None:
    async with Server(no_logprobs) as server, llm_on(server, tmp_path) as llm:
        await preflight(llm, Tally())
        other = LLM("other", "here#other", llm.journal, llm.lanes)
        assert other.known_traits() is None


async def test_a_dry_run_asks_nothing_and_remembers_nothing(tmp_path: Path) -> None:
    async with Server(able) as server, llm_on(server, tmp_path, sending=False) as llm:
        assert await preflight(llm, Tally()) == Traits(top_logprobs=20)
        assert llm.known_traits() is None
    assert server.requests == []


# No model to be had


async def failure(server: Server, folder: Path, **fields: Any) -> str:
    """What the user reads; nothing may have been learned."""
    async with llm_on(server, folder, **fields) as llm:
        with pytest.raises(ConfigError) as caught:
            await preflight(llm, Tally())
        assert llm.known_traits() is None
    return str(caught.value)


async def test_a_wrong_key_is_named_by_its_variable_after_one_call(tmp_path: Path) -> None:
    reply: Reply = 401, {"error": {"message": "Incorrect API key: sk-wrong", "code": "invalid_api_key"}}, {}
    async with Server(lambda _: reply) as server:
        said = await failure(server, tmp_path, api_key="sk-wrong")
    assert "model 'judge' cannot be used" in said
    assert "the key in MY_KEY was refused" in said
    assert "sk-wrong" not in said
    assert len(server.requests) == 1


async def test_a_model_that_is_not_there_is_a_config_error(tmp_path: Path) -> None:
    async with Server(lambda _: refused("model", "The model `judge` does not exist", status=404)) as server:
        said = await failure(server, tmp_path)
    assert "The model `judge` does not exist" in said
    assert len(server.requests) == 1


@pytest.mark.parametrize("parameter", ["model", "messages", "temperature", "system", "top_logprobs"])
async def test_a_model_that_refuses_every_request_is_a_config_error_soon(parameter: str, tmp_path: Path) -> None:
    async with Server(lambda _: refused(parameter, f"'{parameter}' is bad")) as server:
        said = await failure(server, tmp_path)
    assert "model 'judge' cannot be used" in said
    assert len(server.requests) <= 3


async def test_a_model_that_answers_nothing_but_thoughts_is_still_known_to_think(tmp_path: Path) -> None:
    async with (
        Server(lambda _: completion("<think>Hm", finish_reason="length")) as server,
        llm_on(server, tmp_path) as llm,
    ):
        assert (await preflight(llm, Tally())).thinks
    assert len(server.requests) == 2


async def test_a_server_that_is_down_teaches_nothing(tmp_path: Path) -> None:
    down: Reply = 503, {"error": {"message": "Loading model"}}, {"Retry-After": "0"}
    async with Server(lambda _: down) as server:
        assert "Loading model" in await failure(server, tmp_path)
    assert len(server.requests) == 2  # asked again, but not as long as in a run


async def test_a_server_that_is_down_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    replies: list[Reply] = [(503, {"error": {"message": "temperature too high"}}, {"Retry-After": "0"})]
    async with (
        Server(lambda body: replies.pop() if replies else able(body)) as server,
        llm_on(server, tmp_path) as llm,
    ):
        assert await preflight(llm, Tally()) == Traits(top_logprobs=20)


async def test_an_address_where_nobody_listens_is_a_config_error(tmp_path: Path) -> None:
    nobody = Server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody.port = free.getsockname()[1]
    assert "cannot be reached: Connection refused" in await failure(nobody, tmp_path)
