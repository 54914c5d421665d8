"""A model inside this process, computed by Hugging Face's transformers: where there is no vLLM, and reward models.

One thread loads the model at the first question and answers what waits in batches.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rlaif.backends import ModelSpec
from rlaif.backends.causal_lm import Call, Row, Weights, free_memory, in_a_line, out_of_memory
from rlaif.backends.loading import loaded, messages_to
from rlaif.errors import ConfigError, ProviderError
from rlaif.types import Completion, Request

LINGER_S = 0.02  # how long a free model waits for one more request to compute with those it has
CLOSE_S = 10.0  # how long closing waits for the step being computed; loading may take longer


class TransformersBackend:
    """Answers from a folder, a GGUF file or a hub model, or scores of a reward model.

    The library's own messages are in `transformers.log`.

    A request may take `context_tokens`, or what the model was made for if that is less, its prompt
    and `max_tokens` together. An answer depends on its request alone, up to the last bits of the
    numbers, which other lengths in its batch round differently.
    """

    def __init__(self, spec: ModelSpec, log_folder: Path) -> None:
        """Raises ConfigError if a library is missing; loads nothing."""
        needed = ("torch", "transformers", *(("peft",) if spec.lora else ()))
        if missing := [name for name in needed if not find_spec(name)]:
            raise ConfigError(f"a {spec.provider} model needs {missing[0]}; run: pip install 'rlaif-kit[train]'")
        self._spec = spec
        self._log_folder = log_folder
        self._worker: _Worker | None = None

    async def complete(self, request: Request) -> Completion:
        if self._worker is None:
            self._worker = _Worker(self._spec, self._log_folder)
            self._worker.start()
        loop = asyncio.get_running_loop()
        call = Call(request, loop, loop.create_future())
        self._worker.calls.put(call)
        return await call.future

    async def close(self) -> None:
        """Stops within a token; what has no answer yet gets none."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.closing.set()
            worker.calls.put(None)
            await asyncio.to_thread(worker.join, CLOSE_S)


class _Worker(threading.Thread):
    """Takes calls until a None comes."""

    def __init__(self, spec: ModelSpec, log_folder: Path) -> None:
        super().__init__(name="transformers", daemon=True)
        self.calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self.closing = threading.Event()
        self._spec = spec
        self._log_folder = log_folder
        self._waiting: list[Row] = []
        self._most = math.inf  # tokens of a batch, padding and answers included; known after the first that was too big

    def run(self) -> None:
        log = self._log_folder / "transformers.log"
        error: Exception = ProviderError("server", "the model was closed")
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with messages_to(log):
                self._serve(loaded(self._spec, self._log_folder, log))
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

    def _serve(self, model: Weights) -> None:
        try:
            while self._takes_calls(model):
                self._compute(model, batch_of(self._waiting, self._spec.slots, self._most))
                self._waiting = [row for row in self._waiting if not row.answered]
        finally:
            del model
            free_memory()

    def _takes_calls(self, model: Weights) -> bool:
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

    def _compute(self, model: Weights, batch: list[Row]) -> None:
        try:
            model.answer(batch, self.closing)
        except Exception as error:
            logging.getLogger("transformers").error("a batch of %d failed", len(batch), exc_info=True)
            failure = ProviderError("server", f"{model.name}: {in_a_line(error)}")
            if out_of_memory(error):
                self._most = size_of(batch) / 2
                failure = ProviderError("server", f"{model.name}: no memory for {size_of(batch[:1])} tokens")
            if not out_of_memory(error) or len(batch) == 1:
                for row in batch:
                    if not row.answered:
                        row.answer(failure)
        else:
            return
        free_memory()  # only here, where no traceback holds the tensors any more


def batch_of(waiting: Sequence[Row], slots: int, most: float) -> list[Row]:
    """The oldest with those most like it: as many tokens to generate, for they end together, and little padding."""
    oldest = waiting[0]
    alike = [row for row in waiting if row.request.max_tokens == oldest.request.max_tokens]
    alike.sort(key=lambda row: abs(len(row.prompt) - len(oldest.prompt)))  # stable: the oldest stays first
    batch = alike[:slots]
    while len(batch) > 1 and size_of(batch) > most:
        batch = batch[: len(batch) // 2]
    return batch


def size_of(batch: Sequence[Row]) -> int:
    """Tokens that the batch may hold in memory in the end."""
    return len(batch) * (max(len(row.prompt) for row in batch) + max(row.room for row in batch))
