"""How a model's answers are written, taken together: long, in circles, cut off, or always the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rlaif.hygiene.repetition import repeats
from rlaif.hygiene.style import style
from rlaif.hygiene.words import normalised, words
from rlaif.types import Response

_OPENING = 5  # words


@dataclass(frozen=True, slots=True)
class Style:
    """Of `n` answers; all but the texts, `length` and `n` are shares of them, which is 0 where there are none.

    `length`: words on average. `repetition`: they break Gopher's rules. `boilerplate`: they begin with the most
    frequent first five words, `opening`. `truncated`: they ran into the limit of tokens. `same`: they are the most
    frequent answer, `answer`; `distinct`: different answers for each answer given.
    """

    n: int
    length: float
    repetition: float
    emoji: float
    boilerplate: float
    opening: str
    empty: float
    truncated: float
    same: float
    answer: str
    distinct: float


def style_of(responses: Sequence[Response]) -> Style:
    n = len(responses)
    if not n:
        return Style(0, 0.0, 0.0, 0.0, 0.0, "", 0.0, 0.0, 0.0, "", 0.0)
    texts = [response.text for response in responses]
    said = [words(text) for text in texts]
    # Those that say nothing open with nothing.
    openings = Counter(" ".join(one[:_OPENING]) for one in said if one)
    answers = Counter(normalised(text) for text in texts)
    opening, begin = openings.most_common(1)[0] if openings else ("", 0)
    answer, same = answers.most_common(1)[0]
    return Style(
        n=n,
        length=fmean(map(len, said)),
        repetition=sum(map(repeats, texts)) / n,
        emoji=sum(style(text).emoji > 0 for text in texts) / n,
        boilerplate=begin / n,
        opening=opening,
        empty=sum(not text.strip() for text in texts) / n,
        truncated=sum(response.finish_reason == "length" for response in responses) / n,
        same=same / n,
        answer=answer,
        distinct=len(answers) / n,
    )
