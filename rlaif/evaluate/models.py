"""The models of an evaluation: `provider/model` as everywhere, or a folder that training wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from rlaif.backends import ModelSpec, identity_of
from rlaif.backends.hf_folder import base_of
from rlaif.errors import ConfigError
from rlaif.models import display_name

# Of short answers so many at once: a model of 135M takes half the processor's time a token that it takes with 4.
SLOTS = 16
_WITH_ADAPTER = ("transformers", "vllm")


@dataclass(frozen=True, slots=True)
class Model:
    """`role` is what settings call it: m1, m2 ... in the order given; `name` is unique among these."""

    role: str
    name: str
    identity: str
    spec: ModelSpec


def models_of(given: Sequence[str]) -> tuple[Model, ...]:
    """Raises ConfigError for what is no model, and for one that is named twice."""
    if twice := next((text for i, text in enumerate(given) if text in given[:i]), None):
        raise ConfigError(f"{twice} is named twice; name each model once")
    specs = [spec_of(text) for text in given]
    names = [display_name(spec) for spec in specs]
    # Folders of one name are told apart by where they lie.
    names = [text if names.count(name) > 1 else name for text, name in zip(given, names, strict=True)]
    return tuple(
        Model(f"m{i}", name, identity_of(spec), spec)
        for i, (name, spec) in enumerate(zip(names, specs, strict=True), 1)
    )


def run_name(kind: str, *models: str) -> str:
    """What a run is called after, as a folder may be."""
    plain = re.sub(r"[^\w.+-]+", "-", "+".join(Path(model).name for model in models))[:60].strip("-.+")
    return f"{kind}-{plain or 'models'}"


def judge_of(text: str) -> Model:
    spec = spec_of(text)
    return Model("judge", display_name(spec), identity_of(spec), spec)


def spec_of(text: str) -> ModelSpec:
    """A folder is asked by transformers, one of an adapter with its base. Raises ConfigError."""
    form = f"transformers/{text}" if Path(text).expanduser().is_dir() else text
    try:
        spec = ModelSpec.model_validate(form)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{message}; or give the folder of a model") from None
    folder = Path(spec.model).expanduser()
    if spec.provider in _WITH_ADAPTER and (folder / "adapter_config.json").is_file():
        spec = spec.model_copy(update={"model": base_of(folder), "lora": str(folder)})
    return spec.model_copy(update={"slots": SLOTS}) if spec.provider == "transformers" else spec
