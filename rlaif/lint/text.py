"""A report as lines for a terminal of a given width, each with its style."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from rlaif.lint.findings import Finding, Share, Sides
from rlaif.lint.report import Report
from rlaif.lint.rules import FORMATS, LEVELS, Level

Line = tuple[str, str]  # the text, and a style of rich

STYLES: dict[Level, str] = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_INDENT = 9


def lines(report: Report, width: int) -> Iterator[Line]:
    for text in head(report):
        yield from ((line, "") for line in wrap(text, width))
    yield "", ""
    table = figures(report)
    names = max(len(row[0]) for row in table)
    for i, (name, chosen, rejected, told) in enumerate(table):
        line = f"{name:{names}}  {chosen:>8}  {rejected:>8}   {told}"
        yield line[:width].rstrip(), "bold" if not i else ""
    for finding in report.findings:
        yield "", ""
        yield from _finding(finding, width)
    yield "", ""
    for text, style in (verdict(report), (scope(report), "dim")):
        yield from ((line, style) for line in wrap(text, width))


def head(report: Report) -> list[str]:
    splits = ", ".join(f"{name} {n:,}" for name, n in report.splits.items())
    config = f" ({report.config})" if report.config else ""
    takes = f"taken by {', '.join(report.trainers)}" if report.trainers else "taken by no trainer as it is"
    return [
        f"{report.source}{config}: {counted(report.rows, 'row')}: {splits}",
        f"{report.shape}; {takes} ({report.trl})",
    ]


def figures(report: Report) -> list[tuple[str, str, str, str]]:
    """The head of a table and its rows: what, chosen, rejected, what tells them apart."""
    pairs = bool(report.pairs)
    lengths = report.lengths
    rows = [("", "chosen", "rejected", "chosen has it, where one has") if pairs else ("", "good", "bad", "")]
    longer = "" if lengths.longer is None else f"the longer one in {interval(lengths.longer)}"
    auc = "" if lengths.auc is None else f"AUC of length {lengths.auc:.3f}"
    rows.append(("characters, mean", _mean(lengths.mean_chosen), _mean(lengths.mean_rejected), longer or auc))
    if longer:
        rows.append(("", "", "", f"{auc} over all rows"))
    found = [("refusals", report.refusals), *((FORMATS[fact], report.formats[fact]) for fact in FORMATS)]
    rows += [(name, _percent(one.chosen), _percent(one.rejected), _told(one)) for name, one in found if _any(one)]
    return rows


def verdict(report: Report) -> tuple[str, str]:
    counts = [(level, report.count(level)) for level in LEVELS]
    said = ", ".join(counted(n, level) for level, n in counts if n)
    if not said:
        return "clean: no rule found anything", "bold green"
    return said, STYLES[next(level for level, n in counts if n)] if report.worst != "note" else "bold green"


def place(finding: Finding) -> str:
    return ", ".join(row.place + (f" (like {row.like})" if row.like else "") for row in finding.rows)


def numbers(finding: Finding) -> str:
    if finding.rule in ("length_bias", "format_bias", "class_balance", "category_balance"):
        return finding.detail
    share = interval(finding.share) if finding.estimate else _small(finding.share.value)
    of = f"{finding.count:,} of {finding.n:,} rows, {share}"
    if finding.estimate:
        of += ", of a sample"
    return f"{of} ({finding.detail})" if finding.detail else of


def interval(share: Share) -> str:
    """62.5% [57, 67]: the value and its 95% interval."""
    return f"{share.value:.1%} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _finding(finding: Finding, width: int) -> Iterator[Line]:
    first = wrap(f"{finding.rule}: {finding.what}", max(width - _INDENT, 20))
    for i, line in enumerate(first):
        yield f"{'' if i else finding.level:<{_INDENT}}{line}", STYLES[finding.level]
    rows = place(finding)
    texts = [(numbers(finding), ""), (rows, "dim"), (finding.why, ""), (f"-> {finding.way_out}", "")]
    for text, style in texts:
        if text not in ("", "-> "):
            yield from ((" " * _INDENT + line, style) for line in wrap(text, max(width - _INDENT, 20)))


def scope(report: Report) -> str:
    said = counted(len(report.rules), "rule")
    if report.looked < report.rows:
        said += f"; refusals and repetition: a sample of {report.looked:,} rows"
    if report.near:
        said += f"; near duplicates: the first {report.near:,} rows"
    return f"{said}; [ ] holds 95% intervals; 'train row 17' is the 17th row of that split"


def _mean(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _percent(share: Share | None) -> str:
    return "-" if share is None else f"{share.value:.1%}"


def _small(value: float) -> str:
    return "under 0.1%" if 0 < value < 0.001 else f"{value:.1%}"


def _told(found: Sides) -> str:
    return "" if found.telling is None else f"{interval(found.telling)} of {found.telling.n:,}"


def _any(found: Sides) -> bool:
    return any(share is not None and share.value for share in (found.chosen, found.rejected))
