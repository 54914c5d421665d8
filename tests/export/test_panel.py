"""What several judges say of a pair, put together: by mean, by majority, or by their weights."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaif.errors import ConfigError
from rlaif.export import ExportSettings, pairs_of
from rlaif.export.comparisons import Comparison, Comparisons
from rlaif.export.ratings import ratings_of, score_of
from rlaif.panel import Panel
from rlaif.types import Record, Score, Verdict, VerdictOutcome
from tests.export.made import record, verdict

WEIGHTS = {"good": math.log(9), "fair": math.log(3), "adversary": -math.log(4)}


def said(judge: str, p_ab: float, p_ba: float | None = None, **more: Any) -> Verdict:  # Any: Verdict's own fields
    one = verdict(0, 1, p_ab, p_ab if p_ba is None else p_ba, judge)
    return msgspec.structs.replace(one, **more)


def judged(*verdicts: Verdict) -> Record:
    return record(["a", "b"]).having(verdicts=verdicts)


def compared(made: Record, panel: Panel = "mean", weights: dict[str, float] | None = None) -> Comparison:
    comparison = Comparisons(made, panel, weights).of(0, 1)
    assert comparison is not None
    return comparison


def reason(made: Record, **settings: object) -> str | None:
    pairs, why = pairs_of(made, ExportSettings.model_validate(settings))
    assert pairs == ()
    return why


def test_the_mean_is_of_the_judges_however_often_each_was_asked() -> None:
    made = judged(said("good", 0.9), said("good", 0.7), said("good", 0.8), said("fair", 0.2))
    assert compared(made).p == pytest.approx((0.8 + 0.2) / 2)
    assert compared(made).judges == ("fair", "good")


def test_the_majority_counts_heads_in_each_order() -> None:
    made = judged(said("one", 0.99, 0.9), said("two", 0.4), said("three", 0.6, 0.3))
    comparison = compared(made, "majority")
    assert (comparison.p_ab, comparison.p_ba) == pytest.approx((2 / 3, 1 / 3))
    assert not comparison.consistent
    assert compared(judged(said("one", 0.5), said("two", 0.9)), "majority").p == pytest.approx(0.75)


def test_by_weight_a_good_judge_outvotes_a_fair_one_and_an_adversary_counts_the_other_way_round() -> None:
    assert compared(judged(said("good", 0.6), said("fair", 0.1)), "weighted", WEIGHTS).p == pytest.approx(9 / 12)
    assert compared(judged(said("adversary", 0.1)), "weighted", WEIGHTS).p == pytest.approx(0.8)
    pairs, _ = pairs_of(
        judged(said("adversary", 0.1)), ExportSettings.model_validate({"panel": "weighted", "weights": WEIGHTS})
    )
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(0, 1)]


def test_a_judge_without_a_weight_is_named_with_those_that_have_one() -> None:
    with pytest.raises(ConfigError, match=r"no weight for the judge 'new'; it has: good, fair, adversary"):
        compared(judged(said("new", 0.9)), "weighted", WEIGHTS)
    # One that gave no answer needs none.
    unparsed = said("new", 0.9, outcome="unparsed")
    assert compared(judged(unparsed, said("good", 0.6)), "weighted", WEIGHTS).p == pytest.approx(0.9)


@pytest.mark.parametrize(
    "settings", [{"panel": "weighted"}, {"weights": {"a": 1.0}}, {"panel": "majority", "weights": {"a": 1.0}}]
)
def test_weights_and_a_weighted_panel_come_together(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="come together"):
        ExportSettings.model_validate(settings)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "much"])
def test_a_weight_is_a_number(weight: object) -> None:
    with pytest.raises(ValidationError):
        ExportSettings.model_validate({"panel": "weighted", "weights": {"a": weight}})


@pytest.mark.parametrize("outcome", ["escalated", "unparsed", "refusal", "low_mass"])
def test_what_is_no_vote_changes_nothing_whatever_its_probability(outcome: VerdictOutcome) -> None:
    no_vote = said("cheap", 0.01, outcome=outcome)
    alone = judged(said("dear", 0.9))
    for panel in ("mean", "majority"):
        assert compared(judged(no_vote, said("dear", 0.9)), panel) == compared(alone, panel)
    assert reason(judged(no_vote)) == "unparsed"


def test_a_tie_prefers_neither_whatever_is_left_of_its_probability() -> None:
    tie = said("judge", 0.7, outcome="tie", p_tie=0.5, p_bad=0.0)
    assert reason(judged(tie), min_p=0.6) == "tie"
    assert compared(judged(tie, said("other", 0.9))).p == pytest.approx(0.7)
    assert compared(judged(tie, said("other", 0.9)), "majority").p == pytest.approx(0.75)


def test_two_bad_responses_make_no_pair_if_most_judges_say_so() -> None:
    bad = {"outcome": "both_bad", "p_tie": 0.0, "p_bad": 0.6}
    assert reason(judged(said("one", 0.7, **bad)), min_p=0.5) == "both_bad"
    assert reason(judged(said("one", 0.7, **bad), said("two", 0.5, **bad), said("three", 0.99))) == "both_bad"
    one_of_two = judged(said("one", 0.7, **bad), said("two", 0.99))
    assert not compared(one_of_two).both_bad
    assert compared(one_of_two).p == pytest.approx((0.5 + 0.99) / 2)
    # Of judges, not of verdicts: one that was asked by three principles is one.
    many = [said("one", 0.7, principle=name, **bad) for name in ("kind", "true", "brief")]
    assert not compared(judged(*many, said("two", 0.9), said("three", 0.9))).both_bad


@st.composite
def panels(draw: st.DrawFn) -> Record:
    """Up to three judges, asked once or twice, from either side, with any outcome."""
    p = st.sampled_from([0.0, 0.1, 0.35, 0.5, 0.65, 0.9, 1.0])
    outcomes = st.sampled_from(["ok", "ok", "ok", "tie", "both_bad", "escalated", "refusal"])
    judges = draw(st.lists(st.sampled_from(["good", "fair", "adversary"]), min_size=1, max_size=5))
    return judged(*(said(judge, draw(p), draw(p), outcome=draw(outcomes)) for judge in judges))


def told_from_the_other_side(made: Record) -> Record:
    turned = [
        msgspec.structs.replace(v, first=v.second, second=v.first, p_ab=1 - (v.p_ba or 0), p_ba=1 - (v.p_ab or 0))
        for v in made.verdicts
    ]
    return made.having(verdicts=tuple(turned))


@pytest.mark.parametrize("panel", ["mean", "majority", "weighted"])
@given(made=panels())
def test_a_panel_says_the_same_from_either_side_and_in_any_order(panel: Panel, made: Record) -> None:
    one = Comparisons(made, panel, WEIGHTS)
    for other in (
        Comparisons(told_from_the_other_side(made), panel, WEIGHTS),
        Comparisons(made.having(verdicts=made.verdicts[::-1]), panel, WEIGHTS),
    ):
        ours, theirs = one.of(0, 1), other.of(0, 1)
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert (ours.p_ab, ours.p_ba) == pytest.approx((theirs.p_ab, theirs.p_ba))
            assert (ours.judges, ours.both_bad) == (theirs.judges, theirs.both_bad)
            assert 0 <= ours.p <= 1
            seen = one.of(1, 0)
            assert seen is not None
            assert seen.p == pytest.approx(1 - ours.p)


# --- scores with weights ---


def rated(*scores: tuple[int, str, float | None, float]) -> Record:
    made = tuple(Score("judge", aspect, response, value, weight=weight) for response, aspect, value, weight in scores)
    return record(["a", "b", "c"]).having(scores=made)


def test_a_heavier_aspect_weighs_more_in_a_responses_score() -> None:
    made = rated((0, "harm", -1.0, 3.0), (0, "tone", 1.0, 1.0), (1, "harm", 1.0, 3.0), (1, "tone", -1.0, 1.0))
    assert score_of(made, 0) == pytest.approx(-0.5)
    ratings = ratings_of(made, (0, 1, 2))
    assert ratings.means == pytest.approx({0: -0.5, 1: 0.5})
    assert (ratings.judges, ratings.principles) == (("judge",), ("harm", "tone"))
    (pair,), _ = pairs_of(made, ExportSettings())
    assert (pair.chosen, pair.rejected, pair.margin) == (1, 0, pytest.approx(0.5))


def test_weights_count_among_the_aspects_that_all_have_a_rating_for() -> None:
    made = rated((0, "harm", None, 3.0), (0, "tone", 1.0, 1.0), (1, "harm", 1.0, 3.0), (1, "tone", -1.0, 1.0))
    assert ratings_of(made, (0, 1)).means == {0: 1.0, 1: -1.0}
    assert score_of(made, 0) == 1.0


def test_equal_weights_are_a_plain_mean() -> None:
    made = rated((0, "harm", -0.5, 1.0), (0, "tone", 1.0, 1.0))
    assert score_of(made, 0) == pytest.approx(0.25)
    assert score_of(made, 2) is None
