"""What goes over the wire to an OpenAI-compatible endpoint, and what is made of its answers and errors."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlaif.backends import OPENAI_URL, ModelSpec, identity_of, open_backend
from rlaif.backends.http import error_fields, retry_after_seconds
from rlaif.backends.openai import OpenAIBackend, logprobs_of_answer
from rlaif.errors import ConfigError, ProviderError, ProviderErrorKind
from rlaif.judges.parse import option_probabilities
from rlaif.types import Completion, Message, Request, TokenLogprob, Usage
from tests.server import Body, Reply, Server, completion

KEY = "sk-test-1234567890abcdef"
ASKED = (Message("system", "Be kind."), Message("user", "Hi"))
PLAIN = Request("m", ASKED)


def spec(**fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"provider": "openai", "model": "gpt-test", **fields})


@asynccontextmanager
async def backend_on(
    answer: Callable[[Body], Reply], environment: dict[str, str] | None = None, **fields: Any
) -> AsyncIterator[tuple[OpenAIBackend, Server]]:
    async with Server(answer) as server:
        backend = OpenAIBackend.from_spec(spec(base_url=server.url, **fields), environment or {})
        try:
            yield backend, server
        finally:
            await backend.close()


async def error_of(reply: Reply, environment: dict[str, str] | None = None, **fields: Any) -> ProviderError:
    async with backend_on(lambda _: reply, environment, **fields) as (backend, _):
        with pytest.raises(ProviderError) as caught:
            await backend.complete(PLAIN)
    return caught.value


# What is sent


async def sent(request: Request, **fields: Any) -> Body:
    async with backend_on(lambda _: completion("Hello."), **fields) as (backend, server):
        await backend.complete(request)
    return server.requests[0]


async def test_a_plain_request_sends_the_model_and_the_messages_only() -> None:
    assert await sent(PLAIN) == {
        "model": "gpt-test",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
    }


async def test_every_parameter_is_sent_under_its_name() -> None:
    body = await sent(
        Request(
            "m",
            ASKED,
            temperature=0.0,
            top_p=0.9,
            max_tokens=64,
            stop=("\n", "END"),
            top_logprobs=5,
            response_format={"type": "json_object"},
        )
    )
    del body["model"], body["messages"]
    assert body == {
        "temperature": 0.0,
        "top_p": 0.9,
        "max_tokens": 64,
        "stop": ["\n", "END"],
        "logprobs": True,
        "top_logprobs": 5,
        "response_format": {"type": "json_object"},
    }


@pytest.mark.parametrize(
    ("temperature", "provider_seed", "seeded"),
    [(1.0, True, True), (1.0, False, False), (0.0, True, False), (None, True, False)],
)
async def test_a_seed_goes_with_sampled_requests_to_models_that_take_one(
    temperature: float | None, provider_seed: bool, seeded: bool
) -> None:
    body = await sent(Request("m", ASKED, temperature=temperature, provider_seed=provider_seed))
    assert ("seed" in body) == seeded


async def test_each_sample_has_a_seed_of_its_own_that_stays_the_same() -> None:
    backend = OpenAIBackend("http://127.0.0.1:1/v1", "m")
    seeds = [json.loads(backend.body(Request("m", ASKED, temperature=1.0, sample=n)))["seed"] for n in (0, 1, 2, 3, 0)]
    assert len(set(seeds)) == 4
    assert seeds[0] == seeds[-1]
    assert all(0 <= seed < 2**31 for seed in seeds)  # a signed 32-bit number to some servers


async def test_the_providers_own_fields_are_merged_into_the_body_and_win() -> None:
    extra = {"body": {"top_k": 40, "chat_template_kwargs": {"enable_thinking": False}, "max_tokens": 9}}
    body = await sent(Request("m", ASKED, max_tokens=64, extra=extra))
    assert body["top_k"] == 40
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["max_tokens"] == 9


async def test_extra_headers_alone_leave_the_body_as_it_is() -> None:
    assert set(await sent(Request("m", ASKED, extra={"headers": {"X-Team": "blue"}}))) == {"model", "messages"}


def test_openai_itself_gets_the_new_name_of_max_tokens() -> None:
    backend = OpenAIBackend.from_spec(spec(), {"OPENAI_API_KEY": KEY})
    body = json.loads(backend.body(Request("m", ASKED, max_tokens=64)))
    assert body["max_completion_tokens"] == 64
    assert "max_tokens" not in body
    assert backend.endpoint.url == "https://api.openai.com/v1/chat/completions"


async def test_a_header_from_the_environment_is_sent_with_its_value() -> None:
    headers = {"X-Team": "blue", "X-Api-Key": "$GATE"}
    async with backend_on(lambda _: completion("Hi."), {"GATE": "open"}, headers=headers) as (backend, server):
        await backend.complete(PLAIN)
    assert server.headers[0]["X-Team"] == "blue"
    assert server.headers[0]["X-Api-Key"] == "open"
    assert server.headers[0]["Content-Type"] == "application/json"


def test_a_header_whose_variable_is_missing_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="header 'X-Api-Key' needs the environment variable GATE"):
        OpenAIBackend.from_spec(spec(base_url="http://h/v1", headers={"X-Api-Key": "$GATE"}), {})


# Keys


@pytest.mark.parametrize("name", ["Authorization", "api-key", "X-Api-Key", "X-Auth-Token", "Cookie", "client-secret"])
def test_a_secret_in_the_settings_is_refused_unseen(name: str) -> None:
    with pytest.raises(ValidationError, match=r"give it as \$VARIABLE") as caught:
        spec(headers={name: KEY})
    assert KEY not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize("url", ["https://ann:pw@host/v1", "http://token@host:8000/v1"])
def test_an_address_with_a_password_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="an address holds a password"):
        spec(base_url=url)
    with pytest.raises(ValidationError, match="an address holds a password"):
        ModelSpec.model_validate(f"{url}#m")


def test_an_at_sign_in_the_path_is_no_password() -> None:
    assert spec(base_url="https://host/v1/@cf/meta").base_url == "https://host/v1/@cf/meta"


def test_openai_without_its_key_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="set the environment variable OPENAI_API_KEY"):
        OpenAIBackend.from_spec(spec(), {})


def test_a_named_key_that_is_not_set_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="set the environment variable MY_KEY"):
        OpenAIBackend.from_spec(spec(base_url="http://h/v1", api_key_env="MY_KEY"), {"OPENAI_API_KEY": KEY})


def test_an_address_without_its_scheme_is_a_config_error() -> None:
    with pytest.raises(ValidationError, match="must start with http"):
        OpenAIBackend.from_spec(spec(base_url="localhost:8000/v1"), {})


async def test_a_key_for_openai_is_not_sent_to_another_host() -> None:
    async with backend_on(lambda _: completion("Hi."), {"OPENAI_API_KEY": KEY}) as (backend, server):
        await backend.complete(PLAIN)
    assert "Authorization" not in server.headers[0]
    assert KEY not in str(server.headers[0])


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
async def test_a_key_that_the_settings_name_is_sent_without_the_end_of_its_line(end: str) -> None:
    async with backend_on(lambda _: completion("Hi."), {"MY_KEY": KEY + end}, api_key_env="MY_KEY") as (
        backend,
        server,
    ):
        await backend.complete(PLAIN)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [400, 401, 500])
@pytest.mark.parametrize(
    "content", [{"error": {"message": f"bad key: {KEY}"}}, {"detail": [{"input": KEY}]}, f"<p>{KEY}</p>", ["x", KEY]]
)
async def test_a_key_that_the_server_repeats_is_not_in_the_error(status: int, content: Any) -> None:
    error = await error_of((status, content, {}), {"MY_KEY": KEY}, api_key_env="MY_KEY")
    assert KEY not in f"{error} {error!r} {error.parameter}"
    assert "[the key]" in str(error)


@pytest.mark.parametrize("before", range(280, 301, 4))
async def test_a_key_at_the_end_of_a_long_error_is_not_shown_in_part(before: int) -> None:
    error = await error_of((500, "x" * before + KEY, {}), {"MY_KEY": KEY}, api_key_env="MY_KEY")
    assert KEY[:6] not in str(error)


async def test_a_key_that_a_broken_reply_repeats_is_not_in_the_error() -> None:
    error = await error_of((200, f"Bearer {KEY}", {}), {"MY_KEY": KEY}, api_key_env="MY_KEY")
    assert KEY not in str(error)


# What is made of an answer


async def answer_to(reply: Body) -> Completion:
    async with backend_on(lambda _: reply) as (backend, _):
        return await backend.complete(PLAIN)


async def test_an_answer_carries_its_text_and_the_tokens_counted() -> None:
    assert await answer_to(completion("Hello.")) == Completion("Hello.", usage=Usage(7, 3, 2))


async def test_log_probabilities_keep_token_and_rivals() -> None:
    answer = await answer_to(completion("A", top={"A": -0.1, "B": -2.5}))
    assert answer.logprobs == (TokenLogprob("A", -0.1, (("A", -0.1), ("B", -2.5))),)


@pytest.mark.parametrize("token", [{"token": "A", "logprob": 0}, {"token": "A", "logprob": 0, "top_logprobs": None}])
async def test_a_token_without_rivals_is_a_token(token: Any) -> None:
    answer = await answer_to(completion("A", logprobs={"content": [token]}))
    assert answer.logprobs == (TokenLogprob("A", 0.0),)


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}])
async def test_no_log_probabilities_are_none(logprobs: Any) -> None:
    assert (await answer_to(completion("A", logprobs=logprobs))).logprobs is None


def message(**fields: Any) -> Body:
    return completion("", message={"role": "assistant", **fields})


@pytest.mark.parametrize(
    ("reply", "text", "reasoning"),
    [
        (message(content="Yes.", reasoning_content="Hm."), "Yes.", "Hm."),
        (message(content="Yes.", reasoning="Hm."), "Yes.", "Hm."),
        (message(content=None, reasoning_content="Hm."), "", "Hm."),
        (message(content="<think>\nHm.\n</think>\n\nYes."), "Yes.", "Hm."),
        (message(content="\n<think>Hm.</think>Yes."), "Yes.", "Hm."),
        (message(content="<think></think>\n\nYes."), "Yes.", None),
        (message(content="Hm.\n</think>\n\nYes."), "Yes.", "Hm."),  # the chat template opened the block
        (message(content="<think>\nHm. I wond"), "", "Hm. I wond"),
        (message(content="I write <think> in the middle."), "I write <think> in the middle.", None),
        (message(content="  Yes.\n"), "  Yes.\n", None),
    ],
)
async def test_what_a_model_thought_is_kept_apart_from_its_answer(
    reply: Body, text: str, reasoning: str | None
) -> None:
    answer = await answer_to(reply)
    assert (answer.text, answer.reasoning) == (text, reasoning)


def spoken(*tokens: str) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(token, -0.1, ((token, -0.1), ("B", -2.0))) for token in tokens)


@pytest.mark.parametrize(
    ("tokens", "text", "reasoning", "kept"),
    [
        (("A",), "A", None, ("A",)),
        (("<think>", "A or B", "</think>", "\n\n", "A"), "A", "A or B", ("A",)),
        (("A or", " B.", "</think>", " A", "<end>"), "A", "A or B.", (" A", "<end>")),  # opened in the prompt
        (("So", " B", "A"), "A", "So B", ("A",)),  # the server parts the two and shows no mark
        (("A",), "A", "So B", ("A",)),  # ... and gives those of the answer alone
        (("<think>", "so"), "", "so", None),  # cut off before the answer
        (("<think>", "so", "</think>"), "", "so", None),
        (("Hm",), "A", "So B", None),  # of who knows what
        (("So", "ĠB", "The", "Ġbest", "Ċ", "A"), "The best\nA", "So B", ("The", "Ġbest", "Ċ", "A")),  # raw ones
        (("So", "▁B", "▁the", "▁best"), "the best", "So B", ("▁the", "▁best")),
        (("So", "x▁", "y"), "x▁y", "So", ("x▁", "y")),  # a text that has the mark itself
    ],
)
def test_log_probabilities_are_those_of_the_answer_not_of_the_thoughts_before_it(
    tokens: tuple[str, ...], text: str, reasoning: str | None, kept: tuple[str, ...] | None
) -> None:
    found = logprobs_of_answer(spoken(*tokens), text, reasoning)
    assert (found and tuple(token.token for token in found)) == kept


async def test_a_judge_that_thinks_is_read_where_its_answer_is() -> None:
    said = completion("<think>\nB is longer.\n</think>\n\nA")
    tokens = ("<think>", "\nB", " is longer.\n", "</think>", "\n\n", "A")
    rivals = [{"token": "B", "logprob": -3.0}]
    said["choices"][0]["logprobs"] = {
        "content": [
            {"token": token, "logprob": -0.1, "top_logprobs": [{"token": token, "logprob": -0.1}, *rivals]}
            for token in tokens
        ]
    }
    answer = await answer_to(said)
    assert (answer.text, answer.reasoning) == ("A", "B is longer.")
    assert answer.logprobs is not None
    assert option_probabilities(answer.logprobs, "AB", 0.2)["A"] == pytest.approx(0.9048 / (0.9048 + 0.0498), abs=1e-3)


async def test_a_refusal_is_told_from_an_answer() -> None:
    answer = await answer_to(message(content=None, refusal="I can't help with that."))
    assert (answer.text, answer.finish_reason) == ("I can't help with that.", "refusal")


async def test_an_empty_message_is_an_empty_answer() -> None:
    assert (await answer_to(message(content=None))).text == ""


@pytest.mark.parametrize(
    ("finish", "ours"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        (None, "stop"),
        ("eos", "stop"),
        ("tool_calls", "stop"),
    ],
)
async def test_finish_reasons_are_ours(finish: str | None, ours: str) -> None:
    assert (await answer_to(completion("A", finish_reason=finish))).finish_reason == ours


@pytest.mark.parametrize(
    ("usage", "ours"),
    [
        (None, Usage()),
        ({}, Usage()),
        ({"prompt_tokens": 4, "completion_tokens": 1}, Usage(4, 1)),
        ({"prompt_tokens": 4, "completion_tokens": None}, Usage(4)),
        ({"prompt_tokens": 4, "prompt_tokens_details": None}, Usage(4)),
        ({"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": None}}, Usage(4)),
        ({"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}, "cost": 0.1}, Usage(4, 0, 3)),
    ],
)
async def test_tokens_are_counted_as_far_as_the_server_counts(usage: Any, ours: Usage) -> None:
    assert (await answer_to(completion("A") | {"usage": usage})).usage == ours


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"<html>login</html>",
        b"null",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": {"content": 5}}]}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b'{"error": {"message": "overloaded"}}',
    ],
)
async def test_a_reply_that_is_no_completion_is_the_servers_fault(raw: bytes) -> None:
    error = await error_of((200, raw, {}))
    assert "the reply is not what this API promises" in str(error)
    assert error.kind == "server"
    assert error.transient


def test_an_error_that_is_not_utf8_is_still_that_error() -> None:
    error = error_fields(b'{"error": {"message": "caf\xe9"}}')
    assert error[0].startswith('{"error"')


# What is made of an error


def openai_error(text: str, code: str | None = None, param: str | None = None) -> Body:
    return {"error": {"message": text, "type": "invalid_request_error", "param": param, "code": code}}


def vllm_error(text: str, code: int = 400) -> Body:
    return {"object": "error", "message": text, "type": "BadRequestError", "param": None, "code": code}


ERRORS: list[tuple[str, int, Any, ProviderErrorKind, str | None]] = [
    (
        "openai, temperature",
        400,
        openai_error(
            "Unsupported value: 'temperature' does not support 0.2 with this model.", "unsupported_value", "temperature"
        ),
        "unsupported",
        "temperature",
    ),
    (
        "openai, max_tokens",
        400,
        openai_error("Unsupported parameter: 'max_tokens' is not supported.", "unsupported_parameter", "max_tokens"),
        "unsupported",
        "max_tokens",
    ),
    ("openai, no param", 400, openai_error("Unrecognized request argument supplied: seed"), "unsupported", "seed"),
    ("openai, top_logprobs", 400, openai_error("Invalid value", None, "top_logprobs"), "bad_request", "top_logprobs"),
    (
        "openai, system role",
        400,
        openai_error(
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            "unsupported_value",
            "messages[0].role",
        ),
        "unsupported",
        "system",
    ),
    (
        "openai, context",
        400,
        openai_error("This model's maximum context length is 8192 tokens.", "context_length_exceeded", "messages"),
        "context_length",
        "messages",
    ),
    ("azure, filter", 400, openai_error("The response was filtered", "content_filter"), "content_filter", None),
    ("openai, key", 401, openai_error("Incorrect API key provided: sk-a***z.", "invalid_api_key"), "auth", None),
    ("openai, region", 403, openai_error("Country not supported", "unsupported_country"), "auth", None),
    (
        "openai, no logprobs for this model",
        403,
        openai_error("You are not allowed to request logprobs from this model"),
        "unsupported",
        "logprobs",
    ),
    ("openai, model", 404, openai_error("The model `x` does not exist", "model_not_found"), "not_found", None),
    ("openai, rate", 429, openai_error("Rate limit reached", "rate_limit_exceeded"), "rate_limit", None),
    ("openai, money", 429, openai_error("You exceeded your current quota", "insufficient_quota"), "auth", None),
    ("vllm, context", 400, vllm_error("This model's maximum context length is 4096 tokens."), "context_length", None),
    ("vllm, max_model_len", 400, vllm_error("The prompt is longer than max_model_len 4096"), "context_length", None),
    (
        "vllm, new shape",
        400,
        {"error": vllm_error("This model's maximum context length is 4096 tokens.")},
        "context_length",
        None,
    ),
    (
        "vllm, logprobs",
        400,
        vllm_error("Requested sample logprobs of 20, which is greater than max allowed: 5"),
        "bad_request",
        "logprobs",
    ),
    ("vllm, model", 404, vllm_error("The model `x` does not exist.", 404), "not_found", None),
    (
        "llama.cpp, context",
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size",
                "type": "exceed_context_size_error",
                "n_ctx": 512,
            }
        },
        "context_length",
        None,
    ),
    (
        "llama.cpp, loading",
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        "server",
        None,
    ),
    ("ollama", 404, {"error": "model 'x' not found"}, "not_found", None),
    ("fastapi", 400, {"detail": "temperature is not supported"}, "unsupported", "temperature"),
    ("fastapi, list", 422, {"detail": [{"loc": ["body", "top_p"], "msg": "bad"}]}, "bad_request", "top_p"),
    ("mistral, list", 422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}, "bad_request", "seed"),
    ("openrouter, money", 402, {"error": {"message": "Insufficient credits", "code": 402}}, "auth", None),
    ("openrouter, flagged", 403, {"error": {"message": "Your input was flagged", "code": 403}}, "content_filter", None),
    (
        "one of the two",
        400,
        "`temperature` and `top_p` cannot both be specified for this model",
        "bad_request",
        "top_p",  # temperature is what we want to keep
    ),
    ("a word in passing", 500, "the server was stopped by the system", "server", None),
    ("timeout", 408, "Request Timeout", "timeout", None),
    ("plain text", 400, "no", "bad_request", None),
    ("nothing", 400, "", "bad_request", None),
    ("a list", 400, ["no"], "bad_request", None),
    ("null", 400, "null", "bad_request", None),
    ("html", 502, "<html><h1>502 Bad Gateway</h1></html>", "server", None),
    ("plain, 500", 500, "Internal Server Error", "server", None),
]


@pytest.mark.parametrize(
    ("status", "content", "kind", "parameter"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS]
)
async def test_errors_of_all_servers_are_told_apart(
    status: int, content: Any, kind: ProviderErrorKind, parameter: str | None
) -> None:
    error = await error_of((status, content, {}))
    assert (error.kind, error.parameter, error.status) == (kind, parameter, status)
    assert f"answered {status}: " in str(error)
    assert len(str(error)) < 700


@pytest.mark.parametrize(
    ("header", "wait_s"), [("7", 7.0), ("0.5", 0.5), ("-1", None), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0), (None, None)]
)
async def test_a_rate_limit_carries_the_wait_that_was_asked_for(header: str | None, wait_s: float | None) -> None:
    error = await error_of((429, openai_error("Slow down"), {"Retry-After": header} if header else {}))
    assert (error.kind, error.retry_after_s, error.transient) == ("rate_limit", wait_s, True)


@pytest.mark.parametrize("header", ["nan", "inf", "soon", "", "-inf"])
def test_no_wait_is_negative_or_not_a_number(header: str) -> None:
    wait_s = retry_after_seconds({"retry-after": header}.get)
    assert wait_s is None or wait_s >= 0.0


async def test_a_refused_key_is_named_by_its_variable() -> None:
    reply: Reply = (401, openai_error("Incorrect API key"), {})
    error = await error_of(reply, {"MY_KEY": KEY}, api_key_env="MY_KEY")
    assert "the key in MY_KEY was refused: Incorrect API key" in str(error)
    assert error.fatal


async def test_a_missing_key_says_which_setting_names_one() -> None:
    error = await error_of((401, openai_error("Missing bearer"), {}))
    assert "no key was sent; set api_key_env" in str(error)


async def test_a_connection_that_is_cut_is_the_servers_fault() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]}")
        writer.write(answers.pop())
        writer.close()
        await writer.wait_closed()

    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", b""]
    listener = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    backend = OpenAIBackend(f"http://127.0.0.1:{port}/v1", "m")
    try:
        for _ in range(2):
            with pytest.raises(ProviderError, match="the connection was cut") as caught:
                await backend.complete(PLAIN)
            assert caught.value.kind == "server"
    finally:
        await backend.close()
        listener.close()
        await listener.wait_closed()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", b"nonsense\r\n\r\n"])
async def test_a_connection_that_is_reset_under_one_request_ends_no_run(said: bytes) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]}")
        writer.write(said)
        await writer.drain()
        writer.transport.abort()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as listener:
        backend = OpenAIBackend(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", "m")
        with pytest.raises(ProviderError) as caught:
            await backend.complete(PLAIN)
        await backend.close()
    assert (caught.value.kind, caught.value.transient, caught.value.fatal) == ("server", True, False)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_but_its_address_named(status: int) -> None:
    environment = {"MY_KEY": KEY, "GATE": "open-sesame"}
    async with Server() as other:
        headers = {"Location": f"{other.url}/chat/completions"}
        error = await error_of(
            (status, "", headers), environment, api_key_env="MY_KEY", headers={"X-Api-Key": "$GATE", "X-Team": "blue"}
        )
    assert (other.requests, other.headers) == ([], [])
    assert (error.kind, error.status, error.fatal) == ("not_found", status, True)
    assert f"answered {status} and points to {other.url}: give that address as base_url" in str(error)


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("/other/v1/chat/completions", r"points to http://127\.0\.0\.1:\d+/other/v1: give"),
        (f"https://h/{KEY}", r"points to https://h/\[the key\]: give"),
        ("http://[", r"points to http://\[: give"),
    ],
)
async def test_whatever_address_a_redirect_names_is_shown_without_the_key(location: str, says: str) -> None:
    error = await error_of((307, "", {"Location": location}), {"MY_KEY": KEY}, api_key_env="MY_KEY")
    assert re.search(says, str(error))


async def test_an_address_that_is_none_cannot_be_reached() -> None:
    backend = OpenAIBackend("http://", "m")
    with pytest.raises(ProviderError, match="cannot be reached") as caught:
        await backend.complete(PLAIN)
    await backend.close()
    assert caught.value.fatal


async def test_a_server_that_is_not_there_is_named_in_one_short_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    backend = OpenAIBackend(f"http://127.0.0.1:{port}/v1", "m")
    with pytest.raises(ProviderError) as caught:
        await backend.complete(PLAIN)
    await backend.close()
    assert caught.value.kind == "connection"
    assert str(caught.value) == f"http://127.0.0.1:{port}/v1/chat/completions cannot be reached: Connection refused"


async def test_an_answer_that_takes_too_long_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        backend = OpenAIBackend.from_spec(spec(base_url=url, timeout_s=0.2), {})
        with pytest.raises(ProviderError, match=r"no answer within 0\.2 s") as caught:
            await backend.complete(PLAIN)
        await backend.close()
    assert caught.value.kind == "timeout"


# How one is opened


def test_the_short_form_of_an_address_opens_that_endpoint(tmp_path: Path) -> None:
    short = ModelSpec.model_validate("http://127.0.0.1:8000/v1/#org/model")
    backend = open_backend(short, {}, tmp_path)
    assert isinstance(backend, OpenAIBackend)
    assert (backend.endpoint.url, backend.model) == ("http://127.0.0.1:8000/v1/chat/completions", "org/model")
    assert identity_of(short) == "http://127.0.0.1:8000/v1#org/model"
    assert identity_of(spec()) == f"{OPENAI_URL}#gpt-test"
    assert identity_of(spec(identity="mine")) == "mine"


@pytest.mark.parametrize(
    ("provider", "field", "value", "readers"),
    [
        ("openai", "engine", {"dtype": "auto"}, "vllm, transformers, reward"),
        ("anthropic", "lora", "adapter", "vllm, transformers, reward"),
        ("local", "lora", "adapter", "vllm, transformers, reward"),
        ("local", "base_url", "http://h/v1", "openai, anthropic"),
        ("vllm", "api_key_env", "MY_KEY", "openai, anthropic"),
        ("transformers", "headers", {"X-Team": "blue"}, "openai, anthropic"),
        ("scripted", "engine", {"dtype": "auto"}, "vllm, transformers, reward"),
        ("openai", "script", {"seed": 1}, "scripted"),
    ],
)
def test_a_field_that_the_provider_does_not_read_is_refused(
    provider: str, field: str, value: object, readers: str
) -> None:
    says = f"'{field}' is read by {readers}, not by {provider}: leave it out"
    with pytest.raises(ValidationError, match=says):
        ModelSpec.model_validate({"provider": provider, "model": "m", field: value})
    for reader in readers.split(", "):
        assert ModelSpec.model_validate({"provider": reader, "model": "m", field: value}).provider == reader


async def test_a_backend_that_was_never_asked_is_closed_without_fuss() -> None:
    backend = OpenAIBackend("http://127.0.0.1:1/v1", "m")
    assert await backend.close() is None
