"""A loop's file, checked: what each round generates, trains and evaluates, and what a new model must reach."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from rlaif.backends import ModelSpec
from rlaif.config import Settings, assigned, differences, load_settings, stages_of
from rlaif.documents import check, load
from rlaif.errors import ConfigError
from rlaif.loop.gates import Gates
from rlaif.resources import Kind, find
from rlaif.stages import Stage
from rlaif.train.data import parsed
from rlaif.train.methods import SAMPLING, checked
from rlaif.train.options import Options as TrlOptions
from rlaif.train.options import options_of
from rlaif.train.settings import Method

Engine = Literal["transformers", "vllm"]
Text = Annotated[str, Field(min_length=1)]
# Any: checked by the command that takes them.
Assignments = dict[str, Any]
ROUND = "{round}"


def _not_ours(options: dict[str, Any]) -> dict[str, Any]:
    if taken := sorted(options.keys() & _OURS):
        raise ValueError(f"'{taken[0]}' is the loop's own to say, not one of `options`")
    return options


# Where things lie, who is asked, and by what: what the loop counts on, or has a field for.
_OURS = {"run", "runs-dir", "out", "model", "method", "policy", "seed", "prompts", "unsafe", "safe", "tasks"}
_OURS |= {"dry-run", "json"}
Options = Annotated[dict[str, Any], AfterValidator(_not_ours)]


class Generate(BaseModel):
    """`rlaif generate` with the round's model.

    `pipeline`, `constitution`, `prompts`, `limit`: as on its command line. `{round}` in `prompts` stands for the
    round's number, for prompts that are new in every round. `set`: the pipeline's settings, as after `--set`.
    `options`: others of the command.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Text = "cai"
    constitution: Text | None = None
    prompts: Text | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    set: Assignments = Field(default_factory=dict)
    options: Options = Field(default_factory=dict)


class TrainStep(BaseModel):
    """One `rlaif train`; each begins with the model of the one before it, the first with the round's.

    A reward model is no model to go on with: it is what the next `grpo` or `rloo` without a `reward` of its own learns
    from, and that begins where the reward model began.
    `recipe`: a recipe of `rlaif train`, by name or file. `set`: TRL's options, as after `--set`. `options`: others of
    the command: `{lora: true, accelerate: zero3}`. `data`: more sources beside the round's own and the replayed ones,
    each as on the command line: `helpful.jsonl=0.5,1000`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method
    recipe: Text | None = None
    set: Assignments = Field(default_factory=dict)
    options: Options = Field(default_factory=dict)
    data: tuple[Text, ...] = ()

    @property
    def needs_reward(self) -> bool:
        return self.method in SAMPLING and "reward" not in self.options

    def writes_adapter(self) -> bool:
        """Unless it is told to merge it. Raises ConfigError for a recipe or an option that cannot be used."""
        options, soft = self.trl()
        checked(self.method, options.trl, soft=soft)
        if self.options.get("full"):
            return False
        return bool(self.options.get("lora")) or options.lora is not False

    def trl(self) -> tuple[TrlOptions, bool]:
        """What recipe and `set` come to, and whether labels are soft. Raises ConfigError."""
        texts = [text for text in arguments(self.set, {}) if text != "--set"]
        file = self.recipe_file()
        options = options_of(self.method, file, texts)
        named = file is not None and file.stem == f"{self.method}-soft"  # which is what makes it so for the command
        return options, options.soft or bool(self.options.get("soft")) or named

    def recipe_file(self) -> Path | None:
        if self.recipe is None or Path(self.recipe).is_file():
            return None if self.recipe is None else Path(self.recipe)
        return find("pipelines", f"train/{self.recipe}")


class Compare(BaseModel):
    """`rlaif eval compare`: the new model's answers to `prompts` against the last one's and the first one's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: Text = "helpful"
    judge: Text | None = None
    options: Options = Field(default_factory=dict)


