"""Pairs keep their promises whatever the record: random ones, with everything that can go wrong in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.export import ExportSettings, Pair, pairs_of
from rlaif.export.comparisons import Comparisons
from rlaif.export.pairs import SOFT_TIE, TIE
from rlaif.export.parquet import Datasets
from rlaif.export.ratings import score_of
from rlaif.export.rows import Row, rows_of
from rlaif.export.settings import Strategy
from rlaif.export.strategies import found_in
from rlaif.store import decode, encode
from rlaif.types import VOTES, Drop, Message, Record, Response, Score, Verdict, prompt_id

JUDGES, PRINCIPLES = ("one", "two", "three"), ("kind", "true")
WEIGHTS = {"one": 1.4, "two": 0.3, "three": -0.7}
# Often what makes a tie or a clear pair; else anything.
P = st.sampled_from([0.0, 0.1, 0.45, 0.5, 0.52, 0.9, 1.0]) | st.floats(0, 1)
TEXTS = st.sampled_from(["a", "a ", "b", " b", "c", "d", "e", "", " ", "a longer answer", "the longest answer of all"])


@st.composite
def records(draw: st.DrawFn) -> Record:
    """As they should be, so that there are pairs, or as they can be: doubles, empty texts, chains, gaps, filtered."""
    responses = draw(st.one_of(drafts(), chains()))
    indices = range(len(responses))
    orderly = draw(st.booleans())
    often = 1 if orderly else draw(st.sampled_from([0, 1, 2]))
    asked = [
        draw(verdicts(a, b, orderly))
        for a, b in combinations(indices, 2)
        for _ in range(often if orderly else draw(st.integers(0, often)))
    ]
    values = st.sampled_from([-1.0, 0.0, 0.5]) if orderly else st.sampled_from([None, -1.0, 0.0, 0.25, 0.5])
    scored = draw(st.integers(0, 2))
    scores = [Score(JUDGES[0], name, i, draw(values)) for i in indices for name in PRINCIPLES[:scored]]
    prompt = (Message("user", draw(st.sampled_from(["one?", "two?", "three?"]))),)
    return Record(
        id=prompt_id(prompt),
        prompt=prompt,
        category=draw(st.sampled_from([None, "locks"])),
        responses=tuple(responses),
        verdicts=tuple(asked if not scored or draw(st.booleans()) else ()),
        scores=tuple(scores),
        drops=() if orderly else tuple(Drop(i, "truncated") for i in indices if not draw(st.integers(0, 6))),
        outcome="ok",
    )


@st.composite
def drafts(draw: st.DrawFn) -> list[Response]:
    """Different ones, of two sides or of none."""
    sides = st.sampled_from(draw(st.sampled_from([[None], ["strong", "weak"]])))
    return [Response(text, "policy", side=draw(sides)) for text in "abcdef"[: draw(st.integers(2, 6))]]


@st.composite
def chains(draw: st.DrawFn) -> list[Response]:
    responses: list[Response] = []
    for i in range(draw(st.integers(0, 6))):
        revises = draw(st.integers(0, i - 1)) if i and not draw(st.integers(0, 2)) else None
        side = draw(st.sampled_from([None, None, "strong", "weak"]))
        principle = draw(st.sampled_from([None, *PRINCIPLES]))
        model = draw(st.sampled_from(["policy", "other"]))
        responses.append(Response(draw(TEXTS), model, revises=revises, principle=principle, side=side))
    return responses


@st.composite
def verdicts(draw: st.DrawFn, first: int, second: int, orderly: bool) -> Verdict:
    """From either side; usable ones, or any."""
    if draw(st.booleans()):
        first, second = second, first
    if orderly:
        p = draw(P)
        return Verdict("one", "kind", first, second, p, p, p)
    outcome = draw(st.sampled_from(["ok"] * 6 + ["tie", "both_bad", "unparsed", "refusal", "low_mass", "escalated"]))
    missing = outcome in ("unparsed", "refusal")
    p_ab, p_ba = ((draw(st.none() | P) if missing or not draw(st.integers(0, 9)) else draw(P)) for _ in "12")
    both = None if p_ab is None or p_ba is None else (p_ab + p_ba) / 2
    judge, principle = draw(st.sampled_from(JUDGES)), draw(st.sampled_from(PRINCIPLES))
    rationale, weight = draw(st.sampled_from([None, None, "I think."])), draw(st.sampled_from([1.0, 1.0, 2.5]))
    more = {"outcome": outcome, "rationale": rationale, "weight": weight}
    return Verdict(judge, principle, first, second, both, p_ab, p_ba, **more)


@st.composite
def export_settings(draw: st.DrawFn) -> ExportSettings:
    names = draw(st.permutations(get_args(Strategy)))
    panel = draw(st.sampled_from(["mean", "majority", "weighted"]))
    return ExportSettings(
        pairs=tuple(names[: draw(st.integers(1, len(names)))]),
        min_p=draw(st.sampled_from([0.5, 0.55, 0.65, 0.9])),
        require_consistent=draw(st.booleans()),
        min_margin=draw(st.sampled_from([0.0, 0.0, 0.3])),
        max_pairs_per_prompt=draw(st.integers(1, 6)),
        max_length_gap=draw(st.sampled_from([None, None, 0, 20])),
        ties=draw(st.sampled_from(["drop", "soft"])),
        panel=panel,
        weights=WEIGHTS if panel == "weighted" else {},
    )


SETTINGS = export_settings()
FLOORS = st.sampled_from([None, None, -0.5, 0.25])


def texts(made: Record, pair: Pair) -> tuple[str, str]:
    return made.responses[pair.chosen].text.strip(), made.responses[pair.rejected].text.strip()


def in_words(made: Record, pairs: Sequence[Pair]) -> list[tuple[object, ...]]:
    """Everything of a pair but where its responses stand."""
    return [
        (*texts(made, one), one.strategy, one.p, one.margin, one.judges, one.principles, one.reasoned) for one in pairs
    ]


def moved(made: Record, order: Sequence[int]) -> Record:
    """The same record with its responses in another order: `order[new]` is where a response was."""
    to = {old: new for new, old in enumerate(order)}
    responses = [made.responses[old] for old in order]
    return made.having(
        responses=tuple(
            one if one.revises is None else msgspec.structs.replace(one, revises=to[one.revises]) for one in responses
        ),
        verdicts=tuple(msgspec.structs.replace(v, first=to[v.first], second=to[v.second]) for v in made.verdicts),
        scores=tuple(msgspec.structs.replace(score, response=to[score.response]) for score in made.scores),
        drops=tuple(msgspec.structs.replace(drop, response=to[drop.response]) for drop in made.drops),
    )


@given(records(), SETTINGS, FLOORS)
def test_a_hard_pair_is_two_live_texts_of_which_one_is_clearly_better(
    made: Record, export: ExportSettings, floor: float | None
) -> None:
    found = found_in(made, export, floor)
    assert (found.reason is None) == bool(found.pairs)
    for pair in found.pairs:
        chosen, rejected = texts(made, pair)
        assert chosen
        assert rejected
        assert chosen != rejected
        assert {pair.chosen, pair.rejected} <= set(made.candidates())
        assert export.max_length_gap is None or abs(len(chosen) - len(rejected)) <= export.max_length_gap
        assert pair.margin is None or pair.margin >= export.min_margin - 1e-9
        if pair.p is not None:
            assert pair.p - 0.5 >= TIE - 1e-12  # a tie is never a hard pair
        if pair.strategy == "strong_vs_weak":
            assert [made.responses[i].side for i in (pair.chosen, pair.rejected)] == ["strong", "weak"]
            assert pair.margin is None or pair.margin > 0
            continue
        assert pair.margin is not None
        assert pair.margin > 0
        assert pair.p is None or pair.p >= export.min_p - 1e-9
        if pair.strategy != "revision_vs_original":
            assert made.responses[pair.chosen].side != "weak"


@given(records(), SETTINGS)
def test_the_judges_themselves_say_what_a_pair_by_verdicts_says(made: Record, export: ExportSettings) -> None:
    comparisons = Comparisons(made, export.panel, export.weights)
    for pair in found_in(made, export).pairs:
        seen = comparisons.of(pair.chosen, pair.rejected)
        if pair.strategy == "closure":
            assert seen is None
        elif pair.p is not None:
            assert seen is not None
            assert (seen.p, seen.judges) == (pair.p, pair.judges)
            assert not seen.both_bad
            strict = export.require_consistent or pair.strategy == "revision_vs_original"
            assert seen.consistent or not strict or pair.strategy == "strong_vs_weak"


@given(records(), SETTINGS, st.sampled_from([-0.5, 0.0, 0.25, 0.5]))
def test_what_is_rejected_is_not_below_the_floor(made: Record, export: ExportSettings, floor: float) -> None:
    alike = Comparisons(made).alike
    of_text = {i: group for group in alike.values() for i in group}
    for pair in found_in(made, export, floor).pairs:
        score = score_of(made, *of_text[pair.rejected])
        assert score is not None
        assert score >= floor


@given(records(), SETTINGS, FLOORS)
def test_no_pair_is_there_twice_and_no_more_than_were_asked_for(
    made: Record, export: ExportSettings, floor: float | None
) -> None:
    found = found_in(made, export, floor)
    both = [frozenset(texts(made, pair)) for pair in found.pairs + found.ties]
    assert len(set(both)) == len(both) <= export.max_pairs_per_prompt


@given(records(), SETTINGS, FLOORS)
def test_soft_ties_are_about_even_and_change_no_hard_pair(
    made: Record, export: ExportSettings, floor: float | None
) -> None:
    soft, hard = (found_in(made, export.model_copy(update={"ties": ties}), floor) for ties in ("soft", "drop"))
    assert hard.ties == ()
    assert (soft.pairs, soft.reason) == (hard.pairs, hard.reason)
    for tie in soft.ties:
        assert tie.p is not None
        assert abs(tie.p - 0.5) <= SOFT_TIE + 1e-9
        assert texts(made, tie)[0] != texts(made, tie)[1]
    rows = rows_of(made, soft.pairs, export.model_copy(update={"ties": "soft"}), soft.ties)
    tied = [{said_in(row["chosen"]), said_in(row["rejected"])} for row in rows["preference_soft"]]
    for config in ("preference", "reward", "kto"):
        assert len(rows[config]) <= 2 * len(soft.pairs)
    assert len(tied) == len(soft.ties) + sum(pair.p is not None for pair in soft.pairs)
    assert all(isinstance(row["p"], float) for row in rows["preference_soft"])


def said_in(messages: object) -> str:
    assert isinstance(messages, list)
    return str(messages[-1]["content"])


@st.composite
def rearranged(draw: st.DrawFn) -> tuple[Record, Record]:
    """A record, and the same with its candidates elsewhere; a chain of revisions stays a chain."""
    made = draw(records())
    families: dict[int, list[int]] = {}
    for i in range(len(made.responses)):
        families.setdefault(made.draft_of(i), []).append(i)
    left = [list(family) for family in families.values()]
    order: list[int] = []
    while left := [family for family in left if family]:
        order.append(draw(st.sampled_from(left)).pop(0))
    return made, moved(made, order)


@given(rearranged(), SETTINGS, FLOORS)
def test_the_order_of_candidates_does_not_matter(
    both: tuple[Record, Record], export: ExportSettings, floor: float | None
) -> None:
    one, other = (found_in(made, export, floor) for made in both)
    assert in_words(both[0], one.pairs) == in_words(both[1], other.pairs)
    assert in_words(both[0], one.ties) == in_words(both[1], other.ties)
    assert one.reason == other.reason


@given(records(), SETTINGS, st.randoms(use_true_random=False))
def test_the_order_of_verdicts_and_scores_does_not_matter(made: Record, export: ExportSettings, random: object) -> None:
    shuffled, scores = list(made.verdicts), list(made.scores)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(scores)  # type: ignore[attr-defined]
    assert found_in(made.having(verdicts=tuple(shuffled), scores=tuple(scores)), export) == found_in(made, export)


@given(records(), SETTINGS)
def test_a_record_that_was_on_disk_gives_the_same_pairs(made: Record, export: ExportSettings) -> None:
    assert found_in(decode(encode(made)), export) == found_in(made, export)


@given(records(), SETTINGS)
def test_more_room_never_takes_a_pair_away(made: Record, export: ExportSettings) -> None:
    pairs = pairs_of(made, export)[0]
    more = pairs_of(made, export.model_copy(update={"max_pairs_per_prompt": export.max_pairs_per_prompt + 1}))[0]
    assert more[: len(pairs)] == pairs


@settings(max_examples=25, deadline=None)
@given(st.lists(records(), min_size=1, max_size=4), SETTINGS)
def test_rows_come_back_from_parquet_as_they_were(made: list[Record], export: ExportSettings) -> None:
    written: dict[str, list[Row]] = {}
    with TemporaryDirectory() as folder:
        with Datasets(Path(folder)) as datasets:
            for one in made:
                found = found_in(one, export)
                for config, rows in rows_of(one, found.pairs, export, found.ties).items():
                    datasets.write(config, "train", rows)
                    written.setdefault(config, []).extend(rows)
        for config, rows in written.items():
            files = list((Path(folder) / config).glob("*.parquet"))
            assert [row for path in files for row in pq.read_table(path).to_pylist()] == rows


# Closure


@st.composite
def tournaments(draw: st.DrawFn) -> Record:
    """Up to six different drafts; of some two a judge says something, of others nothing usable."""
    names = "abcdef"[: draw(st.integers(2, 6))]
    asked: list[Verdict] = []
    for a, b in combinations(range(len(names)), 2):
        p = draw(st.sampled_from([None, None, None, 0.5, 0.52, 0.3, 0.2, 0.05, 0.48, 0.7, 0.8, 0.95, 1.0]))
        if draw(st.integers(0, 3)):
            outcome = "unparsed" if p is None else "ok"
            asked.append(Verdict("one", "kind", a, b, p, p, p, outcome=outcome))
    prompt = (Message("user", "?"),)
    responses = tuple(Response(name, "policy") for name in names)
    return Record(prompt_id(prompt), prompt, responses=responses, verdicts=tuple(asked), outcome="ok")


def paths(steps: dict[tuple[int, int], float], a: int, c: int, n: int) -> Iterator[list[float]]:
    """The steps of every way from a to c that visits nobody twice, the direct one left out."""
    others = [i for i in range(n) if i not in (a, c)]
    for length in range(1, len(others) + 1):
        for between in permutations(others, length):
            way = [(x, y) for x, y in zip((a, *between), (*between, c), strict=True)]
            if all(one in steps for one in way):
                yield [steps[one] for one in way]


@settings(deadline=None)
@given(tournaments(), st.sampled_from([0.5, 0.65, 0.75]))
def test_a_closure_is_all_that_follows_from_verdicts_that_contradict_none(made: Record, min_p: float) -> None:
    export = ExportSettings(pairs=("closure",), min_p=min_p, max_pairs_per_prompt=99)
    direct = {
        pair: p
        for v in made.verdicts
        if v.outcome in VOTES and v.p_first is not None
        for pair, p in (((v.first, v.second), v.p_first), ((v.second, v.first), 1 - v.p_first))
    }
    n = len(made.responses)
    prefers = {pair: p for pair, p in direct.items() if p - 0.5 >= TIE}

    def leads(a: int, b: int) -> bool:
        return (a, b) in prefers or any(True for _ in paths(prefers, a, b, n))

    clear = {(a, b): p for (a, b), p in prefers.items() if p >= min_p - 1e-9 and not leads(b, a)}
    expected = {}
    for a, c in permutations(range(n), 2):
        best = max((prod(way) for way in paths(clear, a, c, n)), default=0.0)
        if (a, c) not in direct and best >= max(min_p, 0.5 + TIE) - 1e-9:
            expected[a, c] = best
    pairs, reason = pairs_of(made, export)
    assert {(pair.chosen, pair.rejected): pair.p for pair in pairs} == pytest.approx(expected)
    assert all(not leads(pair.rejected, pair.chosen) for pair in pairs)
    assert (reason is None) == bool(expected)
