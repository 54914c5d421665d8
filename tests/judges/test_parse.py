"""Only a clear choice is a vote, however it is spelled."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.judges.parse import chosen_option, expected_rating, option_mass, option_probabilities, rating
from rlaif.types import TokenLogprob


def token(mass: dict[str, float], said: str | None = None) -> TokenLogprob:
    """A token whose alternatives have these probabilities; the likeliest was said, or `said`."""
    said = said or max(mass, key=lambda text: mass[text])
    top = tuple((text, math.log(p)) for text, p in mass.items() if p > 0)
    return TokenLogprob(said, math.log(mass.get(said, 1.0) or 1.0), top)


def probability_of_a(logprobs: list[TokenLogprob], min_mass: float) -> float | None:
    found = option_probabilities(logprobs, "AB", min_mass)
    return found and found["A"]


def certain(*texts: str) -> list[TokenLogprob]:
    return [token({text: 1.0}) for text in texts]


SPELLINGS = [
    "{}",
    " {}",
    "({}",
    "({})",
    "**{}**",
    "**{}",
    "{}.",
    "{})",
    "{}:",
    '"{}"',
    "`{}`",
    "\n{}",
    "[{}]",
    "▁{}",
    "Ġ{}",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_option_counts(spelling: str) -> None:
    mass = option_mass(token({spelling.format("A"): 0.6, spelling.format("B"): 0.3}), "AB")
    assert (mass["A"], mass["B"]) == (pytest.approx(0.6), pytest.approx(0.3))


def test_all_spellings_of_an_option_are_added_up() -> None:
    shown = token({"A": 0.3, " A": 0.2, "**A": 0.1, "B": 0.2, "(B": 0.1, "The": 0.1})
    assert probability_of_a([shown], 0.2) == pytest.approx(0.6 / 0.9)


@pytest.mark.parametrize("word", ["a", " a", "As", "An", "Be", "b", "AB", "Both", "\N{CYRILLIC CAPITAL LETTER A}", ""])
def test_articles_and_other_words_do_not_count(word: str) -> None:
    assert sum(option_mass(token({word: 0.9}, word), "AB").values()) == 0.0


def test_an_option_mass_under_the_minimum_is_no_vote() -> None:
    weak = [token({"I": 0.85, "A": 0.1, "B": 0.05})]
    assert probability_of_a(weak, 0.2) is None
    assert probability_of_a(weak, 0.1) == pytest.approx(2 / 3)


def test_no_option_at_all_is_no_vote_even_if_no_mass_is_asked_for() -> None:
    assert probability_of_a([token({"I": 1.0})], 0.0) is None
    assert expected_rating([token({"I": 1.0})], 0.0) is None


@pytest.mark.parametrize(
    "lead_in", [("\n",), (" ",), ("**",), ("(",), ("Answer", ":"), ("Response", " "), ("\n", "\n")]
)
def test_line_ends_marks_and_the_word_answer_before_the_letter_are_passed_over(lead_in: tuple[str, ...]) -> None:
    assert probability_of_a([*certain(*lead_in), token({"A": 0.25, "B": 0.75})], 0.2) == pytest.approx(0.25)


def test_the_first_word_decides_not_a_letter_later_on() -> None:
    assert probability_of_a([*certain("Neither", " "), token({"A": 0.25, "B": 0.75})], 0.2) is None


@pytest.mark.parametrize("texts", [("A", " good", " response"), ("A", " and", " B"), ("B", " is", " worse")])
def test_a_letter_that_is_not_the_choice_is_no_vote(texts: tuple[str, ...]) -> None:
    assert probability_of_a(certain(*texts), 0.2) is None


@pytest.mark.parametrize("texts", [("A", "\n"), ("A", ".", " Because"), ("B", " is", " better"), ("A",), ("B", "</s>")])
def test_a_letter_that_is_the_choice_is_one(texts: tuple[str, ...]) -> None:
    assert probability_of_a(certain(*texts), 0.2) == (texts[0] == "A")


@pytest.mark.parametrize("logprobs", [[], certain("\n", " "), [TokenLogprob("x", -1.0)]])
def test_nothing_to_read_is_no_vote(logprobs: list[TokenLogprob]) -> None:
    assert probability_of_a(logprobs, 0.2) is None


def test_a_token_without_alternatives_says_nothing_of_its_rival() -> None:
    assert probability_of_a([TokenLogprob("A", math.log(0.7))], 0.2) is None


words = st.sampled_from(["A", "B", " A", " B", "(A", "B.", "a", "I", "The", "\n", "Answer", ":", "Both", " good"])
tops = st.dictionaries(words, st.floats(min_value=-60, max_value=0), max_size=6)
tokens = st.builds(lambda said, top: TokenLogprob(said, -1.0, tuple(top.items())), words, tops)


def swapped(text: str) -> str:
    return text.translate(str.maketrans("AB", "BA")) if text != "Answer" and text != "Both" else text


@given(st.lists(tokens, max_size=4), st.floats(min_value=0, max_value=1))
def test_a_probability_is_one_and_swapping_the_labels_swaps_it(logprobs: list[TokenLogprob], least: float) -> None:
    p = probability_of_a(logprobs, least)
    assert p is None or 0.0 <= p <= 1.0
    mirror = [TokenLogprob(swapped(t.token), t.logprob, tuple((swapped(s), p) for s, p in t.top)) for t in logprobs]
    q = probability_of_a(mirror, least)
    assert (p is None) == (q is None)
    assert p is None or q is None or math.isclose(p, 1 - q, abs_tol=1e-9)


@given(st.text(max_size=80))
def test_any_text_is_a_choice_or_none(text: str) -> None:
    assert chosen_option(text) in ("A", "B", None)
    value = rating(text)
    assert value is None or 1 <= value <= 9


@pytest.mark.parametrize(
    "reply",
    [
        *[spelling.format("{}") for spelling in SPELLINGS],
        "Response {}",
        "Response {} is better",
        "response {} gives no dangerous detail",
        "Option ({})",
        "Answer: {}",
        "answer is {}",
        "The answer is {}.",
        "The better response is {}",
        "The better response is Response {}.",
        "My choice: {}",
        "Final answer: **{}**",
        "{} is better because it is kind.",
        "{} is clearly better",
        "{}, since it is kind",
        "{}\n\nIt is kinder.",
        "{} - it is kinder",
        "{} because it is kinder",
    ],
)
@pytest.mark.parametrize("option", ["A", "B"])
def test_replies_that_choose_are_read(reply: str, option: str) -> None:
    assert chosen_option(reply.format(option)) == option


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "A good response would refuse to answer.",
        "A response that refuses is better.",
        "Answer: A good response would refuse.",
        "a good one",
        "a",
        "Both are good",
        "Both A and B are good",
        "Neither",
        "A and B are equal",
        "A or B",
        "A/B",
        "A, B",
        "Response A and Response B are equal",
        "A = B",
        "A is worse than B",
        "Response A is much worse",
        "A is not better",
        "A isn't better",
        "Response B is less helpful",
        "B is as good as A",
        "A's answer is longer",
        "As an AI, I cannot compare.",
        "Based on the criterion, it is hard to say.",
        "I can't help with that.",
        "1",
    ],
)
def test_replies_that_do_not_choose_are_no_vote(reply: str) -> None:
    assert chosen_option(reply) is None


def test_a_rating_is_the_mean_of_the_digits_not_the_likeliest_one() -> None:
    assert expected_rating([token({"9": 0.5, "1": 0.3, " 2": 0.2})], 0.2) == pytest.approx(5.2)
    assert expected_rating([*certain("Rating", ":", " "), token({"7": 0.5, "I": 0.5})], 0.2) == 7.0
    assert expected_rating([token({"I": 0.9, "7": 0.1})], 0.2) is None
    assert expected_rating(certain("-", "-"), 0.2) is None


def test_the_first_digit_of_a_longer_number_is_no_rating() -> None:
    assert expected_rating(certain("1", "0"), 0.2) is None
    assert expected_rating(certain("7", "\n"), 0.2) == 7.0


@given(st.lists(tokens, max_size=3))
def test_a_rating_lies_between_one_and_nine(logprobs: list[TokenLogprob]) -> None:
    value = expected_rating(logprobs, 0.0)
    assert value is None or 1 <= value <= 9


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("7", 7),
        ("7.", 7),
        (" 7\nIt is", 7),
        ("Rating: 8", 8),
        ("The score is 3", 3),
        ("**4**", 4),
        ("7.5", 7.5),
        ("7/9", 7),
    ],
)
def test_sampled_ratings_are_read(reply: str, value: float) -> None:
    assert rating(reply) == value


@pytest.mark.parametrize(
    "reply", ["-1", "10", "0", "7/10", "9.5", "77", "3-4", "", "good", "Rating: none", "11.5", "1000"]
)
def test_ratings_off_the_scale_are_none(reply: str) -> None:
    assert rating(reply) is None
