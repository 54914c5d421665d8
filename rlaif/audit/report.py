"""An audit as what people and programs read: a table, what to make of it in words, audit.json, audit.md, plots."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np

from rlaif.audit.compare import Conflict, Difference, PrincipleFigures, conflicts, differences, principle_figures
from rlaif.audit.measures import (
    JudgeFigures,
    Point,
    agreement,
    coverage_curve,
    decided,
    figures,
    winners,
)
from rlaif.audit.notes import WAYS, notes_of
from rlaif.audit.panels import Agreement, PanelFigures, krippendorff_alpha, panel_figures
from rlaif.audit.read import read_classes
from rlaif.audit.table import CASCADE, Items, Judged
from rlaif.audit.text import COLUMNS, LEGEND, MORE_COLUMNS, rows
from rlaif.export.card import code
from rlaif.figures import Figure, decimal, kappa, maybe, mean, percent
from rlaif.store import write_whole
from rlaif.version import __version__

# Of audit.json. Raise it when a key goes or changes its meaning; new keys are no change.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Audit:
    """`source` names the file or run; `labelled` items have a label, of which `ties` are no winner.

    `longer_is_better` is how often it is, of two responses. `judges` are sorted by accuracy, the best first; `curves`
    are what is left of each when only sure verdicts count.
    """

    source: str
    items: int
    labelled: int
    ties: int
    longer_is_better: Figure
    judges: tuple[JudgeFigures, ...]
    curves: Mapping[str, tuple[Point, ...]]
    panel: PanelFigures
    notes: tuple[str, ...]


def audited(
    source: str,
    items: Items,
    judges: Sequence[Judged],
    own: Mapping[str, Collection[str]] | None = None,
    together: Judged | None = None,
) -> Audit:
    """All figures. `own` are the generators that count as a judge itself, by default the one of its name.

    `together` is what a run makes of what the judges say: it has figures too, and is no member of the panel.
    """
    # Judges of a cascade see different items, and only the last word counts: they are no panel.
    panel = panel_figures(items, () if together is not None and together.judge == CASCADE else judges)
    judges = [*judges, *([together] if together else [])]
    found = [figures(items, judged, (own or {}).get(judged.judge, ())) for judged in judges]
    found.sort(key=lambda judge: -1.0 if judge.accuracy.value is None else -judge.accuracy.value)
    labelled = int(np.count_nonzero(~np.isnan(items.gold)))
    gold = decided(items.gold)
    return Audit(
        source=source,
        items=len(items),
        labelled=labelled,
        ties=labelled - int(np.count_nonzero(~np.isnan(gold))),
        longer_is_better=mean(agreement((np.sign(items.lengths[:, 0] - items.lengths[:, 1]) + 1) / 2, gold)),
        judges=tuple(found),
        curves={judged.judge: coverage_curve(items, judged) for judged in judges},
        panel=panel,
        notes=tuple(notes_of(labelled, found, judges, panel)),
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Each two judges, or each with `against`; how often each principle decides, and which two disagree."""

    against: str | None
    differences: tuple[Difference, ...]
    principles: tuple[PrincipleFigures, ...]
    conflicts: tuple[Conflict, ...]


def compared(items: Items, judges: Sequence[Judged], against: str | None = None) -> Comparison:
    """Of more than a few judges each is compared with the best one, unless `against` names another."""
    if against is None and len(judges) > _FEW_JUDGES:
        accuracy = {judged.judge: mean(agreement(winners(judged.p), decided(items.gold))).value for judged in judges}
        against = max(accuracy, key=lambda name: accuracy[name] or 0.0)
    return Comparison(
        against,
        differences(items, judges, against),
        principle_figures(items, judges),
        conflicts(items, judges),
    )


_FEW_JUDGES = 5


@dataclass(frozen=True, slots=True)
class Classes:
    """Raters who put `rows` into one of `classes`; `pairs` are (rater, rater, kappa)."""

    rows: int
    classes: tuple[str, ...]
    alpha: float | None
    pairs: tuple[tuple[str, str, Figure], ...]


