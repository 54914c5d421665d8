"""What came out of a step, in a few words: from the files that its command wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def generated(summary: Path) -> str:
    """Of a run's summary.json."""
    content = content_of(summary)
    dataset, calls = content.get("dataset") or {}, content.get("calls") or {}
    rows = {config: sum(splits.values()) for config, splits in (dataset.get("rows") or {}).items()}
    parts = [_count(dataset.get("pairs", 0), "pair")]
    parts += [_count(rows["sft"], "SFT row")] if "sft" in rows else []
    parts.append(f"{calls.get('sent', 0):,} calls sent, {calls.get('from_journal', 0):,} from the journal")
    if failed := failures(content):
        parts.append(f"{_count(failed[0], 'record')} of {failed[1]:,} failed")
    return ", ".join(parts)


def failures(content: dict[str, Any]) -> tuple[int, int] | None:
    """(failed, all) records of a summary; None if none failed."""
    failed = (content.get("outcomes") or {}).get("failed", 0)
    return (failed, content.get("records", 0)) if failed else None


def trained(training: Path) -> str:
    """Of a model's training.json."""
    content = content_of(training)
    rows = sum(data.get("rows", 0) for data in content.get("data", []))
    final = content.get("final") or {}
    loss = next((final[name] for name in ("mean_loss", "train_loss", "loss") if final.get(name) is not None), None)
    parts = [_count(rows, "row"), _count(content.get("steps", 0), "step")]
    parts += [] if loss is None else [f"loss {loss:.3f}"]
    if (accuracy := final.get("rewards/accuracies")) is not None:
        parts.append(f"accuracy {accuracy:.0%}")
    parts += [_count(len(content["warnings"]), "warning")] if content.get("warnings") else []
    return ", ".join(parts)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def content_of(path: Path) -> dict[str, Any]:  # Any: plain JSON
    """Empty where there is none that can be read."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return {}
