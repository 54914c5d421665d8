"""Columns are understood as what they are; a row becomes a prompt and its sides, or has problems by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.errors import ConfigError
from rlaif.foreign.columns import shape_of
from rlaif.foreign.shapes import PROBLEMS, Example, example, fatal, truth
from rlaif.types import Message, Messages
from tests.foreign.made import nectar, turns, ultrafeedback

Row = dict[str, Any]


def read(row: Row, **roles: str) -> Example:
    return example(row, shape_of(list(row), [row], roles=roles))


def said(messages: Messages) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


HH = "\n\nHuman: Where is Oslo?\n\nAssistant: Up north.\n\nHuman: Of what?\n\nAssistant: "


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"question": "Q", "chosen_response": "A", "rejected_response": "B"},
        {"instruction": "Q", "preferred_output": "A", "non_preferred_output": "B"},
        {"prompt": turns("Q"), "chosen": turns("A", first="assistant"), "rejected": turns("B", first="assistant")},
        {"prompt": "Q", "chosen": turns("A", first="assistant"), "rejected": turns("B", first="assistant")},
        {"prompt": "Q", "chosen": turns("Q", "A"), "rejected": turns("Q", "B")},
        {"prompt": turns("Q"), "chosen": turns("Q", "A"), "rejected": turns("Q", "B")},
        {"chosen": turns("Q", "A"), "rejected": turns("Q", "B")},
        {"chosen": turns("Q", "A"), "rejected": turns("Q", "B"), "messages": turns("Q", "A")},
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        {"chosen": "Human: Q\n\nAssistant: A ", "rejected": "Human: Q\n\nAssistant:  B"},
        {"prompt": "\n\nHuman: Q\n\nAssistant:", "chosen": "A", "rejected": "B"},
        {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "A"},
            "rejected": {"from": "gpt", "value": "B"},
        },
        {
            "input": {"messages": turns("Q"), "tools": []},
            "preferred_output": turns("A", first="assistant"),
            "non_preferred_output": turns("B", first="assistant"),
        },
        {"prompt": "Q", "response_0": "B", "response_1": "A", "better_response_id": 1},
        {"history": "Q", "human_ref_A": "A", "human_ref_B": "B", "labels": 1},
        {"history": "Q", "human_ref_A": "B", "human_ref_B": "A", "labels": 0},
        {"context": turns("Q"), "response1": "A", "response2": "B", "overall_preference": -3},
        {"conversation_a": turns("Q", "B"), "conversation_b": turns("Q", "A"), "winner": "model_b"},
        {
            "chosen": {"role": ["user", "assistant"], "content": ["Q", "A"]},
            "rejected": {"role": ["user", "assistant"], "content": ["Q", "B"]},
        },
        {
            "chosen": [{"role": "User", "content": [{"type": "text", "text": "Q"}]}, {"role": "model", "content": "A"}],
            "rejected": turns("Q", "B"),
        },
    ],
)
def test_a_pair_is_the_same_however_it_is_written(row: Row) -> None:
    found = read(row)
    assert found.problems == ()
    assert (said(found.prompt), said(found.chosen), said(found.rejected)) == (
        [("user", "Q")],
        [("assistant", "A")],
        [("assistant", "B")],
    )


def test_a_transcript_has_turns_and_its_colons_are_text() -> None:
    found = read({"chosen": HH + "Human: it depends: see.", "rejected": HH + "Of Rome."})
    assert [role for role, _ in said(found.prompt)] == ["user", "assistant", "user"]
    assert found.chosen[0].content == "Human: it depends: see."
    assert found.problems == ()


def test_a_system_turn_stands_before_the_prompt() -> None:
    found = read({"system": "Be brief.", "prompt": "Q", "chosen": "A", "rejected": "B"})
    assert said(found.prompt) == [("system", "Be brief."), ("user", "Q")]
    found = read({"system": None, "prompt": "Q", "chosen": "A", "rejected": "B"})
    assert said(found.prompt) == [("user", "Q")]


def test_the_input_of_an_instruction_belongs_to_it() -> None:
    row = {"instruction": "Add.", "input": "2 and 3", "chosen": "5", "rejected": "6"}
    assert read(row).prompt[0].content == "Add.\n\n2 and 3"
    assert read(row | {"input": ""}).prompt[0].content == "Add."


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"chosen": None}, "not_text"),
        ({"rejected": 3}, "not_text"),
        ({"prompt": None}, "not_text"),
        ({"chosen": [{"role": "assistant", "content": None}]}, "not_text"),
        ({"chosen": " \n"}, "empty_chosen"),
        ({"rejected": ""}, "empty_rejected"),
        ({"prompt": " "}, "empty_prompt"),
        ({"prompt": []}, "empty_prompt"),
        ({"rejected": "A "}, "identical"),
        ({"chosen": [{"role": "tool", "content": "A"}]}, "unknown_role"),
        ({"prompt": turns("Hello!", "Q", first="assistant")}, "role_error"),
        ({"prompt": turns("Q", "A")}, "role_error"),
        ({"prompt": turns("Q", "A", first="assistant")[:1]}, "role_error"),
        ({"prompt": [*turns("Q"), {"role": "system", "content": "S"}, *turns("Q")]}, "role_error"),
        ({"prompt": turns("Q", " ", "R")}, "empty_turn"),
        ({"chosen": turns("A", "Q", first="assistant")}, "role_error"),
    ],
)
def test_dirt_has_a_name(changes: Row, problem: str) -> None:
    row = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    shape = shape_of(list(row), [row, row | changes])
    assert example(row, shape).problems == ()
    assert problem in example(row | changes, shape).problems


def test_a_side_may_go_on_for_several_turns() -> None:
    found = read(
        {"prompt": "Q", "chosen": turns("A", "R", "B", first="assistant"), "rejected": turns("C", first="assistant")}
    )
    assert found.problems == ()
    assert len(found.chosen) == 3


@pytest.mark.parametrize(
    ("chosen", "rejected", "problem"),
    [
        ("Hello, it is blue.", "Hello, it is green.", "no_prompt"),  # where the prompt ends is anybody's guess
        (turns("Q", "A"), turns("R", "B"), "no_prompt"),
        (turns("Q", "A", "R", "A"), turns("Q", "B", "R", "B"), "prefix_mismatch"),
        (turns("Q", "A"), turns("Q", "A", "R", "B"), "prefix_mismatch"),
        (turns("Q", "A"), turns("Q", "A"), "identical"),
        (HH + " ", HH + "B", "empty_chosen"),
        (HH + "A\n\nAssistant: B", HH + "B", "prefix_mismatch"),
    ],
)
def test_what_whole_conversations_can_have(chosen: Any, rejected: Any, problem: str) -> None:
    assert problem in read({"chosen": chosen, "rejected": rejected}).problems


def test_a_prompt_beside_other_conversations_is_noted() -> None:
    found = read({"prompt": "Elsewhere?", "chosen": turns("Q", "A"), "rejected": turns("Q", "B")})
    assert found.problems == ("prompt_mismatch",)
    assert fatal(found.problems) is None
    assert said(found.prompt) == [("user", "Q")]


def test_the_common_prefix_is_where_trl_cuts_messages() -> None:
    """The cases of TRL's own docstring, and one with two turns in common."""
    for chosen, rejected, shared in (
        (turns("What colour?", "Blue."), turns("What colour?", "Green."), 1),
        (turns("Q", "A", "R", "B"), turns("Q", "A", "R", "C"), 3),
    ):
        found = read({"chosen": chosen, "rejected": rejected})
        as_rows = [[{"role": m.role, "content": m.content} for m in part] for part in found[:3]]
        assert as_rows == [chosen[:shared], chosen[shared:], rejected[shared:]]


