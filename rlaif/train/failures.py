"""What ended a training, in one line that says what to do; the whole of it is in train.log."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlaif.errors import RlaifError
from rlaif.store import write_whole
from rlaif.train.settings import FAILURE

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad allocation")


_SIGNALS = {int(one) for one in signal.Signals}
INTERRUPTED = 128 + signal.SIGINT  # the exit code of a child that was told to stop, and saved


def note(folder: Path, line: str) -> None:
    """Of several processes the first one's counts: the others fail for its loss."""
    if not (folder / FAILURE).exists():
        write_whole(folder / FAILURE, json.dumps({"error": line}).encode())


def noted(folder: Path, code: int) -> str:
    """Why a child ended with this code, 128 + n for a signal: as it said itself, or as far as can be told."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        return str(json.loads((folder / FAILURE).read_bytes())["error"])
    if code == 128 + signal.SIGKILL:
        return "it was killed, as the system does when memory runs out; " + _SMALLER
    if code - 128 in _SIGNALS:
        return f"it ended by the signal {signal.Signals(code - 128).name}"
    return f"it ended with exit code {code}"


def in_words(error: BaseException, options: Mapping[str, Any]) -> str:
    if isinstance(error, RlaifError):
        return str(error)
    text = " ".join(str(error).split())
    if "OutOfMemory" in type(error).__name__ or isinstance(error, MemoryError) or _any(_OUT_OF_MEMORY, text.lower()):
        batch, length = options.get("per_device_train_batch_size"), options.get("max_length")
        return f"out of memory with batches of {batch} rows of up to {length} tokens; {_SMALLER}"
    if "chat_template" in text and "not set" in text:
        return NO_TEMPLATE
    if isinstance(error, ImportError) and error.name:
        return f"the package {error.name} is not installed: {text}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {text[:400]}" if text else type(error).__name__


NO_TEMPLATE = (
    "the model's tokenizer has no chat template; choose an instruct model, or with sft name a tokenizer that has one: "
    "--set chat_template_path=FOLDER"
)
_SMALLER = (
    "try --set per_device_train_batch_size=1 --set gradient_accumulation_steps=16, --set gradient_checkpointing=true, "
    "or a smaller --set max_length"
)


def _any(words: tuple[str, ...], text: str) -> bool:
    return any(word in text for word in words)
