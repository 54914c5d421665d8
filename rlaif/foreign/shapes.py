"""The shape of a preference dataset, and each row of it as a prompt and what its sides say after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from rlaif.foreign.candidates import Items, Rated, candidates_of, number
from rlaif.foreign.rankings import compared
from rlaif.foreign.turns import Form, turns_of
from rlaif.foreign.winners import Winner
from rlaif.types import Message, Messages, Role

Pairing = Literal["paired", "unpaired", "ranked", "rated"]
Values = Mapping[str, Any]  # Any: whatever the row holds

# What a row may have, the most telling first: what is empty or not text makes other problems too.
Problem = Literal[
    "not_text",  # a column that holds neither text nor messages: null, a number, another struct
    "no_turns",  # a transcript without a speaker
    "unknown_role",
    "no_prompt",  # implicit, and the sides share no turn
    "empty_chosen",
    "empty_rejected",
    "prefix_mismatch",  # whole conversations that are not the same up to their last turn
    "empty_prompt",
    "role_error",  # system first, then user and assistant in turn; a side is the assistant's
    "identical",
    "no_label",  # neither up nor down; or nobody knows which of the two is better
    "too_few_rated",  # under two answers with a rating or rank
    "tie",  # by the row's own scores or ranks
    "scores_disagree",  # the rejected side has the higher score, or the margin is below 0
    "empty_turn",  # in the midst of a prompt
    "prompt_mismatch",  # the prompt column is no turn of the conversations
]
PROBLEMS: tuple[Problem, ...] = get_args(Problem)
# With one of these a row gives no pair (or, unpaired, no labelled completion); the others are no more than notes.
FATAL = PROBLEMS[: PROBLEMS.index("empty_turn")]
MALFORMED: frozenset[Problem] = frozenset(
    {"not_text", "no_turns", "unknown_role", "no_prompt", "prefix_mismatch", "role_error"}
)


def fatal(problems: Sequence[str]) -> Problem | None:
    """The most telling of those with which a row gives nothing."""
    return next((name for name in FATAL if name in problems), None)


class Example(NamedTuple):
    """A row as it is meant; of an unpaired one the completion is `chosen` and `label` says if it is good.

    `problems` are names out of PROBLEMS, each once; whatever could be read is there all the same.
    `margin` is by how much chosen is better where the row says so, in the row's own unit.
    """

    prompt: Messages
    chosen: Messages
    rejected: Messages
    label: bool | None = None
    problems: tuple[str, ...] = ()
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """Which column is what. `prompt` None: implicit, the turns that both sides begin with.

    `form` and `prompt_form` are how the sides and the prompt are written in the first rows.
    """

    pairing: Pairing
    form: Form
    prompt: str | None = None
    prompt_form: Form | None = None
    chosen: str | None = None
    rejected: str | None = None
    chosen_score: str | None = None
    rejected_score: str | None = None
    margin: str | None = None
    winner: Winner | None = None  # says which of the two is chosen; None: `chosen` is
    completion: str | None = None
    label: str | None = None
    zero_is_down: bool = True  # False where -1 is: 0 is then neither
    items: Items | None = None
    rated: Rated | None = None
    context: str | None = None  # follows the prompt, as Alpaca's `input` its `instruction`
    system: str | None = None
    category: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `example` reads."""
        named = (self.prompt, self.chosen, self.rejected, self.chosen_score, self.rejected_score, self.margin)
        more = (self.completion, self.label, self.context, self.system, self.category)
        lists = () if self.items is None else (self.items.column, *self.items.beside)
        ratings = () if self.rated is None else self.rated.columns
        winner = () if self.winner is None else (self.winner.column,)
        return tuple(dict.fromkeys(name for name in (*named, *more, *winner, *lists, *ratings) if name))

    def __str__(self) -> str:
        ratings = ", ".join(self.rated.columns) if self.rated else ""
        by = f" or the other way round by {self.winner.column}" if self.winner else ""
        what = {
            "paired": f"pairs, {self.chosen} over {self.rejected}{by}",
            "unpaired": f"single answers in {self.completion}, good or bad by {self.label}",
            "ranked": f"several answers a prompt in {self.items.column if self.items else ''}",
            "rated": f"single answers in {self.completion}, rated by {ratings}",
        }
        prompt = f"the prompt in {self.prompt} ({self.prompt_form})" if self.prompt else "the prompt implicit"
        return f"{what[self.pairing]} ({self.form}), {prompt}"


