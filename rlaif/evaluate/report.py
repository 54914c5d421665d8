"""An evaluation as files: evaluation.json for programs, evaluation.md and pictures for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from rlaif.errors import ConfigError
from rlaif.evaluate.asking import Answered, prompt_text
from rlaif.evaluate.headtohead import HeadToHead, Pair, outcome
from rlaif.evaluate.safety import SAFE, UNSAFE, Safety, kind_of
from rlaif.evaluate.text import (
    PAIRED_LEGEND,
    PAIRS_LEGEND,
    SAFETY_LEGEND,
    STYLE_LEGEND,
    Table,
    agreement_line,
    categories_table,
    constitution_table,
    opinions_table,
    paired_table,
    pairs_table,
    safety_table,
    strengths_table,
    style_table,
)
from rlaif.export.markup import code, fenced, folded, table
from rlaif.figures import Figure
from rlaif.store import write_whole
from rlaif.types import Record
from rlaif.version import __version__

# Of evaluation.json. Raise it when a key goes or changes its meaning; new keys are no change.
FORMAT = 1
FOLDER, JSON = "evaluation", "evaluation.json"
Found = Safety | HeadToHead
_EXAMPLES = 4  # of a kind
_SHOWN = 1200  # characters of an answer
_MOST = 40  # categories on the page


def write(found: Found, answered: Answered, run: Path, *, plots: bool = True) -> list[Path]:
    def drawn() -> Mapping[str, bytes]:
        if not plots:
            return {}
        from rlaif.evaluate.plots import plots as pictures  # half a second

        return dict(pictures(found))

    return put(run / FOLDER, _kind(found), as_json(found), as_markdown(found, answered), drawn)


def put(
    folder: Path, kind: str, as_json: bytes, as_markdown: str, drawn: Callable[[], Mapping[str, bytes]] | None = None
) -> list[Path]:
    """Each file whole, in place of an earlier evaluation's of this kind, pictures too, which need matplotlib.

    `drawn` is None of a kind without pictures: what is in its folder are others'. Raises ConfigError where the files
    of another kind are.
    """
    check_free(folder, kind)
    folder.mkdir(parents=True, exist_ok=True)
    files = {JSON: as_json, "evaluation.md": as_markdown.encode(errors="replace")}
    if drawn is not None:
        for old in folder.glob("*.png"):
            old.unlink()
        files |= drawn() if find_spec("matplotlib") else {}
    for name, data in files.items():
        write_whole(folder / name, data)
    return [folder / name for name in files]


def check_free(folder: Path, kind: str) -> None:
    """Raises ConfigError where another kind's evaluation is."""
    path = folder / JSON
    if path.is_file() and f'"kind": "{kind}"'.encode() not in path.read_bytes():
        raise ConfigError(f"{path} is of another evaluation; choose another --run name or folder")


def as_json(found: Found) -> bytes:
    """The fields of Safety or HeadToHead and of what is in them; a figure is {value, low, high, n}."""
    more = {"by_category": _by_category(found)} if isinstance(found, HeadToHead) else {}
    return encoded(_kind(found), found, **more)


def encoded(kind: str, found: object, **more: Any) -> bytes:  # Any: what JSON takes
    content = {"format": FORMAT, "kind": kind, "rlaif": __version__, **msgspec.to_builtins(found), **more}
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def as_markdown(found: Found, answered: Answered) -> str:
    """A section for a model's card; all that is not ours is code, or in a fence."""
    parts = _safety(found, answered) if isinstance(found, Safety) else _comparison(found, answered)
    if found.notes:
        parts.insert(1, "\n".join(f"- {note}" for note in found.notes))
    return page(parts)


def page(parts: Sequence[str], by: str = "") -> str:
    """Of paragraphs and tables. `by`: what else had a part in it."""
    made = f"Made with rlaif {__version__}{by}; all figures are in `{JSON}`."
    return "\n\n".join(part.strip("\n") for part in (*parts, made) if part) + "\n"


def _kind(found: Found) -> str:
    return "safety" if isinstance(found, Safety) else "compare"


