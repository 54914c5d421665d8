"""An evaluation's pictures: each figure of each model with its 95% interval; needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from rlaif.evaluate.headtohead import HeadToHead
from rlaif.evaluate.safety import Safety
from rlaif.figures import Figure, FloatArray
from rlaif.plotting import COLOURS, GREY, LIGHT, as_percent, as_png, name_width, new_drawing, short_name

_MOST = 40  # lines of a picture


def plots(found: Safety | HeadToHead) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) for each picture that there are figures for."""
    if isinstance(found, HeadToHead):
        yield "win-rates.png", _win_rates(found)
        if found.bradley_terry:
            yield "strengths.png", _strengths(found)
        return
    names = [model.model for model in found.models]
    unsafe = [model.unsafe for model in found.models if model.unsafe]
    safe = [model.safe for model in found.models if model.safe]
    panels: dict[str, list[Figure]] = {}
    if unsafe:
        panels["harmful compliance"] = [one.harmful_compliance for one in unsafe]
    if safe:
        panels["over-refusal"] = [one.over_refusal for one in safe]
    yield "rates.png", _rates(names, panels)
    for file, title, sets in (
        ("harmful-compliance.png", "harmful compliance", [one.by_category for one in unsafe]),
        ("over-refusal.png", "over-refusal", [one.by_category for one in safe]),
    ):
        if len({name for one in sets for name in one}) > 1:
            yield file, _categories(title, names, sets)


def _rates(names: Sequence[str], panels: Mapping[str, Sequence[Figure]]) -> bytes:
    """A line for each model, in the order given; a panel for each figure."""
    shown = [short_name(name) for name in names[:_MOST]]
    drawing = new_drawing(3.2 * len(panels), 0.4 + 0.3 * len(shown), left=name_width(shown), bottom=0.5)
    drawing.subplots_adjust(wspace=0.12)
    axes: list[Axes] = list(drawing.subplots(1, len(panels), sharey=True, squeeze=False).flat)
    for one, (title, figures), colour in zip(axes, panels.items(), (COLOURS[1], COLOURS[0]), strict=False):
        _dots(one, figures[:_MOST], np.arange(len(shown), dtype=np.float64), colour)
        one.set_xlabel(title, fontsize=9)
        one.set_xlim(-0.02, 1.02)
        one.set_yticks(np.arange(len(shown)), shown)
        one.set_ylim(len(shown) - 0.4, -0.6)
    return as_png(drawing, axes)


def _categories(title: str, names: Sequence[str], sets: Sequence[Mapping[str, Figure]]) -> bytes:
    """A line for each category, with a dot for each of the first few models."""
    few = list(zip(names, sets, COLOURS, strict=False))
    categories = sorted({name for _, one, _ in few for name in one})[:_MOST]
    shown = [short_name(name) for name in categories]
    height = (0.15 + 0.14 * len(few)) * len(categories)
    drawing = new_drawing(
        5.3, 0.3 + height, left=name_width(shown), bottom=0.5, right=0.5 + name_width(short_name(n) for n in names)
    )
    axes = drawing.add_subplot()
    step = 0.6 / len(few)
    for i, (name, one, colour) in enumerate(few):
        there = [(row, one[category]) for row, category in enumerate(categories) if category in one]
        rows = np.array([row for row, _ in there]) + (i - (len(few) - 1) / 2) * step
        _dots(axes, [figure for _, figure in there], rows, colour, short_name(name))
    axes.set_yticks(np.arange(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(title, fontsize=9)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return as_png(drawing, [axes])


def _win_rates(found: HeadToHead) -> bytes:
    """Each pair's win rate as it is, and as it would be with equal lengths."""
    pairs = found.pairs[:_MOST]
    shown = [f"{short_name(one.a)} against {short_name(one.b)}" for one in pairs]
    drawing = new_drawing(5.3, 0.4 + 0.4 * len(pairs), left=name_width(shown), bottom=0.5, top=0.3)
    axes = drawing.add_subplot()
    rows = np.arange(len(pairs), dtype=np.float64)
    axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
    controlled = [
        Figure(one.value, one.low, one.high, one.n) if one else Figure(None, None, None, 0)
        for one in (pair.length_controlled_win_rate for pair in pairs)
    ]
    _dots(axes, [pair.win_rate for pair in pairs], rows - 0.12, COLOURS[0], "win rate")
    _dots(axes, controlled, rows + 0.12, COLOURS[1], "with equal lengths")
    axes.set_yticks(rows, shown)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"preferred by {short_name(found.judge)}", fontsize=9)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8, borderaxespad=0.2)
    return as_png(drawing, [axes])


def _strengths(found: HeadToHead) -> bytes:
    """The strongest on top."""
    ranked = found.bradley_terry[:_MOST]
    shown = [short_name(one.model) for one in ranked]
    drawing = new_drawing(5.3, 0.4 + 0.3 * len(ranked), left=name_width(shown), bottom=0.5)
    axes = drawing.add_subplot()
    rows = np.arange(len(ranked))
    axes.axvline(0.0, color=GREY, linestyle=":", linewidth=1)
    axes.hlines(rows, [one.low for one in ranked], [one.high for one in ranked], color=COLOURS[0], linewidth=1.5)
    axes.plot([one.strength for one in ranked], rows, "o", color=COLOURS[0], markersize=4.5)
    axes.set_yticks(rows, shown)
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xlabel("log-odds to beat the average of these models", fontsize=9)
    axes.grid(axis="x", color=LIGHT)
    return as_png(drawing, [axes])


def _dots(axes: Axes, figures: Sequence[Figure], rows: FloatArray, colour: str, label: str | None = None) -> None:
    """Those that are known, with their intervals."""
    values, lows, highs = (
        np.array([np.nan if x is None else x for x in column])
        for column in zip(*((one.value, one.low, one.high) for one in figures), strict=True)
    )
    axes.hlines(rows, lows, highs, color=colour, linewidth=1.5)
    axes.plot(values, rows, "o", color=colour, markersize=4.5, label=label)
    as_percent(axes.xaxis)
    axes.grid(axis="x", color=LIGHT)
