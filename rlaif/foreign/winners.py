"""Two answers and a column that says which is better: sets without `chosen` and `rejected`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlaif.foreign.candidates import number

Better = Literal["first", "second", "tie"]
# How a number is meant: the place of the better one from 0; 1 for the first; the more, the better is the second; or,
# where nothing is known of the set, 1 and 2 alone are plain.
Meaning = Literal["index", "one_is_first", "signed", "unknown"]


@dataclass(frozen=True, slots=True)
class Winner:
    column: str
    meaning: Meaning = "unknown"

    def of(self, row: Mapping[str, Any]) -> Better | None:  # Any: whatever the row holds
        """None where nothing can be said."""
        value = row.get(self.column)
        if isinstance(value, str) and (word := _WORDS.get(value.strip().lower())):
            return word
        found = float(value) if isinstance(value, bool) else number(value)
        if found is None:
            return None
        if self.meaning == "signed":
            return "tie" if found == 0 else "first" if found < 0 else "second"
        return _NUMBERS[self.meaning].get(found)


def compared_columns(names: Sequence[str], given: Mapping[str, str]) -> tuple[str, str, Winner] | None:
    """The two answers' columns and the winner's; `given` names them as a, b and winner."""
    if "winner" in given and "a" in given and "b" in given:
        known = [how for _, _, winner, how in _KNOWN if winner == given["winner"]]
        return given["a"], given["b"], Winner(given["winner"], known[0] if known else "unknown")
    for a, b, winner, how in _KNOWN:
        if a in names and b in names and winner in names:
            return a, b, Winner(winner, how)
    return None


_KNOWN: tuple[tuple[str, str, str, Meaning], ...] = (
    ("response_0", "response_1", "better_response_id", "index"),  # PKU-SafeRLHF
    ("human_ref_A", "human_ref_B", "labels", "one_is_first"),  # SHP
    ("response1", "response2", "overall_preference", "signed"),  # HelpSteer 3
    ("conversation_a", "conversation_b", "winner", "unknown"),  # the arenas' words: model_a, tie (bothbad)
    ("response_a", "response_b", "winner", "unknown"),
    ("answer_a", "answer_b", "winner", "unknown"),
    ("completion_a", "completion_b", "winner", "unknown"),
)
_NUMBERS: Mapping[Meaning, Mapping[float, Better]] = {
    "index": {0.0: "first", 1.0: "second"},
    "one_is_first": {1.0: "first", 0.0: "second"},
    "unknown": {1.0: "first", 2.0: "second"},
}
_WORDS: Mapping[str, Better] = {
    **dict.fromkeys(("a", "first", "model_a", "response_a", "[[a]]"), "first"),
    **dict.fromkeys(("b", "second", "model_b", "response_b", "[[b]]"), "second"),
    **dict.fromkeys(("tie", "tie (bothbad)", "both_bad", "bothbad", "both", "neither", "equal", "[[c]]"), "tie"),
}
