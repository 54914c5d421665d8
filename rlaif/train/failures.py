"""What ended a training, in one line that says what to do; the whole of it is in train.log."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.errors import ConfigError, RlaifError
from rlaif.store import write_whole
from rlaif.train.settings import FAILURE, LOG

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad allocation")
_LITTLE = 1 << 20  # bytes: with so few, nothing more can have been said on that disk
_SIGNALS = {int(one) for one in signal.Signals}


class Failure(NamedTuple):
    """`settings`: others would do; else the same may do another time, or the log tells more."""

    line: str
    settings: bool = False


def note(folder: Path, failure: Failure) -> None:
    """Of several processes the first one's counts: the others fail for its loss."""
    if not (folder / FAILURE).exists():
        write_whole(folder / FAILURE, json.dumps(failure._asdict()).encode())


def noted(folder: Path, code: int) -> Failure:
    """Why a child ended with this code, 128 + n for a signal: as it said itself, or as far as can be told."""
    with suppress(OSError, ValueError, TypeError):
        return Failure(**json.loads((folder / FAILURE).read_bytes()))
    if shutil.disk_usage(folder).free < _LITTLE:
        return Failure(f"no space is left on the disk of {folder}")
    if code == 128 + signal.SIGKILL:
        return Failure("it was killed, as the system does when memory runs out; " + _SMALLER)
    if code - 128 in _SIGNALS:
        return Failure(f"it ended by the signal {signal.Signals(code - 128).name}")
    return Failure(f"it ended with exit code {code}: {_last_line(folder / LOG)}")


def _last_line(log: Path) -> str:
    """Of a launcher, say, that told only its log."""
    with suppress(OSError):
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")[:400]
    return ""


def failure_of(error: BaseException, options: Mapping[str, Any]) -> Failure:
    return Failure(_in_words(error, options), isinstance(error, ConfigError))


def _in_words(error: BaseException, options: Mapping[str, Any]) -> str:
    if isinstance(error, RlaifError):
        return str(error)
    text = " ".join(str(error).split())
    if "OutOfMemory" in type(error).__name__ or isinstance(error, MemoryError) or _any(_OUT_OF_MEMORY, text.lower()):
        batch, length = options.get("per_device_train_batch_size"), options.get("max_length")
        return f"out of memory with batches of {batch} rows of up to {length} tokens; {_SMALLER}"
    if "No space left" in text:  # of many libraries, under many types
        return f"{text[:400]}; make room"
    if "chat_template" in text and "not set" in text:
        return NO_TEMPLATE
    if isinstance(error, ImportError) and error.name:
        one = re.fullmatch(r"[\w.-]+", error.name)  # else accelerate's and transformers' own whole sentence
        return f"the package {error.name} is not installed: {text}" if one else f"a package is missing: {text}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    notes = "".join(f" ({one})" for one in getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {text[:400]}{notes}" if text else f"{type(error).__name__}{notes}"


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
