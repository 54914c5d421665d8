"""An audit as what people and programs read: a table, what to make of it in words, audit.json, audit.md, plots."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np

from rlaif.audit.compare import Conflict, Difference, PrincipleFigures, conflicts, differences, principle_figures
from rlaif.audit.measures import (
    Figure,
    JudgeFigures,
    Point,
    agreement,
    coverage_curve,
    decided,
    figures,
    kappa,
    mean,
    winners,
)
from rlaif.audit.panels import Agreement, Alike, PanelFigures, krippendorff_alpha, panel_figures
from rlaif.audit.read import read_classes
from rlaif.audit.table import CASCADE, Items, Judged
from rlaif.panel import LEAST_GOLD
from rlaif.store import write_whole
from rlaif.version import __version__

# Of audit.json. Raise it when a key goes or changes its meaning; new keys are no change.
FORMAT = 1
# A bias under so many points is not worth a note, however certain it is.
_NOTABLE = 0.05
_FEW_NAMES = 4


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
        notes=tuple(_notes(labelled, found, judges, panel)),
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
        ways = [[_WAYS[way.method], percent(way.accuracy)] for way in audit.panel.combinations]
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


LEGEND = (
    "95% intervals in brackets. `same winner`: in both orders; `then right`: of these verdicts. In points, with a star "
    "where chance does not explain it: `first`, how much too often the response shown first wins; `longer` and `own`, "
    "how much more often than with people the longer response and the judge's own win; `too sure`, confidence less "
    "accuracy. ECE has no interval and is too high in small samples."
)


def _agreement(found: Agreement) -> str:
    alpha = f"Krippendorff's alpha is {'undefined' if found.alpha is None else f'{found.alpha:.3f}'}."
    if len(found.raters) > _MATRIX:
        return f"{alpha} The kappas of each two are in `audit.json`."
    cells = [
        [code(name), *("" if i == j else _maybe(value, ".2f") for j, value in enumerate(line))]
        for i, (name, line) in enumerate(zip(found.raters, found.kappas, strict=True))
    ]
    return f"{alpha} Kappa of each two:\n\n{_markdown_table(['', *map(code, found.raters)], cells)}"


_MATRIX = 12  # raters whose matrix a page has room for


def _markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    align = "|".join("---" if i == 0 else "---:" for i in range(len(head)))
    return "\n".join([f"| {' | '.join(head)} |", f"|{align}|", *(f"| {' | '.join(line)} |" for line in lines)])


def code(text: str) -> str:
    """Inline code that the text cannot leave, in a table neither."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "/").split()) + "`"


# --- in words ---


def _notes(
    labelled: int, judges: Sequence[JudgeFigures], judged: Sequence[Judged], panel: PanelFigures
) -> Iterable[str]:
    """What stands out, and what to do about it; at most one note of a kind."""
    if not labelled:
        yield "No item has a label: nothing here says whether a judge is right. Label some: rlaif label RUN."
    elif labelled < LEAST_GOLD:
        yield f"Only {labelled} labels: the intervals say how little that proves, and no judge is weighed by so few."
    for finding in _FINDINGS:
        if found := [f"{code(judge.judge)} ({finding.shown(judge)})" for judge in judges if finding.holds(judge)]:
            yield f"{finding.what}: {_listed(found)}. {finding.way_out}"
    once = [judge.judge for judge in judged if not judge.both_orders]
    if once:
        yield f"Asked in one order only, so that a taste for a position is not to be seen: {_named(once)}."
    if len({tuple(outcome is None for outcome in judge.outcomes) for judge in judged}) > 1:
        yield (
            "The judges were not asked about the same items, so that their figures are not to be compared as they "
            "stand: `rlaif judge compare` takes the items that two have in common."
        )
    yield from _panel_notes(panel)


@dataclass(frozen=True, slots=True)
class _Finding:
    what: str
    way_out: str
    shown: Callable[[JudgeFigures], str]
    holds: Callable[[JudgeFigures], bool]


def _sure(figure: Figure, least: float = 0.0) -> bool:
    """The whole interval is above `least`."""
    return figure.low is not None and figure.low > least


def _biased(figure: Figure) -> bool:
    return abs(figure.value or 0.0) >= _NOTABLE and (_sure(figure) or (figure.high is not None and figure.high < 0))


_FINDINGS = (
    _Finding(
        "Not to be told from a coin (the interval of the accuracy holds 50%)",
        "Do not label with it: take a larger model, or more labels to see better.",
        lambda judge: percent(judge.accuracy),
        lambda judge: judge.accuracy.low is not None and judge.accuracy.low <= 0.5 <= (judge.accuracy.high or 0.0),
    ),
    _Finding(
        "Wrong more often than right (the whole interval is under 50%)",
        "Look at what it says before you turn it round: labels may be swapped, or winners in the order shown.",
        lambda judge: percent(judge.accuracy),
        lambda judge: judge.accuracy.high is not None and judge.accuracy.high < 0.5,
    ),
    _Finding(
        "No better than taking the longer response",
        "Its agreement may be a taste for length: audit it on items where the shorter one is better.",
        lambda judge: percent(judge.accuracy),
        lambda judge: (
            judge.accuracy.value is not None
            and judge.longer_is_better.value is not None
            and judge.accuracy.value <= judge.longer_is_better.value
        ),
    ),
    _Finding(
        "Prefers a position",
        "Both orders cancel it out on average; verdicts that change with the order are best left out "
        "(export.require_consistent).",
        lambda judge: points(judge.position_bias),
        lambda judge: _biased(judge.position_bias),
    ),
    _Finding(
        "Prefers the longer response more, or less, often than people do",
        "Cap the difference of lengths in the pairs, or say in the principle that length is no merit.",
        lambda judge: points(judge.length_bias),
        lambda judge: _biased(judge.length_bias),
    ),
    _Finding(
        "Prefers its own responses more, or less, often than people do",
        "Take a judge of another family than the generators.",
        lambda judge: points(judge.self_preference),
        lambda judge: _biased(judge.self_preference),
    ),
    _Finding(
        "Surer than it is right",
        "Do not take its p for a probability: choose a threshold by the curve of accuracy over coverage.",
        lambda judge: points(judge.overconfidence),
        lambda judge: _biased(judge.overconfidence) and (judge.overconfidence.value or 0.0) > 0,
    ),
    _Finding(
        "Gives no usable answer to more than one item in twenty",
        "Read its replies; a shorter prompt, another template or more tokens may help.",
        lambda judge: _plain(judge.usable),
        lambda judge: judge.usable.value is not None and judge.usable.value < 1 - _NOTABLE,
    ),
)


def _panel_notes(panel: PanelFigures) -> Iterable[str]:
    ways = {combination.method: combination.accuracy for combination in panel.combinations}
    if ways:
        of = max(figure.n for figure in ways.values())
        found = "; ".join(f"{_WAYS[way]} {percent(ways[way])}{_fewer(ways[way], of)}" for way in ways)
        best = max((way for way in ways if ways[way].n == of), key=lambda way: ways[way].value or 0.0)
        yield f"Right together: {found}. {_ADVICE.get(best, '')}".strip()
    if ways and "weighted" not in ways:
        yield f"Fewer than {LEAST_GOLD} labels: the judges' votes count the same (export.panel: majority)."
    copies = [
        f"{' and '.join(map(code, pair.judges))} ({pair.correlation:.2f})" for pair in panel.alike if _copies(pair)
    ]
    if copies:
        yield f"They err on the same items, and are one vote rather than two: {_listed(copies)}."
    unneeded = [spare.judge for spare in panel.spare if spare.changes is not None and spare.changes < _HARDLY]
    if unneeded and len(unneeded) < len(panel.spare):
        yield f"Leaving out one of these changes under {_HARDLY:.0%} of the majority's winners: {_named(unneeded)}."
    for strengths in panel.strengths:
        if len(strengths.components) > 1:
            yield (
                f"Not all generators met, not even by way of others: {len(strengths.components)} groups, whose "
                f"strengths by {strengths.source} cannot be compared."
            )


_HARDLY = 0.01


def _copies(pair: Alike) -> bool:
    return pair.correlation > 0.8 and pair.n >= LEAST_GOLD


def _fewer(figure: Figure, of: int) -> str:
    return f" of the {figure.n:,} items it judged" if figure.n < of else ""


_WAYS = {
    "mean": "mean probability",
    "majority": "majority",
    "weighted": "weighted by labels",
    "best": "best alone",
    "dawid_skene": "Dawid-Skene (without labels)",
}
_ADVICE = {
    "weighted": "Weigh them: `weights` in audit.json is what export.weights takes.",
    "best": "The best judge alone is as good as the panel, and cheaper.",
}


def _named(names: Iterable[str]) -> str:
    return _listed([code(name) for name in names])


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - _FEW_NAMES
    return ", ".join(texts) if more <= 1 else f"{', '.join(texts[:_FEW_NAMES])} and {more} more"


# --- figures as text ---


def percent(figure: Figure) -> str:
    """80.0% [71, 87]: the value and its 95% interval."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    return f"{figure.value:.1%} [{100 * figure.low:.0f}, {100 * figure.high:.0f}]"


def decimal(figure: Figure, digits: int = 2) -> str:
    """0.60 [0.44, 0.73]."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    return f"{figure.value:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def points(figure: Figure) -> str:
    """A difference in percentage points, with a star where its interval does not hold 0."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    return f"{100 * figure.value:+.1f}{'*' if figure.low > 0 or figure.high < 0 else ''}"


def spread(figure: Figure) -> str:
    """+3.0 [-1.2, +7.1]: a difference in percentage points."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    return f"{100 * figure.value:+.1f} [{100 * figure.low:+.1f}, {100 * figure.high:+.1f}]"


def _plain(figure: Figure, form: str = ".0%") -> str:
    return "" if figure.value is None else format(figure.value, form)


def _maybe(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


Column = tuple[str, Callable[[JudgeFigures], str]]

# What every judge is told by. A column that is empty for all is left out.
COLUMNS: tuple[Column, ...] = (
    ("judge", lambda judge: judge.judge),
    ("labels", lambda judge: f"{judge.accuracy.n:,}"),
    ("right", lambda judge: percent(judge.accuracy)),
    ("kappa", lambda judge: decimal(judge.kappa)),
    ("same winner", lambda judge: _plain(judge.consistency)),
    ("then right", lambda judge: _plain(judge.accuracy_consistent, ".1%")),
    ("first", lambda judge: points(judge.position_bias)),
    ("longer", lambda judge: points(judge.length_bias)),
    ("own", lambda judge: points(judge.self_preference)),
    ("ECE", lambda judge: _maybe(judge.ece, ".2f")),
    ("no answer", lambda judge: "" if judge.usable.value is None else f"{1 - judge.usable.value:.0%}"),
)
MORE_COLUMNS: tuple[Column, ...] = (
    ("one order", lambda judge: percent(judge.accuracy_one_order)),
    ("the longer one", lambda judge: percent(judge.longer_is_better)),
    ("Brier", lambda judge: _plain(judge.brier, ".3f")),
    ("too sure", lambda judge: points(judge.overconfidence)),
    ("refused", lambda judge: _plain(judge.refused)),
    ("undecided", lambda judge: _plain(judge.undecided)),
    ("USD a label", lambda judge: _maybe(judge.cost_per_label, ".2g")),
)


def rows(judges: Sequence[JudgeFigures], columns: Sequence[Column] = COLUMNS) -> tuple[list[str], list[list[str]]]:
    """The head of a table, and a row for each judge."""
    filled = [(name, [cell(judge) for judge in judges]) for name, cell in columns]
    shown = [(name, cells) for name, cells in filled if any(cells)]
    return [name for name, _ in shown], [[cells[i] for _, cells in shown] for i in range(len(judges))]
