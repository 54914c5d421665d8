"""YAML read safely, with the line of every field, so that errors can point at it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from rlaif.errors import ConfigError

Loc = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

# A file, and what its aliases expand to, may not be larger: a 'billion laughs' file has 1 kB.
MAX_CHARS = 2 << 20
# libyaml's composer recurses in C and dies of a segmentation fault at about 50,000.
MAX_DEPTH = 100
MAX_PROBLEMS = 5

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file's content and where each part of it stands."""

    path: Path
    data: Any  # whatever the file holds; `check` gives it a type
    node: yaml.Node

    def line(self, loc: Loc) -> int:
        """The 1-based line of a field; of what encloses it, if the field is not in the file."""
        return self.follow(loc)[1]

    def follow(self, loc: Loc) -> tuple[list[str | int], int]:
        """The parts of `loc` that are in the data, and the line of the last in the file.

        Others (pydantic's tags) are skipped. Data that was changed since it was read has parts without a line.
        """
        found: list[str | int] = []
        data, node, line = self.data, self.node, self.node.start_mark.line
        for part in loc:
            inner = dict(enumerate(data)) if isinstance(data, list) else data
            if isinstance(inner, dict) and part in inner:
                data = inner[part]
                found.append(part)
            # PyYAML puts merged fields ("<<: *base") before the mapping's own; of two, the last counts.
            children = {name: (child, mark.line) for name, mark, child in _children(node)}
            if part in children:
                node, line = children[part]
        return found, line + 1


