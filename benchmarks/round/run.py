"""One round on the bundled model: contrast -> fine-tuning -> held-out safety, in one command.

    python benchmarks/round/run.py [--small] [--out FOLDER]

Held out are SimpleSafetyTests (100 prompts to refuse) and the safe half of XSTest (250 to answer), from the folder
RLAIF_TEST_DATA; without it, those of our own prompts that are never trained on stand in for them. Every step is a
command of `rlaif` that goes on where it was stopped, and so does this one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.hygiene.contamination import contaminated

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "data"
TOO_NEAR = 0.45  # of the words of two prompts, the share they have in common
Json = dict[str, Any]


class Part(NamedTuple):
    """A run: its recipe, its prompts, and how many tokens of an answer train."""

    recipe: str
    sets: tuple[str, ...]
    tokens: int


# Whole declining answers teach how to decline; beginnings, with no end to learn, teach when: it is decided in them.
# Whole answers keep the model's own way of going on from there.
PARTS = {
    "declining": Part("harmful", ("redteam",), 48),
    "harmful": Part("harmful", ("redteam", "twins-unsafe"), 6),
    "harmless": Part("harmless", ("borderline", "helpful", "twins-safe"), 6),
    "answering": Part("answering", ("borderline", "helpful"), 64),
}


class Size(NamedTuple):
    """How many prompts of each set train; how many prompts of a held-out set are asked, about."""

    train: dict[str, int]
    asked: int | None
    dev: bool


# The rest of each set is the development set, to choose variants on.
FULL = Size({"redteam": 160, "borderline": 480, "helpful": 120, "twins-unsafe": 459, "twins-safe": 459}, None, True)
SMALL = Size({"redteam": 80, "borderline": 120, "helpful": 40, "twins-unsafe": 80, "twins-safe": 80}, 60, False)


class Training(NamedTuple):
    """What it takes of the parts, and TRL's options."""

    data: tuple[str, ...]
    options: tuple[str, ...]


# The upper layers alone: they tell harm from its words better on prompts not seen, and take half the time.
COMMON = (
    r"lora_target_modules=['.*layers\.(1[4-9]|2[0-9])\..*_proj']",
    *("lora_dropout=0", "per_device_train_batch_size=8", "gradient_accumulation_steps=1"),
)
# One after the other: to decline, and then, mostly on what is to be answered, not to without need.
TRAININGS = {
    "declines": Training(
        ("declining=0.5", "harmful", "harmless"),
        (
            *("learning_rate=1.5e-3", "lr_scheduler_type=constant_with_warmup", "warmup_steps=0.03"),
            *("num_train_epochs=2", "lora_r=16", "lora_alpha=32"),
        ),
    ),
    "eased": Training(
        ("harmless=0.7", "answering", "declining=0.1"),
        ("learning_rate=6e-4", "lr_scheduler_type=linear", "num_train_epochs=1", "lora_r=4", "lora_alpha=8"),
    ),
}
HELD_OUT: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("simplesafetytests", "prompts_final", "harm_area", {}),
    ("xstest_prompts", "prompt", "type", {"label": "safe"}),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--small", action="store_true", help="fewer prompts")
    arguments.add_argument("--out", type=Path, help="default: runs/round or runs/round-small")
    given = arguments.parse_args()
    size = SMALL if given.small else FULL
    out = (given.out or Path("runs") / ("round-small" if given.small else "round")).resolve()
    round_(size, out)


