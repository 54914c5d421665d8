"""Two answers and a column that says which is better: sets without `chosen` and `rejected`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlaif.foreign.candidates import number

Better = Literal["first", "second", "tie"]
# How a number is meant: the place of the better one from 0; 1 for the first; the more, the better is the second; the
# place from 1; or, as nobody knows, not at all.
Meaning = Literal["index", "one_is_first", "signed", "from_1", "words"]


@dataclass(frozen=True, slots=True)
class Winner:
    column: str
    meaning: Meaning

    def of(self, row: Mapping[str, Any]) -> Better | None:  # Any: whatever the row holds
        """None where nothing can be said."""
        value = row.get(self.column)
        if isinstance(value, str) and (word := _WORDS.get(value.strip().lower())):
            return word
        found = float(value) if isinstance(value, bool) and self.meaning != "from_1" else number(value)
        if found is None or self.meaning == "words":
            return None
        if self.meaning == "signed":
            return "tie" if found == 0 else "first" if found < 0 else "second"
        return _NUMBERS[self.meaning].get(found)


def compared_columns(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], given: Mapping[str, str]
) -> tuple[str, str, Winner] | None:
    """The two answers' columns and the winner's; `given` names some of them as a, b and winner."""
    wanted = given.get("winner")
    for a, b, winner, how in _KNOWN:
        ours = {given.get("a", a), given.get("b", b)} == {a, b}  # named in the other order, they are the same two
        if ours and wanted in (None, winner) and {a, b, winner} <= set(names):
            return a, b, Winner(winner, how or _plain(rows, winner))
    if wanted is None:
        return None
    known = ((a, b) for a, b, _, _ in _KNOWN if a in names and b in names)
    sides = (given["a"], given["b"]) if "a" in given and "b" in given else next(known, None)
    return sides and (*sides, Winner(wanted, _plain(rows, wanted)))


def _plain(rows: Sequence[Mapping[str, Any]], column: str) -> Meaning:
    """1 and 2 alone are plain: with 0 among them 1 may be either, and on a scale from -2 to 2 it is the second."""
    numbers = {number(row.get(column)) for row in rows} - {None}
    return "from_1" if numbers <= {1.0, 2.0} else "words"


# None as meaning: by what the column has.
_KNOWN: tuple[tuple[str, str, str, Meaning | None], ...] = (
    ("response_0", "response_1", "better_response_id", "index"),  # PKU-SafeRLHF
    ("response_0", "response_1", "safer_response_id", "index"),
    ("human_ref_A", "human_ref_B", "labels", "one_is_first"),  # SHP
    ("response1", "response2", "overall_preference", "signed"),  # HelpSteer 3
    ("response_1", "response_2", "preference_strength", "signed"),  # HelpSteer 2
    ("conversation_a", "conversation_b", "winner", None),  # the arenas' words: model_a, tie (bothbad)
    ("response_a", "response_b", "winner", None),
    ("response_a", "response_b", "preference", None),
    ("response_1", "response_2", "preference", None),
    ("answer_a", "answer_b", "winner", None),
    ("completion_a", "completion_b", "winner", None),
    ("output_1", "output_2", "preference", None),  # AlpacaFarm
)
_NUMBERS: Mapping[Meaning, Mapping[float, Better]] = {
    "index": {0.0: "first", 1.0: "second"},
    "one_is_first": {1.0: "first", 0.0: "second"},
    "from_1": {1.0: "first", 2.0: "second"},
}
_WORDS: Mapping[str, Better] = {
    **dict.fromkeys(("a", "first", "model_a", "response_a", "[[a]]"), "first"),
    **dict.fromkeys(("b", "second", "model_b", "response_b", "[[b]]"), "second"),
    **dict.fromkeys(("tie", "tie (bothbad)", "both_bad", "bothbad", "both", "neither", "equal", "[[c]]"), "tie"),
}
