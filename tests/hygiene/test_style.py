"""Style is what one counts by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.hygiene.style import Style, style
from rlaif.lint.rules import FORMATS

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
        lists=4,
        headings=1,
        bold=1,
        code=2,
        urls=1,
        emoji=1,
    )


def test_all_that_is_counted_is_told() -> None:
    assert set(Style._fields) == set(FORMATS)


@pytest.mark.parametrize(
    "text", ["-5 degrees", "3.5 is more than 2", "#hashtag", "1984 was a year", "2**3**4 = 2 ** 81", "a - b"]
)
def test_what_only_looks_like_a_list_or_a_heading_is_none(text: str) -> None:
    assert (style(text).lists, style(text).headings) == (0, 0)


@given(st.text())
def test_counts_add_up_over_any_two_texts(text: str) -> None:
    one, two = style(text), style(f"{text}\n\n{text}")
    assert two.lists == 2 * one.lists
    assert two.headings == 2 * one.headings
    assert two.emoji == 2 * one.emoji
    assert min(one) >= 0
