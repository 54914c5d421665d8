"""What is still to be asked, as a table: calls, tokens and cost by stage and model."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from rlaif.cli.progress import clock
from rlaif.cli.text import said
from rlaif.estimate import Estimate, Range
from rlaif.prices import dollars


def show_estimate(console: Console, estimate: Estimate) -> None:
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_footer=len(estimate.lines) > 1)
    rows.add_column("stage", "all", no_wrap=True)
    rows.add_column("model", overflow="ellipsis", min_width=6, max_width=32)  # gives way to the numbers
    sums = {
        "calls": f"{estimate.calls:,}",
        "journal": f"{estimate.from_journal:,}",
        "tokens in": _tokens(estimate.prompt_tokens),
        "out": _tokens(estimate.completion_tokens),
        "USD": _usd(estimate.cost_usd),
    }
    if not estimate.from_journal:
        del sums["journal"]
    for name, total in sums.items():
        rows.add_column(name, total, justify="right", no_wrap=True)
    for line in estimate.lines:
        numbers = {
            "calls": f"{line.calls:,}",
            "journal": f"{line.from_journal:,}",
            "tokens in": _tokens(line.prompt_tokens),
            "out": _tokens(line.completion_tokens),
            "USD": _usd(line.cost_usd),
        }
        rows.add_row(line.stage, said(line.model.rpartition("/")[2]), *(numbers[name] for name in sums))
    console.print(rows)
    if estimate.unpriced:
        known = estimate.priced_usd
        rest = f"; the others: {_usd(known)} USD" if known.high else ""
        names = ", ".join(estimate.unpriced)
        console.print(said(f"unknown: the price of {names}{rest}"))
        console.print("give it in the model's settings, in USD per million tokens, or with --set prices=FILE")
    if estimate.unmeasured:
        console.print(f"not in it, answered by the journal: {', '.join(estimate.unmeasured)}")
    if (time_s := estimate.time_s) is not None:
        console.print(f"time: {clock(time_s.low)} to {clock(time_s.high)}")


def _tokens(count: Range) -> str:
    return _from_to(_short(count.low), _short(count.high))


def _usd(usd: Range | None) -> str:
    return "unknown" if usd is None else "0" if not usd.high else _from_to(dollars(usd.low), dollars(usd.high))


def _from_to(low: str, high: str) -> str:
    return low if low == high else f"{low} - {high}"


def _short(count: float) -> str:
    """Three digits say enough of what is not known better."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.{0 if count >= 100 * size else 1}f}{unit}"
    return f"{count:.0f}"
