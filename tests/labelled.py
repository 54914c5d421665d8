"""A labelled file as people hand it in, with texts whose quality a scripted judge can see."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any


def pairs(n: int, *, wrong: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of prompt, a, b, label; in a share of them people prefer the one of less quality."""
    chance = Random(f"{seed}/pairs")
    rows: list[dict[str, Any]] = []
    for i in range(n):
        better, worse = sorted((chance.uniform(0.5, 0.9), chance.uniform(0.1, 0.5)), reverse=True)
        a, b = chance.sample((better, worse), 2)
        label = "a" if (a > b) != (chance.random() < wrong) else "b"
        rows.append({"prompt": f"Question {i}?", "a": text(i, a), "b": text(i, b), "label": label})
    return rows


def text(i: int, quality: float) -> str:
    return f"Answer {i} of quality {quality:.3f}:" + " and so on" * (i % 5)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
