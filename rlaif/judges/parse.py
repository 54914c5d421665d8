"""From a judge's reply to a probability; whatever is not clearly a choice is no vote."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rlaif.types import TokenLogprob

# What may stand around the letter in a token: " A", "(A", "**A", "A.", "A)" ...
_AROUND = " \t\n(*\"'`[:.)]"
_CHOICE = re.compile(r"^\W*(?:response|option|answer)?\W*(?:is\W*)?\(?([AB])\b", re.IGNORECASE)


def option_mass(token: TokenLogprob, options: Sequence[str]) -> dict[str, float]:
    """Probability of each option, summed over all its spellings among the token's alternatives.

    >>> option_mass(TokenLogprob("A", 0.0, (("A", -0.7), (" A", -2.3), ("B", -1.6))), "AB")["A"] > 0.59
    True
    """
    mass = dict.fromkeys(options, 0.0)
    for text, logprob in token.top or ((token.token, token.logprob),):
        option = text.strip(_AROUND)
        if option in mass:
            mass[option] += math.exp(logprob)
    return mass


def probability_of_a(logprobs: Sequence[TokenLogprob], min_mass: float) -> float | None:
    """P(A) against P(B) at the first token that is more than punctuation; None under `min_mass`.

    The mass is what the model gives to the two options together; what is left went to refusals,
    preambles and noise, and a small rest of it says nothing about the comparison.
    """
    for token in logprobs:
        if not token.token.strip(_AROUND):
            continue
        mass = option_mass(token, "AB")
        total = mass["A"] + mass["B"]
        return mass["A"] / total if total >= min_mass else None
    return None


def chosen_option(text: str) -> str | None:
    """The option a sampled reply starts with: "A", "(B)", "Response A is better"; else None."""
    found = _CHOICE.match(text.strip())
    return found[1].upper() if found else None


def expected_rating(logprobs: Sequence[TokenLogprob], min_mass: float) -> float | None:
    """The mean of the digits 1-9 under their probabilities (Lee et al. 2023, section 3.3), or None."""
    for token in logprobs:
        if not token.token.strip(_AROUND):
            continue
        mass = option_mass(token, "123456789")
        total = sum(mass.values())
        return sum(int(digit) * p for digit, p in mass.items()) / total if total >= min_mass else None
    return None
