"""Rows -> Parquet files with one fixed schema, a row group at a time.

Types inferred from data would not concatenate: an all-empty `category` has none.
"""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.export.rows import Row, Split
from rlaif.export.settings import Config

ROW_GROUP = 1000  # rows held in memory for each file that is being written

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_STRINGS = pa.list_(pa.string())
_FROM = [("id", pa.string()), ("category", pa.string())]
_COMPLETION = [("prompt", _MESSAGES), ("completion", _MESSAGES)]
_SCORE = pa.struct([("judge", pa.string()), ("principle", pa.string()), ("value", pa.float64())])
_PAIRS = pa.schema(
    [
        *[(name, _MESSAGES) for name in ("prompt", "chosen", "rejected")],
        *_FROM,
        ("p", pa.float64()),
        ("margin", pa.float64()),
        ("strategy", pa.string()),
        ("principles", _STRINGS),
        ("judges", _STRINGS),
        ("chosen_model", pa.string()),
        ("rejected_model", pa.string()),
    ]
)
SCHEMAS: dict[Config, Any] = {  # Any: pyarrow ships no types
    "preference": _PAIRS,
    "preference_soft": _PAIRS,
    "sft": pa.schema([*_COMPLETION, ("principle", pa.string()), ("truncated", pa.bool_()), *_FROM]),
    "kto": pa.schema([*_COMPLETION, ("label", pa.bool_()), *_FROM]),
    "reward": pa.schema(
        [("chosen", _MESSAGES), ("rejected", _MESSAGES), ("margin", pa.float64()), *_FROM, ("p", pa.float64())]
    ),
    "scores": pa.schema(
        [
            *_COMPLETION,
            ("score", pa.float64()),
            ("scores", pa.list_(_SCORE)),
            ("win_rate", pa.float64()),
            ("model", pa.string()),
            *_FROM,
        ]
    ),
    "prompts": pa.schema([("prompt", _MESSAGES), *_FROM]),
}


def file_name(split: Split, number: int = 0, of: int = 1) -> str:
    return f"{split}-{number:05}-of-{of:05}.parquet"


class Datasets:
    """The datasets being written under a folder, `<config>/<split>-...parquet`, each when its first row comes.

    `rows` counts what was written. A file without rows cannot be loaded, so there is none. `given`: a row's split is
    that of its source, and not by chance.
    """

    def __init__(self, folder: Path, given: bool = False) -> None:
        self.rows: dict[Config, dict[Split, int]] = {}
        self._folder = folder
        self._given = given
        self._files: dict[tuple[Config, Split], _File] = {}

    def write(self, config: Config, split: Split, rows: list[Row]) -> None:
        if not rows:
            return
        if (config, split) not in self._files:
            path = self._folder / config / file_name(split)
            path.parent.mkdir(exist_ok=True)
            self._files[config, split] = _File(path, SCHEMAS[config])
            self.rows.setdefault(config, {})[split] = 0
        self._files[config, split].write(rows)
        self.rows[config][split] += len(rows)

    def __enter__(self) -> Datasets:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close(whole=kind is None)
        if kind is None and not self._given:
            self._give_train_its_rows()

    def _give_train_its_rows(self) -> None:
        """Where all rows of a configuration fell to test, as in a tiny run, nothing can be trained on.

        Then all configurations give up their test split: a prompt must not be in one's train and another's test.
        """
        if all("train" in counts for counts in self.rows.values()):
            return
        for config, counts in self.rows.items():
            files = [self._folder / config / file_name(split) for split in ("train", "test") if split in counts]
            for number, file in enumerate(files):
                file.rename(file.with_name(file_name("train", number, len(files))))
            self.rows[config] = {"train": sum(counts.values())}


class _File:
    def __init__(self, path: Path, schema: Any) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[Row] = []

    def write(self, rows: list[Row]) -> None:
        self._waiting += rows
        if len(self._waiting) >= ROW_GROUP:
            self._flush()

    def close(self, whole: bool) -> None:
        if whole and self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = [_column([row[field.name] for row in self._waiting], field.type) for field in self._schema]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._waiting = []


def _column(values: list[Any], kind: Any) -> Any:
    """An Arrow array; of messages by hand, which takes a quarter of the time that `Table.from_pylist` does."""
    if kind != _MESSAGES:
        return pa.array(values, kind)
    messages = [message for turns in values for message in turns]
    columns = [pa.array([message[name] for message in messages], pa.string()) for name in ("role", "content")]
    starts = pa.array(accumulate(map(len, values), initial=0), pa.int32())
    return pa.ListArray.from_arrays(starts, pa.StructArray.from_arrays(columns, names=["role", "content"]))
