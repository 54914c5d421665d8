"""From a folder of weights to a model in memory, with what the libraries have to say in a file."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlaif.backends import ModelSpec
from rlaif.backends.causal_lm import Model, Weights, in_a_line
from rlaif.backends.reward import Scorer
from rlaif.backends.weights import adapter_folder, model_folder
from rlaif.errors import ProviderError, RlaifError

# What may speak up while a model is loaded or computed.
SPEAKERS = ("transformers", "transformers_modules", "accelerate", "huggingface_hub", "peft", "torch")


# from_pretrained sets torch's default dtype for the whole process; _no_display changes what is the process's too.
_LOADING = threading.Lock()


def loaded(spec: ModelSpec, spare_folder: Path, log: Path) -> Weights:
    """Raises ConfigError for a name that means nothing, ProviderError for what cannot be loaded."""
    name = spec.model or "the bundled model"
    try:
        with _LOADING, _no_display():
            folder = model_folder(spec, spare_folder)
            adapter = adapter_folder(spec)
            tokenizer = _tokenizer(spec, folder, adapter)
            if tokenizer.chat_template is None:
                raise ProviderError("not_found", f"{name} has no chat template; choose an instruct model")
            made = Scorer if spec.provider == "reward" else Model
            return made(name, _weights(spec, folder, adapter), tokenizer, spec.context_tokens)
    except RlaifError:
        raise
    except Exception as error:  # whatever a broken file, a lack of memory or a model's own code raises
        logging.getLogger("transformers").error("%s cannot be loaded", name, exc_info=True)
        message = f"transformers cannot load {name}: {in_a_line(error)}; its log: {log}"
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
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    engine = {name: value for name, value in spec.engine.items() if name != "revision"}  # the folder is of it
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    # Many CPUs compute 16 bits slower than 32.
    engine = {"dtype": "float32" if device == "cpu" else "auto"} | engine
    if spec.provider != "reward":
        model = AutoModelForCausalLM.from_pretrained(folder, **engine)
    else:
        one = {"num_labels": 1} if adapter else {}  # the adapter brings the head
        model, said = AutoModelForSequenceClassification.from_pretrained(
            folder, output_loading_info=True, **one | engine
        )
        headless = bool(said["missing_keys"]) and adapter is None
        if headless or model.config.num_labels != 1:
            why = "it has no head to score with" if headless else f"it gives {model.config.num_labels} numbers, not one"
            raise ProviderError("not_found", f"{spec.model} is no reward model: {why}")
    if "device_map" not in engine:
        model.to(device)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


@contextmanager
def messages_to(file: Path) -> Iterator[None]:
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
