"""Weights and a tokenizer of Hugging Face's transformers: a request in tokens, and a batch of them answered.

By plain `generate` on left-padded prompts: its continuous batching has one seed for all and no
rivals of a token.
"""

from __future__ import annotations

import asyncio
import gc
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from jinja2 import TemplateError

from rlaif.backends.openai import logprobs_of_answer, split_reasoning
from rlaif.backends.sampling import Body, Tensor, body_of, sample
from rlaif.errors import ProviderError, ProviderErrorKind
from rlaif.types import Completion, FinishReason, Request, TokenLogprob, Usage


class Call(NamedTuple):
    request: Request
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Completion]

    def answer(self, outcome: Completion | Exception) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: Completion | Exception) -> None:
        if self.future.done():  # cancelled
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


@dataclass(slots=True)
class Row:
    """One request in tokens, and what it was answered so far."""

    call: Call
    body: Body
    prompt: list[int]
    room: int  # tokens it may generate
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    answered: bool = False

    @property
    def request(self) -> Request:
        return self.call.request

    def answer(self, outcome: Completion | Exception) -> None:
        self.answered = True
        self.call.answer(outcome)


class Weights(ABC):
    """Weights and tokenizer: what a request is in tokens."""

    _opens_answer = True  # the model's own turn is begun for it

    def __init__(self, name: str, model: Any, tokenizer: Any, context_tokens: int) -> None:
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        made_for = getattr(model.config.get_text_config(), "max_position_embeddings", None)  # some have no limit
        self._limit = min(context_tokens, made_for or context_tokens)
        self._limit_of = "context_tokens" if self._limit == context_tokens else self.name

    def row_of(self, call: Call) -> Row:
        """Raises ProviderError for what this model cannot be asked."""
        request = call.request
        if request.response_format is not None:
            message = f"{self.name}: response_format is not supported by the transformers backend"
            raise ProviderError("unsupported", message, parameter="response_format")
        body = body_of(request)
        prompt = self._prompt(request, body)
        room = self._room(request, prompt)
        if len(prompt) + room > self._limit:
            more = f" and {room} to generate" if room else ""
            message = f"{len(prompt)} prompt tokens{more} exceed the {self._limit} of {self._limit_of}"
            raise ProviderError("context_length", message)
        return Row(call, body, prompt, room)

    @abstractmethod
    def answer(self, rows: Sequence[Row], closing: threading.Event) -> None:
        """Answers every row as soon as it can, and none any more once `closing` is set."""

    def _room(self, request: Request, prompt: list[int]) -> int:
        """Tokens to generate."""
        return 0

    def _prompt(self, request: Request, body: Body) -> list[int]:
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        try:
            return self._rendered(messages, body)
        except (TemplateError, TypeError, ValueError) as error:
            parameter = None
            if messages[0]["role"] == "system":
                with suppress(TemplateError, TypeError, ValueError):
                    self._rendered(messages[1:], body)
                    parameter = "system"
            kind: ProviderErrorKind = "unsupported" if parameter else "bad_request"
            message = f"the chat template of {self.name} refuses this: {in_a_line(error)}"
            raise ProviderError(kind, message, parameter=parameter) from error

    def _rendered(self, messages: list[dict[str, str]], body: Body) -> list[int]:
        tokens: list[int] = self._tokenizer.apply_chat_template(
            messages,
            tokenize=True,
            add_generation_prompt=self._opens_answer,
            return_dict=False,
            **body.chat_template_kwargs,
        )
        return tokens


