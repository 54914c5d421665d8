"""Small datasets, good but for what a test puts into them, and what the linter says of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlaif.lint.findings import Finding
from rlaif.lint.report import Report, linted

Row = dict[str, Any]  # Any: whatever a row may hold

_NAMES = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "spruce", "willow")


def turns(*texts: str, first: str = "user") -> list[Row]:
    """Turn about, beginning with `first`."""
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def pair(i: int = 0, **columns: Any) -> Row:
    """A good pair as messages; which of its sides is longer, and by how much, is not told by anything."""
    tree = f"{_NAMES[i % len(_NAMES)]} number {i}"
    texts = [f"The {tree} grows well in a light and moist soil.", f"You find the {tree} in the wet woods of the north."]
    chosen, rejected = texts if i % 2 else texts[::-1]
    return {
        "prompt": turns(f"Where does the {tree} grow?"),
        "chosen": turns(chosen, first="assistant"),
        "rejected": turns(rejected, first="assistant"),
        **columns,
    }


def text_pair(i: int = 0, **columns: Any) -> Row:
    row = {name: value[0]["content"] for name, value in pair(i).items()}
    return {**row, **columns}


def single(i: int = 0, label: Any = True, **columns: Any) -> Row:
    row = pair(i)
    return {"prompt": row["prompt"], "completion": row["chosen"], "label": label, **columns}


def write(path: Path, rows: Sequence[Row]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def lint(folder: Path, rows: Sequence[Row], **options: Any) -> Report:  # Any: those of `linted`
    return linted(write(folder / "train.jsonl", rows), **options)


def counts(report: Report) -> dict[str, int]:
    return {finding.rule: finding.count for finding in report.findings}


def named(report: Report, rule: str) -> Finding:
    (finding,) = [finding for finding in report.findings if finding.rule == rule]
    return finding
