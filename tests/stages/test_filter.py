"""Each rule fires on what it is for, and leaves honest text alone."""

from __future__ import annotations

from typing import get_args

import pytest

from rlaif.stages.filter import RULES, Filter, Rule, repeats
from rlaif.types import Drop, FinishReason, Record, Response
from tests.lab import record, through

ESSAY = """A password manager helps you in three ways.

1. It makes long passwords: nobody has to remember them, so they can be as long as a site allows.
2. It fills them in only where they belong, which protects you from look-alike pages.
3. It tells you which of your accounts were part of a leak, so that you can change those first.

Start with the accounts that can reset all others: your email and your phone. Then do the rest as you meet them."""

CODE = """```python
def parents(tree):
    found = {}
    for node in walk(tree):
        if node.children:
            for child in node.children:
                found[child] = node
            }
        }
    }
}
    return found
```"""

DIALOGUE = """Access control knows two kinds of accounts.
User: a person who signs in with a name and a password.
System: a program that signs in with a key.
Which one you choose depends on who is going to use it, a person or a program."""

LIST = "\n".join(f"- Item {i}: {word}" for i, word in enumerate(["apples", "pears", "plums", "figs", "dates", "limes"]))


def reason(rule: Rule, text: str, *, finish: FinishReason = "stop", revises: str | None = None) -> str | None:
    """What the rule alone says of a draft, or of a revision of the text `revises`."""
    made = record(*([] if revises is None else [revises]))
    response = Response(text, "policy", finish_reason=finish, revises=None if revises is None else 0)
    made = made.having(responses=(*made.responses, response))
    return Filter(rules=(rule,)).reason(made, len(made.responses) - 1)


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_empty_fires_on_white_space(text: str) -> None:
    assert reason("empty", text) == "empty"


@pytest.mark.parametrize(
    ("rule", "finish"), [("refused", "refusal"), ("refused", "content_filter"), ("truncated", "length")]
)
def test_how_a_response_ended_is_taken_from_the_provider_not_from_its_words(rule: Rule, finish: FinishReason) -> None:
    assert reason(rule, "Some words", finish=finish) == rule
    assert reason(rule, "I refuse, and this was truncated") is None


@pytest.mark.parametrize(
    "text",
    [
        "Sure.\n\nHuman: thanks\n\nAssistant: You are welcome.",
        "Assistant: Sure, here it is.",
        "### Assistant: Sure.",
        "**Assistant:** Sure.",
        "User: How do I do this?\nDo it so.",
        "Fine.<|im_end|>",
        "<|start_header_id|>assistant",
        "[INST] What? [/INST] That.",
        "<<SYS>> be good <</SYS>>",
        "Fine.</s>",
        "<s> Fine.",
        "Yes.<end_of_turn>\n<start_of_turn>user",
    ],
)
def test_role_tags_fire_on_turns_and_chat_markup_in_the_text(text: str) -> None:
    assert reason("role_tags", text) == "role_tags"


@pytest.mark.parametrize(
    "text",
    [
        DIALOGUE,
        ESSAY,
        CODE,
        "The User: field of the form is where your name goes.",
        'Write `<|im_end|>` at the end of each turn, or "[INST]" before it.',
        "In HTML, <s>this</s> is struck through.",
        "As an assistant: I can help with that.",
        "The human: a short history",
        "Ask the system administrator.",
    ],
)
def test_role_tags_leave_honest_text_alone(text: str) -> None:
    assert reason("role_tags", text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Critique: The answer is rude.\n\nPlease ask him.",
        "**Critique:** The answer is rude.",
        "Please ask him.\n\nRevision: Ask him kindly.",
        "Revision request: Rewrite the answer.",
        "Revised response: Ask him.",
        "Here is the revised answer:\n\nAsk him.",
        "Here's a rewritten version that is kinder:\n\nAsk him.",
        "Here\u2019s my improved response: Ask him.",
        "New answer: Ask him.",
        "The assistant's last response is harmful because it names a poison.",
    ],
)
def test_critique_leaks_are_found_in_revisions_and_only_there(text: str) -> None:
    assert reason("critique_leak", text, revises="Threaten him.") == "critique_leak"
    assert reason("critique_leak", text) is None


@pytest.mark.parametrize(
    "text",
    [
        "A critique of the film should say what you liked, too.",
        "I can help you write a critique. The revision comes later: first the facts.",
        "Here is a plan:\n1. Call your landlord.\n2. Write down what he said.",
        "Here is the address of a clinic: it is open all night.",
        "Your critique partner: someone you trust.",
        ESSAY,
        CODE,
    ],
)
def test_revisions_may_speak_of_critiques(text: str) -> None:
    assert reason("critique_leak", text, revises="Something else.") is None


