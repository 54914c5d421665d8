"""Any endpoint that speaks OpenAI's chat completions: OpenAI, vLLM, llama.cpp, and most others.

Posts and parses the calls itself: the official client costs 3-6 ms of CPU a call and 1.1 s to
import, aiohttp and msgspec 0.4 ms.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

from rlaif.backends import OPENAI_URL, ModelSpec
from rlaif.errors import ConfigError, ProviderError, ProviderErrorKind
from rlaif.types import Completion, FinishReason, Request, TokenLogprob, Usage


class OpenAIBackend:
    """One endpoint, one model. `api_key` and `headers` live in the session alone."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        key_name: str = "api_key_env",
        headers: dict[str, str] | None = None,
        timeout_s: float = 600.0,
        max_tokens_field: str = "max_tokens",
    ) -> None:
        self.url = f"{base_url.rstrip('/')}/chat/completions"
        self.model = model
        self._api_key = api_key
        # A header of a few letters is no secret, and replacing it would garble texts.
        self._secrets = tuple(value for value in (api_key, *(headers or {}).values()) if value and len(value) >= 8)
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._key_name = key_name
        self._timeout_s = timeout_s
        self._max_tokens_field = max_tokens_field
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_spec(cls, spec: ModelSpec, environment: dict[str, str]) -> OpenAIBackend:
        """Raises ConfigError when the named environment variable is missing or the URL is no URL."""
        base_url = spec.base_url or OPENAI_URL
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"base_url '{base_url}' must start with http:// or https://")
        key_name = spec.api_key_env or "OPENAI_API_KEY"
        api_key = environment.get(key_name, "").strip()  # a newline at its end would be no legal header
        if not api_key and (spec.api_key_env or spec.base_url is None):
            raise ConfigError(f"model '{spec.model}' needs a key: set the environment variable {key_name}")
        return cls(
            base_url,
            spec.model,
            # A key meant for OpenAI is not sent to other hosts unless the settings say so.
            api_key=api_key if spec.api_key_env or spec.base_url is None else None,
            key_name=key_name,
            headers=resolved_headers(spec.headers, environment),
            timeout_s=spec.timeout_s,
            max_tokens_field="max_completion_tokens" if base_url == OPENAI_URL else "max_tokens",
        )

    async def complete(self, request: Request) -> Completion:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # `LLM` bounds what is in flight
                headers=self._headers,
                trust_env=True,  # HTTPS_PROXY and friends
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_S),
            )
        try:
            async with self._session.post(self.url, data=self.body(request)) as reply:
                raw = await reply.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise ProviderError("connection", f"{self.url} cannot be reached: {reason(error)}") from error
        except TimeoutError as error:
            raise ProviderError("timeout", f"{self.url}: no answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:  # it was there: it may come back, or choke on this request only
            raise ProviderError("server", f"{self.url}: the connection was cut ({reason(error)})") from error
        if reply.status != 200:
            raise self._error(reply.status, raw, reply.headers.get("Retry-After"))
        return parse_completion(raw, self._secrets)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def body(self, request: Request) -> bytes:
        body: dict[str, Any] = {"model": self.model, "messages": request.messages}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.top_p is not None:
            body["top_p"] = request.top_p
        if request.max_tokens is not None:
            body[self._max_tokens_field] = request.max_tokens
        if request.stop:
            body["stop"] = request.stop
        if request.top_logprobs is not None:
            body["logprobs"] = True
            body["top_logprobs"] = request.top_logprobs
        if request.response_format is not None:
            body["response_format"] = request.response_format
        if request.temperature and request.provider_seed:
            # Endpoints that honour a seed repeat a sampled answer; each call needs its own.
            body["seed"] = int.from_bytes(request.key()[:4], "big") >> 1
        if request.extra is not None:
            body |= request.extra.get("body", {})
        return msgspec.json.encode(body)

    def _error(self, status: int, raw: bytes, retry_after: str | None) -> ProviderError:
        text, code, parameter = error_fields(without_secrets(raw, self._secrets))
        kind = error_kind(status, text, code)
        if kind == "auth":
            sent = f"the key in {self._key_name} was refused" if self._api_key else "no key was sent; set api_key_env"
            text = f"{sent}: {text}"
        return ProviderError(
            kind,
            f"{self.url} answered {status}: {text}",
            status=status,
            retry_after_s=seconds(retry_after),
            parameter=_refused(parameter, text),
        )


def resolved_headers(headers: dict[str, str], environment: dict[str, str]) -> dict[str, str]:
    """`$NAME` values read from the environment. Raises ConfigError when a variable is missing."""
    resolved = {}
    for name, value in headers.items():
        if value.startswith("$"):
            if value[1:] not in environment:
                raise ConfigError(f"header '{name}' needs the environment variable {value[1:]}: set it")
            value = environment[value[1:]].strip()
        resolved[name] = value
    return resolved


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _TopLogprob(msgspec.Struct):
    token: str
    logprob: float


class _TokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_TopLogprob] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_TokenLogprob] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


_CONNECT_S = 30.0

