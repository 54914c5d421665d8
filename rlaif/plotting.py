"""How our pictures look: colours, names as labels, and a drawing of given inches as a PNG; needs matplotlib."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MultipleLocator, PercentFormatter

from rlaif.figures import Bin

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY, LIGHT = "#8c8c8c", "#e5e5e5"
_DPI = 100
_LONGEST = 36  # characters of a name


def short_name(name: str) -> str:
    """As it stands, of a bounded width: no formula between dollar signs, and in a legend despite an underscore."""
    name = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    return ("\u200b" if name.startswith("_") else "") + name.replace("$", r"\$")


def name_width(names: Iterable[str]) -> float:
    """Inches that names of 8 points take, roughly: matplotlib's own layout draws everything three times to know."""
    return 0.2 + 0.075 * max(map(len, names))


def new_drawing(
    width: float, height: float, *, left: float, bottom: float, right: float = 0.15, top: float = 0.15
) -> Drawing:
    """Inches of the axes, and around them."""
    w, h = left + width + right, bottom + height + top
    drawing = Drawing(figsize=(w, h))
    drawing.subplots_adjust(left=left / w, right=1 - right / w, bottom=bottom / h, top=1 - top / h)
    return drawing


def as_percent(*axes: Axis) -> None:
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1.0))


def as_png(drawing: Drawing, panels: Sequence[Axes] = ()) -> bytes:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
    file = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font has not
        drawing.savefig(file, dpi=_DPI, pil_kwargs={"compress_level": 3})
    return file.getvalue()


def reliability_panels(shown: Sequence[tuple[str, Sequence[Bin]]], sure_of: str) -> bytes:
    """How often somebody is right against how sure they are, a panel each (title, bins); under the line: too sure."""
    columns = 2 if len(shown) in (2, 4) else min(3, len(shown))
    height = -(-len(shown) // columns)
    drawing = new_drawing(2.5 * columns, 2.6 * height, left=0.7, bottom=0.5, top=0.4)
    drawing.subplots_adjust(wspace=0.12, hspace=0.35)
    panels: list[Axes] = list(drawing.subplots(height, columns, sharex=True, sharey=True, squeeze=False).flat)
    for i, (axes, (title, bins)) in enumerate(zip(panels, shown, strict=False)):
        sure, right, n = (np.array(column) for column in zip(*map(astuple, bins), strict=True))
        axes.plot([0.5, 1], [0.5, 1], color=GREY, linewidth=1)
        axes.vlines(sure, right, sure, color=LIGHT)
        axes.scatter(sure, right, s=12 + 60 * n / n.max(), color=COLOURS[0], zorder=3, clip_on=False)
        axes.set_title(title, fontsize=8)
        axes.set_xlim(0.48, 1.02)
        axes.xaxis.set_major_locator(MultipleLocator(0.25))
        as_percent(axes.xaxis, axes.yaxis)
        if i + columns >= len(shown):  # nothing below it, or an empty place
            axes.tick_params(labelbottom=True)
    for axes in panels[len(shown) :]:
        axes.remove()
    drawing.supxlabel(sure_of, fontsize=9)
    drawing.supylabel("how often it is right", fontsize=9)
    return as_png(drawing, panels[: len(shown)])
