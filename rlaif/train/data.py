"""DATA of the command -> the rows that train and those that only measure, checked, shared out and written once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rlaif.errors import ConfigError
from rlaif.foreign.read import Dataset, open_dataset
from rlaif.foreign.read import Row as Read
from rlaif.rows import rows_of
from rlaif.train.methods import datasets_of
from rlaif.train.rows import form_of, left_out, prompt_of, trl_row
from rlaif.train.settings import Data, Method

Row = dict[str, Any]  # Any: TRL's columns, text or messages and numbers

HELD_OUT = "prompt of a test split"
_BY_SHARE = "not of the share"
_BY_CAP = "over the cap"


class Gathered(NamedTuple):
    data: tuple[Data, ...]
    train: list[Row]
    test: list[Row]


class _Found(NamedTuple):
    """A row and its prompt's name."""

    prompt: str
    row: Row


class _Source(NamedTuple):
    data: Data
    train: list[_Found]
    test: list[_Found]
    left_out: Counter[str]
    held_out: set[str]  # the prompts of its test splits, in all its configurations


def parsed(argument: str) -> Data:
    """SOURCE, SOURCE=WEIGHT or SOURCE=WEIGHT,CAP. Raises ConfigError."""
    found = re.fullmatch(r"(.+)=([0-9.]+)(?:,([0-9]+))?", argument, re.DOTALL)
    if found is None or Path(argument).exists():
        return Data(source=argument, path=argument)
    source, weight, cap = found.groups()
    try:
        share, most = float(weight), None if cap is None else int(cap)
    except ValueError:
        share, most = -1.0, None
    if not 0 < share <= 1 or most == 0:
        raise ConfigError(f"{argument}: write SOURCE=WEIGHT,CAP, as round-1=0.3,500: a share up to 1, and at most rows")
    return Data(source=source, path=source, weight=share, cap=most)


def gathered(arguments: Sequence[str], method: Method, runs_dir: Path, *, soft: bool = False) -> Gathered:
    """All rows, in memory. A prompt of a test split of any source trains in none. Raises ConfigError."""
    named = [_placed(parsed(argument), runs_dir) for argument in arguments]
    [(path, times)] = Counter(data.path for data in named).most_common(1)
    if times > 1:
        raise ConfigError(f"{path} is named twice; name each once, with its share: {path}=0.5")
    sources = [_read(data, method, soft=soft) for data in named]
    held_out = set[str]().union(*(source.held_out for source in sources))
    shared = [_shared(source, held_out) for source in sources]
    rows = [row for _, train in shared for row in train]
    test = [found.row for source in sources for found in source.test]
    if not rows:
        why = Counter[str]()
        for data, _ in shared:
            why.update(data.left_out)
        said = ", ".join(f"{n:,} {reason}" for reason, n in why.most_common(3)) or "there are none"
        raise ConfigError(f"no row is left to train on ({said}); give more DATA, or a larger share of it")
    _one_form([*rows, *test])
    return Gathered(tuple(data for data, _ in shared), *_same_columns(rows, test))


