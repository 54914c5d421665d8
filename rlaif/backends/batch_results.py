"""The result file of a batch: the provider's lines, in any order, and ours for calls it says nothing of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from rlaif.backends.batch_api import FailedForGood
from rlaif.errors import ProviderError, ProviderErrorKind


class Results:
    """The file, open, so that another process may remove it; in memory is only where each line begins.

    Raises FileNotFoundError.
    """

    def __init__(self, path: Path, calls: Iterable[str]) -> None:
        self._file = path.open("rb")
        self._offsets = offsets_in(self._file, calls)

    def line(self, name: str) -> bytes:
        """The provider's line for a call. Raises ProviderError if it has none."""
        if name not in self._offsets:
            raise ProviderError("server", "the batch has ended without a readable line for this call")
        self._file.seek(self._offsets[name])
        line = self._file.readline()
        failed = msgspec.json.decode(line, type=_Line).failed
        if failed is not None:
            error = FailedForGood if failed.for_good else ProviderError
            raise error(failed.kind, failed.message, parameter=failed.parameter)
        return line

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._offsets.pop(name, None)

    def close(self) -> None:
        self._file.close()


def offsets_in(file: BinaryIO, calls: Iterable[str]) -> dict[str, int]:
    """Where the line of each of `calls` begins. What is no line of results is passed over."""
    decode = msgspec.json.Decoder(_Line).decode
    names = {name: name for name in calls}  # so that the ids are held in memory once
    offsets: dict[str, int] = {}
    offset = 0
    file.seek(0)
    for line in file:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            name = names.get(decode(line).custom_id)
            if name is not None:
                offsets.setdefault(name, offset)
        offset += len(line)
    return offsets


def line_without_answer(name: str, error: ProviderError) -> bytes:
    failed = _Failed(error.kind, str(error), error.parameter, isinstance(error, FailedForGood))
    return msgspec.json.encode(_Line(name, failed)) + b"\n"


class _Failed(msgspec.Struct):
    kind: ProviderErrorKind
    message: str
    parameter: str | None = None
    for_good: bool = False


class _Line(msgspec.Struct):
    custom_id: str
    failed: _Failed | None = msgspec.field(name="rlaif_failed", default=None)
