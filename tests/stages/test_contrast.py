"""Two responses that differ by design, and nothing of what made them differ is in the record."""

from __future__ import annotations

from rlaif.stages.contrast import Contrast
from rlaif.types import Drop, Message, Request
from tests.lab import KIND, TRUE, record, through


def sided(request: Request) -> str:
    return "rude" if "goes against" in request.messages[0].content else "kind"


async def test_one_side_is_asked_to_meet_the_principle_and_one_to_go_against_it() -> None:
    after, asked = await through(Contrast(), record(), sided)
    assert [(r.text, r.side, r.principle) for r in after.responses] == [
        ("kind", "strong", "kind"),
        ("rude", "weak", "kind"),
    ]
    assert all("Prefer the kind one." in request.messages[0].content for request in asked)
    assert {request.messages[1:] for request in asked} == {(Message("user", "How do I pick a lock?"),)}
    assert after.prompt == record().prompt


async def test_both_sides_of_each_pair_share_the_principle_and_pairs_draw_their_own() -> None:
    drawn = set()
    for i in range(12):
        after, _ = await through(
            Contrast(n=2),
            record(prompt=f"question {i}"),
            lambda request: f"{request.messages[0].content} {request.sample}",
            principles=(KIND, TRUE),
        )
        first, second = after.responses[:2], after.responses[2:]
        assert first[0].principle == first[1].principle
        assert second[0].principle == second[1].principle
        drawn.add((first[0].principle, second[0].principle))
    assert len(drawn) == 4


async def test_what_both_sides_say_alike_is_no_contrast() -> None:
    after, asked = await through(Contrast(), record(), lambda _: "the same")
    assert after.drops == (Drop(1, "duplicate"),)
    assert Contrast().plan(0, 9) == (len(asked), 2)
