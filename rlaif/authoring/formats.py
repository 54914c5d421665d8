"""The files that others keep principles in, read and written: Anthropic's two, llm-swarm's, plain lists.

Shapes: CritiqueRevisionInstructions.json and RLMadisonInstructions.json of Bai et al. 2022 (arXiv:2212.08073), and
the `constitutions` of huggingface/llm-swarm. The words that those files put around each text are taken off on
import and put back on export: here templates have them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rlaif.authoring.ids import Texts, ids
from rlaif.authoring.words import language_of
from rlaif.authoring.yaml_file import dump
from rlaif.constitution import Constitution, Principle
from rlaif.documents import MAX_CHARS, MAX_DEPTH, load
from rlaif.errors import ConfigError

Format = Literal["anthropic", "anthropic-judge", "llm-swarm", "list"]
FORMATS: tuple[Format, ...] = get_args(Format)
MOST = 2000  # entries; of so many each is drawn hardly ever


@dataclass(frozen=True, slots=True)
class Imported:
    """`left_out` says in whole sentences what of the file is not in the principles."""

    format: Format
    texts: tuple[Texts, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exported:
    text: str
    left_out: tuple[str, ...]


def read(path: Path, format: Format | None = None) -> Imported:
    """The principles of a file; its format is seen from the content unless it is said. Raises ConfigError."""
    data = _data(path)
    known = _recognised(path, data)
    if format is not None and known != format and {known, format} != {"list", "anthropic-judge"}:
        raise ConfigError(f"{path}: looks like '{known}', not '{format}'; leave --format out, or name another file")
    imported = _READERS[format or known](path, data)
    if not imported.texts:
        raise ConfigError(f"{path}: has no principles")
    if len(imported.texts) > MOST:
        raise ConfigError(f"{path}: has {len(imported.texts):,} entries, over {MOST:,}; is this a list of principles?")
    return imported


def constitution(
    files: Sequence[Imported], name: str, licence: str = "unknown", language: str | None = None, version: str = "1.0"
) -> Constitution:
    """One constitution of all files, one principle for each of their entries. Ids are made from the words."""
    texts = [text for file in files for text in file.texts]
    spoken = language or language_of([t for text in texts for t in text[:3] if t]) or "en"
    principles = [
        Principle(id=own_id, critique=text.critique, revision=text.revision, judge=text.judge)
        for own_id, text in zip(ids(texts, spoken), texts, strict=True)
    ]
    for field, value in {"name": name, "licence": licence, "language": spoken, "version": version}.items():
        if not value.strip():
            raise ConfigError(f"{field}: must not be empty; give one, or leave it out")
        if not _is_utf8(value):
            raise ConfigError(f"{field}: {value!r} is not UTF-8; give another with --{field}")
    return Constitution(name=name, version=version, licence=licence, language=spoken, principles=tuple(principles))


def export(source: Constitution, format: Format, suffix: str = ".txt") -> Exported:
    """The file's text in that format; a list is JSON, YAML or lines by `suffix`. Raises ConfigError if it is empty."""
    entries, left_out = _WRITERS[format](source)
    if not entries:
        needs = "judge" if format in ("anthropic-judge", "list") else "critique"
        raise ConfigError(f"constitution '{source.name}' has no `{needs}:` texts, which '{format}' is made of")
    if len({p.weight for p in source.principles}) > 1:
        left_out.append("The weights: there every principle is drawn alike.")
    if format == "list" and suffix in (".yaml", ".yml"):
        return Exported(dump(entries), tuple(left_out))
    if format == "list" and suffix != ".json":
        if any("\n" in entry for entry in entries):
            left_out.append("Line ends within principles; a .json or .yaml file keeps them.")
        return Exported("".join(f"{' '.join(entry.split())}\n" for entry in entries), tuple(left_out))
    return Exported(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", tuple(left_out))


# --- reading ---


def _data(path: Path) -> Any:  # Any: what a file of somebody else holds
    """Lists and mappings of JSON and YAML; the lines of any other text."""
    if path.suffix.lower() in (".yaml", ".yml"):
        return load(path).data
    text = _text(path)
    if path.suffix.lower() != ".json" and not re.match(r"\s*[\[{]\s*[\"\[{\]}]", text):
        return _lines(text)
    try:
        data = json.loads(text, object_pairs_hook=lambda pairs: _mapping_once(path, pairs))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not JSON: {error.msg}; check the file with an editor") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested deeper than {MAX_DEPTH} levels; no list of principles is") from None
    except ValueError:  # a number of more than 4,300 digits
        raise ConfigError(f"{path}: a number too long to read; principles are text") from None
    return data


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CHARS + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_CHARS:
        raise ConfigError(f"{path}: larger than {MAX_CHARS >> 20} MiB; is this a list of principles?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8; save the file in that encoding") from None