def example(row: Values, shape: Shape) -> Example:
    """Never raises: a bad row has its problems. A ranked row gives its best against its worst answer."""
    problems: list[str] = []
    found = _READ[shape.pairing](row, shape, problems)
    return found._replace(problems=tuple(dict.fromkeys(problems))) if problems else found


# --- a row ---


def _pair(row: Values, shape: Shape, problems: list[str]) -> Example:
    form = shape.form
    chosen = turns_of(row.get(shape.chosen or ""), form, "assistant", problems)
    rejected = turns_of(row.get(shape.rejected or ""), form, "assistant", problems)
    if shape.winner is not None:
        better = shape.winner.of(row)
        if better == "second":
            chosen, rejected = rejected, chosen
        elif better != "first":
            problems.append("tie" if better else "no_label")
    whole = bool(chosen and rejected) and chosen[0].role != "assistant" and rejected[0].role != "assistant"
    prompt: Messages = ()
    if shape.prompt is not None:
        prompt = _prompt(row, shape, problems)
    if whole:
        said, (prompt, chosen, rejected) = prompt, _split(chosen, rejected, problems)
        if said and all(said[-1].content.strip() != turn.content.strip() for turn in prompt):
            problems.append("prompt_mismatch")
    elif shape.prompt is None and "not_text" not in problems:
        problems.append("no_prompt")
    prompt = _with_system(prompt, row, shape)
    _check_prompt(prompt, problems)
    _check_side(chosen, "empty_chosen", problems)
    _check_side(rejected, "empty_rejected", problems)
    if chosen and _same(chosen, rejected):
        problems.append("identical")
    return Example(prompt, chosen, rejected, margin=_margin(row, shape, problems))


def _single(row: Values, shape: Shape, problems: list[str]) -> Example:
    prompt = _with_system(_prompt(row, shape, problems), row, shape) if shape.prompt else ()
    completion = turns_of(row.get(shape.completion or ""), shape.form, "assistant", problems)
    if completion and completion[0].role != "assistant":  # a whole conversation
        prompt, completion = completion[:-1], completion[-1:]
    _check_prompt(prompt, problems)
    _check_side(completion, "empty_chosen", problems)
    label = None
    if shape.label is not None:
        label = truth(row.get(shape.label), shape.zero_is_down)
        if label is None:
            problems.append("no_label")
    score = shape.rated.of(row) if shape.rated else None
    if shape.rated and score is None:
        problems.append("too_few_rated")
    return Example(prompt, completion, (), label, margin=score)


def _best_vs_worst(row: Values, shape: Shape, problems: list[str]) -> Example:
    prompt, found = answers(row, shape, problems)
    pairs = compared(found, span=1.0)
    if isinstance(pairs, str):
        problems.append(pairs)
        sides = sorted((one.turns for one in found), key=lambda turns: turns[-1].content.strip())
        return Example(prompt, sides[0] if sides else (), sides[-1] if len(sides) > 1 else ())
    best, worst, margin = pairs[0]
    _check_side(best.turns, "empty_chosen", problems)
    _check_side(worst.turns, "empty_rejected", problems)
    return Example(prompt, best.turns, worst.turns, margin=margin)


def answers(row: Values, shape: Shape, problems: list[str]) -> tuple[Messages, list[Any]]:
    """The prompt of a ranked row and all its answers, as `Candidate`s, whether they have a rating or not."""
    assert shape.items is not None
    prompt = _with_system(_prompt(row, shape, problems), row, shape) if shape.prompt else ()
    _check_prompt(prompt, problems)
    return prompt, candidates_of(row, shape.items, shape.form, problems)


_READ: Mapping[Pairing, Callable[[Values, Shape, list[str]], Example]] = {
    "paired": _pair,
    "unpaired": _single,
    "ranked": _best_vs_worst,
    "rated": _single,
}


