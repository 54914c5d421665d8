"""An audit's pictures: how good each judge is, how well it knows that, and which judges say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rlaif.audit.measures import JudgeFigures, Point
from rlaif.audit.panels import Agreement, PanelFigures
from rlaif.plotting import (
    COLOURS,
    GREY,
    LIGHT,
    as_percent,
    as_png,
    name_width,
    new_drawing,
    reliability_panels,
    short_name,
)

FEW = len(COLOURS)  # more judges in one picture hide each other
_MARKERS, _MARKED = "os^Dvp", 10  # points of a curve that are marked
_STEADY = 20  # verdicts; the accuracy of fewer jumps about
_LARGEST = 10.0  # inches of a heat map
_MOST = 100  # judges in one picture
_NAMED, _WRITTEN = 70, 12  # rows of a heat map that have their names, and numbers in them


NAMES = ("accuracy.png", "reliability.png", "coverage.png", "judges.png", "people.png")


def plots(
    judges: Sequence[JudgeFigures], curves: Mapping[str, Sequence[Point]], panel: PanelFigures
) -> Iterator[tuple[str, bytes]]:
    """(one of NAMES, PNG) for each picture that there are figures for; of many judges, the first ones."""
    if any(judge.accuracy.n for judge in judges):
        yield "accuracy.png", accuracies(judges)
    # Verdicts without probabilities are either sure or, where the orders disagree, right half the time by definition.
    if graded := [judge for judge in judges if len(judge.calibration) > 2]:
        yield "reliability.png", reliability(graded)
    steady = {j.judge: [point for point in curves[j.judge] if point.accuracy.n >= _STEADY] for j in judges}
    if several := {name: points for name, points in steady.items() if len(points) > 1}:
        yield "coverage.png", coverage(several)
    for name, raters in (("judges.png", panel.judges), ("people.png", panel.annotators)):
        if raters is not None:
            yield name, kappas(raters)


def accuracies(judges: Sequence[JudgeFigures]) -> bytes:
    """Each judge's accuracy with its interval, the best on top, beside that of taking the longer response."""
    known = sorted((j for j in judges if j.accuracy.value is not None), key=lambda j: j.accuracy.value or 0.0)[-_MOST:]
    values, lows, highs, longer = (
        np.array([np.nan if v is None else v for v in column])
        for column in zip(
            *((j.accuracy.value, j.accuracy.low, j.accuracy.high, j.longer_is_better.value) for j in known), strict=True
        )
    )
    names = [short_name(judge.judge) for judge in known]
    drawing = new_drawing(5.3, 0.4 + 0.22 * len(known), left=name_width(names), bottom=0.5, top=0.3)
    axes = drawing.add_subplot()
    rows = np.arange(len(known))
    axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1, label="chance")
    axes.hlines(rows, lows, highs, color=COLOURS[0], linewidth=1.5)
    axes.plot(values, rows, "o", color=COLOURS[0], markersize=4.5, label="judge, with its 95% interval")
    if not np.isnan(longer).all():
        axes.plot(longer, rows, "|", color=COLOURS[1], markersize=9, markeredgewidth=2, label="the longer response")
    axes.set_yticks(rows, names)
    axes.set_ylim(-0.7, len(known) - 0.3)
    as_percent(axes.xaxis)
    axes.set_xlabel("right by people's labels", fontsize=9)
    axes.grid(axis="x", color=LIGHT)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8, borderaxespad=0.2)
    return as_png(drawing, [axes])


def coverage(curves: Mapping[str, Sequence[Point]]) -> bytes:
    """Accuracy of a judge's surest verdicts against the share of all that they are, for the first few judges."""
    shown = dict(list(curves.items())[:FEW])
    drawing = new_drawing(5.3, 3.6, left=0.7, bottom=0.5, right=0.5 + name_width(map(short_name, shown)))
    axes = drawing.add_subplot()
    for (name, points), colour, marker in zip(shown.items(), COLOURS, _MARKERS, strict=False):
        sure, right = zip(*((point.coverage, point.accuracy.value) for point in points), strict=True)
        few = len(points) <= _MARKED
        mark = marker if few else None
        axes.plot(sure, right, color=colour, marker=mark, markersize=5, linewidth=1.5, label=short_name(name))
    axes.set_xlim(right=1.01)
    as_percent(axes.xaxis, axes.yaxis)
    axes.set_xlabel("share of the verdicts that are kept, the surest first", fontsize=9)
    axes.set_ylabel("right by people's labels", fontsize=9)
    axes.grid(color=LIGHT)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return as_png(drawing, [axes])


def kappas(agreement: Agreement) -> bytes:
    """Cohen's kappa of every two raters; white where they share no items."""
    names, n = [short_name(rater) for rater in agreement.raters], len(agreement.raters)
    matrix = np.array(agreement.kappas, dtype=np.float64)  # None becomes nan
    few = n <= _WRITTEN
    side = min(0.8 + (0.5 if few else 0.15) * n, _LARGEST)
    room = name_width(names) if n <= _NAMED else 0.3
    drawing = new_drawing(side, side, left=room, bottom=room if few else 0.4, right=0.9)
    axes = drawing.add_subplot()
    lowest = float(np.nanmin(matrix, initial=0.0))
    image = axes.imshow(matrix, cmap="cividis", vmin=lowest, vmax=1.0)
    axes.set_yticks(range(n), names) if n <= _NAMED else axes.set_yticks([])
    axes.set_xticks(range(n), names, rotation=90) if few else axes.set_xticks([])
    if few:
        for (row, column), value in np.ndenumerate(matrix):
            if not np.isnan(value):
                dark = value - lowest > 0.6 * (1 - lowest)
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color="k" if dark else "w")
    else:
        axes.set_xlabel("the same in the same order", fontsize=9)
    axes.tick_params(length=0, labelsize=8 if few else 6)
    axes.spines[:].set_visible(False)
    bar = drawing.colorbar(image, cax=axes.inset_axes((1 + 0.15 / side, 0.2, 0.15 / side, 0.6)))
    bar.set_label("kappa", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return as_png(drawing)


def reliability(judges: Sequence[JudgeFigures]) -> bytes:
    shown = [
        (f"{short_name(judge.judge)}\nECE {judge.ece:.3f}, n = {judge.accuracy.n}", judge.calibration)
        for judge in judges[:FEW]
    ]
    return reliability_panels(shown, "how sure the judge is")
