"""A record in as few bytes as are compared."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from rlaif.export.strategies import Found
from rlaif.types import Record

Place = int  # of a candidate: twice the index of its draft, one more for the last revision of that
Judged = tuple[Place, Place, int, int | None]  # two candidates, the principle, p of the first in thousandths


class Names:
    """Principles by number, as they come: a number takes one byte."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
        return number

    def __getitem__(self, number: int) -> str:
        return self._names[number]


class Brief(msgspec.Struct, array_like=True, gc=False):
    """As much of a record as is compared. Texts are 8 bytes of their hash."""

    texts: dict[Place, bytes]
    pairs: list[tuple[Place, Place]]
    reason: str | None
    chains: dict[int, list[tuple[int, bytes]]]  # of each draft: (principle, text), round by round
    verdicts: list[Judged]


packed = msgspec.msgpack.Encoder().encode
unpacked = msgspec.msgpack.Decoder(Brief).decode


def brief_of(record: Record, found: Found, names: Names) -> Brief:
    hashes = [blake2b(one.text.strip().encode(), digest_size=8).digest() for one in record.responses]
    drafts: list[int] = []
    places: list[Place] = []
    chains: dict[int, list[tuple[int, bytes]]] = {}
    for i, response in enumerate(record.responses):
        draft = i if response.revises is None else drafts[response.revises]
        drafts.append(draft)
        places.append(2 * draft + (draft != i))
        if draft != i:
            chains.setdefault(draft, []).append((names.number(response.principle or ""), hashes[i]))
    verdicts: list[Judged] = []
    for verdict in record.verdicts:
        one, other, p = places[verdict.first], places[verdict.second], verdict.p_first
        if one > other:
            one, other, p = other, one, None if p is None else 1 - p
        verdicts.append((one, other, names.number(verdict.principle), None if p is None else round(1000 * p)))
    return Brief(
        texts={places[i]: hashes[i] for i in record.candidates()},
        pairs=[(places[pair.chosen], places[pair.rejected]) for pair in found.pairs],
        reason=found.reason or record.reason or (None if found.pairs else record.outcome),
        chains=chains,
        verdicts=verdicts,
    )
