"""Style is what one counts by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.hygiene.style import Style, style

TEXT = """# Plan

Here is what to do. It is **easy**! See https://example.org and `make`.

1. Call him.
2. Ask him \U0001f600.
- Wait
* Rest

```sh
make *all*
```
Shall we?
"""


def test_a_text_with_everything_in_it() -> None:
    assert style(TEXT) == Style(
        chars=len(TEXT),
        words=31,
        sentences=6,
        lines=10,
        lists=4,
        headings=1,
        bold=1,
        code=2,
        urls=1,
        emoji=1,
        exclamations=1,
        asks=True,
    )


@pytest.mark.parametrize(
    "text", ["-5 degrees", "3.5 is more than 2", "#hashtag", "1984 was a year", "2**3**4 = 2 ** 81", "a - b"]
)
def test_what_only_looks_like_a_list_or_a_heading_is_none(text: str) -> None:
    assert (style(text).lists, style(text).headings) == (0, 0)


def test_chinese_has_words_sentences_and_questions() -> None:
    found = style("\u4f60\u597d\uff01\u4f60\u53bb\u54ea\u91cc\uff1f")
    assert (found.words, found.sentences, found.exclamations, found.asks) == (8, 2, 1, True)


@given(st.text())
def test_counts_add_up_over_any_two_texts(text: str) -> None:
    one, two = style(text), style(f"{text}\n\n{text}")
    assert two.chars == 2 * one.chars + 2
    assert two.lists == 2 * one.lists
    assert two.headings == 2 * one.headings
    assert two.words == 2 * one.words
    assert two.emoji == 2 * one.emoji
    assert min(one[:-1]) >= 0
