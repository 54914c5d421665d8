"""From a pipeline file and the command line to checked settings, and to the fingerprint of their meaning."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rlaif.backends import BATCHES, ModelSpec, identity_of, short_form
from rlaif.constitution import Constitution
from rlaif.documents import Document, check, load
from rlaif.errors import ConfigError
from rlaif.export.settings import ExportSettings
from rlaif.judges import Comparer
from rlaif.judges.code import CodeComparer
from rlaif.judges.reward import RewardModel
from rlaif.resources import find
from rlaif.source import Prompts, fingerprint
from rlaif.stages import Stage
from rlaif.stages.contrast import Contrast
from rlaif.stages.filter import Filter
from rlaif.stages.judge import Judge, Rate
from rlaif.stages.revise import Revise
from rlaif.stages.sample import Sample
from rlaif.templates import Templates
from rlaif.types import KEY_VERSION

LOCAL = ModelSpec(provider="local")
_Base = TypeVar("_Base", bound=BaseModel)


class CodeStage(BaseModel):
    """A stage of the user's own: `- package.module:Class: {settings}` in a pipeline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    settings: dict[str, Any] = Field(default_factory=dict)  # Any: checked by the class itself


class StageEntry(BaseModel):
    """One item of `stages:`, a mapping of the stage's kind to its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample: Sample | None = None
    contrast: Contrast | None = None
    revise: Revise | None = None
    filter: Filter | None = None
    judge: Judge | None = None
    rate: Rate | None = None
    code: CodeStage | None = None

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, value: object) -> object:
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError("a stage is one kind and its settings, like '- sample: {n: 4}'")
        (kind, settings), *_ = value.items()
        settings = {} if settings is None else settings
        if isinstance(kind, str) and ":" in kind:
            return {"code": {"code": kind, "settings": settings}}
        return {kind: settings}

    @property
    def kind(self) -> str:
        return next(iter(self.model_fields_set))


class RayCluster(BaseModel):
    """Where `--executor ray` runs; no part of a run's meaning.

    `address`: `local` for a cluster of this machine alone, which lives as long as the run; `auto` for the one this
    machine belongs to; or HOST:PORT. `cpus` and `gpus` are each worker's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = "local"
    workers: Annotated[int, Field(ge=1)] = 2
    cpus: Annotated[float, Field(ge=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0


class Settings(BaseModel):
    """Everything a run is made from. Limits, window, turns, prices and `export` are no part of its meaning.

    `prices`: a file of prices that come before the bundled ones.
    `one_engine_at_a_time`: of the models that run in this machine's memory (local, vllm, transformers, reward) only
    one is loaded; they take turns, pass by pass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    constitution: str = "safety"
    prompts: Annotated[tuple[Prompts, ...], Field(min_length=1)] = (Prompts(path="redteam"),)
    models: dict[str, ModelSpec] = Field(default_factory=lambda: {"policy": LOCAL, "judge": LOCAL})
    templates: dict[str, str] = Field(default_factory=dict)
    stages: Annotated[tuple[StageEntry, ...], Field(min_length=1)]
    export: ExportSettings = ExportSettings()
    seed: int = 0
    limit: Annotated[int, Field(ge=1)] | None = None
    window: Annotated[int, Field(ge=1)] | None = None  # records under way at once; follows what the models take
    one_engine_at_a_time: bool = True
    ray: RayCluster = RayCluster()
    prices: str | None = None

    @field_validator("prompts", mode="before")
    @classmethod
    def _path_alone(cls, value: object) -> object:
        sets = value if isinstance(value, (list, tuple)) else [value]
        return [{"path": one} if isinstance(one, str) else one for one in sets]

    @field_validator("prompts")
    @classmethod
    def _told_apart(cls, sets: tuple[Prompts, ...]) -> tuple[Prompts, ...]:
        if len({one.label for one in sets}) < len(sets):
            raise ValueError("two sets have one name; give them a `name:` each")
        return sets


def load_settings(pipeline: str, options: Mapping[str, object], assignments: Sequence[str] = ()) -> Settings:
    """The settings of a pipeline file with the command line's on top.

    Args:
        pipeline: bundled name or path.
        options: dotted path -> value, None for what was not given: {"models.judge": "openai/gpt-x"}.
        assignments: `key=value` texts; a key begins with a stage's kind or a top-level field.
    """
    document = load(find("pipelines", pipeline))
    changes = {path: value for path, value in options.items() if value is not None}
    return changed(document, changes | assigned(assignments))


def batched(settings: Settings) -> Settings:
    """The same with every model in batches whose provider has them. Raises ConfigError if none has."""
    able = {role: spec for role, spec in settings.models.items() if spec.provider in BATCHES}
    if not able:
        raise ConfigError(f"--batch: no model of this run has a batch API; those of {' and '.join(BATCHES)} have")
    try:
        specs = {role: ModelSpec.model_validate(spec.model_dump() | {"batch": True}) for role, spec in able.items()}
    except ValidationError as error:
        raise ConfigError(f"--batch: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return settings.model_copy(update={"models": {**settings.models, **specs}})


def assigned(assignments: Sequence[str]) -> dict[str, object]:
    """`key=value` texts as dotted path -> value, the values read as YAML."""
    return dict(map(_parsed, assignments))


def changed(document: Document, changes: Mapping[str, object]) -> Settings:
    """The document as settings, with `changes` (dotted path -> value) on top."""
    settings = check(document, Settings)
    if not changes:
        return settings
    data = deepcopy(document.data)
    if any(path.startswith("models.") for path in changes):
        data.setdefault("models", {"policy": "local", "judge": "local"})  # what the file left to the default
    for path, value in changes.items():
        _assign(data, path.split("."), value, path)
    try:
        return check(replace(document, data=data), Settings)
    except ConfigError as error:
        # Names only: a value may hold a password.
        raise ConfigError(f"with {', '.join(changes)} as given:\n{error}") from None


def stages_of(settings: Settings, *, allow_code: bool) -> list[tuple[str, Stage]]:
    """(name, stage) in order; a kind used twice is numbered: filter, filter-2. Checks the model roles."""
    stages: list[tuple[str, Stage]] = []
    for entry in settings.stages:
        kind = entry.kind
        stage = _stage(entry, allow_code)
        name = entry.code.code.rpartition(":")[2].lower() if entry.code is not None else kind
        earlier = sum(other.partition("-")[0] == name for other, _ in stages)
        known = [one.label for one in settings.prompts]
        by = stage.by if isinstance(stage, Judge) else ()
        scorers = {judge.model for judge in by if isinstance(judge, RewardModel)}
        for label in stage.only:
            if label not in known:
                there = ", ".join(known)
                raise ConfigError(
                    f"stage '{name}' is only for the prompts '{label}', and there are {there}; "
                    f"name yours so with --set prompts.name={label}, or say --set {name}.only=[{known[0]}]"
                )
        for role in stage.roles():
            if role not in settings.models:
                raise ConfigError(f"stage '{name}' asks model '{role}'; models: has {', '.join(settings.models)}")
            if settings.models[role].provider == "reward" and role not in scorers:
                raise ConfigError(
                    f"stage '{name}' asks model '{role}', a reward model, which only gives scores; "
                    f"judge with it: by: {{kind: reward, model: {role}}}"
                )
        stages.append((f"{name}-{earlier + 1}" if earlier else name, stage))
    return stages


def asked_roles(stages: Sequence[tuple[str, Stage]]) -> list[str]:
    """The model roles that the stages ask, in the order of the first question."""
    return list(dict.fromkeys(role for _, stage in stages for role in stage.roles()))


def meaning(
    settings: Settings, stages: Sequence[tuple[str, Stage]], constitution: Constitution, templates: Templates
) -> dict[str, Any]:
    """What the records of a run depend on, as plain values; two runs with equal meanings are one run."""
    asked = asked_roles(stages)
    return {
        "constitution": {
            "name": constitution.name,
            "version": constitution.version,
            "licence": constitution.licence,
            "language": constitution.language,
            "hash": constitution.fingerprint,
        },
        "prompts": _prompts(settings),
        "templates": templates.fingerprint,
        "models": {
            role: _model(spec) | ({"fallback": _model(spec.fallback)} if spec.fallback else {})
            for role, spec in settings.models.items()
            if role in asked
        },
        "stages": [{entry.kind: getattr(entry, entry.kind).model_dump(mode="json")} for entry in settings.stages],
        "seed": settings.seed,
        "key_version": KEY_VERSION,
    }


def _model(spec: ModelSpec) -> dict[str, Any]:
    return {"identity": identity_of(spec), "extra_body": spec.extra_body, "headers": spec.headers}


def _prompts(settings: Settings) -> dict[str, Any]:
    """The sets' names and contents; of several, how they are mixed is a part of what is read."""
    if len(settings.prompts) == 1:
        return {"file": settings.prompts[0].label, "hash": fingerprint(settings.prompts[0])}
    labels = [one.label for one in settings.prompts]
    shares = [f"{fingerprint(one)}:{one.share:g}" for one in settings.prompts]
    if any(getattr(entry, entry.kind).only for entry in settings.stages if entry.code is None):
        shares = [f"{label}={share}" for label, share in zip(labels, shares, strict=True)]  # stages know them by name
    return {"file": ", ".join(labels), "hash": " ".join(shares)}


def differences(old: object, new: object, path: str = "") -> list[str]:
    """`path: old -> new` for every value that two meanings disagree on.

    A setting that the older one has not is none if it is empty: it came later, and empty means as before.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        new = {key: value for key, value in new.items() if key in old or value not in (None, [], {}, "")}
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{path}[{i}]")]
    return [] if old == new else [f"{path}: {old} -> {new}"]


def _parsed(assignment: str) -> tuple[str, object]:
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {assignment}: write key=value, like --set sample.n=2")
    try:
        return path.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {assignment}: the value is not YAML: {error}") from error


def _assign(data: Any, path: Sequence[str], value: object, whole: str) -> None:
    """Put `value` at a dotted path; a stage's kind stands for every stage of that kind."""
    head, *rest = path
    stages = data["stages"] if isinstance(data["stages"], list) else []
    kinds = [entry for entry in stages if head in (entry if isinstance(entry, dict) else [entry])]
    if kinds and not rest and head not in Settings.model_fields:
        raise ConfigError(f"--set {whole}: name a setting of the stage too, like --set {head}.NAME=VALUE")
    if kinds and rest:
        for i, entry in enumerate(stages):
            if entry == head:
                stages[i] = entry = {head: {}}
            if isinstance(entry, dict) and head in entry:
                entry[head] = entry[head] or {}
                _put(entry[head], rest, value, whole)
        return
    if head not in Settings.model_fields:
        known = list(dict.fromkeys(next(iter(e)) if isinstance(e, dict) else str(e) for e in stages))
        near = get_close_matches(head, [*known, *_SETTABLE], n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ";"
        there = f"stages: {', '.join(known)}; fields: {', '.join(_SETTABLE)}"
        raise ConfigError(f"--set {whole}: no stage or field '{head}'{hint} {there}")
    _put(data, path, value, whole)


_SETTABLE = [name for name in Settings.model_fields if name not in ("name", "stages")]


def _put(data: dict[str, Any], path: Sequence[str], value: object, whole: str) -> None:
    *inner, last = path
    for depth, part in enumerate(inner):
        child = data.get(part)
        if isinstance(child, (list, tuple)) and depth == 0 and part in ("prompts", "by"):
            if len(child) > 1:
                what = "sets of prompts" if part == "prompts" else "judges"
                raise ConfigError(f"--set {whole}: there are several {what}; edit the pipeline's file")
            child = child[0]
        if path[0] == "prompts" and depth == 0:
            child = {"path": child} if isinstance(child, str) else child
        elif isinstance(child, str) and path[0] == "models" and depth == 1:
            try:
                child = short_form(child)
            except ValueError as error:
                raise ConfigError(f"{'.'.join(path[:2])}: {error}") from None
        if child is not None and not isinstance(child, dict):
            raise ConfigError(f"--set {whole}: '{part}' has no fields")
        data[part] = data = child if child is not None else {}
    data[last] = value


def _stage(entry: StageEntry, allow_code: bool) -> Stage:
    if entry.code is not None:
        return _from_code(f"stage '{entry.code.code}'", entry.code.code, entry.code.settings, Stage, allow_code)  # type: ignore[type-abstract]
    stage: Stage = getattr(entry, entry.kind)
    if not isinstance(stage, Judge):
        return stage
    judges = tuple(
        _from_code(f"judge '{judge.code}'", judge.code, judge.settings, Comparer, allow_code)  # type: ignore[type-abstract]
        if isinstance(judge, CodeComparer)
        else judge
        for judge in stage.by
    )
    return stage.model_copy(update={"by": judges})


def _from_code(what: str, code: str, settings: Mapping[str, Any], base: type[_Base], allow_code: bool) -> _Base:
    """Import a class of the user's; only with leave, since a YAML file may come from anywhere."""
    if not allow_code:
        raise ConfigError(f"{what} is code: run it with --allow-code if you trust this file")
    module, _, name = code.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{what} cannot be imported: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ConfigError(f"{what} is no subclass of {base.__module__}.{base.__name__}")
    try:
        return cls.model_validate(settings)
    except TypeError as error:  # a method is missing
        raise ConfigError(f"{what}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = f", field '{'.'.join(map(str, first['loc']))}'" if first["loc"] else ""
        raise ConfigError(f"{what}{field}: {first['msg'].removeprefix('Value error, ')}") from error
