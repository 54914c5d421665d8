"""Which rows of preference data to leave out, each for one reason, counted and with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

from rlaif.hygiene.contamination import Evals
from rlaif.hygiene.duplicates import Near, key
from rlaif.hygiene.leaks import Leak, leak
from rlaif.hygiene.refusal import is_refusal
from rlaif.hygiene.repetition import repeats
from rlaif.hygiene.semantic import Similar, check_installed
from rlaif.hygiene.truncation import truncated
from rlaif.hygiene.words import normalised

Reason = Literal[
    "empty",
    "identical_pair",
    "malformed",
    Leak,
    "repetition",
    "truncated",
    "refusal",
    "contaminated",
    "duplicate",
    "conflicting",
    "near_duplicate",
    "semantic_duplicate",
]
LEAKS: tuple[Leak, ...] = get_args(Leak)
_EXAMPLES = 3
_SHORT = 160  # characters of a text in an example


class Clean(BaseModel):
    """What is left out; by default only what nobody wants.

    `empty`: a row with an empty prompt or response. `identical`: a pair of one response, but for case and white space.
    `malformed`: a row whose turns are out of order, or whose sides begin with different ones; `rlaif clean` knows.
    `exact`: a row that was there before, but for case and white space; a pair that was there the other way round, or
    an answer with the other label, is `conflicting`, and goes too.
    `leaks`: on either side, for what was chosen is then no question of its content; but a rejected response may say
    which model it is from.
    `repetition`, `truncated`, `refusal`: of the chosen response. A rejected one may well be bad.
    `near`: least Jaccard similarity of the runs of five words, such as 0.8. It compares whole rows: a prompt may have
    several pairs. With `alike: prompt` prompts alone, so that one row of each stays.
    `semantic`: least cosine of prompts, such as 0.95. Another row of a prompt that stayed stays, too, unless `alike`
    says otherwise.
    `evals`: files of test items, FILE or FILE#COLUMN; a row goes that holds more than `overlap` of an item's words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    empty: bool = True
    identical: bool = True
    malformed: bool = True
    exact: bool = True
    leaks: tuple[Leak, ...] = LEAKS
    repetition: bool = False
    truncated: bool = False
    refusal: bool = False
    near: Annotated[float, Field(ge=0.7, le=1.0)] | None = None  # 14 bands of 8 find too few below
    semantic: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    alike: Literal["row", "prompt"] = "row"
    evals: tuple[str, ...] = ()
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5


class Texts(NamedTuple):
    """A row as text. Without a column for it there is no prompt; an unpaired row has its completion as `chosen`."""

    prompt: str | None
    chosen: str
    rejected: str | None = None
    label: bool | None = None  # of an unpaired row


class Example(NamedTuple):
    """A row that was left out, its texts cut; `because` says more than the reason, where there is more to say."""

    row: Texts
    because: str


Found = tuple[Reason, str]  # with what there is to say of it


