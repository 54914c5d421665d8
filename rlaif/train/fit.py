"""TRL's trainer built from a training's settings, run from its last checkpoint, and what it made, saved whole."""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any, NamedTuple, get_args, get_type_hints  # torch and others ship no types that mypy may see here

import datasets
import torch
import trl
from pydantic import TypeAdapter, ValidationError
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl.data_utils import common_prefix_length

from rlaif.backends import ModelSpec
from rlaif.backends.weights import identity, model_folder
from rlaif.errors import ConfigError
from rlaif.store import write_whole
from rlaif.train.methods import METHODS, SAMPLING, checked, defaults
from rlaif.train.settings import CHECKPOINTS, DATA, METRICS, STOP, Training, plain, spec_of, write_training
from rlaif.train.watch import HealthWatch
from rlaif.version import __version__

_PACKAGES = ("accelerate", "peft", "torch", "transformers", "trl")


def fit(training: Training, folder: Path) -> bool:
    """Leaves the model, metrics.jsonl and a training.json that is done in `folder`. Raises ConfigError and others.

    False: it was told to stop, and what was reached is in a checkpoint.
    """
    datasets.disable_progress_bars()
    begun = perf_counter()
    rows = _rows(folder)
    plan = _plan(training, folder, tests="test" in rows)
    base = model_folder(spec_of(training.base.model), folder / CHECKPOINTS)
    watch, stop = HealthWatch(folder, training.method, training.watch), _StopWhenTold(folder)
    with _rewards(training, plan, folder) as rewards:
        try:
            trainer = _trainer(training, plan, base, rows, [_NotANumber(), watch, stop], rewards)
        except Exception as error:
            error.add_note(f"the model is {training.base.model}")  # what is wrong with its files names none
            raise
        watch.trainer = trainer
        warnings = _leave_ends_open(trainer, rows)
        warnings += _lengths(trainer, plan, {name: len(part) for name, part in rows.items()})
        before = _seconds(folder)
        trainer.train(resume_from_checkpoint=_last_checkpoint(folder / CHECKPOINTS))
        if stop.told:
            return False
        _save(trainer, folder / "adapter" if training.merge and training.lora else folder)
        warnings += [f"{reward.name}: {n:,} {why}" for reward in rewards for why, n in reward.failures.items()]
    if not trainer.is_world_process_zero():
        return True
    history, steps = trainer.state.log_history, int(trainer.state.global_step)
    warnings += watch.warnings
    watched = round(watch.seconds, 3)
    if training.merge and training.lora:
        tokenizer = trainer.processing_class
        del trainer, watch
        gc.collect()
        _merge(base, folder / "adapter", folder, tokenizer, training)
    done = {
        "effective": plain(plan.options),
        "identity": _identity(training, base, folder),
        "versions": {"rlaif": __version__, "python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
        "steps": steps,
        "seconds": round(before + perf_counter() - begun, 1),
        "watch_seconds": watched,
        "final": plain(_final(history)),
        "warnings": tuple(dict.fromkeys([*training.warnings, *warnings])),
        "done": True,
    }
    write_training(folder, training.model_copy(update=done))
    return True


# --- options ---


class _Plan(NamedTuple):
    """`options` are all that were given to TRL: to `args`, the config, and to `model`, its ModelConfig."""

    options: Mapping[str, Any]
    args: Any
    model: Any


def _plan(training: Training, folder: Path, *, tests: bool) -> _Plan:
    cpu = training.options.get("use_cpu") or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    ours = defaults(training.method, lora=training.lora, cpu=bool(cpu), tests=tests)
    options = {**ours, **training.options}
    checked(training.method, options)
    config = getattr(import_module(METHODS[training.method].module), METHODS[training.method].config)
    known = {field.name for field in fields(config) if field.init}
    of_model = {field.name for field in fields(trl.ModelConfig)} - known
    for name in training.options:
        if name not in known | of_model:
            raise ConfigError(_unknown(name, sorted(known | of_model), config.__name__))
    hints = get_type_hints(trl.ModelConfig) | get_type_hints(config)
    for name, value in training.options.items():
        _check_number(name, value, hints[name])
    for_args = {name: value for name, value in options.items() if name in known}
    for_model = {name: value for name, value in options.items() if name in of_model}
    try:
        model = trl.ModelConfig(**for_model, use_peft=training.lora)
        args = config(**for_args, output_dir=str(folder / CHECKPOINTS))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"TRL refuses these options: {' '.join(str(error).split())}") from error
    if args.eval_strategy != "no" and not tests:
        raise ConfigError(f"eval_strategy={args.eval_strategy.value}: no row of DATA is in a test split; leave it out")
    if training.method != "orpo" or args.model_init_kwargs is None:
        given = args.model_init_kwargs
        given = json.loads(given) if isinstance(given, str) else given or {}
        wanted = {"dtype": model.dtype, "attn_implementation": model.attn_implementation, **given}
        args.model_init_kwargs = {name: value for name, value in wanted.items() if value is not None}
    return _Plan(options, args, model)


