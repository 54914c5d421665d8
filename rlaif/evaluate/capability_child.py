"""The child process of one model's capability: runs lm-evaluation-harness and keeps each item's score."""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from rlaif.evaluate.capability_tasks import TASKS, rows, satisfies
from rlaif.store import write_whole

ANSWER_TOKENS = 96


class Wanted(msgspec.Struct, frozen=True):
    """What the parent asks for, a line on stdin."""

    model: str  # a folder or a name on the hub
    lora: str | None
    tasks: tuple[str, ...]  # ours, the harness's, or YAML files
    limit: int | None  # items of each task
    batch_size: int
    scores: str  # where they go


class TaskScores(msgspec.Struct, frozen=True):
    metric: str
    values: dict[str, float]  # item -> score, for most metrics 0 or 1


class Scores(msgspec.Struct, frozen=True):
    tasks: dict[str, TaskScores]
    versions: dict[str, str]


def main() -> None:
    wanted = msgspec.json.decode(sys.stdin.buffer.readline(), type=Wanted)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(
        pretrained=wanted.model,
        peft=wanted.lora,
        dtype="auto" if torch.cuda.is_available() else "float32",  # many CPUs compute 16 bits slower
        device="cuda" if torch.cuda.is_available() else "cpu",
        batch_size=wanted.batch_size,
    )
    result = simple_evaluate(
        model=model,
        tasks=[configuration(task) if task in TASKS else task for task in wanted.tasks],
        task_manager=TaskManager(include_defaults=any(task not in TASKS for task in wanted.tasks)),
        limit=wanted.limit,
        bootstrap_iters=0,
        log_samples=True,
        # As those ask who talk to the model, where it is one to be talked to.
        apply_chat_template=model.tokenizer.chat_template is not None,
    )
    assert result is not None
    scores = Scores(
        {task: scores_of(samples) for task, samples in result["samples"].items()},
        {name: version(name) for name in ("lm_eval", "transformers", "torch")},
    )
    write_whole(Path(wanted.scores), msgspec.json.encode(scores))


def _end_with_parent() -> None:
    os.read(0, 1)  # until stdin is closed; a buffered read would hold a lock that the interpreter's end wants
    os._exit(1)


def configuration(task: str) -> dict[str, Any]:
    """One of ours as the harness takes it."""
    from datasets import Dataset

    def dataset(**_: object) -> dict[str, Any]:
        return {"test": Dataset.from_list([_flat(row) for row in rows(task)])}

    common = {"task": task, "custom_dataset": dataset, "test_split": "test", "metadata": {"version": 1}}
    if task == "rlaif_instructions":
        return common | {
            "output_type": "generate_until",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "",
            "generation_kwargs": {"until": [], "max_gen_toks": ANSWER_TOKENS, "do_sample": False},
            "process_results": followed,
            "metric_list": [{"metric": "followed", "aggregation": "mean", "higher_is_better": True}],
        }
    return common | {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": 0,
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
        ],
    }


def followed(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return {"followed": float(satisfies(results[0], json.loads(doc["check"])))}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Checks differ from item to item, which no table of columns holds."""
    return row | {"check": json.dumps(row["check"])} if "check" in row else row


def scores_of(samples: list[dict[str, Any]]) -> TaskScores:
    """By the metric that forgives long answers where there is one, else the first that is a share for each item.

    Raises ValueError where there is none, as of a perplexity.
    """
    numbers = [name for name in samples[0]["metrics"] if all(_is_share(one.get(name)) for one in samples)]
    if not numbers:
        there = ", ".join(samples[0]["metrics"])
        raise ValueError(f"a task without a metric from 0 to 1 for each item (it has: {there}) cannot be compared")
    metric = "acc_norm" if "acc_norm" in numbers else numbers[0]
    first = samples[0]["filter"]  # of several ways to read an answer
    values = {str(one["doc_id"]): float(one[metric]) for one in samples if one["filter"] == first}
    return TaskScores(metric, values)


def _is_share(value: object) -> bool:
    return isinstance(value, (bool, int, float)) and 0 <= value <= 1


if __name__ == "__main__":
    main()