@dataclass(slots=True)
class Dropped:
    """How many rows went for each reason, and the first of them."""

    counts: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, list[Example]] = field(default_factory=dict)

    def add(self, row: Texts, found: Found) -> None:
        reason, because = found
        self.counts[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(Example(short(row), because))


def check(settings: Clean) -> None:
    """Raises ConfigError for test items that cannot be read, and a model that is not installed."""
    Evals.read(settings.evals, settings.overlap)
    if settings.semantic is not None:
        check_installed()


class Cleaner:
    """Says of rows, in their order, why each is to be left out; `dropped` counts.

    Of rows that are alike the first stays. Memory for each row that stays: about 100 bytes, with `near` 0.5 kB, with
    `semantic` 1 kB. Raises ConfigError for test items that cannot be read, or where a model is not installed.
    """

    def __init__(self, settings: Clean) -> None:
        self.dropped = Dropped()
        self._settings = settings
        self._seen: set[bytes] = set()
        self._prompts: set[bytes] = set()
        self._evals = Evals.read(settings.evals, settings.overlap) if settings.evals else None
        self._near = None if settings.near is None else Near(settings.near)
        self._similar = None if settings.semantic is None else Similar(settings.semantic)

    def reason(
        self, prompt: str | None, chosen: str, rejected: str | None = None, label: bool | None = None
    ) -> Reason | None:
        """Why this row is to be left out; None if it stays. Where `semantic` is set, `reasons` is much faster."""
        found = self.reasons([Texts(prompt, chosen, rejected, label)])[0]
        return found and found[0]

    def reasons(self, rows: Sequence[Texts]) -> list[Found | None]:
        """The same for several rows at once, and what there is to say of each."""
        found = [self._of_row(row) or self._of_rows_before(row) for row in rows]
        if self._similar:
            self._by_meaning(self._similar, rows, found)
        for row, because in zip(rows, found, strict=True):
            if because:
                self.dropped.add(row, because)
        return found

    def _of_row(self, row: Texts) -> Found | None:
        settings = self._settings
        if settings.empty and (side := next((side for side, text in _sides(row) if not text.strip()), None)):
            return "empty", side
        if settings.identical and row.rejected is not None and normalised(row.chosen) == normalised(row.rejected):
            return "identical_pair", ""
        if settings.leaks and (leaked := self._leak(row)):
            return leaked
        if settings.repetition and repeats(row.chosen):
            return "repetition", ""
        if settings.truncated and truncated(row.chosen):
            return "truncated", ""
        if settings.refusal and is_refusal(row.chosen):
            return "refusal", ""
        if self._evals and (hit := self._evals.hit(*(text for _, text in _sides(row)))):
            return "contaminated", f"{hit.share:.0%} of {self._evals.names[hit.item]}"
        return None

    def _leak(self, row: Texts) -> Found | None:
        for side, text in _sides(row):
            leaked = None if side == "prompt" else leak(text, row.prompt or "")
            if leaked in self._settings.leaks and not (leaked == "self_identification" and side == "rejected"):
                return leaked, side
        return None

    def _of_rows_before(self, row: Texts) -> Found | None:
        mine = _key(row) if self._settings.exact else None
        if mine and mine in self._seen:
            return "duplicate", ""
        if mine and (other := _other(row)) and _key(other) in self._seen:
            return "conflicting", ""
        if self._near:
            compared = row.prompt if self._settings.alike == "prompt" else "\n".join(text for _, text in _sides(row))
            if compared is not None and self._near.add(compared) is not None:
                return "near_duplicate", ""
        if mine:
            self._seen.add(mine)
        return None

    def _by_meaning(self, similar: Similar, rows: Sequence[Texts], found: list[Found | None]) -> None:
        """Each prompt is looked at once, and what shares it shares its fate; unless one row of each is to stay."""
        prompts = {i: key(row.prompt) for i, row in enumerate(rows) if found[i] is None and row.prompt is not None}
        first = {prompt: i for i, prompt in reversed(prompts.items())}
        each = self._settings.alike == "prompt"
        new = [i for i, prompt in prompts.items() if each or (first[prompt] == i and prompt not in self._prompts)]
        for i, like in zip(new, similar.add([rows[i].prompt or "" for i in new]), strict=True):
            if like is None:
                self._prompts.add(prompts[i])
            else:
                found[i] = ("semantic_duplicate", "")
        for i, prompt in prompts.items():
            if prompt not in self._prompts:
                found[i] = ("semantic_duplicate", "")
        if self._settings.exact:
            self._forget(rows, found)

    def _forget(self, rows: Sequence[Texts], found: list[Found | None]) -> None:
        """What went for its meaning was not there; what repeats or contradicts it has its prompt, so went for that."""
        gone = {_key(row) for row, why in zip(rows, found, strict=True) if why and why[0] == "semantic_duplicate"}
        self._seen -= gone
        for i, (row, why) in enumerate(zip(rows, found, strict=True)):
            if why and why[0] in ("duplicate", "conflicting"):
                same = row if why[0] == "duplicate" else _other(row)
                if same and _key(same) in gone:
                    found[i] = ("semantic_duplicate", "")


def cleaned(rows: Sequence[Texts], settings: Clean) -> tuple[list[Texts], Dropped]:
    """The rows that stay, and what went."""
    cleaner = Cleaner(settings)
    return [row for row, why in zip(rows, cleaner.reasons(rows), strict=True) if why is None], cleaner.dropped


def short(row: Texts) -> Texts:
    """The start of each text, in one line."""
    sides = {side: _start(text) for side, text in _sides(row)}
    return Texts(sides.get("prompt"), sides["chosen"], sides.get("rejected"), row.label)


def _start(text: str) -> str:
    line = " ".join(text[: 4 * _SHORT].split())
    return line if len(line) <= _SHORT else f"{line[:_SHORT]}..."


def _sides(row: Texts) -> list[tuple[str, str]]:
    return [(name, text) for name, text in zip(Texts._fields, row[:3], strict=False) if text is not None]


def _key(row: Texts) -> bytes:
    label = () if row.label is None else (str(row.label),)
    return key(row.prompt or "", row.chosen, row.rejected or "", *label)


def _other(row: Texts) -> Texts | None:
    """What contradicts the row."""
    if row.rejected is not None:
        return row._replace(chosen=row.rejected, rejected=row.chosen)
    return None if row.label is None else row._replace(label=not row.label)
