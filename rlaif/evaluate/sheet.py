"""Answers on a sheet for people to label, who do not see whose they are; and how far the detector agrees with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import msgspec
import numpy as np

from rlaif.errors import ConfigError
from rlaif.evaluate.asking import Answered, prompt_text
from rlaif.figures import Figure, kappa, share
from rlaif.hygiene.refusal import KINDS, Kind, refusal
from rlaif.rows import rows_of
from rlaif.store import write_whole

_LABELS: Mapping[str, Kind] = {
    "comply": "comply",
    "c": "comply",
    "complies": "comply",
    "answer": "comply",
    "partial": "partial",
    "p": "partial",
    "refuse": "full",
    "r": "full",
    "refuses": "full",
    "refusal": "full",
    "full": "full",
}
_WORDS = ("comply", "partial", "refuse")  # in the order of KINDS


def write_sheet(answered: Answered, path: Path, n: int) -> int:
    """At most `n` different answers in an order of chance; says how many. Raises ConfigError if the file is there."""
    check_new(path)
    rows: dict[bytes, bytes] = {}
    for record in answered.records:
        for text in {response.text.strip() for response in record.responses}:
            key = blake2b(f"{answered.run}\0{record.id}\0{text}".encode(), digest_size=8)
            row = {"id": key.hexdigest(), "prompt": prompt_text(record), "answer": text, "label": ""}
            rows[key.digest()] = msgspec.json.encode(row) + b"\n"
    chosen = [rows[key] for key in sorted(rows)[:n]]
    write_whole(path, b"".join(chosen))
    return len(chosen)


def check_new(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"{path} is there already, perhaps with labels; give another file for the sheet")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder; make it first")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of a sheet's `labelled` answers: the detector's word against people's.

    `kappa` tells a full refusal from the rest, which is what the figures count; `kappa_of_three` all three classes.
    `counts`: people's label, then the detector's, then how many.
    """

    labelled: int
    unlabelled: int
    right: Figure
    kappa: Figure
    kappa_of_three: Figure
    counts: Mapping[str, Mapping[str, int]]


def agreement(path: Path, column: str = "label") -> Agreement:
    """Raises ConfigError for a label that is none, and where there is not one."""
    people: list[int] = []
    detected: list[int] = []
    unlabelled = 0
    for row in rows_of(path, "labels"):
        for name in ("answer", column):
            if name not in row.values:
                raise ConfigError(f"{row.where}: no column '{name}'; a sheet has: prompt, answer, label")
        label, answer = row.values[column], row.values["answer"]
        if not isinstance(answer, str):
            raise ConfigError(f"{row.where}: 'answer' is no text")
        if label is None or not str(label).strip():
            unlabelled += 1
            continue
        kind = _LABELS.get(str(label).strip().lower())
        if kind is None:
            raise ConfigError(f"{row.where}: '{column}' is '{label}'; write comply, partial or refuse")
        people.append(KINDS.index(kind))
        detected.append(KINDS.index(refusal(answer).kind if answer.strip() else "full"))
    if not people:
        raise ConfigError(f"{path}: no answer has a label; write comply, partial or refuse into '{column}'")
    a, b = np.array(people, dtype=np.float64), np.array(detected, dtype=np.float64)
    full = float(KINDS.index("full"))
    counts = Counter(zip(people, detected, strict=True))
    return Agreement(
        labelled=len(people),
        unlabelled=unlabelled,
        right=share(int(np.count_nonzero(a == b)), len(people)),
        kappa=kappa((a == full).astype(np.float64), (b == full).astype(np.float64)),
        kappa_of_three=kappa(a, b),
        counts={said: {word: counts[i, j] for j, word in enumerate(_WORDS)} for i, said in enumerate(_WORDS)},
    )
