"""What was made of a record, as lines: its pairs and by what, or why there is none, and its rows in the dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif.export.provenance import Made, PairMade


def show_pairs(console: Console, made: Made) -> None:
    from rich.rule import Rule

    from rlaif.cli.text import said

    console.print()
    console.print(Rule(said("pairs"), align="left", style="dim"))
    for pair in made.pairs:
        console.print(said(_pair(pair)))
    for tie in made.ties:
        console.print(said(f"{_pair(tie)} (a tie: a soft label, for `preference_soft` only)"))
    if made.no_pair:
        reason = NO_PAIR.get(made.no_pair)
        console.print(said(f"no pair: {made.no_pair}" + (f" ({reason})" if reason else "")))
    elif not made.pairs:
        console.print("no pair: the record did not end well, or `export.pairs` is empty")
    rows = ", ".join(f"{name} {n}" for name, n in made.rows.items())
    console.print(said(f"rows of the dataset with this id: {rows or 'none'}", "dim"))


def _pair(made: PairMade) -> str:
    pair = made.pair
    numbers = [f"{name} = {value:.2f}" for name, value in (("p", pair.p), ("margin", pair.margin)) if value is not None]
    by = {"verdict": "verdicts", "score": "scores", "side": "side, which nobody judged"}[pair.by]
    if made.verdicts:
        by = f"{'verdict' if len(made.verdicts) == 1 else 'verdicts'} {', '.join(map(str, made.verdicts))}"
    principles = f", principles {', '.join(pair.principles)}" if pair.principles else ""
    left_out = "; left out of the dataset, by cleaning or a share" if made.exported is False else ""
    return (
        f"{pair.chosen} chosen, {pair.rejected} rejected: {pair.strategy} by {by}"
        f"{''.join(f', {number}' for number in numbers)}{principles}{left_out}"
    )


# Why a record has no pair, in words.
NO_PAIR = {
    "single_candidate": "fewer than two responses are left to compare",
    "identical": "all of them say the same",
    "no_revision": "no revision is left beside its first draft",
    "one_sided": "no strong response is left beside a weak one of its principle",
    "no_verdict": "nobody was asked to compare them",
    "unparsed": "the judge was asked and gave no usable answer",
    "unscored": "fewer than two have scores for the same aspect, or there is a quality floor and none",
    "not_implied": "no verdicts lead from the one to the other",
    "low_quality": "the rejected one is below export.quality_floor",
    "weak_preferred": "the judge prefers the response that was meant to be worse",
    "revision_not_better": "the judge does not prefer the revision",
    "tie": "the judge finds them about as good",
    "both_bad": "most judges find both bad",
    "inconsistent": "the winner changes with the order in which they are shown",
    "low_margin": "p is below export.min_p, or the margin below export.min_margin",
    "length_gap": "one is longer than the other by more than export.max_length_gap",
}
