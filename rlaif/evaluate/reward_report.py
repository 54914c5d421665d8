"""An evaluation of reward models as evaluation.json, as Markdown, and as the lines of a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from rlaif.evaluate.report import FOLDER, encoded, page, put
from rlaif.evaluate.reward_figures import Evaluation, RewardFigures
from rlaif.export.markup import code, table
from rlaif.figures import decimal, percent, spread

KIND = "reward"
LEGEND = (
    "95% intervals in brackets. `accuracy` beside that of choosing the longer answer, `longer is better`, and their "
    "difference in points; `too sure by`: mean confidence less accuracy, where sigmoid(difference of scores) is the "
    "confidence; `tau`: Kendall's, with the ratings of a prompt's answers; `score with length`: Spearman's, of the "
    "differences between the better and the worse answer."
)


def as_json(found: Evaluation) -> bytes:
    return encoded(KIND, found)


def reward_table(found: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Head and lines, the columns that matter most first; without those that nothing is known of."""
    columns: list[tuple[str, Callable[[RewardFigures], str]]] = [
        ("model", lambda one: one.model),
        ("pairs", lambda one: f"{one.pairs:,}"),
        ("accuracy", lambda one: percent(one.accuracy)),
        ("longer is better", lambda one: percent(one.length.longer_is_better)),
        ("more than that", lambda one: spread(one.length.gain)),
        ("ECE", lambda one: "" if one.ece is None else f"{one.ece:.3f}"),
        ("Brier", lambda one: decimal(one.brier, 3)),
        ("too sure by", lambda one: percent(one.overconfidence)),
        ("tau", lambda one: decimal(one.kendall)),
        ("tau of margins", lambda one: decimal(one.kendall_margins)),
        ("score with length", lambda one: decimal(one.length.correlation)),
        ("better is longer", lambda one: percent(one.length.accuracy_longer)),
        ("better is shorter", lambda one: percent(one.length.accuracy_shorter)),
    ]
    known = [(name, cell) for name, cell in columns if any(cell(one) for one in found.models)]
    return [name for name, _ in known], [[cell(one) for _, cell in known] for one in found.models]


def notes(found: Evaluation) -> list[str]:
    """What else there is to say, a sentence each."""
    lines = []
    for one in found.models:
        if one.failures:
            why = ", ".join(f"{reason} {n:,}" for reason, n in one.failures.items())
            lines.append(f"{one.model} gave no score to {sum(one.failures.values()):,} texts ({why})")
        if one.length.gain.low is not None and one.length.gain.low <= 0:
            lines.append(f"{one.model} is not known to be better than choosing the longer answer")
    if (several := found.ensemble) is not None:
        lines.append(
            f"where its {len(several.members)} members agree, the ensemble is right in {percent(several.unanimous)} "
            f"(n = {several.unanimous.n:,}), else in {percent(several.divided)} (n = {several.divided.n:,})"
            if several.divided.n
            else f"the {len(several.members)} members of the ensemble agree on every pair"
        )
        if several.correlation.value is not None:
            lines.append(f"its spread goes with being wrong by {decimal(several.correlation)} (Spearman)")
    if found.dropped:
        lines.append("rows left out: " + ", ".join(f"{reason} {n:,}" for reason, n in found.dropped.items()))
    return lines


def as_markdown(found: Evaluation) -> str:
    """A section for a model's card; all that is not ours is code."""
    head, lines = reward_table(found)
    rows = [[code(line[0]), *line[1:]] for line in lines]
    names = {one.model for one in found.models}
    said = "".join(f"- {_coded(line, names)}\n" for line in notes(found))
    parts = [
        "## Reward models",
        f"On {code(found.data)}: {code(found.shape)}; splits: {', '.join(map(code, found.splits))}.",
        table(head, rows, 1),
        LEGEND,
        said,
    ]
    return page(parts)


def _coded(line: str, names: Collection[str]) -> str:
    """A note with the model that it begins with as code."""
    name = max((name for name in names if line.startswith(f"{name} ")), key=len, default="")
    return f"{code(name)}{line.removeprefix(name)}" if name else line


def write_rewards(found: Evaluation, run: Path, *, plots: bool = True) -> list[Path]:
    def drawn() -> Mapping[str, bytes]:
        if not plots:
            return {}
        from rlaif.evaluate.reward_plots import reward_plots  # half a second

        return reward_plots(found)

    return put(run / FOLDER, KIND, as_json(found), as_markdown(found), drawn)
