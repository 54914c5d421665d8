"""Every turn we write, as Jinja files whose `--- role` lines part the turns of the conversation.

    --- system | user | assistant     a turn; the text below it is rendered
    --- conversation                  the record's own turns, as turns
    --- include NAME                  the turns of another template (a shared prefix is a cached prefix)

A turn that renders to nothing is left out; two turns of one role in a row are joined by a blank line,
and so is a system turn of the conversation with the template's own, for models that want one, in front.
The file is cut into turns before anything is rendered, so no text of a model can begin a turn.
`prompts/*.jinja` is English; a folder beside, like `prompts/zh`, has the same templates in another language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from hashlib import blake2b
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from unicodedata import category, normalize

import jinja2
from jinja2 import nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlaif.constitution import Principle
from rlaif.errors import ConfigError
from rlaif.resources import bundled, find, names
from rlaif.types import Message, Messages, Role

# The names each template may use; a template that uses another is refused before the first call.
# `responses` are (letter, text) pairs, all others texts.
VARIABLES: Mapping[str, frozenset[str]] = {
    "critique": frozenset({"principle", "few_shot"}),
    "revise": frozenset({"principle", "critique", "few_shot"}),
    "revise_directly": frozenset({"principle", "few_shot"}),
    "judge_pairwise": frozenset({"principle", "conversation", "response_a", "response_b", "ties"}),
    "judge_pairwise_reason": frozenset({"principle", "conversation", "response_a", "response_b"}),
    "judge_pairwise_decide": frozenset({"principle", "conversation", "response_a", "response_b", "reasoning", "ties"}),
    "judge_rubric": frozenset({"principle", "conversation", "response"}),
    "judge_listwise": frozenset({"principle", "conversation", "responses"}),
    "contrast_strong": frozenset({"principle"}),
    "contrast_weak": frozenset({"principle"}),
}

PRINCIPLE = ("id", "critique", "revision", "judge", "weight", "tags")

_SEPARATOR = re.compile(r"^--- *(system|user|assistant|conversation|include +[\w.-]+) *$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn to render; a role of None stands for the record's own conversation."""

    role: Role | None
    text: str | None  # text without any variable
    render: Callable[..., str] | None
    varies: bool = True  # with more than `few_shot`

    def said(self, **values: object) -> str:
        return self.text or "" if self.render is None else self.render(**values).strip()


class _Environment(ImmutableSandboxedEnvironment):
    """Sandboxed: a template may have come with somebody else's pipeline."""

    def getattr(self, obj: object, attribute: str) -> object:
        if type(obj) is Principle and attribute in PRINCIPLE:  # nothing to look out for
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)


