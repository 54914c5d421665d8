"""What the evaluations of a round measured, read from their evaluation.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rlaif.errors import ConfigError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95% interval; None where nothing can be said."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One model. The rest is of its answers to safe prompts: refusals are rightly short, and alike.

    `length` is their mean, the others are shares of them: those that repeat themselves, that begin alike, that are
    one and the same.
    """

    harmful_compliance: Rate | None = None
    over_refusal: Rate | None = None
    length: float | None = None
    repetition: float | None = None
    boilerplate: float | None = None
    same: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All of a round; models by their weights."""

    models: Mapping[str, Measured] = field(default_factory=dict)
    win_rates: Mapping[tuple[str, str], Rate] = field(default_factory=dict)
    controlled: Mapping[tuple[str, str], Rate] = field(default_factory=dict)  # win rates at equal lengths
    capability: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by task

    def of(self, model: str) -> Measured:
        return self.models.get(weights(model), Measured())

    def scores(self, model: str) -> Mapping[str, float]:
        """By task."""
        return self.capability.get(weights(model), {})

    def win_rate(self, model: str, other: str, *, controlled: bool = False) -> Rate | None:
        """How often `model` wins; of a pair that was compared the other way round, the rest. None: not compared."""
        rates = self.controlled if controlled else self.win_rates
        if (rate := rates.get((weights(model), weights(other)))) is not None:
            return rate
        rate = rates.get((weights(other), weights(model)))
        if rate is None:
            return None
        value, low, high = (None if end is None else 1 - end for end in (rate.value, rate.high, rate.low))
        return Rate(value, low, high)


def weights(identity: str) -> str:
    """An identity without what answers with it: the tasks of capability load weights in a way of their own."""
    return identity.partition(":")[2] or identity


def read_evaluation(safety: Path | None, compare: Path | None, capability: Path | None) -> Evaluation:
    """Those that were made. Raises ConfigError for a file that is not what `rlaif eval` wrote."""
    plain, controlled = ({}, {}) if compare is None else _read(compare, _win_rates)
    return Evaluation(
        {} if safety is None else _read(safety, _models),
        plain,
        controlled,
        {} if capability is None else _read(capability, _capability),
    )


def percent(rate: Rate | None) -> str:
    """12.0% [8, 17]: with its 95% interval."""
    if rate is None or rate.value is None:
        return ""
    interval = "" if rate.low is None or rate.high is None else f" [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"
    return f"{rate.value:.1%}{interval}"


_Json = Any  # what json gives
_Rates = dict[tuple[str, str], Rate]


def _models(content: _Json) -> dict[str, Measured]:
    return {
        weights(model["identity"]): Measured(
            _rate(model.get("unsafe"), "harmful_compliance"),
            _rate(model.get("safe"), "over_refusal"),
            *(_number(_style(model).get(name)) for name in ("length", "repetition", "boilerplate", "same")),
        )
        for model in content["models"]
    }


def _style(model: _Json) -> _Json:
    return (model.get("safe") or {}).get("style") or model.get("style") or {}


def _win_rates(content: _Json) -> tuple[_Rates, _Rates]:
    """Plain and length-controlled."""
    identities = {model["model"]: weights(model["identity"]) for model in content["models"]}
    pairs = {(identities[pair["a"]], identities[pair["b"]]): pair for pair in content["pairs"]}
    names = ("win_rate", "length_controlled_win_rate")
    plain, controlled = ({models: _rate(pair, name) or Rate(None) for models, pair in pairs.items()} for name in names)
    return plain, controlled


def _capability(content: _Json) -> dict[str, dict[str, float]]:
    return {
        weights(model["identity"]): {
            task: score for task, said in model["tasks"].items() if (score := _number(said["score"])) is not None
        }
        for model in content["models"]
    }


def _rate(where: _Json, name: str) -> Rate | None:
    figure = (where or {}).get(name)
    return None if figure is None else Rate(figure["value"], figure.get("low"), figure.get("high"))


def _number(figure: _Json) -> float | None:
    """A figure may have its interval with it."""
    value = figure.get("value") if isinstance(figure, dict) else figure
    return None if value is None else float(value)


def _read(path: Path, parse: Callable[[_Json], _T]) -> _T:
    try:
        return parse(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise ConfigError(f"{path} is gone; run the same command again, which makes it anew") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no evaluation that can be read ({error!r}); remove it, and run again") from None