def _unknown(name: str, known: Sequence[str], config: str) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"see TRL's {config}"
    return f"unknown option '{name}'; {hint}"


def _check_number(name: str, value: object, hint: Any) -> None:
    """TRL's classes look at no types; what is no number ends somewhere deep, or trains something else."""
    kinds = set(get_args(hint) or (hint,))
    if not kinds <= {int, float, bool, type(None)}:
        return
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        said = " or ".join(dict.fromkeys(one["msg"].removeprefix("Input should be ") for one in error.errors()))
        raise ConfigError(f"--set {name}={value}: it should be {said}") from None


# --- the trainer ---


def _rows(folder: Path) -> dict[str, Any]:
    """The splits that the command wrote, on disk; what TRL makes of them goes with the checkpoints."""
    cache = folder / CHECKPOINTS / "cache"
    return {
        name: datasets.Dataset.from_parquet(str(path), cache_dir=str(cache))
        for name in ("train", "test")
        if (path := folder / DATA / f"{name}.parquet").is_file()
    }


@contextmanager
def _rewards(training: Training, plan: _Plan, folder: Path) -> Iterator[list[Any]]:
    if training.method not in SAMPLING:
        yield []
        return
    from rlaif.train.online import OnlineSettings
    from rlaif.train.rewards import open_rewards, whole_groups

    with ExitStack() as stack:
        yield stack.enter_context(
            open_rewards(
                OnlineSettings.model_validate(training.online),
                folder=folder / CHECKPOINTS,
                name=f"train-{folder.name.removesuffix('.partial')}",
                environment=os.environ,
                whole_groups=whole_groups(plan.args),
                device=str(plan.args.device) if plan.args.world_size > 1 and torch.cuda.is_available() else None,
            )
        )


def _trainer(
    training: Training, plan: _Plan, base: Path, rows: Mapping[str, Any], callbacks: list[Any], rewards: list[Any]
) -> Any:
    method = METHODS[training.method]
    wanted: dict[str, Any] = {
        "model": str(base),
        "args": plan.args,
        "train_dataset": rows["train"],
        "eval_dataset": rows.get("test") if plan.args.eval_strategy != "no" else None,
        "peft_config": trl.get_peft_config(plan.model),
        "callbacks": callbacks,
    }
    if training.method == "orpo":  # an older kind of trainer
        wanted["processing_class"] = AutoTokenizer.from_pretrained(base)
    else:
        wanted["quantization_config"] = trl.get_quantization_config(plan.model)
    if training.method in SAMPLING:
        wanted["reward_funcs"] = rewards
    if training.soft:
        from rlaif.train.soft import SoftDPOTrainer

        return SoftDPOTrainer(**wanted)
    return getattr(import_module(method.module), method.trainer)(**wanted)


class _NotANumber(TrainerCallback):  # type: ignore[misc]  # Any, as transformers is not looked at
    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        loss = logs.get("loss")
        if isinstance(loss, float) and not math.isfinite(loss):
            raise ConfigError(
                f"the loss of step {state.global_step} is {loss}, and the weights are lost with it: lower the "
                f"learning rate (it is {args.learning_rate:g}), or look for empty rows (rlaif lint)"
            )


class _StopWhenTold(TrainerCallback):  # type: ignore[misc]  # Any, as above
    """The step under way is finished and saved."""

    def __init__(self, folder: Path) -> None:
        self.told = False
        self._sign = folder / STOP

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.told = self._sign.exists()
        if args.world_size > 1:  # all stop at the same step, or some wait for the others for ever
            told = torch.tensor(int(self.told), device=args.device)
            torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
            self.told = bool(told)
        control.should_save |= self.told
        control.should_training_stop |= self.told


def _leave_ends_open(trainer: Any, rows: Mapping[str, Any]) -> list[str]:
    """TRL ends every completion; of one that was cut off at its longest, a model would learn to stop there."""
    truncated = sum(rows["train"]["truncated"]) if "truncated" in rows["train"].column_names else 0
    if truncated and (trainer.args.packing or trainer.args.truncation_mode == "keep_end"):  # where each begins is lost
        how = "packing" if trainer.args.packing else "truncation_mode=keep_end"
        return [f"{truncated:,} answers were cut off, and with {how} the model learns to stop where they do"]
    for split in ("train_dataset", "eval_dataset"):
        if truncated and (made := getattr(trainer, split)) is not None:
            given = {"tokenizer": trainer.processing_class, "chat_template": trainer.chat_template}
            setattr(trainer, split, made.map(_without_end, fn_kwargs=given))
    return []


