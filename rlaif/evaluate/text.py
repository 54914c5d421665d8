"""An evaluation's figures as tables of plain cells, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rlaif.evaluate.headtohead import HeadToHead
from rlaif.evaluate.lengths import Controlled
from rlaif.evaluate.paired import Change
from rlaif.evaluate.safety import ModelFigures, Paired, Safety
from rlaif.evaluate.style import Style
from rlaif.figures import NOTHING, Figure, decimal, maybe, percent, plain, spread

Table = tuple[list[str], list[list[str]]]

SAFETY_LEGEND = (
    "95% intervals in brackets. `harmful compliance`: unsafe prompts whose answer is no full refusal; `over-refusal`: "
    "safe prompts whose answer is one, `with partial` those that refuse in part, too. A text that does neither well "
    "counts as compliance: it says whether a model refuses, not whether it could have helped."
)
PAIRED_LEGEND = (
    "After less before, on the same prompts, in percentage points; `p` is McNemar's, exact, uncorrected for how many "
    "there are."
)
PAIRS_LEGEND = (
    "95% intervals in brackets. A model wins where the judge prefers its answer in both orders; a tie is half a win in "
    "`win rate`. `equal lengths`: the win rate if both wrote as much, by a logistic regression. `p`: of the wins and "
    "losses, if both were equally good."
)
STYLE_LEGEND = (
    "Shares of all answers: `loops` break Gopher's repetition rules, `cut` ran into the limit of tokens, `opening` "
    "begin with the model's most frequent first five words, `same` are its most frequent answer."
)


def safety_table(found: Safety) -> Table:
    columns: tuple[tuple[str, Callable[[ModelFigures], str]], ...] = (
        ("model", lambda one: one.model),
        ("harmful compliance", lambda one: percent(one.unsafe.harmful_compliance) if one.unsafe else ""),
        ("partial", lambda one: plain(one.unsafe.partial, ".1%") if one.unsafe else ""),
        ("over-refusal", lambda one: percent(one.safe.over_refusal) if one.safe else ""),
        ("with partial", lambda one: percent(one.safe.with_partial) if one.safe else ""),
        ("unsafe", lambda one: f"{one.unsafe.n:,}" if one.unsafe else ""),
        ("safe", lambda one: f"{one.safe.n:,}" if one.safe else ""),
    )
    return [name for name, _ in columns], [[cell(one) for _, cell in columns] for one in found.models]


def paired_table(found: Sequence[Paired]) -> Table:
    head = ["before", "after", "harmful compliance", "p", "over-refusal", "p", "with partial", "p"]
    lines = [
        [
            one.before,
            one.after,
            *_change(one.harmful_compliance),
            *_change(one.over_refusal),
            *_change(one.over_refusal_with_partial),
        ]
        for one in found
    ]
    return head, lines


def opinions_table(found: Safety) -> Table:
    """Empty without a second opinion."""
    head = ["rater", "of", "prompts", "its share", "the detector's", "kappa", "rated"]
    lines = []
    for model in found.models:
        for part, shared in (
            (model.unsafe, model.unsafe.harmful_compliance if model.unsafe else NOTHING),
            (model.safe, model.safe.over_refusal if model.safe else NOTHING),
        ):
            for one in part.opinions if part else ():
                kind = "unsafe" if part is model.unsafe else "safe"
                shares = percent(one.share), percent(shared)
                rated = f"{one.rated:,} of {one.of:,}"
                lines.append([one.rater, model.model, kind, *shares, decimal(one.kappa), rated])
    return head, lines


def agreement_line(found: Safety) -> str:
    """Of the judge with the detector; "" without a judge."""
    if (one := found.agreement) is None:
        return ""
    if not one.rated:
        return "The judge gave no usable rating of any answer."
    of_two, of_three = (decimal(kappa) or "undefined" for kappa in (one.kappa, one.kappa_of_three))
    return (
        f"On all {one.rated:,} rated answers the judge agrees with the detector with a kappa of {of_two} on what is a "
        f"full refusal, and {of_three} on the three classes."
    )


def constitution_table(found: Safety) -> Table:
    """Empty where no answer was rated by a constitution."""
    scores = [
        (model.model, [part.by_constitution if part else None for part in (model.unsafe, model.safe)])
        for model in found.models
    ]
    lines = [[name, *(decimal(one) if one else "" for one in both)] for name, both in scores if any(both)]
    return ["model", "unsafe prompts", "safe prompts"], lines


def style_table(styles: Sequence[tuple[str, Style]]) -> Table:
    head = ["model", "words", "loops", "emoji", "cut", "empty", "opening", "same", "distinct"]
    lines = [
        [
            name,
            f"{one.length:.0f}",
            *(f"{x:.0%}" for x in (one.repetition, one.emoji, one.truncated, one.empty, one.boilerplate, one.same)),
            f"{one.distinct:.0%}",
        ]
        for name, one in styles
    ]
    return head, lines


def categories_table(names: Sequence[str], by_model: Sequence[Mapping[str, Figure]]) -> Table:
    """A line for each category; empty without them."""
    categories = sorted({category for one in by_model for category in one})
    lines = [
        [
            category,
            f"{max(one[category].n for one in by_model if category in one):,}",
            *(percent(one[category]) if category in one else "" for one in by_model),
        ]
        for category in categories
    ]
    return ["category", "prompts", *names], lines


def pairs_table(found: HeadToHead) -> Table:
    head = ["model", "against", "win rate", "equal lengths", "wins", "ties", "losses", "p", "prompts", "same winner"]
    lines = [
        [
            one.a,
            one.b,
            percent(one.win_rate),
            _controlled(one.length_controlled_win_rate),
            *(plain(figure, ".1%") for figure in (one.win, one.tie, one.loss)),
            f"{one.sign_p:.2g}",
            f"{one.n:,}",
            plain(one.consistency, ".1%"),
        ]
        for one in found.pairs
    ]
    return head, lines


def strengths_table(found: HeadToHead) -> Table:
    lines = [[one.model, f"{one.strength:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"] for one in found.bradley_terry]
    return ["model", "strength"], lines


def points(found: Change) -> str:
    return spread(Figure(found.difference, found.low, found.high, found.n))


def _change(found: Change | None) -> tuple[str, str]:
    return ("", "") if found is None else (points(found), maybe(found.mcnemar_p, ".2g"))


def _controlled(found: Controlled | None) -> str:
    return "" if found is None else percent(Figure(found.value, found.low, found.high, found.n))
