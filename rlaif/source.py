"""Prompts, read one at a time from wherever they are, as records."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from rlaif import hub
from rlaif.errors import ConfigError
from rlaif.resources import find
from rlaif.rows import FORMATS, Row, rows_of
from rlaif.types import Drop, Message, Messages, Record, Response, prompt_id

Text = Annotated[str, StringConstraints(min_length=1)]


class Prompts(BaseModel):
    """One set of prompts.

    `path` is a bundled set ("redteam"), a JSONL, CSV or Parquet file, or a dataset as `hf://` names it (see
    rlaif.hub). The column holds a string or, but for CSV, a list of {role, content} that ends with a user's
    turn; without a column `prompt`, `messages` is taken. `system` is put before every prompt that has no
    system turn of its own. `name` is what a stage's `only` calls the set, if not the file's name; of several
    sets each gives prompts in proportion to its `share`, as long as it has any.
    `responses` are columns with answers that are there already, which become the record's first responses: text, or
    messages that end with an assistant's turn. Of each `generators` names the column with who wrote it; else it is
    the set's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Text = "redteam"
    column: Text = "prompt"
    category_column: Text | None = "category"
    responses: tuple[Text, ...] = ()
    generators: tuple[Text, ...] = ()
    system: Text | None = None
    name: Annotated[str, StringConstraints(pattern=r"^[\w./-]+$")] | None = None
    share: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _one_writer_each(self) -> Self:
        if self.generators and len(self.generators) != len(self.responses):
            raise ValueError("`generators` names a column for each of `responses`, in their order, or none")
        return self

    @property
    def label(self) -> str:
        if self.name:
            return self.name
        if self.path.startswith(hub.PREFIX):
            return self.path.removeprefix(hub.PREFIX)
        name = Path(self.path).name
        plain = re.sub(r"\.gz$", "", name, flags=re.IGNORECASE)
        return Path(plain).stem if Path(plain).suffix.lower() in FORMATS else name


class PromptReader:
    """The unique prompts of all sets as records, at most `limit`; counts the rows `read` and the `duplicates`."""

    def __init__(self, sets: Sequence[Prompts], limit: int | None = None) -> None:
        self.limit = limit
        self._sets = [(settings, _open(settings)) for settings in sets]
        self.read = self.duplicates = 0

    def __iter__(self) -> Iterator[Record]:
        self.read = self.duplicates = 0
        if self.limit is not None and self.limit <= 0:
            return
        seen: set[int] = set()  # 64 bits a prompt, not its text
        for record in _mixed([(settings.share, self._unique(settings, rows(), seen)) for settings, rows in self._sets]):
            yield record
            if len(seen) == self.limit:
                return

    def _unique(self, settings: Prompts, rows: Iterator[Row], seen: set[int]) -> Iterator[Record]:
        for record in _records(settings, rows):
            self.read += 1
            if (number := int(record.id, 16)) in seen:
                self.duplicates += 1
                continue
            seen.add(number)
            yield record

    @property
    def large(self) -> bool:
        """Whether reading all of it takes a while."""
        paths = [settings.path for settings, _ in self._sets]
        return any(p.startswith(hub.PREFIX) or find("data", p).stat().st_size > _LARGE for p in paths)


_LARGE = 50_000_000


def read_prompts(settings: Prompts, limit: int | None = None) -> Iterator[Record]:
    """The unique prompts as records; ConfigError at once for a missing file, at its row for a bad one."""
    return iter(PromptReader((settings,), limit))


