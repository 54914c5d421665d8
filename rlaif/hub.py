"""Rows of Hugging Face datasets, from the hub or from a folder, by an `hf://` address."""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rlaif.errors import ConfigError

PREFIX = "hf://"
_BATCH = 256  # rows in memory at a time


class HubPath(NamedTuple):
    """What an address names; `dataset` is OWNER/NAME, NAME, or a folder as it was written."""

    dataset: str
    config: str | None
    split: str | None

    @property
    def folder(self) -> Path | None:
        """The folder on this machine; None for a dataset of the hub."""
        return Path(self.dataset).expanduser() if self.dataset.startswith(("/", "./", "../", "~/")) else None


def parsed(path: str) -> HubPath:
    """The parts of an address; ConfigError for what is none. Nothing is looked up.

    On the hub:  `hf://[OWNER/]NAME[:SPLIT]`, `hf://OWNER/NAME/CONFIG[:SPLIT]`
    In a folder: `hf://FOLDER[#CONFIG][:SPLIT]`; FOLDER begins with `/`, `./`, `../` or `~/`, and ends with `/`
    where its last name has a `#` or `:` of its own.
    SPLIT is a name, a slice or a sum of them: `train`, `train[:10%]`, `train[100:200]`, `train+test`.
    """
    if found := _FOLDER.fullmatch(path) or _HUB.fullmatch(path):
        return HubPath(found["dataset"], found["config"], found["split"])
    raise ConfigError(
        f"{path}: no address of a dataset; write hf://OWNER/NAME[/CONFIG][:SPLIT], or hf://./FOLDER[#CONFIG][:SPLIT]"
    )


def columns(path: str) -> list[str]:
    """The names of the columns; loads the dataset, as do `rows` and `fingerprint`."""
    names: list[str] = _parts(path)[0].column_names
    return names


def schema(path: str) -> Any:  # Any: pyarrow ships no types
    """Arrow's types of the columns as `rows` gives them, with the features, such as the names of labels."""
    import pyarrow as pa
    from datasets import Features

    found = _parts(path)[0].features
    read = pa.schema([field.with_type(_type_as_turns(field.type)) for field in found.arrow_schema])
    as_turns = Features.from_arrow_schema(read)
    same = {field.name for field in read if field.type == found.arrow_schema.field(field.name).type}
    return Features({name: found[name] if name in same else as_turns[name] for name in found}).arrow_schema


def splits(path: str) -> dict[str, int]:
    """Every split, whatever one the address names, and how many rows it has; loads the dataset too."""
    return {name: len(rows) for name, rows in _splits(path).items()}


def rows(path: str, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:  # Any: whatever the dataset holds
    """These columns of every row, in the dataset's order; a list of messages is a list of dicts.

    Only these columns are decoded, and never more than a batch is in memory.
    """
    for part in _parts(path):
        try:
            for batch in part.select_columns(list(wanted)).iter(_BATCH):
                for values in zip(*(batch[name] for name in wanted), strict=True):
                    yield {name: _as_turns(value) for name, value in zip(wanted, values, strict=True)}
        except Exception as error:  # pyarrow's, and those of whatever decodes the column
            raise ConfigError(f"{path}: cannot be read further: {_in_a_line(error)}") from error


def fingerprint(path: str, wanted: Sequence[str]) -> str:
    """32 hex digits of these columns' names and values, wherever they lie and whatever files they are in."""
    digest = hashlib.blake2b(digest_size=16)
    # A type that JSON has not, such as an image, can be no prompt: that it is there says enough.
    encode = msgspec.json.Encoder(order="sorted", enc_hook=lambda value: type(value).__name__).encode
    for row in rows(path, wanted):
        digest.update(encode(row) + b"\n")
    return digest.hexdigest()


_SPLIT = r"(?::(?P<split>[^/]+))?"
_FOLDER = re.compile(rf"{PREFIX}(?P<dataset>(?:\.\.?|~)?/.*?)(?:#(?P<config>[^/#:]+))?{_SPLIT}")
# `datasets/` is how the hub's own file system writes it.
_HUB = re.compile(rf"{PREFIX}(?:datasets/)?(?P<dataset>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<config>[^/#:]+))?{_SPLIT}")


def _as_turns(value: Any) -> Any:
    """A struct of lists, as older datasets keep messages, as a list of structs; all else as it is."""
    if isinstance(value, dict) and {"role", "content"} <= value.keys() and isinstance(value["role"], list):
        return [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
    return value


def _type_as_turns(type_: Any) -> Any:
    """The type of what `_as_turns` makes of values of this one."""
    import pyarrow as pa

    parts = list(type_) if pa.types.is_struct(type_) else []
    if not {"role", "content"} <= {part.name for part in parts} or not pa.types.is_list(type_.field("role").type):
        return type_
    return pa.list_(pa.struct([part.with_type(part.type.value_type) for part in parts]))


# --- loading; Any is a datasets.Dataset, which ships no types ---


def _parts(path: str) -> list[Any]:
    """What the split names, in order; a sum has several."""
    from datasets import ReadInstruction  # late: takes seconds

    splits = _splits(path)
    split = parsed(path).split or (next(iter(splits)) if len(splits) == 1 else "train")
    try:
        chosen = ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in splits.items()})
    except ValueError:
        first = next(iter(splits))
        way_out = f"put one at the end, as in :{first} or :{first}[:10%]"
        raise ConfigError(f"{path}: no split '{split}'; there are: {', '.join(splits)}; {way_out}") from None
    return [splits[one.splitname].select(range(one.from_, one.to)) for one in chosen]


