"""A preference dataset without the rows that nobody wants: the rest unchanged, and what went with its reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import yaml

from rlaif import hub
from rlaif.errors import ConfigError
from rlaif.export.folder import digest, replaced
from rlaif.export.front import configs
from rlaif.export.markup import code, table
from rlaif.foreign.columns import shape_of
from rlaif.foreign.dropped import dropped_line, text_of
from rlaif.foreign.read import Dataset, Row, open_dataset
from rlaif.foreign.shapes import MALFORMED, PROBLEMS, Example, Shape, example
from rlaif.hygiene.clean import Clean, Cleaner, Dropped, Found, Texts
from rlaif.version import __version__

MARKER = "<!-- written by `rlaif clean`; the next one replaces this folder -->"
_BATCH = 512  # rows in memory


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`kept` and `read` are rows of each split."""

    folder: Path
    shape: str
    read: Mapping[str, int]
    kept: Mapping[str, int]
    dropped: Dropped


def clean_dataset(
    address: str,
    to: Path,
    settings: Clean,
    *,
    config: str | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Cleaned:
    """Write the rows that stay to `to`, replacing what an earlier cleaning left there.

    All columns stay as they are; each split is one Parquet file. `dropped.jsonl` has every row that went: the reason,
    its place and the start of its texts. Of a ranked row the best and worst answer are looked at.
    Raises ConfigError for what is no preference data, if no row stays, and when `to` holds something else; StoreError
    when it cannot be written. All leave what is there as it was.
    """
    dataset = open_dataset(address, config, split)
    shape = shape_of(dataset.columns, dataset.first(), roles=columns)
    cleaner = Cleaner(settings)
    schema = _schema(dataset)
    read: Counter[str] = Counter()
    with replaced(to, MARKER) as partial:
        (partial / "data").mkdir()
        with (partial / "dropped.jsonl").open("wb") as dropped, _Splits(partial / "data", schema) as kept:
            for rows in _batches(_rows(dataset)):
                read.update(row.split for row in rows)
                for row, found in zip(rows, _judged(rows, shape, cleaner, settings, dropped), strict=True):
                    if found is None:
                        kept.write(row)
        if not kept.rows:
            why = ", ".join(f"{n:,} {reason}" for reason, n in cleaner.dropped.counts.most_common(3))
            raise ConfigError(
                f"{address}: no row of {read.total():,} stays: {why}; read as {shape}; see --columns, --set"
            )
        splits = [split for split in dataset.splits if split in read]
        of_split = {split: read[split] for split in splits}, {split: kept.rows[split] for split in splits}
        done = Cleaned(to, str(shape), *of_split, cleaner.dropped)
        (partial / "README.md").write_text(_card(done, address, settings, digest(partial / "data")), encoding="utf-8")
    return done


def _judged(rows: list[Row], shape: Shape, cleaner: Cleaner, settings: Clean, dropped: IO[bytes]) -> list[Found | None]:
    """Why each row goes; those that go are written down."""
    found: list[Found | None] = []
    texts = []
    for row in rows:
        one = example(row.values, shape)
        texts.append(_texts(one, shape))
        problem = row.fault or _malformed(one, shape)
        found.append(("malformed", problem) if problem and (settings.malformed or row.fault) else None)
    whole = [i for i, problem in enumerate(found) if problem is None]
    for i, why in enumerate(found):
        if why:
            cleaner.dropped.add(texts[i], why)
    for i, why in zip(whole, cleaner.reasons([texts[i] for i in whole]), strict=True):
        found[i] = why
    for row, text, why in zip(rows, texts, found, strict=True):
        if why:
            where = row.where.rpartition("/")[2]  # no path of this machine
            dropped.write(dropped_line(*why, row.split, where, text))
    return found


def _malformed(one: Example, shape: Shape) -> str | None:
    # Of text without a prompt column every row has no_prompt.
    wrong = MALFORMED if shape.form != "text" else MALFORMED - {"no_prompt"}
    return next((name for name in PROBLEMS if name in wrong and name in one.problems), None)


def _texts(one: Example, shape: Shape) -> Texts:
    has_prompt = shape.prompt is not None or bool(one.prompt) or shape.form != "text"
    rejected = None if shape.pairing in ("unpaired", "rated") else text_of(one.rejected)
    return Texts(text_of(one.prompt) if has_prompt else None, text_of(one.chosen), rejected, one.label)


def _rows(dataset: Dataset) -> Iterator[Row]:
    """Those of train last: of rows that are alike in train and test, the one of test stays."""
    for share in sorted(dataset.shares, key=lambda share: share.split.startswith("train")):
        yield from share.rows()


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH)):
        yield batch