def fingerprint(settings: Prompts) -> str:
    """32 hex digits of the content and of the settings that choose what is read; not of where it lies."""
    given = [settings.responses, settings.generators] if settings.responses else []
    chosen = msgspec.json.encode([settings.column, settings.category_column, settings.system, *given])
    if settings.path.startswith(hub.PREFIX):
        content = hub.fingerprint(settings.path, _wanted(settings))
        return hashlib.blake2b(content.encode() + chosen, digest_size=16).hexdigest()
    path = find("data", settings.path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    digest.update(chosen)
    return digest.hexdigest()


def _records(settings: Prompts, rows: Iterator[Row]) -> Iterator[Record]:
    row, label = None, settings.label
    for number, row in enumerate(rows, 1):
        prompt = _prompt(row, settings)
        category = _category(row, settings.category_column)
        responses = _responses(row, settings)
        # Two rows with one prompt and other responses are two records; those of one text are one candidate.
        whole = (*prompt, *(Message("assistant", response.text) for response in responses))
        seen = [response.text.strip() for response in responses]
        drops = tuple(Drop(i, "duplicate") for i, text in enumerate(seen) if text in seen[:i])
        source = f"{label}:{number}"
        yield Record(prompt_id(whole), prompt, category, source, responses=responses, drops=drops)
    if row is None:
        raise ConfigError(f"{settings.path}: no prompts in it; give a file with at least one row")


def _mixed(sets: Sequence[tuple[float, Iterator[Record]]]) -> Iterator[Record]:
    """Always the next of the set that is furthest behind its share; the order does not depend on a limit."""
    given = dict.fromkeys(range(len(sets)), 0)
    while given:
        i = min(given, key=lambda i: (given[i] + 1) / sets[i][0])
        record = next(sets[i][1], None)
        if record is None:
            del given[i]
        else:
            given[i] += 1
            yield record


# --- a row as a prompt ---


def _prompt(row: Row, settings: Prompts) -> Messages:
    column = _column(row.values, settings.column)
    if column is None:
        raise _no_column(row.where, settings.column, list(row.values))
    value = row.values[column]
    if isinstance(value, str):
        prompt: Messages = (Message("user", value),)
    elif isinstance(value, list):
        prompt = _turns(row.where, column, value)
    else:
        raise ConfigError(f"{row.where}: '{column}' is {_kind(value)}; it must be text or a list of messages")
    if not all(message.content.strip() for message in prompt):
        raise ConfigError(f"{row.where}: '{column}' is empty or has an empty message; fill it in or remove the row")
    if settings.system and prompt[0].role != "system":
        return (Message("system", settings.system), *prompt)
    return prompt


def _responses(row: Row, settings: Prompts) -> tuple[Response, ...]:
    texts = [_response(row, column) for column in settings.responses]
    if not settings.generators:
        return tuple(Response(text, settings.label) for text in texts)
    writers = [_generator(row, column) or settings.label for column in settings.generators]
    return tuple(map(Response, texts, writers))


def _response(row: Row, column: str) -> str:
    """It may say nothing: some models do, and a judge should see it."""
    if column not in row.values:
        raise _no_column(row.where, column, list(row.values), "responses")
    value = row.values[column]
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ConfigError(f"{row.where}: '{column}' is {_kind(value)}; it must be text or a list of messages")
    turns = _messages(row.where, column, value)
    if (last := turns[-1].role) != "assistant":
        raise ConfigError(f"{row.where}: '{column}' ends with the turn of the {last}; a response is the assistant's")
    return turns[-1].content


def _generator(row: Row, column: str) -> str | None:
    if column not in row.values:
        raise _no_column(row.where, column, list(row.values), "generators")
    value = row.values[column]
    if value is None or isinstance(value, str):
        return value
    raise ConfigError(f"{row.where}: '{column}' is {_kind(value)}; it must be the name of a model")


def _turns(where: str, column: str, value: list[Any]) -> Messages:  # Any: checked by `_messages`
    turns = _messages(where, column, value)
    if (last := turns[-1].role) != "user":
        raise ConfigError(f"{where}: '{column}' ends with the turn of the {last}; remove what follows the user's last")
    return turns


def _messages(where: str, column: str, value: list[Any]) -> Messages:  # Any: checked here
    try:
        turns = msgspec.convert(value, tuple[Message, ...])
    except msgspec.ValidationError as error:
        way_out = "give a list of {role: system|user|assistant, content: text}"
        raise ConfigError(f"{where}: '{column}': {error}; {way_out}") from None
    if not turns:
        raise ConfigError(f"{where}: '{column}' is an empty list; fill it in or remove the row")
    return turns


def _column(columns: Mapping[str, Any] | list[str], wanted: str) -> str | None:
    if wanted in columns:
        return wanted
    return "messages" if wanted == "prompt" and "messages" in columns else None


def _no_column(where: str, wanted: str, columns: list[str], setting: str = "column") -> ConfigError:
    near = get_close_matches(wanted, columns, n=1) or ["NAME"]
    name = near[0] if setting == "column" else f"[{near[0]},...]"
    there = ", ".join(columns) or "none"
    return ConfigError(f"{where}: no column '{wanted}'; there are: {there}; choose with --set prompts.{setting}={name}")


def _category(row: Row, column: str | None) -> str | None:
    value = row.values.get(column) if column else None
    if value is None or value == "":
        return None
    if isinstance(value, (str, int)):
        return str(value)
    way_out = "choose another with --set prompts.category_column=NAME, or null for none"
    raise ConfigError(f"{row.where}: '{column}' is {_kind(value)}, not text; {way_out}")


def _kind(value: object) -> str:
    return "empty" if value is None else f"of type {type(value).__name__}"


# --- where the rows are ---


def _open(settings: Prompts) -> Callable[[], Iterator[Row]]:
    """What reads the set from its start; a missing file or an unknown format is an error now."""
    if settings.path.startswith(hub.PREFIX):
        hub.parsed(settings.path)
        return partial(_dataset, settings)
    if Path(settings.path).is_dir():
        raise ConfigError(f"{settings.path} is a folder; for a dataset in it write hf://./FOLDER, or #CONFIG after it")
    path = find("data", settings.path)
    rows_of(path, "prompts")
    return lambda: rows_of(path, "prompts", lambda names: _read_of(names, str(path), settings))


def _dataset(settings: Prompts) -> Iterator[Row]:
    for number, values in enumerate(hub.rows(settings.path, _wanted(settings)), 1):
        yield Row(f"{settings.path}: row {number}", values)


def _wanted(settings: Prompts) -> list[str]:
    """The columns of a dataset that are read. Raises ConfigError if there is no such column."""
    return _read_of(hub.columns(settings.path), settings.path, settings)


def _read_of(names: list[str], where: str, settings: Prompts) -> list[str]:
    """Those of these columns that are read. Raises ConfigError if one is not there."""
    column = _column(names, settings.column)
    if column is None:
        raise _no_column(where, settings.column, names)
    for setting in ("responses", "generators"):
        for name in getattr(settings, setting):
            if name not in names:
                raise _no_column(where, name, names, setting)
    wanted = {column, settings.category_column, *settings.responses, *settings.generators}
    return [name for name in names if name in wanted]