class Templates:
    """The templates of a run. `paths` replaces bundled ones: {"critique": "my/critique.jinja"}.

    `language` is that of the turns ("zh", "zh-CN", "zh_Hans": all the folder `zh`). Where nothing is
    bundled for it they are English, and the attribute `language` says so.
    """

    def __init__(self, paths: Mapping[str, str] | None = None, language: str = "en") -> None:
        paths = paths or {}
        all_known = names("prompts")  # those that others include too
        known = [name for name in all_known if "/" not in name]
        folder = re.split("[-_]", language)[0].lower()
        self.language = folder if any(name.startswith(f"{folder}/") for name in all_known) else "en"
        unknown = sorted(set(paths) - set(known))
        if unknown:
            raise ConfigError(f"templates: unknown template '{unknown[0]}'; known: {', '.join(known)}")
        self._paths = paths
        self._environment = _Environment(
            undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
        )
        self._environment.filters["fenced"] = fenced
        digest = blake2b(digest_size=8)
        self.texts: dict[str, str] = {}  # of each template's file, and of those that it includes after it

        def read(name: str, source: bytes) -> None:
            digest.update(source)
            self.texts[name] = "\n".join(filter(None, [self.texts.get(name), source.decode().rstrip("\0\n")]))

        self._turns = {
            name: self._parse((self._file(name),), allowed, partial(read, name)) for name, allowed in VARIABLES.items()
        }
        self.fingerprint = digest.hexdigest()
        both = [(name, few_shot) for name in self._turns for few_shot in (True, False)]
        self._shared = {(name, few_shot): _count_shared(self._turns[name], few_shot) for name, few_shot in both}
        self._fixed = {(name, few_shot): _fixed(self._turns[name], few_shot) for name, few_shot in both}

    def render(self, template: str, conversation: Messages, /, **values: object) -> Messages:
        """The messages of `template`; `conversation` fills its `--- conversation` turns."""
        fixed, count = self._fixed[template, values.get("few_shot", True) is True]
        messages = list(fixed)
        for turn in self._turns[template][count:]:
            if turn.role is None:
                for message in conversation:
                    _append(messages, message.role, message.content)
                continue
            if text := turn.said(**values):
                _append(messages, turn.role, text)
        return tuple(messages)

    def shared(self, template: str, few_shot: bool = True) -> int:
        """How many leading messages of `template` are the same in every request, for a provider's prompt cache.

        Holds for conversations that begin with a user's turn; one with a system turn shares less.
        """
        return self._shared[template, few_shot]

    def _parse(
        self, paths: tuple[Path, ...], allowed: frozenset[str], digest: Callable[[bytes], None]
    ) -> tuple[_Turn, ...]:
        """The turns of the last of `paths`; the others are the files that include it."""
        path = paths[-1]
        source = _read(path)
        digest(f"{source}\0".encode())
        found = list(_SEPARATOR.finditer(source))
        head = source[: found[0].start()] if found else source
        if _COMMENT.sub("", head).strip() or not found:
            raise ConfigError(f"{path}:1: a template begins with a line '--- system', '--- user' or '--- include NAME'")
        turns: list[_Turn] = []
        for this, end in zip(found, [*(other.start() for other in found[1:]), len(source)], strict=True):
            kind, line = this[1], source.count("\n", 0, this.start()) + 1
            if kind.startswith("include"):
                turns += self._parse((*paths, self._included(paths, kind.split()[1], line)), allowed, digest)
            elif kind == "conversation":
                turns.append(_Turn(None, None, None))
            else:
                turns.append(self._turn(path, line, _role(kind), source[this.end() : end], allowed))
        return tuple(turns)

    def _turn(self, path: Path, line: int, role: Role, text: str, allowed: frozenset[str]) -> _Turn:
        """One turn, whose text begins at the end of `line`; tried out, so that it does not fail in a run."""
        try:
            parsed = self._environment.parse(text)
            template = self._environment.from_string(text)
            template.globals = dict(template.globals)  # a ChainMap, which every rendering would walk through
        except jinja2.TemplateSyntaxError as error:
            where = f"{path}:{line + error.lineno - 1}"
            raise ConfigError(f"{where}: {error.message} (a block ends in the turn it began in)") from error
        for name, row in _names(parsed):
            if name not in allowed and name not in _FIELDS:
                known = ", ".join(sorted(allowed) + (sorted(_FIELDS) if name.startswith("principle.") else []))
                raise ConfigError(f"{path}:{line + row - 1}: unknown name '{name}'; known here: {known}")
        used = find_undeclared_variables(parsed)
        for few_shot in (True, False):
            try:
                template.render(_EXAMPLE, few_shot=few_shot)
            except Exception as error:  # a template is code: it can raise anything
                raise ConfigError(f"{path}:{line}: this turn cannot be rendered: {error}") from error
        if used == {"few_shot"}:  # worked examples: the same text for all records, rendered once
            examples = cache(lambda few_shot: template.render(few_shot=few_shot))
            return _Turn(role, None, lambda few_shot, **_: examples(few_shot), varies=False)
        if used:
            return _Turn(role, None, template.render)
        return _Turn(role, template.render().strip(), None, varies=False)

    def _file(self, name: str) -> Path:
        chosen = self._paths.get(name)
        if chosen is not None:
            return find("prompts", chosen)
        # By default the bundled one: a file in the current folder that happens to have its name is not asked for.
        return bundled("prompts", name if self.language == "en" else f"{self.language}/{name}")

    def _included(self, paths: tuple[Path, ...], name: str, line: int) -> Path:
        """A replaced template is replaced here too; else a file of that name beside; else the bundled one."""
        where, beside = f"{paths[-1]}:{line}", paths[-1].with_name(name)
        try:
            replaced = name.removesuffix(".jinja") in self._paths or not beside.is_file()
            path = self._file(name.removesuffix(".jinja")) if replaced else beside
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if path.resolve() in [other.resolve() for other in paths]:
            raise ConfigError(f"{where}: '{name}' includes itself")
        return path


_FIELDS = frozenset(f"principle.{name}" for name in PRINCIPLE)
_EXAMPLE: Mapping[str, object] = dict.fromkeys(set().union(*VARIABLES.values()), "text") | {
    "principle": SimpleNamespace(**dict.fromkeys(PRINCIPLE, "text") | {"weight": 1.0, "tags": ("text",)}),
    "responses": (("a", "text"), ("b", "text")),
}
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)