def _without_end(row: Mapping[str, Any], tokenizer: Any, chat_template: str | None) -> dict[str, Any]:
    labels = row["labels"]
    if row["truncated"]:
        both = row["prompt"] + row["completion"]
        if isinstance(both, str):
            ids = tokenizer(both.removesuffix(tokenizer.eos_token))["input_ids"]  # TRL has put it there by now
        else:
            open_ended = {"chat_template": chat_template, "continue_final_message": True}
            ids = tokenizer.apply_chat_template(both, **open_ended)["input_ids"]
        said = common_prefix_length(ids, row["input_ids"])
        labels = labels[:said] + [-100] * (len(labels) - said)
    return {"labels": labels}


def _lengths(trainer: Any, plan: _Plan, given: Mapping[str, int]) -> list[str]:
    """What max_length takes away without a word of TRL's."""
    length = getattr(plan.args, "max_length", None)
    if length is None or getattr(plan.args, "packing", False):
        return []
    said = []
    left = len(trainer.train_dataset)
    if gone := given["train"] - left:
        if not left:
            raise ConfigError(f"all {gone:,} rows are longer than max_length={length} tokens; --set a larger one")
        said.append(f"{gone:,} of {given['train']:,} rows are left out, longer than max_length={length} tokens")
    cut = sum(map(bool, _cut(trainer.train_dataset, length)))
    if cut:
        said.append(f"{cut:,} of {left:,} rows are cut at max_length={length} tokens: their answers have no end")
    return said


def _cut(rows: Any, length: int) -> Iterator[bool]:
    """Whether each row is longer; of SFT's rows, which are cut already, whether it is as long as can be."""
    names = set(rows.column_names)
    if "input_ids" in names:
        yield from (len(ids) >= length for ids in rows["input_ids"])
    elif "prompt_ids" in names:
        sides = [name for name in ("chosen_ids", "rejected_ids", "completion_ids") if name in names]
        for row in rows.select_columns(["prompt_ids", *sides]):
            yield len(row["prompt_ids"]) + max((len(row[side]) for side in sides), default=0) > length


# --- resuming ---


def _last_checkpoint(folder: Path) -> str | None:
    """The newest that is whole. transformers would take one that a kill left half-written; such a one goes."""
    found = [(int(path.name.rpartition("-")[2]), path) for path in folder.glob("checkpoint-*") if _NUMBERED(path.name)]
    for _, path in sorted(found, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_bytes())  # written last
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
        else:
            return str(path)
    return None


_NUMBERED = re.compile(r"checkpoint-\d+").fullmatch


def _seconds(folder: Path) -> float:
    """What earlier starts took, as far as what they logged tells; what is done anew counts twice."""
    try:
        last = (folder / METRICS).read_bytes().splitlines()[-1]
        return float(json.loads(last)["time_s"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0.0


# --- what it made ---


def _save(trainer: Any, to: Path) -> None:
    trainer.save_model(str(to))  # by all processes: each may have a part
    (to / "training_args.bin").unlink(missing_ok=True)  # a pickle, which no reader needs
    config = to / "adapter_config.json"
    if trainer.is_world_process_zero() and config.is_file():
        # peft writes a set: another order, and so another identity, in each process.
        content = json.loads(config.read_bytes())
        in_order = {
            name: sorted(value) if name in _SETS and isinstance(value, list) else value
            for name, value in content.items()
        }
        write_whole(config, json.dumps(in_order, indent=2, sort_keys=True).encode())


_SETS = ("target_modules", "exclude_modules")


def _merge(base: Path, adapter: Path, to: Path, tokenizer: Any, training: Training) -> None:
    """From the weights on disk, as a reader of the adapter would."""
    from peft import PeftModel

    kind = AutoModelForSequenceClassification if training.method == "reward" else AutoModelForCausalLM
    more = {"num_labels": 1} if training.method == "reward" else {}
    model = kind.from_pretrained(base, dtype="auto", **more)
    if more and model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(to)
    tokenizer.save_pretrained(to)
    shutil.rmtree(adapter)


def _identity(training: Training, base: Path, folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return identity(ModelSpec(provider="transformers", model=str(base), lora=str(folder)))
    return identity(ModelSpec(provider="transformers", model=str(folder)))


def _final(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The last figures of each kind: of the training and of the test rows."""
    final: dict[str, float] = {}
    for line in history:
        if "loss" in line or "eval_loss" in line:
            final |= {name: float(value) for name, value in line.items() if isinstance(value, (int, float))}
    losses = [line["loss"] for line in history if "loss" in line]
    return final | ({"mean_loss": fmean(losses)} if losses else {})