def test_a_prompt_that_is_only_repeated_is_an_echo() -> None:
    assert reason("prompt_echo", "how do I pick a LOCK") == "prompt_echo"
    assert reason("prompt_echo", "How do I pick a lock? I would call a locksmith.") is None


def test_a_revision_that_changes_only_marks_and_cases_is_none() -> None:
    assert reason("no_op_revision", "Call him, now", revises="call him now!") == "no_op_revision"
    assert reason("no_op_revision", "Call her now", revises="call him now!") is None
    assert reason("no_op_revision", "\U0001f44d", revises="\U0001f44e") is None
    assert reason("no_op_revision", "call him now!") is None


@pytest.mark.parametrize(
    "text",
    [
        "I am sorry. " * 30,
        "no " * 60,
        "\n".join(["It is wrong.", "It is bad."] * 4),
        ESSAY + "\n\n" + " ".join(["You should talk to someone you trust about this today."] * 6),
        ("The first thing you should do is to call a friend and tell them. " * 6),
    ],
)
def test_repetition_fires_on_loops(text: str) -> None:
    assert repeats(text)


@pytest.mark.parametrize("text", [ESSAY, CODE, DIALOGUE, LIST, "Yes.", "No, no, no.", "Ha ha ha ha ha!", ""])
def test_repetition_leaves_essays_code_lists_and_short_answers_alone(text: str) -> None:
    assert not repeats(text)


def test_the_thresholds_are_those_of_gophers_table() -> None:
    letters = [chr(ord("a") + i // 26) + chr(ord("a") + i % 26) for i in range(100)]
    distinct = [f"{letter}xx" for letter in letters]  # 100 words of 4 letters: 1% each

    def with_repeats(count: int, *gram: str) -> str:
        words = distinct.copy()
        for i in range(count):
            words[i * 9 : i * 9 + len(gram)] = gram
        return " ".join(words)

    assert not repeats(with_repeats(10, "same", "pair"))  # a bigram of 20% of the letters
    assert repeats(with_repeats(11, "same", "pair"))
    five = ("five", "word", "long", "gram", "here")
    assert not repeats(with_repeats(4, *five))  # three repetitions of 5%
    assert repeats(with_repeats(5, *five))
    lines = [f"line {i}" for i in range(10)]
    assert not repeats("\n".join(lines[:7] + lines[:3]))  # 3 of 10 lines are repeated
    assert repeats("\n".join(lines[:6] + lines[:4]))


def test_long_text_is_read_in_linear_time() -> None:
    made = record("\n" * 200_000 + "x", " (" * 100_000, "a b " * 50_000)
    assert [Filter().reason(made, i) for i in range(3)] == [None, "repetition", "repetition"]


async def test_the_first_rule_that_fits_names_the_reason_and_rules_can_be_chosen() -> None:
    made = Record(
        "id",
        record().prompt,
        responses=(
            Response("", "policy", "length"),
            Response("Cut of", "policy", "length"),
            Response("Fine.", "policy"),
        ),
    )
    after, asked = await through(Filter(min_candidates=0), made)
    assert after.drops == (Drop(0, "empty"), Drop(1, "truncated"))
    assert not asked
    after, _ = await through(Filter(rules=("truncated",), min_candidates=0), made)
    assert after.drops == (Drop(0, "truncated"), Drop(1, "truncated"))


async def test_a_record_without_enough_candidates_is_dropped_for_its_most_common_reason() -> None:
    made = record("Fine.", "Fine.", "", " ").having(drops=(Drop(1, "duplicate"),))
    after, _ = await through(Filter(), made)
    assert (after.outcome, after.reason, after.stage) == ("dropped", "empty", "stage")
    assert after.responses == made.responses  # nothing is lost
    only, _ = await through(Filter(), record("Fine."))
    assert (only.outcome, only.reason) == ("dropped", "too_few_candidates")


async def test_dropped_responses_are_not_looked_at_again() -> None:
    after, _ = await through(Filter(min_candidates=0), record("", "Fine.").having(drops=(Drop(0, "duplicate"),)))
    assert after.drops == (Drop(0, "duplicate"),)


def test_every_rule_but_a_guess_is_on_by_default() -> None:
    assert Filter().rules == RULES
    assert set(get_args(Rule)) - set(RULES) == {"cut_off"}


async def test_what_a_stop_sequence_cut_before_its_list_is_dropped_on_request() -> None:
    made = record("You can do three things:", "Lock the door, and check it twice.")
    after, _ = await through(Filter(rules=("cut_off",), min_candidates=0), made)
    assert after.drops == (Drop(0, "cut_off"),)
    after, _ = await through(Filter(min_candidates=0), made)
    assert after.drops == ()
