"""Small datasets in the shapes that others publish theirs in, in our own words."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet


def turns(*said: str, first: str = "user") -> list[dict[str, str]]:
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def table(path: Path, rows: list[Any], row_group: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group)
    return path


def ultrafeedback(*ratings: tuple[Any, Any], overall: float = 10.0) -> dict[str, Any]:
    """A row with a completion for each (helpfulness, honesty)."""
    completions = [
        {
            "model": f"model-{i}",
            "response": f"Answer {i}: plant it in spring.",
            "annotations": {
                "helpfulness": {"Rating": helpful, "Rationale": "It says when.", "Type": ["1"]},
                "honesty": {"Rating": honest, "Rationale": "It is true."},
            },
            "overall_score": overall - i,
            "critique": "Fine.",
        }
        for i, (helpful, honest) in enumerate(ratings)
    ]
    return {"source": "garden", "instruction": "When do I plant beans?", "models": [], "completions": completions}


def nectar(*ranks: Any) -> dict[str, Any]:
    answers = [{"answer": f"Reply {i}.", "model": f"model-{i}", "rank": rank} for i, rank in enumerate(ranks)]
    return {"prompt": "\n\nHuman: Why is the sky blue?\n\nAssistant: ", "answers": answers, "turns": 1}
