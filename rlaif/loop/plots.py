"""A loop's picture: what was measured of each round's model, with its intervals."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

from rlaif.loop.evaluation import Rate
from rlaif.loop.report import Round
from rlaif.plotting import COLOURS, GREY, LIGHT, as_percent, as_png, new_drawing

_MARKERS = "os^D"
_APART = 0.04  # rounds between the marks of two lines, so that their intervals do not lie on each other


def rates(rounds: Sequence[Round]) -> bytes:
    """PNG. Round 0 is the first model; a hollow mark is a model that was not taken."""
    drawing = new_drawing(5.6, 2.8, left=0.6, bottom=0.5, top=0.5)
    axes = drawing.add_subplot()
    taken = {found.number: found.promoted for found in rounds}
    lines = {name: points for name, points in _lines(rounds).items() if points}
    if any(name.startswith("wins") for name in lines):
        axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1)
    for i, (name, points) in enumerate(lines.items()):
        at = [number + _APART * (i - (len(lines) - 1) / 2) for number, _ in points]
        values, lows, highs = zip(*(_ends(rate) for _, rate in points), strict=True)
        axes.vlines(at, lows, highs, color=COLOURS[i], linewidth=1)
        axes.plot(at, values, color=COLOURS[i], linewidth=1.5)
        for x, value, (number, _) in zip(at, values, points, strict=True):
            face = COLOURS[i] if taken.get(number, True) else "white"
            axes.plot([x], [value], _MARKERS[i], color=COLOURS[i], markerfacecolor=face, markersize=5.5)
        axes.plot([], [], f"{_MARKERS[i]}-", color=COLOURS[i], markersize=5.5, label=name)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(-0.3, max(taken) + 0.3)
    as_percent(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("round (0: the first model)", fontsize=9)
    axes.grid(axis="y", color=LIGHT)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8)
    return as_png(drawing, [axes])


def _lines(rounds: Sequence[Round]) -> dict[str, list[tuple[int, Rate]]]:
    """(round, rate) by what was measured; the first model's as it was measured beside the last round's."""
    of_first = rounds[-1].measured.get("first")
    lines: dict[str, list[tuple[int, Rate]]] = {}
    for label, name in (("harmful compliance", "harmful_compliance"), ("over-refusal", "over_refusal")):
        measured = [(0, of_first), *((found.number, found.measured.get("new")) for found in rounds)]
        points = [(number, None if model is None else getattr(model, name)) for number, model in measured]
        lines[label] = [(number, rate) for number, rate in points if rate is not None and rate.value is not None]
    for label, name in (("wins against the last", "win_rate_last"), ("wins against the first", "win_rate_first")):
        wins = [(found.number, getattr(found, name)) for found in rounds]
        lines[label] = [(number, rate) for number, rate in wins if rate is not None and rate.value is not None]
    return lines


def _ends(rate: Rate) -> tuple[float, float, float]:
    assert rate.value is not None
    low, high = (rate.value if end is None else end for end in (rate.low, rate.high))
    return rate.value, low, high
