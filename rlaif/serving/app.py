"""OpenAI's chat completions in front of a backend: as much of them as `rlaif` and the usual clients ask for."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from rlaif.backends import Backend
from rlaif.errors import ProviderError, ProviderErrorKind
from rlaif.types import Completion, Message, Request, Role, TokenLogprob

if TYPE_CHECKING:
    from aiohttp import web

LARGEST_BYTES = 16 * 2**20
STATUS: dict[ProviderErrorKind, int] = {
    "auth": 401, "not_found": 404, "rate_limit": 429, "timeout": 504, "server": 500, "connection": 502,
}  # fmt: skip
# By what a client tells them; all others are 400.
CODES: dict[ProviderErrorKind, str] = {
    "auth": "invalid_api_key",
    "not_found": "model_not_found",
    "context_length": "context_length_exceeded",
    "unsupported": "unsupported_parameter",
}
# Say nothing of the answer.
IGNORED = {"user", "metadata", "store", "stream_options", "safety_identifier", "service_tier", "parallel_tool_calls"}


class _Part(msgspec.Struct, tag="text"):
    text: str


class _Message(msgspec.Struct):
    role: Role
    content: str | list[_Part]

    def message(self) -> Message:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(self.role, text)


class _Asked(msgspec.Struct):
    messages: list[_Message]
    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None  # Any: JSON, for the backend to take or refuse
    seed: int | None = None
    n: int | None = None
    stream: bool | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


@asynccontextmanager
async def serve(backend: Backend, name: str, host: str, port: int, api_key: str | None = None) -> AsyncIterator[int]:
    """Answers at the address as long as the block lasts; gives the port. Raises OSError for one that is taken."""
    from aiohttp import web

    # An asker who has gone waits for nothing: the backend drops what was cancelled.
    application = _application(backend, name, api_key)
    runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _application(backend: Backend, name: str, api_key: str | None) -> web.Application:
    from aiohttp import web

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def models(_: web.Request) -> web.Response:
        return _json({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "rlaif"}]})

    async def chat(request: web.Request) -> web.Response:
        asked = request_of(await request.read(), name)
        return _json(reply(await backend.complete(asked), name))

    @web.middleware
    async def guarded(request: web.Request, handler: Callable[[web.Request], Awaitable[Any]]) -> Any:
        try:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
            if api_key and request.path != "/health" and not hmac.compare_digest(given, api_key.encode()):
                raise ProviderError("auth", "the API key is missing or wrong")
            return await handler(request)
        except ProviderError as error:
            return _json(refusal(error), STATUS.get(error.kind, 400))

    application = web.Application(middlewares=[guarded], client_max_size=LARGEST_BYTES)
    application.add_routes(
        [web.get("/health", health), web.get("/v1/models", models), web.post("/v1/chat/completions", chat)]
    )
    return application


def request_of(body: bytes, name: str) -> Request:
    """Raises ProviderError for what is no such request, or what no backend here can do."""
    try:
        asked = msgspec.json.decode(body, type=_Asked)
        given: dict[str, Any] = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProviderError("bad_request", f"this is no chat completion request: {error}") from None
    if asked.model not in (None, name):
        raise ProviderError("not_found", f"no model '{asked.model}' here; there is '{name}'")
    if not asked.messages:
        raise ProviderError("bad_request", "messages is empty")
    impossible: dict[str, object] = {
        "stream": asked.stream,
        "n": asked.n not in (None, 1),
        "frequency_penalty": asked.frequency_penalty,
        "presence_penalty": asked.presence_penalty,
    }
    if wanted := next((field for field, given_ in impossible.items() if given_), None):
        raise ProviderError("unsupported", f"{wanted} is not supported here", parameter=wanted)
    more = {key: value for key, value in given.items() if key not in {*_Asked.__struct_fields__, *IGNORED}}
    return Request(
        model=name,
        messages=tuple(one.message() for one in asked.messages),
        temperature=asked.temperature,
        top_p=asked.top_p,
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        top_logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        response_format=asked.response_format,
        extra={"body": more} if more else None,
        # Chance comes from the request here, so that one without a seed needs something of its own.
        seed=secrets.randbits(31) if asked.seed is None else asked.seed,
    )


def reply(completion: Completion, name: str) -> dict[str, Any]:
    usage, thoughts = completion.usage, completion.reasoning
    finish = "content_filter" if completion.finish_reason == "refusal" else completion.finish_reason
    message = {"role": "assistant", "content": completion.text}
    tokens = None if completion.logprobs is None else {"content": [_token(one) for one in completion.logprobs]}
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [
            {
                "index": 0,
                "message": message | ({"reasoning_content": thoughts} if thoughts else {}),
                "finish_reason": finish,
                "logprobs": tokens,
            }
        ],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
    }


def refusal(error: ProviderError) -> dict[str, Any]:
    kind = "server_error" if error.kind in ("server", "connection", "timeout") else "invalid_request_error"
    code = CODES.get(error.kind)
    return {"error": {"message": str(error), "type": kind, "param": error.parameter, "code": code}}


def _token(token: TokenLogprob) -> dict[str, Any]:
    top = [{"token": text, "logprob": logprob, "bytes": None} for text, logprob in token.top]
    return {"token": token.token, "logprob": token.logprob, "bytes": None, "top_logprobs": top}


def _json(content: dict[str, Any], status: int = 200) -> web.Response:
    from aiohttp import web

    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")