def load(path: Path) -> Document:
    """Read one YAML file; ConfigError("FILE:LINE: what is wrong") if that can't be done."""
    text = _text(path)
    loader = None
    try:
        _refuse_deep(path, text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{path}:1: the file is empty")
        _Inspection(path, loader).size_and_depth(node)
        return Document(path, loader.construct_document(node), node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _error(path, mark, _syntax(text, mark, error.problem or str(error))) from None
    except yaml.reader.ReaderError as error:
        line = text.encode().count(b"\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: a control character, which YAML does not allow; remove it") from None
    finally:
        if loader is not None:
            loader.dispose()


def check(document: Document, model: type[Model]) -> Model:
    """The document as `model`, or one ConfigError with a line per problem: `file:line: field: what is wrong`."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    lines = [_problem(document, model, problem) for problem in problems[:MAX_PROBLEMS]]
    if more := len(problems) - len(lines):
        lines.append(f"... and {more} more")
    raise ConfigError("\n".join(lines))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CHARS + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_CHARS:
        raise ConfigError(f"{path}: larger than {MAX_CHARS >> 20} MiB; is this a YAML file of settings?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8; save the file in that encoding") from None


def _error(path: Path, mark: Any, what: str) -> ConfigError:  # Any: C and Python marks have no common base
    return ConfigError(f"{path}:{mark.line + 1}: {what}")


def _syntax(text: str, mark: Any, problem: str) -> str:  # Any: as above
    line = text.split("\n")[mark.line : mark.line + 1]
    if line and line[0][mark.column :].startswith("\t"):
        return "a tab; indent YAML with spaces"
    if problem.startswith("mapping values"):
        return "a second ': ' in one line; put the text in quotes"
    return problem


def _refuse_deep(path: Path, text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _error(path, event.start_mark, f"nested deeper than {MAX_DEPTH} levels")


class _Inspection:
    """One walk over the nodes before anything is built: names, values and how far aliases expand."""

    def __init__(self, path: Path, loader: Any) -> None:  # Any: C or Python loader, no common base
        self.path = path
        self.loader = loader
        self.measured: dict[int, tuple[int, int] | None] = {}

    def size_and_depth(self, node: yaml.Node) -> tuple[int, int]:
        """Characters and levels with every alias written out; each node is measured once.

        In the file's order: an alias then meets its anchor measured, and recursion is no deeper than the text.
        """
        if id(node) in self.measured:
            if known := self.measured[id(node)]:
                return known
            raise _error(self.path, node.start_mark, "an anchor that contains its own alias")
        self.measured[id(node)] = None
        if isinstance(node, yaml.ScalarNode):
            size, depth = 1 + len(node.value), 0
            self.check_value(node)
        else:
            self.check_names(node)
            size, depth = 1, 1
            for name, _, child in _children(node):
                inner, levels = self.size_and_depth(child)
                size, depth = size + len(str(name)) + inner, max(depth, levels + 1)
        if size > MAX_CHARS or depth > MAX_DEPTH:
            raise _error(self.path, node.start_mark, "its aliases expand to too much; use fewer")
        self.measured[id(node)] = size, depth
        return size, depth

    def check_value(self, node: yaml.Node) -> None:
        try:
            self.loader.construct_object(node)
        except (ValueError, LookupError, AttributeError, TypeError):  # what PyYAML lets through for 2024-13-45
            what = f"{node.value!r} is not a {node.tag.rpartition(':')[2]}; put text in quotes"
            raise _error(self.path, node.start_mark, what) from None

    def check_names(self, node: yaml.Node) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_TEXT, _MERGE):
                raise _error(self.path, key.start_mark, "a field's name must be text; put it in quotes")
            if key.value in seen:
                what = f"'{key.value}' is here twice; the first is in line {seen[key.value]}"
                raise _error(self.path, key.start_mark, what)
            seen[key.value] = key.start_mark.line + 1


def _children(node: yaml.Node) -> Iterator[tuple[str | int, yaml.Mark, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, key.start_mark, value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from ((i, item.start_mark, item) for i, item in enumerate(node.value))


# --- what pydantic found, in the words of the file ---

_WORDS = {
    "missing": "is missing",
    "string_type": "should be text",
    "model_type": "should be a mapping (name: value)",
    "model_attributes_type": "should be a mapping (name: value)",
    "dict_type": "should be a mapping (name: value)",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
}


def _problem(document: Document, model: type[BaseModel], problem: Any) -> str:  # Any: pydantic_core.ErrorDetails
    loc: Loc = problem["loc"]
    path, line = document.follow(loc)
    if problem["type"] == "extra_forbidden":
        what = _unknown(str(loc[-1]), _fields(model, loc[:-1]))
        path = path[:-1]
    else:
        what = _what(problem)
        if problem["type"] == "missing":
            path.append(loc[-1])
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return f"{document.path}:{line}: {where}{': ' if where else ''}{what}"


def _what(problem: Any) -> str:
    kind, value = problem["type"], problem["input"]
    if kind in ("too_short", "string_too_short") and problem["ctx"]["min_length"] == 1:
        return "must not be empty"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        return f"should be {problem['ctx']['expected']}, not {value!r}{_close(str(value), choices)}"
    what = _WORDS.get(kind) or re.sub(r"^(Value error, |Assertion failed, |Input (?=should))", "", problem["msg"])
    if kind == "missing":
        return what
    if value is None:
        return f"{what}, but is empty"
    if kind == "string_type" and not isinstance(value, (list, dict)):
        return f"{what}, but YAML reads {value} as a {type(value).__name__}; put it in quotes"
    return f"{what}, not {value}" if isinstance(value, (bool, int, float)) else what


def _unknown(name: str, known: list[str]) -> str:
    return f"unknown field '{name}'" + (_close(name, known) or f"; known: {', '.join(known)}")


def _close(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _fields(model: type[BaseModel], loc: Loc) -> list[str]:
    """The field names of the model (or of each model of a union) that `loc` leads to."""
    models = [model]
    for part in loc:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        models = [m for field in fields for m in _models(field.annotation)] or models
    return list(dict.fromkeys(field.alias or name for m in models for name, field in m.model_fields.items()))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:  # Any: a type, a union, an Annotated ...
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
