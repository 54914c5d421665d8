"""The stage names its comparisons and principles; what is asked of the judge follows from them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from rlaif.constitution import Principle
from rlaif.errors import CallFailed, ProviderError
from rlaif.journal import Traits
from rlaif.judges.pairwise import Pairwise
from rlaif.stages.judge import Judge, Rate
from rlaif.types import Completion, Drop, Record, Request, Response
from tests.judges.test_parse import token
from tests.lab import KIND, TRUE, letter, record, shown, through

WITHOUT_JUDGE = Principle(id="silent", revision="Make it short.")


def chain() -> Record:
    """Drafts 0 and 1; 2 and 3 revise 0, 4 revises 1."""
    links: list[tuple[str, int | None]] = [("a", None), ("b", None), ("a+", 0), ("a++", 2), ("b+", 1)]
    return record().having(responses=tuple(Response(text, "policy", revises=parent) for text, parent in links))


def longer(request: Request) -> Completion:
    a, b = shown(request)
    return letter(0.9 if len(a) > len(b) else 0.1 if len(b) > len(a) else 0.5)


def compared(after: Record) -> list[tuple[int, int]]:
    return [(verdict.first, verdict.second) for verdict in after.verdicts]


async def test_all_compares_drafts_and_last_revisions_once_each_in_both_orders() -> None:
    after, asked = await through(Judge(comparisons=("all",)), chain(), longer)
    assert compared(after) == [(0, 1), (0, 3), (0, 4), (1, 3), (1, 4), (3, 4)]
    assert len(asked) == 12 == Judge().plan(4, 20)[0]
    assert Counter(map(frozenset, map(shown, asked))).most_common(1)[0][1] == 2
    winners = {(v.first, v.second): v.p_first for v in after.verdicts}
    assert winners[0, 3] == pytest.approx(0.1)


async def test_revisions_compares_each_last_revision_with_its_own_draft() -> None:
    after, _ = await through(Judge(comparisons=("revisions",)), chain(), longer)
    assert compared(after) == [(0, 3), (1, 4)]
    both, _ = await through(Judge(comparisons=("revisions", "all")), chain(), longer)
    assert len(compared(both)) == 6


async def test_dropped_responses_are_not_compared() -> None:
    made = chain().having(drops=(Drop(0, "empty"), Drop(4, "truncated")))
    after, _ = await through(Judge(comparisons=("revisions", "all")), made, longer)
    assert compared(after) == [(1, 3)]
    alone, asked = await through(Judge(), record("only"), longer)
    assert (alone.verdicts, asked) == ((), [])


async def test_a_dropped_last_revision_gives_its_place_to_the_one_before() -> None:
    after, _ = await through(Judge(comparisons=("revisions",)), chain().having(drops=(Drop(3, "empty"),)), longer)
    assert compared(after) == [(0, 2), (1, 4)]


async def test_each_label_draws_one_principle_of_those_with_a_judge_text() -> None:
    principles = (KIND, TRUE, WITHOUT_JUDGE)
    drawn = set()
    for i in range(12):
        after, asked = await through(Judge(), record("a", "bb", prompt=f"Prompt {i}"), longer, principles=principles)
        (verdict,) = after.verdicts
        text = {"kind": KIND, "true": TRUE}[verdict.principle].judge
        assert all(f"Criterion: {text}" in request.messages[-1].content for request in asked)
        drawn.add(verdict.principle)
    assert drawn == {"kind", "true"}


async def test_all_principles_are_asked_when_all_are_wanted() -> None:
    after, asked = await through(
        Judge(principles="all"), record("a", "bb"), longer, principles=(KIND, TRUE, WITHOUT_JUDGE)
    )
    assert [verdict.principle for verdict in after.verdicts] == ["kind", "true"]
    assert len(asked) == 4


async def test_a_second_judge_stage_adds_its_verdicts_to_the_first_ones() -> None:
    once, _ = await through(Judge(), record("a", "bb"), longer)
    twice, _ = await through(Judge(), once, longer)
    assert len(twice.verdicts) == 2


async def test_a_comparison_that_failed_fails_the_record_after_the_others_were_answered() -> None:
    asked: list[Request] = []

    def fails_once(request: Request) -> Completion:
        asked.append(request)
        if shown(request)[0] == "a":
            raise ProviderError("bad_request", "no")
        return longer(request)

    with pytest.raises(CallFailed):
        await through(Judge(), record("a", "bb", "ccc"), fails_once)
    assert len(asked) == 6


def digit(request: Request) -> Completion:
    text = request.messages[-1].content.partition("<response>\n")[2].partition("\n<")[0]
    return Completion(str(len(text)), logprobs=(token({str(len(text)): 1.0}),))


async def test_rate_scores_every_candidate_by_every_principle() -> None:
    stage = Rate()
    after, _ = await through(stage, record("a", "bbbbb", "ccccccccc"), digit, principles=(KIND, TRUE, WITHOUT_JUDGE))
    values: dict[str, list[Any]] = {"kind": [], "true": []}
    for score in after.scores:
        values[score.principle].append((score.response, score.value))
    assert values == {name: [(0, -1.0), (1, 0.0), (2, 1.0)] for name in values}
    assert stage.roles() == ("judge",)


async def test_rate_draws_one_principle_a_record_so_that_its_scores_compare() -> None:
    after, _ = await through(Rate(principles="draw"), record("a", "bb", "ccc"), digit, principles=(KIND, TRUE))
    assert len(after.scores) == 3
    assert len({score.principle for score in after.scores}) == 1


async def test_a_reply_without_a_rating_is_kept_without_a_value() -> None:
    after, _ = await through(Rate(), record("a", "bb"), lambda _: Completion("I cannot rate this."))
    assert {score.value for score in after.scores} == {None}


async def test_a_judge_that_votes_is_planned_with_all_its_votes() -> None:
    stage = Judge(by=Pairwise(votes=6))
    _, asked = await through(stage, record("a", "b", "c"), lambda _: "A", traits=Traits())
    assert len(asked) == stage.plan(3, 20, {"judge"})[0] == 18
    assert stage.plan(3, 20, {"policy"})[0] == 6
    rate = Rate(principles="draw")
    _, asked = await through(rate, record("a", "b"), lambda _: "7", traits=Traits())
    assert len(asked) == rate.plan(2, 20, {"judge"})[0] == 6
