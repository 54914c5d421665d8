"""Which two responses each strategy takes of many, and what follows from verdicts that nobody gave."""

from __future__ import annotations

from itertools import combinations
from random import Random
from typing import Any

import msgspec
import pytest

from rlaif.export import ExportSettings, Pair, pairs_of
from rlaif.export.strategies import found_in
from rlaif.types import Record
from tests.export.made import Asked, reasoned, record

# The first beats the second beats the third; nobody compared the first and the third, or anything with the fourth.
CHAIN: list[Asked] = [(0, 1, 0.9, 0.9), (1, 2, 0.8, 0.8)]


def by(strategy: str, **settings: Any) -> ExportSettings:
    return ExportSettings.model_validate({"pairs": [strategy], **settings})


def named(made: Record, settings: ExportSettings) -> list[str]:
    """Each pair as "ab", chosen first."""
    texts = [response.text for response in made.responses]
    return [texts[pair.chosen] + texts[pair.rejected] for pair in pairs_of(made, settings)[0]]


def only(made: Record, settings: ExportSettings) -> Pair:
    (pair,), _ = pairs_of(made, settings)
    return pair


def reason(made: Record, settings: ExportSettings, floor: float | None = None) -> str | None:
    pairs, why = pairs_of(made, settings, floor)
    assert pairs == ()
    return why


# mean - 2 sd


def test_of_many_candidates_the_rejected_one_is_two_deviations_below_the_mean() -> None:
    # mean 0.1, deviation 0.42: two below the mean is nearer to -0.8 than to the outlier
    made = record("abcdefghijkl", scores=[0.5, 0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.0, -0.8, -1.0])
    assert named(made, by("mean_minus_2sd")) == ["ak"]
    assert named(made, by("best_vs_worst")) == ["al"]


def test_of_five_or_fewer_it_is_the_worst() -> None:
    for seed in range(200):
        random = Random(seed)
        n = random.randint(2, 5)
        scores = [random.choice([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]) for _ in range(n)]
        made = record("abcde"[:n], scores=scores, prompt=str(seed))
        assert named(made, by("mean_minus_2sd")) == named(made, by("best_vs_worst"))
        asked = [(a, b, random.random(), random.random()) for a, b in combinations(range(n), 2)]
        made = record("abcde"[:n], asked, prompt=str(seed))
        assert named(made, by("mean_minus_2sd")) == named(made, by("best_vs_worst"))


def test_a_floor_moves_it_to_the_nearest_that_may_be_rejected() -> None:
    made = record("abcdefg", scores=[1.0, 0.5, 0.4, 0.3, 0.2, -0.6, -1.0])
    (pair,), _ = pairs_of(made, by("mean_minus_2sd"), -0.7)
    assert made.responses[pair.rejected].text == "f"
    assert reason(made, by("mean_minus_2sd"), 0.9) == "low_quality"


# All above a margin


def test_all_clear_pairs_come_clearest_first_up_to_the_cap() -> None:
    asked: list[Asked] = [(0, 1, 0.7, 0.7), (0, 2, 0.95, 0.95), (1, 2, 0.2, 0.1), (0, 3, 0.6, 0.6), (1, 3, 0.9, 0.1)]
    made = record("abcd", asked)
    assert named(made, by("above_margin", max_pairs_per_prompt=9)) == ["ac", "cb", "ab"]
    assert named(made, by("above_margin", max_pairs_per_prompt=2)) == ["ac", "cb"]
    assert named(made, by("above_margin", max_pairs_per_prompt=9, min_margin=0.65)) == ["ac", "cb"]
    assert named(made, by("above_margin", max_pairs_per_prompt=9, min_p=0.6)) == ["ac", "cb", "ab", "ad"]
    assert only(made, by("above_margin")).margin == pytest.approx(0.9)


def test_above_a_margin_scores_count_where_verdicts_do_not_compare_all() -> None:
    made = record("abc", scores=[1.0, 0.2, -1.0])
    assert named(made, by("above_margin", max_pairs_per_prompt=9)) == ["ac", "bc", "ab"]
    assert named(made, by("above_margin", max_pairs_per_prompt=9, min_margin=0.5)) == ["ac", "bc"]
    assert reason(record("ab", scores=[0.1, 0.1]), by("above_margin")) == "tie"
    assert reason(record("ab", scores=[0.1, None]), by("above_margin")) == "unscored"


def test_a_record_without_a_clear_pair_has_the_reason_of_the_nearest_one() -> None:
    unclear: list[Asked] = [(0, 1, None, None), (0, 2, 0.5, 0.5), (1, 2, 0.6, 0.6)]
    assert reason(record("abc", unclear), by("above_margin")) == "low_margin"
    assert reason(record("abc", unclear[:2]), by("above_margin")) == "tie"
    assert reason(record("abc", unclear[:1]), by("above_margin")) == "unparsed"
    assert reason(record("abc"), by("above_margin")) == "no_verdict"
    assert reason(record(["a", "a "]), by("above_margin")) == "identical"


@pytest.mark.parametrize("strategy", ["above_margin", "closure"])
def test_what_was_asked_to_be_worse_is_never_an_example_to_follow(strategy: str) -> None:
    made = record("abc", CHAIN, sides=["weak", "weak"])
    assert reason(made, by(strategy, max_pairs_per_prompt=9)) == "weak_preferred"


@pytest.mark.parametrize("strategy", ["above_margin", "closure"])
def test_a_floor_holds_for_every_pair(strategy: str) -> None:
    assert reason(record("abc", CHAIN), by(strategy), 0.0) == "unscored"
    low = {
        "above_margin": record("ab", CHAIN[:1], scores=[1.0, -0.5]),
        "closure": record("abc", CHAIN, scores=[1, 1, -1]),
    }
    assert reason(low[strategy], by(strategy), 0.0) == "low_quality"


