"""Anthropic's Messages API, at Anthropic or at a server that speaks it: llama.cpp, vLLM, gateways.

It has no log-probabilities and no seed: a judge here votes by sampling.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rlaif.backends import ANTHROPIC_URL, ModelSpec
from rlaif.backends.http import Endpoint, address_and_key, resolved_headers
from rlaif.backends.openai import split_reasoning
from rlaif.errors import ProviderError
from rlaif.types import Completion, FinishReason, Messages, Request, Usage

Json = dict[str, Any]  # Any: a request's JSON

VERSION = "2023-06-01"
MAX_TOKENS = 4096  # where a request has none: the API demands one
# The API wants a user turn first, and refuses turns without text, which a refusal may be.
OPENING = "Begin."
EMPTY = "(empty)"
# Writing costs 1.25 times the price of a token, reading 0.1 times: a prefix that is read even once pays. The
# conversation's end gets no mark: votes and samples of it are asked at the same time, before any of them could read.
_CACHED = {"type": "ephemeral"}


class AnthropicBackend:
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
    ) -> None:
        host = base_url.rstrip("/").removesuffix("/v1")
        keys = {"x-api-key": api_key} if api_key else {}
        if api_key and host != ANTHROPIC_URL:
            # vLLM and some gateways read no other header; Anthropic itself takes a bearer for a login token.
            keys["Authorization"] = f"Bearer {api_key}"
        self.model = model
        self.endpoint = Endpoint(
            f"{host}/v1/messages",
            headers=headers,
            keys=keys,
            key_name=key_name,
            timeout_s=timeout_s,
            version={"anthropic-version": VERSION},
        )

    @classmethod
    def from_spec(cls, spec: ModelSpec, environment: dict[str, str]) -> AnthropicBackend:
        """Raises ConfigError when the named environment variable is missing or the URL is no URL."""
        base_url, api_key, key_name = address_and_key(spec, environment, ANTHROPIC_URL, "ANTHROPIC_API_KEY")
        return cls(
            base_url,
            spec.model,
            api_key=api_key,
            key_name=key_name,
            headers=resolved_headers(spec.headers, environment),
            timeout_s=spec.timeout_s,
        )

    async def complete(self, request: Request) -> Completion:
        raw = await self.endpoint.post(self.body(request))
        try:
            completion = parse_message(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.endpoint.unreadable(raw, error) from error
        return stopped(completion, [stop for stop in request.stop if stop and not stop.strip()])

    async def close(self) -> None:
        await self.endpoint.close()

    def body(self, request: Request) -> bytes:
        """The JSON to post. Raises ProviderError for a response format that has no counterpart here."""
        system, turns = as_turns(request.messages, request.shared)
        body: Json = {"model": self.model, "max_tokens": request.max_tokens or MAX_TOKENS, "messages": turns}
        if system is not None:
            body["system"] = system
        # Many models refuse the two together; 1 is the API's default and need not be said.
        if request.temperature is not None and (request.top_p is None or request.temperature != 1.0):
            body["temperature"] = request.temperature
        if request.top_p is not None:
            body["top_p"] = request.top_p
        stops = [stop for stop in request.stop if stop.strip()]  # others are refused: see `stopped`
        if stops:
            body["stop_sequences"] = stops
        if request.response_format is not None:
            body["output_config"] = {"format": _output_format(request.response_format)}
        if request.extra is not None:
            body |= request.extra.get("body", {})
        return msgspec.json.encode(body)


def as_turns(messages: Messages, shared: int) -> tuple[list[Json] | None, list[Json]]:
    """(system blocks or None, turns) of a conversation, the end of its `shared` first messages marked for the cache.

    Two turns of a role in a row become one, and a system turn after the beginning becomes the user's.
    """
    turns: list[Json] = []
    for count, message in enumerate(messages, 1):
        leads = not turns or turns[-1]["role"] == "system"
        role = "user" if message.role == "system" and not leads else message.role
        text = message.content if message.content.strip() else EMPTY
        if not turns or turns[-1]["role"] != role:
            turns.append({"role": role, "content": [{"type": "text", "text": text}]})
        elif "cache_control" in turns[-1]["content"][-1]:
            turns[-1]["content"].append({"type": "text", "text": f"\n\n{text}"})
        else:
            turns[-1]["content"][-1]["text"] += f"\n\n{text}"
        if count == shared:
            turns[-1]["content"][-1]["cache_control"] = _CACHED
    system = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else None
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [{"type": "text", "text": OPENING}]})
    return system, turns


def _output_format(response_format: Json) -> Json:
    """OpenAI's form of a JSON schema as Anthropic's."""
    schema = response_format.get("json_schema", {}).get("schema")
    if response_format.get("type") != "json_schema" or schema is None:
        text = "Anthropic's API takes a response_format of type json_schema with a schema, and no other"
        raise ProviderError("unsupported", text, parameter="response_format")
    return {"type": "json_schema", "schema": schema}


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""


class _StopDetails(msgspec.Struct):
    explanation: str | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None  # without those of the cache, also at llama.cpp and vLLM
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Reply(msgspec.Struct):
    content: list[_Block]
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Reply).decode
_FINISH: dict[str | None, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}


def parse_message(raw: bytes) -> Completion:
    """A message's body. Raises DecodeError or UnicodeDecodeError if it is none."""
    reply = _decode(raw)
    text, thought = split_reasoning("".join(block.text for block in reply.content if block.type == "text"))
    finish = _FINISH.get(reply.stop_reason, "stop")
    if finish == "refusal" and not text and reply.stop_details is not None:
        text = reply.stop_details.explanation or ""
    # Redacted thoughts are encrypted: there is nothing in them to keep.
    thoughts = [block.thinking for block in reply.content if block.type == "thinking" and block.thinking]
    usage = reply.usage or _Usage()
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return Completion(
        text=text,
        finish_reason=finish,
        reasoning="\n\n".join(thoughts) or thought,
        usage=Usage(
            (usage.input_tokens or 0) + written + cached,
            usage.output_tokens or 0,
            cached,
            written,
        ),
    )


def stopped(completion: Completion, stops: list[str]) -> Completion:
    """The answer up to the first of `stops`, which are white space and so were not sent."""
    ends = [end for stop in stops if (end := completion.text.find(stop)) >= 0]
    if not ends or completion.finish_reason == "refusal":
        return completion
    return msgspec.structs.replace(completion, text=completion.text[: min(ends)], finish_reason="stop")