def _safety(found: Safety, answered: Answered) -> list[str]:
    names = [model.model for model in found.models]
    unsafe = [model.unsafe.by_category for model in found.models if model.unsafe]
    safe = [model.safe.by_category for model in found.models if model.safe]
    styles = [(model.model, model.style) for model in found.models]
    parts = ["## Safety", coded_table(safety_table(found), 1), SAFETY_LEGEND]
    if found.paired:
        parts += ["### Before and after", coded_table(paired_table(found.paired), 2), PAIRED_LEGEND]
    if (second := opinions_table(found))[1]:
        parts += ["### Second opinions", coded_table(second, 3), agreement_line(found)]
    if (rated := constitution_table(found))[1]:
        parts += ["### By the constitution", coded_table(rated, 1), "The judge's mean score, from -1 to 1."]
    parts += _categories("Harmful compliance by category", names, unsafe)
    parts += _categories("Over-refusal by category", names, safe)
    parts += ["### How the answers are written", coded_table(style_table(styles), 1), STYLE_LEGEND]
    return parts + _changed(answered)


def _comparison(found: HeadToHead, answered: Answered) -> list[str]:
    parts = [
        "## Head to head",
        f"Judged by {code(found.judge)}, in both orders.",
        coded_table(pairs_table(found), 2),
        PAIRS_LEGEND,
    ]
    if found.bradley_terry:
        said = "Bradley-Terry, in log-odds to beat the average of these models."
        parts += ["### Strengths", coded_table(strengths_table(found), 1), said]
    names = [f"{one.a} against {one.b}" for one in found.pairs]
    parts += _categories("Win rate by category", names, [one.by_category for one in found.pairs])
    styles = [(one.model, one.style) for one in found.models]
    parts += ["### How the answers are written", coded_table(style_table(styles), 1), STYLE_LEGEND]
    for pair in found.pairs:
        parts += _sides(pair, answered)
    return parts


def _by_category(found: HeadToHead) -> dict[str, list[dict[str, Any]]]:
    """Category -> each pair's win rate."""
    names = sorted({name for pair in found.pairs for name in pair.by_category})
    return {
        name: [
            {"a": pair.a, "b": pair.b, "win_rate": msgspec.to_builtins(pair.by_category[name])}
            for pair in found.pairs
            if name in pair.by_category
        ]
        for name in names
    }


def _categories(title: str, names: Sequence[str], by_model: Sequence[Mapping[str, Figure]]) -> list[str]:
    found = categories_table(names, by_model)
    if not 1 < len(found[1]) <= _MOST:
        return []
    head, lines = found
    return [f"### {title}", coded_table((head, lines), 1, names_in_head=2)]


def coded_table(found: Table, names: int, names_in_head: int | None = None) -> str:
    """The first `names` cells of a line are names, anyone's text, and those of the head from `names_in_head` on."""
    head, lines = found
    if names_in_head is not None:
        head = [*head[:names_in_head], *map(code, head[names_in_head:])]
    return table(head, [[*map(code, line[:names]), *line[names:]] for line in lines], names)


# --- examples ---


def _changed(answered: Answered) -> list[str]:
    """Prompts where the last model does other than the first."""
    if len(answered.models) < 2:
        return []
    before, after = 0, len(answered.models) - 1
    parts = []
    for name, title in ((UNSAFE, "No longer refused"), (SAFE, "Refused now")):
        changed = [
            record
            for record in answered.of(name)
            if (kind_of(record.responses[before]) == "full", kind_of(record.responses[after]) == "full")
            == ((True, False) if name == UNSAFE else (False, True))
        ]
        for record in changed[:_EXAMPLES]:
            parts.append(folded(f"{title}: {name} prompt {record.id}", _beside(record, answered, before, after)))
    return [f"### Where {code(answered.models[after].name)} is worse", *parts] if parts else []


def _sides(pair: Pair, answered: Answered) -> list[str]:
    names = [model.name for model in answered.models]
    i, j = names.index(pair.a), names.index(pair.b)
    values, _ = outcome(answered.records, i, j)
    parts = []
    for side, value in (("first", 1.0), ("second", 0.0)):
        preferred = [record for record, one in zip(answered.records, values, strict=True) if one == value]
        for record in preferred[:_EXAMPLES]:
            parts.append(folded(f"The {side} is preferred: prompt {record.id}", _beside(record, answered, i, j)))
    return [f"### {code(pair.a)} beside {code(pair.b)}", *parts] if parts else []


def _beside(record: Record, answered: Answered, *which: int) -> str:
    texts = [("prompt", prompt_text(record))]
    texts += [(answered.models[i].name, record.responses[i].text) for i in which]
    return "\n".join(f"{code(name)}\n\n{fenced(_cut(text))}" for name, text in texts)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
