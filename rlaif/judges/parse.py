"""From a judge's reply, in English or Chinese, to a probability; whatever is not clearly a choice is no vote."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache

from rlaif.types import TokenLogprob

# What may stand around the letter in a token: " A", "(A", "**A", "A.", "A)", and the raw "▁A", "ĠA" ...
_AROUND = " \t\r\n(*_#\"'`[<{:;,.>}])▁Ġ。、「」『』【】《》“”"
# The full-width letters, digits and marks of Chinese text, each to its ASCII form.
_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
# Tokens that may come before the letter: "Answer: A", "Response A". The letter's probabilities are then given them.
_LEAD_IN = frozenset(
    {"answer", "choice", "option", "response", "我", "答案", "选", "选择", "选项", "回答", "回复", "是", "为", "答案是"}
)

# A letter after such words or alone is a choice ...
_LABEL = r"(?:(?:the|my|better|best|final)\W+)*(?:answer|choice|decision|option|response|verdict)\W*"
# In Chinese these words follow each other as they like: 答案是, 我认为更好的回答是, 最终选择.
_CHINESE_LABEL = (
    r"(?:(?:我|认为|觉得|会|应该?|更|较|最|好|佳|优|终|的|答案|选择?|选项|回答|回复|结论|判断|决定|结果|是|为)\W*)*"
)
_HAN = "[\u4e00-\u9fff]"


@cache
def _choice(options: str) -> re.Pattern[str]:
    return re.compile(
        rf"^(?P<before>\W*)(?P<label>{_CHINESE_LABEL}(?:{_LABEL}(?:is\W*)?){{0,2}})"
        rf"(?P<option>(?-i:[{options}]))(?:(?!\w)|(?={_HAN}))(?P<rest>.*)",
        re.I | re.S,
    )


_NAMED = re.compile(r"(?:option|response|选项|回答|回复)\W*$", re.I)
# ... but not if it is one of several, or the worse one.
_BOTH = re.compile(
    r"\W*(?:and|or|nor|vs|versus|[&/,、]|以?及|和|与|跟|同|或者?|还是)\W*(?:option\W*|response\W*|选项|回答|回复)?"
    rf"(?-i:[A-D])(?:\b|(?={_HAN}))",
    re.I,
)
_WORSE = re.compile(
    r"(?:'s|\s+(?:is|was|does|has|seems|looks))(?:n[o']t|\s+\w+ly|\s+much|\s+a\s+(?:bit|little))*"
    r"\s*(?:n[o']t|no|worse|weaker|inferior|less|bad|as|equal\w*)\b|\s*="
    # In the first clause, since these can come late in it: A比B更差, A没有B好.
    rf"|\s*(?={_HAN})[^\n,.;!。]*?(?:不|没|无法|差|糟|坏|弱|劣|逊|错|一样|同样|相同|相当|相似|有害|危险)",
    re.I,
)
# A letter that is not called response or option is the article unless punctuation, the end or one of
# these follows: "A good response would ...".
_VERDICT = re.compile(
    r"\s*(?:[^\w\s'\u2019]|\n|$|更|较|比|胜|优|最|是|因为|由于)|\s+(?:is|was|wins|because|since|over)\b", re.I
)
# Nor if it only heads what follows, as in "Response A: I am sorry.", or the response is being described, as one is
# that tells the judge what to answer: "Response A says that B is worse".
_HEADS = re.compile(r"\W*?:[\s*]*(?P<text>.?)", re.S)
_TOLD = re.compile(
    r"[^\w\n.,:;!?]*(?:(?:also|just|simply|clearly|openly)\s+)?(?:sa(?:ys|id)|claim|state|ask|tell|told|tr(?:y|ies|ied)|attempt"
    r"|instruct|order|demand|want|insist|quote|contain|wr(?:ites|ote)|begin|start|end)(?:s|ed)?\b"
    r"|[^\w\n。.,:;!?]*(?:中|里)?的?(?:[说写](?![得的])|声称|要求|试图|让[你我]|包含|命令|指示|告诉)",
    re.I,
)
_GIVEN = re.compile(r"(?:answer|choice|decision|verdict|答案|结论|判断|决定|结果)\W*(?:is|是|为|:)\W*", re.I)
# What opens a quotation. A judge may quote the responses; all that is quoted is a choice only where it is all there is.
_OPENED = re.compile(r"[\"'`>\u2018\u201a\u201c\u201e\u2039\u00ab\u300a\u300c\u300e]")
_CLOSED = re.compile(r"\W*[\"'`\u2018\u2019\u201c\u201d\u203a\u00bb\u300b\u300d\u300f]\W*")


def _quoted(before: str, rest: str) -> bool:
    """Whether a reply that begins with the marks `before` quotes something, and goes on after it with `rest`."""
    return _OPENED.search(before) is not None and "{" not in before and not _CLOSED.fullmatch(rest)


def option_mass(token: TokenLogprob, options: Sequence[str]) -> dict[str, float]:
    """Probability of each option, summed over all its spellings among the token's alternatives.

    >>> option_mass(TokenLogprob("A", 0.0, (("A", -0.7), (" A", -2.3), ("B", -1.6))), "AB")["A"] > 0.59
    True
    """
    mass = dict.fromkeys(options, 0.0)
    for text, logprob in token.top:  # none: nothing is known of the rivals
        option = _bare(text)
        if option in mass:
            mass[option] += math.exp(logprob)
    return mass


def option_probabilities(logprobs: Sequence[TokenLogprob], options: str, min_mass: float) -> dict[str, float] | None:
    """The options' probabilities against each other at the first token that can be the choice; None under `min_mass`.

    The mass is what the model gives to all options together; what is left went to refusals,
    preambles and noise, and a small rest of it says nothing about the comparison.
    """
    for token in logprobs:
        word = _bare(token.token)
        if not word or word.lower() in _LEAD_IN:
            continue
        said = "".join(other.token for other in logprobs)
        if len(logprobs) > 1 and word in options and chosen_option(said, options) is None:
            return None  # "A good response", "A and B": the letter is not the choice
        mass = option_mass(token, options)
        total = sum(mass.values())
        return {option: p / total for option, p in mass.items()} if total > 0 and total >= min_mass else None
    return None


def _bare(token: str) -> str:
    """A token without what may stand around the letter."""
    return (token if token.isascii() else token.translate(_ASCII)).strip(_AROUND)


def chosen_option(text: str, options: str = "AB") -> str | None:
    """The option that a reply starts with: "A", "(B)", "Response A is better"; else None.

    >>> [chosen_option(reply) for reply in ("Answer: B", "A good response would ...", "Both are good", "答案是A")]
    ['B', None, None, 'A']
    """
    found = _choice(options).match(text.replace("▁", " ").replace("Ġ", " ").translate(_ASCII).strip())
    if found is None:
        return None
    label, rest = found["label"], found["rest"]
    if _BOTH.match(rest) or _WORSE.match(rest) or _TOLD.match(rest) or _quoted(found["before"], rest):
        return None
    named = _NAMED.search(label)
    heads = _HEADS.match(rest)
    if heads and not _GIVEN.search(label) and (named or heads["text"]):
        return None
    return found["option"] if named or _VERDICT.match(rest) else None


_AROUND_RANKED = _AROUND.replace(">", "")
_RANKING_LABEL = re.compile(
    r"(?:(?:the|my|final)\s+)?(?:ranking|answer|order)(?:\s+is)?|(?:我的|最终)?(?:排名|答案|排序)是?", re.I
)


def ranking(text: str, letters: str) -> tuple[str, ...] | None:
    """All `letters` in the order of a reply that is a ranking and nothing else; None if one is missing or twice.

    >>> [ranking(reply, "ABC") for reply in ("C > A > B", "Ranking: B>A>C.", "C > A", "A > B = C", "C > A > B, but")]
    [('C', 'A', 'B'), ('B', 'A', 'C'), None, None, None]
    """
    plain = text.translate(_ASCII).strip(_AROUND_RANKED)
    label = _RANKING_LABEL.match(plain)
    parts = plain[label.end() if label else 0 :].split(">")
    ranked = tuple(part.strip(_AROUND_RANKED) for part in parts)
    return ranked if sorted(ranked) == sorted(letters) else None


def expected_rating(logprobs: Sequence[TokenLogprob], min_mass: float) -> float | None:
    """The mean of the digits 1-9 under their probabilities (Lee et al. 2023, direct RLAIF), or None."""
    for i, token in enumerate(logprobs):
        word = _bare(token.token)
        if not word or word.lower() in _RATING_LEAD_IN:
            continue
        if i + 1 < len(logprobs) and logprobs[i + 1].token[:1].isdigit():
            return None  # the first digit of a longer number
        if len(logprobs) > 1 and rating("".join(other.token for other in logprobs)) is None:
            return None  # "5 tips for ...", "2 out of 3"
        mass = option_mass(token, "123456789")
        total = sum(mass.values())
        return sum(int(digit) * p for digit, p in mass.items()) / total if total > 0 and total >= min_mass else None
    return None


_RATING_LEAD_IN = frozenset({"rating", "score", "评分", "打分", "得分", "分数", "是", "为"})
_RATING = re.compile(
    r"(?P<before>[^\w-]*)"
    r"(?:(?:(?:the\s+)?(?:rating|score)(?:\s+is)?|(?:我|给出?|的|最终|评分|打分|得分|分数|是|为)+)[^\w-]*)?"
    r"(?P<value>[1-9](?:\.\d+)?)(?![\d-]|\.\d|/(?!9\b)|\s*分?\s*[到至]|\s*分?\W*满分\s*(?!9(?!\d)))"
    # Not a number of things: "5 tips for better sleep", "3 of them".
    r"(?![ \t]+(?!(?:out\s+)?of(?:\s+9\b|\s*$)|out\s*$|points?\b|because\b|since\b|as\b|for\b)(?-i:[a-z]))"
    r"(?P<rest>.*)",
    re.I | re.S,
)


def rating(text: str) -> float | None:
    """The rating from 1 to 9 that a sampled reply starts with; "-1", "10" and "7/10" are none.

    >>> [rating(reply) for reply in ("7", "Rating: 7.5", "-1", "10", "7/10")]
    [7.0, 7.5, None, None, None]
    """
    found = _RATING.match(text.translate(_ASCII).strip())
    if found is None or _quoted(found["before"], found["rest"]):
        return None
    value = float(found["value"])
    return value if value <= 9 else None
