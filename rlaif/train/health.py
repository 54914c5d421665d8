"""What goes wrong in a training, told from the figures it logs: smoothed, after a start phase, each thing once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif.train.settings import WatchSettings

ONLINE = ("grpo", "rloo")
MEASURED = ("dpo", "kto", *ONLINE)  # their distance from the reference, if beta is not 0
FEWEST = 3  # lines whose mean says anything

# What is watched, each under the names by which TRL's trainers log it; the second is RewardTrainer's.
FIGURES: Mapping[str, tuple[str, ...]] = {
    "margin": ("rewards/margins", "margin"),
    "accuracy": ("rewards/accuracies", "accuracy"),
    "drift": ("drift",),
    "length": ("completions/mean_length",),
    "cut_off": ("completions/clipped_ratio",),
    "no_signal": ("frac_reward_zero_std",),
}
_TEXTS: Mapping[str, str] = {
    "margin": "the reward margin is {value:.3g}, under {limit:g}: chosen and rejected are hardly told apart; train "
    "longer, raise the learning rate, or look at the labels (rlaif lint, rlaif judge audit)",
    "accuracy": "the preference accuracy is {value:.2f}, under {limit:g}: little better than a coin; look at the "
    "labels (rlaif judge audit), use soft labels, or raise the learning rate",
    "drift": "{value:.3g} nats a response from the reference, over {limit:g}: raise beta, lower the learning rate, or "
    "train less",
    "length": "responses are {value:.0f} tokens long and began at {limit:.0f}: the reward may pay for length; look at "
    "some",
    "cut_off": "{value:.0%} of the responses hit max_completion_length: what is rewarded is no whole answer; raise it",
    "no_signal": "in {value:.0%} of the groups all rewards are equal, and nothing is learned from them: raise the "
    "temperature or num_generations, or take a reward with more grades",
    "gradient": "the gradient norm is {value:.3g}, over ten times the usual {limit:.3g}: lower the learning rate or "
    "warm up longer",
    "not_a_number": "'{figure}' is not a number: the weights are probably lost; lower the learning rate, or look for "
    "empty responses (rlaif lint)",
    "plateau": "the {figure} is no better than half the training ago ({value:.4g} now, {limit:.4g} then): more steps "
    "like these change little",
    "overfitting": "eval_loss is {value:.4g} after a best of {limit:.4g}: the model learns the rows by heart; train "
    "fewer epochs",
}


@dataclass(frozen=True, slots=True)
class HealthWarning:
    """`value` is the figure and `limit` what it is held against; NaN has neither."""

    name: str
    step: int
    value: float | None
    limit: float | None
    text: str

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def figure(line: Mapping[str, Any], name: str) -> float | None:
    """A figure of FIGURES, or any other by its own name; None if the line has none, or one that is no number."""
    found = next((line[key] for key in FIGURES.get(name, (name,)) if key in line), None)
    return float(found) if isinstance(found, (int, float)) and math.isfinite(found) else None


def drift(method: str, logs: Mapping[str, Any], beta: float | None) -> float | None:
    """How far the policy is from its reference, nats a response.

    DPO has no samples of the policy: here it is the size of the mean log ratio on the chosen responses, which TRL logs
    times beta. KTO logs an estimate of its own; GRPO and RLOO one that is a mean over tokens.
    """
    if method == "dpo":
        reward = figure(logs, "rewards/chosen")
        return abs(reward) / beta if reward is not None and beta else None
    kl = figure(logs, "kl")
    if kl is None or method == "kto":
        return kl
    length = figure(logs, "length")
    return kl * length if length is not None else None


def next_beta(beta: float, drift: float, target: float, first: float) -> float:
    """The controller of Ziegler et al. 2019, section 2.2: at most 2 % a logging step, and ten times either way."""
    error = max(-0.2, min(0.2, (drift - target) / target))
    return max(first / 10, min(first * 10, beta * (1 + 0.1 * error)))


# Others may be NaN in good health: a reward function that has no say in a batch. transformers hides a loss of NaN (it
# logs another), so what comes of it is here too.
_VITAL = {"loss", "train_loss", "eval_loss", "grad_norm", "rewards/margins", "rewards/chosen", "margin", "reward", "kl"}
_Found = tuple[str, float | None, float | None]


class Health:
    """Judges a training's lines one after the other; after a resume, the lines that are kept are seen again first.

    After the first `start` of the steps, the mean of the last `window` lines must be past a limit `patience` times in a
    row; a training too short for that is judged at its end by the lines there are.
    """

    def __init__(self, method: str, settings: WatchSettings) -> None:
        self.warnings: list[HealthWarning] = []
        self._settings = settings
        self._recent = {name: deque[float](maxlen=settings.window) for name in FIGURES}
        self._past = dict.fromkeys([*FIGURES, "gradient"], 0)  # lines in a row
        self._norms: deque[float] = deque(maxlen=100)  # of the gradient, those that are usual
        self._first_length: list[float] = []
        # The loss of a policy gradient says nothing about progress.
        self._goal, self._sign = ("reward", -1.0) if method in ONLINE else ("loss", 1.0)
        self._window: list[float] = []
        self._course: list[float] = []  # the goal's mean, of each full window
        self._best_eval = math.inf

    @property
    def drift(self) -> float | None:
        """Smoothed, in nats a response; None in the start phase."""
        recent = self._recent["drift"]
        return fmean(recent) if recent else None

    def replay(self, lines: Iterable[Mapping[str, Any]]) -> None:
        for line in lines:
            self.see(line)

    def see(self, line: Mapping[str, Any]) -> list[HealthWarning]:
        """What is new. `line` has `step` and `max_steps`; the one with a training's totals has `train_runtime`."""
        step: int = line["step"]
        new: list[HealthWarning] = []
        for name, value, limit in [*self._numbers(line), *self._averages(line), *self._courses(line)]:
            kind, _, what = name.partition(":")
            if all(kind != known.name for known in [*self.warnings, *new]):
                text = _TEXTS[kind].format(value=value, limit=limit, figure=what)
                new.append(HealthWarning(kind, step, value, limit, f"step {step:,}: {text}"))
        self.warnings += new
        return new

    def _numbers(self, line: Mapping[str, Any]) -> Iterator[_Found]:
        """In a single line, from the first on."""
        for name in _VITAL & line.keys():
            if figure(line, name) is None:  # as NaN, or as null when it is read back
                yield f"not_a_number:{name}", None, None
        norm = figure(line, "grad_norm")
        if norm is None:
            return
        usual = median(self._norms) if len(self._norms) >= FEWEST else math.inf
        self._past["gradient"] = self._past["gradient"] + 1 if norm > 10 * usual else 0
        if not self._past["gradient"]:
            self._norms.append(norm)
        elif self._past["gradient"] >= self._settings.patience:
            yield "gradient", norm, usual

    def _averages(self, line: Mapping[str, Any]) -> Iterator[_Found]:
        length = figure(line, "length")
        if length is not None and len(self._first_length) < self._settings.window:
            self._first_length.append(length)
        started = line["step"] > self._settings.start * line["max_steps"]
        last = "train_runtime" in line and line["step"] >= line["max_steps"]  # not one that was stopped
        for name, recent in self._recent.items():
            value = figure(line, name)
            if value is not None and started:
                recent.append(value)
            elif not last:
                continue
            if len(recent) < (FEWEST if last else self._settings.window):
                continue
            mean = fmean(recent)
            limit = self._passed(name, mean)
            self._past[name] = self._past[name] + 1 if limit is not None else 0
            if limit is not None and (last or self._past[name] >= self._settings.patience):
                yield name, mean, limit

    def _passed(self, name: str, mean: float) -> float | None:
        """The limit, if it is passed."""
        first = fmean(self._first_length or [0.0])
        limit, passed = {
            "margin": (self._settings.margin_floor, mean < self._settings.margin_floor),
            "accuracy": (self._settings.accuracy_floor, mean < self._settings.accuracy_floor),
            "drift": (self._settings.kl_ceiling, mean > self._settings.kl_ceiling),
            "length": (first, not first / 2 <= mean <= 2 * first),
            "cut_off": (0.5, mean > 0.5),
            "no_signal": (0.8, mean > 0.8),
        }[name]
        return limit if passed else None

    def _courses(self, line: Mapping[str, Any]) -> Iterator[_Found]:
        """Over the whole training: the goal stands still, or rises again on rows that are only measured."""
        if (loss := figure(line, "eval_loss")) is not None:
            if loss > self._best_eval + 0.05 * abs(self._best_eval):
                yield "overfitting", loss, self._best_eval
            self._best_eval = min(self._best_eval, loss)
        if (goal := figure(line, self._goal)) is None:
            return
        self._window.append(self._sign * goal)
        if len(self._window) < self._settings.window:
            return
        self._course.append(fmean(self._window))
        self._window.clear()
        n = len(self._course)
        if n >= 2 * FEWEST and n % 2 == 0:
            then, now = min(self._course[: n // 2]), min(self._course[n // 2 :])
            if now > then - 0.01 * abs(then):
                yield f"plateau:{self._goal}", self._sign * now, self._sign * then
