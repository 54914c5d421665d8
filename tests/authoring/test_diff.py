"""A comparison says what was edited, and its price: the draws that a run with the new one sends again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.authoring.diff import Changed, Redrawn, Renamed, Reworded, compare, marked
from rlaif.constitution import Constitution, Principle, Purpose, load_constitution
from tests.authoring.texts import SHORT_ANSWERS, SOURCES, WARMTH, of, sound


def edited(before: Constitution, name: str, **fields: Any) -> Constitution:
    return of(*(p.model_copy(update=fields) if p.id == name else p for p in before.principles))


def drawn(a: Constitution, b: Constitution, purpose: Purpose = "judge") -> Redrawn:
    (found,) = (redrawn for redrawn in compare(a, b, draws=4000).redrawn if redrawn.purpose == purpose)
    return found


def test_a_constitution_has_no_difference_to_itself_and_costs_nothing() -> None:
    changes = compare(sound(), sound(), draws=400)
    assert not changes
    assert {redrawn.again for redrawn in changes.redrawn} == {0.0}


def test_what_was_added_removed_and_weighed_anew_is_named() -> None:
    before = sound(Principle(id="verse", judge="Prefer the response in verse."))
    after = edited(
        sound(Principle(id="prose", judge="Say it plainly; prefer prose.")), "sources", weight=2.0, tags=("honest",)
    )
    changes = compare(before, after, draws=400)
    assert changes.added == ("prose",)
    assert changes.removed == ("verse",)
    assert changes.renamed == ()
    assert changes.weights == (Changed("sources", 1.0, 2.0),)
    assert changes.tags == (Changed("sources", (), ("honest",)),)


def test_a_new_id_for_the_same_texts_is_a_renaming_and_its_draws_are_made_anew() -> None:
    before = sound()
    after = edited(before, "sources", id="origins")
    changes = compare(before, after, draws=400)
    assert changes.renamed == (Renamed("sources", "origins", 1.0),)
    assert (changes.added, changes.removed, changes.reworded) == ((), (), ())
    # Of four a quarter of the draws each; with the old and the new id among five, both come first in a tenth.
    assert drawn(before, after).moved == pytest.approx(2 * (1 / 4 - 1 / 10), abs=0.03)


def test_what_was_changed_in_a_renamed_principle_is_told_under_its_new_name() -> None:
    before = sound()
    new = SOURCES["judge"].replace("invents", "makes up")
    changes = compare(before, edited(before, "sources", id="origins", judge=new, weight=2.0), draws=400)
    assert [(names.before, names.after) for names in changes.renamed] == [("sources", "origins")]
    assert 0.85 <= changes.renamed[0].alike < 1
    assert changes.reworded == (Reworded("origins", "judge", SOURCES["judge"], new),)
    assert changes.weights == (Changed("origins", 1.0, 2.0),)


def test_other_texts_under_another_id_are_another_principle() -> None:
    before, after = of(Principle(id="a", **SOURCES)), of(Principle(id="b", **WARMTH))
    changes = compare(before, after, draws=400)
    assert (changes.added, changes.removed, changes.renamed) == (("b",), ("a",), ())
    assert drawn(before, after).again == 1.0


def test_a_text_that_was_given_or_taken_away_is_reworded_from_or_to_nothing() -> None:
    before = sound()
    changes = compare(before, edited(before, "sources", judge=None), draws=400)
    assert changes.reworded == (Reworded("sources", "judge", SOURCES["judge"], None),)
    assert not drawn(before, edited(before, "sources", judge=None)).after.get("sources")


def test_fields_of_the_head_and_the_order_are_told_and_cost_nothing() -> None:
    before = sound()
    after = of(*before.principles[::-1], version="2", description="New.")
    changes = compare(before, after, draws=400)
    assert changes.metadata == (Changed("version", "1", "2"), Changed("description", "", "New."))
    assert changes.reordered
    assert {redrawn.again for redrawn in changes.redrawn} == {0.0}


def test_an_added_principle_takes_its_share_of_the_draws_and_moves_no_other() -> None:
    before, after = sound(), sound(Principle(id="verse", weight=2, judge="Prefer the response in verse."))
    found = drawn(before, after)
    assert found.after["verse"] == pytest.approx(2 / 6)
    assert found.moved == pytest.approx(2 / 6, abs=0.03)
    assert found.reworded == 0.0
    assert drawn(before, after, "critique").again == 0.0


def test_a_reworded_principle_keeps_its_draws_and_sends_them_again() -> None:
    before = sound()
    after = edited(before, "sources", judge=f"{SOURCES['judge']} In doubt, prefer the shorter one.")
    found = drawn(before, after)
    assert (found.moved, found.reworded) == (0.0, pytest.approx(0.25, abs=0.03))
    assert drawn(before, after, "critique").again == 0.0


def test_a_critique_is_sent_again_for_its_revision_too() -> None:
    before = sound()
    after = edited(before, "sources", revision="Rewrite the response as a list of sources.")
    assert drawn(before, after, "critique").reworded == pytest.approx(0.25, abs=0.03)
    assert drawn(before, after, "judge").again == 0.0


def test_a_draw_that_goes_to_the_same_words_under_another_name_is_not_sent_again() -> None:
    twins = [Principle(id=name, **SHORT_ANSWERS) for name in "ab"]
    assert drawn(of(*twins), of(twins[0])).again == 0.0


def test_in_four_rounds_more_responses_are_touched_than_draws() -> None:
    before = sound()
    after = edited(before, "sources", critique="List the claims in the response that name no origin.")
    found = drawn(before, after, "critique")
    assert found.chains == pytest.approx(1 - 0.75**4, abs=0.04)
    assert drawn(before, after, "judge").chains is None


def test_the_shares_are_those_that_the_draws_of_a_run_give() -> None:
    """Another seed, another stage: the simulated draws stand for all."""
    before = load_constitution("safety")
    after = of(*before.principles[1:], name=before.name)
    ids = [f"7/{i:016x}/judge/0" for i in range(5000)]
    moved = sum(before.draw(draw_id, "judge").id != after.draw(draw_id, "judge").id for draw_id in ids) / len(ids)
    assert drawn(before, after).again == pytest.approx(moved, abs=0.03)


def test_another_language_of_the_templates_makes_every_call_another_one() -> None:
    before = sound()
    changes = compare(before, of(*before.principles, language="zh"), draws=400)
    assert changes.new_language
    assert {redrawn.again for redrawn in changes.redrawn} == {1.0}
    no_templates = compare(before, of(*before.principles, language="de"), draws=400)
    assert not no_templates.new_language
    assert {redrawn.again for redrawn in no_templates.redrawn} == {0.0}


def test_a_purpose_that_only_one_of_them_has_is_not_compared() -> None:
    judging = of(Principle(id="a", judge="Prefer verse."))
    assert {redrawn.purpose for redrawn in compare(sound(), judging, draws=400).redrawn} == {"judge"}


def test_words_that_went_and_came_are_marked_in_reading_order() -> None:
    assert marked("Keep the old words.", "Keep the new, good words.") == [
        ("same", "Keep the "),
        ("removed", "old "),
        ("added", "new, good "),
        ("same", "words."),
    ]


def test_chinese_is_compared_by_characters() -> None:
    assert marked("选择简短的回答。", "选择温和的回答。") == [
        ("same", "选择"), ("removed", "简短"), ("added", "温和"), ("same", "的回答。"),
    ]  # fmt: skip


@given(st.text(), st.text())
def test_the_marks_hold_both_texts_whole(before: str, after: str) -> None:
    pieces = marked(before, after)
    assert "".join(words for kind, words in pieces if kind != "added") == before
    assert "".join(words for kind, words in pieces if kind != "removed") == after


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.sampled_from(["x", "y"]), st.floats(0.1, 9)), min_size=1),
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.sampled_from(["x", "y"]), st.floats(0.1, 9)), min_size=1),
)
def test_any_two_constitutions_are_compared_and_every_principle_is_accounted_for(
    one: dict[str, tuple[str, float]], two: dict[str, tuple[str, float]]
) -> None:
    a, b = (
        of(*(Principle(id=name, judge=text, weight=weight) for name, (text, weight) in each.items()))
        for each in (one, two)
    )
    changes = compare(a, b, draws=40)
    old, new = {names.before for names in changes.renamed}, {names.after for names in changes.renamed}
    assert {*changes.removed, *old} == set(one) - set(two)
    assert {*changes.added, *new} == set(two) - set(one)
    (found,) = changes.redrawn
    assert found.moved + found.reworded == pytest.approx(found.again)
    assert 0 <= found.again <= 1
    assert sum(found.after.values()) == pytest.approx(1)