class Capability(BaseModel):
    """`rlaif eval capability`: `tasks` by their names there, or its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: tuple[Text, ...] = ()
    options: Options = Field(default_factory=dict)


class Evaluate(BaseModel):
    """What a round's model is measured by, beside the first model and the last; `rlaif eval safety`, and two others.

    `unsafe`, `safe`: prompts that should and should not be refused; the command's own where they are not given.
    `hold_out`: instead of `unsafe`, the share of `generate.prompts` that no round generates from. `allow_seen`: measure
    by prompts of `generate` all the same. `judge`, `classifier`: second opinions on who refuses. `options`: others of
    the command: `{where-safe: label=safe, max-tokens: 256}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unsafe: Text | None = None
    safe: Text | None = None
    hold_out: Annotated[float, Field(gt=0, lt=1)] | None = None
    allow_seen: bool = False
    judge: Text | None = None
    classifier: Text | None = None
    options: Options = Field(default_factory=dict)
    compare: Compare | None = None
    capability: Capability | None = None


class LoopSettings(BaseModel):
    """Everything a loop does. `rounds` may grow and `gates` may change later; all else is the loop's meaning.

    `model`: what the first round begins with, as `rlaif train --model` takes it: a folder, a name on the hub, or
    `local`, the bundled one. `engine` answers with it and its descendants; its own settings go by `generate.set`, like
    `models.policy.slots: 16`. `judge`: judges in `generate`, and compares in `evaluate`.
    `seed`: of the first round; the next ones count up from it, so that each draws other principles.
    `max_failed`: the largest share of a run's records, generated or evaluated, that may fail; more stops the loop.
    `replay`: the share of each earlier round's rows that is trained on again, at most `replay_rows` of them.
    `evaluate: null` measures nothing, and then every round's model is taken.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: Annotated[int, Field(ge=1, le=999)] = 3
    model: Text = "local"
    engine: Engine = "transformers"
    judge: Text | None = None
    seed: int = 0
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.05
    generate: Generate = Generate()
    train: tuple[TrainStep, ...]
    replay: Annotated[float, Field(ge=0, le=1)] = 0.0
    replay_rows: Annotated[int, Field(ge=1)] | None = None
    evaluate: Evaluate | None = Evaluate()
    gates: Gates = Gates()

    @field_validator("train", mode="before")
    @classmethod
    def _method_alone(cls, value: object) -> object:
        steps = value if isinstance(value, (list, tuple)) else [value] if value else []
        return [{"method": one} if isinstance(one, str) else one for one in steps]

    @field_validator("train")
    @classmethod
    def _ends_with_a_policy(cls, steps: tuple[TrainStep, ...]) -> tuple[TrainStep, ...]:
        if not steps:
            raise ValueError("name at least one step, like [sft, dpo]")
        if steps[-1].method == "reward":
            raise ValueError("a reward model is nothing to go on with: add a step after it, like `grpo`")
        rewarded = False
        for step in steps:
            rewarded = rewarded or step.method == "reward"
            if step.needs_reward and not rewarded:
                reward = "a `reward` step before it, or `options: {reward: judge:PROVIDER/MODEL}`"
                raise ValueError(f"{step.method} needs {reward}")
        return steps

    @model_validator(mode="after")
    def _held_out_from_one_set(self) -> LoopSettings:
        if self.evaluate is None or self.evaluate.hold_out is None:
            return self
        if self.evaluate.unsafe is not None:
            raise ValueError("evaluate: `hold_out` makes the unsafe prompts; leave out `unsafe`, or `hold_out`")
        if self.generate.prompts is None or ROUND in self.generate.prompts:
            raise ValueError("evaluate.hold_out: name the set that is split in generate.prompts, one for all rounds")
        return self

    @model_validator(mode="after")
    def _compared_by_someone(self) -> LoopSettings:
        if self.evaluate and self.evaluate.compare and not (self.evaluate.compare.judge or self.judge):
            raise ValueError("evaluate.compare: nobody compares; add `judge: PROVIDER/MODEL`, to it or to the loop")
        return self

    @model_validator(mode="after")
    def _gates_have_figures(self) -> LoopSettings:
        asked = {name for name in self.gates.model_fields_set if getattr(self.gates, name) is not None}
        if asked and self.evaluate is None:
            raise ValueError("`gates` read an evaluation, and `evaluate` is null")
        if "win_rate" in asked and not (self.evaluate and self.evaluate.compare):
            raise ValueError("gates.win_rate reads a comparison: add `compare: {prompts: helpful}` to `evaluate`")
        if "capability_drop" in asked and not (self.evaluate and self.evaluate.capability):
            raise ValueError("gates.capability_drop reads scores: add `capability: {}` to `evaluate`")
        return self

    def policy(self, model: str) -> str:
        """`provider/model` for a folder, a hub's name or `local`."""
        return self.engine if model == "local" else f"{self.engine}/{model}"

    def spec(self, model: str) -> ModelSpec:
        return ModelSpec.model_validate(self.policy(model))


def load_loop(name: str, assignments: Sequence[str] = (), rounds: int | None = None) -> tuple[Path, LoopSettings]:
    """A loop by its file or its bundled name, with `key=value` texts on top. Raises ConfigError.

    A key is a field, or a method and an option of it: `dpo.beta=0.2` is for every DPO step.
    """
    document = load(loop_file(name))
    check(document, LoopSettings)  # the file's own faults are said with their lines
    changes = assigned(assignments) | ({} if rounds is None else {"rounds": rounds})
    if not changes:
        return document.path, check(document, LoopSettings)
    data = deepcopy(document.data)
    for path, value in changes.items():
        _assign(data, path, value)
    try:
        return document.path, check(replace(document, data=data), LoopSettings)
    except ConfigError as error:
        raise ConfigError(f"with {', '.join(changes)} as given:\n{error}") from None


def pipeline_of(settings: LoopSettings) -> tuple[Settings, list[tuple[str, Stage]]]:
    """What `rlaif generate` will make of it, but for the model and the prompts of a round. Raises ConfigError."""
    asked = settings.generate
    found = load_settings(asked.pipeline, {}, [text for text in arguments(asked.set, {}) if text != "--set"])
    return found, stages_of(found, allow_code=bool(asked.options.get("allow-code")))


def loop_file(name: str) -> Path:
    """A path that is a file wins, then the bundled loop of this name."""
    return find("pipelines", name if Path(name).is_file() else f"loop/{name}")


def contents(settings: LoopSettings) -> dict[str, str]:
    """What the files that the settings name hold, as hashes; a file that is another one every round is left out."""
    return {where: _digest(find(kind, name)) for where, kind, name in _files(settings) if ROUND not in name}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:  # Any: plain JSON
    """`path: old -> new` for all that makes two loops different; fewer rounds do, more don't."""
    free = ("gates", "rounds")
    both = [{key: value for key, value in one["settings"].items() if key not in free} for one in (old, new)]
    lines = differences(both[0], both[1])
    for where in sorted(old["contents"].keys() | new["contents"].keys()):
        if where not in "".join(lines) and old["contents"].get(where) != new["contents"].get(where):
            lines.append(f"{where}: what is in it has changed")
    return lines


def arguments(assignments: Assignments, options: Options) -> Iterator[str]:
    """As a command takes them: `--set name=value`, `--name value`, once for each item of a list; `--name` for true."""
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                yield f"--{name}"
            elif one is not None and one is not False:
                yield from (f"--{name}", str(one))
    for name, value in assignments.items():
        # Values are read as YAML, of which JSON is a part.
        yield from ("--set", f"{name}={value if isinstance(value, str) and value else json.dumps(value)}")


def _files(settings: LoopSettings) -> Iterator[tuple[str, Kind, str]]:
    """(setting, kind, name) of each that is a file: bundled, or one of the user's."""
    yield "generate.pipeline", "pipelines", settings.generate.pipeline
    if settings.generate.constitution is not None:
        yield "generate.constitution", "constitutions", settings.generate.constitution
    for step in settings.train:
        if step.recipe is not None:
            yield f"train.{step.method}.recipe", "pipelines", str(step.recipe_file())
        for file in (parsed(one).source.partition("#")[0] for one in step.data):
            if Path(file).is_file():
                yield f"train.{step.method}.data {file}", "data", file
    sets: list[tuple[str, str | None]] = [("generate.prompts", settings.generate.prompts)]
    if settings.evaluate is not None:
        sets += [("evaluate.unsafe", settings.evaluate.unsafe), ("evaluate.safe", settings.evaluate.safe)]
        if settings.evaluate.compare is not None:
            sets.append(("evaluate.compare.prompts", settings.evaluate.compare.prompts))
    for where, name in sets:
        if name is not None and not name.startswith("hf://"):
            yield where, "data", name


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _assign(data: dict[str, Any], path: str, value: object) -> None:
    """Put `value` at a dotted path; a method stands for every training step of it, and its rest is an option."""
    head, _, rest = path.partition(".")
    steps = data["train"] if isinstance(data["train"], list) else [data["train"]]
    data["train"] = steps = [{"method": one} if isinstance(one, str) else one for one in steps]
    methods = [step["method"] for step in steps]
    if head in methods and rest:
        for step in steps:
            if step["method"] == head:
                step["set"] = {**(step.get("set") or {}), rest: value}
        return
    if head not in LoopSettings.model_fields or (head == "train" and rest):
        known = [*dict.fromkeys(methods), *LoopSettings.model_fields]
        near = get_close_matches(head, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near and near[0] != head else f"there are: {', '.join(known)}"
        raise ConfigError(f"--set {path}: no field or training step '{head}' that has one; {hint}")
    _put(data, path.split("."), value, path)


def _put(data: dict[str, Any], parts: Sequence[str], value: object, whole: str) -> None:
    head, *rest = parts
    if not rest:
        data[head] = value
    elif head == "set":  # its names are dotted themselves
        data[head] = {**(data.get(head) or {}), ".".join(rest): value}
    else:
        child = data.get(head)
        if child is not None and not isinstance(child, dict):
            raise ConfigError(f"--set {whole}: '{head}' has no fields")
        data[head] = child = {} if child is None else child
        _put(child, rest, value, whole)