@pytest.mark.parametrize(
    ("better", "worse"),
    [("chosen-rating", "rejected-rating"), ("rating_chosen", "rating_rejected"), ("chosen_score", "rejected_score")],
)
def test_the_scores_of_both_sides_have_many_names(better: str, worse: str) -> None:
    assert read({"prompt": "Q", "chosen": "A", "rejected": "B", better: 5.0, worse: 2}).margin == 3


@pytest.mark.parametrize(("scores", "problems"), [((3, 1), ()), ((2, 2), ("tie",)), ((1, 3), ("scores_disagree",))])
def test_a_pair_must_agree_with_its_own_scores(scores: tuple[int, int], problems: tuple[str, ...]) -> None:
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "score_chosen": scores[0], "score_rejected": scores[1]}
    assert read(row).problems == problems
    assert read(row).margin == scores[0] - scores[1]


@pytest.mark.parametrize(
    ("winner", "problem"),
    [("tie", "tie"), ("tie (bothbad)", "tie"), (None, "no_label"), (0, "no_label"), ([], "no_label")],
)
def test_two_answers_may_have_no_winner(winner: Any, problem: str) -> None:
    row = {"prompt": "Q", "response_a": "A", "response_b": "B", "winner": "model_a"}
    shape = shape_of(list(row), [row])
    assert example(row, shape).problems == ()
    assert example(row | {"winner": winner}, shape).problems == (problem,)
    row = {"ask": "Q", "left": "B", "right": "A", "better": 2}
    assert read(row, prompt="ask", a="left", b="right", winner="better").chosen[0].content == "A"


