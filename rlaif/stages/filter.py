"""Drop responses that must not be judged or trained on, each with its reason; no model is asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field

from rlaif.context import Context
from rlaif.stages import Stage
from rlaif.types import REFUSALS, Drop, Record, Response

Rule = Literal[
    "empty", "refused", "truncated", "repetition", "role_tags", "critique_leak", "prompt_echo", "no_op_revision"
]
RULES: tuple[Rule, ...] = get_args(Rule)

# Chat markup, unless it is quoted as code; <s> is also HTML, so only at the ends. "User:" and "System:" stand
# at the start of many an honest line, so they count at the start of the text, "Human:" and "Assistant:" anywhere.
# The same holds in Chinese.
_ROLE_TAG = re.compile(
    r"(?<![`\"'])(?:<\|\w+\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>)|\A\s*<s>|</s>\s*\Z"
    r"|\A[^\w\n]*(?:user|system|用户|系统)\W{0,3}[:\uff1a]|^[^\w\n]*(?:human|assistant|人类|助手)\W{0,3}[:\uff1a]",
    re.IGNORECASE | re.MULTILINE,
)
_REVISED = "(?:修改|修订|改写|重写|改进|优化|更新)(?:过|之?后|版)"
_CRITIQUE_LEAK = re.compile(
    r"^[^\w\n]*(?:(?:critique|revision)(?: request)?"
    r"|(?:revised|rewritten|improved|new|updated) (?:answer|response|version)"
    r"|here(?:['\u2019]s| is) (?:the|a|an|my) (?:revised|rewritten|improved|new|updated)\b[^\n:]*"
    r"|批评(?:要求|意见)?|修改要求"
    rf"|(?:{_REVISED}|新)的?(?:回答|回复|答复|答案|版本)"
    rf"|(?:好的?\W{{0,2}})?(?:以下|下面|这)是(?:我)?{_REVISED}[^\n:\uff1a]*)\W{{0,3}}[:\uff1a]"
    r"|\bthe assistant['\u2019]s (?:last|previous) (?:answer|response)\b"
    r"|助手的?(?:上一个|上一次的?|上次的?|最后一个|最后一次的?)(?:回答|回复)",
    re.IGNORECASE | re.MULTILINE,
)


class Filter(Stage):
    """Applies `rules` in their order; the first that fits names the reason.

    A record left with fewer than `min_candidates` is dropped, its reason that of most of its responses.
    """

    rules: tuple[Rule, ...] = RULES
    min_candidates: Annotated[int, Field(ge=0)] = 2

    async def __call__(self, record: Record, context: Context) -> Record:
        found = ((index, self.reason(record, index)) for index in record.live())
        drops = record.drops + tuple(Drop(index, reason) for index, reason in found if reason is not None)
        record = record.having(drops=drops)
        if len(record.candidates()) >= self.min_candidates:
            return record
        reasons = Counter(drop.reason for drop in drops).most_common(1)
        return record.ended("dropped", reasons[0][0] if reasons else "too_few_candidates", context.stage)

    def reason(self, record: Record, index: int) -> Rule | None:
        """The first rule that response `index` breaks."""
        return next((rule for rule in self.rules if _broken(rule, record, record.responses[index])), None)


def _broken(rule: Rule, record: Record, response: Response) -> bool:
    text = response.text
    match rule:
        case "empty":
            return not text.strip()
        case "refused":
            return response.finish_reason in REFUSALS
        case "truncated":
            return response.finish_reason == "length"
        case "repetition":
            return repeats(text)
        case "role_tags":
            return _ROLE_TAG.search(text) is not None
        case "critique_leak":
            return response.revises is not None and (
                _CRITIQUE_LEAK.search(text) is not None or _plain(text) == _plain(response.critique or "")
            )
        case "prompt_echo":
            return _plain(text) == _plain(record.prompt[-1].content)
        case "no_op_revision":
            return response.revises is not None and _plain(text) == _plain(record.responses[response.revises].text)


def _plain(text: str) -> str:
    return " ".join(_PLAIN.findall(text.lower())) or text.strip()


# Chinese and Japanese have no spaces: there each character counts as a word.
_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PLAIN = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+")
_WORD = re.compile(rf"[{_HAN}]|[^\s{_HAN}]+")


# Share of the characters that may lie in the most common n-gram (2-4) and in repeated n-grams (5-10):
# Rae et al. 2021 (arXiv:2112.11446), table A1.
_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
_REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
# Below this many words a top n-gram of two occurrences already breaks the web-page thresholds.
_FEWEST_WORDS = 40
# A Chinese word has two characters more often than not.
_CHARACTERS_A_WORD = 2


def repeats(text: str) -> bool:
    """Gopher's repetition rules: repeated lines, and too much of the text inside repeated n-grams."""
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]  # not the closing } of code
    if len(lines) > 3 and (len(lines) - len(set(lines))) / len(lines) > 0.30:
        return True
    words = _WORD.findall(text)
    long = _CHARACTERS_A_WORD if len(re.findall(f"[{_HAN}]", text)) * 2 > len(words) else 1
    if len(words) < _FEWEST_WORDS * long:
        return False
    letters = sum(map(len, words))
    return any(_top_share(words, n * long) > share * letters for n, share in _TOP_NGRAM.items()) or any(
        _repeated_letters(words, n * long) > share * letters for n, share in _REPEATED_NGRAMS.items()
    )


def _top_share(words: Sequence[str], n: int) -> int:
    """Characters inside the most common n-gram, if it occurs more than once."""
    grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    gram, count = grams.most_common(1)[0]
    return sum(map(len, gram)) * count if count > 1 else 0


def _repeated_letters(words: Sequence[str], n: int) -> int:
    """Characters inside n-grams that occurred before; overlapping ones are counted once."""
    seen: set[tuple[str, ...]] = set()
    letters, i = 0, 0
    while i + n <= len(words):
        gram = tuple(words[i : i + n])
        if gram in seen:
            letters += sum(map(len, gram))
            i += n
        else:
            seen.add(gram)
            i += 1
    return letters
