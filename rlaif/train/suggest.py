"""Which method fits this data, model and machine: stated rules over what can be counted, each with its reason."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from rlaif.errors import ConfigError
from rlaif.foreign.read import open_dataset
from rlaif.train.data import Row, gathered
from rlaif.train.settings import Data, Method

FEW, MANY = 50, 20_000  # rows: below, nothing moves but noise; from here on full training can beat LoRA
NOISY = 0.1  # share of labels that are expected to be wrong
LONGER = 1.3  # chosen over rejected; in people's labels 1.1 to 1.2 is usual
# Measured: DPO steps of 4 pairs, SmolLM2-135M with LoRA on 2 cores, took 20 to 45 s; a pair had some 200 tokens.
_PAIR_S, _PARAMETERS, _CORES = 8.0, 135e6, 2
# Counted: passes of a response through the model, backward ones twice; DPO has 8, 2 of them its reference's.
_EFFORT: Mapping[Method, float] = {"sft": 3 / 8, "dpo": 1.0, "kto": 6 / 8, "reward": 6 / 8}
_FULL_BYTES = 20  # a parameter: weights, gradient, Adam's two moments and DPO's reference, float32 each
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Facts:
    """What the data has. `missing` is why a method cannot read it; `wrong` the expected share of wrong labels by `p`.

    `longer`: chosen over rejected, mean characters. `writers`: models of the pairs' responses, with their share.
    """

    rows: Mapping[Method, int] = field(default_factory=dict)
    missing: Mapping[Method, str] = field(default_factory=dict)
    soft: int = 0  # pairs that have a p
    wrong: float | None = None
    longer: float | None = None
    writers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Machine:
    """`gpu_bytes` of all GPUs together; 0 without one."""

    cores: int
    memory_bytes: int
    gpu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Suggestion:
    """`options` are words for the command line. Those that fit come first, the best on top."""

    method: Method
    fits: bool
    reason: str
    options: tuple[str, ...] = ()
    seconds: float | None = None  # on this machine; None: unknown


class Weights(NamedTuple):
    """What of the model is trained: `options` for the command line, and why; or why it does not go at all."""

    options: tuple[str, ...]
    reason: str
    fits: bool = True


def suggest(facts: Facts, machine: Machine, model: str, parameters: float | None) -> list[Suggestion]:
    """All methods, the first choice first. None fits a machine that the model's weights do not go into."""
    weights = weights_for(facts, machine, parameters)
    found = [
        *_pairs(facts),
        *_thumbs(facts),
        *_completions(facts),
        *_rewards(facts),
        *_sampling(facts, machine),
    ]
    if _far(facts, model) and facts.rows.get("sft", 0) >= FEW:
        found.sort(key=lambda one: one.method != "sft")
    suited = [
        replace(
            one,
            fits=one.fits and weights.fits,
            options=(*one.options, *weights.options),
            seconds=_seconds(facts, machine, parameters, one.method),
        )
        for one in found
    ]
    return sorted(suited, key=lambda one: not one.fits)


def weights_for(facts: Facts, machine: Machine, parameters: float | None) -> Weights:
    if parameters is None:
        return Weights(("--lora",), "LoRA, as the model's size is not known")
    room = machine.gpu_bytes or machine.memory_bytes
    needed = parameters * (2 if machine.gpu_bytes else 4) * 1.5
    if needed > room:
        return Weights(
            ("--lora",),
            f"the model takes {needed / _GIB:.0f} GiB with room to work, and there are {room / _GIB:.0f}: take a "
            "smaller one, --set load_in_4bit=true, or --accelerate zero3 on several GPUs",
            fits=False,
        )
    many = max(facts.rows.values(), default=0) >= MANY
    if many and parameters * _FULL_BYTES * 1.2 <= room:
        return Weights(("--full",), f"all weights: they fit, and from {MANY:,} rows on they can hold more than LoRA")
    why = "not all weights fit" if many else f"below {MANY:,} rows as good as all weights, in a fraction of the memory"
    return Weights(("--lora",), f"LoRA: {why}")


