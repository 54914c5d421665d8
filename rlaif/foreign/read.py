"""Any dataset by its address, row by row: a file, a folder, or one of the hub; in shares, for several processes."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from rlaif import hub
from rlaif.errors import ConfigError
from rlaif.foreign.arrow import table_rows
from rlaif.rows import FORMATS, rows_of

ENDINGS = (*FORMATS, ".json")
PEEK = 100  # rows that are looked at to learn what a file without a schema holds
_BLOCK = 1 << 20


class Row(NamedTuple):
    """One row and where it is, as file:line. A line that is none has no values, and its `fault` says why."""

    split: str
    where: str
    values: Mapping[str, Any]  # Any: whatever the dataset holds
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """Rows `start` to `stop` of one file or hub split, or bytes of a JSONL file; goes to another process as it is.

    `first` is the number of its first line or row, from 1. None as `stop`: to the end.
    """

    split: str
    source: str
    start: int = 0
    stop: int | None = None
    first: int = 1
    columns: tuple[str, ...] | None = None  # those that are read; None: all

    def rows(self) -> Iterator[Row]:
        """Raises ConfigError for what cannot be read on; a broken line of JSON only is a Row with a fault."""
        if self.source.startswith(hub.PREFIX):
            return self._of_hub()
        path = Path(self.source)
        match _ending(path):
            case ".parquet" if not _packed(path):
                found = table_rows(path, self.start, self.stop, self.columns)
                return (Row(self.split, f"{path}: row {number}", values) for number, values in found)
            case ".jsonl" | ".ndjson":
                return self._of_lines(path)
            case ".json":
                return self._of_json(path)
            case _:
                return (Row(self.split, row.where, row.values) for row in rows_of(path))

    def _of_hub(self) -> Iterator[Row]:
        wanted = list(self.columns) if self.columns else hub.columns(self.source)
        stop = "" if self.stop is None else self.stop
        sliced = f"{self.source}[{self.start}:{stop}]" if self.start or self.stop is not None else self.source
        for number, values in enumerate(hub.rows(sliced, wanted), self.first):
            yield Row(self.split, f"{self.source}: row {number}", values)

    def _of_lines(self, path: Path) -> Iterator[Row]:
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        for number, line in enumerate(_lines(path, self.start, self.stop), self.first):
            if line.isspace():
                continue
            where = f"{path}:{number}"
            try:
                yield Row(self.split, where, decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                yield Row(self.split, where, {}, f"not one JSON object a line: {error}")

    def _of_json(self, path: Path) -> Iterator[Row]:
        """A list of objects, read whole, or one object a line."""
        if not _is_list(path):
            yield from self._of_lines(path)
            return
        try:
            values = msgspec.json.decode(b"".join(_lines(path)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{path}: not JSON: {error}; write one object a line (.jsonl)") from None
        for number, row in enumerate(values, 1):
            fault = None if isinstance(row, dict) else f"a {type(row).__name__}, not an object"
            yield Row(self.split, f"{path}: row {number}", {} if fault else row, fault)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset that is there: its splits in order, and the columns of its first split.

    `size` is the number of rows, None where only reading would tell.
    """

    address: str
    config: str | None
    splits: tuple[str, ...]
    columns: tuple[str, ...]
    size: int | None
    shares: tuple[Share, ...]  # one for each file, or for each split of the hub

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """All rows, split after split, never more than a batch in memory; can be called again."""
        for share in self._reading(columns):
            yield from share.rows()

    def first(self, n: int = PEEK) -> list[Mapping[str, Any]]:
        """The values of the first rows that can be read."""
        return list(islice((row.values for row in self.rows() if row.fault is None), n))

    def chunks(self, n: int, columns: Sequence[str] | None = None) -> list[Share]:
        """The same rows in the same order as about `n` shares of equal size; fewer where a file cannot be cut."""
        shares = self._reading(columns)
        sizes = [_bytes_or_rows(share) for share in shares]
        whole = sum(sizes) or 1
        return [
            part for share, size in zip(shares, sizes, strict=True) for part in _cut(share, round(n * size / whole))
        ]

    def _reading(self, columns: Sequence[str] | None) -> list[Share]:
        known = None if columns is None else tuple(name for name in columns if name in self.columns)
        return [_reading(share, known) for share in self.shares]


