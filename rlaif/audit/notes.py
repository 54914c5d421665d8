"""What stands out in an audit, in words, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rlaif.audit.measures import JudgeFigures
from rlaif.audit.panels import Alike, PanelFigures
from rlaif.audit.table import Judged
from rlaif.export.card import code
from rlaif.figures import Figure, percent, points
from rlaif.panel import LEAST_GOLD

# A bias under so many points is not worth a note, however certain it is.
_NOTABLE = 0.05
_FEW_NAMES = 4


def notes_of(
    labelled: int, judges: Sequence[JudgeFigures], judged: Sequence[Judged], panel: PanelFigures
) -> Iterable[str]:
    """What stands out, and what to do about it; at most one note of a kind."""
    if not labelled:
        yield "No item has a label: nothing here says whether a judge is right. Label some: rlaif label RUN."
    elif labelled < LEAST_GOLD:
        labels = "1 label" if labelled == 1 else f"{labelled} labels"
        yield f"Only {labels}: the intervals say how little that proves, and no judge is weighed by so few."
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
        lambda judge: f"{1 - (judge.usable.value or 0.0):.0%} without",
        lambda judge: judge.usable.value is not None and judge.usable.value < 1 - _NOTABLE,
    ),
)


def _panel_notes(panel: PanelFigures) -> Iterable[str]:
    ways = {combination.method: combination.accuracy for combination in panel.combinations}
    if ways:
        of = max(figure.n for figure in ways.values())
        found = "; ".join(f"{WAYS[way]} {percent(ways[way])}{_fewer(ways[way], of)}" for way in ways)
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


WAYS = {
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
