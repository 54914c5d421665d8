"""dropped.jsonl: each row that went in one line, with the reason, its place and the start of its texts."""

from __future__ import annotations

import msgspec

from rlaif.hygiene.clean import Texts, short
from rlaif.types import Messages


def dropped_line(reason: str, because: str | None, split: str, where: str, row: Texts | None = None) -> bytes:
    """`because` says more than the reason; of the texts those that are known."""
    line: dict[str, object] = {"reason": reason, "because": because, "split": split, "where": where}
    line |= {} if row is None else short(row)._asdict()
    return msgspec.json.encode({key: value for key, value in line.items() if value not in (None, "")}) + b"\n"


def text_of(turns: Messages) -> str:
    return "\n\n".join(turn.content for turn in turns)
