"""Figures as text, and the columns of the tables that they stand in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlaif.audit.measures import JudgeFigures
from rlaif.figures import decimal, maybe, percent, plain, points

LEGEND = (
    "95% intervals in brackets. `same winner`: in both orders; `then right`: of these verdicts. In points, with a star "
    "where chance does not explain it: `first`, how much too often the response shown first wins; `longer` and `own`, "
    "how much more often than with people the longer response and the judge's own win; `too sure`, confidence less "
    "accuracy. ECE has no interval and is too high in small samples."
)


Column = tuple[str, Callable[[JudgeFigures], str]]

# What every judge is told by. A column that is empty for all is left out.
COLUMNS: tuple[Column, ...] = (
    ("judge", lambda judge: judge.judge),
    ("labels", lambda judge: f"{judge.accuracy.n:,}"),
    ("right", lambda judge: percent(judge.accuracy)),
    ("kappa", lambda judge: decimal(judge.kappa)),
    ("same winner", lambda judge: plain(judge.consistency)),
    ("then right", lambda judge: plain(judge.accuracy_consistent, ".1%")),
    ("first", lambda judge: points(judge.position_bias)),
    ("longer", lambda judge: points(judge.length_bias)),
    ("own", lambda judge: points(judge.self_preference)),
    ("ECE", lambda judge: maybe(judge.ece, ".2f")),
    ("no answer", lambda judge: "" if judge.usable.value is None else f"{1 - judge.usable.value:.0%}"),
)
MORE_COLUMNS: tuple[Column, ...] = (
    ("one order", lambda judge: percent(judge.accuracy_one_order)),
    ("the longer one", lambda judge: percent(judge.longer_is_better)),
    ("Brier", lambda judge: plain(judge.brier, ".3f")),
    ("too sure", lambda judge: points(judge.overconfidence)),
    ("refused", lambda judge: plain(judge.refused)),
    ("undecided", lambda judge: plain(judge.undecided)),
    ("USD a label", lambda judge: maybe(judge.cost_per_label, ".2g")),
)


def rows(judges: Sequence[JudgeFigures], columns: Sequence[Column] = COLUMNS) -> tuple[list[str], list[list[str]]]:
    """The head of a table, and a row for each judge."""
    filled = [(name, [cell(judge) for judge in judges]) for name, cell in columns]
    shown = [(name, cells) for name, cells in filled if any(cells)]
    return [name for name, _ in shown], [[cells[i] for _, cells in shown] for i in range(len(judges))]
