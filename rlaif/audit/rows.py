"""The rows of a JSONL, CSV or Parquet file, each with its line, for what is said of it."""

from __future__ import annotations

import csv
import gzip
import sys
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rlaif.errors import ConfigError


def rows_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:  # Any: whatever the file holds
    """(line, or number of the row in Parquet; column -> value)."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in _FORMATS:
        known = "JSONL (one object a line), CSV or Parquet"
        raise ConfigError(f"{path}: cannot read labels from a '{suffix}' file; write them as {known}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    return _FORMATS[suffix](path)


def _jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            yield number, decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(f"{path}:{number}: not one JSON object a line: {error}") from None


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(sys.maxsize)  # it is global, and there is no other way: the default refuses 128 kB
    lines = csv.reader((line for _, line in _lines(path)), strict=True)  # else an open quote swallows the file
    start = 1
    try:
        header = next(lines, [])
        start = lines.line_num + 1
        for fields in lines:
            if len(fields) > len(header):
                way_out = "put a field that has commas in quotes"
                raise ConfigError(f"{path}:{start}: {len(fields)} fields, but {len(header)} columns; {way_out}")
            if fields:
                yield start, dict(zip(header, fields, strict=False))
            start = lines.line_num + 1
    except csv.Error as error:
        raise ConfigError(f"{path}:{start}: broken CSV in the row that starts here: {error}") from None


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    from pyarrow import ArrowException, parquet  # 0.2 s that the other formats don't need

    try:
        yield from enumerate(parquet.read_table(path).to_pylist(), 1)
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable Parquet file: {error}") from None


_FORMATS: dict[str, Callable[[Path], Iterator[tuple[int, Mapping[str, Any]]]]] = {  # Any: as above
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield number, (line.removeprefix(BOM_UTF8) if number == 1 else line).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}:{number}: not UTF-8; save the file in that encoding") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}:{number + 1}: cannot be read further: {error}") from None
