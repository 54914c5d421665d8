"""A model inside this process, computed by Hugging Face's transformers: for a machine that vLLM does not serve.

One thread loads the model at the first question and answers what waits in batches, by plain
`generate` on left-padded prompts: its continuous batching has one seed for all and no rivals of a token.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import queue
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Annotated, Any, NamedTuple

import msgspec
from jinja2 import TemplateError

from rlaif.backends import ModelSpec
from rlaif.backends.openai import split_reasoning
from rlaif.backends.weights import adapter_folder, model_folder
from rlaif.errors import ConfigError, ProviderError, ProviderErrorKind, RlaifError
from rlaif.types import Completion, FinishReason, Request, TokenLogprob, Usage

LINGER_S = 0.02  # how long a free model waits for one more request to compute with those it has
CLOSE_S = 10.0  # how long closing waits for the step being computed; loading may take longer
# What may speak up while a model is loaded or computed.
SPEAKERS = ("transformers", "transformers_modules", "accelerate", "huggingface_hub", "peft", "torch")

Tensor = Any  # torch ships no types that mypy is asked to follow, and is imported late


class TransformersBackend:
    """Answers from a folder, a GGUF file or a hub model. The library's own messages are in `transformers.log`.

    A request may take `context_tokens`, or what the model was made for if that is less, its prompt
    and `max_tokens` together. An answer depends on its request alone, up to the last bits of the
    numbers, which other lengths in its batch round differently.
    """

    def __init__(self, spec: ModelSpec, log_folder: Path) -> None:
        """Raises ConfigError if a library is missing; loads nothing."""
        needed = ("torch", "transformers", *(("peft",) if spec.lora else ()))
        if missing := [name for name in needed if not find_spec(name)]:
            raise ConfigError(f"a transformers model needs {missing[0]}; run: pip install 'rlaif-kit[train]'")
        self._spec = spec
        self._log_folder = log_folder
        self._worker: _Worker | None = None

    async def complete(self, request: Request) -> Completion:
        if self._worker is None:
            self._worker = _Worker(self._spec, self._log_folder)
            self._worker.start()
        loop = asyncio.get_running_loop()
        call = _Call(request, loop, loop.create_future())
        self._worker.calls.put(call)
        return await call.future

    async def close(self) -> None:
        """Stops within a token; what has no answer yet gets none."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.closing.set()
            worker.calls.put(None)
            await asyncio.to_thread(worker.join, CLOSE_S)


class _Call(NamedTuple):
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


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `extra_body` may hold, in vLLM's words and with its meaning."""

    chat_template_kwargs: dict[str, Any] = {}
    top_k: Annotated[int, msgspec.Meta(ge=-1)] = 0
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0)] = 1.0


@dataclass(slots=True)
class _Row:
    """One request in tokens, and what it was answered so far."""

    call: _Call
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


class _Worker(threading.Thread):
    """Takes calls until a None comes."""

    def __init__(self, spec: ModelSpec, log_folder: Path) -> None:
        super().__init__(name="transformers", daemon=True)
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self.closing = threading.Event()
        self._spec = spec
        self._log_folder = log_folder
        self._waiting: list[_Row] = []
        self._most = math.inf  # tokens of a batch, padding and answers included; known after the first that was too big

    def run(self) -> None:
        log = self._log_folder / "transformers.log"
        error: Exception = ProviderError("server", "the model was closed")
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with _messages_to(log):
                self._serve(_loaded(self._spec, self._log_folder, log))
        except Exception as raised:
            error = raised
        for row in self._waiting:
            row.answer(error)
        # The model is gone, freed or never loaded; so are the answers of all who still ask.
        while not self.closing.is_set() or not self.calls.empty():
            call = self.calls.get()
            if call is None:
                break
            call.answer(error)

    def _serve(self, model: _Model) -> None:
        try:
            while self._takes_calls(model):
                self._compute(model, batch_of(self._waiting, self._spec.slots, self._most))
                self._waiting = [row for row in self._waiting if not row.answered]
        finally:
            del model
            _free_memory()

    def _takes_calls(self, model: _Model) -> bool:
        """Waits for something to do, then a moment for what comes with it. False: it is over."""
        while True:
            self._waiting = [row for row in self._waiting if not row.call.future.cancelled()]
            enough = len(self._waiting) >= self._spec.slots
            try:
                call = self.calls.get(timeout=None if not self._waiting else 0 if enough else LINGER_S)
            except queue.Empty:
                return not self.closing.is_set()
            if call is None:
                return False
            try:
                self._waiting.append(model.row_of(call))
            except Exception as error:  # also one of ours: whoever asked must hear of it
                call.answer(error)

    def _compute(self, model: _Model, batch: list[_Row]) -> None:
        try:
            model.answer(batch, self.closing)
        except Exception as error:
            logging.getLogger("transformers").error("a batch of %d failed", len(batch), exc_info=True)
            failure = ProviderError("server", f"{model.name}: {_in_a_line(error)}")
            if out_of_memory(error):
                self._most = size_of(batch) / 2
                failure = ProviderError("server", f"{model.name}: no memory for {size_of(batch[:1])} tokens")
            if not out_of_memory(error) or len(batch) == 1:
                for row in batch:
                    if not row.answered:
                        row.answer(failure)
        else:
            return
        _free_memory()  # only here, where no traceback holds the tensors any more


