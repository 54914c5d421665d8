"""The card's figures: what was lost on the way to a pair, what pairs are like, how far the judges can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # plain JSON

from rlaif.export.markup import code, table
from rlaif.export.mix import Mix
from rlaif.export.settings import ExportSettings, Strategy
from rlaif.export.tally import ExportSummary, JudgeStats
from rlaif.statistics import wilson


def counts(summary: ExportSummary, funnel: Mapping[str, Any], duplicates: int) -> str:
    """From prompts to rows; `funnel` is the run's, of summary.json, and may be empty."""
    rows = [("prompts", "", summary.records + duplicates), ("left out", "said before", duplicates)]
    rows += [("records", outcome, n) for outcome, n in summary.outcomes.items()]
    rows += [("responses", "", funnel.get("responses", 0)), ("of them", "revisions", funnel.get("revisions", 0))]
    rows += [("response dropped", reason, n) for reason, n in _most(funnel.get("responses_dropped", {}))]
    rows += [("verdicts", outcome, n) for outcome, n in _most(funnel.get("verdicts", {}))]
    rows += [("ratings", outcome, n) for outcome, n in _most(funnel.get("scores", {}))]
    rows += [("no pair", reason, n) for reason, n in summary.no_pair.items()]
    rows += [("pair left out", reason, n) for reason, n in summary.left_out.items()]
    rows += [("pairs", strategy, n) for strategy, n in summary.strategies.items()]
    rows += [("ties", "soft labels", summary.ties)]
    rows += [("rows", f"{config} {split}", n) for config, splits in summary.rows.items() for split, n in splits.items()]
    kept = [(what, code(name) if name else "", f"{n:,}") for what, name, n in rows if n]
    return "## From prompts to pairs\n\n" + table(("step", "which", "count"), kept, numbers=2)


def pairs(summary: ExportSummary, settings: ExportSettings, mix: Mix) -> str:
    parts = ["## Pairs\n", _rules(summary, settings)]
    if summary.pairs:
        parts.append(
            f"The chosen response is the longer one in {summary.longer_chosen:.0%} of {summary.pairs:,} pairs"
            f"{_interval(summary.longer_chosen, summary.pairs)}; mean length {summary.chosen_chars:.0f} characters "
            f"chosen, {summary.rejected_chars:.0f} rejected.\n"
        )
    if looked_at := mix.chosen.n:
        of = f"{looked_at:,} pairs" + (" looked at" if looked_at < summary.pairs else "")
        share = mix.chosen.refusals / looked_at
        parts.append(
            f"The chosen response refuses, partly or fully, in {share:.0%} of {of}{_interval(share, looked_at)}.\n"
        )
    if mix.categories:
        rows = [(code(name) if name else "(none)", f"{n:,}") for name, n in list(mix.categories.items())[:_CATEGORIES]]
        if len(mix.categories) > _CATEGORIES:
            others = sum(list(mix.categories.values())[_CATEGORIES:])
            rows.append((f"{len(mix.categories) - _CATEGORIES:,} others", f"{others:,}"))
        parts.append(table(("category", "pairs"), rows, numbers=1))
    return "\n".join(parts)


def judges(summary: ExportSummary) -> str:
    parts = ["## Judges"]
    if summary.judges:
        head = ("judge", "verdicts", "unusable", "same winner in both orders", "position bias")
        parts.append(table(head, (_judge(name, stats) for name, stats in summary.judges.items()), numbers=1).rstrip())
        parts.append(
            "In records that ended well. Position bias is P(the response shown first wins) - 0.5; intervals are 95%."
        )
    else:
        parts.append("No two responses were compared.")
    for name, (asked, none) in summary.raters.items():
        parts.append(f"{code(name)} rated single responses {asked:,} times; {none:,} ratings were unusable.")
    return "\n\n".join(parts) + "\n"


_CATEGORIES = 30


def _most(found: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _rules(summary: ExportSummary, settings: ExportSettings) -> str:
    rules = ["Splits are by prompt."]
    if settings.min_margin:
        rules.append(f"A pair needs a margin >= {settings.min_margin}, unless nobody judged it.")
    if settings.max_length_gap is not None:
        rules.append(f"The two differ by {settings.max_length_gap:,} characters at most.")
    if summary.judges:
        rules += [
            f"A{'n' * (strategy == 'above_margin')} `{strategy}` pair by verdicts needs {_needs(strategy, settings)}."
            for strategy in settings.pairs
        ]
    if any(strategy.endswith("by side") for strategy in summary.strategies):
        rules.append(
            "In pairs by side nobody compared the two: chosen is of the model, or of the prompt, that was meant to be "
            "better; after `contrast` the rejected one was asked to go against a principle."
        )
    if any(strategy.startswith("closure") for strategy in summary.strategies):
        rules.append("In `closure` pairs nobody compared the two: others' verdicts lead from one to the other.")
    return " ".join(rules) + "\n"


def _needs(strategy: Strategy, settings: ExportSettings) -> str:
    if strategy == "strong_vs_weak":
        return "p >= 0.5 (either order may disagree)"
    both = settings.require_consistent or strategy == "revision_vs_original"
    return f"p >= {settings.min_p} ({'the same winner in both orders' if both else 'either order may disagree'})"


def _judge(name: str, stats: JudgeStats) -> tuple[str, ...]:
    swap, bias = stats.swap_consistency, stats.position_bias
    same = "-" if swap is None else f"{swap:.0%}{_interval(swap, stats.usable)}"
    shift = "-" if bias is None else f"{bias:+.2f}"
    return code(name), f"{stats.verdicts:,}", f"{stats.unusable_share:.0%}", same, shift


def _interval(share: float, n: int) -> str:
    low, high = wilson(share * n, n)
    return f" ({low:.0%}-{high:.0%})"
