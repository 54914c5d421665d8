"""The child process: one vLLM engine that lives as long as the parent holds the other end of stdin.

Frames of four bytes of length and msgpack: `Settings`, then an `Ask` each on stdin; a `Reply` each
on stdout, the first one with the number 0 when the model is loaded. Everything vLLM says, here and
in its own children, goes to stderr.
"""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import inspect
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, get_args

import msgspec

from rlaif.backends.openai import logprobs_of_answer, split_reasoning
from rlaif.errors import ConfigError, ProviderError, ProviderErrorKind
from rlaif.types import Completion, FinishReason, Request, TokenLogprob, Usage

READY = 0  # the number of the reply to the settings
STOP_S = 15.0  # how long the engine may take to end
CPU_CACHE_BYTES = 4 << 30  # of keys and values
LEAST_LOGPROB = -9999.0  # as vLLM's own server writes what no number can


class Settings(msgspec.Struct, frozen=True):
    """`engine` are AsyncEngineArgs; `model` and `adapter` are folders."""

    model: str
    engine: dict[str, Any]  # Any: vLLM's own
    adapter: str | None = None


class Ask(msgspec.Struct, frozen=True):
    """Without a request: the answer to this number is no longer wanted."""

    number: int
    request: Request | None = None


class Refusal(msgspec.Struct, frozen=True):
    """A ProviderError, or a ConfigError where `kind` is None."""

    kind: ProviderErrorKind | None
    message: str
    parameter: str | None = None


class Reply(msgspec.Struct, frozen=True):
    number: int
    completion: Completion | None = None
    refusal: Refusal | None = None


def frame(content: Settings | Ask | Reply) -> bytes:
    encoded = msgspec.msgpack.encode(content)
    return len(encoded).to_bytes(4, "big") + encoded


def main() -> None:
    with os.fdopen(os.dup(1), "wb") as report:
        os.dup2(2, 1)  # vLLM logs to stdout
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        # A forked engine would hold our end of the report open after our death.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        settings = msgspec.msgpack.decode(_read(sys.stdin.buffer), type=Settings)
        code = asyncio.run(_serve(settings, report))
        os._exit(code)  # the engine has ended; what is left of vLLM complains when the interpreter goes


async def _serve(settings: Settings, report: IO[bytes]) -> int:
    """Answers until stdin ends or the engine dies; the exit code."""
    asks: asyncio.Queue[Ask | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_listen, args=(loop, asks), daemon=True).start()

    def reply(content: Reply) -> None:
        report.write(frame(content))
        report.flush()

    try:
        engine = Engine(settings)
    except Exception as error:  # each part of vLLM raises its own
        traceback.print_exc()
        reply(Reply(READY, refusal=refusal_of(error, "not_found")))
        return 1
    reply(Reply(READY))
    running: dict[int, asyncio.Task[None]] = {}

    async def answer(number: int, request: Request) -> None:
        try:
            reply(Reply(number, completion=await engine.complete(request, str(number))))
        except Exception as error:
            if engine.dead:  # the parent fails all that still wait, and starts another
                asks.put_nowait(None)
                return
            if not isinstance(error, ProviderError):
                traceback.print_exc()
            reply(Reply(number, refusal=refusal_of(error)))

    reporting = loop.create_task(engine.report())
    while (ask := await asks.get()) is not None:
        if ask.request is not None:
            task = running[ask.number] = loop.create_task(answer(ask.number, ask.request))
            task.add_done_callback(lambda _, number=ask.number: running.pop(number))  # type: ignore[misc]
        elif ask.number in running:
            running[ask.number].cancel()
    dead = engine.dead
    reporting.cancel()
    engine.close()
    return int(dead)


def _listen(loop: asyncio.AbstractEventLoop, asks: asyncio.Queue[Ask | None]) -> None:
    """A thread: loading the model blocks the loop for minutes, and the parent may end meanwhile."""
    decode = msgspec.msgpack.Decoder(Ask).decode
    with suppress(EOFError):
        while True:
            loop.call_soon_threadsafe(asks.put_nowait, decode(_read(sys.stdin.buffer)))
    loop.call_soon_threadsafe(asks.put_nowait, None)
    time.sleep(STOP_S)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with vLLM's own children
    os._exit(1)


