"""The watch over a training, a callback of transformers: writes metrics.jsonl, warns, and may stop it or move beta."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any  # transformers and TRL ship no types that mypy may see here

from transformers import TrainerCallback

from rlaif.errors import ConfigError
from rlaif.train import lines
from rlaif.train.health import MEASURED, Health, drift, next_beta
from rlaif.train.settings import WatchSettings


class HealthWatch(TrainerCallback):  # type: ignore[misc]  # Any, when transformers is not looked at
    """`trainer` is set when there is one; `seconds` is what the watch itself took.

    All processes of a training see the same figures, as TRL gathers them, and decide the same; the main one writes.
    """

    def __init__(self, folder: Path, method: str, settings: WatchSettings) -> None:
        self.trainer: Any = None
        self.seconds = 0.0
        self._folder, self._method, self._settings = folder, method, settings
        self._health = Health(method, settings)
        self._first_beta: float | None = None
        self._began = perf_counter()  # moved back by what earlier starts of this training took

    @property
    def warnings(self) -> list[str]:
        return [warning.text for warning in self._health.warnings]

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What is past the checkpoint that training goes on from is done anew, and said anew."""
        begun = perf_counter()
        keep = lines.cut if state.is_world_process_zero else lines.upto
        kept = keep(self._folder, state.global_step)
        self._health.replay(kept)
        self._first_beta = self._beta
        if self._settings.adaptive_beta:
            if not self._first_beta or self._method not in MEASURED:
                raise ConfigError(f"watch.adaptive_beta: {self._method} has no beta, or it is 0; leave it out")
            if betas := [line["beta"] for line in kept if line.get("beta")]:
                self.trainer.beta = betas[-1]
        self.seconds += perf_counter() - begun
        self._began = perf_counter() - (kept[-1]["time_s"] if kept else 0.0)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        begun = perf_counter()
        figures = {name: value for name, value in logs.items() if isinstance(value, (int, float))}
        beta = self._beta
        more = {"beta": beta, "drift": drift(self._method, logs, beta)}
        line = {
            "step": state.global_step,
            "max_steps": state.max_steps,
            "time_s": round(begun - self._began, 3),
            **figures,
            **{name: value for name, value in more.items() if value is not None},
        }
        new = self._health.see(line)
        if new:
            line["warnings"] = [warning.plain() for warning in new]
            control.should_training_stop |= self._settings.stop
        if state.is_world_process_zero:
            lines.append(self._folder, line)
        far = self._health.drift
        if self._settings.adaptive_beta and beta and self._first_beta and far is not None and "loss" in logs:
            self.trainer.beta = next_beta(beta, far, self._settings.kl_ceiling / 2, self._first_beta)
        self.seconds += perf_counter() - begun

    @property
    def _beta(self) -> float | None:
        beta = getattr(self.trainer, "beta", None)  # not every trainer of TRL has one
        return None if beta is None else float(beta)