def write(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """As `name`.parquet. Raises ConfigError for columns that have several types."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = pa.Table.from_pylist(list(rows))
    except pa.ArrowException as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"a column of the data has values of several types: {why}; make them one") from None
    parquet.write_table(table, folder / f"{name}.parquet", compression="zstd", row_group_size=1000)


# --- where it is ---


def _placed(data: Data, runs_dir: Path) -> Data:
    """A file or folder wins over a run of that name; a run's folder stands for its dataset."""
    name, mark, config = data.source.partition("#")
    path = Path(name).expanduser()
    run = next((folder for folder in (path, runs_dir / name) if name and (folder / "run.yaml").is_file()), None)
    if run is not None and (run == path or not path.exists()):
        path = run / "dataset"
        if not path.is_dir():
            raise ConfigError(f"the run {name} has no dataset; write it with `rlaif export {run.name}`")
    elif not name or not path.exists():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith(("./", "../")):
            raise ConfigError(f"no run '{name}' in {runs_dir}, and no file or folder of that name; see `rlaif list`")
        return data  # of the hub
    return data.model_copy(update={"path": f"{path}{mark}{config}"})


def _opened(data: Data, method: Method, *, soft: bool) -> Dataset:
    folder = Path(data.path).is_dir()
    if not folder:
        return open_dataset(data.path)
    wanted = datasets_of(method, soft=soft)
    failed: ConfigError | None = None
    for config in (*wanted, "default"):
        try:
            return open_dataset(data.path, config)
        except ConfigError as error:
            failed = failed or error
    assert failed is not None
    raise failed


# --- what is in it ---


def _read(data: Data, method: Method, *, soft: bool) -> _Source:
    dataset = _opened(data, method, soft=soft)
    margins = dataset.config in (None, "reward", "default")  # elsewhere a margin is no log-odds
    found: dict[bool, list[_Found]] = {True: [], False: []}
    gone = Counter[str]()
    for read in dataset.rows():
        values = _values(read)
        row = trl_row(values, method, read.where, soft=soft, margins=margins)
        if reason := left_out(row, soft=soft):
            gone[reason] += 1
            continue
        found[read.split.startswith("train")].append(_Found(prompt_of(row), row))
    held_out = {one.prompt for one in found[False]} | set(_other_tests(Path(data.path.partition("#")[0])))
    return _Source(data.model_copy(update={"config": dataset.config}), found[True], found[False], gone, held_out)


def _values(read: Read) -> Mapping[str, Any]:
    if read.fault:
        raise ConfigError(f"{read.where}: {read.fault}; remove the line, or mend it")
    return read.values


def _other_tests(folder: Path) -> Iterator[str]:
    """The prompts that any configuration of an exported folder holds out."""
    for path in sorted(folder.glob("*/test-*.parquet")) if folder.is_dir() else []:
        for row in rows_of(path, columns=_prompts_only):
            yield prompt_of(row.values)


def _prompts_only(names: list[str]) -> list[str]:
    return ["prompt"] if "prompt" in names else [name for name in names if name in ("chosen", "rejected")]


# --- shares ---


def _shared(source: _Source, held_out: set[str]) -> tuple[Data, list[Row]]:
    """Drawn by the prompt: what is taken of a source stays taken when its other rows or the share grow."""
    gone = Counter(source.left_out)
    rows: list[tuple[float, _Found]] = []
    for found in source.train:
        place = _place(found.prompt)
        if found.prompt in held_out:
            gone[HELD_OUT] += 1
        elif place >= source.data.weight:
            gone[_BY_SHARE] += 1
        else:
            rows.append((place, found))
    cap = source.data.cap
    if cap is not None and len(rows) > cap:
        taken = {id(one[1]) for one in sorted(rows, key=lambda one: one[0])[:cap]}
        gone[_BY_CAP] += len(rows) - cap
        rows = [one for one in rows if id(one[1]) in taken]
    train = [found.row for _, found in rows]
    counted = {
        "rows": len(train),
        "test_rows": len(source.test),
        "left_out": dict(gone),
        "digest": _digest([*train, *(found.row for found in source.test)]),
    }
    return source.data.model_copy(update=counted), train


def _place(prompt: str) -> float:
    """From 0 to 1, by the prompt alone, and not by what the splits are drawn by."""
    return int.from_bytes(blake2b(f"share\0{prompt}".encode(), digest_size=8).digest()) / 2**64


def _digest(rows: Iterable[Row]) -> str:
    digest = blake2b(digest_size=8)
    for row in rows:
        digest.update(msgspec.json.encode(row, order="sorted"))
    return digest.hexdigest()


# --- all sources together ---


def _one_form(rows: Sequence[Row]) -> None:
    forms = {form_of(row) for row in rows}
    if len(forms) > 1:
        raise ConfigError("some rows are text and some are messages; TRL takes one of the two: make all DATA messages")


def _same_columns(train: list[Row], test: list[Row]) -> tuple[list[Row], list[Row]]:
    """A column that some rows lack, as a margin, goes: TRL takes no None."""
    rows = [*train, *test]
    present = [name for name in rows[0] if all(row.get(name) is not None for row in rows)]
    return ([{name: row[name] for name in present} for row in part] for part in (train, test))  # type: ignore[return-value]