def open_dataset(address: str, config: str | None = None, split: str | None = None) -> Dataset:
    """The dataset at an address, opened; its rows are read when they are asked for.

    The address is a .jsonl, .json, .csv or .parquet file (all but Parquet also .gz), a folder of them, FOLDER#CONFIG,
    what `save_to_disk` made, OWNER/NAME of the hub, or what rlaif.hub takes (hf://...).
    A folder has its configurations and splits from its card, else from the names of its folders and files.
    Of several configurations `preference` or `default` is taken if none is named. Raises ConfigError.
    """
    path, config = _path(address, config)
    if path is None or _is_saved(path):
        return _on_hub(f"{hub.PREFIX}{path.resolve()}" if path else address, address, config, split)
    if path.is_dir():
        config, files = _of_folder(path, config)
    elif config:
        raise ConfigError(f"{path} is one file and has no configurations; leave out '{config}'")
    else:
        _known(path)
        files = {_split_in(path.name): [path]}
    if split is not None and split not in files:
        raise ConfigError(f"{address}: no split '{split}'; there are: {', '.join(files)}")
    chosen = files if split is None else {split: files[split]}
    shares = tuple(Share(name, str(file)) for name, paths in chosen.items() for file in paths)
    columns = _columns(shares[0])
    if not columns:
        raise ConfigError(f"{shares[0].source}: no rows in it; give a file with at least one")
    sizes = [_rows_of_table(share) for share in shares]
    size = None if None in sizes else sum(size for size in sizes if size is not None)
    return Dataset(address, config, tuple(chosen), columns, size, shares)


# --- where it is ---


