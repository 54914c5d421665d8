"""A response is critiqued and rewritten by principles, and each rewrite knows what it rewrote."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rlaif.constitution import Principle
from rlaif.errors import ConfigError
from rlaif.stages.revise import Revise
from rlaif.types import Completion, Drop, Message, Record, Request
from tests.lab import KIND, TRUE, record, through

MANY = tuple(Principle(id=f"p{i}", critique=f"Is it {i}?", revision=f"Make it {i}.") for i in range(6))


def asks_for(request: Request) -> str:
    return request.messages[-1].content.partition(":")[0].lower()


def answer(request: Request) -> str:
    """Says `critique of (what is criticised)` or `(what is revised)+`."""
    if asks_for(request) == "critique request":
        return f"critique of {request.messages[-2].content}"
    turns = [message.content for message in request.messages if message.role == "assistant"]
    return f"{turns[-2] if turns[-1].startswith('critique') else turns[-1]}+"


async def revised(stage: Revise, made: Record, reply: Any = answer, **settings: Any) -> tuple[Record, list[Request]]:
    return await through(stage, made, reply, **settings)


async def test_each_revision_takes_the_responses_place_and_is_linked_to_what_it_revises() -> None:
    after, _ = await revised(Revise(rounds=3), record("draft", "other"))
    assert [response.text for response in after.responses] == ["draft", "other", "draft+", "draft++", "draft+++"]
    assert [response.revises for response in after.responses] == [None, None, 0, 2, 3]
    assert [response.critique for response in after.responses[2:]] == [f"critique of draft{'+' * i}" for i in range(3)]
    assert {response.principle for response in after.responses[2:]} == {"kind"}
    assert after.candidates() == [0, 1, 4]


async def test_a_critique_is_dropped_from_the_next_rounds_conversation() -> None:
    _, asked = await revised(Revise(rounds=2, few_shot=False), record("draft"))
    texts = [[message.content for message in request.messages if message.role != "system"] for request in asked]
    prompt = "How do I pick a lock?"
    assert [text[:-1] for text in texts] == [
        [prompt, "draft"],
        [prompt, "draft", texts[0][-1], "critique of draft"],
        [prompt, "draft+"],
        [prompt, "draft+", texts[2][-1], "critique of draft+"],
    ]
    assert texts[1][-1].startswith("Revision request: Make it kind.")


async def test_all_requests_of_a_record_share_the_worked_examples_as_their_prefix() -> None:
    _, asked = await revised(Revise(rounds=2), record("draft"))
    examples = next(i for i, m in enumerate(asked[0].messages) if m.content == "How do I pick a lock?")
    assert examples > 4
    assert len({request.messages[: examples + 1] for request in asked}) == 1
    assert asked[1].messages[: len(asked[0].messages)] == asked[0].messages


async def test_without_critique_the_rewrite_is_asked_for_directly_by_any_principle_with_a_revision() -> None:
    bare = Principle(id="bare", revision="Make it short.")
    after, asked = await revised(Revise(rounds=1, critique=False), record("draft"), principles=(bare,))
    assert [asks_for(request) for request in asked] == ["revision request"]
    assert after.responses[1].critique is None
    assert Revise(critique=False).draws() == {"revision": 1}
    assert Revise(critique=False, rounds=3).plan(2, 20) == (3, 3)


async def test_a_principle_is_drawn_at_every_step_the_same_way_each_time() -> None:
    runs = [await revised(Revise(rounds=6), record("draft"), principles=MANY, seed=seed) for seed in (0, 0, 1)]
    drawn = [[response.principle for response in after.responses[1:]] for after, _ in runs]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) < 6  # with replacement: 6 draws of 6 that are all different have p = 0.015


async def test_without_replacement_no_principle_comes_twice() -> None:
    after, _ = await revised(Revise(rounds=6, replacement=False), record("draft"), principles=MANY)
    assert sorted(str(response.principle) for response in after.responses[1:]) == [p.id for p in MANY]


async def test_more_rounds_than_principles_without_replacement_say_what_to_change() -> None:
    with pytest.raises(ConfigError, match=r"only 2 principle\(s\) with `critique:` and all are used up"):
        await revised(Revise(rounds=3, replacement=False), record("draft"), principles=(KIND, TRUE))


@pytest.mark.parametrize("clean", ["No issues.", "**No issues**", '"No issues found with this answer."', "no issues"])
async def test_until_clean_ends_the_chain_when_the_critique_finds_nothing(clean: str) -> None:
    def reply(request: Request) -> str:
        return clean if request.messages[-2].content == "draft++" else answer(request)

    after, asked = await revised(Revise(rounds=4, until_clean=True), record("draft"), reply)
    assert [response.text for response in after.responses] == ["draft", "draft+", "draft++"]
    assert len(asked) == 5


@pytest.mark.parametrize("critique", ["No issues with privacy, but it is rude.", "There are issues.", "", "None"])
async def test_until_clean_goes_on_after_any_criticism(critique: str) -> None:
    def reply(request: Request) -> str:
        return critique if asks_for(request) == "critique request" else f"rewrite {request.sample}"

    after, _ = await revised(Revise(rounds=2, until_clean=True), record("draft"), reply)
    assert len(after.responses) == 3


async def test_without_until_clean_every_round_is_asked() -> None:
    after, _ = await revised(Revise(rounds=2), record("draft"), lambda _: "No issues.")
    assert len(after.responses) == 3


def test_until_clean_needs_the_critique_it_reads() -> None:
    with pytest.raises(ValidationError, match="until_clean"):
        Revise(until_clean=True, critique=False)


async def test_an_empty_rewrite_is_kept_but_not_built_on() -> None:
    def reply(request: Request) -> str:
        return "" if asks_for(request) == "revision request" and request.sample == 1 else answer(request)

    after, _ = await revised(Revise(rounds=3), record("draft"), reply)
    assert [response.text for response in after.responses] == ["draft", "draft+", "", "draft++"]
    assert [response.revises for response in after.responses] == [None, 0, 1, 1]


async def test_the_first_live_drafts_are_revised_and_empty_ones_are_not() -> None:
    made = record("one", "", "three", "four").having(drops=(Drop(0, "duplicate"),))
    after, _ = await revised(Revise(rounds=2, drafts=2), made)
    assert [response.text for response in after.responses[4:]] == ["three+", "three++", "four+", "four++"]
    assert [response.revises for response in after.responses[4:]] == [2, 4, 3, 6]
    assert Revise(rounds=2, drafts=2).plan(4, 20) == (8, 6)


async def test_a_record_without_a_usable_draft_is_handed_on_as_it_is() -> None:
    made = record("")
    assert await revised(Revise(), made) == (made, [])


async def test_a_conversation_of_several_turns_is_revised_at_its_end() -> None:
    prompt = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Go on"))
    _, asked = await revised(Revise(rounds=1, few_shot=False), record("draft").having(prompt=prompt))
    assert [m.content for m in asked[0].messages[1:5]] == ["Hi", "Hello", "Go on", "draft"]


async def test_truncated_rewrites_are_recorded_as_such() -> None:
    after, _ = await revised(Revise(rounds=1), record("draft"), lambda _: Completion("It goes on and", "length"))
    assert after.responses[1].finish_reason == "length"


@pytest.mark.parametrize("said", [Completion("", "refusal"), Completion("I will not.", "content_filter"), "  "])
async def test_a_critic_that_refuses_is_counted_and_the_next_round_is_drawn(said: Completion | str) -> None:
    def refusing(request: Request) -> Completion | str:
        return said if request.sample == 0 and asks_for(request) == "critique request" else answer(request)

    after, asked = await revised(Revise(rounds=2), record("draft"), refusing)
    assert [response.text for response in after.responses] == ["draft", "", "draft+"]
    assert after.drops == (Drop(1, "no_critique"),)
    assert after.responses[2].revises == 0
    assert [asks_for(request) for request in asked] == ["critique request", "critique request", "revision request"]
