"""A training's curves, plots/*.png: what it logged as points, smoothed as a line, its warnings marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.store import write_whole
from rlaif.train.health import figure
from rlaif.train.lines import Line, read

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = "plots"
_LEAD = 5  # points that are shown without a line: fewer are no course


@dataclass(frozen=True, slots=True)
class Family:
    """One picture: `curves` are figures of metrics.jsonl and their names in it, `warnings` those that are marked."""

    title: str
    curves: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()
    level: tuple[float, str] | None = None  # a line across, where the figure says nothing
    log: bool = False


FAMILIES = {
    "loss": Family("loss", (("loss", "training"), ("eval_loss", "test rows")), ("plateau", "overfitting")),
    "reward": Family(
        "reward of the responses",
        (("reward", "mean"), ("reward_std", "spread in a group"), ("ensemble/spread", "disagreement of the ensemble")),
    ),
    "margin": Family(
        "reward margin, chosen over rejected",
        (("margin", "margin"), ("rewards/chosen", "chosen"), ("rewards/rejected", "rejected"),
         ("eval_rewards/margins", "margin, test rows"), ("eval_margin", "margin, test rows")),
        ("margin",),
    ),
    "accuracy": Family(
        "share of pairs told apart",
        (("accuracy", "training"), ("eval_rewards/accuracies", "test rows"), ("eval_accuracy", "test rows")),
        ("accuracy",),
        level=(0.5, "chance"),
    ),
    "tokens": Family(
        "share of tokens foretold",
        (("mean_token_accuracy", "training"), ("eval_mean_token_accuracy", "test rows")),
    ),
    "kl": Family("nats a response from the reference", (("drift", "KL, or what stands for it"),), ("drift",)),
    "length": Family(
        "tokens of a response",
        (("length", "mean"), ("completions/min_length", "shortest"), ("completions/max_length", "longest")),
        ("length", "cut_off"),
    ),
    "gradient": Family("norm of the gradient", (("grad_norm", "norm"),), ("gradient", "not_a_number"), log=True),
    "beta": Family("beta", (("beta", "beta"),)),
}  # fmt: skip


def draw(folder: Path) -> list[Path]:
    """Those that there are figures for. None where matplotlib is missing, which the caller may say."""
    if not find_spec("matplotlib"):
        return []
    lines = read(folder)
    written = []
    for name, family in FAMILIES.items():
        curves = {label: points for key, label in family.curves if len(points := _points(lines, key)) > 1}
        steady = name == "beta" and len({value for _, value in next(iter(curves.values()), [])}) < 2
        if curves and not steady:
            (folder / FOLDER).mkdir(exist_ok=True)
            written.append(folder / FOLDER / f"{name}.png")
            write_whole(written[-1], picture(family, curves, _warned(lines, family)))
    return written


_Points = list[tuple[int, float]]  # (step, value)


def _points(lines: Iterable[Line], name: str) -> _Points:
    return [(line["step"], value) for line in lines if (value := figure(line, name)) is not None]


def _warned(lines: Iterable[Line], family: Family) -> list[int]:
    """The steps."""
    return [w["step"] for line in lines for w in line.get("warnings", ()) if w["name"] in family.warnings]


def picture(family: Family, curves: dict[str, _Points], warned: Sequence[int]) -> bytes:
    """A PNG."""
    from matplotlib.ticker import MaxNLocator

    from rlaif.plotting import COLOURS, GREY, LIGHT, as_png, new_drawing  # half a second

    drawing = new_drawing(5.6, 2.5, left=0.65, bottom=0.5, top=0.5)
    axes = drawing.add_subplot()
    for (label, points), colour in zip(curves.items(), COLOURS, strict=False):
        _curve(axes, label, points, colour)
    if family.level is not None:
        axes.axhline(family.level[0], color=GREY, linestyle=":", linewidth=1, label=family.level[1])
    for i, step in enumerate(warned):
        axes.axvline(step, color=COLOURS[1], linestyle="--", linewidth=1.5, label="" if i else "warning")
    if family.log and all(value > 0 for points in curves.values() for _, value in points):
        axes.set_yscale("log")
    axes.set_xlabel("step", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    several = len(axes.get_legend_handles_labels()[0]) > 1
    axes.set_title(family.title, fontsize=10, loc="left", pad=18 if several else 6)
    axes.grid(color=LIGHT)
    if several:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, frameon=False, fontsize=8, borderaxespad=0.2)
    return as_png(drawing, [axes])


def _curve(axes: Axes, label: str, points: _Points, colour: str) -> None:
    steps, values = zip(*points, strict=True)
    if len(points) < _LEAD:
        axes.plot(steps, values, "o-", color=colour, markersize=4, linewidth=1.5, label=label)
        return
    axes.plot(steps, values, ".", color=colour, alpha=0.3, markersize=3)
    edge = len(values) // 40  # too few on both sides for a mean: one small batch would bend the line's end
    within = slice(edge, len(values) - edge)
    axes.plot(steps[within], smoothed(values)[within], color=colour, linewidth=1.5, label=label)


def smoothed(values: Sequence[float]) -> list[float]:
    """Means over about a tenth of the values around each; at the ends over as many as there are on both sides."""
    half = len(values) // 20
    means = []
    for i in range(len(values)):
        reach = min(half, i, len(values) - 1 - i)
        some = values[i - reach : i + reach + 1]
        means.append(sum(some) / len(some))
    return means
