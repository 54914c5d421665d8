"""Which server fits a model: llama.cpp, vLLM or transformers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from rlaif.backends import ModelSpec, Provider, identity_of
from rlaif.backends.gguf import find_weights
from rlaif.backends.hf_folder import base_of, read_json
from rlaif.backends.to_gguf import Precision
from rlaif.errors import ConfigError

Engine = Literal["auto", "vllm", "llama", "transformers"]
PROVIDERS: dict[Engine, Provider] = {"llama": "local", "vllm": "vllm", "transformers": "transformers"}
NEEDS: dict[Engine, tuple[tuple[str, ...], str]] = {
    "llama": (("xllamacpp", "gguf"), "local"),
    "vllm": (("vllm",), "vllm"),
    "transformers": (("torch", "transformers", "aiohttp"), "train"),
}


class Choice(NamedTuple):
    engine: Engine  # never "auto"
    spec: ModelSpec  # which weights; of a folder that llama.cpp is to serve as transformers would load it
    name: str  # what the server calls it
    precision: Precision = "F16"  # of a folder that llama.cpp is to serve

    @property
    def identity(self) -> str:
        """What tells these weights from others; they are read for it the first time. Raises ConfigError."""
        found = identity_of(self.spec)
        if self.engine == "llama" and self.spec.provider == "transformers":
            return f"{found.replace('transformers:', 'llama:', 1)}+{self.precision.lower()}"
        return found


def installed(engine: Engine) -> bool:
    return all(find_spec(module) for module in NEEDS[engine][0])


def has_gpu() -> bool:
    """Of NVIDIA or AMD; asked without importing torch, which takes seconds."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Path("/dev/kfd").exists()
    return bool(subprocess.run([tool, "-L"], capture_output=True, check=False, timeout=60).stdout.strip())


def choice(
    model: str,
    engine: Engine = "auto",
    precision: Precision = "F16",
    *,
    installed: Callable[[Engine], bool] = installed,
    has_gpu: Callable[[], bool] = has_gpu,
) -> Choice:
    """Raises ConfigError for a model that is not there, or a server that is not installed."""
    prefix, _, rest = model.partition("/")
    named = next((engine for engine, provider in PROVIDERS.items() if provider == prefix), None)
    if named and not Path(model).exists():
        model, engine = rest, named if engine == "auto" else engine
    path = Path(model).expanduser()
    lora = None
    if is_gguf(model):
        name = find_weights(model).stem if model else "local"
    elif path.is_dir():
        name = path.resolve().name
        if not (path / "config.json").is_file():
            if not (path / "adapter_config.json").is_file():
                raise ConfigError(f"{path} holds no model: neither config.json nor adapter_config.json is in it")
            model, lora = base_of(path), str(path)
    elif re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model):
        name = model.rpartition("/")[2]
    else:
        raise ConfigError(f"no model '{model}'; known: local, FILE.gguf, a folder of weights or an adapter, OWNER/NAME")
    if engine == "auto":
        engine = _fitting(model, installed, has_gpu)
    if not installed(engine):
        modules, extra = NEEDS[engine]
        raise ConfigError(f"to serve {name} by {engine} takes {', '.join(modules)}: pip install 'rlaif-kit[{extra}]'")
    whole = is_gguf(model) and lora is None
    provider: Provider = "transformers" if engine == "llama" and not whole else PROVIDERS[engine]
    return Choice(engine, ModelSpec(provider=provider, model=model, lora=lora), name, precision)


def _fitting(model: str, installed: Callable[[Engine], bool], has_gpu: Callable[[], bool]) -> Engine:
    if is_gguf(model):
        return "llama"
    gpu = has_gpu()
    if gpu and installed("vllm"):
        return "vllm"
    if not gpu and installed("llama") and _llama(model):
        return "llama"
    return "transformers"


def _llama(model: str) -> bool:
    """Whether the folder becomes a GGUF file; a hub model's is not looked at before it is downloaded."""
    folder = Path(model).expanduser()
    return (folder / "config.json").is_file() and read_json(folder, "config.json").get("model_type") == "llama"


def is_gguf(model: str) -> bool:
    return not model or model.endswith(".gguf")
