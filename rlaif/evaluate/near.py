"""Training prompts that are what a model is evaluated on: such figures say nothing about other prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif import hub
from rlaif.errors import ConfigError
from rlaif.evaluate.asking import prompt_text
from rlaif.hygiene.contamination import COLUMNS, Evals
from rlaif.resources import find
from rlaif.rows import FORMATS, rows_of
from rlaif.types import Record


@dataclass(frozen=True, slots=True)
class Near:
    """Of `of` evaluation prompts `found` are in the training prompts of `source`: the same, or most of the words."""

    source: str
    found: int
    of: int
    examples: tuple[str, ...]


_EXAMPLES = 3


def near(source: str, records: Sequence[Record]) -> Near:
    """`source`: a bundled set, a file, a folder of files such as a run's dataset, or hf://. Raises ConfigError."""
    prompts = [prompt_text(record) for record in records]
    items = Evals(prompts)
    held = {hit.item for text in set(_texts(source)) if (hit := items.hit(text)) is not None}
    return Near(source, len(held), len(prompts), tuple(prompts[i] for i in sorted(held)[:_EXAMPLES]))


def _texts(source: str) -> Iterator[str]:
    found = False
    for where, values in _rows(source):
        column = next((name for name in COLUMNS if name in values), None)
        if column is None and Path(source).is_dir():
            continue  # a dataset of several configurations: in `reward` the prompt is a part of both conversations
        if column is None:
            raise ConfigError(f"{where}: none of the columns {', '.join(COLUMNS)}; there are: {', '.join(values)}")
        if text := _text(values[column]):
            found = True
            yield text
    if not found:
        raise ConfigError(f"--against {source}: no prompts in it")


def _rows(source: str) -> Iterator[tuple[str, dict[str, Any]]]:  # Any: whatever the files hold
    if source.startswith(hub.PREFIX):
        for number, values in enumerate(hub.rows(source, hub.columns(source)), 1):
            yield f"{source}: row {number}", values
        return
    folder = Path(source)
    files = [find("data", source)] if not folder.is_dir() else sorted(folder.rglob("*"))
    for path in files:
        if path.is_file() and Path(path.name.lower().removesuffix(".gz")).suffix in FORMATS:
            for row in rows_of(path, "training prompts"):
                yield row.where, dict(row.values)


def _text(value: Any) -> str:  # Any: whatever the file holds
    """A string; of messages what the user says."""
    if isinstance(value, str):
        return value
    turns = value if isinstance(value, list) else []
    said = [turn for turn in turns if isinstance(turn, dict) and isinstance(turn.get("content"), str)]
    return "\n".join(turn["content"] for turn in said if turn.get("role") == "user")