def _count_shared(turns: Sequence[_Turn], few_shot: bool) -> int:
    system = [turn for turn in turns if turn.role == "system"]  # goes to the front, wherever it stands
    if any(turn.varies for turn in system):
        return 0
    others = [turn for turn in turns if turn.role != "system"]
    fixed = list(takewhile(lambda turn: not turn.varies, others))
    messages: list[Message] = []
    for turn in (*system, *fixed):
        if text := turn.said(few_shot=few_shot):
            _append(messages, turn.role or "user", text)
    for turn in others[len(fixed) :]:  # the next to be there joins the last one if it has its role
        if messages and messages[-1].role == (turn.role or "user"):
            return len(messages) - 1
        if turn.role is None or (not turn.varies and turn.said(few_shot=few_shot)):
            break
    return len(messages)


def _fixed(turns: Sequence[_Turn], few_shot: bool) -> tuple[list[Message], int]:
    """What the first turns come to, before any that depends on the record, and how many they are."""
    messages: list[Message] = []
    first = list(takewhile(lambda turn: turn.role is not None and not turn.varies, turns))
    for turn in first:
        if text := turn.said(few_shot=few_shot):
            _append(messages, turn.role or "user", text)
    return messages, len(first)


def _append(messages: list[Message], role: Role, text: str) -> None:
    at = 0 if role == "system" else -1
    if messages and messages[at].role == role:
        messages[at] = Message(role, f"{messages[at].content}\n\n{text}")
    elif role == "system":
        messages.insert(0, Message(role, text))
    else:
        messages.append(Message(role, text))


def _names(parsed: nodes.Template) -> Iterator[tuple[str, int]]:
    """Every name that comes from outside, `principle.field` as such, with its line."""
    undeclared = find_undeclared_variables(parsed)
    for node in parsed.find_all((nodes.Name, nodes.Getattr)):
        if isinstance(node, nodes.Name) and node.name in undeclared:
            yield node.name, node.lineno
        if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name == "principle":
            yield f"principle.{node.attr}", node.lineno


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _role(name: str) -> Role:
    roles: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
    return roles[name]


def fenced(text: str, tag: str) -> str:
    """`text` between <tag> lines; what in it could end or open a fence, or a turn of the model's own, is defused.

    It comes out as "&lt;/response_a>" and the like, and all other text as it is.
    """
    names = {_skeleton(tag), "conversation", "response"}
    text = _BRACKET.sub(lambda found: "&lt;" if _names_a_fence(text, found.end(), names) else found[0], text)
    text = _CONTROL.sub(lambda found: "&lt;" if found[0] == "<" else "&#91;", text)
    return f"<{tag}>\n{text}\n</{tag}>"


_BRACKET = re.compile("[<\uff1c\ufe64\u2039\u27e8\u276e\u02c2\u1438]")  # and what looks like one
# The tokens by which chat models part turns, of ChatML, Llama, Mistral, Gemma, DeepSeek ... Where a server makes them
# tokens wherever they stand, as llama.cpp does, a response that holds some would end the user's turn.
_CONTROL = re.compile(
    r"<(?=[|\uff5c]\w|/?\w+[|\uff5c]>|/?(?:s|bos|eos|think|(?:start|end)_of_turn)>|</?SYS>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])",
    re.I,
)
# The Cyrillic and Greek letters that look like those of our tags; normalisation knows all other disguises.
_LOOKALIKES = str.maketrans("\u0430\u0441\u0435\u0456\u043e\u0440\u0455\u03b1\u03bf\u03c1\u03bd", "aceiopsaopv")


def _names_a_fence(text: str, start: int, names: Set[str]) -> bool:
    """Whether a tag from `start` on, after its bracket, begins with one of `names`, in whatever spelling."""
    said = ""
    for at in range(start, len(text)):
        char = text[at]
        said += _skeleton(char)
        if said in names:
            return True
        ahead = char in _SLASHES or char in _BLANKS or char.isspace() or category(char) in ("Cf", "Cc", "Mn")
        if _BRACKET.match(char) or not (said or ahead) or not any(name.startswith(said) for name in names):
            return False
    return False


_SLASHES = "/\\\u2044\u2215\uff0f"
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"  # letters by their category


@lru_cache(maxsize=4096)
def _skeleton(text: str) -> str:
    """Its letters and digits, without case, width, accents and ornament."""
    plain = normalize("NFKD", text).casefold().translate(_LOOKALIKES)
    return "".join(char for char in plain if char.isalnum() and char not in _BLANKS)