# --- Parquet; Any is pyarrow's, which ships no types ---


def _schema(dataset: Dataset) -> Any:
    """What the files say; of others, what all of their rows have."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        if all(share.source.startswith(hub.PREFIX) for share in dataset.shares):
            return pa.unify_schemas([hub.schema(share.source) for share in dataset.shares])
        if all(share.source.lower().endswith(".parquet") for share in dataset.shares):
            return pa.unify_schemas([parquet.read_schema(share.source) for share in dataset.shares])
        schema = pa.schema([])
        for rows in _batches(dataset.rows()):
            values = pa.array([row.values for row in rows if row.fault is None])
            found = pa.schema(list(values.type) if len(values) else [])
            schema = pa.unify_schemas([schema, found], promote_options="permissive")
        return schema
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(
            f"{dataset.address}: a column has values of several types, or that Parquet has no type for: {why}; make "
            "them one, such as text"
        ) from None


class _Splits:
    """A Parquet file for each split, made when its first row comes; `rows` counts."""

    def __init__(self, folder: Path, schema: Any) -> None:
        self.rows: Counter[str] = Counter()
        self._folder = folder
        self._schema = schema
        self._waiting: dict[str, list[Mapping[str, Any]]] = {}
        self._files: dict[str, Any] = {}

    def write(self, row: Row) -> None:
        waiting = self._waiting.setdefault(row.split, [])
        waiting.append(row.values)
        self.rows[row.split] += 1
        if len(waiting) >= 2 * _BATCH:
            self._flush(row.split)

    def _flush(self, split: str) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            if split not in self._files:
                path = self._folder / file_name(split)
                self._files[split] = parquet.ParquetWriter(path, self._schema, compression="zstd")
            self._files[split].write_table(pa.Table.from_pylist(self._waiting.pop(split), schema=self._schema))
        except pa.ArrowException as error:  # objects that are all empty, large integers among fractions
            why = " ".join(str(error).split())
            raise ConfigError(f"a column cannot be written as Parquet: {why}; remove it, or make it text") from None

    def __enter__(self) -> _Splits:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for split in list(self._waiting) if kind is None else []:
            self._flush(split)
        for file in self._files.values():
            file.close()


def file_name(split: str) -> str:
    return _FILE.format(split=split)


_FILE = "{split}-00000-of-00001.parquet"


# --- the card ---


def _card(done: Cleaned, address: str, settings: Clean, content: str) -> str:
    """No text of the dataset is in it, and no path of this machine."""
    splits = [split for split, n in done.kept.items() if n]
    front = {"configs": configs({"default": content}, {"default": splits}, f"data/{_FILE}")}
    source = Path(address).name if Path(address.partition("#")[0]).expanduser().exists() else address
    evals = [Path(file).name for file in settings.evals]
    filters = settings.model_dump(mode="json", exclude_none=True) | {"evals": evals}
    kept = table(
        ("split", "rows of the source", "left"),
        [(code(split), f"{n:,}", f"{done.kept[split]:,}") for split, n in done.read.items()],
        1,
    )
    gone = table(("reason", "rows"), [(code(reason), f"{n:,}") for reason, n in done.dropped.counts.most_common()], 1)
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{MARKER}\n\n# {code(source)}, cleaned\n\n"
        f"Rows of another dataset, unchanged; some were left out. Made with rlaif {__version__}. Read as "
        f"{code(done.shape)}. Licence and labels are those of the source.\n\n"
        f"{kept}\nEach row that was left out is in `dropped.jsonl` with its place.\n\n{gone}\n"
        f"## Filters\n\n```yaml\n{yaml.safe_dump(filters, sort_keys=False, allow_unicode=True)}```\n"
    )
