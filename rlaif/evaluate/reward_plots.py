"""Pictures of reward models: how often they are right for how sure they are, and for how much longer an answer is."""

from __future__ import annotations

import numpy as np

from rlaif.evaluate.reward_figures import Evaluation
from rlaif.figures import Figure
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


def reward_plots(found: Evaluation) -> dict[str, bytes]:
    """Name -> PNG; of many models the first few."""
    pictures = {"accuracy.png": accuracies(found)}
    if any(one.calibration for one in found.models):
        pictures["reliability.png"] = reliability(found)
    return pictures


def accuracies(found: Evaluation) -> bytes:
    """Each model's accuracy on all pairs, on those where the better answer is longer, and where it is shorter."""
    models = list(found.models)[::-1]
    names = [short_name(one.model) for one in models]
    drawing = new_drawing(5.3, 0.5 + 0.4 * len(models), left=name_width(names), bottom=0.5, top=0.3)
    axes = drawing.add_subplot()
    axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
    rows = np.arange(len(models), dtype=np.float64)
    parts: list[tuple[str, list[Figure], float, str, str]] = [
        ("all pairs", [one.accuracy for one in models], 0.2, COLOURS[0], "o"),
        ("the better one is longer", [one.length.accuracy_longer for one in models], 0.0, COLOURS[1], ">"),
        ("it is shorter", [one.length.accuracy_shorter for one in models], -0.2, COLOURS[2], "<"),
    ]
    for name, figures, above, colour, marker in parts:
        values, low, high = (
            np.array([np.nan if v is None else v for v in column])
            for column in zip(*((one.value, one.low, one.high) for one in figures), strict=True)
        )
        if np.isnan(values).all():
            continue
        axes.hlines(rows + above, low, high, color=colour, linewidth=1.3)
        axes.plot(values, rows + above, marker, color=colour, markersize=4.5, label=name)
    axes.set_yticks(rows, names)
    axes.set_ylim(-0.6, len(models) - 0.4)
    as_percent(axes.xaxis)
    axes.set_xlabel("right, with 95% intervals", fontsize=9)
    axes.grid(axis="x", color=LIGHT)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8, borderaxespad=0.2)
    return as_png(drawing, [axes])


def reliability(found: Evaluation) -> bytes:
    shown = [
        (f"{short_name(one.model)}\nECE {one.ece:.3f}, n = {one.pairs:,}", one.calibration)
        for one in found.models
        if one.calibration
    ][: len(COLOURS)]
    return reliability_panels(shown, "how sure the model is: sigmoid of the difference")
