"""What a scan says, rule by rule: how many rows, how grave, why it matters and the way out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from rlaif.foreign.shapes import Shape
from rlaif.lint.contract import trainers
from rlaif.lint.rules import FORMATS, LEVELS, ROW, RULES, SIDE, Level
from rlaif.lint.scan import Scan
from rlaif.lint.tally import Array, Excerpt, Tally
from rlaif.statistics import wilson

# Length, or a form, tells too much when the whole 95% interval is beyond this; closer to 50% than `_HARDLY` is nothing.
_TELLING, _HARDLY = 0.60, 0.55
_FEW_ROWS = 0.01  # of the pairs; a form that tells fewer of them apart is no shortcut
# Where one class of labels has up to 1.33 times the weight of the other: eq. 8 of KTO (arXiv:2402.01306).
_KTO_MOST = 1.33
_UNEVEN = 10  # times the smallest category


@dataclass(frozen=True, slots=True)
class Share:
    """`value` of `n`, with its 95% interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row to look at; `like` is the one that it repeats or contradicts. Texts are cut."""

    place: str
    like: str | None = None
    prompt: str = ""
    chosen: str = ""
    rejected: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """`count` of `n` rows, whose share is an `estimate` where not all rows were looked at, or it stands for more.

    Where the rule is about the whole set, `detail` says what of it.
    """

    rule: str
    level: Level
    count: int
    n: int
    share: Share
    what: str
    why: str
    way_out: str
    detail: str = ""
    rows: tuple[Row, ...] = ()
    estimate: bool = False


@dataclass(frozen=True, slots=True)
class Sides:
    """One figure for the chosen (or good) and the rejected (or bad) side; `telling`: of pairs that differ in it."""

    chosen: Share | None
    rejected: Share | None
    telling: Share | None


@dataclass(frozen=True, slots=True)
class Lengths:
    """In characters.

    `longer`: the chosen side of a pair is the longer one, ties half; it is the AUC of length within pairs.
    `auc`: a chosen text is longer than a rejected one of any row, ties half.
    """

    mean_chosen: float | None
    mean_rejected: float | None
    mean_prompt: float
    longer: Share | None
    equal: int
    auc: float | None


def share_of(count: float, n: int) -> Share:
    low, high = wilson(count, n)
    return Share(count / n if n else 0.0, low, high, n)


def lengths(tally: Tally) -> Lengths:
    return Lengths(
        tally.good_chars / tally.goods if tally.goods else None,
        tally.bad_chars / tally.bads if tally.bads else None,
        tally.prompt_chars / max(tally.rows, 1),
        share_of(tally.longer + tally.equal / 2, tally.pairs) if tally.pairs else None,
        tally.equal,
        auc(tally.good_lengths, tally.bad_lengths),
    )


def auc(good: Array, bad: Array) -> float | None:
    """The chance that one drawn from `good` is greater than one from `bad`, ties half; of histograms."""
    pairs = int(good.sum()) * int(bad.sum())
    if not pairs:
        return None
    below = np.cumsum(bad) - bad / 2
    return float((good * below).sum()) / pairs


def sides(tally: Tally, fact: str) -> Sides:
    only_good, only_bad = tally.only_good[fact], tally.only_bad[fact]
    goods, bads = (tally.looked_goods, tally.looked_bads) if fact == "refusal" else (tally.goods, tally.bads)
    return Sides(
        share_of(tally.good[fact], goods) if goods else None,
        share_of(tally.bad[fact], bads) if bads else None,
        share_of(only_good, only_good + only_bad) if only_good + only_bad else None,
    )


def findings(found: Scan, shape: Shape, called: str, rules: Collection[str] = RULES) -> list[Finding]:
    """`called` is the dataset in commands."""
    whole = found.whole
    made = [
        *_of_columns(shape, whole),
        *_of_rows(found, whole),
        *_of_twins(found, whole),
        *_of_refusals(found, whole),
        *_of_lengths(whole),
        *_of_formats(whole),
        *_of_classes(whole, shape),
    ]
    return [_addressed(one, called) for one in made if one.rule in rules]


def ordered(made: Iterable[Finding]) -> tuple[Finding, ...]:
    """The gravest first, then in the order of the rules."""
    order = list(RULES)
    return tuple(sorted(made, key=lambda one: (LEVELS.index(one.level), order.index(one.rule))))


def finding(rule: str, count: int, n: int, called: str, detail: str = "", rows: tuple[Row, ...] = ()) -> Finding:
    """One that is found apart from the others."""
    return _addressed(_finding(rule, count, n, detail, rows), called)


def _addressed(finding: Finding, called: str) -> Finding:
    return replace(finding, way_out=finding.way_out.replace("DATASET", called))


def _finding(rule: str, count: int, n: int, detail: str = "", rows: tuple[Row, ...] = (), **words: str) -> Finding:
    known = RULES[rule]
    share = share_of(count, n)
    return Finding(
        rule,
        known.at(share.value),
        count,
        n,
        share,
        words.get("what", known.what),
        words.get("why", known.why),
        words.get("way_out", known.way_out),
        detail,
        rows,
    )


def _of_columns(shape: Shape, whole: Tally) -> Iterator[Finding]:
    n = whole.rows
    if shape.pairing in ("ranked", "rated"):
        yield _finding("no_trainer", n, n)
    elif not trainers(shape):
        renamed = {"prompt": shape.prompt, "chosen": shape.chosen, "rejected": shape.rejected}
        if shape.pairing == "unpaired":
            renamed = {"prompt": shape.prompt, "completion": shape.completion, "label": shape.label}
        wrong = [f"{theirs} for {ours}" for ours, theirs in renamed.items() if theirs not in (None, ours)]
        yield _finding("columns", n, n, ", ".join(wrong) or "no prompt column")
    if shape.form == "transcript":
        yield _finding("transcript", n, n)
    elif shape.form == "text" and shape.pairing == "paired" and shape.prompt is None:
        yield _finding("implicit_text", n, n)


def _of_rows(found: Scan, whole: Tally) -> Iterator[Finding]:
    for rule in (*ROW, *SIDE):
        if count := whole.rows_with[rule]:
            n = whole.looked if rule == "repetition" else whole.rows
            detail = ""
            if rule in SIDE and whole.pairs:
                detail = f"chosen {whole.good[rule]:,}, rejected {whole.bad[rule]:,}"
            finding = _finding(rule, count, n, detail, _rows(found, rule))
            yield _sampled(finding, whole) if rule == "repetition" else finding


def _sampled(finding: Finding, whole: Tally) -> Finding:
    return replace(finding, estimate=whole.looked < whole.rows)


def _rows(found: Scan, rule: str) -> tuple[Row, ...]:
    named = [_row(split, excerpt) for split, tally in found.splits.items() for excerpt in tally.examples.get(rule, ())]
    return tuple(named[:3])


def _row(split: str, excerpt: Excerpt) -> Row:
    return Row(f"{split} row {excerpt.row + 1}", None, excerpt.prompt, excerpt.chosen, excerpt.rejected)


def _of_twins(found: Scan, whole: Tally) -> Iterator[Finding]:
    twins = found.twins
    for rule, kind, count in (
        ("duplicate_pairs", "pairs", twins.pairs),
        ("duplicate_prompts", "prompts", twins.prompts),
        ("conflicting_labels", "conflicts", twins.conflicts),
    ):
        single = kind == "prompts" and not whole.pairs  # of these a prompt has at least two: a good and a bad one
        if count and not single:
            yield _finding(rule, count, whole.rows, rows=_alike(found, kind))
    if twins.shared:
        later = sum(found.splits[split].rows for split in list(found.splits)[1:])
        detail = ", ".join(f"{split} {n:,}" for split, n in twins.shared.items())
        yield _finding("shared_prompts", sum(twins.shared.values()), later, detail, _alike(found, "shared"))


def _alike(found: Scan, kind: str) -> tuple[Row, ...]:
    return tuple(Row(f"{a[0]} row {a[1]}", f"{b[0]} row {b[1]}") for a, b in found.examples.get(kind, ()))


def _of_refusals(found: Scan, whole: Tally) -> Iterator[Finding]:
    for rule in ("refusal_chosen", "refusal_rejected", "refusal_both"):
        if count := whole.rows_with[rule]:
            finding = _finding(rule, count, whole.looked_pairs, rows=_rows(found, rule))
            # What is too many is a matter of the set, not of a row: few rows do not tell.
            yield _sampled(replace(finding, level=RULES[rule].at(finding.share.low)), whole)


def _of_lengths(whole: Tally) -> Iterator[Finding]:
    found = lengths(whole)
    if found.longer is not None:
        level = _bias(_beyond(found.longer))
        if level is not None and found.auc is not None:
            longer = found.longer.value > 0.5
            detail = (
                f"the {'longer' if longer else 'shorter'} one is chosen in "
                f"{found.longer.value if longer else 1 - found.longer.value:.1%} of the pairs; over all rows the AUC "
                f"of length is {found.auc:.3f}"
            )
            count = round(found.longer.value * whole.pairs)
            yield _as(level, found.longer, _finding("length_bias", count, whole.pairs, detail))
    elif found.auc is not None and whole.bads >= _FEWEST and whole.goods >= _FEWEST:
        level = _bias(max(found.auc, 1 - found.auc))
        if level is not None:
            detail = f"a good answer is longer than a bad one with {found.auc:.1%}"
            n = whole.goods + whole.bads
            yield _as(level, share_of(found.auc * n, n), _finding("length_bias", round(found.auc * n), n, detail))


_FEWEST = 30  # of each label: under it an AUC of 0.6 is chance


def _bias(telling: float) -> Level | None:
    return "warning" if telling > _TELLING else "note" if telling > _HARDLY else None


def _beyond(telling: Share) -> float:
    """What the whole interval is beyond, towards either side."""
    return max(telling.low, 1 - telling.high)


def _as(level: Level, share: Share, finding: Finding) -> Finding:
    return replace(finding, level=level, share=share, estimate=True)


def _of_formats(whole: Tally) -> Iterator[Finding]:
    for fact, name in FORMATS.items():
        found = sides(whole, fact)
        if found.chosen is None or found.rejected is None:
            continue
        difference = f"{name} in {found.chosen.value:.1%} of the chosen, {found.rejected.value:.1%} of the rejected"
        if whole.pairs:
            if found.telling is None or found.telling.n < _FEW_ROWS * whole.pairs:
                continue
            if (level := _bias(_beyond(found.telling))) is not None:
                side = "chosen" if found.telling.value > 0.5 else "rejected"
                share = max(found.telling.value, 1 - found.telling.value)
                detail = f"{difference}; where only one side has it, it is the {side} one in {share:.1%}"
                count = whole.only_good[fact]
                yield _as(level, found.telling, _finding("format_bias", count, found.telling.n, detail))
        elif found.chosen.low > found.rejected.high or found.rejected.low > found.chosen.high:
            count = abs(whole.good[fact] - whole.bad[fact])
            yield _as("note", found.chosen, _finding("format_bias", count, whole.rows, difference))


def _of_classes(whole: Tally, shape: Shape) -> Iterator[Finding]:
    if shape.label is not None and not whole.pairs and whole.goods + whole.bads:
        yield from _of_labels(whole.goods, whole.bads)
    if whole.categories and len(whole.categories) > 1:
        (most, n_most), (least, n_least) = (whole.categories.most_common()[i] for i in (0, -1))
        if n_most > _UNEVEN * n_least:
            detail = f"{_short(most)} {n_most:,}, {_short(least)} {n_least:,} rows"
            yield _finding("category_balance", n_most, whole.rows, detail)


def _of_labels(good: int, bad: int) -> Iterator[Finding]:
    n = good + bad
    if not good or not bad:
        only = "true" if good else "false"
        what, why = f"all labels are {only}", "KTO has nothing to tell apart."
        found = _finding("class_balance", n, n, what=what, why=why, way_out="Add answers with the other label.")
        yield replace(found, level="error")
    elif not 1 <= bad / good <= _KTO_MOST and not 1 <= good / bad <= _KTO_MOST:
        up, down = bad / good, good / bad
        way_out = (
            f"Set desirable_weight between {up:.2f} and {_KTO_MOST * up:.2f}, or undesirable_weight between "
            f"{down / _KTO_MOST:.2f} and {down:.2f}, not both: as TRL advises."
        )
        yield _finding("class_balance", good, n, f"{good:,} good, {bad:,} bad", way_out=way_out)


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:40]}..."
