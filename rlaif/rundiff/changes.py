"""What changed in a record: its pairs, and the rounds and verdicts behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from statistics import fmean
from typing import NamedTuple

from rlaif.rundiff.brief import Brief, Names, Place
from rlaif.rundiff.found import Cause, Fate, RunDiff, What

# In thousandths. The journal gives the same answer; another one hardly differs by less.
_ANOTHER_P = 10
Pair = tuple[Place, Place]


class Changed(NamedTuple):
    """An example without its texts: the places of the chosen and the rejected response instead."""

    id: str
    fate: Fate
    before: tuple[Place, Place] | None
    after: tuple[Place, Place] | None
    reason: str | None
    causes: tuple[Cause, ...]


def changes(found: RunDiff, record_id: str, a: Brief, b: Brief, names: Names) -> Iterator[Changed]:
    """Counts the record, and gives its pairs that are not the same."""
    causes = [Cause(names[number], what) for number, what in (*_rounds(a, b), *_verdicts(a, b))]
    for cause in causes:
        found.parts.setdefault(cause.principle, Counter())[cause.what] += 1
    found.new_drafts += any(_differ(a, b, place) for place in a.texts.keys() | b.texts.keys() if not place % 2)
    found.no_pair += not a.pairs and not b.pairs
    for fate, before, after in _fates(a.pairs, b.pairs):
        new = any(_differ(a, b, place) for place in {*(before or ()), *(after or ())})
        found.pairs[fate] += 1
        found.new_texts[fate] += new
        reason = None
        if fate in ("lost", "gained"):
            reason = (b if fate == "lost" else a).reason or "other_pairs"
            (found.lost if fate == "lost" else found.gained)[reason] += 1
        if fate != "agree":
            found.behind.update({cause.principle for cause in causes})
        if fate != "agree" or new:
            yield Changed(record_id, fate, before, after, reason, tuple(dict.fromkeys(causes)))


def _differ(a: Brief, b: Brief, place: Place) -> bool:
    return a.texts.get(place) != b.texts.get(place)


def _fates(a: Sequence[Pair], b: Sequence[Pair]) -> Iterator[tuple[Fate, Pair | None, Pair | None]]:
    """Each pair of either run once, beside the one of the other run that it became."""
    yield from (("agree", pair, pair) for pair in a if pair in b)
    gone, come = [pair for pair in a if pair not in b], [pair for pair in b if pair not in a]
    for before in gone:
        fate, after = _became(before, come)
        if after is not None:
            come.remove(after)
        yield fate, before, after
    yield from (("gained", None, pair) for pair in come)


def _became(pair: Pair, come: Sequence[Pair]) -> tuple[Fate, Pair | None]:
    if pair[::-1] in come:
        return "flipped", pair[::-1]
    if other := next((one for one in come if one[0] == pair[0]), None):
        return "other_rejected", other
    return ("other_chosen", come[0]) if come else ("lost", None)


def _rounds(a: Brief, b: Brief) -> Iterator[tuple[int, What]]:
    """Of the chains of drafts that both runs have, the first round that differs."""
    for draft in sorted(a.chains.keys() | b.chains.keys()):
        if _differ(a, b, 2 * draft):
            continue
        for one, other in zip_longest(a.chains.get(draft, ()), b.chains.get(draft, ())):
            if one == other:
                continue
            if one and other and one[0] == other[0]:
                yield one[0], "rounds_other"
            else:
                if one:
                    yield one[0], "rounds_gone"
                if other:
                    yield other[0], "rounds_come"
            break


def _verdicts(a: Brief, b: Brief) -> Iterator[tuple[int, What]]:
    """Of two candidates that both runs asked about."""
    in_a, in_b = _by_two(a), _by_two(b)
    for two, before in in_a.items():
        after = in_b.get(two)
        if after is None or before == after:
            continue
        for principle in before.keys() | after.keys():
            if principle not in after:
                yield principle, "verdicts_gone"
            elif principle not in before:
                yield principle, "verdicts_come"
            elif _another(before[principle], after[principle]) and not any(_differ(a, b, place) for place in two):
                yield principle, "verdicts_other"


def _by_two(brief: Brief) -> dict[tuple[Place, Place], dict[int, list[int | None]]]:
    """By the two candidates and the principle, what each judge says."""
    found: dict[tuple[Place, Place], dict[int, list[int | None]]] = {}
    for one, other, principle, p in brief.verdicts:
        found.setdefault((one, other), {}).setdefault(principle, []).append(p)
    return found


def _another(before: Sequence[int | None], after: Sequence[int | None]) -> bool:
    said = [[p for p in some if p is not None] for some in (before, after)]
    if not all(said):
        return any(said)
    return abs(fmean(said[0]) - fmean(said[1])) >= _ANOTHER_P