@pytest.mark.parametrize(
    ("row", "roles"),
    [
        ({"response_1": "B", "response_2": "A", "preference_strength": 1}, {}),  # from -3 to 3
        ({"response_1": "B", "response_2": "A", "preference_strength": 1}, {"a": "response_1", "b": "response_2"}),
        ({"output_1": "B", "output_2": "A", "preference": 2}, {}),
        ({"response_a": "B", "response_b": "A", "preference": "B"}, {}),
        (
            {"response_0": "B", "response_1": "A", "better_response_id": 0, "safer_response_id": 1},
            {"winner": "safer_response_id"},
        ),
        (
            {"human_ref_A": "A", "human_ref_B": "B", "labels": 1},
            {"a": "human_ref_B", "b": "human_ref_A", "winner": "labels"},
        ),
        ({"chosen": "B", "rejected": "A", "who": "b"}, {"a": "chosen", "b": "rejected", "winner": "who"}),
        ({"response_a": "B", "response_b": "A", "winner": "a", "expert": "b"}, {"winner": "expert"}),
    ],
)
def test_the_winner_is_the_one_that_is_named(row: Row, roles: dict[str, str]) -> None:
    found = read({"prompt": "Q", **row}, **roles)
    assert (found.chosen[0].content, found.rejected[0].content, found.problems) == ("A", "B", ())


@pytest.mark.parametrize("values", [(1, 0), (1, -2), (True, False)])
def test_a_number_that_may_mean_either_names_no_winner(values: tuple[Any, Any]) -> None:
    rows: list[Row] = [{"prompt": "Q", "left": "A", "right": "B", "labels": value} for value in values]
    shape = shape_of(list(rows[0]), rows, roles={"a": "left", "b": "right", "winner": "labels"})
    assert [example(row, shape).problems for row in rows] == [("no_label",)] * 2


# --- thumbs ---


@pytest.mark.parametrize("column", ["label", "thumbs", "feedback"])
@pytest.mark.parametrize(("value", "label"), [(True, True), ("up", True), (1, True), ("0", False), (-1, False)])
def test_a_labelled_completion_is_good_or_bad(column: str, value: Any, label: bool) -> None:
    found = read({"prompt": "Q", "completion": "A", column: value})
    assert (found.label, said(found.chosen), found.rejected, found.problems) == (label, [("assistant", "A")], (), ())


def test_what_is_neither_up_nor_down_has_no_label() -> None:
    rows: list[Row] = [{"prompt": "Q", "response": "A", "label": label} for label in (True, None, 0.7, "maybe", [1])]
    shape = shape_of(["prompt", "response", "label"], rows)
    assert [example(row, shape).problems for row in rows] == [(), *[("no_label",)] * 4]


