# ruff: noqa: RUF001  full-width marks are what Chinese is written with
"""What was cut off is found by its end, and what only ends without a full stop is not."""

from __future__ import annotations

import pytest

from rlaif.hygiene.truncation import truncated

LIST = "To begin with:\n\n1. Wash the bowl with warm water.\n2. Beat the eggs until they are stiff.\n"


@pytest.mark.parametrize(
    "text",
    [
        "The first thing that you should do is to call the",
        "Take the eggs, the flour,",
        "There are two ways (",
        "```python\nprint(1)",
        "You should talk to someone whom you trust about this today, before it gets any worse than it already",
        LIST + "3. Let it rest for an hour and",
        LIST + "3. Be Adap",
        "Wash the bowl with warm water first.\nBeat the eggs until they are stiff.\nThen let the whole of it rest for",
        "你需要准备鸡蛋，",
        "首先你应该打电话给你的朋友，告诉他们你现在的情况，然后再一起想一想接下来应该怎么",
    ],
)
def test_the_end_of_a_text_that_was_cut_is_open(text: str) -> None:
    assert truncated(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Yes",
        "42",
        "Paris, France",
        "The answer is 42",
        "It is done.",
        'He said "no"',
        "Is it?",
        "```python\nprint(1)\n```",
        "- apples\n- pears\n- plums",
        "1. Apples\n2. Pears and plums of the kind that one finds in the south, where it is warm all year long",
        "The rose is red,\nThe violet's blue,\nSugar is sweet\nAnd so are you",
        "Dear Ann,\n\nThank you for the letter that you sent me last week.\n\nYours,\nBob",
        "Read more about it here, where all of it is told at length by those who were there: https://example.org/a/b",
        "Have a nice day \U0001f600",
        "I am sad :-(",
        "好的，没问题。",
    ],
)
def test_a_text_that_ended_may_do_so_without_a_full_stop(text: str) -> None:
    assert not truncated(text)


def test_a_finished_text_is_cut_nowhere_but_at_its_sentences() -> None:
    text = "A password manager makes long passwords. It fills them in only where they belong, and it tells of leaks."
    assert not truncated(text)
    cut = [truncated(text[:end]) for end in range(60, len(text))]
    assert sum(cut) / len(cut) > 0.5  # short ones may be titles
