"""Text from a model, a file or a provider, made safe to print: no markup, no control characters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

# Escape sequences move the cursor and set the clipboard; the others reverse or hide text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def harmless(text: str) -> str:
    r"""Control characters spelled out, as \x1b; line ends and tabs stay."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def said(text: str, style: str = "") -> Text:
    """The text as it stands: what looks like markup ([red], :smile:) is printed, not obeyed."""
    from rich.text import Text  # 30 ms that `rlaif --help` does without

    return Text(harmless(text), style=style)