class Model(Weights):
    """A language model: a batch of requests answered."""

    def __init__(self, name: str, model: Any, tokenizer: Any, context_tokens: int) -> None:
        from transformers import GenerationConfig

        super().__init__(name, model, tokenizer, context_tokens)
        ends = model.generation_config.eos_token_id
        # As vLLM does: a fine-tuned model's turn may end with a token that only its tokenizer knows.
        self._ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
        # The model's own defaults (a temperature, a repetition penalty) would be merged into ours.
        model.generation_config = GenerationConfig()
        self._words: dict[int, str] = {}
        self._anchor: int = tokenizer.encode("a", add_special_tokens=False)[-1]
        self._anchor_word = self._decode([self._anchor])

    def answer(self, rows: Sequence[Row], closing: threading.Event) -> None:
        """Answers every row as soon as it ends; none of the others once `closing` is set."""
        import torch
        from transformers import GenerationConfig

        width = max(len(row.prompt) for row in rows)
        padded = [[0] * (width - len(row.prompt)) + row.prompt for row in rows]
        mask = [[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows]
        sampler = Sampler(self, rows, closing)
        most = max(row.room for row in rows)
        with torch.inference_mode():
            self._model.generate(
                input_ids=torch.tensor(padded, device=self._model.device),
                attention_mask=torch.tensor(mask, device=self._model.device),
                generation_config=GenerationConfig(max_new_tokens=most, do_sample=False, use_cache=True),
                logits_processor=[sampler.choose],
                stopping_criteria=[sampler.ended],
            )

    def _room(self, request: Request, prompt: list[int]) -> int:
        return request.max_tokens or max(1, self._limit - len(prompt))

    def finish_of(self, row: Row) -> FinishReason | None:
        """Why the row ends with its last token, if it does."""
        if row.tokens[-1] in self._ends:
            return "stop"
        if row.request.stop:
            # A token is a byte or more, a letter four bytes or less.
            tail = self._decode(row.tokens[-4 * max(map(len, row.request.stop)) - 4 :])
            if any(stop in tail for stop in row.request.stop):
                return "stop"
        return "length" if len(row.tokens) == row.room else None

    def completion(self, row: Row, finish: FinishReason) -> Completion:
        whole = self._decode(row.tokens[:-1] if row.tokens[-1] in self._ends else row.tokens)
        cut = min((found for stop in row.request.stop if (found := whole.find(stop)) >= 0), default=None)
        text, reasoning = split_reasoning(whole[:cut])
        return Completion(
            text=text,
            finish_reason=finish if cut is None else "stop",
            reasoning=reasoning,
            usage=Usage(len(row.prompt), len(row.tokens)),
            logprobs=logprobs_of_answer(tuple(row.logprobs) or None, text, reasoning),
        )

    def word(self, token: int) -> str:
        """One token as text. After another one, since some tokenizers take the space from the first."""
        if token not in self._words:
            both = self._decode([self._anchor, token], skip_special_tokens=False)
            self._words[token] = both.removeprefix(self._anchor_word)
        return self._words[token]

    def _decode(self, tokens: list[int], *, skip_special_tokens: bool = True) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text


class Sampler:
    """Chooses each row's next token by that row's own settings and chance.

    `generate` calls `choose` with the logits of a step, takes the one token left possible, and
    asks `ended`.
    """

    def __init__(self, model: Model, rows: Sequence[Row], closing: threading.Event) -> None:
        self._model = model
        self._rows = list(rows)
        self._closing = closing
        self._chances = [Random(int.from_bytes(row.request.key()[:4], "big") >> 1) for row in rows]
        for row in rows:  # an attempt before this one may have run out of memory
            row.tokens.clear()
            row.logprobs.clear()

    def choose(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        import torch

        chosen = sample(scores, self._rows, [chance.random() for chance in self._chances])
        self._note_logprobs(scores, chosen)
        for row, token in zip(self._rows, chosen.tolist(), strict=True):
            if row.answered:
                continue
            row.tokens.append(token)
            if finish := self._model.finish_of(row):
                row.answer(self._model.completion(row, finish))
        return torch.full_like(scores, -math.inf).scatter_(1, chosen[:, None], 0.0)

    def ended(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        import torch

        over = self._closing.is_set()
        return torch.tensor([over or row.answered for row in self._rows], device=input_ids.device)

    def _note_logprobs(self, scores: Tensor, chosen: Tensor) -> None:
        """Of the model's own distribution, whatever the temperature."""
        asked = [i for i, row in enumerate(self._rows) if row.request.top_logprobs is not None and not row.answered]
        if not asked:
            return
        logprobs = scores[asked].log_softmax(-1)
        most = min(max(self._rows[i].request.top_logprobs or 0 for i in asked), logprobs.shape[-1])
        own = logprobs.gather(1, chosen[asked][:, None])[:, 0].tolist()
        tops = logprobs.topk(most, -1)
        for i, token, logprob, ids, values in zip(
            asked, chosen[asked].tolist(), own, tops.indices.tolist(), tops.values.tolist(), strict=True
        ):
            row = self._rows[i]
            rivals = list(zip(ids, values, strict=True))[: row.request.top_logprobs]
            if token not in ids[: row.request.top_logprobs]:
                rivals.insert(0, (token, logprob))
            top = tuple((self._model.word(rival), value) for rival, value in rivals if value > -math.inf)
            row.logprobs.append(TokenLogprob(self._model.word(token), logprob, top))


def out_of_memory(error: Exception) -> bool:
    import torch

    # The CPU's and MPS's are plain RuntimeErrors.
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))
    )


def free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_a_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