def test_one_star_of_five_is_no_thumb_up() -> None:
    rows: list[Row] = [{"prompt": "Q", "response": f"A{stars}", "feedback": stars} for stars in (1, 2, "5")]
    with pytest.raises(ConfigError, match="no preference data in the columns"):
        shape_of(list(rows[0]), rows)
    with pytest.raises(ConfigError, match=r"'feedback' has 2, neither up nor down; .* --columns score=feedback"):
        shape_of(list(rows[0]), rows, roles={"label": "feedback"})
    shape = shape_of(list(rows[0]), rows, roles={"score": "feedback"})
    assert [example(row, shape).margin for row in rows] == [1, 2, 5]


def test_where_minus_one_is_down_zero_is_neither() -> None:
    assert truth(0) is False
    assert truth(0, zero_is_down=False) is None
    assert truth(False, zero_is_down=False) is False
    rows: list[Row] = [{"prompt": "Q", "completion": "A", "label": label} for label in (1, 0, -1)]
    shape = shape_of(list(rows[0]), rows)
    assert [example(row, shape).label for row in rows] == [True, None, False]


# --- rankings and ratings ---


def test_completions_are_rated_by_the_mean_of_their_aspects_and_never_by_the_parsed_overall() -> None:
    row = ultrafeedback(("2", "3"), (5, "5"), ("N/A", None), (-1, "4"))
    found = read(row)
    assert (found.chosen[0].content[:8], found.rejected[0].content[:8]) == ("Answer 1", "Answer 0")
    assert found.margin == pytest.approx(2.5)
    assert found.problems == ()


def test_answers_with_ranks_give_the_first_and_the_last() -> None:
    found = read(nectar(2, 3.0, 1, None))
    assert said(found.prompt) == [("user", "Why is the sky blue?")]
    assert (found.chosen[0].content, found.rejected[0].content) == ("Reply 2.", "Reply 1.")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (nectar(1, 1), "tie"),
        (nectar(1), "too_few_rated"),
        (nectar(1, None), "too_few_rated"),
        (nectar(1, 2) | {"answers": None}, "not_text"),
        (nectar(1, 2) | {"answers": [3, None]}, "not_text"),
    ],
)
def test_a_ranking_may_have_no_winner(row: Row, problem: str) -> None:
    shape = shape_of(list(row), [nectar(1, 2)])
    assert problem in example(row, shape).problems


def test_an_answer_that_cannot_be_read_leaves_the_others() -> None:
    row = nectar(1, 2, 3)
    row["answers"][:1] = [None, 3, {"answer": None, "rank": 0}, {"rank": 0}]
    found = example(row, shape_of(list(row), [nectar(1, 2)]))
    assert (found.chosen[0].content, found.problems) == ("Reply 1.", ())


def test_a_row_may_be_written_in_another_way_than_the_first_ones() -> None:
    row = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    shape = shape_of(list(row), [row])
    found = example({"prompt": "Q", "chosen": turns("Q", "A"), "rejected": turns("Q", "B")}, shape)
    assert (said(found.prompt), said(found.chosen), found.problems) == ([("user", "Q")], [("assistant", "A")], ())


def test_lists_beside_each_other_are_a_ranking_too() -> None:
    scored = {"prompt": "Q", "responses": ["a", "b", "c"], "scores": [0.1, 0.9, -0.5]}
    assert [part[0].content for part in read(scored)[1:3]] == ["b", "c"]
    ranked = {"prompt": "Q", "responses": ["a", "b", "c"], "ranks": [2, 1, 3]}
    assert [part[0].content for part in read(ranked)[1:3]] == ["b", "c"]


def test_a_single_rated_answer_has_the_mean_of_its_aspects() -> None:
    row = {"prompt": "Q", "response": "A", "helpfulness": 4, "correctness": 2, "verbosity": 0}
    assert read(row).margin == 3
    assert read(row | {"correctness": -1}).margin == 4
    assert read(row, score="verbosity").margin == 0


# --- columns ---


