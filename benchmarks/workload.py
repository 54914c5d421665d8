"""The one job that everybody is given: N prompts, one reply each, a dataset on disk. Standard library only."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

MODEL = "mock-model"
SYSTEM = "You are a careful assistant. Answer in one short paragraph."
TEMPERATURE, MAX_TOKENS = 0.7, 256
# By the marker the mock knows the row, and a reply is checked against its prompt.
MARKER_START, MARKER_BYTES = b"[[q", 11
_TEXT = (
    "A user asks how the chemicals of a household are stored safely, which of them must never come together, "
    "and what is to be done at once when something was spilled on the floor, on clothes or on the skin. "
) * 2


def marker(row: int) -> str:
    return f"[[q{row:06d}]]"


def prompt(row: int) -> str:
    return f"{marker(row)} {_TEXT}"


def messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]


def body(row: int) -> dict[str, object]:
    """The chat request of a row, as everybody sends it."""
    return {
        "model": MODEL,
        "messages": messages(prompt(row)),
        "temperature": TEMPERATURE,
        "max_tokens": MAX_TOKENS,
    }


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The command line of every job: what to do, against which endpoint, and where to leave it."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--url", required=True, help="of the endpoint, with /v1")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--folder", type=Path, required=True, help="for the dataset and whatever resuming needs")
    return parser


def checked(replies: Iterable[tuple[str, str | None]], rows: int) -> dict[str, int]:
    """What became of the rows. `replies`: (prompt, reply) as the finished dataset has them."""
    good: set[str] = set()
    wrong = duplicated = 0
    for asked, reply in replies:
        own = asked[:MARKER_BYTES]
        if not reply:
            continue
        if not reply.startswith(own):
            wrong += 1
        elif own in good:
            duplicated += 1
        else:
            good.add(own)
    return {"rows": rows, "lost": rows - len(good), "wrong": wrong, "duplicated": duplicated}


def write_prompts(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for row in range(rows):
            file.write(json.dumps({"prompt": prompt(row)}) + "\n")
