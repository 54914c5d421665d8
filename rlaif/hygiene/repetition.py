"""Texts that go round in circles: Gopher's repetition rules (Rae et al. 2021, arXiv:2112.11446, table A1)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rlaif.hygiene.words import HAN

# Share of the characters that may lie in the most common n-gram (2-4) and in repeated n-grams (5-10).
_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
_REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
# Below this many words a top n-gram of two occurrences already breaks the web-page thresholds.
_FEWEST_WORDS = 40
# A Chinese word has two characters more often than not.
_CHARACTERS_A_WORD = 2
_WORD = re.compile(rf"[{HAN}]|[^\s{HAN}]+")
_HAN = re.compile(f"[{HAN}]")
_LETTER = re.compile(r"\w")


def repeats(text: str) -> bool:
    """Gopher's repetition rules: repeated lines, and too much of the text inside repeated n-grams."""
    lines = [line.strip() for line in text.splitlines() if _LETTER.search(line)]  # not the closing } of code
    if len(lines) > 3 and (len(lines) - len(set(lines))) / len(lines) > 0.30:
        return True
    words = text.split() if text.isascii() else _WORD.findall(text)
    long = 1 if text.isascii() or len(_HAN.findall(text)) * 2 <= len(words) else _CHARACTERS_A_WORD
    if len(words) < _FEWEST_WORDS * long:
        return False
    letters = sum(map(len, words))
    if any(_top_share(words, n * long) > share * letters for n, share in _TOP_NGRAM.items()):
        return True
    for n, share in _REPEATED_NGRAMS.items():
        grams = _grams(words, n * long)
        if len(set(grams)) == len(grams):  # then no longer one is repeated either
            return False
        if _repeated_letters(grams, n * long) > share * letters:
            return True
    return False


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _top_share(words: Sequence[str], n: int) -> int:
    """Characters inside the most common n-gram, if it occurs more than once."""
    counts = Counter(_grams(words, n))
    gram = max(counts, key=counts.__getitem__)
    return sum(map(len, gram)) * counts[gram] if counts[gram] > 1 else 0


def _repeated_letters(grams: Sequence[tuple[str, ...]], n: int) -> int:
    """Characters inside n-grams that occurred before; overlapping ones are counted once."""
    seen: set[tuple[str, ...]] = set()
    letters, i = 0, 0
    while i < len(grams):
        if grams[i] in seen:
            letters += sum(map(len, grams[i]))
            i += n
        else:
            seen.add(grams[i])
            i += 1
    return letters
