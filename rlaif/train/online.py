"""What an online method is rewarded by: the settings, and what each `--reward` names."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlaif.backends import ModelSpec, identity_of
from rlaif.constitution import Constitution, load_constitution
from rlaif.errors import ConfigError
from rlaif.judges.aspects import load_aspects
from rlaif.judges.ensemble import Combine
from rlaif.judges.reward import reward_model

JUDGE = "judge:"


class OnlineSettings(BaseModel):
    """`reward` names what scores the completions; TRL sums several by its own `reward_weights`.

    Each is a reward model (a folder or a name on the hub), several of them with commas between, or
    `judge:PROVIDER/MODEL`, which rates by the constitution's principles or by the aspects of `rubric`. A judge that
    needs more than a short form is `judge:NAME` with its fields in `models`.
    `principles`: one drawn for each prompt, so the same for all its completions, or `all` of them.
    `combine` and `penalty` are those of an ensemble, see rlaif.judges.ensemble.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reward: Annotated[tuple[str, ...], Field(min_length=1)]
    constitution: str = "safety"
    rubric: str | None = None
    principles: Literal["draw", "all"] = "draw"
    models: dict[str, ModelSpec] = Field(default_factory=dict)
    combine: Combine = "mean"
    penalty: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    runs_dir: str = "runs"
    seed: int = 0
    max_cost_usd: Annotated[float, Field(gt=0, le=1e9)] | None = None


class Source(NamedTuple):
    """One reward: a judge, or the members of an ensemble. `name` is what its figures are called."""

    name: str
    specs: tuple[ModelSpec, ...]
    judge: bool


def sources(settings: OnlineSettings) -> list[Source]:
    """Raises ConfigError for what names no judge and no reward model."""
    found: list[Source] = []
    for text in settings.reward:
        if text.startswith(JUDGE):
            source = Source("judge", (_judge(text.removeprefix(JUDGE), settings),), True)
        else:
            specs = tuple(reward_model(one.strip()) for one in text.split(","))
            source = Source("reward_model" if len(specs) == 1 else "ensemble", specs, False)
        twice = sum(other.name.rpartition("_")[0] == source.name or other.name == source.name for other in found)
        found.append(source._replace(name=f"{source.name}_{twice + 1}") if twice else source)
    return found


def check_online(settings: OnlineSettings) -> tuple[str, ...]:
    """The identity of each reward, after all checks that need nothing loaded or asked. Raises ConfigError."""
    there = sources(settings)
    named = [",".join(map(identity_of, source.specs)) for source in there]
    if any(source.judge for source in there):
        measure = load_aspects(settings.rubric) if settings.rubric else load_constitution(settings.constitution)
        if isinstance(measure, Constitution):
            measure.draw("", "judge")
        digest = blake2b(measure.model_dump_json().encode(), digest_size=6).hexdigest()
        named = [f"{name} by {digest}" if one.judge else name for name, one in zip(named, there, strict=True)]
    return tuple(named)


def _judge(text: str, settings: OnlineSettings) -> ModelSpec:
    try:
        spec = settings.models.get(text) or ModelSpec.model_validate(text)
    except ValidationError as error:
        raise ConfigError(f"--reward {JUDGE}{text}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    if spec.provider == "reward":
        raise ConfigError(f"--reward {JUDGE}{text}: a reward model is no judge of words; write --reward {spec.model}")
    if spec.batch:
        raise ConfigError(f"--reward {JUDGE}{text}: each step waits for its ratings; leave out `batch`")
    return spec
