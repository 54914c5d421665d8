"""What came of each round, and of the loop: report.json for programs, report.md and a picture for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from rlaif.errors import ConfigError
from rlaif.loop.evaluation import Measured, Rate, percent
from rlaif.loop.gates import Held
from rlaif.store import write_whole

# Of both report.json. Raise it when a key goes or changes its meaning; new keys are no change.
FORMAT = 1
FILE, TEXT, PLOT = "report.json", "report.md", "rounds.png"


@dataclass(frozen=True, slots=True)
class Model:
    """`model` is a folder, a hub's name or `local`; `identity` what it is, wherever it lies."""

    model: str
    identity: str


@dataclass(frozen=True, slots=True)
class StepReport:
    """`said`: what came out of it."""

    name: str
    command: str
    seconds: float
    said: str


@dataclass(frozen=True, slots=True)
class Round:
    """One round: `model` was made from `last`, and taken if it is `promoted`.

    `measured` and the win rates are by the roles first, last and new; where the last model is the first, both.
    """

    number: int
    model: Model
    last: Model
    first: Model
    promoted: bool
    reason: str
    gates: tuple[Held, ...] = ()
    measured: Mapping[str, Measured] = field(default_factory=dict)
    win_rate_last: Rate | None = None
    win_rate_first: Rate | None = None
    capability: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    steps: tuple[StepReport, ...] = ()

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)


def read_round(folder: Path) -> Round | None:
    """None if the round is not over. Raises ConfigError for a file that is not ours."""
    path = folder / FILE
    try:
        content = msgspec.json.decode(path.read_bytes())
        content.pop("format")
        return msgspec.convert(content, Round)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path} is not what rlaif wrote ({error}); remove it to judge the round anew") from None


def write_round(folder: Path, found: Round) -> None:
    write_whole(folder / FILE, _json(found))
    write_whole(folder / TEXT, (_round_text(found, "#") + "\n").encode())


def write_loop(out: Path, first: Model, rounds: Sequence[Round]) -> None:
    """All rounds in one, and a picture where matplotlib is installed."""
    taken = [found for found in rounds if found.promoted]
    content = {"name": out.name, "first": first, "current": taken[-1].model if taken else first, "rounds": rounds}
    write_whole(out / FILE, _json(content))
    if drawn := find_spec("matplotlib") is not None and any(found.measured for found in rounds):
        from rlaif.loop.plots import rates

        write_whole(out / PLOT, rates(rounds))
    lines = [f"# {out.name}", "", table(rounds), ""]
    lines += [f"![Rates by round]({PLOT})", ""] if drawn else []
    lines += [_round_text(found, "##") + "\n" for found in rounds]
    write_whole(out / TEXT, "\n".join(lines).encode())


HEAD = ("round", "harmful", "over-refusal", "wins against last", "against first", "words", "time", "")


def rows(rounds: Sequence[Round]) -> list[list[str]]:
    """The first model, and each round's, as the cells of HEAD."""
    lines: list[list[str]] = []
    for found in rounds:
        if not lines and "first" in found.measured:
            model = found.measured["first"]
            lines.append(["first", *_measured(model), "", "", _words(model), "", ""])
        new = found.measured.get("new", Measured())
        wins = [percent(found.win_rate_last), percent(found.win_rate_first)]
        end = "taken" if found.promoted else "not taken"
        lines.append([str(found.number), *_measured(new), *wins, _words(new), duration(found.seconds), end])
    return lines


def table(rounds: Sequence[Round]) -> str:
    """As Markdown; columns without a figure are left out."""
    lines = rows(rounds)
    kept = [i for i, name in enumerate(HEAD) if not name or any(line[i] for line in lines)]
    cells = [[HEAD[i] for i in kept], ["---"] * len(kept), *([line[i] for i in kept] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def duration(seconds: float) -> str:
    """12.3 s, 4 min 05 s, 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _measured(model: Measured) -> list[str]:
    return [percent(model.harmful_compliance), percent(model.over_refusal)]


def _words(model: Measured) -> str:
    return "" if model.length is None else f"{model.length:.0f}"


def _round_text(found: Round, level: str) -> str:
    lines = [f"{level} Round {found.number}: {'taken' if found.promoted else 'not taken'}", "", f"{found.reason}.", ""]
    lines += [f"Model: `{found.model.model}` ({found.model.identity}), made from `{found.last.model}`.", ""]
    if found.gates:
        lines += ["| gate | held | |", "|---|---|---|"]
        lines += [f"| {one.name} | {one.sentence} | {'passed' if one.passed else 'FAILED'} |" for one in found.gates]
        lines.append("")
    lines += ["| step | time | what came out |", "|---|---|---|"]
    lines += [f"| {step.name} | {duration(step.seconds)} | {step.said.replace('|', '/')} |" for step in found.steps]
    return "\n".join(lines)


def _json(found: Round | Mapping[str, Any]) -> bytes:  # Any: what msgspec takes
    content = {"format": FORMAT, **msgspec.to_builtins(found)}
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
