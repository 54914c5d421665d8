"""A GGUF file as its metadata and tensors, of the one architecture that is converted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rlaif.errors import ConfigError

if TYPE_CHECKING:
    import gguf

T = TypeVar("T")


class Model(NamedTuple):
    path: Path
    meta: dict[str, Any]  # each key has its own type of value
    tensors: dict[str, gguf.ReaderTensor]

    def need(self, key: str, kind: type[T]) -> T:
        value = self.meta.get(key)
        if not isinstance(value, kind):  # a list of numbers, say: layers that differ from each other
            raise self.refused(f"has {key} = {value!r}, where a plain Llama has one {kind.__name__}")
        return value

    def refused(self, why: str) -> ConfigError:
        return ConfigError(f"{self.path} {why}; give the model's Hugging Face folder or name instead")


def read(weights: Path) -> Model:
    try:
        import gguf
    except ImportError as error:
        raise ConfigError(f"{weights} cannot be read without gguf; run: pip install 'rlaif-kit[local]'") from error
    try:
        reader = gguf.GGUFReader(weights)
        meta = {field.name: field.contents() for field in reader.fields.values()}
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ConfigError(f"{weights} is damaged: {error}") from error
    model = Model(weights, meta, {tensor.name: tensor for tensor in reader.tensors})
    architecture = meta.get("general.architecture")
    if architecture != "llama":
        raise model.refused(f"has the architecture '{architecture}', and only 'llama' can be converted")
    return model