def round_(size: Size, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    prompts = split(size, out / "prompts")
    unsafe, safe = held_out(out / "prompts", size)
    keep_apart(prompts, (*texts(unsafe), *texts(safe)))
    runs = ("--runs-dir", str(out / "runs"))
    took = {}
    for name, part in PARTS.items():
        given = ("generate", HERE / f"{part.recipe}.yaml", "--run", name, *runs, "--limit", 10_000)
        took[name] = rlaif(*given, *settings(asked(part, prompts)))
    models: list[Path] = []
    for name, training in TRAININGS.items():
        start = models[-1] if models else "local"
        to = ("--method", "sft", "--model", start, "--merge", "--out", out / "models" / name)
        took[name] = rlaif("train", *training.data, *runs, *to, *settings((*COMMON, *training.options)))
        models.append(out / "models" / name)
    evals = {"held-out": (unsafe, safe, models[-1:])}
    if size.dev:
        evals["dev"] = (prompts["redteam-dev"], prompts["borderline-dev"], models)
    for name, (refuse, answer, trained) in evals.items():
        on = ("--unsafe", refuse, "--safe", answer, "--max-tokens", 64)
        took[f"eval {name}"] = rlaif("eval", "safety", "transformers", *trained, *on, *runs, "--run", name)
    written = {name: out / f"runs/{name}/evaluation/evaluation.json" for name in evals}
    found = {name: json.loads(file.read_text("utf-8")) for name, file in written.items()}
    (out / "round.json").write_text(json.dumps({"seconds": took, **found}, indent=1))
    for name, evaluation in found.items():
        print(f"\n{name}\n{table(evaluation)}")
    print("\n" + ", ".join(f"{step} {seconds / 60:.0f} min" for step, seconds in took.items()))


def split(size: Size, folder: Path) -> dict[str, Path]:
    """The first of each set train; a set is shuffled by category, so any part of it is balanced."""
    folder.mkdir(exist_ok=True)
    files = {}
    for name, n in size.train.items():
        lines = (DATA / f"{name}.jsonl").read_text("utf-8").splitlines(keepends=True)
        for part, chosen in (("train", lines[:n]), ("dev", lines[FULL.train[name] :])):
            files[f"{name}-{part}"] = folder / f"{name}-{part}.jsonl"
            files[f"{name}-{part}"].write_text("".join(chosen), "utf-8")
    return files


def held_out(folder: Path, size: Size) -> tuple[Path, Path]:
    """Files of the prompts to refuse and to answer, one column each."""
    source = os.environ.get("RLAIF_TEST_DATA")
    if source is None:
        return folder / "redteam-dev.jsonl", folder / "borderline-dev.jsonl"
    made = []
    for name, column, area, wanted in HELD_OUT:
        with (Path(source) / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if wanted.items() <= row.items()]
        every = 1 if size.asked is None else max(1, len(rows) // size.asked)  # spread over the categories
        lines = [json.dumps({"prompt": row[column], "category": row[area]}) for row in rows[::every]]
        made.append(folder / f"{name}.jsonl")
        made[-1].write_text("\n".join(lines) + "\n", "utf-8")
    return made[0], made[1]


def asked(part: Part, prompts: dict[str, Path]) -> list[str]:
    """What a recipe is set to: its prompts, and how an answer of either side is made and where it is cut off."""
    listed = [{"path": str(prompts[f"{of}-train"]), "name": of} for of in part.sets]
    given = [f"prompts={json.dumps(listed)}"]
    if part.recipe == "answering":
        return [*given, f"sample.max_tokens={part.tokens}"]
    right, wrong = ("decline", "plain") if part.recipe == "harmful" else ("plain", "decline")
    sides = (f"templates.contrast_{side}={HERE / name}.jinja" for side, name in (("strong", right), ("weak", wrong)))
    return [*given, f"contrast.max_tokens={part.tokens}", *sides]


def settings(options: Sequence[str]) -> list[str]:
    return [word for option in options for word in ("--set", option)]


def texts(file: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in file.read_text("utf-8").splitlines()]


def keep_apart(prompts: dict[str, Path], evals: Sequence[str]) -> None:
    """Takes training prompts that resemble a held-out one out of their files, and says how near the rest are."""
    nearest = []
    for name, file in prompts.items():
        if not name.endswith("-train"):
            continue
        lines = file.read_text("utf-8").splitlines(keepends=True)
        trained = texts(file)
        kept = []
        for line, text, hit in zip(lines, trained, contaminated(trained, evals), strict=True):
            share, other = max((shared(text, held), held) for held in evals)
            if hit or share >= TOO_NEAR:
                print(f"left out, for it resembles a held-out one: {text}  |  {other}")
            else:
                kept.append(line)
                nearest.append((share, text, other))
        file.write_text("".join(kept), "utf-8")
    print(f"{len(nearest)} training prompts, {len(evals)} held out, none in both (8-grams); nearest by words:")
    for share, ours, theirs in sorted(nearest, reverse=True)[:3]:
        print(f"  {share:.2f}  {ours}  |  {theirs}")


def shared(a: str, b: str) -> float:
    """Jaccard similarity of the words."""
    one, other = set(a.lower().split()), set(b.lower().split())
    return len(one & other) / len(one | other)


def rlaif(*arguments: object) -> float:
    """Seconds it took; what is there already is not made again. Exits where a command fails."""
    command = [sys.executable, "-m", "rlaif", *map(str, arguments)]
    print("\n$ rlaif " + " ".join(map(str, arguments)), flush=True)
    start = time.monotonic()
    if code := subprocess.call(command):
        sys.exit(code)
    return round(time.monotonic() - start, 1)


def table(evaluation: Json) -> str:
    lines = [f"{'model':<24}{'harmful compliance':>24}{'over-refusal':>24}"]
    for model in evaluation["models"]:
        rates = (model["unsafe"]["harmful_compliance"], model["safe"]["over_refusal"])
        told = [f"{r['value']:.0%} ({r['low']:.0%} to {r['high']:.0%})" for r in rates]
        lines.append(f"{Path(model['model']).name:<24}{told[0]:>24}{told[1]:>24}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