def _read(stream: IO[bytes]) -> bytes:
    length = stream.read(4)
    if len(length) < 4:
        raise EOFError
    return stream.read(int.from_bytes(length, "big"))


class Engine:
    """vLLM with one model; answers as its own server would."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for an engine setting that vLLM does not know, and whatever vLLM raises."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import SamplingParams
        from vllm.v1.engine.async_llm import AsyncLLM

        known = [field.name for field in dataclasses.fields(AsyncEngineArgs)]
        for name in settings.engine:
            if name not in known or name in ("model", "enable_lora"):
                raise ConfigError(f"engine.{name} is no setting of vLLM's engine{_near(name, known)}")
        given = {**_defaults(settings), **settings.engine}
        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**{**given, "model": settings.model}))
        self._tokenizer = self._llm.get_tokenizer()
        if getattr(self._tokenizer, "chat_template", "its own") is None:
            self.close()
            raise ConfigError(f"{settings.model} has no chat template: it is no chat model; give an instruct model")
        config = self._llm.model_config
        self._context: int = config.max_model_len
        self._max_logprobs: int = config.max_logprobs if config.max_logprobs >= 0 else sys.maxsize
        # generation_config.json, which vLLM's server follows too where a request says nothing.
        self._sampling: dict[str, Any] = config.get_diff_sampling_param()
        self._fields = inspect.signature(SamplingParams.from_optional).parameters.keys()
        self._lora = LoRARequest("adapter", 1, settings.adapter) if settings.adapter else None

    @property
    def dead(self) -> bool:
        return bool(self._llm.errored)

    async def complete(self, request: Request, number: str) -> Completion:
        """Raises ProviderError for what cannot be asked, and vLLM's own errors."""
        body: dict[str, Any] = dict((request.extra or {}).get("body", {}))
        prompt = self._prompt(request, body.pop("chat_template_kwargs", {}))
        if len(prompt) >= self._context:
            text = f"the prompt has {len(prompt)} tokens, and the model's context {self._context}"
            raise ProviderError("context_length", text)
        params = self._params(request, body, self._context - len(prompt))
        last = None
        async for output in self._llm.generate({"prompt_token_ids": prompt}, params, number, lora_request=self._lora):
            last = output
        if last is None or last.outputs[0].finish_reason in (None, "abort", "error"):
            raise ProviderError("server", "vLLM gave up this request; its log says why")
        answer = last.outputs[0]
        # Some templates open the thoughts in the prompt.
        opened = "<think>" if self._tokenizer.decode(prompt[-3:]).rstrip().endswith("<think>") else ""
        text, reasoning = split_reasoning(opened + answer.text)
        finish: FinishReason = "length" if answer.finish_reason == "length" else "stop"
        return Completion(
            text=text,
            finish_reason=finish,
            reasoning=reasoning,
            usage=Usage(len(prompt), len(answer.token_ids), last.num_cached_tokens or 0),
            logprobs=logprobs_of_answer(
                tuple(_logprobs(answer.token_ids, answer.logprobs, params.logprobs)) or None, text, reasoning
            ),
        )

    async def report(self) -> None:
        """Throughput and queues, into the log now and then."""
        from vllm import envs

        while True:
            await asyncio.sleep(envs.VLLM_LOG_STATS_INTERVAL)
            await self._llm.do_log_stats()

    def close(self) -> None:
        self._llm.shutdown(STOP_S - 5)

    def _prompt(self, request: Request, template_kwargs: Mapping[str, Any]) -> list[int]:
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        try:
            prompt = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, **{"return_dict": False, **template_kwargs}
            )
        except Exception as error:  # Jinja's own, and whatever a template runs into
            text = f"the chat template refuses these messages: {_in_a_line(error)}"
            if any(message.role == "system" for message in request.messages):
                raise ProviderError("unsupported", text, parameter="system") from error
            raise ProviderError("bad_request", text) from error
        return list(prompt)

    def _params(self, request: Request, body: dict[str, Any], room: int) -> Any:  # Any: vLLM ships no types
        """SamplingParams: the model's defaults, the request's fields over them, and the settings' over those."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        given = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": request.max_tokens,
            "stop": list(request.stop) or None,
            "response_format": request.response_format,
            "logprobs": request.top_logprobs,
            # Each sampled call needs its own; a run repeats.
            "seed": int.from_bytes(request.key()[:4], "big") >> 1
            if request.provider_seed and request.temperature != 0
            else None,
        }
        fields = {**self._sampling, **{name: value for name, value in given.items() if value is not None}, **body}
        fields["max_tokens"] = min(room, fields.get("max_tokens") or room)
        if fields.get("logprobs") is not None:
            fields["logprobs"] = min(fields["logprobs"], self._max_logprobs)
        try:
            if structured := _structured(fields.pop("response_format", None), fields.get("structured_outputs")):
                fields["structured_outputs"] = structured
            for name in fields:
                if name not in self._fields:
                    text = f"vLLM samples by no parameter '{name}'{_near(name, self._fields)}"
                    raise ProviderError("bad_request", text, parameter=name)
            return SamplingParams.from_optional(**{**fields, "output_kind": RequestOutputKind.FINAL_ONLY})
        except (TypeError, ValueError) as error:
            raise _bad_request(error) from error


def _defaults(settings: Settings) -> dict[str, Any]:
    """Where vLLM's own would fail; the settings go over these.

    A context that does not fit in memory ends its start, -1 takes what fits. On a CPU it wants 92 % of all
    memory for itself. It takes no adapter whose rank is over 16 unless told.
    """
    from vllm.platforms import current_platform

    defaults: dict[str, Any] = {"max_model_len": -1}
    sized = "gpu_memory_utilization" in settings.engine or os.environ.get("VLLM_CPU_KVCACHE_SPACE")
    if current_platform.is_cpu() and not sized:
        defaults["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
    if settings.adapter:
        from vllm.config.lora import MaxLoRARanks

        rank: int = json.loads(Path(settings.adapter, "adapter_config.json").read_text("utf-8")).get("r", 8)
        enough = [allowed for allowed in sorted(get_args(MaxLoRARanks)) if allowed >= rank]
        defaults |= {"enable_lora": True, "max_lora_rank": (enough or [rank])[0]}
    return defaults


def _structured(response_format: dict[str, Any] | None, given: object) -> object:
    from vllm.sampling_params import StructuredOutputsParams

    match response_format, given:
        case None, dict():
            return StructuredOutputsParams(**given)
        case {"type": "json_schema", "json_schema": {"schema": schema}}, _:
            return StructuredOutputsParams(json=schema)
        case {"type": "json_object"}, _:
            return StructuredOutputsParams(json_object=True)
        case None | {"type": "text"}, _:
            return given
    raise ValueError(f"unknown response_format {json.dumps(response_format)[:200]}; known: json_schema, json_object")


def _logprobs(token_ids: Collection[int], logprobs: Any, top: int | None) -> Iterator[TokenLogprob]:
    """Each token's text and log-probability, and those of the `top` most likely."""
    for token, candidates in zip(token_ids, logprobs or (), strict=False):
        best = sorted((entry for entry in candidates.values() if entry.rank <= (top or 0)), key=lambda e: e.rank)
        chosen = candidates[token]
        yield TokenLogprob(
            chosen.decoded_token or "",
            max(chosen.logprob, LEAST_LOGPROB),
            tuple((entry.decoded_token or "", max(entry.logprob, LEAST_LOGPROB)) for entry in best),
        )


def refusal_of(error: Exception, kind: ProviderErrorKind = "server") -> Refusal:
    """`kind` is for errors that say nothing of what is to be done."""
    from vllm.exceptions import VLLMClientError

    if isinstance(error, ConfigError):
        return Refusal(None, str(error))
    if isinstance(error, VLLMClientError):
        error = _bad_request(error)
    if isinstance(error, ProviderError):
        return Refusal(error.kind, str(error), error.parameter)
    return Refusal(kind, _in_a_line(error))


def _bad_request(error: Exception) -> ProviderError:
    parameter = getattr(error, "parameter", None)  # VLLMValidationError's
    return ProviderError("bad_request", f"vLLM refuses this request: {_in_a_line(error)}", parameter=parameter)


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known)
    return f"; near it: {', '.join(near)}" if near else ""


def _in_a_line(error: Exception) -> str:
    """Without what pydantic says around a message of vLLM's."""
    text = re.sub(r"^\d+ validation errors? for \w+ (Value error, )?| \[type=.*", "", " ".join(str(error).split()))
    return f"{text or type(error).__name__}"[:500]


if __name__ == "__main__":
    main()