def classes_of(path: Path, raters: Sequence[str]) -> Classes:
    classes, chosen = read_classes(path, raters)
    pairs = combinations(range(len(raters)), 2)
    return Classes(
        chosen.shape[1],
        classes,
        krippendorff_alpha(chosen),
        tuple((raters[i], raters[j], kappa(chosen[i], chosen[j])) for i, j in pairs),
    )


def write(audit: Audit, folder: Path, *, plots: bool = True) -> list[Path]:
    """audit.json, audit.md and the plots, each whole, in place of an earlier audit's."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"audit.json": as_json(audit), "audit.md": as_markdown(audit).encode()}
    if plots:
        from rlaif.audit.plots import NAMES  # matplotlib, half a second
        from rlaif.audit.plots import plots as drawn

        for name in NAMES:
            (folder / name).unlink(missing_ok=True)
        files |= drawn(audit.judges, audit.curves, audit.panel)
    for name, data in files.items():
        write_whole(folder / name, data)
    return [folder / name for name in files]


def as_json(audit: Audit) -> bytes:
    """The fields of Audit and of what is in it; a figure is {value, low, high, n}, null where nothing can be said."""
    content = {"format": FORMAT, "rlaif": __version__, **msgspec.to_builtins(audit)}
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def as_markdown(audit: Audit) -> str:
    """A section for a dataset's card; names are the only text that is not ours."""
    of = f"{audit.labelled:,} of {audit.items:,} items of {code(audit.source)} have people's label"
    ties = f", {audit.ties:,} of them a tie, which says nothing about who is right" if audit.ties else ""
    parts = ["## Audit of the judges" if audit.judges else "## Audit of the labels", f"{of}{ties}."]
    if audit.longer_is_better.n:
        parts.append(f"The longer response is the better one in {percent(audit.longer_is_better)}.")
    if audit.judges:
        head, lines = rows(audit.judges, (*COLUMNS, *MORE_COLUMNS))
        parts.append(_markdown_table(head, [[code(line[0]), *line[1:]] for line in lines]))
        parts.append(LEGEND)
        parts += _by_group(audit.judges)
    if audit.notes:
        parts.append("\n".join(f"- {note}" for note in audit.notes))
    if people := audit.panel.annotators:
        to_gold = [[code(name), decimal(figure)] for name, figure in audit.panel.annotators_to_gold.items()]
        parts += ["### People", _agreement(people), _markdown_table(["annotator", "kappa with the label"], to_gold)]
    if judges := audit.panel.judges:
        ways = [[WAYS[way.method], percent(way.accuracy)] for way in audit.panel.combinations]
        parts += ["### The judges together", _agreement(judges)]
        parts += [_markdown_table(["together", "right"], ways)] if ways else []
    parts.append(f"Made with rlaif {__version__}; all figures are in `audit.json`.")
    return "\n\n".join(parts) + "\n"


def _by_group(judges: Sequence[JudgeFigures]) -> list[str]:
    groups = list(judges[0].by_group)
    if not 1 < len(groups) <= _MATRIX:
        return []
    lines = [[code(judge.judge), *(percent(judge.by_group[group]) for group in groups)] for judge in judges]
    return ["Right, by group:", _markdown_table(["judge", *map(code, groups)], lines)]


def _agreement(found: Agreement) -> str:
    alpha = f"Krippendorff's alpha is {'undefined' if found.alpha is None else f'{found.alpha:.3f}'}."
    if len(found.raters) > _MATRIX:
        return f"{alpha} The kappas of each two are in `audit.json`."
    cells = [
        [code(name), *("" if i == j else maybe(value, ".2f") for j, value in enumerate(line))]
        for i, (name, line) in enumerate(zip(found.raters, found.kappas, strict=True))
    ]
    return f"{alpha} Kappa of each two:\n\n{_markdown_table(['', *map(code, found.raters)], cells)}"


_MATRIX = 12  # raters whose matrix a page has room for


def _markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    align = "|".join("---" if i == 0 else "---:" for i in range(len(head)))
    return "\n".join([f"| {' | '.join(head)} |", f"|{align}|", *(f"| {' | '.join(line)} |" for line in lines)])
