"""The rows of a JSONL, CSV or Parquet file, each with its place; never more than a line, or a batch, in memory."""

from __future__ import annotations

import csv
import gzip
import sys
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rlaif.errors import ConfigError

# Of the columns that a Parquet file has, those that are read.
Columns = Callable[[list[str]], list[str]]


class Row(NamedTuple):
    where: str  # "file:line" for an error
    values: Mapping[str, Any]  # Any: whatever the file holds; checked by whoever uses it


def rows_of(path: Path, what: str = "rows", columns: Columns = lambda names: names) -> Iterator[Row]:
    """`what` they are, for an error. Raises ConfigError: at once for an unknown format, else with the place."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in FORMATS:
        hint = "one JSON object a line (.jsonl)" if suffix == ".json" else ", ".join(FORMATS)
        raise ConfigError(f"{path}: cannot read {what} from a '{suffix}' file; write them as {hint}")
    return FORMATS[suffix](path, columns)


def _jsonl(path: Path, columns: Columns) -> Iterator[Row]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for number, line in _lines(path):
        if line.isspace() or not line:
            continue
        try:
            yield Row(f"{path}:{number}", decode(line))
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(f"{path}:{number}: not one JSON object a line: {error}") from None


def _csv(path: Path, columns: Columns) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # the only way there is: it is global; the default refuses 128 kB
    # strict: else a quote that is never closed swallows the rest of the file as one field
    lines = csv.reader((line for _, line in _lines(path)), strict=True)
    start = 1
    try:
        header = next(lines, [])
        if twice := next((name for name in header if header.count(name) > 1), None):
            raise ConfigError(f"{path}: several columns are named '{twice}'; rename them")
        start = lines.line_num + 1
        for fields in lines:
            if len(fields) > len(header):
                way_out = "put a field that has commas in quotes"
                raise ConfigError(f"{path}:{start}: {len(fields)} fields, but {len(header)} columns; {way_out}")
            if fields:
                yield Row(f"{path}:{start}", dict(zip(header, fields, strict=False)))
            start = lines.line_num + 1
    except csv.Error as error:
        raise ConfigError(f"{path}:{start}: broken CSV in the row that starts here: {error}") from None


def _parquet(path: Path, columns: Columns) -> Iterator[Row]:
    from pyarrow import ArrowException, parquet  # 0.2 s that the other formats don't need

    try:
        # Without a buffer size pyarrow reads each row group whole: 410 MB of memory for a file of 300 MB.
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            row = 0
            for batch in file.iter_batches(batch_size=256, columns=columns(file.schema_arrow.names)):
                for values in batch.to_pylist():
                    row += 1
                    yield Row(f"{path}: row {row}", values)
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable Parquet file: {error}") from None


FORMATS: Mapping[str, Callable[[Path, Columns], Iterator[Row]]] = {
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
