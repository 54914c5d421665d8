"""A constitution's file as a person would write it, and lists of texts in the same hand."""

from __future__ import annotations

from textwrap import indent
from typing import Any

import yaml

from rlaif.constitution import Constitution, Principle


def to_yaml(source: Constitution, comment: str = "") -> str:
    """A constitution's file as a person would write it: folded text, an empty line between principles."""
    head = {field: getattr(source, field) for field in ("name", "version", "licence")}
    if source.description:
        head["description"] = source.description
    head["language"] = source.language
    parts = "\n".join(indent(dump([_plain(principle)]), "  ") for principle in source.principles)
    remarks = "".join(f"# {line}\n" for line in comment.splitlines())
    return f"{remarks}{dump(head)}principles:\n{parts}"


def _plain(principle: Principle) -> dict[str, Any]:  # Any: text, a number, a list
    fields = principle.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    ordered = {"id": principle.id, **fields}
    return {**ordered, "tags": _Row(principle.tags)} if principle.tags else ordered


class _Row(list[str]):
    """A list in one line."""


class _Dumper(yaml.SafeDumper):
    """Long text folded, short text in one line, and what must not be folded in quotes."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if not text.replace("\n", "").isprintable():  # among them line ends that YAML 1.1 reads as \n
        style = '"'
    elif len(text) > 60 and text == " ".join(text.split()):
        style = ">"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _row_node(dumper: yaml.SafeDumper, row: _Row) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", row, flow_style=True)


_Dumper.add_representer(str, _text_node)
_Dumper.add_representer(_Row, _row_node)


def dump(data: Any) -> str:  # Any: as above
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=96)
