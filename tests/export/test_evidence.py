"""Pairs by verdicts, by pointwise scores and by side: what each strategy takes for evidence, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlaif.export import About, ExportSettings, Pair, export_dataset, pairs_of
from rlaif.export.strategies import found_in
from rlaif.types import Record, Score
from tests.export.made import Asked, record

ABOUT = About(run="demo", constitution_name="safety", constitution_version="1.0")
BEST: list[Asked] = [(0, 1, 0.9, 0.9), (0, 2, 0.9, 0.9), (0, 3, 0.9, 0.9), (1, 2, 0.6, 0.6), (1, 3, 0.6, 0.6)]
ALL_FOUR: list[Asked] = [*BEST, (2, 3, 0.6, 0.6)]


def by(strategy: str, **settings: Any) -> ExportSettings:
    return ExportSettings.model_validate({"pairs": [strategy], **settings})


def only(made: Record, settings: ExportSettings) -> Pair:
    (pair,), reason = pairs_of(made, settings)
    assert reason is None
    return pair


def reason(made: Record, settings: ExportSettings, floor: float | None = None) -> str | None:
    pairs, why = pairs_of(made, settings, floor)
    assert pairs == ()
    return why


def rated(made: Record, *values: float | None) -> Record:
    """With scores by another judge and principle on top, one for each response."""
    more = tuple(Score("other", "honest", i, value) for i, value in enumerate(values))
    return made.having(scores=made.scores + more)


# Against a random other


def test_the_best_meets_each_of_the_others_about_as_often() -> None:
    made = [record("abcd", ALL_FOUR, prompt=f"question {i}") for i in range(300)]
    pairs = [only(one, by("best_vs_random")) for one in made]
    assert {pair.chosen for pair in pairs} == {0}
    assert all(70 < [pair.rejected for pair in pairs].count(i) < 130 for i in (1, 2, 3))
    assert pairs == [only(one, by("best_vs_random")) for one in made]


def test_the_random_other_does_not_depend_on_the_order_of_the_candidates() -> None:
    turned: list[Asked] = [(3 - a, 3 - b, ab, ba) for a, b, ab, ba in ALL_FOUR]
    for i in range(20):
        forth, back = record("abcd", ALL_FOUR, prompt=str(i)), record("dcba", turned, prompt=str(i))
        one, other = only(forth, by("best_vs_random")), only(back, by("best_vs_random"))
        assert forth.responses[one.rejected] == back.responses[other.rejected]


def test_a_random_other_below_the_floor_gives_way_to_one_above_it() -> None:
    for i in range(20):
        made = record("abcd", ALL_FOUR, prompt=str(i), scores=[1.0, -1.0, 0.5, -1.0])
        assert [(pair.chosen, pair.rejected) for pair in pairs_of(made, by("best_vs_random"), 0.0)[0]] == [(0, 2)]


def test_a_random_other_that_is_as_good_as_the_best_gives_way_to_a_worse_one() -> None:
    for i in range(20):
        by_score = only(record("abc", prompt=str(i), scores=[0.5, 0.5, 0.0]), by("best_vs_random"))
        asked: list[Asked] = [(0, 1, 0.5, 0.5), (0, 2, 0.9, 0.9), (1, 2, 0.9, 0.9)]
        by_verdict = only(record("abc", asked, prompt=str(i)), by("best_vs_random"))
        assert [pair.rejected for pair in (by_score, by_verdict)] == [2, 2]
    assert reason(record("ab", scores=[0.5, 0.5]), by("best_vs_random")) == "tie"


# By score


@pytest.mark.parametrize("strategy", ["best_vs_worst", "best_vs_random"])
def test_without_verdicts_scores_say_which_is_best(strategy: str) -> None:
    pair = only(record("ab", scores=[-0.25, 0.5]), by(strategy, min_p=1.0))
    assert (pair.chosen, pair.rejected, pair.p, pair.soft_label, pair.by) == (1, 0, None, None, "score")
    assert pair.margin == pytest.approx(0.75 / 2)
    assert (pair.judges, pair.principles) == (("judge",), ("kind",))


def test_scores_are_averaged_over_judges_and_principles_and_who_has_none_takes_no_part() -> None:
    made = rated(record("abc", scores=[0.4, 0.5, None]), 0.8, 0.5, None)
    pair = only(made, by("best_vs_worst"))
    assert (pair.chosen, pair.rejected) == (0, 1)  # 0.6, 0.5, unscored
    assert pair.margin == pytest.approx(0.05)
    assert (pair.judges, pair.principles) == (("judge", "other"), ("honest", "kind"))


def test_candidates_are_compared_by_what_all_of_them_were_rated_on() -> None:
    pair = only(rated(record("abc", scores=[0.4, 0.5, 0.6]), 0.8, None, -1.0), by("best_vs_worst"))
    assert (pair.chosen, pair.rejected) == (2, 0)  # by kindness alone, not 0.6, 0.5, -0.2
    assert pair.margin == pytest.approx(0.1)
    assert (pair.judges, pair.principles) == (("judge",), ("kind",))
    assert reason(rated(record("ab", scores=[0.4, None]), None, 0.8), by("best_vs_worst")) == "unscored"


def test_an_aspect_that_was_rated_twice_counts_once() -> None:
    made = rated(record("ab", scores=[1.0, 0.0]), 0.0, 0.5)
    twice = made.having(scores=(*made.scores, Score("judge", "kind", 0, 1.0)))
    assert only(twice, by("best_vs_worst")).margin == only(made, by("best_vs_worst")).margin == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ([0.5, None], "unscored"),
        ([None, None], "unscored"),
        ([0.5, 0.5], "tie"),
        ([0.5, 0.491], "tie"),
        ([0.5, 0.4], "low_margin"),
    ],
)
def test_no_pair_by_score_has_a_reason(scores: list[float | None], why: str) -> None:
    assert reason(record("ab", scores=scores), by("best_vs_worst", min_margin=0.1)) == why


def test_verdicts_between_all_candidates_go_before_scores() -> None:
    pair = only(record("ab", [(0, 1, 0.9, 0.9)], scores=[-1.0, 1.0]), by("best_vs_worst"))
    assert (pair.chosen, pair.by) == (0, "verdict")


def test_scores_stand_in_where_only_revisions_were_compared() -> None:
    made = record(["a", "b", ("c", 0)], [(0, 2, 0.1, 0.1)], scores=[0.0, -0.5, 0.5])
    pair = only(made, by("best_vs_worst"))
    assert (pair.chosen, pair.rejected, pair.by) == (2, 1, "score")


def test_a_floor_bars_junk_by_score_too() -> None:
    made = record("abc", scores=[1.0, 0.2, -1.0])
    (pair,) = pairs_of(made, by("best_vs_worst"), 0.0)[0]
    assert (pair.chosen, pair.rejected) == (0, 1)


def test_a_least_margin_applies_to_verdicts_as_well() -> None:
    made = record("ab", [(0, 1, 0.7, 0.7)])
    assert only(made, by("best_vs_worst", min_margin=0.4)).margin == pytest.approx(0.4)
    assert reason(made, by("best_vs_worst", min_margin=0.41)) == "low_margin"
    revised = record(["a", ("b", 0)], [(0, 1, 0.3, 0.3)])
    assert reason(revised, by("revision_vs_original", min_margin=0.41)) == "low_margin"


# By side


def test_the_strong_one_is_chosen_and_nobody_need_judge() -> None:
    made = record("abcd", sides=["weak", "strong", "strong", "weak"])
    pairs, _ = pairs_of(made, by("strong_vs_weak", max_pairs_per_prompt=5, min_margin=0.9))
    assert [{pair.chosen for pair in pairs}, {pair.rejected for pair in pairs}] == [{1, 2}, {0, 3}]
    assert {(pair.p, pair.margin, pair.by) for pair in pairs} == {(None, None, "side")}


def test_which_of_two_weak_ones_a_strong_one_meets_does_not_depend_on_their_order() -> None:
    for i in range(20):
        forth = record("abcd", sides=["strong", "strong", "weak", "weak"], prompt=str(i))
        back = record("dcba", sides=["weak", "weak", "strong", "strong"], prompt=str(i))
        said = [
            [
                made.responses[j].text
                for pair in pairs_of(made, by("strong_vs_weak", max_pairs_per_prompt=5))[0]
                for j in (pair.chosen, pair.rejected)
            ]
            for made in (forth, back)
        ]
        assert said[0] == said[1]


def test_the_two_sides_of_a_pair_were_made_by_one_principle() -> None:
    made = record("abcd", sides=["strong", "weak", "strong", "weak"], drops=[0])
    kinds = ("kind", "kind", "honest", "honest")
    responses = tuple(msgspec.structs.replace(r, principle=p) for r, p in zip(made.responses, kinds, strict=True))
    pairs, _ = pairs_of(made.having(responses=responses), by("strong_vs_weak", max_pairs_per_prompt=5))
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(2, 3)]


def test_a_verdict_must_not_go_against_the_side_but_need_not_be_clear() -> None:
    def judged(p: float | None) -> Record:
        return record("ab", [(0, 1, p, p)], sides=["strong", "weak"])

    assert [reason(judged(p), by("strong_vs_weak")) for p in (0.3, 0.494, 0.5)] == [
        "weak_preferred",
        "weak_preferred",
        "tie",
    ]
    assert [only(judged(p), by("strong_vs_weak")).margin for p in (None, 0.75)] == [None, 0.5]
    assert only(judged(0.75), by("strong_vs_weak", require_consistent=True)).p == 0.75
    assert reason(judged(0.75), by("strong_vs_weak", min_margin=0.6)) == "low_margin"


def test_a_tie_is_no_pair_whatever_the_sides_say() -> None:
    made = record("ab", [(0, 1, 0.9, 0.1)], sides=["strong", "weak"])
    assert reason(made, by("strong_vs_weak")) == "tie"
    assert [tie.p for tie in found_in(made, by("strong_vs_weak", ties="soft")).ties] == [0.5]
    bad = tuple(msgspec.structs.replace(one, outcome="both_bad") for one in made.verdicts)
    assert reason(made.having(verdicts=bad), by("strong_vs_weak")) == "both_bad"


def test_where_no_verdict_speaks_scores_must_not_go_against_the_side() -> None:
    def scored(*scores: float | None) -> Record:
        return record("ab", [(0, 1, None, None)], sides=["strong", "weak"], scores=scores)

    assert reason(scored(0.49, 0.5), by("strong_vs_weak")) == "weak_preferred"
    assert reason(scored(0.5, 0.5), by("strong_vs_weak")) == "tie"
    for scores, margin in ([(0.5, -0.5), 0.5], [(0.5, None), None]):
        pair = only(scored(*scores), by("strong_vs_weak"))
        assert (pair.p, pair.margin, pair.by) == (None, margin, "side" if margin is None else "score")
    assert reason(scored(0.5, -0.5), by("strong_vs_weak", min_margin=0.6)) == "low_margin"
    assert reason(rated(scored(0.0, 0.2), None, -1.0), by("strong_vs_weak")) == "weak_preferred"
    judged = scored(-1.0, 1.0).having(verdicts=record("ab", [(0, 1, 0.9, 0.9)]).verdicts)
    assert only(judged, by("strong_vs_weak")).by == "verdict"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (record("ab", sides=["strong", "strong"]), "one_sided"),
        (record("ab", sides=["strong", "weak"], drops=[1]), "one_sided"),
        (record("a"), "one_sided"),
        (record(["a", "a "], sides=["strong", "weak"]), "identical"),
        (record("ab", sides=["strong", "weak"], scores=[1.0, -1.0]), "low_quality"),
    ],
)
def test_no_pair_of_sides_has_a_reason(made: Record, why: str) -> None:
    assert reason(made, by("strong_vs_weak"), floor=0.0 if why == "low_quality" else None) == why


# Of a whole run


@pytest.mark.parametrize(
    ("strategy", "made", "why"),
    [
        ("best_vs_worst", record("ab"), "no_verdict"),
        ("revision_vs_original", record(["a", ("b", 0)], scores=[0.1, 0.2]), "no_verdict"),
        ("strong_vs_weak", record("ab"), "one_sided"),
    ],
)
def test_records_without_the_evidence_are_counted_and_the_rest_is_exported(
    strategy: str, made: Record, why: str, tmp_path: Path
) -> None:
    summary = export_dataset(
        lambda: [made], tmp_path / "dataset", by(strategy, sft=["revisions", "drafts"]), about=ABOUT
    )
    assert (summary.pairs, summary.no_pair) == (0, {why: 1})
    assert {"sft", "prompts"} <= summary.rows.keys()


def test_the_example_is_the_clearest_and_says_by_what(tmp_path: Path) -> None:
    def said(*made: Record) -> str:
        settings = ExportSettings(pairs=("best_vs_worst", "strong_vs_weak"))
        example = export_dataset(lambda: made, tmp_path / "dataset", settings, about=ABOUT).example
        assert example is not None
        return example.said

    sided = record("ab", sides=["strong", "weak"], prompt="1")
    rated = [record("ab", scores=[score, 1.0], prompt=f"{score}") for score in (-0.9, -1.0, 0.8)]
    judged = [record("ab", [(0, 1, p, p)], prompt=f"{p}") for p in (0.7, 0.9, 0.8)]
    assert said(sided) == "by side"
    assert said(sided, *rated) == "by score, margin 1.00"
    assert said(sided, *rated, *judged) == "p(chosen) = 0.90"


def test_a_weak_response_is_never_chosen_however_good_it_is() -> None:
    made = record("ab", sides=["strong", "weak"], scores=[-1.0, 1.0])
    for strategy in ("best_vs_worst", "best_vs_random"):
        assert pairs_of(made, ExportSettings(pairs=(strategy,))) == ((), "weak_preferred")
