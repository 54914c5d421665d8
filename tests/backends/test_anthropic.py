"""What goes over the wire to Anthropic's Messages API, what is made of its answers and errors, and a real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import rlaif
from rlaif.backends import ANTHROPIC_URL, ModelSpec, identity_of, open_backend
from rlaif.backends.anthropic import AnthropicBackend
from rlaif.context import Context
from rlaif.errors import ConfigError, ProviderError, ProviderErrorKind
from rlaif.journal import Journal, Traits
from rlaif.judges.pairwise import Pairwise
from rlaif.llm import LLM, Tally
from rlaif.preflight import preflight
from rlaif.store import RunFolder
from rlaif.types import Completion, Message, Messages, Request, Role, Usage, Verdict
from tests.lab import KIND, bundled, constitution, one_lane, record
from tests.llama import Llama, needs_model
from tests.server import Body, Reply, Server

KEY = "sk-ant-test-1234567890abcdef"
ASKED = (Message("system", "Be kind."), Message("user", "Hi"))
PLAIN = Request("m", ASKED)
CACHED = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": False}


def spec(**fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"provider": "anthropic", "model": "claude-test", **fields})


def message(*blocks: Body | str, stop_reason: str | None = "end_turn", **fields: Any) -> Body:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [{"type": "text", "text": block} if isinstance(block, str) else block for block in blocks],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 3},
        **fields,
    }


@asynccontextmanager
async def backend_on(
    answer: Callable[[Body], Reply], environment: dict[str, str] | None = None, **fields: Any
) -> AsyncIterator[tuple[AnthropicBackend, Server]]:
    async with Server(answer) as server:
        backend = AnthropicBackend.from_spec(spec(base_url=server.url, **fields), environment or {})
        try:
            yield backend, server
        finally:
            await backend.close()


async def sent(request: Request, **fields: Any) -> Body:
    async with backend_on(lambda _: message("Hello."), **fields) as (backend, server):
        await backend.complete(request)
    return server.requests[0]


async def answer_to(reply: Body, request: Request = PLAIN) -> Completion:
    async with backend_on(lambda _: reply) as (backend, _):
        return await backend.complete(request)


async def error_of(reply: Reply, environment: dict[str, str] | None = None, **fields: Any) -> ProviderError:
    async with backend_on(lambda _: reply, environment, **fields) as (backend, _):
        with pytest.raises(ProviderError) as caught:
            await backend.complete(PLAIN)
    return caught.value


def block(text: str, marked: bool = False) -> Body:
    return {"type": "text", "text": text} | ({"cache_control": CACHED} if marked else {})


def turn(role: str, *blocks: str | Body) -> Body:
    return {"role": role, "content": [block(b) if isinstance(b, str) else b for b in blocks]}


def chat(*turns: tuple[Role, str]) -> Messages:
    return tuple(Message(role, text) for role, text in turns)


# What is sent


async def test_a_plain_request_sends_the_model_the_conversation_and_the_limit_that_the_api_demands() -> None:
    assert await sent(PLAIN) == {
        "model": "claude-test",
        "max_tokens": 4096,
        "system": [block("Be kind.")],
        "messages": [turn("user", "Hi")],
    }


async def test_every_parameter_is_sent_under_its_name() -> None:
    body = await sent(
        Request(
            "m",
            ASKED,
            temperature=0.0,
            max_tokens=64,
            stop=("\n", "END", ""),
            top_logprobs=5,
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        )
    )
    del body["model"], body["messages"], body["system"]
    assert body == {
        "temperature": 0.0,
        "max_tokens": 64,
        "stop_sequences": ["END"],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }


@pytest.mark.parametrize(
    ("temperature", "top_p", "together"),
    [(1.0, 0.9, {"top_p": 0.9}), (None, 0.9, {"top_p": 0.9}), (1.0, None, {"temperature": 1.0}),
     (0.5, 0.9, {"temperature": 0.5, "top_p": 0.9})],
)  # fmt: skip
async def test_a_temperature_that_is_the_default_is_not_said_beside_top_p(
    temperature: float | None, top_p: float | None, together: Body
) -> None:
    body = await sent(Request("m", ASKED, temperature=temperature, top_p=top_p))
    assert {name: body[name] for name in ("temperature", "top_p") if name in body} == together


async def test_the_providers_own_fields_are_merged_into_the_body_and_win() -> None:
    extra = {"body": {"thinking": {"type": "adaptive"}, "max_tokens": 9}, "headers": {"X-Team": "blue"}}
    body = await sent(Request("m", ASKED, max_tokens=64, extra=extra))
    assert (body["thinking"], body["max_tokens"]) == ({"type": "adaptive"}, 9)
    assert "headers" not in body


@pytest.mark.parametrize("form", [{"type": "json_object"}, {"type": "json_schema"}, {}])
async def test_a_response_format_that_the_api_lacks_is_refused_here(form: Body) -> None:
    async with backend_on(lambda _: message("Hello.")) as (backend, server):
        with pytest.raises(ProviderError, match="takes a response_format of type json_schema") as caught:
            await backend.complete(Request("m", ASKED, response_format=form))
    assert (caught.value.kind, caught.value.parameter, server.requests) == ("unsupported", "response_format", [])


@pytest.mark.parametrize(
    ("messages", "system", "turns"),
    [
        (chat(("user", "a")), None, [turn("user", "a")]),
        (chat(("system", "s"), ("system", "t"), ("user", "a")), [block("s\n\nt")], [turn("user", "a")]),
        (
            chat(("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("user", "e")),
            None,
            [turn("user", "a\n\nb"), turn("assistant", "c\n\nd"), turn("user", "e")],
        ),
        (
            chat(("user", "a"), ("assistant", "b"), ("system", "s"), ("user", "c")),
            None,
            [turn("user", "a"), turn("assistant", "b"), turn("user", "s\n\nc")],
        ),
        (chat(("user", "a"), ("system", "s")), None, [turn("user", "a\n\ns")]),
        (
            chat(("assistant", "a"), ("user", "b")),
            None,
            [turn("user", "Begin."), turn("assistant", "a"), turn("user", "b")],
        ),
        (chat(("system", "s")), [block("s")], [turn("user", "Begin.")]),
        (
            chat(("user", "a"), ("assistant", " \n"), ("user", "b")),
            None,
            [turn("user", "a"), turn("assistant", "(empty)"), turn("user", "b")],
        ),
    ],
)
async def test_a_conversation_has_one_system_prompt_and_begins_with_the_user_who_alternates(
    messages: Messages, system: list[Body] | None, turns: list[Body]
) -> None:
    body = await sent(Request("m", messages))
    assert (body.get("system"), body["messages"]) == (system, turns)


EXAMPLES = chat(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"))


@pytest.mark.parametrize(
    ("messages", "shared", "system", "turns"),
    [
        (EXAMPLES, 0, [block("s")], [turn("user", "a"), turn("assistant", "b"), turn("user", "c")]),
        (EXAMPLES, 1, [block("s", True)], [turn("user", "a"), turn("assistant", "b"), turn("user", "c")]),
        (EXAMPLES, 3, [block("s")], [turn("user", "a"), turn("assistant", block("b", True)), turn("user", "c")]),
        (EXAMPLES[1:], 2, None, [turn("user", "a"), turn("assistant", block("b", True)), turn("user", "c")]),
        (chat(("user", "a"), ("user", "b")), 1, None, [turn("user", block("a", True), "\n\nb")]),
        (chat(("user", "a"), ("user", "b"), ("user", "c")), 1, None, [turn("user", block("a", True), "\n\nb\n\nc")]),
        (chat(("user", "a"), ("user", "b")), 2, None, [turn("user", block("a\n\nb", True))]),
    ],
)
async def test_the_end_of_what_requests_share_is_marked_for_the_cache(
    messages: Messages, shared: int, system: list[Body] | None, turns: list[Body]
) -> None:
    body = await sent(Request("m", messages, shared=shared))
    assert (body.get("system"), body["messages"]) == (system, turns)


# Addresses and keys


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
async def test_an_address_may_name_the_version_or_not(end: str) -> None:
    async with Server(lambda _: message("Hello.")) as server:
        backend = AnthropicBackend(f"http://127.0.0.1:{server.port}{end}", "m")
        assert (await backend.complete(PLAIN)).text == "Hello."
        await backend.close()


@pytest.mark.parametrize("base_url", [None, f"{ANTHROPIC_URL}/v1"])
def test_anthropic_itself_gets_its_own_header_alone(base_url: str | None) -> None:
    named = {"base_url": base_url, "api_key_env": "ANTHROPIC_API_KEY"} if base_url else {}
    backend = AnthropicBackend.from_spec(spec(**named), {"ANTHROPIC_API_KEY": KEY})
    assert backend.endpoint.url == "https://api.anthropic.com/v1/messages"
    assert backend.endpoint._headers["x-api-key"] == KEY
    assert "Authorization" not in backend.endpoint._headers


async def test_another_server_gets_the_key_that_the_settings_name_in_both_headers() -> None:
    async with backend_on(lambda _: message("Hi."), {"MY_KEY": f"{KEY}\n"}, api_key_env="MY_KEY") as (backend, server):
        await backend.complete(PLAIN)
    headers = server.headers[0]
    assert (headers["x-api-key"], headers["Authorization"]) == (KEY, f"Bearer {KEY}")
    assert headers["anthropic-version"] == "2023-06-01"


async def test_a_key_for_anthropic_is_not_sent_to_another_host() -> None:
    async with backend_on(lambda _: message("Hi."), {"ANTHROPIC_API_KEY": KEY}) as (backend, server):
        await backend.complete(PLAIN)
    assert KEY not in str(server.headers[0])
    assert "x-api-key" not in server.headers[0]


async def test_a_header_of_the_settings_is_sent_and_may_name_another_version() -> None:
    headers = {"anthropic-version": "2030-01-01", "x-team": "$TEAM"}
    async with backend_on(lambda _: message("Hi."), {"TEAM": "blue"}, headers=headers) as (backend, server):
        await backend.complete(PLAIN)
    assert (server.headers[0]["anthropic-version"], server.headers[0]["x-team"]) == ("2030-01-01", "blue")


def test_anthropic_without_its_key_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="set the environment variable ANTHROPIC_API_KEY"):
        AnthropicBackend.from_spec(spec(), {})


def test_the_short_form_opens_anthropic(tmp_path: Path) -> None:
    short = ModelSpec.model_validate("anthropic/claude-test")
    backend = open_backend(short, {"ANTHROPIC_API_KEY": KEY}, tmp_path)
    assert isinstance(backend, AnthropicBackend)
    assert identity_of(short) == "anthropic:https://api.anthropic.com#claude-test"


def test_the_two_apis_of_one_server_are_two_models() -> None:
    both = [spec(base_url="http://h/v1", provider=provider) for provider in ("anthropic", "openai")]
    assert [identity_of(one) for one in both] == ["anthropic:http://h/v1#claude-test", "http://h/v1#claude-test"]


async def test_a_redirect_does_not_take_the_key_along() -> None:
    async with Server() as other:
        reply: Reply = (307, "", {"Location": f"{other.url}/messages"})
        error = await error_of(reply, {"MY_KEY": KEY}, api_key_env="MY_KEY")
    assert (other.requests, error.kind) == ([], "not_found")
    assert f"points to {other.url.removesuffix('/v1')}: give" in str(error)


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_a_key_that_the_server_repeats_is_not_in_the_error(status: int) -> None:
    error = await error_of((status, {"error": {"message": f"bad: {KEY}"}}, {}), {"MY_KEY": KEY}, api_key_env="MY_KEY")
    assert KEY not in f"{error} {error!r}"
    assert "[the key]" in str(error)


# What is made of an answer


async def test_an_answer_carries_its_text_and_the_tokens_counted() -> None:
    assert await answer_to(message("Hel", "lo.")) == Completion("Hello.", usage=Usage(7, 3))


def thinking(text: str) -> Body:
    return {"type": "thinking", "thinking": text, "signature": "c2ln"}


@pytest.mark.parametrize(
    ("reply", "text", "reasoning"),
    [
        (message(thinking("Hm."), "Yes."), "Yes.", "Hm."),
        (message(thinking("Hm."), thinking("Well."), "Yes."), "Yes.", "Hm.\n\nWell."),
        (message(thinking(""), "Yes."), "Yes.", None),  # newer models leave it out
        (message({"type": "redacted_thinking", "data": "ZW5j"}, "Yes."), "Yes.", None),
        (message(thinking("Hm."), stop_reason="max_tokens"), "", "Hm."),
        (message("<think>\nHm.\n</think>\n\nYes."), "Yes.", "Hm."),
        (message("Yes.", {"type": "tool_use", "id": "t", "name": "n", "input": {}}), "Yes.", None),
        (message({"type": "text", "text": "Yes.", "citations": None}), "Yes.", None),
        (message(), "", None),
    ],
)
async def test_what_a_model_thought_is_kept_apart_from_its_answer(
    reply: Body, text: str, reasoning: str | None
) -> None:
    answer = await answer_to(reply)
    assert (answer.text, answer.reasoning) == (text, reasoning)


@pytest.mark.parametrize(
    ("stop_reason", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refusal"),
        ("pause_turn", "stop"),
        ("tool_use", "stop"),
        (None, "stop"),
    ],
)
async def test_stop_reasons_are_ours(stop_reason: str | None, ours: str) -> None:
    assert (await answer_to(message("A", stop_reason=stop_reason))).finish_reason == ours


@pytest.mark.parametrize(
    ("blocks", "details", "text"),
    [
        ((), {"type": "refusal", "category": "bio", "explanation": "That may harm."}, "That may harm."),
        ((), {"type": "refusal", "category": None, "explanation": None}, ""),
        ((), None, ""),
        (("I won't.",), {"type": "refusal", "explanation": "That may harm."}, "I won't."),
    ],
)
async def test_a_refusal_says_what_the_model_or_else_the_provider_said(
    blocks: tuple[str, ...], details: Body | None, text: str
) -> None:
    answer = await answer_to(message(*blocks, stop_reason="refusal", stop_details=details))
    assert (answer.text, answer.finish_reason) == (text, "refusal")


@pytest.mark.parametrize(
    ("stop", "reply", "text", "finish"),
    [
        (("\n\n",), message("One.\n\nTwo.\n\nThree."), "One.", "stop"),
        (("\n\n",), message("One.\n\nTwo", stop_reason="max_tokens"), "One.", "stop"),
        (("\n\n", "\n"), message("One.\nTwo.\n\nThree."), "One.", "stop"),
        (("\n\n",), message("One.\nTwo", stop_reason="max_tokens"), "One.\nTwo", "length"),
        (("\n\n",), message("<think>Hm.\n\nHm.</think>\n\nOne.\n\nTwo."), "One.", "stop"),
        (("\n\n",), message("No.\n\nNever.", stop_reason="refusal"), "No.\n\nNever.", "refusal"),
        (("END", ""), message("One. END"), "One. END", "stop"),  # sent, and so the server's to obey
    ],
)
async def test_a_stop_of_white_space_is_applied_to_the_answer(
    stop: tuple[str, ...], reply: Body, text: str, finish: str
) -> None:
    answer = await answer_to(reply, Request("m", ASKED, stop=stop))
    assert (answer.text, answer.finish_reason) == (text, finish)


@pytest.mark.parametrize(
    ("usage", "ours"),
    [
        (None, Usage()),
        ({"input_tokens": 4, "output_tokens": 1}, Usage(4, 1)),
        ({"input_tokens": 4, "output_tokens": 1, "cache_read_input_tokens": None}, Usage(4, 1)),
        (
            {"input_tokens": 4, "output_tokens": 1, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 300},
            Usage(324, 1, 300, 20),
        ),
    ],
)
async def test_the_tokens_of_the_cache_are_tokens_of_the_prompt(usage: Body | None, ours: Usage) -> None:
    assert (await answer_to(message("A", usage=usage))).usage == ours


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"{}",
        b'{"content": "Hi"}',
        b'{"content": [{}]}',
        b'{"content": [{"type": "text", "text": "\xff"}]}',
        b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}',
    ],
)
async def test_a_reply_that_is_no_message_is_the_servers_fault(raw: bytes) -> None:
    error = await error_of((200, raw, {}))
    assert "the reply is not what this API promises" in str(error)
    assert (error.kind, error.transient) == ("server", True)


# What is made of an error


def failed(kind: str, text: str, error_code: str | None = None) -> Body:
    details = {"error_code": error_code} if error_code else None
    return {"type": "error", "error": {"type": kind, "message": text, "details": details}, "request_id": "req_1"}


INVALID = "invalid_request_error"
ERRORS: list[tuple[int, Body, ProviderErrorKind, str | None]] = [
    (529, failed("overloaded_error", "Overloaded"), "server", None),
    (500, failed("api_error", "Internal server error"), "server", None),
    (504, failed("timeout_error", "Request timed out"), "server", None),
    (401, failed("authentication_error", "invalid x-api-key"), "auth", None),
    (403, failed("permission_error", "Your API key may not use this resource"), "auth", None),
    (402, failed("billing_error", "Payment is required"), "auth", None),
    (400, failed(INVALID, "Your credit balance is too low to access the Anthropic API."), "auth", None),
    (400, failed(INVALID, "You have reached your specified API usage limits."), "auth", None),
    (400, failed(INVALID, "This organization has been disabled."), "auth", None),
    (400, failed(INVALID, "On hold", "organization_on_hold"), "auth", None),
    (429, failed("rate_limit_error", "Monthly threshold", "enforced_spend_limit_reached"), "auth", None),
    (429, failed("rate_limit_error", "Too fast a rise", "ramp_limit_exceeded"), "rate_limit", None),
    (404, failed("not_found_error", "model: claude-test"), "not_found", None),
    (400, failed(INVALID, "prompt is too long: 210000 tokens > 200000 maximum"), "context_length", None),
    (
        400,
        failed(INVALID, "input length and `max_tokens` exceed context limit: 199999 + 4096 > 200000"),
        "context_length",
        "max_tokens",
    ),
    (413, failed("request_too_large", "Request exceeds the maximum size"), "context_length", None),
    (400, failed(INVALID, "Output blocked by content filtering policy"), "content_filter", None),
    (400, failed(INVALID, "`temperature` is deprecated for this model."), "bad_request", "temperature"),
    (400, failed(INVALID, "`top_p` is deprecated for this model."), "bad_request", "top_p"),
    (
        400,
        failed(INVALID, "`temperature` and `top_p` cannot both be specified for this model. Please use only one."),
        "bad_request",
        "top_p",
    ),
    (
        400,
        failed(INVALID, "This model does not support assistant message prefill."),
        "unsupported",
        None,
    ),
    (400, failed(INVALID, "messages.1: all messages must have non-empty content"), "bad_request", None),
]


@pytest.mark.parametrize(("status", "content", "kind", "parameter"), ERRORS)
async def test_errors_are_told_apart(
    status: int, content: Body, kind: ProviderErrorKind, parameter: str | None
) -> None:
    error = await error_of((status, content, {}))
    assert (error.kind, error.parameter, error.status) == (kind, parameter, status)
    assert content["error"]["message"] in str(error)


async def test_a_rate_limit_carries_the_wait_that_was_asked_for() -> None:
    error = await error_of((429, failed("rate_limit_error", "Slow down"), {"retry-after": "7"}))
    assert (error.kind, error.retry_after_s, error.transient) == ("rate_limit", 7.0, True)


async def test_a_refused_key_is_named_by_its_variable() -> None:
    reply: Reply = (401, failed("authentication_error", "invalid x-api-key"), {})
    error = await error_of(reply, {"MY_KEY": KEY}, api_key_env="MY_KEY")
    assert "the key in MY_KEY was refused: invalid x-api-key" in str(error)
    assert error.fatal


# Behind the door


@asynccontextmanager
async def llm_on(server: Server, folder: Path, **fields: Any) -> AsyncIterator[LLM]:
    async with Journal(folder / "journal.sqlite") as journal:
        llm = LLM("judge", "here#judge", journal, one_lane(lambda: AnthropicBackend(server.url, "judge")), **fields)
        try:
            yield llm
        finally:
            await llm.close()


def newest(body: Body) -> Reply:
    """Takes neither temperature nor top_p, and thinks before it answers."""
    for parameter in ("temperature", "top_p"):
        if parameter in body:
            return 400, failed(INVALID, f"`{parameter}` is deprecated for this model."), {}
    if body["max_tokens"] < 100:
        return message(thinking(""), stop_reason="max_tokens")
    return message(thinking(""), "A")


def one_of_two(body: Body) -> Reply:
    if "temperature" in body and "top_p" in body:
        return 400, failed(INVALID, "`temperature` and `top_p` cannot both be specified for this model."), {}
    return message("A")


@pytest.mark.parametrize(
    ("model", "extra", "traits"),
    [
        (lambda _: message("A"), None, Traits()),
        (one_of_two, None, Traits(rejected=("top_p",))),
        (one_of_two, {"body": {"top_p": 0.5}}, Traits(rejected=("top_p", "temperature"))),
        (newest, None, Traits(rejected=("temperature", "top_p"), thinks=True)),
    ],
    ids=["able", "one of two", "one of two, and the settings choose", "newest"],
)
async def test_the_first_call_learns_what_a_model_takes(
    model: Callable[[Body], Reply], extra: dict[str, object] | None, traits: Traits, tmp_path: Path
) -> None:
    async with Server(model) as server, llm_on(server, tmp_path, extra=extra) as llm:
        assert await preflight(llm, Tally()) == traits
    assert llm.notices[0] == "judge gives no log-probabilities: as a judge it votes by sampling"


async def verdict_of(answer: Callable[[Body], Reply], folder: Path) -> tuple[Verdict, Server]:
    async with Server(answer) as server, llm_on(server, folder, traits=Traits()) as llm:
        context = Context({"judge": llm}, constitution(), bundled(), 0, "judge")
        return await Pairwise().compare(record("the good one", "the bad one"), 0, 1, KIND, context), server


async def test_a_judge_votes_by_sampling_in_both_orders(tmp_path: Path) -> None:
    def prefers_the_good_one(body: Body) -> Reply:
        asked = body["messages"][-1]["content"][-1]["text"]
        return message("A" if asked.index("the good one") < asked.index("the bad one") else "B")

    verdict, server = await verdict_of(prefers_the_good_one, tmp_path)
    assert (verdict.method, verdict.outcome, verdict.votes) == ("votes", "ok", (True,) * 4)
    assert verdict.consistent
    assert [body["temperature"] for body in server.requests] == [1.0] * 4


async def test_a_judge_that_refuses_gives_no_vote(tmp_path: Path) -> None:
    verdict, _ = await verdict_of(lambda _: message(stop_reason="refusal"), tmp_path)
    assert (verdict.method, verdict.outcome, verdict.p_first, verdict.votes) == ("votes", "refusal", None, ())


async def test_an_overloaded_server_is_asked_again(tmp_path: Path) -> None:
    replies: list[Reply] = [(529, failed("overloaded_error", "Overloaded"), {"retry-after": "0"})]
    tally = Tally()
    async with (
        Server(lambda _: replies.pop() if replies else message("Hi.")) as server,
        llm_on(server, tmp_path) as llm,
    ):
        assert (await llm.complete(PLAIN, tally)).text == "Hi."
    assert (tally.sent, tally.retried) == (2, 1)


# A real server: llama.cpp's /v1/messages with the bundled model


def on_llama(llama: Llama, environment: dict[str, str] | None = None) -> AnthropicBackend:
    named = spec(base_url=llama.url, api_key_env="LLAMA_KEY")
    return AnthropicBackend.from_spec(named, environment or llama.environment)


async def told(llama: Llama, *messages: tuple[Role, str], max_tokens: int = 8, **fields: Any) -> Completion:
    backend = on_llama(llama)
    try:
        asked = Request("m", chat(*messages), temperature=0.0, max_tokens=max_tokens, **fields)
        return await backend.complete(asked)
    finally:
        await backend.close()


@needs_model
@pytest.mark.model
async def test_a_real_server_answers_and_reads_the_system_prompt(llama: Llama) -> None:
    plain = await told(llama, ("user", "Name a colour."))
    with_system = await told(llama, ("system", "Talk like a pirate. " * 20), ("user", "Name a colour."))
    assert plain.text
    assert plain.usage.completion_tokens > 1
    assert with_system.usage.prompt_tokens > plain.usage.prompt_tokens + 60


@needs_model
@pytest.mark.model
async def test_a_real_server_is_cut_off_at_the_limit_and_stops_at_a_sequence(llama: Llama) -> None:
    count: tuple[Role, str] = ("user", "Count from 1 to 9 with commas.")
    cut = await told(llama, count, max_tokens=1)
    assert (cut.finish_reason, cut.usage.completion_tokens) == ("length", 1)
    stopped = await told(llama, count, max_tokens=64, stop=tuple("aeiou,"))
    assert stopped.finish_reason == "stop"
    assert not set("aeiou,") & set(stopped.text)
    assert stopped.usage.completion_tokens < 64


@needs_model
@pytest.mark.model
async def test_a_real_servers_cached_tokens_are_part_of_the_prompt(llama: Llama) -> None:
    examples = "The quick brown fox jumps over the lazy dog. " * 12
    first = await told(llama, ("system", examples), ("user", "Who jumps?"), shared=1)
    second = await told(llama, ("system", examples), ("user", "Who lies?"), shared=1)
    assert second.usage.cached_tokens > 100
    assert abs(second.usage.prompt_tokens - first.usage.prompt_tokens) < 5


@needs_model
@pytest.mark.model
async def test_a_real_servers_refusals_are_told_apart(llama: Llama) -> None:
    with pytest.raises(ProviderError) as too_long:
        await told(llama, ("user", "word " * 3000))
    assert too_long.value.kind == "context_length"
    stranger = on_llama(llama, {"LLAMA_KEY": "sk-wrong-key"})
    with pytest.raises(ProviderError, match="the key in LLAMA_KEY was refused") as wrong:
        await stranger.complete(PLAIN)
    await stranger.close()
    assert wrong.value.kind == "auth"


@needs_model
@pytest.mark.model
@pytest.mark.timeout(600)  # half a minute on idle cores
def test_a_whole_run_goes_through_the_messages_api(llama: Llama, tmp_path: Path) -> None:
    model = json.dumps({"provider": "anthropic", "model": "smol", "base_url": llama.url, "api_key_env": "LLAMA_KEY"})
    short = {
        "sample.max_tokens": 24,
        "sample.stop": '["\\n\\n"]',
        "revise.rounds": 1,
        "revise.few_shot": "false",
        "revise.max_tokens": 24,
        "revise.critique_max_tokens": 24,
        "filter.rules": "[]",
        "judge.comparisons": "[revisions]",
        "export.pairs": "[revision_vs_original]",
    }
    changes = {"models.policy": model, "models.judge": model, **short}
    settings = [f"{path}={value}" for path, value in changes.items()]
    result = rlaif.generate("cai", limit=2, runs_dir=tmp_path, run="r", environment=llama.environment, set=settings)
    assert result.summary["outcomes"] == {"ok": 2}
    records = list(RunFolder(tmp_path, "r").records())
    assert [len(made.responses) for made in records] == [3, 3]
    assert not any("\n\n" in draft.text for made in records for draft in made.responses[:2])
    verdicts = [verdict for made in records for verdict in made.verdicts]
    assert verdicts
    assert {verdict.method for verdict in verdicts} == {"votes"}
    assert any(verdict.replies for verdict in verdicts)
    assert result.summary["tokens"]["cached"] > 0
