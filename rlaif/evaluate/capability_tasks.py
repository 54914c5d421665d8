"""Our own small tasks of capability: sums, common knowledge, and instructions whose following can be checked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

from rlaif.resources import PACKAGE

TASKS = ("rlaif_arithmetic", "rlaif_knowledge", "rlaif_instructions")
SUMS = 90


def rows(task: str) -> list[dict[str, Any]]:
    """Of one of TASKS: {question, choices}, the first of which is right, or {prompt, check}."""
    if task == "rlaif_arithmetic":
        return _sums()
    shipped, checkout = PACKAGE / "bundled" / "data", PACKAGE.parent / "data"
    folder = (shipped if shipped.is_dir() else checkout) / "capability"
    return _read(folder / f"{task.removeprefix('rlaif_')}.json")


def satisfies(answer: str, check: dict[str, Any]) -> bool:
    """Whether the answer is as the instruction asked: all that `check` names holds."""
    return all(_CHECKS[name](answer.strip(), wanted) for name, wanted in check.items())


def _sums() -> list[dict[str, Any]]:
    """A third each of additions, subtractions and multiplications, always the same; wrong choices are near."""
    found: dict[str, dict[str, Any]] = {}
    chance = Random("rlaif arithmetic 1")
    while len(found) < SUMS:
        sign = "+-*"[len(found) * 3 // SUMS]
        most = 12 if sign == "*" else 50
        one, other = chance.randint(2, most), chance.randint(2, most)
        if sign == "-" and one <= other:
            continue
        right = {"+": one + other, "-": one - other, "*": one * other}[sign]
        wrong = chance.sample([n for n in range(max(0, right - 10), right + 11) if n != right], 3)
        spoken = {"+": "plus", "-": "minus", "*": "times"}[sign]
        question = f"What is {one} {spoken} {other}? Answer with the number only."
        found[question] = {"question": question, "choices": [str(n) for n in (right, *wrong)]}
    return list(found.values())


def _read(path: Path) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _has_keys(answer: str, keys: list[str]) -> bool:
    inside = re.sub(r"^```(?:json)?\s*|\s*```$", "", answer)
    try:
        content = json.loads(inside)
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() == set(keys)


_CHECKS: dict[str, Any] = {  # Any: each takes (answer, what is wanted), and each wants another type
    "equals": lambda answer, wanted: " ".join(_words(answer)) in wanted,
    "words": lambda answer, wanted: set(wanted) <= set(_words(answer)),
    "avoid": lambda answer, wanted: not any(word in answer.lower() for word in wanted),
    "max_words": lambda answer, wanted: 0 < len(_words(answer)) <= wanted,
    "min_words": lambda answer, wanted: len(_words(answer)) >= wanted,
    "case": lambda answer, wanted: bool(answer) and answer == (answer.lower() if wanted == "lower" else answer.upper()),
    "starts": lambda answer, wanted: answer.lstrip("\"'*").lower().startswith(wanted),
    "ends": lambda answer, wanted: answer.lower().endswith(wanted),
    "lines": lambda answer, wanted: len(_lines(answer)) == wanted,
    "bullets": lambda answer, wanted: (
        len(_lines(answer)) == wanted and all(line.startswith("-") for line in _lines(answer))
    ),
    "json_keys": _has_keys,
}
