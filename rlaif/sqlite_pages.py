"""The rows of an SQLite file, each page by itself: what one damaged page holds back is its own rows only.

After https://www.sqlite.org/fileformat2.html; the sections are named below.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO

_HEADER = b"SQLite format 3\0"
_PAGE_BYTES = {b"\x10\0": 4096, b"\x20\0": 8192}  # those a journal was ever made with
_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 13, 10, 2
_FRAME_HEAD, _WAL_HEAD = 24, 32
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)
_LONGEST_ROW = 256 << 20  # longer is no row, but a damaged length

Column = int | str | bytes | None
Row = tuple[Column, ...]


class Pages:
    """The pages of a file and of its WAL; what is newer comes first."""

    def __init__(self, path: Path, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self._count = -(-os.fstat(file.fileno()).st_size // size)
        self._in_wal = dict(_frames(path.with_name(path.name + "-wal"), size))

    @classmethod
    def all_of(cls, path: Path, file: IO[bytes]) -> Pages:
        """Where the header does not say how large the pages are: the size that gives more rows."""
        head = os.pread(file.fileno(), 18, 0)
        if head.startswith(_HEADER) and head[16:] in _PAGE_BYTES:
            return cls(path, file, _PAGE_BYTES[head[16:]])
        return max(
            (cls(path, file, size) for size in _PAGE_BYTES.values()), key=lambda pages: sum(1 for _ in pages.rows())
        )

    def rows(self) -> Iterator[tuple[int, Row]]:
        """The rows of all tables, with their numbers, and of all indices, with 0; some twice, the newer first."""
        for number in chain(range(2, self._count + 1), (more for more in self._in_wal if more > self._count)):
            # The newer page may be torn: then the older one still has most of its rows.
            for page in (self._in_wal.get(number, b""), self._in_file(number)):
                yield from self._rows_on(page)

    def _rows_on(self, page: bytes) -> Iterator[tuple[int, Row]]:
        kind = page[0] if page else 0
        if kind in (_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR):
            start = 12 if kind == _INDEX_INTERIOR else 8  # section 1.6, B-tree Pages
            for place in range(start, start + 2 * int.from_bytes(page[3:5]), 2):
                try:
                    at = int.from_bytes(page[place : place + 2])
                    yield self._table_row(page, at) if kind == _TABLE_LEAF else self._index_row(page, at, start)
                except (IndexError, ValueError):
                    continue  # this cell is damaged, or was never one

    def _table_row(self, page: bytes, at: int) -> tuple[int, Row]:
        length, at = _varint(page, at)
        number, at = _varint(page, at)
        most = self._size - 35  # section 1.6, Cell Payload Overflow Pages
        if length <= most:
            return number, _record(page[at : at + length], length)
        if length > _LONGEST_ROW:
            raise ValueError("no row is that long")
        least = (self._size - 12) * 32 // 255 - 23
        here = least + (length - least) % (self._size - 4)
        here = here if here <= most else least
        payload = page[at : at + here]
        following = int.from_bytes(page[at + here : at + here + 4])
        while following and len(payload) < length:
            page = self._in_wal.get(following) or self._in_file(following)
            following = int.from_bytes(page[:4])
            payload += page[4:]
        return number, _record(payload[:length], length)

    def _index_row(self, page: bytes, at: int, start: int) -> tuple[int, Row]:
        length, at = _varint(page, at + start - 8)  # an interior cell begins with the number of a page
        return 0, _record(page[at : at + length], length)

    def _in_file(self, number: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), self._size, (number - 1) * self._size)
        except OSError:  # the disk cannot read it either
            return b""


def _frames(wal: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """The pages in a WAL, in the order they were written (section 4.1); frames of an earlier round have other salts."""
    try:
        data = wal.read_bytes()
    except OSError:
        return
    for at in range(_WAL_HEAD, len(data) - _FRAME_HEAD - size + 1, _FRAME_HEAD + size):
        if data[at + 8 : at + 16] == data[16:24]:
            yield int.from_bytes(data[at : at + 4]), data[at + _FRAME_HEAD : at + _FRAME_HEAD + size]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 1 to 9 bytes, and where it ends. Raises IndexError."""
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9


def _record(payload: bytes, length: int) -> Row:
    """The columns of a row (section 2.1, Record Format). Raises ValueError or IndexError if they do not fill it."""
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    row: list[Column] = []
    for kind in kinds:
        width = _INTEGER_BYTES[kind] if kind < 7 else (kind - 12) // 2 if kind >= 12 else 0
        value = payload[at : at + width]
        at += width
        if kind >= 12:
            row.append(value.decode() if kind % 2 else value)
        elif kind in (8, 9):
            row.append(kind - 8)
        else:
            row.append(int.from_bytes(value, signed=True) if kind else None)
    if at != length or len(payload) != length:
        raise ValueError("a row that is longer or shorter than its columns")
    return tuple(row)