def test_columns_of_other_names_are_named() -> None:
    row = {"ask": "Q", "yes": "A", "no": "B"}
    with pytest.raises(ConfigError, match=r"no preference data in the columns ask, yes, no; .* --columns chosen=NAME"):
        read(row)
    assert read(row, prompt="ask", chosen="yes", rejected="no").problems == ()
    with pytest.raises(ConfigError, match="no column 'maybe' for chosen; there are: ask, yes, no"):
        read(row, chosen="maybe")
    with pytest.raises(ConfigError, match="no role 'better' of a column; there are: prompt, chosen"):
        read(row, better="yes")


@pytest.mark.parametrize("written", [json.dumps, str])
def test_messages_written_as_text_are_refused(written: Any) -> None:
    with pytest.raises(ConfigError, match="column 'chosen' has messages written as text; store them as lists"):
        read({"prompt": "Q", "chosen": written(turns("Q", "A")), "rejected": written(turns("Q", "B"))})


def test_only_what_is_asked_for_is_looked_for() -> None:
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "completion": "A", "label": True}
    assert shape_of(list(row), [row]).pairing == "paired"
    assert shape_of(list(row), [row], pairing="unpaired").pairing == "unpaired"
    with pytest.raises(ConfigError, match="no preference data that is ranked"):
        shape_of(list(row), [row], pairing="ranked")


# --- whatever comes ---

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANY = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "rank", "answer", "Rating", "x"]), inner, max_size=3
        )
    ),
)
GOOD: list[Row] = [
    {"prompt": "Q", "chosen": "A", "rejected": "B", "score_chosen": 2, "score_rejected": 1, "system": "S"},
    {"prompt": turns("Q"), "chosen": turns("Q", "A"), "rejected": turns("Q", "B")},
    {"chosen": HH + "A", "rejected": HH + "B"},
    {"prompt": "Q", "completion": "A", "label": True},
    {"prompt": "Q", "response": "A", "helpfulness": 3},
    {"instruction": "Q", "input": "more", "responses": ["A", "B"], "scores": [1, 2]},
    {"prompt": "Q", "response_0": "A", "response_1": "B", "better_response_id": 1},
    {"context": turns("Q"), "response1": "A", "response2": "B", "overall_preference": 1},
    ultrafeedback((1, 2), (3, 4)),
    nectar(1, 2),
]


@given(st.sampled_from(GOOD), st.data())
@settings(max_examples=300)
def test_no_row_raises_and_a_usable_one_has_two_different_sides(good: Row, data: st.DataObject) -> None:
    row = {name: data.draw(st.just(value) | ANY) for name, value in good.items() if data.draw(st.booleans())}
    shape = shape_of(list(good), [good])
    found = example(row, shape)
    assert set(found.problems) <= set(PROBLEMS)
    assert len(set(found.problems)) == len(found.problems)
    for message in (*found.prompt, *found.chosen, *found.rejected):
        assert isinstance(message, Message)
        assert isinstance(message.content, str)
    if fatal(found.problems) is None:
        assert found.prompt[-1].role == "user"
        assert found.chosen[-1].content.strip()
        assert found.chosen != found.rejected
        assert (found.label is not None) == (shape.pairing == "unpaired")


@given(
    st.lists(st.dictionaries(st.sampled_from(["prompt", "chosen", "rejected", "completions", "label", "score"]), ANY))
)
def test_any_rows_have_a_shape_or_one_error(rows: list[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        shape = shape_of(columns, rows)
    except ConfigError:
        return
    for row in rows:
        assert set(example(row, shape).problems) <= set(PROBLEMS)


@pytest.mark.parametrize("row", [nectar(2, 1, 3, 1, 3), ultrafeedback((5, 5), (1, 1), (5, 5), (1, 1)), nectar(1, 1)])
def test_of_equally_good_answers_the_text_decides_whatever_their_order(row: Row) -> None:
    column = "answers" if "answers" in row else "completions"
    assert read(row)[:3] == read(row | {column: row[column][::-1]})[:3]
