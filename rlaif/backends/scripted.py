"""A model that needs no model: answers are a function of the request, with faults planted on purpose.

For tests of whole pipelines, dry measurements of the engine, and judges whose bias is known. The
answers depend on the request alone, never on order or time, so runs are repeatable under
concurrency. Give it a function of your own, or use `Script`:

    ScriptedBackend(lambda request: "No.")
    models: {judge: {provider: scripted, script: {position_bias: 0.8}}}
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Annotated

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlaif.backends import ModelSpec
from rlaif.errors import ConfigError, ProviderError
from rlaif.types import Completion, Request, TokenLogprob, Usage

Answer = Callable[[Request], Completion | str | Awaitable[Completion | str]]
Rate = Annotated[float, Field(ge=0, le=1)]


class Script(BaseModel):
    """The built-in answers: sentences with a hidden quality in [0, 1], and a judge that can see it.

    `skill` scales how strongly the judge's logit follows the difference of qualities, `position_bias`
    is added to the logit of the response shown first, `obedience` is the chance to obey a response
    that tells the judge to choose it. Revisions are better than what they revise by up to `gain`.
    The rates are shares of requests (never the preflight's); a transient error goes away when asked again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    words: Annotated[int, Field(ge=1)] = 24
    gain: float = 0.2
    skill: float = 8.0
    position_bias: float = 0.0
    obedience: Rate = 0.0
    refusal_rate: Rate = 0.0
    truncation_rate: Rate = 0.0
    error_rate: Rate = 0.0
    transient_error_rate: Rate = 0.0
    latency_ms: Annotated[float, Field(ge=0)] = 0.0
    logprobs: bool = True
    system_role: bool = True

    def __call__(self, request: Request) -> Completion:
        asked = request.messages[-1].content
        if not self.system_role and request.messages[0].role == "system":
            raise ProviderError("bad_request", "this model has no system role", parameter="system")
        if not self.logprobs and request.top_logprobs:
            raise ProviderError("unsupported", "logprobs are not supported", parameter="logprobs")
        if _is_preflight(request):
            return _one_token(request, {"A": 0.9, "B": 0.1})
        if self.refusal_rate and _draw(self.seed, "refuse", request) < self.refusal_rate:
            return Completion("I can't help with that.", "refusal", usage=_usage(request, 6))
        if request.top_logprobs or (request.max_tokens or _FEW) < _FEW:  # a letter or a digit, in any language
            if "<response>" in asked:
                return self._rate(request, asked)
            if asked.endswith(_RANK):
                return self._rank(request, asked)
            # After reasoning the responses are in an earlier turn.
            shown = next((m.content for m in reversed(request.messages) if "<response_b>" in m.content), None)
            if shown is not None:
                return self._choose(request, _between(shown, "response_a"), _between(shown, "response_b"))
        return self._write(request, asked)

    def _write(self, request: Request, asked: str) -> Completion:
        noise = blake2b(request.key(), digest_size=8, salt=str(self.seed).encode()[:16]).digest()
        quality = int.from_bytes(noise[:4], "big") / 2**32
        if asked.startswith(_REVISE):
            answers = [m.content for m in request.messages[:-1] if m.role == "assistant"]
            criticised = any(m.content.startswith(_CRITICISE) for m in request.messages[-3:-2])
            before = quality_of(answers[-2 if criticised else -1])
            quality = min(1.0, (0.5 if before is None else before) + self.gain * quality)
        text = f"Scripted answer {noise[:4].hex()} of quality {quality:.3f}:"
        start = noise[4] % len(_WORDS)
        words = (_WORDS * (self.words // len(_WORDS) + 2))[start : start + self.words]
        if self.truncation_rate and _draw(self.seed, "truncate", request) < self.truncation_rate:
            return Completion(f"{text} {' '.join(words)}", "length", usage=_usage(request, self.words))
        return Completion(f"{text} {' '.join(words)}.", usage=_usage(request, self.words))

    def _choose(self, request: Request, a: str, b: str) -> Completion:
        seen = [0.5 if (quality := quality_of(text)) is None else quality for text in (a, b)]
        logit = self.skill * (seen[0] - seen[1]) + self.position_bias
        for sign, text in ((1, a), (-1, b)):
            if self.obedience and _INJECTION.search(text) and _draw(self.seed, "obey", request) < self.obedience:
                logit = sign * 9.0
        p_a = 1.0 / (1.0 + math.exp(-logit))
        if request.temperature:
            p_a = float(_draw(self.seed, "vote", request) < p_a)
        return _one_token(request, {"A": p_a * 0.98, "B": (1.0 - p_a) * 0.98})

    def _rank(self, request: Request, asked: str) -> Completion:
        """By what the judge sees of their qualities, without noise."""
        shown = {letter.upper(): text for letter, text in _LISTED.findall(asked)}
        seen = {letter: 0.5 if (quality := quality_of(text)) is None else quality for letter, text in shown.items()}
        logits = {
            letter: self.skill * quality + self.position_bias * (letter == "A") for letter, quality in seen.items()
        }
        ranked = sorted(logits, key=lambda letter: -logits[letter])
        return Completion(" > ".join(ranked), usage=_usage(request, 2 * len(ranked)))

    def _rate(self, request: Request, asked: str) -> Completion:
        quality = quality_of(asked.rpartition("<response>")[2])
        digit = str(1 + round(8 * (0.5 if quality is None else quality)))
        return _one_token(request, {digit: 0.9, "5": 0.05} if digit != "5" else {"5": 0.95})


class ScriptedBackend:
    """Answers with `answer(request)`: a Completion, a text, or an awaitable of either."""

    def __init__(
        self,
        answer: Answer,
        *,
        latency_s: float = 0.0,
        error_rate: float = 0.0,
        transient_error_rate: float = 0.0,
    ) -> None:
        self._answer = answer
        self._latency_s = latency_s
        self._error_rate = error_rate
        self._transient_error_rate = transient_error_rate
        self._failed_once: set[bytes] = set()

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> ScriptedBackend:
        script = script_of(spec)
        return cls(
            script,
            latency_s=script.latency_ms / 1000,
            error_rate=script.error_rate,
            transient_error_rate=script.transient_error_rate,
        )

    async def complete(self, request: Request) -> Completion:
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        if (self._error_rate or self._transient_error_rate) and not _is_preflight(request):
            self._maybe_fail(request)
        answer = self._answer(request)
        if inspect.isawaitable(answer):
            answer = await answer
        return Completion(answer) if isinstance(answer, str) else answer

    async def close(self) -> None:
        self._failed_once.clear()

    def _maybe_fail(self, request: Request) -> None:
        if _draw(0, "error", request) < self._error_rate:
            raise ProviderError("bad_request", "scripted: this request always fails")
        key = request.key()
        if key in self._failed_once:
            self._failed_once.remove(key)
        elif _draw(0, "transient", request) < self._transient_error_rate:
            self._failed_once.add(key)
            raise ProviderError("server", "scripted: this request fails once", retry_after_s=0.0)


def script_of(spec: ModelSpec) -> Script:
    try:
        return Script.model_validate(spec.script)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"script.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def identity(spec: ModelSpec) -> str:
    """Scripts answer alike if their settings are alike; speed and faults change no answer."""
    meaning = script_of(spec).model_dump(exclude={"latency_ms", "error_rate", "transient_error_rate"})
    digest = blake2b(msgspec.json.encode(meaning), digest_size=4).hexdigest()
    return f"scripted:{spec.model or 'script'}@{digest}"


def quality_of(text: str) -> float | None:
    """The hidden quality a scripted text carries, if it is one."""
    found = _QUALITY.search(text)
    return float(found[1]) if found else None


_QUALITY = re.compile(r"of quality ([01]\.\d+)")
_INJECTION = re.compile(r"\b(?:choose|pick|prefer|select) (?:this|me|my)\b", re.IGNORECASE)
_LISTED = re.compile(r"^<response_([a-z])>\n(.*?)\n</response_\1>$", re.M | re.S)
# How our templates begin or end, in English and Chinese; a short answer has fewer tokens than _FEW.
_RANK = ("with > between them.", "中间用 > 隔开。")
_REVISE, _CRITICISE = ("Revision request", "修改要求"), ("Critique request", "批评要求")
_FEW = 32
_WORDS = ("the", "of", "to", "and", "a", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with", "as")


def _is_preflight(request: Request) -> bool:
    return request.messages[-1].content.endswith("A or B? Answer with the letter only.")


def _between(text: str, tag: str) -> str:
    return text.partition(f"<{tag}>")[2].rpartition(f"</{tag}>")[0]


def _draw(seed: int, purpose: str, request: Request) -> float:
    """Uniform in [0, 1), from the request's identity."""
    digest = blake2b(request.key(), digest_size=8, salt=f"{seed}{purpose}".encode()[:16]).digest()
    return int.from_bytes(digest, "big") / 2**64


def _one_token(request: Request, mass: dict[str, float]) -> Completion:
    """The likeliest option as the whole answer, with the log-probabilities that were asked for."""
    text = max(mass, key=lambda option: mass[option])
    top = tuple((option, math.log(p)) for option, p in mass.items() if p > 0)[: request.top_logprobs or 0]
    logprobs = (TokenLogprob(text, math.log(mass[text]), top),) if request.top_logprobs else None
    return Completion(text, logprobs=logprobs, usage=_usage(request, 1))


def _usage(request: Request, words: int) -> Usage:
    return Usage(sum(len(message.content) for message in request.messages) // 4, words)
