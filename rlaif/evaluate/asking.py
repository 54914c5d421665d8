"""Models asked the same prompts, greedily, in a run of their own: journaled and gone on with like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import yaml

from rlaif.backends import ModelSpec, identity_of
from rlaif.budget import Limits
from rlaif.config import Settings, assigned, changed
from rlaif.documents import Document
from rlaif.errors import ConfigError
from rlaif.evaluate.models import Model, run_name
from rlaif.evaluate.prompts import PromptSet
from rlaif.job import Observer, Result
from rlaif.job import run as run_job
from rlaif.runs import checked_name
from rlaif.store import RunFolder, write_whole
from rlaif.types import Record


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked. `stages` come after the models' answers, `judge` is for these."""

    kind: str  # what the run is called after
    models: tuple[Model, ...]
    sets: Mapping[str, PromptSet]
    max_tokens: int
    stages: tuple[Mapping[str, Any], ...] = ()  # Any: as in a pipeline's file
    judge: ModelSpec | None = None
    constitution: str | None = None
    limit: int | None = None  # prompts of each set
    assignments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """`records` are those that every model answered: the response to a record at i is that of `models[i]`."""

    run: str
    models: tuple[Model, ...]
    records: tuple[Record, ...]
    failed: int
    repeated: int = 0  # rows whose prompt was there before, in whichever set

    def of(self, name: str) -> list[Record]:
        """Those of one set of prompts."""
        return [record for record in self.records if record.prompt_set == name]


def prompt_text(record: Record) -> str:
    """What is asked, all turns."""
    return "\n\n".join(message.content for message in record.prompt)


def by_category(records: Sequence[Record]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which of the records are of each category, by their names."""
    categories = np.array([record.category for record in records], dtype=object)
    names = sorted({record.category for record in records if record.category is not None})
    return {name: categories == name for name in names}


@dataclass(frozen=True, slots=True)
class Options:
    """How it is asked."""

    runs_dir: Path
    environment: Mapping[str, str]
    run: str | None = None
    observer: Observer | None = None
    limits: Limits | None = None
    dry_run: bool = False
    allow_code: bool = False


def ask(asking: Asking, options: Options) -> tuple[Result, Answered | None]:
    """None in a dry run, where a limit or Ctrl-C came first, and where no prompt has an answer of every model."""
    lines = {name: one.lines(asking.limit) for name, one in asking.sets.items()}
    name = options.run or _name(asking, lines)
    folder = RunFolder(options.runs_dir, checked_name(name))
    with ExitStack() as held:
        where = Path(held.enter_context(TemporaryDirectory())) if options.dry_run else folder.path / "prompts"
        settings = _settings(asking, _written(lines, where, folder))
        result = run_job(
            settings,
            folder,
            dry_run=options.dry_run,
            allow_code=options.allow_code,
            environment=options.environment,
            observer=options.observer,
            limits=options.limits,
        )
    if result.status != "done":
        return result, None
    specs = {model.role: settings.models[model.role] for model in asking.models}  # --set may have changed them
    models = tuple(replace(one, spec=specs[one.role], identity=identity_of(specs[one.role])) for one in asking.models)
    records = tuple(record for record in folder.records() if record.outcome != "failed")
    repeated: int = result.summary["duplicate_prompts"]
    return result, Answered(folder.name, models, records, result.failed, repeated) if records else None


def _settings(asking: Asking, files: Mapping[str, Path]) -> Settings:
    """Raises ConfigError for assignments that do not fit."""
    models = {model.role: model.spec for model in asking.models}
    roles = [model.role for model in asking.models]
    sample = {"models": roles, "n": 1, "temperatures": [0.0], "max_tokens": asking.max_tokens}
    prompts = [{"path": str(path), "name": name} for name, path in files.items()]
    data: dict[str, Any] = {
        "name": asking.kind,
        "prompts": prompts,
        "models": {
            role: spec.model_dump(mode="json", exclude_defaults=True)
            for role, spec in {**models, **({"judge": asking.judge} if asking.judge else {})}.items()
        },
        "stages": [{"sample": sample}, *asking.stages],
        # What models were tested on is nothing to train on: no dataset is made of it.
        "export": {"pairs": [], "configs": ["preference"]},
    }
    if asking.constitution is not None:
        data["constitution"] = asking.constitution
    node = yaml.compose(yaml.safe_dump(data))
    assert node is not None
    document = Document(Path(asking.kind), data, node)
    settings = changed(document, assigned(asking.assignments))
    drawn = settings.stages[0].sample
    if drawn is None or list(drawn.models) != roles or drawn.plan(0, 1)[1] != len(roles):
        raise ConfigError("an evaluation has one answer of each model: set no n, temperatures or models of sample")
    return settings


def _name(asking: Asking, lines: Mapping[str, Sequence[bytes]]) -> str:
    """After the last model, and what tells this evaluation from others: the same command is the same run."""
    digest = blake2b(digest_size=3)
    identities = [model.identity for model in asking.models]
    judge = None if asking.judge is None else asking.judge.model_dump(mode="json")
    said = [identities, judge, asking.stages, asking.constitution, asking.max_tokens, asking.assignments]
    digest.update(msgspec.json.encode(said, order="sorted"))
    for name, rows in lines.items():
        digest.update(b"\0".join((name.encode(), *rows)))
    return f"{run_name(asking.kind, asking.models[-1].name)}-{digest.hexdigest()}"


def _written(lines: Mapping[str, Sequence[bytes]], where: Path, folder: RunFolder) -> dict[str, Path]:
    """The prompts in files of their own: what was left out of a set is not asked."""
    if folder.settings.is_file() and not where.is_dir():
        raise ConfigError(f"run '{folder.name}' is no evaluation; choose another --run name")
    where.mkdir(parents=True, exist_ok=True)
    files = {name: where / f"{name}.jsonl" for name in lines}
    for name, path in files.items():
        content = b"".join(lines[name])
        # Before the run has begun nothing was asked: prompts that could not be read may be mended under its name.
        if folder.settings.is_file() and path.is_file() and path.read_bytes() != content:
            raise ConfigError(f"run '{folder.name}' was made with other {name} prompts; choose another --run name")
        write_whole(path, content)
    return files
