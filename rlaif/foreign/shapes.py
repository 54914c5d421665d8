"""What the columns of a preference dataset mean, and each row as a prompt and what its sides say after it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from rlaif.errors import ConfigError
from rlaif.foreign.candidates import Items, Rated, candidates_of, items_in, number, ratings_in
from rlaif.foreign.rankings import compared
from rlaif.foreign.turns import Form, is_transcript, turns_of
from rlaif.foreign.winners import Winner, compared_columns
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


def shape_of(
    columns: Sequence[str],
    first_rows: Sequence[Values],
    *,
    roles: Mapping[str, str] | None = None,
    pairing: Pairing | None = None,
) -> Shape:
    """Raises ConfigError, with the way out, where no column can be what it takes.

    `roles` names columns that have other names, by what _ROLES lists. With `pairing` only that is looked for.
    """
    given = dict(roles or {})
    for role, name in given.items():
        if role not in _ROLES:
            raise ConfigError(f"no role '{role}' of a column; there are: {', '.join(_ROLES)}")
        if any(part not in columns for part in name.split("+")) and role not in ("score", "rank"):
            raise ConfigError(f"no column '{name}' for {role}; there are: {', '.join(columns)}")
    for role, usual in (("system", _SYSTEM), ("category", _CATEGORY)):
        if role not in given and (known := [name for name in usual if name in columns]):
            given[role] = known[0]
    sides = {name for pair in _SIDES for name in pair}
    there = [name for name in columns if name in sides or any(row.get(name) is not None for row in first_rows)]
    for look in (_paired, _ranked, _unpaired, _rated):
        found = look(there, first_rows, given)
        if found is not None and pairing in (None, found.pairing):
            return found
    wanted = f" that is {pairing}" if pairing else ""
    raise ConfigError(
        f"no preference data{wanted} in the columns {', '.join(columns)}; it takes chosen and rejected; or a prompt, a "
        "completion and a label or score; or a prompt and a list of answers with ranks or ratings. Say which column is "
        "which, like --columns chosen=NAME,rejected=NAME"
    )


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


# --- the columns ---

_ROLES = (
    "prompt",
    "chosen",
    "rejected",
    "a",
    "b",
    "winner",
    "completion",
    "label",
    "answers",
    "score",
    "rank",
    "system",
    "category",
    "margin",
)
_PROMPT = (
    "prompt",
    "instruction",
    "question",
    "query",
    "input",
    "context",
    "history",
    "conversation",
    "conversations",
    "messages",
)
_SIDES = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("preferred", "dispreferred"),
    ("preferred_output", "non_preferred_output"),
    ("preferred", "rejected"),
    ("accepted", "rejected"),
    ("better", "worse"),
    ("winner", "loser"),
)
_SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("rating_chosen", "rating_rejected"),
    ("chosen_avg_rating", "rejected_avg_rating"),
)
_COMPLETION = ("completion", "response", "answer", "output", "generation", "text", "messages")
_LABEL = ("label", "thumbs", "thumb", "feedback", "vote", "liked", "is_good", "preference")
_SYSTEM = ("system", "system_prompt")
_CATEGORY = ("category", "type", "topic", "subset", "source", "task")


def _paired(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> Shape | None:
    sides = next(((a, b) for a, b in _SIDES if a in names and b in names), (None, None))
    chosen, rejected = given.get("chosen") or sides[0], given.get("rejected") or sides[1]
    winner = None
    if chosen is None or rejected is None or "winner" in given:
        compared = compared_columns(names, rows, given)
        if compared is None:
            return None
        chosen, rejected, winner = compared
    prompt = _prompt_column(names, rows, given)
    scores = next(((a, b) for a, b in _SCORES if a in names and b in names), (None, None))
    return Shape(
        "paired",
        _form(rows, chosen),
        prompt,
        _form(rows, prompt) if prompt else None,
        chosen=chosen,
        rejected=rejected,
        chosen_score=scores[0],
        rejected_score=scores[1],
        margin=given.get("margin") or ("margin" if "margin" in names else None),
        winner=winner,
        **_beside(names, given, prompt),
    )


def _ranked(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> Shape | None:
    items = items_in(names, rows, given)
    prompt = _prompt_column([name for name in names if items is None or name != items.column], rows, given)
    if items is None or prompt is None:
        return None
    form: Form = "messages" if items.messages else "text"
    return Shape("ranked", form, prompt, _form(rows, prompt), items=items, **_beside(names, given, prompt))


def _unpaired(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> Shape | None:
    return _one_answer(names, rows, given, "unpaired")


def _rated(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> Shape | None:
    return _one_answer(names, rows, given, "rated")


def _one_answer(
    names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str], pairing: Literal["unpaired", "rated"]
) -> Shape | None:
    prompt = _prompt_column(names, rows, given)
    others = [name for name in names if name != prompt]
    completion = given.get("completion") or next((name for name in _COMPLETION if name in others), None)
    if completion is None:
        return None
    form = _form(rows, completion)
    if prompt is None and form == "text":
        return None
    shape = Shape(
        pairing,
        form,
        prompt,
        _form(rows, prompt) if prompt else None,
        completion=completion,
        **_beside(names, given, prompt),
    )
    if pairing == "unpaired":
        label = given.get("label") or next((name for name in _LABEL if name in others), None)
        labels = [] if label is None else [row.get(label) for row in rows]
        stars = next((value for value in labels if abs(number(value) or 0) > 1), None)  # of 1 to 5, 1 is no thumb up
        if "label" in given and stars is not None:
            raise ConfigError(f"'{label}' has {stars}, neither up nor down; a rating is named --columns score={label}")
        if label is None or stars is not None:
            return None
        if "label" not in given and not any(truth(value) is not None for value in labels):
            return None
        signed = any(value == -1 or value == "-1" for value in labels)
        return replace(shape, label=label, zero_is_down=not signed)
    rated = ratings_in(others, rows, given)
    return None if rated is None else replace(shape, rated=rated)


def _prompt_column(names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str]) -> str | None:
    return given.get("prompt") or next((name for name in _PROMPT if name in names and _asks(rows, name)), None)


def _asks(rows: Sequence[Values], column: str) -> bool:
    """Not a whole conversation, as `messages` often is: those end with the assistant."""
    if column not in ("conversation", "conversations", "messages"):
        return True
    value = next((value for row in rows if (value := row.get(column)) is not None), None)
    turns = turns_of(value, "text", "user", []) if isinstance(value, list) else ()
    return not turns or turns[-1].role != "assistant"


def _beside(
    names: Sequence[str], given: Mapping[str, str], prompt: str | None
) -> dict[str, Any]:  # Any: as mypy sees **
    context = "input" if prompt == "instruction" and "input" in names else None
    return {"context": context, "system": given.get("system"), "category": given.get("category")}


# Lists of messages as CSV keeps them: as JSON, or as Python prints them.
_DUMPED = re.compile(r"""\s*(?:array\()?\[\s*\{\s*['"](?:role|content|from|value)['"]\s*:""")


def _form(rows: Sequence[Values], column: str) -> Form:
    """By most of the first rows' values."""
    values = [row.get(column) for row in rows]
    texts = [value for value in values if isinstance(value, str)]
    if texts and 2 * sum(_DUMPED.match(text) is not None for text in texts) > len(texts):
        raise ConfigError(f"column '{column}' has messages written as text; store them as lists (.jsonl, .parquet)")
    if sum(isinstance(value, (list, dict)) for value in values) > len(texts):
        return "messages"
    return "transcript" if texts and 2 * sum(map(is_transcript, texts)) > len(texts) else "text"