def _path(address: str, config: str | None) -> tuple[Path | None, str | None]:
    """The file or folder, None for a dataset of the hub, and the configuration."""
    if address.startswith(hub.PREFIX):
        where = hub.parsed(address)
        if where.folder is None or where.split:
            return None, config
        return where.folder, config or where.config
    path = Path(address).expanduser()
    if address and path.exists():
        return path, config
    folder, mark, name = address.rpartition("#")
    if mark and (path := Path(folder).expanduser()).is_dir():
        return path, config or name
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(/[^/#:]+)?(:[^/]+)?", address) and not _looks_like_file(address):
        return None, config
    raise ConfigError(
        f"no file or folder {address}; give a .jsonl, .csv or .parquet file, a folder of them, or OWNER/NAME of the hub"
    )


def _looks_like_file(address: str) -> bool:
    return address.lower().removesuffix(".gz").endswith(ENDINGS) or address.startswith(("runs/", "data/"))


def _is_saved(path: Path) -> bool:
    return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _on_hub(address: str, said: str, config: str | None, split: str | None) -> Dataset:
    """`said` is what the user wrote."""
    address = address if address.startswith(hub.PREFIX) else hub.PREFIX + address
    where = hub.parsed(address)
    if config and where.config is None:
        address = f"{hub.PREFIX}{where.dataset}{'#' if where.folder else '/'}{config}"
        address += f":{where.split}" if where.split else ""
        where = hub.parsed(address)
    base = address.removesuffix(f":{where.split}") if where.split else address
    sizes = hub.splits(base)
    if split or where.split:
        spec = split or where.split or ""
        size = sizes.get(spec)  # None for a slice
        shares: tuple[Share, ...] = (Share(re.split(r"[\[+]", spec)[0], f"{base}:{spec}", stop=size),)
        columns = hub.columns(f"{base}:{spec}")  # a ConfigError for a split that is not there
    else:
        shares = tuple(Share(name, f"{base}:{name}", stop=size) for name, size in sizes.items())
        size = sum(sizes.values())
        columns = hub.columns(shares[0].source)
    return Dataset(said, where.config, tuple(share.split for share in shares), tuple(columns), size, shares)


# --- a folder ---

Files = dict[str, list[Path]]  # split -> its files

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_FIRST = ("train", "validation", "test")


def _of_folder(folder: Path, config: str | None) -> tuple[str | None, Files]:
    configs = _of_card(folder) or _of_names(folder)
    if not configs:
        raise ConfigError(f"{folder}: no {', '.join(ENDINGS)} file in it; name the folder that has them")
    if config is None:
        config = next((name for name in ("preference", "default") if name in configs), None)
        if config is None and len(configs) == 1:
            config = next(iter(configs))
    if config is None or config not in configs:
        known, first = ", ".join(configs), next(iter(configs))
        what = f"no configuration '{config}'; there are" if config else "several configurations"
        raise ConfigError(f"{folder}: {what}: {known}; write {folder}#{first}")
    files = configs[config]
    order = sorted(files, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    return (None if len(configs) == 1 and config == "default" else config), {name: files[name] for name in order}


def _of_card(folder: Path) -> dict[str, Files]:
    """The configurations that README.md declares, as the hub reads them; none where it declares none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        front = yaml.safe_load(text.split("---\n", 2)[1]) if text.startswith("---\n") else None
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError) as error:
        raise ConfigError(f"{folder / 'README.md'}: its head is no YAML: {' '.join(str(error).split())}") from None
    configs: dict[str, Files] = {}
    declared = front.get("configs") if isinstance(front, dict) else None
    for one in declared if isinstance(declared, list) else []:
        if isinstance(one, dict) and isinstance(one.get("config_name"), str):
            base = folder / str(one.get("data_dir", ""))
            files = _declared(base, one["data_files"]) if "data_files" in one else _by_split(base)
            if files:
                configs[one["config_name"]] = files
    return configs


def _declared(folder: Path, data_files: Any) -> Files:  # Any: whatever the card says
    """A pattern, a list of patterns, split -> patterns, or a list of {split, path}."""
    if isinstance(data_files, dict):
        data_files = [{"split": split, "path": path} for split, path in data_files.items()]
    if isinstance(data_files, str):
        data_files = [data_files]
    found: Files = {}
    for one in data_files if isinstance(data_files, list) else []:
        split, paths = (one.get("split"), one.get("path")) if isinstance(one, dict) else (None, one)
        for pattern in paths if isinstance(paths, list) else [paths]:
            if isinstance(pattern, str) and pattern and not pattern.startswith(("/", "~")) and ".." not in pattern:
                files = [path for path in sorted(folder.glob(pattern)) if _is_data(path)]
                found.setdefault(str(split or "train"), []).extend(files)
    return {split: files for split, files in found.items() if files}


def _of_names(folder: Path) -> dict[str, Files]:
    """A folder in it that is no split, such as `data`, is a configuration."""
    if files := _by_split(folder, deep=False):
        return {"default": files}
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    splits = [path for path in folders if path.name in _SPLIT_WORDS or path.name == "data"]
    if any(_by_split(path) for path in splits):
        return {"default": _by_split(folder)}
    return {path.name: files for path in folders if (files := _by_split(path))}


def _by_split(folder: Path, deep: bool = True) -> Files:
    found: Files = {}
    for path in sorted(folder.rglob("*") if deep else folder.glob("*")):
        if _is_data(path):
            found.setdefault(_split_in(path.relative_to(folder).as_posix()), []).append(path)
    return found


def _split_in(name: str) -> str:
    """The split that a file's name, or a folder above it, tells; `train` if none."""
    for part in reversed(name.lower().split("/")):
        for word in re.split(r"[^a-z]+", part):
            if word in _SPLIT_WORDS:
                return _SPLIT_WORDS[word]
    return "train"


def _is_data(path: Path) -> bool:
    hidden = path.name.startswith((".", "_")) or path.name in _NO_DATA
    return path.is_file() and not hidden and _ending(path) in ENDINGS


_NO_DATA = {"dataset_info.json", "dataset_infos.json", "state.json", "summary.json", "dropped.jsonl", "audit.json"}


# --- a file ---


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _known(path: Path) -> None:
    if _ending(path) not in ENDINGS or (_packed(path) and _ending(path) == ".parquet"):
        raise ConfigError(f"{path}: cannot be read; give a {', '.join(ENDINGS)} file (all but Parquet also as .gz)")


def _is_list(path: Path) -> bool:
    head = next((line for line in _lines(path) if not line.isspace()), b"")
    return head.lstrip().startswith(b"[")


def _columns(share: Share) -> tuple[str, ...]:
    """All names that occur in the first rows: a JSON object leaves out what it has not."""
    if _ending(Path(share.source)) == ".parquet":
        from rlaif.foreign.arrow import table_of

        with table_of(Path(share.source)) as file:
            return tuple(file.schema_arrow.names) if file.metadata.num_rows else ()
    faults = []
    names: dict[str, None] = {}
    for row in islice(share.rows(), PEEK):
        names.update(dict.fromkeys(row.values))
        faults += [f"{row.where}: {row.fault}"] if row.fault else []
    if faults and not names:
        raise ConfigError(faults[0])
    return tuple(names)


def _rows_of_table(share: Share) -> int | None:
    path = Path(share.source)
    if _ending(path) != ".parquet":
        return None
    from rlaif.foreign.arrow import table_of

    with table_of(path) as file:
        rows: int = file.metadata.num_rows
        return rows


def _lines(path: Path, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The lines that begin at these bytes."""
    try:
        with gzip.open(path) if _packed(path) else path.open("rb", buffering=_BLOCK) as file:
            if start:
                file.seek(start)
            at = start
            for line in file:
                if stop is not None and at >= stop:
                    return
                yield line.removeprefix(b"\xef\xbb\xbf") if at == 0 else line
                at += len(line)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read further: {error}") from None


# --- shares ---


def _reading(share: Share, columns: tuple[str, ...] | None) -> Share:
    return Share(share.split, share.source, share.start, share.stop, share.first, columns)


def _bytes_or_rows(share: Share) -> int:
    """Of the same unit in all shares of a dataset, nearly: what is split up is mostly one file, or files of a kind."""
    if share.source.startswith(hub.PREFIX):
        return share.stop or 1
    return Path(share.source).stat().st_size


def _cut(share: Share, n: int) -> Iterable[Share]:
    path = Path(share.source)
    if n < 2:
        return [share]
    if share.source.startswith(hub.PREFIX):
        return [share] if share.stop is None else _by_rows(share, n, share.stop)
    if _ending(path) == ".parquet":
        return _by_rows(share, n, _rows_of_table(share) or 0)
    if _ending(path) in (".jsonl", ".ndjson") and not _packed(path):
        return _by_lines(share, n)
    return [share]


def _by_rows(share: Share, n: int, rows: int) -> list[Share]:
    edges = [rows * i // n for i in range(n + 1)]
    return [
        Share(share.split, share.source, start, stop, start + 1, share.columns)
        for start, stop in pairwise(edges)
        if start < stop
    ]


def _by_lines(share: Share, n: int) -> list[Share]:
    """Cut after the lines that hold each n-th of the bytes; all are counted, so that every row knows its number."""
    size = Path(share.source).stat().st_size
    edges, lines = [(0, 1)], 1
    at = 0
    with Path(share.source).open("rb") as file:
        for i in range(1, n):
            while at < size * i // n and (block := file.read(min(_BLOCK, size * i // n - at))):
                lines += block.count(b"\n")
                at += len(block)
            rest = file.readline()
            lines += rest.endswith(b"\n")
            at += len(rest)
            if at < size and at > edges[-1][0]:
                edges.append((at, lines))
    ends = [start for start, _ in edges[1:]] + [None]
    return [
        Share(share.split, share.source, start, stop, first, share.columns)
        for (start, first), stop in zip(edges, ends, strict=True)
    ]