# --- the rules ---


def _pairs(facts: Facts) -> list[Suggestion]:
    n = facts.rows.get("dpo", 0)
    if not n:
        return [_unfit("dpo", facts)]
    said = [f"{n:,} pairs"]
    if n < FEW:
        return [Suggestion("dpo", False, f"{n:,} pairs: fewer than {FEW} move a model by noise only; make more")]
    options: tuple[str, ...] = ()
    if facts.longer is not None and facts.longer >= LONGER:
        said.append(f"chosen are {facts.longer:.1f} times as long, and DPO learns length first: ld_alpha damps it")
        options = ("--set", "dpo.ld_alpha=0.5")
    plain = Suggestion("dpo", True, "; ".join(said), options)
    if facts.wrong is None:
        return [plain]
    share = f"by the judge's own p, {facts.wrong:.0%} of the labels are wrong"
    if facts.wrong < NOISY:
        return [Suggestion("dpo", True, "; ".join([*said, f"{share}: they can be taken as they are"]), options)]
    robust = ("--set", "dpo.loss_type=robust", "--set", f"dpo.label_smoothing={min(facts.wrong, 0.4):.2f}")
    doubt = Suggestion("dpo", True, f"{said[0]}; {share}; robust DPO takes that share out on average", robust)
    if facts.soft >= 0.9 * n:
        # SoftDPO has a loss of its own, so ld_alpha is not for it.
        return [Suggestion("dpo", True, f"{said[0]}; {share}: soft labels tell which", ("--soft",)), doubt, plain]
    return [doubt, plain]


def _thumbs(facts: Facts) -> list[Suggestion]:
    n = facts.rows.get("kto", 0)
    if not n:
        return [_unfit("kto", facts)]
    if facts.rows.get("dpo", 0) >= FEW:
        return [Suggestion("kto", True, f"{n:,} labelled responses; the pairs say more, as they compare")]
    return [Suggestion("kto", n >= FEW, f"{n:,} responses with a label and no pairs: what KTO is for")]


def _completions(facts: Facts) -> list[Suggestion]:
    n = facts.rows.get("sft", 0)
    if not n:
        return [_unfit("sft", facts)]
    if facts.rows.get("dpo", 0) >= FEW:
        why = "says what to do, and not, as pairs do, what to leave; comes first where pairs are of other models"
        return [Suggestion("sft", True, f"{n:,} completions; {why}")]
    return [Suggestion("sft", n >= FEW, f"{n:,} completions and no pairs")]


def _rewards(facts: Facts) -> list[Suggestion]:
    n = facts.rows.get("reward", 0)
    if not n:
        return [_unfit("reward", facts)]
    why = "a judge that costs nothing, for grpo, rloo or filtering; it answers nobody by itself"
    few = "" if n >= 1000 else "; from about 1,000 pairs it holds beyond its own prompts"
    return [Suggestion("reward", n >= FEW, f"{n:,} pairs; {why}{few}")]


def _sampling(facts: Facts, machine: Machine) -> list[Suggestion]:
    n = facts.rows.get("grpo", 0)
    if not n:
        return [_unfit("grpo", facts), _unfit("rloo", facts)]
    slow = "" if machine.gpu_bytes else "; it samples while it trains, on a CPU for days, so only to try it out"
    reason = f"{n:,} prompts; needs --reward FOLDER or --reward judge:MODEL{slow}"
    return [Suggestion(method, bool(machine.gpu_bytes), reason, ("--reward", "REWARD")) for method in _SAMPLING]


_SAMPLING: tuple[Method, ...] = ("rloo", "grpo")


def _unfit(method: Method, facts: Facts) -> Suggestion:
    return Suggestion(method, False, facts.missing.get(method, "no rows for it"))