def _splits(path: str) -> Mapping[str, Any]:
    """Every split by its name, memory-mapped: from the library's cache, which is filled first if need be."""
    where = parsed(path)
    folder = where.folder
    if folder and not folder.is_dir():
        raise ConfigError(f"{path}: no folder {folder}; give that of a dataset, or hf://OWNER/NAME for one of the hub")
    saved = folder and any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    if saved and where.config:
        raise ConfigError(f"{path}: what save_to_disk made has no configurations; leave out '#{where.config}'")
    if not folder and _is_format(where.dataset):
        raise ConfigError(f"{path}: '{where.dataset}' is a file format; write hf://OWNER/NAME, or hf://./FOLDER")
    try:
        with _quiet():
            if folder is None:
                return _on_hub(where.dataset, where.config)
            return _saved(folder) if saved else _loaded(str(folder.resolve()), where.config, _cache_of(folder))
    except Exception as error:  # datasets, the hub's client, pyarrow and yaml each raise their own
        raise ConfigError(f"{path}: {_what_to_do(error, path)}") from error


@cache  # one run asks three times; the hub may change in between, and each time costs it a few requests
def _on_hub(dataset: str, config: str | None) -> Mapping[str, Any]:
    return _loaded(f"hf://datasets/{dataset}", config)  # by its name alone, a folder of that name would be taken


def _loaded(source: str, config: str | None, cache: Path | None = None) -> Mapping[str, Any]:
    from datasets import load_dataset

    splits: Mapping[str, Any] = load_dataset(source, config, cache_dir=str(cache) if cache else None)
    return splits


def _cache_of(folder: Path) -> Path:
    """A place for this folder as it is now.

    datasets 5 tells folders with a card by their last name and the card's patterns: of two runs' `dataset` it gives the
    second one the rows of the first, and of one that was exported anew the old ones.
    """
    import datasets

    digest = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8)
    for path in sorted(folder.rglob("*")):
        stat = path.stat()
        digest.update(f"\0{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return Path(datasets.config.HF_DATASETS_CACHE) / f"rlaif-{digest.hexdigest()}"


def _saved(folder: Path) -> Mapping[str, Any]:
    from datasets import DatasetDict, load_from_disk

    found = load_from_disk(str(folder))
    return found if isinstance(found, DatasetDict) else {str(found.split or "train"): found}


def _is_format(dataset: str) -> bool:
    """Whether load_dataset takes it for `json` or its like, and would read the current folder's files."""
    import datasets

    return Path(datasets.__file__).with_name("packaged_modules").joinpath(dataset).exists()


def _what_to_do(error: Exception, path: str) -> str:
    import datasets

    why = _in_a_line(error)
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        if "gated" in why:
            return "is gated; accept its terms on its page, and set HF_TOKEN to a token of yours"
        return "there is no such dataset on the hub; check the name, and set HF_TOKEN if it is private"
    if isinstance(error, ConnectionError):
        if datasets.config.HF_HUB_OFFLINE:
            return "not in the cache, and HF_HUB_OFFLINE forbids to fetch it; unset that, or load it once while online"
        return f"the hub cannot be reached; check the network, and HF_ENDPOINT if it is set ({why})"
    if known := re.search(r"config\w*\b.*?\[(.*?)\]", why, re.IGNORECASE):
        names = known[1].replace("'", "")
        config = parsed(path).config
        there = f"there are: {names}; write {_with_config(path, names.partition(',')[0])}"
        return f"no configuration '{config}'; {there}" if config else f"has several configurations; {there}"
    return f"cannot be loaded: {why}"


def _with_config(path: str, config: str) -> str:
    where = parsed(path)
    split = f":{where.split}" if where.split else ""
    return f"{PREFIX}{where.dataset}{'#' if where.folder else '/'}{config}{split}"


def _in_a_line(error: Exception) -> str:
    cause = error.__cause__ if type(error).__name__ == "DatasetGenerationError" else None  # which says no more
    text = " ".join(str(cause or error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, log lines or warnings of these libraries; what was set before is set again."""
    import datasets
    from huggingface_hub import utils as hub

    loggers = [logging.getLogger("datasets"), logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    shown = [library for library in (datasets, hub) if not library.are_progress_bars_disabled()]
    with warnings.catch_warnings(action="ignore"):
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        for library in shown:
            library.disable_progress_bars()
        try:
            yield
        finally:
            for library in shown:
                library.enable_progress_bars()
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
