"""A recipe and `--set` -> the options of TRL's classes and our own: what is whose, checked as far as names tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from rlaif.config import assigned
from rlaif.documents import load
from rlaif.errors import ConfigError
from rlaif.train.methods import METHODS, numbers
from rlaif.train.settings import Method, WatchSettings

# A recipe is what `trl METHOD --config FILE` takes; these of its fields are the command's own arguments.
_DATA = {
    "dataset_name",
    "dataset_config",
    "dataset_train_split",
    "dataset_test_split",
    "dataset_streaming",
    "datasets",
    "streaming",
    "test_split_size",
}
_ARGUMENTS = {
    "model_name_or_path": "--model",
    "output_dir": "--out",
    "use_peft": "--lora or --full",
    "reward_model_name_or_path": "--reward",
    "reward_funcs": "--reward",
    "resume_from_checkpoint": "nothing: the same command goes on from the last checkpoint",
    **dict.fromkeys(_DATA, "DATA"),
}


class Options(NamedTuple):
    """`model`, `lora` and `reward` are None where the recipe leaves them open; `unused` are fields of it."""

    trl: Mapping[str, Any]  # Any: foreign options
    watch: WatchSettings
    online: Mapping[str, Any]  # Any: checked by rlaif.train.online
    soft: bool = False
    experimental: bool = False
    model: str | None = None
    lora: bool | None = None
    reward: str | None = None
    unused: tuple[str, ...] = ()


def options_of(method: Method, recipe: Path | None, assignments: Sequence[str]) -> Options:
    """Raises ConfigError."""
    found = _recipe(recipe) if recipe is not None else {}
    if "reward_funcs" in found:
        raise ConfigError(f"{recipe}: reward_funcs is code, which a recipe does not bring along; see --reward")
    ours: dict[str, dict[str, Any]] = {"watch": {}, "online": {}, "flag": {}}
    options = {name: value for name, value in found.items() if name not in _ARGUMENTS}
    for path, value in assigned(assignments).items():
        _put(method, path, value, options, ours)
    flags = {name: _flag(method, name, value) for name, value in ours["flag"].items()}
    model, lora, reward = found.get("model_name_or_path"), found.get("use_peft"), found.get("reward_model_name_or_path")
    return Options(
        numbers(options),
        _watch(ours["watch"]),
        ours["online"],
        **flags,
        model=None if model is None else str(model),
        lora=None if lora is None else bool(lora),
        reward=None if reward is None else str(reward),
        unused=tuple(sorted((_DATA | {"output_dir", "resume_from_checkpoint"}) & found.keys())),
    )


def _recipe(path: Path) -> dict[str, Any]:
    document = load(path)
    if not isinstance(document.data, dict):
        raise ConfigError(f"{path}:1: a recipe is flat YAML, name: value, as `trl METHOD --config` takes it")
    return document.data


_FLAGS: Mapping[str, Method] = {"soft": "dpo", "experimental": "orpo"}


def _put(method: Method, path: str, value: object, options: dict[str, Any], ours: Mapping[str, dict[str, Any]]) -> None:
    """`METHOD.NAME` and `NAME` are one; `watch.NAME` and `online.NAME` are ours."""
    head, dot, name = path.partition(".")
    if dot and head in METHODS:
        if head != method:
            raise ConfigError(f"--set {path}: the method is {method}; say --set {method}.{name}, or --method {head}")
        return _put(method, name, value, options, ours)
    if dot and head in ("watch", "online"):
        ours[head][name] = value
    elif path in _FLAGS and _FLAGS[path] == method:
        ours["flag"][path] = value
    elif path in _ARGUMENTS:
        raise ConfigError(f"--set {path}: say it with {_ARGUMENTS[path]}")
    elif dot:
        inner = options.setdefault(head, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {path}: '{head}' has no fields")
        options[head] = {**inner, name: value}
    else:
        options[path] = value
    return None


def _flag(method: Method, name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"--set {method}.{name}: it is true or false, not {value}")
    return value


def _watch(values: Mapping[str, Any]) -> WatchSettings:
    try:
        return WatchSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            near = get_close_matches(name, WatchSettings.model_fields, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(WatchSettings.model_fields)}"
            raise ConfigError(f"--set watch.{name}: unknown; {hint}") from None
        raise ConfigError(f"--set watch.{name}: {first['msg'].removeprefix('Value error, ')}") from None