_decode = msgspec.json.Decoder(_Reply).decode
_FINISH: dict[str, FinishReason] = {"length": "length", "content_filter": "content_filter"}


def parse_completion(raw: bytes, secrets: Sequence[str] = ()) -> Completion:
    """A chat completion's body as our Completion. Raises ProviderError(server) if it is not one."""
    try:
        reply = _decode(raw)
        choice = reply.choices[0]
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as error:
        start = without_secrets(raw, secrets)[:120].decode("utf-8", "replace")
        raise ProviderError("server", f"the reply is not a chat completion ({error}): {start}") from error
    message = choice.message
    text, thought = split_reasoning(message.content or "")
    finish = _FINISH.get(choice.finish_reason or "stop", "stop")
    if message.refusal and not text:
        text, finish = message.refusal, "refusal"
    usage = reply.usage or _Usage()
    return Completion(
        text=text,
        finish_reason=finish,
        reasoning=message.reasoning_content or message.reasoning or thought,
        usage=Usage(
            usage.prompt_tokens or 0,
            usage.completion_tokens or 0,
            (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0,
        ),
        logprobs=_logprobs(choice.logprobs),
    )


def _logprobs(logprobs: _Logprobs | None) -> tuple[TokenLogprob, ...] | None:
    if logprobs is None or not logprobs.content:
        return None
    return tuple(
        TokenLogprob(t.token, t.logprob, tuple((top.token, top.logprob) for top in t.top_logprobs or ()))
        for t in logprobs.content
    )


def split_reasoning(text: str) -> tuple[str, str | None]:
    """(answer, thoughts) of a text that may begin with a <think> block, closed or cut off.

    Some chat templates open the block in the prompt: then only its end is in the text.
    """
    start = text.lstrip()
    if not start.startswith("<think>") and "</think>" not in start:
        return text, None
    thought, closed, answer = start.removeprefix("<think>").partition("</think>")
    return (answer.lstrip() if closed else ""), thought.strip() or None


def without_secrets(raw: bytes, secrets: Sequence[str]) -> bytes:
    """A reply that may be shown; some servers repeat the key. Before it is cut, or a part would stay."""
    for secret in secrets:
        raw = raw.replace(secret.encode(), b"[the key]")
    return raw


def reason(error: BaseException) -> str:
    """What the system says of a failed connection, without aiohttp's details."""
    system = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(system, ConnectionRefusedError) and system.errno:
        return os.strerror(system.errno)  # asyncio's own text repeats the address
    return (system.strerror if isinstance(system, OSError) else None) or str(error)


def error_fields(raw: bytes) -> tuple[str, str, str | None]:
    """(message, code or type, parameter) of an error body in any of the shapes servers use."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return raw[:300].decode("utf-8", "replace").strip() or "no text", "", None
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error)[:300], "", None
    message = error.get("message") or error.get("detail") or str(error)
    code = f"{error.get('code') or ''} {error.get('type') or ''}"
    parameter = error.get("param")
    return str(message)[:500], code, parameter if isinstance(parameter, str) else None


_STATUS_KINDS: dict[int, ProviderErrorKind] = {
    401: "auth",
    402: "auth",  # no money
    403: "auth",
    404: "not_found",
    408: "timeout",
}


def error_kind(status: int, text: str, code: str) -> ProviderErrorKind:
    said = f"{code} {text}".lower()
    if status == 403 and ("flagged" in said or "moderation" in said):
        return "content_filter"  # OpenRouter
    if status == 403 and "request logprobs" in said:
        return "unsupported"  # OpenAI's reasoning models: "You are not allowed to request logprobs from this model"
    if status in _STATUS_KINDS:
        return _STATUS_KINDS[status]
    if status == 429:
        # No money is no rate: waiting does not help.
        return "auth" if "insufficient_quota" in said else "rate_limit"
    if status >= 500:
        return "server"
    if "context_length" in said or "exceed_context" in said or "maximum context" in said or "max_model_len" in said:
        return "context_length"
    if "content_filter" in said or "content management policy" in said:
        return "content_filter"
    if "unsupported" in said or "not supported" in said or "does not support" in said or "unrecognized" in said:
        return "unsupported"
    return "bad_request"


PARAMETERS = (
    "max_completion_tokens",
    "response_format",
    "top_logprobs",
    "temperature",
    "max_tokens",
    "logprobs",
    "top_p",
    "seed",
    "stop",
)


def named_parameter(text: str) -> str | None:
    """The request parameter an error text speaks of, if any; "system" for the role of that name."""
    said = text.lower()
    if re.search(r"system (role|prompt|message|instruction)|'system'", said):
        return "system"
    return next((name for name in PARAMETERS if re.search(rf"\b{name}\b", said)), None)


def _refused(parameter: str | None, text: str) -> str | None:
    """The parameter as we call it: OpenAI names "messages[0].role" where it means the system role."""
    if parameter is None or parameter.startswith("messages"):
        return named_parameter(text) or parameter
    return parameter


def seconds(header: str | None) -> float | None:
    """A Retry-After header's seconds; its date form is rare and read as absent."""
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None
