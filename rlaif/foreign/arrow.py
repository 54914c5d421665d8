"""Rows of a Parquet file from here to there, never more than a batch in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlaif.errors import ConfigError

_BATCH = 512  # rows in memory


@contextmanager
def table_of(path: Path) -> Iterator[Any]:  # Any: pyarrow ships no types
    """The open file. Raises ConfigError for what is none, and for what breaks off while it is read."""
    from pyarrow import ArrowException, parquet  # late: 0.2 s

    try:
        # Without a buffer size pyarrow reads each row group whole: 410 MB of memory for a file of 300 MB.
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            names = file.schema_arrow.names
            if twice := [name for name in names if names.count(name) > 1]:
                raise ConfigError(f"{path}: several columns are named '{twice[0]}'; rename them")
            yield file
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable Parquet file: {' '.join(str(error).split())}") from None


def table_rows(
    path: Path, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows `start` to `stop` with their numbers, from 1; row groups outside are not read."""
    with table_of(path) as file:
        groups, before, at = [], 0, 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if at + rows <= start:
                before += rows
            elif stop is None or at < stop:
                groups.append(group)
            at += rows
        if not groups:
            return
        at = before
        names = file.schema_arrow.names if columns is None else list(columns)
        for batch in file.iter_batches(_BATCH, groups, columns=names):
            low, high = max(start - at, 0), batch.num_rows if stop is None else min(stop - at, batch.num_rows)
            if low < high:
                yield from enumerate(batch.slice(low, high - low).to_pylist(), at + low + 1)
            at += batch.num_rows
            if stop is not None and at >= stop:
                return
