"""A report as one HTML page that loads nothing and runs nothing; texts of the data are escaped, they are anyone's."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from rlaif.lint.findings import Sides
from rlaif.lint.report import Histogram, Report
from rlaif.lint.rules import FORMATS, LEVELS
from rlaif.lint.text import interval, numbers, place, scope
from rlaif.version import __version__


def page(report: Report) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["visible"] = visible
    environment.filters["marked"] = marked
    template = environment.from_string(Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        levels=LEVELS,
        drawn=drawn,
        interval=interval,
        numbers=numbers,
        place=place,
        scope=scope,
        version=__version__,
        written=written,
    )


def visible(text: str) -> str:
    """What would reverse, hide or break the text around it is spelled out."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def marked(text: str) -> Markup:
    """Our own words: what stands in backticks is code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def written(report: Report) -> list[tuple[str, Sides]]:
    return [("a refusal", report.refusals), *((name, report.formats[fact]) for fact, name in FORMATS.items())]


_WIDTH, _HEIGHT, _FOOT = 720, 170, 22


def drawn(histogram: Histogram) -> Markup:
    """Both sides' shares of rows by length, as steps."""
    bins = len(histogram.chosen)
    totals = [max(sum(side), 1) for side in (histogram.chosen, histogram.rejected)]
    shares = [
        [n / total for n in side] for side, total in zip((histogram.chosen, histogram.rejected), totals, strict=True)
    ]
    top = max(map(max, shares)) or 1.0
    step = _WIDTH / bins
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" role="img" aria-label="Histogram of lengths in characters">'
    ]
    for side, values in zip("cr", shares, strict=True):
        if any(values):
            points = [f"M0,{_HEIGHT}"]
            for i, value in enumerate(values):
                y = _HEIGHT - value / top * (_HEIGHT - 6)
                points.append(f"L{i * step:.1f},{y:.1f} L{(i + 1) * step:.1f},{y:.1f}")
            parts.append(f'<path class="area-{side}" d="{" ".join(points)} L{_WIDTH},{_HEIGHT} Z"/>')
    parts.append(f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>')
    for i in range(0, bins + 1, bins // 4):
        anchor = "start" if i == 0 else "end" if i == bins else "middle"
        label = f"{i * histogram.width:,}" + ("+ characters" if i == bins else "")
        parts.append(f'<text x="{i * step:.1f}" y="{_HEIGHT + 16}" text-anchor="{anchor}">{label}</text>')
    return Markup("".join([*parts, "</svg>"]))  # numbers only
