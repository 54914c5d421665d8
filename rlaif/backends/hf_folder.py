"""A Hugging Face folder as its settings and numbers, read without torch; an adapter is added to them on the way."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlaif.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WEIGHTS, ADAPTER = "*.safetensors", "adapter_model.safetensors"
KINDS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
PREFIX = "base_model.model."  # PEFT's, before each name of the base's
# What an adapter must say to be W + scale * B A for each of its matrices and no more.
PLAIN_LORA: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    **dict.fromkeys(("use_dora", "fan_in_fan_out", "use_bdlora"), (None, False)),
    **dict.fromkeys(("rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication"), (None, {}, [])),
    **dict.fromkeys(("trainable_token_indices", "alora_invocation_tokens", "target_parameters"), (None, {}, [])),
}


class Tensor(NamedTuple):
    file: Path
    kind: str
    shape: tuple[int, ...]
    start: int  # of its bytes, from the beginning of the file
    end: int

    def values(self) -> npt.NDArray[np.float32]:
        import numpy as np

        with self.file.open("rb") as file:
            file.seek(self.start)
            raw = np.frombuffer(file.read(self.end - self.start), KINDS[self.kind])
        if self.kind == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.reshape(self.shape).astype(np.float32, copy=False)


class Folder(NamedTuple):
    """A model's folder, and an adapter's that is a plain LoRA of it."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    lora: dict[str, tuple[float, Tensor, Tensor]]  # for a tensor's name: scale, A and B

    def values(self, name: str) -> npt.NDArray[np.float32]:
        """The numbers in full, the adapter's share included."""
        found = self.tensors[name].values()
        if name in self.lora:
            scale, a, b = self.lora[name]
            found = found + scale * (b.values() @ a.values())
        return found

    def chat_template(self) -> str | None:
        file = self.path / "chat_template.jinja"
        if file.is_file():
            return file.read_text(encoding="utf-8")
        given: str | list[dict[str, str]] | None = read_json(self.path, "tokenizer_config.json").get("chat_template")
        if isinstance(given, list):  # several, by name
            return next((one["template"] for one in given if one["name"] == "default"), None)
        return given

    def refused(self, why: str) -> ConfigError:
        return ConfigError(f"{self.path} {why}; take transformers/MODEL or vllm/MODEL instead")


def opened(path: Path, adapter: Path | None = None) -> Folder:
    """Reads no numbers yet. Raises ConfigError for a folder without a model, or an adapter that is not plain."""
    files = [file for file in sorted(path.glob(WEIGHTS)) if file.name != ADAPTER]
    tensors = {name: tensor for file in files for name, tensor in _header(file).items()}
    if not tensors:
        raise ConfigError(f"{path} holds no model: no *.safetensors in it")
    lora = _lora(adapter) if adapter else {}
    if unknown := sorted(lora.keys() - tensors.keys()):
        raise ConfigError(f"the adapter {adapter} is of another model: {path} has no {unknown[0]}")
    return Folder(path, read_json(path, "config.json"), tensors, lora)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Raises ConfigError."""
    try:
        content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{folder / name} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{folder / name} is no JSON: {error}") from error
    return content


def _header(file: Path) -> dict[str, Tensor]:
    with file.open("rb") as opened_file:
        length = int.from_bytes(opened_file.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(opened_file.read(min(length, file.stat().st_size)))
            header.pop("__metadata__", None)
            found = {
                name: Tensor(
                    file, about["dtype"], tuple(about["shape"]), *(8 + length + at for at in about["data_offsets"])
                )
                for name, about in header.items()
            }
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{file} is damaged: its header cannot be read") from error
    if odd := next((name for name, tensor in found.items() if tensor.kind not in KINDS), None):
        raise ConfigError(f"{file} has {odd} in {found[odd].kind}, known: {', '.join(KINDS)}")
    if max((tensor.end for tensor in found.values()), default=0) > file.stat().st_size:
        raise ConfigError(f"{file} is damaged: it ends before its last tensor does")
    return found


def _lora(folder: Path) -> dict[str, tuple[float, Tensor, Tensor]]:
    config = read_json(folder, "adapter_config.json")
    for field, plain in PLAIN_LORA.items():
        if config.get(field, plain[0]) not in plain:
            raise ConfigError(f"the adapter {folder} has {field} = {config[field]!r}; merge it into its base first")
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    parts = _header(folder / ADAPTER)
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in parts.items():
        target, _, half = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        if half not in ("lora_A", "lora_B"):
            raise ConfigError(
                f"the adapter {folder} has {name}, which is no part of a LoRA; merge it into its base first"
            )
        halves.setdefault(f"{target}.weight", {})[half] = tensor
    return {target: (scale, two["lora_A"], two["lora_B"]) for target, two in halves.items()}


def base_of(adapter: Path) -> str:
    """What an adapter was trained on, "" for the bundled model: by training.json, where there is one.

    Raises ConfigError.
    """
    try:
        base = read_json(adapter, "adapter_config.json").get("base_model_name_or_path")
        if (adapter / "training.json").is_file():
            base = read_json(adapter, "training.json")["base"]["model"]
    except (ConfigError, LookupError, TypeError, AttributeError):
        raise ConfigError(f"{adapter}: its adapter_config.json or training.json is damaged; train it again") from None
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{adapter}: adapter_config.json names no base model; add base_model_name_or_path to it")
    base = base.removeprefix("transformers/")
    return "" if base == "local" else base
