"""Stands in for the package vllm: as much of its interface as we call, and a model that echoes its prompt.

A question that begins with a `!` makes it misbehave: see `AsyncLLM.generate`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import sys
from collections.abc import AsyncIterator
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

MaxLoRARanks = Literal[1, 8, 16, 32, 64]
VLLM_LOG_STATS_INTERVAL = 60.0


class VLLMClientError(Exception):
    pass


class VLLMValidationError(VLLMClientError, ValueError):
    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclasses.dataclass
class AsyncEngineArgs:
    model: str = ""
    dtype: str = "auto"
    max_model_len: int | None = None
    max_logprobs: int = 20
    gpu_memory_utilization: float = 0.92
    kv_cache_memory_bytes: int | None = None
    enable_lora: bool = False
    max_lora_rank: int = 16


@dataclasses.dataclass
class StructuredOutputsParams:
    json: Any = None
    json_object: bool | None = None


class RequestOutputKind:
    FINAL_ONLY = "final"


class SamplingParams(SimpleNamespace):
    @staticmethod
    def from_optional(
        temperature: float | None = 1.0,
        top_p: float | None = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        stop: list[str] | None = None,
        max_tokens: int = 16,
        logprobs: int | None = None,
        structured_outputs: StructuredOutputsParams | None = None,
        output_kind: str = "cumulative",
    ) -> SamplingParams:
        if top_p is not None and top_p > 1:
            raise VLLMValidationError(f"top_p must be in (0, 1], got {top_p}.", parameter="top_p")
        return SamplingParams(**locals())


@dataclasses.dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


class Tokenizer:
    """A token is a character."""

    def __init__(self, model: str) -> None:
        self.chat_template = None if os.path.basename(model) == "no-template" else "a template"

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> list[int]:
        if messages[0]["role"] == "system":
            raise ValueError("System role not supported")
        if messages[-1]["role"] != "user":
            raise ValueError("the last\nturn must be the user's")
        opened = "<think>" if options.get("enable_thinking") else ""
        return [ord(letter) for letter in messages[-1]["content"] + opened]

    def decode(self, tokens: list[int]) -> str:
        # The last three tokens must be enough to see a tag, which is one token in real vocabularies.
        text = "".join(map(chr, tokens))
        return "<think>" if text == "nk>" else text


class AsyncLLM:
    def __init__(self, args: AsyncEngineArgs) -> None:
        print(f"loading {args}")  # real ones log to stdout too
        name = os.path.basename(args.model)
        if name == "broken":
            print("(EngineCore pid=7) ERROR 11-21 08:00:00 [core.py:99] ValueError: these weights are broken")
            raise RuntimeError("Engine core initialization failed. See root cause above.")
        if name == "refused":
            raise ValueError("1 validation error for ModelConfig\n  Value error, no such dtype [type=value_error, x]\n")
        if name == "killed":
            os.kill(os.getpid(), 9)
        self.args = args
        self.errored = False
        self.running = self.most = 0
        length = args.max_model_len
        self.model_config = SimpleNamespace(
            max_model_len=64 if length in (None, -1) else length,
            max_logprobs=args.max_logprobs,
            get_diff_sampling_param=lambda: {"temperature": 0.6, "top_k": 20},
        )

    @classmethod
    def from_engine_args(cls, args: AsyncEngineArgs) -> AsyncLLM:
        return cls(args)

    def get_tokenizer(self) -> Tokenizer:
        return Tokenizer(self.args.model)

    def shutdown(self, timeout: float | None = None) -> None:
        print("shut down")

    async def do_log_stats(self) -> None:
        print(f"running {self.running}")

    async def generate(
        self, prompt: dict[str, list[int]], params: SamplingParams, request_id: str, lora_request: LoRARequest | None
    ) -> AsyncIterator[SimpleNamespace]:
        said = "".join(map(chr, prompt["prompt_token_ids"]))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            match said.split()[0]:
                case "!wait":
                    await asyncio.sleep(60)
                case "!together":
                    while self.most < int(said.split()[1]):
                        await asyncio.sleep(0.01)
                case "!die":
                    self.errored = True
                    raise RuntimeError("EngineCore encountered an issue")
                case "!abort":
                    yield SimpleNamespace(outputs=[SimpleNamespace(finish_reason="abort")])
                    return
                case "!bug":
                    raise RuntimeError("an error\nof one request")
            text = {
                "!params": repr(dict(sorted(vars(params).items()))),
                "!args": repr(self.args),
                "!lora": repr(lora_request),
                "!running": str(self.running),
                "!think": "because</think>answer",
            }.get(said.split()[0].removesuffix("<think>"), said)[: params.max_tokens * 40]
            tokens = [ord(letter) for letter in text]
            yield SimpleNamespace(
                num_cached_tokens=3,
                outputs=[
                    SimpleNamespace(
                        text=text,
                        token_ids=tokens,
                        finish_reason="length" if params.max_tokens == 1 else "stop",
                        logprobs=None if params.logprobs is None else [self._top(t, params.logprobs) for t in tokens],
                    )
                ],
            )
        finally:
            self.running -= 1

    def _top(self, token: int, count: int) -> dict[int, SimpleNamespace]:
        """The chosen token first and of rank 2, as vLLM gives a sampled one, then the `count` best."""
        entries = {token: SimpleNamespace(rank=2, logprob=math.log(0.3), decoded_token=chr(token))}
        for rank in range(1, count + 1):
            if rank != 2:
                logprob = math.log(0.4) if rank == 1 else -math.inf
                entries[-rank] = SimpleNamespace(rank=rank, logprob=logprob, decoded_token=f"r{rank}")
        return entries


def _module(name: str, **content: object) -> None:
    module = sys.modules[f"vllm.{name}"] = ModuleType(f"vllm.{name}")
    vars(module).update(content)


_module("engine")
_module("engine.arg_utils", AsyncEngineArgs=AsyncEngineArgs)
_module("lora")
_module("lora.request", LoRARequest=LoRARequest)
_module("config")
_module("config.lora", MaxLoRARanks=MaxLoRARanks)
_module("v1")
_module("v1.engine")
_module("v1.engine.async_llm", AsyncLLM=AsyncLLM)
_module("platforms", current_platform=SimpleNamespace(is_cpu=lambda: True))
_module("exceptions", VLLMClientError=VLLMClientError)
_module("envs", VLLM_LOG_STATS_INTERVAL=VLLM_LOG_STATS_INTERVAL)
envs = sys.modules["vllm.envs"]
_module(
    "sampling_params",
    SamplingParams=SamplingParams,
    RequestOutputKind=RequestOutputKind,
    StructuredOutputsParams=StructuredOutputsParams,
)
