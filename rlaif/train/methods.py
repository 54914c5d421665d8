"""The methods of training: TRL's classes for each, the datasets it reads, and our defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from rlaif.errors import ConfigError
from rlaif.train.settings import Method


class Trainer(NamedTuple):
    """`datasets`: the configurations it can read, the best first. `learning_rate`: of full training."""

    config: str
    trainer: str
    datasets: tuple[str, ...]
    learning_rate: float
    options: Mapping[str, Any] = {}  # Any: TRL's options
    module: str = "trl"


# LoRA wants about ten times the learning rate of full training, whatever the method and size (Schulman 2025, "LoRA
# without regret"; the same factor is in TRL's own examples).
LORA_FACTOR = 10.0
EVERYWHERE: Mapping[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "logging_steps": 1,  # the watch reads every step
    "logging_nan_inf_filter": False,  # else a loss of NaN is logged as the last good one
    "save_steps": 0.1,  # of all steps: a killed training loses a tenth
    "save_total_limit": 1,
    "report_to": "none",
    "disable_tqdm": True,
}
_SAMPLED = {"num_generations": 4, "max_completion_length": 256, "temperature": 1.0}

METHODS: dict[Method, Trainer] = {
    "sft": Trainer("SFTConfig", "SFTTrainer", ("sft",), 2e-5, {"max_length": 2048}),
    "dpo": Trainer("DPOConfig", "DPOTrainer", ("preference",), 5e-7, {"beta": 0.1, "max_length": 2048}),
    "kto": Trainer("KTOConfig", "KTOTrainer", ("kto",), 5e-7, {"beta": 0.1, "max_length": 2048}),
    "reward": Trainer(
        "RewardConfig",
        "RewardTrainer",
        ("reward", "preference"),
        1e-5,
        # Pairs fix only differences; this keeps the mean near 0 (Eisenstein et al. 2023, arXiv:2312.09244).
        {"center_rewards_coefficient": 0.01, "max_length": 2048, "lora_task_type": "SEQ_CLS"},
    ),
    "grpo": Trainer("GRPOConfig", "GRPOTrainer", ("prompts", "preference"), 1e-6, {**_SAMPLED, "beta": 0.04}),
    "rloo": Trainer("RLOOConfig", "RLOOTrainer", ("prompts", "preference"), 1e-6, {**_SAMPLED, "beta": 0.05}),
    "orpo": Trainer(
        "ORPOConfig",
        "ORPOTrainer",
        ("preference",),
        8e-6,  # section 6 of Hong et al. 2024, arXiv:2403.07691
        {"beta": 0.1, "max_length": 2048},
        "trl.experimental.orpo",
    ),
}
SAMPLING = ("grpo", "rloo")


def method_of(name: str) -> Method:
    """Raises ConfigError."""
    known = get_args(Method)
    if name == "ppo":
        raise ConfigError("TRL has no PPO any more; --method rloo or grpo do its work without a value model")
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"
        raise ConfigError(f"unknown method '{name}'{hint}")
    return next(method for method in known if method == name)


def datasets_of(method: Method, *, soft: bool) -> tuple[str, ...]:
    return ("preference_soft", "preference") if soft else METHODS[method].datasets


def defaults(method: Method, *, lora: bool, cpu: bool, tests: bool) -> dict[str, Any]:
    """Ours, where the recipe and --set say nothing. `tests`: there are rows to measure on."""
    trainer = METHODS[method]
    machine = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False} if cpu else {}
    adapter = {"lora_target_modules": "all-linear"} if lora else {}
    rate = round(trainer.learning_rate * (LORA_FACTOR if lora else 1), 12)
    measured = {"eval_strategy": "epoch" if tests and method not in SAMPLING else "no"}
    return {**EVERYWHERE, **machine, **adapter, "learning_rate": rate, **measured, **trainer.options}


def checked(method: Method, options: Mapping[str, Any], *, soft: bool = False) -> None:
    """What TRL takes without a word and trains wrong or nothing with. Raises ConfigError."""
    if soft and (given := next((name for name in _OTHER_LOSSES if options.get(name)), None)):
        raise ConfigError(f"soft labels have a loss of their own: leave out {given}, or --soft")
    losses = options.get("loss_type")
    losses = [losses] if isinstance(losses, str) else losses or []
    smoothing = options.get("label_smoothing") or 0.0
    if method == "dpo" and smoothing:
        if "robust" in losses and not 0 <= smoothing < 0.5:
            raise ConfigError(
                f"label_smoothing={smoothing}: the robust loss divides by 1 - 2 * label_smoothing; give the share of "
                "flipped labels, below 0.5"
            )
        if not {"robust", "exo_pair", "aot", "aot_unpaired"} & set(losses):
            raise ConfigError(
                f"label_smoothing={smoothing} does nothing with the loss {', '.join(losses) or 'sigmoid'}; "
                "add --set dpo.loss_type=robust"
            )
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs"):
        if isinstance(value := options.get(name), (int, float)) and value <= 0:
            raise ConfigError(f"{name}={value}: it must be over 0")
    beta = options.get("beta")
    if method in ("dpo", "kto", "orpo") and isinstance(beta, (int, float)) and not beta > 0:
        raise ConfigError(f"beta={beta}: it must be over 0; at 0 nothing is learned, and below it the opposite")
    if method == "kto" and options.get("per_device_train_batch_size") == 1:
        raise ConfigError("KTO compares rows of a batch: per_device_train_batch_size must be 2 or more")


_OTHER_LOSSES = ("loss_type", "loss_weights", "label_smoothing", "f_divergence_type", "ld_alpha", "use_weighting")


def numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """YAML 1.1 reads 5e-7 as text, 5.0e-7 as a number, `no` as false; here all mean what they say."""
    return {
        name: "no" if value is False and name.endswith("_strategy") else float(value) if _is_number(value) else value
        for name, value in options.items()
    }


def _is_number(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)[eE][+-]?\d+", value) is not None