def _prompt(row: Values, shape: Shape, problems: list[str]) -> Messages:
    prompt = turns_of(row.get(shape.prompt or ""), shape.prompt_form or "text", "user", problems)
    # A transcript ends with "Assistant:", whose turn is what follows.
    if len(prompt) > 1 and prompt[-1].role == "assistant" and not prompt[-1].content.strip():
        return prompt[:-1]
    if shape.context is not None and len(prompt) == 1:
        context = row.get(shape.context)
        if isinstance(context, str) and context.strip():
            return (Message("user", f"{prompt[0].content}\n\n{context}"),)
    return prompt


def _with_system(prompt: Messages, row: Values, shape: Shape) -> Messages:
    if shape.system is None:
        return prompt
    system = row.get(shape.system)
    if not isinstance(system, str) or not system.strip() or (prompt and prompt[0].role == "system"):
        return prompt
    return (Message("system", system), *prompt)


def _split(chosen: Messages, rejected: Messages, problems: list[str]) -> tuple[Messages, Messages, Messages]:
    """The longest common prefix of turns, but for each side's last, and what is left of the sides.

    As TRL's `extract_prompt` does with messages. Text it cuts at the first character that differs: "The sky is b|lue"
    and "The sky is b|ig"; we don't.
    """
    shared, most = 0, min(len(chosen), len(rejected)) - 1
    while shared < most and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        problems.append("no_prompt")
    elif shared + 1 < max(len(chosen), len(rejected)):
        problems.append("prefix_mismatch")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _check_prompt(prompt: Messages, problems: list[str]) -> None:
    if not prompt:
        if _NO_PROMPT.isdisjoint(problems):
            problems.append("empty_prompt")
        return
    if not prompt[-1].content.strip():
        problems.append("empty_prompt")
    said = prompt[1:] if prompt[0].role == "system" else prompt
    if len(said) % 2 == 0 or not _alternate(said, "user", "assistant"):
        problems.append("role_error")
    if not all(turn.content.strip() for turn in prompt[:-1]):
        problems.append("empty_turn")


_NO_PROMPT = frozenset({"no_prompt", "not_text", "no_turns", "unknown_role"})


def _check_side(side: Messages, empty: str, problems: list[str]) -> None:
    if not side:
        if _NO_PROMPT.isdisjoint(problems):
            problems.append(empty)
        return
    if not side[-1].content.strip():
        problems.append(empty)
    if len(side) % 2 == 0 or not _alternate(side, "assistant", "user"):
        problems.append("role_error")


def _alternate(turns: Messages, first: Role, second: Role) -> bool:
    if len(turns) == 1:  # nearly always
        return turns[0].role == first
    return all(turn.role == first for turn in turns[::2]) and all(turn.role == second for turn in turns[1::2])


def _same(a: Messages, b: Messages) -> bool:
    if len(a) != len(b):
        return False
    return all(x.role == y.role and x.content.strip() == y.content.strip() for x, y in zip(a, b, strict=True))


def _margin(row: Values, shape: Shape, problems: list[str]) -> float | None:
    if shape.margin is not None:
        margin = number(row.get(shape.margin))
    else:
        better, worse = number(row.get(shape.chosen_score or "")), number(row.get(shape.rejected_score or ""))
        margin = None if better is None or worse is None else better - worse
    if margin is not None and margin < 0:
        problems.append("scores_disagree")
    elif margin == 0 and shape.margin is None:  # in a column of margins it is how many say that there is none
        problems.append("tie")
    return margin


def truth(value: Any, zero_is_down: bool = True) -> bool | None:  # Any: whatever the row holds
    """Up or down, as people write it; None for what is neither, such as 0.7 or "maybe"."""
    if isinstance(value, str):
        value = value.strip().lower().replace(" ", "_")
    try:
        found = _TRUTH.get(value)
    except TypeError:  # a list
        return None
    return None if found is False and value == 0 and value is not False and not zero_is_down else found


# True and 1.0 are 1 to a dict, as False and 0.0 are 0.
_TRUTH: Mapping[Any, bool] = {
    **dict.fromkeys((1, "1", "true", "yes", "up", "thumbs_up", "thumbsup", "+1", "like", "liked", "good", "👍"), True),
    **dict.fromkeys((0, "0", "false", "no", "down", "thumbs_down", "thumbsdown", "dislike", "disliked", "bad"), False),
    **dict.fromkeys((-1, "-1", "👎"), False),
}
