"""Pairs are what the verdicts say, whatever the order, the doubles or the gaps."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.export import ExportSettings, Pair, pairs_of
from rlaif.export.pairs import TIE
from rlaif.export.settings import Strategy
from rlaif.types import Record, Verdict
from tests.export.made import Asked, record, verdict

DEFAULT = ExportSettings()
REVISIONS = ExportSettings(pairs=("revision_vs_original",))


def only(record: Record, settings: ExportSettings = DEFAULT) -> Pair:
    (pair,), reason = pairs_of(record, settings)
    assert reason is None
    return pair


def reason(record: Record, settings: ExportSettings = DEFAULT, floor: float | None = None) -> str | None:
    pairs, why = pairs_of(record, settings, floor)
    assert pairs == ()
    return why


def test_the_best_is_paired_with_the_worst() -> None:
    pair = only(record(["a", "b", "c"], [(0, 1, 0.4, 0.4), (0, 2, 0.8, 0.8), (1, 2, 0.9, 0.7)]))
    assert (pair.chosen, pair.rejected, pair.p) == (1, 2, pytest.approx(0.8))
    assert pair.margin == pytest.approx(0.7 - 0.2)  # win rates: 0.6, 0.7, 0.2
    assert (pair.judges, pair.principles) == (("judge",), ("kind",))


def test_the_judges_answer_decides_not_the_position() -> None:
    assert only(record(["a", "b"], [(0, 1, 0.1, 0.2)])).chosen == 1
    assert only(record(["a", "b"], [(0, 1, 0.9, 0.8)])).chosen == 0


@pytest.mark.parametrize(
    ("texts", "asked", "why"),
    [
        (["a"], [], "single_candidate"),
        ([], [], "single_candidate"),
        (["a", " "], [], "single_candidate"),
        (["a", " a\n"], [(0, 1, 0.9, 0.9)], "identical"),
        (["a", "b"], [], "no_verdict"),
        (["a", "b", "c"], [(0, 1, 0.9, 0.9), (0, 2, 0.9, 0.9)], "no_verdict"),
        (["a", "b"], [(0, 1, None, None)], "unparsed"),
        (["a", "b"], [(0, 1, 0.9, None)], "unparsed"),
        (["a", "b"], [(0, 1, 0.5, 0.5)], "tie"),
        (["a", "b"], [(0, 1, 0.9, 0.1)], "tie"),
        (["a", "b"], [(0, 1, 0.99, 0.4)], "inconsistent"),
        (["a", "b"], [(0, 1, 0.9, 0.5)], "inconsistent"),
        (["a", "b"], [(0, 1, 0.6, 0.6)], "low_margin"),
        (["a", "b", "c"], [(0, 1, 0.9, 0.9), (1, 2, 0.9, 0.9), (0, 2, 0.1, 0.1)], "tie"),  # a circle
        (["a", "b", "c"], [(0, 1, 0.9, 0.9), (1, 2, 0.9, 0.9), (0, 2, None, None)], "unparsed"),
    ],
)
def test_no_pair_has_a_reason(texts: list[str], asked: list[Asked], why: str) -> None:
    assert reason(record(texts, asked)) == why


def test_a_half_parsed_verdict_is_no_vote_beside_a_good_one() -> None:
    made = record(["a", "b"], [(0, 1, 0.8, 0.8), (0, 1, 0.0, None)])
    assert only(made).p == pytest.approx(0.8)


def test_several_judges_are_averaged_before_anything_is_decided() -> None:
    made = record(["a", "b"], [(0, 1, 0.9, 0.4)])
    second = msgspec.structs.replace(verdict(1, 0, 0.2, 0.1, judge="other"), principle="honest")
    pair = only(made.having(verdicts=(*made.verdicts, second)))
    assert pair.p == pytest.approx((0.9 + 0.4 + 0.9 + 0.8) / 4)
    assert (pair.judges, pair.principles) == (("judge", "other"), ("honest", "kind"))


def test_an_inconsistent_winner_can_be_allowed() -> None:
    assert only(record(["a", "b"], [(0, 1, 0.99, 0.4)]), ExportSettings(require_consistent=False)).chosen == 0


def test_p_that_equals_min_p_but_for_rounding_is_enough() -> None:
    assert (0.6 + 0.7) / 2 < 0.65
    assert only(record(["a", "b"], [(0, 1, 0.6, 0.7)])).chosen == 0


def test_dropped_responses_are_no_candidates() -> None:
    assert reason(record(["a", "b"], [(0, 1, 0.9, 0.9)], drops=[1])) == "single_candidate"


def test_a_revision_that_a_later_filter_made_the_last_was_never_compared() -> None:
    made = record(["a", ("b", 0), ("c", 1)], [(0, 2, 0.1, 0.1)], drops=[2])
    assert (reason(made), reason(made, REVISIONS)) == ("no_verdict", "no_verdict")
    assert only(made.having(drops=()), REVISIONS).chosen == 2


def test_a_revision_is_not_assumed_to_be_better() -> None:
    assert reason(record(["a", ("b", 0)], [(0, 1, 0.9, 0.9)]), REVISIONS) == "revision_not_better"
    assert reason(record(["a", ("b", 0)], [(0, 1, 0.5, 0.5)]), REVISIONS) == "tie"
    assert reason(record(["a", ("b", 0)], [(0, 1, None, None)]), REVISIONS) == "unparsed"
    assert reason(record(["a", ("b", 0)]), REVISIONS) == "no_verdict"
    assert reason(record(["a", ("a ", 0)]), REVISIONS) == "identical"
    assert reason(record(["a", "b"], [(0, 1, 0.9, 0.9)]), REVISIONS) == "no_revision"
    lenient = ExportSettings(pairs=("revision_vs_original",), require_consistent=False)
    assert reason(record(["a", ("b", 0)], [(0, 1, 0.05, 0.6)]), lenient) == "inconsistent"


def test_the_last_live_revision_stands_against_the_first_draft() -> None:
    chain = ["a", ("b", 0), ("c", 1), ("d", 2)]
    pair = only(record(chain, [(0, 2, 0.1, 0.2)], drops=[3]), REVISIONS)
    assert (pair.chosen, pair.rejected, pair.strategy) == (2, 0, "revision_vs_original")
    assert (pair.p, pair.margin) == (pytest.approx(0.85), pytest.approx(0.7))


def test_of_several_chains_the_clearest_comes_first() -> None:
    made = record(["a", "b", ("c", 0), ("d", 1)], [(0, 2, 0.3, 0.3), (1, 3, 0.1, 0.1)])
    assert only(made, REVISIONS).chosen == 3
    both = pairs_of(made, REVISIONS.model_copy(update={"max_pairs_per_prompt": 2}))[0]
    assert [pair.chosen for pair in both] == [3, 2]


def test_two_strategies_share_the_prompts_and_repeat_no_pair() -> None:
    both = ExportSettings(pairs=("best_vs_worst", "revision_vs_original"), max_pairs_per_prompt=5)
    made = [record(["a", ("b", 0)], [(0, 1, 0.1, 0.1)], prompt=f"question {i}") for i in range(200)]
    strategies = [only(one, both).strategy for one in made]
    assert 70 < strategies.count("revision_vs_original") < 130
    assert strategies == [only(one, both).strategy for one in made]


def test_a_quality_floor_bars_junk_from_being_rejected() -> None:
    asked: list[Asked] = [(0, 1, 0.9, 0.9), (0, 2, 0.9, 0.9), (1, 2, 0.9, 0.9)]
    made = record(["a", "b", "junk"], asked, scores=[0.5, 0.4, -1.0])
    pair = pairs_of(made, DEFAULT, 0.0)[0][0]
    assert (pair.chosen, pair.rejected) == (0, 1)
    assert reason(made, floor=0.45) == "low_quality"
    assert reason(record(["a", "b"], asked[:1]), floor=0.0) == "unscored"
    revised = record(["a", ("b", 0)], [(0, 1, 0.1, 0.1)], scores=[-1.0, 1.0])
    assert reason(revised, REVISIONS, floor=0.0) == "low_quality"


def test_no_strategy_no_pairs() -> None:
    assert pairs_of(record(["a", "b"]), ExportSettings(pairs=())) == ((), None)


# Sixty-fourths are exact in binary, so that 1 - (1 - p) is p.
PROBABILITY = st.integers(0, 64).map(lambda n: n / 64)
ANSWER = st.none() | PROBABILITY


@st.composite
def records(draw: st.DrawFn) -> Record:
    texts: list[str | tuple[str, int]] = []
    for i in range(draw(st.integers(0, 4))):
        text = draw(st.sampled_from(["a", "a ", "b", "c", "d", ""]))
        texts.append((text, draw(st.integers(0, i - 1))) if i and draw(st.booleans()) else text)
    n = len(texts)
    every = [(i, j) for i in range(n) for j in range(i + 1, n)]
    asked = [(i, j, draw(ANSWER), draw(ANSWER)) for i, j in every if draw(st.integers(0, 7))]
    return record(
        texts,
        draw(st.sampled_from([asked, []])),
        drops=draw(st.sets(st.integers(0, n - 1))) if n else (),
        scores=draw(st.sampled_from([[], [draw(st.none() | st.integers(-8, 8).map(lambda n: n / 8)) for _ in texts]])),
        sides=[draw(st.sampled_from([None, "strong", "weak"])) for _ in texts],
    )


SETTINGS = st.builds(
    ExportSettings,
    pairs=st.permutations(get_args(Strategy)).flatmap(lambda names: st.integers(1, 4).map(lambda n: tuple(names[:n]))),
    min_p=st.sampled_from([0.5, 0.65, 0.9]),
    require_consistent=st.booleans(),
    min_margin=st.sampled_from([0.0, 0.3]),
    max_pairs_per_prompt=st.integers(1, 3),
)


def mirrored(v: Verdict) -> Verdict:
    def other(p: float | None) -> float | None:
        return None if p is None else 1 - p

    return msgspec.structs.replace(
        v, first=v.second, second=v.first, p_first=other(v.p_first), p_ab=other(v.p_ba), p_ba=other(v.p_ab)
    )


@given(records(), SETTINGS)
def test_chosen_differs_from_rejected_is_live_and_likelier_to_win(made: Record, settings: ExportSettings) -> None:
    pairs, why = pairs_of(made, settings)
    assert (why is None) == bool(pairs)
    for pair in pairs:
        assert made.responses[pair.chosen].text.strip() != made.responses[pair.rejected].text.strip()
        assert {pair.chosen, pair.rejected} <= set(made.live())
        if pair.by == "verdict":
            assert pair.p is not None
            assert pair.p >= (0.5 if pair.strategy == "strong_vs_weak" else 0.5 + TIE)
        if pair.strategy == "strong_vs_weak":
            assert [made.responses[i].side for i in (pair.chosen, pair.rejected)] == ["strong", "weak"]
        else:
            assert pair.margin is not None
            assert 0 < pair.margin <= 1
        assert pair.margin is None or pair.margin >= settings.min_margin - 1e-9


@given(records(), SETTINGS)
def test_a_verdict_told_from_the_other_side_is_the_same(made: Record, settings: ExportSettings) -> None:
    turned = made.having(verdicts=tuple(map(mirrored, made.verdicts)))
    assert pairs_of(turned, settings) == pairs_of(made, settings)


@given(records(), SETTINGS)
def test_the_order_of_verdicts_does_not_matter(made: Record, settings: ExportSettings) -> None:
    assert pairs_of(made.having(verdicts=made.verdicts[::-1]), settings) == pairs_of(made, settings)


@given(records(), SETTINGS)
def test_raising_min_p_never_adds_a_pair(made: Record, settings: ExportSettings) -> None:
    more = pairs_of(made, settings.model_copy(update={"min_p": 0.5}))[0]
    assert len(pairs_of(made, settings.model_copy(update={"min_p": 0.8}))[0]) <= len(more)


@given(records(), SETTINGS)
def test_a_double_of_a_candidate_changes_nothing(made: Record, settings: ExportSettings) -> None:
    drafts = [i for i in made.candidates() if made.responses[i].revises is None]
    doubled = made.having(responses=made.responses + tuple(made.responses[i] for i in drafts[:1]))
    pairs, why = pairs_of(doubled, settings)
    before, before_why = pairs_of(made, settings)
    assert pairs == before
    assert why == before_why or {why, before_why} == {"single_candidate", "identical"}
