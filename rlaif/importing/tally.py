"""What was read, what was written, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rlaif.export.settings import Config
from rlaif.foreign.dropped import dropped_line, text_of
from rlaif.hygiene.clean import Texts
from rlaif.types import Messages

# Why there is nothing of a row, or of a prompt; in the words of the card.
REASONS: Mapping[str, str] = {
    "unreadable": "a line that is no JSON object",
    "not_text": "neither text nor messages where text or messages belong",
    "no_prompt": "the prompt is implicit, and the two sides share no turn",
    "no_turns": "a transcript without a speaker",
    "empty_prompt": "the prompt says nothing",
    "empty_chosen": "the better answer says nothing",
    "empty_rejected": "the worse answer says nothing",
    "prefix_mismatch": "two whole conversations that are not the same up to their last turn",
    "role_error": "user and assistant do not take turns, or the wrong one speaks last",
    "unknown_role": "a role that is neither system, user nor assistant",
    "identical": "both answers say the same",
    "no_label": "a label that is neither up nor down, or names no winner",
    "too_few_rated": "fewer than two answers with a rating or rank",
    "tie": "equally good answers",
    "scores_disagree": "the rejected answer has the higher score, or the margin is below 0",
    "low_margin": "less than min_margin between the two",
    "duplicate": "the same pair, or the same answer with the same label, as in an earlier row",
}
NOTES: Mapping[str, str] = {
    "empty_turn": "a turn within the prompt says nothing",
    "outer_space": "white space around a turn was removed",
    "prompt_mismatch": "the prompt's column says something else than the conversation; the conversation was taken",
}


@dataclass(frozen=True, slots=True)
class Imported:
    """`rows` were read; of them, or of their prompts, `dropped` gave nothing. `written` counts rows by split.

    `aside` are the columns that were not read.
    """

    folder: Path
    shape: str
    rows: int
    pairs: int
    written: Mapping[Config, Mapping[str, int]]
    dropped: Mapping[str, int]
    notes: Mapping[str, int]
    scale: tuple[float, float] | None = None
    aside: tuple[str, ...] = ()


class Tally:
    """Counts, and writes each drop down as it comes: a row a line, with where it was."""

    def __init__(self, file: IO[bytes]) -> None:
        self.rows = self.pairs = 0
        self.dropped: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self._file = file

    def drop(
        self,
        reason: str,
        split: str,
        where: str,
        prompt: Messages = (),
        chosen: Messages = (),
        rejected: Messages = (),
        *,
        label: bool | None = None,
        because: str | None = None,
    ) -> None:
        self.dropped[reason] += 1
        texts = Texts(text_of(prompt), text_of(chosen), text_of(rejected) if rejected else None, label)
        row = texts if prompt or chosen or rejected else None
        self._file.write(dropped_line(reason, because, split, where, row))