def _mapping_once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:  # Any: as above
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ConfigError(f"{path}: '{name}' is there twice in one place; rename or remove one")
        _encodable(path, f"the name {name!r}", name)
        found[name] = value
    return found


def _lines(text: str) -> list[str]:
    """One principle a line, without bullets and numbers; empty lines and those that begin with # are none."""
    lines = (re.sub(r"^\s*(?:[-*•]|\d{1,3}[.)])\s+", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _recognised(path: Path, data: Any) -> Format:  # Any: as above
    if isinstance(data, list) and data and all(isinstance(entry, str) for entry in data):
        return "anthropic-judge" if any(_ends(entry, _OPTIONS[1]) for entry in data) else "list"
    if isinstance(data, list):
        return "list"  # whose reader says which entry is no text
    if isinstance(data, dict):
        if "principles" in data:
            raise ConfigError(
                f"{path}: is a constitution already; `rlaif constitution check {path}` says if it is valid"
            )
        if "constitutions" in data:
            return "llm-swarm"
        if any(isinstance(entry, dict) and {"prompt", "edit_request"} & set(entry) for entry in data.values()):
            return "anthropic"
    raise ConfigError(
        f"{path}: no format that is known here: {', '.join(FORMATS)}; a plain list has one principle a line, "
        "or is a JSON or YAML list of texts"
    )


# What stands before and behind a text, in small letters.
_CRITIQUE = ("critiquerequest:", "critique:")
_REVISION = ("revisionrequest:", "revision:")
_OPTIONS = ("", "options:")
_NUMBERED = re.compile(r"harmful(\d+)")
_REWRITE = re.compile(
    r"\s*(?:please\s+)?(?:rewrite|revise|amend|edit|rephrase|change|make|modify|adjust|write|改写|重写|修改)",
    re.IGNORECASE,
)


def _read_anthropic(path: Path, data: Any) -> Imported:  # Any: as above
    entries = list(data.items())
    if all(_NUMBERED.fullmatch(name) for name in data):
        entries.sort(key=lambda entry: int(_NUMBERED.fullmatch(entry[0])[1]))  # type: ignore[index] # just matched
    texts: list[Texts] = []
    left_out: list[str] = []
    for name, entry in entries:
        fields = _fields(path, name, entry, ("prompt", "edit_request"), left_out)
        prompts = fields["prompt"] if isinstance(fields["prompt"], list) else [fields["prompt"]]
        revision = _stripped(path, f"{name}.edit_request", fields["edit_request"], _REVISION)
        if not prompts:
            raise ConfigError(f"{path}: {name}.prompt: is empty; give one critique request")
        if len(prompts) > 1:
            left_out.append(f"'{name}' has {len(prompts)} prompts: a principle of each.")
        own = None if _NUMBERED.fullmatch(name) or not re.fullmatch(r"[\w.-]+", name) else name
        for i, prompt in enumerate(prompts):
            texts.append(Texts(_stripped(path, f"{name}.prompt[{i}]", prompt, _CRITIQUE), revision, None, own))
    if [name for name, _ in entries] != [f"harmful{i}" for i in range(len(entries))]:
        left_out.append("The names of its entries: an export calls them harmful0, harmful1, ...")
    return Imported("anthropic", tuple(texts), tuple(left_out))


def _read_anthropic_judge(path: Path, data: Any) -> Imported:  # Any: as above
    texts = (_stripped(path, f"[{i}]", entry, _OPTIONS) for i, entry in enumerate(data))
    return Imported("anthropic-judge", tuple(Texts(judge=text) for text in texts))


def _read_llm_swarm(path: Path, data: Any) -> Imported:  # Any: as above
    left_out: list[str] = []
    entries = data["constitutions"]
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: constitutions: should be a list of {{critic, revision}}")
    texts = []
    for i, entry in enumerate(entries):
        place = f"constitutions[{i}]"
        fields = _fields(path, place, entry, ("critic", "revision"), left_out)
        texts.append(
            Texts(
                _stripped(path, f"{place}.critic", fields["critic"], _CRITIQUE),
                _stripped(path, f"{place}.revision", fields["revision"], _REVISION),
            )
        )
    if examples := data.get("system_chat"):
        count = f"{len(examples)} worked conversations" if isinstance(examples, list) else "worked conversations"
        left_out.append(
            f"system_chat: {count}. Examples belong to a template here: `rlaif copy revision_examples`, edit it, and "
            "`--set templates.revision_examples=revision_examples.jinja`."
        )
    left_out += [f"The field '{name}'." for name in data if name not in ("constitutions", "system_chat")]
    return Imported("llm-swarm", tuple(texts), tuple(left_out))


def _read_list(path: Path, data: Any) -> Imported:  # Any: as above
    """Lines that ask for a rewrite are revisions; all others criteria for the judge."""
    texts = [_stripped(path, f"[{i}]", entry, _OPTIONS) for i, entry in enumerate(data)]
    return Imported("list", tuple(Texts(revision=t) if _REWRITE.match(t) else Texts(judge=t) for t in texts))


_READERS: dict[Format, Callable[[Path, Any], Imported]] = {  # Any: as above
    "anthropic": _read_anthropic,
    "anthropic-judge": _read_anthropic_judge,
    "llm-swarm": _read_llm_swarm,
    "list": _read_list,
}


def _fields(path: Path, place: str, entry: Any, names: tuple[str, str], left_out: list[str]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: {place}: should be a mapping with {' and '.join(names)}")
    for name in names:
        if name not in entry:
            raise ConfigError(f"{path}: {place}.{name}: is missing; every entry has {' and '.join(names)}")
    left_out += [f"{place}.{name}." for name in entry if name not in names]
    return entry


def _stripped(path: Path, place: str, value: Any, around: tuple[str, str]) -> str:  # Any: as above
    if not isinstance(value, str):
        raise ConfigError(f"{path}: {place}: should be text, not {type(value).__name__}; put it in quotes")
    before, behind = around
    text = value.strip()
    text = text[len(before) :] if text[: len(before)].casefold() == before else text
    text = text[: len(text) - len(behind)] if _ends(text, behind) else text
    text = text.strip()
    if not text:
        raise ConfigError(f"{path}: {place}: is empty; remove the entry, or give it a text")
    return _encodable(path, place, text)


def _ends(text: str, behind: str) -> bool:
    return text.rstrip()[-len(behind) :].casefold() == behind


def _encodable(path: Path, place: str, text: str) -> str:
    """JSON may hold what no file in UTF-8 can."""
    if not _is_utf8(text):
        raise ConfigError(f"{path}: {place}: half of a surrogate pair, which is no character; remove it")
    return text


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- writing ---


def _write_anthropic(source: Constitution) -> tuple[Any, list[str]]:  # Any: what json takes
    critical = [p for p in source.principles if p.critique]
    entries = {
        f"harmful{i}": {
            "prompt": [f"\n\nCritiqueRequest: {p.critique}\n\nCritique:"],
            "edit_request": f"\n\nRevisionRequest: {p.revision}\n\nRevision:",
        }
        for i, p in enumerate(critical)
    }
    return entries, _not_written(source, critical, "critique") + _texts_left(critical, "judge")


def _write_anthropic_judge(source: Constitution) -> tuple[Any, list[str]]:  # Any: as above
    judging = [p for p in source.principles if p.judge]
    left_out = _not_written(source, judging, "judge") + _texts_left(judging, "revision")
    return [f"\n{p.judge} Options:" for p in judging], left_out


def _write_llm_swarm(source: Constitution) -> tuple[Any, list[str]]:  # Any: as above
    critical = [p for p in source.principles if p.critique]
    pairs = [{"critic": p.critique, "revision": p.revision} for p in critical]
    left_out = _not_written(source, critical, "critique") + _texts_left(critical, "judge")
    return {"constitutions": pairs, "system_chat": []} if pairs else {}, left_out


def _write_list(source: Constitution) -> tuple[Any, list[str]]:  # Any: as above
    both = [p for p in source.principles if p.judge]
    left_out = _texts_left(both, "revision") + _texts_left([p for p in source.principles if not p.judge], "critique")
    return [p.judge or p.revision for p in source.principles], left_out


_WRITERS: dict[Format, Callable[[Constitution], tuple[Any, list[str]]]] = {  # Any: as above
    "anthropic": _write_anthropic,
    "anthropic-judge": _write_anthropic_judge,
    "llm-swarm": _write_llm_swarm,
    "list": _write_list,
}


def _not_written(source: Constitution, written: list[Principle], needs: str) -> list[str]:
    names = [p.id for p in source.principles if p not in written]
    return [f"Without a {needs}: {', '.join(names)}."] if names else []


def _texts_left(principles: list[Principle], field: Literal["critique", "revision", "judge"]) -> list[str]:
    count = sum(p.text(field) is not None for p in principles)
    return [f"The {field} texts of {count} principle(s)."] if count else []
