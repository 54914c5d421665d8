"""What one training is, `training.json`: written by the command for its child, and by the child when it is done."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlaif.backends import ModelSpec
from rlaif.errors import ConfigError
from rlaif.store import write_whole

Method = Literal["sft", "dpo", "kto", "reward", "grpo", "rloo", "orpo"]

FILE = "training.json"
METRICS = "metrics.jsonl"
LOG = "train.log"
CHECKPOINTS = "checkpoints"  # TRL's own folder, while training lasts
DATA = "data"  # train.parquet and test.parquet, while training lasts
STOP = "checkpoints/stop"  # there: the step under way is finished and saved, and the training ends
FAILURE = "checkpoints/failure.json"  # rlaif.train.failures.Failure, from a child that could not go on


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WatchSettings(_Settings):
    """When a training is worth a warning; with `stop` it also ends there.

    After the first `start` of the steps, the mean of the last `window` logged figures is held against the limits, and
    must be past one `patience` times in a row.

    `margin_floor`, `accuracy_floor`: mean rewards/margins and rewards/accuracies that a preference training should
    leave behind. `kl_ceiling`: nats a response from the reference; `adaptive_beta` steers to half of it.
    """

    margin_floor: float = 0.01
    accuracy_floor: Annotated[float, Field(ge=0, le=1)] = 0.55
    kl_ceiling: Annotated[float, Field(gt=0)] = 10.0
    stop: bool = False
    adaptive_beta: bool = False
    start: Annotated[float, Field(ge=0, lt=1)] = 0.2
    window: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    patience: Annotated[int, Field(ge=1)] = 3


class Base(_Settings):
    """What is trained: a folder or hub name as the user gave it, `local` for the bundled model."""

    model: str = "local"
    identity: str = ""  # by the rule of rlaif.backends.weights


class Data(_Settings):
    """One of DATA and what was taken of it. `rows` train, `test_rows` only measure."""

    source: str  # as the user gave it, without =WEIGHT,CAP
    path: str  # the file or folder, or OWNER/NAME of the hub
    config: str | None = None
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    cap: Annotated[int, Field(ge=1)] | None = None
    rows: int = 0
    test_rows: int = 0
    left_out: dict[str, int] = Field(default_factory=dict)  # reason -> rows
    digest: str = ""  # of the rows that train and test


class TrainSettings(_Settings):
    """All that the model depends on; a training that was begun goes on only with equal ones.

    `options`: for TRL's config and its ModelConfig, as the recipe and --set gave them. `online`: those of
    rlaif.train.online, and `rewarded_by` the identity of each reward.
    """

    method: Method
    base: Base = Base()
    data: tuple[Data, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)  # Any: foreign options, checked by TRL's own classes
    soft: bool = False  # DPO on the column `p`
    lora: bool = True
    merge: bool = False  # write full weights, not the adapter
    watch: WatchSettings = WatchSettings()
    online: dict[str, Any] = Field(default_factory=dict)  # Any: checked in rlaif.train.online
    rewarded_by: tuple[str, ...] = ()


class Training(TrainSettings):
    """The settings and what came of them.

    `effective`: every option that TRL was given, our defaults too. `final`: the last numbers it logged, and `mean_loss`
    over all steps. `identity`: what `rlaif generate` files the answers of the trained model under.
    """

    effective: dict[str, Any] = Field(default_factory=dict)
    identity: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    watch_seconds: float = 0.0  # of those, the watch's own
    final: dict[str, float | None] = Field(default_factory=dict)  # None: it was no finite number
    warnings: tuple[str, ...] = ()
    done: bool = False

    @property
    def settings(self) -> TrainSettings:
        return TrainSettings.model_validate(self.model_dump(include=set(TrainSettings.model_fields)))


def read_training(folder: Path) -> Training:
    """Raises ConfigError for a folder that no training wrote."""
    path = folder / FILE
    try:
        return Training.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{folder} holds no training: no {FILE} in it; name another folder") from None
    except (OSError, ValidationError) as error:
        why = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path} cannot be read ({why}); remove {folder}, or name another --out") from None


def write_training(folder: Path, training: TrainSettings) -> None:
    text = json.dumps(plain(training.model_dump(mode="json")), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / FILE, text.encode() + b"\n")


def spec_of(model: str) -> ModelSpec:
    """As the backend `transformers` would read it."""
    return ModelSpec(provider="transformers", model="" if model == "local" else model)


def plain(value: Any) -> Any:  # Any: JSON, or what a library put among it
    """JSON's own types; a number that is none is null, as readers of JSON stumble over NaN."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple() | set():
            return [plain(inner) for inner in value]
        case None | bool() | int() | str():
            return value
    return str(value)
