"""What models can do besides: tasks of lm-evaluation-harness, the first model against the others item by item."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np

from rlaif.backends import identity_of
from rlaif.backends.weights import adapter_folder, model_folder
from rlaif.errors import ConfigError, RlaifError
from rlaif.evaluate.capability_child import ANSWER_TOKENS, Scores, Wanted
from rlaif.evaluate.capability_tasks import TASKS, rows
from rlaif.evaluate.models import Model, models_of
from rlaif.evaluate.paired import Change, change
from rlaif.evaluate.report import check_free, coded_table, encoded, page, put
from rlaif.evaluate.text import Table, points
from rlaif.figures import Figure, FloatArray, mean, percent

KIND = "capability"
LAYOUT = 1  # of the scores kept; raised when the same settings give others
ALL = "all"
LEGEND = (
    "95% intervals in brackets. Differences are after less before, on the same items, in percentage points, with "
    "Newcombe's interval; `gained` and `lost` count the items that only one of the two has right."
)
INSTALL = "the tasks need lm-evaluation-harness; run: pip install 'rlaif-kit[capability]'"


@dataclass(frozen=True, slots=True)
class TaskFigure:
    metric: str
    score: Figure


@dataclass(frozen=True, slots=True)
class ModelFigures:
    model: str
    identity: str
    tasks: dict[str, TaskFigure]


@dataclass(frozen=True, slots=True)
class Paired:
    """`all` is every item of every task, each counting the same."""

    before: str
    after: str
    tasks: dict[str, Change]


@dataclass(frozen=True, slots=True)
class Capability:
    models: tuple[ModelFigures, ...]
    paired: tuple[Paired, ...]
    versions: dict[str, str]


def capability(
    models: Sequence[str],
    folder: Path,
    tasks: Sequence[str] = (),
    limit: int | None = None,
    batch_size: int = 16,
    starts: Callable[[str, Path], None] = lambda model, log: None,
) -> Capability:
    """Each model's scores, from `folder` where the same was asked before. Raises ConfigError, RlaifError.

    Without `tasks` our own are taken. `starts` hears of each model that is asked, and of its log.
    """
    tasks = tasks or TASKS
    check_free(folder, KIND)
    chosen = [_in_tensors(model) for model in models_of(models)]
    paths = {model.role: folder / "scores" / f"{_digest(model, tasks, limit)}.json" for model in chosen}
    if not find_spec("lm_eval") and not all(path.is_file() for path in paths.values()):
        raise ConfigError(INSTALL)
    found: list[tuple[Model, Scores]] = []
    for model in chosen:
        path = paths[model.role]
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            log = path.with_suffix(".log")
            starts(model.name, log)
            _ask(model, tasks, limit, batch_size, path, log)
        found.append((model, msgspec.json.decode(path.read_bytes(), type=Scores)))
    return figures([(model.name, model.identity, scores) for model, scores in found])


def figures(found: Sequence[tuple[str, str, Scores]]) -> Capability:
    """Of (model, identity, scores), the first of them before."""
    models = tuple(
        ModelFigures(
            name,
            identity,
            {task: TaskFigure(one.metric, mean(_values(one.values))) for task, one in scores.tasks.items()},
        )
        for name, identity, scores in found
    )
    before, _, base = found[0]
    paired = tuple(Paired(before, name, _changes(base, scores)) for name, _, scores in found[1:])
    return Capability(models, paired, found[-1][2].versions)


def write(found: Capability, folder: Path) -> list[Path]:
    return put(folder, KIND, as_json(found), as_markdown(found))


def as_json(found: Capability) -> bytes:
    return encoded(KIND, found)


def as_markdown(found: Capability) -> str:
    parts = ["## Capability", coded_table(scores_table(found), 2, names_in_head=2)]
    if found.paired:
        parts.append(coded_table(paired_table(found), 2))
    return page([*parts, LEGEND], f" and lm-evaluation-harness {found.versions.get('lm_eval', '')}")


def scores_table(found: Capability) -> Table:
    head = ["task", "metric", *(model.model for model in found.models)]
    lines = [
        [task, one.metric, *(percent(model.tasks[task].score) if task in model.tasks else "" for model in found.models)]
        for task, one in found.models[0].tasks.items()
    ]
    return head, lines


def paired_table(found: Capability) -> Table:
    head = ["after", "task", "difference", "items", "gained", "lost"]
    lines = [
        [pair.after, task, points(one), f"{one.n:,}", f"{one.only_after:,}", f"{one.only_before:,}"]
        for pair in found.paired
        for task, one in pair.tasks.items()
    ]
    return head, lines


def _changes(before: Scores, after: Scores) -> dict[str, Change]:
    """On the items of each task that both answered, and on all of them."""
    pairs = {
        task: [
            (one.values[item], after.tasks[task].values[item])
            for item in one.values
            if item in after.tasks[task].values
        ]
        for task, one in before.tasks.items()
        if task in after.tasks
    }
    if len(pairs) > 1:
        pairs[ALL] = [pair for of_task in list(pairs.values()) for pair in of_task]
    return {task: _change(np.array(of_task, np.float64).reshape(-1, 2)) for task, of_task in pairs.items()}


def _change(pairs: FloatArray) -> Change:
    before, after = pairs[:, 0], pairs[:, 1]
    if np.isin(pairs, (0.0, 1.0)).all():
        return change(before == 1.0, after == 1.0)
    of_means = mean(after - before, -1.0, 1.0)  # a metric with values between
    gained, lost = int(np.count_nonzero(after > before)), int(np.count_nonzero(after < before))
    return Change(of_means.value, of_means.low, of_means.high, of_means.n, lost, gained, None)


def _values(values: dict[str, float]) -> FloatArray:
    return np.array(list(values.values()), np.float64)


def _in_tensors(model: Model) -> Model:
    """The harness loads weights by transformers, whatever else might. Raises ConfigError where there are none."""
    if model.spec.provider not in ("local", "transformers", "vllm"):
        raise ConfigError(f"{model.name} answers from elsewhere; the tasks need the weights: a folder or a hub name")
    spec = model.spec.model_copy(update={"provider": "transformers"})
    return replace(model, spec=spec, identity=identity_of(spec))


def _digest(model: Model, tasks: Sequence[str], limit: int | None) -> str:
    """Of all that the scores depend on, our items included."""
    ours = {task: rows(task) for task in tasks if task in TASKS}
    files = {task: Path(task).read_text("utf-8") for task in tasks if task not in TASKS and Path(task).is_file()}
    told = [LAYOUT, model.identity, list(tasks), limit, ANSWER_TOKENS, ours, files]
    return blake2b(msgspec.json.encode(told), digest_size=8).hexdigest()


def _ask(model: Model, tasks: Sequence[str], limit: int | None, batch_size: int, scores: Path, log: Path) -> None:
    adapter = adapter_folder(model.spec)
    folder = model_folder(model.spec, scores.parent)
    lora = str(adapter) if adapter else None
    wanted = Wanted(str(folder), lora, tuple(tasks), limit, batch_size, str(scores.absolute()))
    with (
        log.open("wb") as messages,
        subprocess.Popen(
            # -P and our own path: it imports what we import, whatever lies in the current folder.
            [sys.executable, "-P", "-m", "rlaif.evaluate.capability_child"],
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,  # however this process ends, it closes, and the child ends too
            stdout=messages,
            stderr=messages,
        ) as child,
    ):
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.write(msgspec.json.encode(wanted) + b"\n")
        child.wait()
    if child.returncode or not scores.is_file():
        lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        raise RlaifError(f"{model.name}: the tasks failed: {(lines or ['it said nothing'])[-1][:300]}; its log: {log}")