# Closure


def test_what_follows_is_paired_with_the_product_of_its_steps() -> None:
    pair = only(record("abc", CHAIN), by("closure"))
    assert (pair.chosen, pair.rejected, pair.strategy, pair.by) == (0, 2, "closure", "verdict")
    assert (pair.p, pair.margin) == (pytest.approx(0.72), pytest.approx(0.44))
    assert (pair.judges, pair.principles) == (("judge",), ("kind",))


def test_a_path_that_is_long_or_weak_implies_too_little() -> None:
    assert reason(record("abc", [(0, 1, 0.8, 0.8), (1, 2, 0.8, 0.8)]), by("closure")) == "low_margin"
    assert reason(record("abc", [(0, 1, 0.9, 0.9), (1, 2, 0.6, 0.6)]), by("closure")) == "not_implied"
    assert reason(record("abc", [(0, 1, 0.9, 0.9), (1, 2, 0.99, 0.4)]), by("closure")) == "not_implied"
    lenient = record("abc", [(0, 1, 0.99, 0.99), (1, 2, 0.99, 0.4)])
    assert named(lenient, by("closure", require_consistent=False)) == ["ac"]
    assert reason(record("abc", CHAIN), by("closure", min_margin=0.5)) == "low_margin"


def test_what_a_judge_compared_is_never_implied_whatever_it_said() -> None:
    for p in (0.9, 0.5, 0.45, 0.1):
        assert reason(record("abc", [*CHAIN, (0, 2, p, p)]), by("closure")) == "not_implied"
    assert named(record("abc", [*CHAIN, (0, 2, None, None)]), by("closure")) == ["ac"]  # no usable answer is none


def test_a_circle_implies_nothing_and_neither_does_what_leads_through_it() -> None:
    circle: list[Asked] = [(0, 1, 0.95, 0.95), (1, 2, 0.95, 0.95), (2, 0, 0.95, 0.95)]
    after = record("abcd", [*circle, (2, 3, 0.95, 0.95)])
    assert reason(after, by("closure")) == "not_implied"
    # A slight preference closes a circle too, though it makes no pair.
    slight = record("abcd", [(0, 1, 0.95, 0.95), (1, 2, 0.95, 0.95), (2, 0, 0.55, 0.55), (2, 3, 0.95, 0.95)])
    assert reason(slight, by("closure")) == "not_implied"
    beside = record("abcdef", [*circle, (2, 3, 0.95, 0.95), (3, 4, 0.95, 0.95), (4, 5, 0.95, 0.95)])
    assert sorted(named(beside, by("closure", max_pairs_per_prompt=99))) == ["ce", "cf", "df"]


def test_of_several_ways_the_likeliest_counts() -> None:
    asked: list[Asked] = [(0, 1, 0.9, 0.9), (1, 3, 0.8, 0.8), (0, 2, 0.95, 0.95), (2, 3, 0.95, 0.95)]
    pairs, _ = pairs_of(record("abcd", asked), by("closure", max_pairs_per_prompt=9))
    assert [(pair.chosen, pair.rejected, pair.p) for pair in pairs] == [(0, 3, pytest.approx(0.9025))]


def test_the_soft_label_of_what_follows_from_reasoning_is_clamped_too() -> None:
    assert only(reasoned(record("abc", CHAIN)), by("closure")).soft_label == 0.6


def test_direct_pairs_and_what_follows_from_them_go_together() -> None:
    both = ExportSettings(pairs=("above_margin", "closure"), max_pairs_per_prompt=9)
    assert sorted(named(record("abc", CHAIN), both)) == ["ab", "ac", "bc"]


# Soft ties


@pytest.mark.parametrize(
    ("p", "soft"), [(0.5, True), (0.55, True), (0.45, True), (0.56, False), (0.44, False), (0.65, False)]
)
def test_about_even_is_a_tie_with_its_own_p(p: float, soft: bool) -> None:
    made = record(["a", ("b", 0)], [(0, 1, 1 - p, 1 - p)])
    found = found_in(made, by("revision_vs_original", ties="soft"))
    assert [tie.p for tie in found.ties] == ([pytest.approx(p)] if soft else [])
    assert all((tie.chosen, tie.rejected) == (1, 0) for tie in found.ties)


def test_a_judge_that_found_both_bad_leaves_no_tie() -> None:
    made = record("ab", [(0, 1, 0.5, 0.5)])
    bad = tuple(msgspec.structs.replace(one, outcome="both_bad") for one in made.verdicts)
    assert found_in(made.having(verdicts=bad), by("above_margin", ties="soft")).ties == ()


def test_pairs_go_before_ties_in_the_room_there_is() -> None:
    made = record("abc", [(0, 1, 0.52, 0.52), (0, 2, 0.9, 0.9), (1, 2, 0.9, 0.9)])
    rooms = [found_in(made, by("above_margin", ties="soft", max_pairs_per_prompt=n)) for n in (1, 2, 3)]
    assert [(len(found.pairs), len(found.ties)) for found in rooms] == [(1, 0), (2, 0), (2, 1)]


def test_what_is_a_pair_by_another_strategy_is_no_tie() -> None:
    both = ExportSettings(pairs=("above_margin", "strong_vs_weak"), ties="soft", max_pairs_per_prompt=9)
    found = found_in(record("ab", [(0, 1, 0.53, 0.53)], sides=["strong", "weak"]), both)
    assert [pair.strategy for pair in found.pairs] == ["strong_vs_weak"]
    assert found.ties == ()
