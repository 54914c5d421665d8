"""Every turn we write, as Jinja files whose `--- role` lines part the turns of the conversation.

    --- system | user | assistant     a turn; the text below it is rendered
    --- conversation                  the record's own turns, as turns
    --- include NAME                  the turns of another template (a shared prefix is a cached prefix)

A turn that renders to nothing is left out; two turns of one role in a row are joined by a blank line.
The file is cut into turns before anything is rendered, so no text of a model can begin a turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

import jinja2
import jinja2.meta

from rlaif.errors import ConfigError
from rlaif.resources import find
from rlaif.types import Message, Messages, Role

# The names each template may use; a template that uses another is refused before the first call.
VARIABLES: Mapping[str, frozenset[str]] = {
    "critique": frozenset({"principle", "few_shot"}),
    "revise": frozenset({"principle", "critique", "few_shot"}),
    "revise_directly": frozenset({"principle", "few_shot"}),
    "judge_pairwise": frozenset({"principle", "conversation", "response_a", "response_b"}),
    "judge_pairwise_reason": frozenset({"principle", "conversation", "response_a", "response_b"}),
    "judge_pairwise_decide": frozenset({"principle", "conversation", "response_a", "response_b", "reasoning"}),
    "judge_rubric": frozenset({"principle", "conversation", "response"}),
}

_SEPARATOR = re.compile(r"^--- *(system|user|assistant|conversation|include +[\w.-]+) *$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn to render; a role of None stands for the record's own conversation."""

    role: Role | None
    text: str | None  # text without any variable
    render: Callable[..., str] | None


class Templates:
    """The templates of a run. `paths` replaces bundled ones: {"critique": "my/critique.jinja"}."""

    def __init__(self, paths: Mapping[str, str] | None = None) -> None:
        paths = paths or {}
        unknown = sorted(set(paths) - set(VARIABLES))
        if unknown:
            raise ConfigError(f"unknown template '{unknown[0]}'; known: {', '.join(VARIABLES)}")
        self._environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
        )
        self._environment.filters["fenced"] = fenced
        self._sources: dict[str, str] = {}
        self._turns = {
            name: self._parse(find("prompts", paths.get(name, f"{name}.jinja")), allowed)
            for name, allowed in VARIABLES.items()
        }

    def render(self, template: str, conversation: Messages, /, **values: object) -> Messages:
        """The messages of `template`; `conversation` fills its `--- conversation` turns."""
        messages: list[Message] = []
        for turn in self._turns[template]:
            if turn.role is None:
                messages.extend(conversation)
                continue
            text = turn.text if turn.render is None else turn.render(**values).strip()
            if text and messages and messages[-1].role == turn.role:
                messages[-1] = Message(turn.role, f"{messages[-1].content}\n\n{text}")
            elif text:
                messages.append(Message(turn.role, text))
        return tuple(messages)

    @property
    def fingerprint(self) -> str:
        digest = blake2b(digest_size=8)
        for name in sorted(self._sources):
            digest.update(f"{name}\0{self._sources[name]}\0".encode())
        return digest.hexdigest()

    def _parse(self, path: Path, allowed: frozenset[str]) -> tuple[_Turn, ...]:
        source = self._read(path)
        self._sources[path.name] = source
        head, *pieces = _SEPARATOR.split(source)
        if self._environment.from_string(head).render().strip() or not pieces:
            raise ConfigError(f"{path}:1: a template begins with a line '--- system', '--- user' or '--- include NAME'")
        turns: list[_Turn] = []
        for kind, text in zip(pieces[::2], pieces[1::2], strict=True):
            if kind.startswith("include"):
                turns += self._parse(self._included(path, kind.split()[1]), allowed)
            elif kind == "conversation":
                turns.append(_Turn(None, None, None))
            else:
                turns.append(self._turn(path, kind, text, allowed))
        return tuple(turns)

    def _turn(self, path: Path, role: str, text: str, allowed: frozenset[str]) -> _Turn:
        used = jinja2.meta.find_undeclared_variables(self._environment.parse(text))
        if used - allowed:
            name = min(used - allowed)
            line = next(i for i, row in enumerate(self._read(path).splitlines(), 1) if name in row)
            raise ConfigError(f"{path}:{line}: unknown name '{name}'; known here: {', '.join(sorted(allowed))}")
        template = self._environment.from_string(text)
        if used == {"few_shot"}:  # worked examples: the same text for all records, rendered once
            examples = cache(lambda few_shot: template.render(few_shot=few_shot))
            return _Turn(_role(role), None, lambda few_shot, **_: examples(few_shot))
        if used:
            return _Turn(_role(role), None, template.render)
        return _Turn(_role(role), template.render().strip(), None)

    def _read(self, path: Path) -> str:
        try:
            source = path.read_text(encoding="utf-8")
            self._environment.parse(source)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"{path}:{error.lineno}: {error.message}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        return source

    def _included(self, path: Path, name: str) -> Path:
        beside = path.with_name(name)
        return beside if beside.is_file() else find("prompts", name)


def _role(name: str) -> Role:
    roles: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
    return roles[name]


def fenced(text: str, tag: str) -> str:
    """`text` between <tag> lines; a tag of that name inside it is defused, so it cannot end the fence."""
    if "<" not in text:
        return f"<{tag}>\n{text}\n</{tag}>"
    inner = re.sub(rf"<(/?)(?={re.escape(tag)}\b)", r"<\1 ", text, flags=re.IGNORECASE)
    return f"<{tag}>\n{inner}\n</{tag}>"