def batch_of(waiting: Sequence[_Row], slots: int, most: float) -> list[_Row]:
    """The oldest with those most like it: as many tokens to generate, for they end together, and little padding."""
    oldest = waiting[0]
    alike = [row for row in waiting if row.request.max_tokens == oldest.request.max_tokens]
    alike.sort(key=lambda row: abs(len(row.prompt) - len(oldest.prompt)))  # stable: the oldest stays first
    batch = alike[:slots]
    while len(batch) > 1 and size_of(batch) > most:
        batch = batch[: len(batch) // 2]
    return batch


def size_of(batch: Sequence[_Row]) -> int:
    """Tokens that the batch may hold in memory in the end."""
    return len(batch) * (max(len(row.prompt) for row in batch) + max(row.room for row in batch))


class _Model:
    """Weights and tokenizer: what a request is in tokens, and a batch of them answered."""

    def __init__(self, name: str, model: Any, tokenizer: Any, context_tokens: int) -> None:
        from transformers import GenerationConfig

        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        ends = model.generation_config.eos_token_id
        # As vLLM does: a fine-tuned model's turn may end with a token that only its tokenizer knows.
        self._ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
        # The model's own defaults (a temperature, a repetition penalty) would be merged into ours.
        model.generation_config = GenerationConfig()
        made_for = getattr(model.config.get_text_config(), "max_position_embeddings", None)  # some have no limit
        self._limit = min(context_tokens, made_for or context_tokens)
        self._limit_of = "context_tokens" if self._limit == context_tokens else self.name
        self._words: dict[int, str] = {}
        self._anchor: int = tokenizer.encode("a", add_special_tokens=False)[-1]
        self._anchor_word = self._decode([self._anchor])

    def row_of(self, call: _Call) -> _Row:
        """Raises ProviderError for what this model cannot be asked."""
        request = call.request
        if request.response_format is not None:
            message = f"{self.name}: response_format is not supported by the transformers backend"
            raise ProviderError("unsupported", message, parameter="response_format")
        body = body_of(request)
        prompt = self._prompt(request, body)
        room = request.max_tokens or max(1, self._limit - len(prompt))
        if len(prompt) + room > self._limit:
            message = f"{len(prompt)} prompt tokens and {room} to generate exceed the {self._limit} of {self._limit_of}"
            raise ProviderError("context_length", message)
        return _Row(call, body, prompt, room)

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
            message = f"the chat template of {self.name} refuses this: {_in_a_line(error)}"
            raise ProviderError(kind, message, parameter=parameter) from error

    def _rendered(self, messages: list[dict[str, str]], body: Body) -> list[int]:
        tokens: list[int] = self._tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False, **body.chat_template_kwargs
        )
        return tokens

    def answer(self, rows: Sequence[_Row], closing: threading.Event) -> None:
        """Answers every row as soon as it ends; none of the others once `closing` is set."""
        import torch
        from transformers import GenerationConfig

        width = max(len(row.prompt) for row in rows)
        padded = [[0] * (width - len(row.prompt)) + row.prompt for row in rows]
        mask = [[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows]
        sampler = _Sampler(self, rows, closing)
        most = max(row.room for row in rows)
        with torch.inference_mode():
            self._model.generate(
                input_ids=torch.tensor(padded, device=self._model.device),
                attention_mask=torch.tensor(mask, device=self._model.device),
                generation_config=GenerationConfig(max_new_tokens=most, do_sample=False, use_cache=True),
                logits_processor=[sampler.choose],
                stopping_criteria=[sampler.ended],
            )

    def finish_of(self, row: _Row) -> FinishReason | None:
        """Why the row ends with its last token, if it does."""
        if row.tokens[-1] in self._ends:
            return "stop"
        if row.request.stop:
            # A token is a byte or more, a letter four bytes or less.
            tail = self._decode(row.tokens[-4 * max(map(len, row.request.stop)) - 4 :])
            if any(stop in tail for stop in row.request.stop):
                return "stop"
        return "length" if len(row.tokens) == row.room else None

    def completion(self, row: _Row, finish: FinishReason) -> Completion:
        whole = self._decode(row.tokens[:-1] if row.tokens[-1] in self._ends else row.tokens)
        cut = min((found for stop in row.request.stop if (found := whole.find(stop)) >= 0), default=None)
        text, reasoning = split_reasoning(whole[:cut])
        return Completion(
            text=text,
            finish_reason=finish if cut is None else "stop",
            reasoning=reasoning,
            usage=Usage(len(row.prompt), len(row.tokens)),
            logprobs=tuple(row.logprobs) or None,
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


class _Sampler:
    """Chooses each row's next token by that row's own settings and chance.

    `generate` calls `choose` with the logits of a step, takes the one token left possible, and
    asks `ended`.
    """

    def __init__(self, model: _Model, rows: Sequence[_Row], closing: threading.Event) -> None:
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


def sample(logits: Tensor, rows: Sequence[_Row], chances: Sequence[float]) -> Tensor:
    """The token of each row at its place in [0, 1) of the distribution, which runs through the vocabulary in order.

    By inversion, as then a slightly different rounding gives the same token nearly always. Raises
    RuntimeError for logits that are no numbers.
    """
    import torch

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=logits.device, dtype=logits.dtype)[:, None]

    if logits.isnan().any():
        raise RuntimeError("the model computes NaN; give it another dtype in engine:, like {dtype: bfloat16}")
    logits = penalised(logits, rows)
    best = logits.argmax(-1)
    # None is OpenAI's default, 1. Below vLLM's threshold it is greedy.
    wanted = [1.0 if row.request.temperature is None else row.request.temperature for row in rows]
    greedy = [temperature < 1e-5 for temperature in wanted]
    if all(greedy):
        return best
    warm = column([1.0 if cold else temperature for cold, temperature in zip(greedy, wanted, strict=True)])
    p = (logits / warm).softmax(-1)
    p = torch.where(p < p.amax(-1, keepdim=True) * column([row.body.min_p for row in rows]), 0.0, p)
    top_p = [1.0 if row.request.top_p is None else row.request.top_p for row in rows]
    top_k = [row.body.top_k if row.body.top_k > 0 else logits.shape[-1] for row in rows]
    if min(top_p) < 1 or min(top_k) < logits.shape[-1]:
        descending, tokens = p.sort(-1, descending=True)
        rank = torch.arange(logits.shape[-1], device=logits.device)
        descending = torch.where(rank < column([float(k) for k in top_k]), descending, 0.0)
        above = (descending.cumsum(-1) - descending) / descending.sum(-1, keepdim=True)
        kept = torch.where((above < column(top_p)) | (rank == 0), descending, 0.0)
        p = torch.zeros_like(p).scatter_(1, tokens, kept)
    upto = p.cumsum(-1)
    # `p > 0`: on a GPU the sums may go up by a rounding where nothing is added.
    here = (upto > upto[:, -1:] * column(list(chances))) & (p > 0)
    drawn = torch.where(here.any(-1), here.float().argmax(-1), best)
    return torch.where(torch.tensor(greedy, device=logits.device), best, drawn)


def penalised(logits: Tensor, rows: Sequence[_Row]) -> Tensor:
    """The logits with vLLM's repetition_penalty on all tokens of the prompt and the answer (Keskar et al. 2019)."""
    if all(row.body.repetition_penalty == 1 for row in rows):
        return logits
    logits = logits.clone()
    for i, row in enumerate(rows):
        seen = sorted({*row.prompt, *row.tokens})
        penalty, before = row.body.repetition_penalty, logits[i, seen]
        logits[i, seen] = before.where(before < 0, before / penalty**2) * penalty
    return logits


def body_of(request: Request) -> Body:
    """Raises ProviderError that names the field that this backend doesn't know."""
    body = (request.extra or {}).get("body", {})
    if unknown := sorted(body.keys() - set(Body.__struct_fields__)):
        message = f"extra_body.{unknown[0]} is not supported here; known: {', '.join(Body.__struct_fields__)}"
        raise ProviderError("unsupported", message, parameter=unknown[0])
    try:
        return msgspec.convert(body, Body)
    except msgspec.ValidationError as error:
        raise ProviderError("bad_request", f"extra_body: {error}") from error


# from_pretrained sets torch's default dtype for the whole process; _no_display changes what is the process's too.
_LOADING = threading.Lock()


def _loaded(spec: ModelSpec, spare_folder: Path, log: Path) -> _Model:
    """Raises ConfigError for a name that means nothing, ProviderError for what cannot be loaded."""
    name = spec.model or "the bundled model"
    try:
        with _LOADING, _no_display():
            folder = model_folder(spec, spare_folder)
            adapter = adapter_folder(spec)
            tokenizer = _tokenizer(spec, folder, adapter)
            if tokenizer.chat_template is None:
                raise ProviderError("not_found", f"{name} has no chat template; choose an instruct model")
            return _Model(name, _weights(spec, folder, adapter), tokenizer, spec.context_tokens)
    except RlaifError:
        raise
    except Exception as error:  # whatever a broken file, a lack of memory or a model's own code raises
        logging.getLogger("transformers").error("%s cannot be loaded", name, exc_info=True)
        message = f"transformers cannot load {name}: {_in_a_line(error)}; its log: {log}"
        raise ProviderError("not_found", message) from error


def _tokenizer(spec: ModelSpec, folder: Path, adapter: Path | None) -> Any:
    from transformers import AutoTokenizer

    trust = bool(spec.engine.get("trust_remote_code", False))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    if tokenizer.chat_template is None and adapter and (adapter / "tokenizer_config.json").is_file():
        # What made a chat model of a base model has the template.
        return AutoTokenizer.from_pretrained(adapter, trust_remote_code=trust)
    return tokenizer


def _weights(spec: ModelSpec, folder: Path, adapter: Path | None) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    engine = {name: value for name, value in spec.engine.items() if name != "revision"}  # the folder is of it
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    # Many CPUs compute 16 bits slower than 32.
    model = AutoModelForCausalLM.from_pretrained(folder, **{"dtype": "float32" if device == "cpu" else "auto"} | engine)
    if "device_map" not in engine:
        model.to(device)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def out_of_memory(error: Exception) -> bool:
    import torch

    # The CPU's and MPS's are plain RuntimeErrors.
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))
    )


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _messages_to(file: Path) -> Iterator[None]:
    """What the libraries log in this thread goes to `file`, and nowhere else; other threads are left alone."""
    import transformers  # noqa: F401 # its import sets up its handlers

    thread = threading.get_ident()

    def ours(record: logging.LogRecord) -> bool:
        return record.thread == thread

    def others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(ours)
    loggers = [logging.getLogger(name) for name in SPEAKERS]
    theirs = [other for logger in loggers for other in logger.handlers]
    for other in theirs:
        other.addFilter(others)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        for other in theirs:
            other.removeFilter(others)
        handler.close()


@contextmanager
def _no_display() -> Iterator[None]:
    """Progress bars are off, and warnings go to the log."""
    from transformers.utils import logging as display

    def note(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        logging.getLogger("transformers").warning("%s: %s", category.__name__, message)

    shown = display.is_progress_bar_enabled()
    display.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = note
            yield
    finally:
        if shown:
            display.enable_progress_bar()


def _in_a_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
