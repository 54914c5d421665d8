"""A training's figures, metrics.jsonl: a JSON object for each logging step, appended as it comes, cut on a resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # plain JSON

from rlaif.store import write_whole

NAME = "metrics.jsonl"
Line = dict[str, Any]


def append(folder: Path, line: Mapping[str, Any]) -> None:
    """No fsync: a checkpoint is worth hours, a line nothing without it."""
    with (folder / NAME).open("ab") as file:
        file.write(_json(line))


def cut(folder: Path, step: int) -> list[Line]:
    """Drop what is past a checkpoint's step, and what a killed process left half-written; what stays."""
    lines = upto(folder, step)
    write_whole(folder / NAME, b"".join(map(_json, lines)))
    return lines


def upto(folder: Path, step: int) -> list[Line]:
    """Without the totals at the end of a training that was stopped and now goes on."""
    return [line for line in read(folder) if line["step"] <= step and "train_runtime" not in line] if step else []


def read(folder: Path) -> list[Line]:
    return Tail(folder).new()


class Tail:
    """Follows the file while it grows; a line counts when its end is there. `anew`: the file was cut before them."""

    def __init__(self, folder: Path) -> None:
        self.anew = False
        self._path = folder / NAME
        self._file = self._read = 0

    def new(self) -> list[Line]:
        """Those since the last call, or all if the file was cut. None before there is a file."""
        try:
            with self._path.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                self.anew = number != self._file
                if self.anew:
                    self._file, self._read = number, 0
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return [line for raw in whole.splitlines() if (line := _line(raw)) is not None]


def _json(line: Mapping[str, Any]) -> bytes:
    """JSON knows no NaN: such a figure is null, and a warning says so."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
    return json.dumps(finite, allow_nan=False).encode() + b"\n"


def _line(raw: bytes) -> Line | None:
    """None for what a full disk or a crash left."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None