def _far(facts: Facts, model: str) -> bool:
    """Most responses of the pairs are of other models: then supervised training on the good ones comes first.

    So the DPO paper, section 4 (Rafailov et al. 2023): the reference should be near the data.
    """
    own = sum(share for name, share in facts.writers.items() if _plain(name) == _plain(model))
    return bool(facts.writers) and own < 0.5


def _plain(model: str) -> str:
    name = "SmolLM2-135M-Instruct" if model == "local" else model
    return re.sub(r"[^a-z0-9]", "", name.rpartition("/")[2].lower())


# --- the machine ---


def machine() -> Machine:
    """Loads nothing: NVIDIA's own program tells its memory, if it is there."""
    gpu = 0
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        gpu = sum(int(line) for line in said.split()) << 20
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(cores, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), gpu)


def parameters_of(model: str) -> float | None:
    """Of a folder by the size of its weights, else by what the name says, as 7B; None if neither tells."""
    if model == "local":
        return _PARAMETERS
    files = list(Path(model).expanduser().glob("*.safetensors")) if Path(model).expanduser().is_dir() else []
    if files:
        config = Path(model).expanduser() / "config.json"
        text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
        return sum(file.stat().st_size for file in files) / (4 if '"float32"' in text else 2)
    found = re.search(r"(?i)(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z])", model.replace("_", "-"))
    return float(found[1]) * (1e9 if found[2].lower() == "b" else 1e6) if found else None


def _seconds(facts: Facts, machine: Machine, parameters: float | None, method: Method) -> float | None:
    """One epoch on a CPU, by what was measured; nothing was on a GPU."""
    if machine.gpu_bytes or parameters is None or method not in _EFFORT:
        return None
    rows, cores = facts.rows.get(method, 0), max(machine.cores, 1)
    return rows * _PAIR_S * _EFFORT[method] * (parameters / _PARAMETERS) * (_CORES / cores)


# --- the data ---

_ASKED: tuple[Method, ...] = ("dpo", "kto", "sft", "reward", "grpo")


def facts_of(source: str, runs_dir: Path) -> Facts:
    """Raises ConfigError only if no method can read it."""
    rows: dict[Method, int] = {}
    missing: dict[Method, str] = {}
    pairs: Sequence[Row] = []
    data: Data | None = None
    for method in _ASKED:
        try:
            found = gathered([source], method, runs_dir)
        except ConfigError as error:
            missing[method] = str(error)
            continue
        rows[method] = len(found.train)
        if method == "dpo":
            pairs, data = found.train, found.data[0]
    if not rows:
        raise ConfigError(missing["dpo"])
    if "grpo" in missing:
        missing["rloo"] = missing["grpo"]
    certain = _probabilities(source, runs_dir) if pairs else []
    return Facts(
        rows,
        missing,
        soft=len(certain),
        wrong=fmean(min(p, 1 - p) for p in certain) if certain else None,
        longer=_longer(pairs),
        writers=_writers(data) if data else {},
    )


def _probabilities(source: str, runs_dir: Path) -> list[float]:
    try:
        return [row["p"] for row in gathered([source], "dpo", runs_dir, soft=True).train if row.get("p") is not None]
    except ConfigError:
        return []


def _longer(pairs: Sequence[Row]) -> float | None:
    chosen, rejected = (sum(len(_answer(row[side])) for row in pairs) for side in ("chosen", "rejected"))
    return chosen / rejected if rejected else None


def _answer(text: str | list[dict[str, str]]) -> str:
    return text if isinstance(text, str) else text[-1]["content"] if text else ""


def _writers(data: Data) -> dict[str, float]:
    """Of the rows that say it, as exported ones do."""
    counts: dict[str, int] = {}
    for row in open_dataset(data.path, data.config).rows():
        for name in ("chosen_model", "rejected_model"):
            if isinstance(model := row.values.get(name), str):
                counts[model] = counts.get(model, 0) + 1
    return {model: n / sum(counts.values()) for model, n in counts.items()}
