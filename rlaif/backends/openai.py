"""Any endpoint that speaks OpenAI's chat completions: OpenAI, vLLM, llama.cpp, and most others.

Posts and parses the calls itself: the official client costs 3-6 ms of CPU a call and 1.1 s to
import, pyreqwest and msgspec 0.1 ms.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rlaif.backends import OPENAI_URL, ModelSpec
from rlaif.backends.http import Endpoint, address_and_key, resolved_headers
from rlaif.errors import ProviderError
from rlaif.types import Completion, FinishReason, Request, TokenLogprob, Usage


class OpenAIBackend:
    """One endpoint, one model. `api_key` and `headers` live in the client alone."""

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
        self.model = model
        self._max_tokens_field = max_tokens_field
        self.endpoint = Endpoint(
            f"{base_url.rstrip('/')}/chat/completions",
            headers=headers,
            keys={"Authorization": f"Bearer {api_key}"} if api_key else {},
            key_name=key_name,
            timeout_s=timeout_s,
        )

    @classmethod
    def from_spec(cls, spec: ModelSpec, environment: dict[str, str]) -> OpenAIBackend:
        """Raises ConfigError when the named environment variable is missing or the URL is no URL."""
        base_url, api_key, key_name = address_and_key(spec, environment, OPENAI_URL, "OPENAI_API_KEY")
        return cls(
            base_url,
            spec.model,
            api_key=api_key,
            key_name=key_name,
            headers=resolved_headers(spec.headers, environment),
            timeout_s=spec.timeout_s,
            max_tokens_field="max_completion_tokens" if base_url == OPENAI_URL else "max_tokens",
        )

    async def complete(self, request: Request) -> Completion:
        field = self._max_tokens_field  # another call may change it meanwhile
        try:
            raw = await self.endpoint.post(self.body(request))
        except ProviderError as error:
            if error.parameter != "max_tokens" or field != "max_tokens":
                raise
            self._max_tokens_field = "max_completion_tokens"  # OpenAI's newer name, behind some gateway
            raw = await self.endpoint.post(self.body(request))
        try:
            return parse_completion(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError) as error:
            raise self.endpoint.unreadable(raw, error) from error

    async def close(self) -> None:
        await self.endpoint.close()

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
    cache_write_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


_NO_DETAILS = _PromptDetails()
_decode = msgspec.json.Decoder(_Reply).decode
_FINISH: dict[str, FinishReason] = {"length": "length", "content_filter": "content_filter"}


def parse_completion(raw: bytes) -> Completion:
    """A chat completion's body. Raises DecodeError, UnicodeDecodeError or IndexError if it is none."""
    reply = _decode(raw)
    choice = reply.choices[0]
    message = choice.message
    text, thought = split_reasoning(message.content or "")
    finish = _FINISH.get(choice.finish_reason or "stop", "stop")
    if message.refusal and not text:
        text, finish = message.refusal, "refusal"
    usage = reply.usage or _Usage()
    details = usage.prompt_tokens_details or _NO_DETAILS
    reasoning = message.reasoning_content or message.reasoning or thought
    return Completion(
        text=text,
        finish_reason=finish,
        reasoning=reasoning,
        usage=Usage(
            usage.prompt_tokens or 0,
            usage.completion_tokens or 0,
            details.cached_tokens or 0,
            details.cache_write_tokens or 0,
        ),
        logprobs=logprobs_of_answer(_logprobs(choice.logprobs), text, reasoning),
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


def logprobs_of_answer(
    logprobs: tuple[TokenLogprob, ...] | None, text: str, reasoning: str | None
) -> tuple[TokenLogprob, ...] | None:
    """Those of the answer's tokens, where servers give them for the thoughts before it too; None if they have none."""
    if not logprobs or not reasoning:
        return logprobs
    wanted, answer = text.translate(_RAW).strip(), ""
    for i in range(len(logprobs) - 1, -1, -1):
        if "</think>" in logprobs[i].token:
            return logprobs[i + 1 :] or None
        answer = logprobs[i].token.translate(_RAW) + answer
        if wanted and answer.lstrip().startswith(wanted):
            return logprobs[i:]
    return None


# Some servers give tokens as the vocabulary writes them.
_RAW = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
