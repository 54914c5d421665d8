"""What stands out in an evaluation, in words; names and texts of others are as Markdown's code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlaif.backends import ENGINES
from rlaif.evaluate.asking import Answered
from rlaif.evaluate.headtohead import HeadToHead
from rlaif.evaluate.near import Near
from rlaif.evaluate.safety import Safety
from rlaif.evaluate.style import Style
from rlaif.export.markup import code

# Shares of a model's answers from which on a habit is worth a note.
_SAME, _OPENING, _EMPTY, _LOOPS = 0.1, 0.3, 0.05, 0.1
_FEW = 20  # answers; habits of fewer are chance
_LONGEST = 60  # characters of a text


def safety_notes(found: Safety, answered: Answered, near: Sequence[Near] = ()) -> tuple[str, ...]:
    habits = [(model.model, model.safe.style if model.safe else model.style) for model in found.models]
    of = " safe" if found.models[0].safe else ""
    return (*_near(near), *_asked(answered), *_habits(habits, of))


def comparison_notes(found: HeadToHead, answered: Answered, near: Sequence[Near] = ()) -> tuple[str, ...]:
    habits = [(one.model, one.style) for one in found.models]
    notes = [*_near(near), *_asked(answered), *_habits(habits, "")]
    if found.judge in [one.model for one in found.models]:
        notes.append(f"{code(found.judge)} judges its own answers, which judges tend to prefer: name another judge.")
    for pair in found.pairs:
        both = f"{code(pair.a)} and {code(pair.b)}"
        if pair.unjudged:
            notes.append(f"{pair.unjudged:,} prompts have no usable verdict on {both}, and are in no figure of theirs.")
        agree = pair.consistency
        if agree.high is not None and agree.high < 0.5:
            notes.append(
                f"On {both} the judge has the same winner in both orders only {agree.value:.0%} of the time: most of "
                "its verdicts are about the order; take a better judge."
            )
    return tuple(notes)


def _near(near: Sequence[Near]) -> Iterator[str]:
    for one in near:
        if one.found:
            examples = ", ".join(code(_cut(text)) for text in one.examples)
            yield (
                f"{one.found:,} of {one.of:,} prompts are in {code(one.source)}, the same or most of their words: what "
                f"was trained on proves nothing here. For example {examples}."
            )


def _asked(answered: Answered) -> Iterator[str]:
    """What is odd about how the models were asked, and what all of them said."""
    if answered.failed:
        prompts = "1 prompt has" if answered.failed == 1 else f"{answered.failed:,} prompts have"
        yield (
            f"{prompts} no answer of every model, and no part in any figure; ask again for what is missing with "
            f"{code(f'rlaif retry {answered.run}')}, then the same command."
        )
    if answered.repeated:
        rows = "1 row repeats a prompt" if answered.repeated == 1 else f"{answered.repeated:,} rows repeat prompts"
        yield f"{rows}, of the same set or of another: each prompt is asked and counted once."
    first, *others = answered.models
    for i, other in enumerate(others, 1):
        engines = first.spec.provider, other.spec.provider
        if len({*engines}) > 1 and ENGINES.issuperset(engines):
            yield (
                f"{code(first.name)} was computed by {engines[0]}, {code(other.name)} by {engines[1]}: some of what "
                "differs is the engine's rounding; ask both through one."
            )
        if all(record.responses[0].text == record.responses[i].text for record in answered.records):
            yield f"{code(other.name)} says word for word what {code(first.name)} says: did its training change it?"


def _habits(styles: Sequence[tuple[str, Style]], of: str) -> Iterator[str]:
    """What a collapsed model does; asked for all that have enough answers."""
    for name, style in styles:
        if style.n < _FEW:
            continue
        if style.empty >= _EMPTY:
            yield f"{code(name)} says nothing to {style.empty:.0%} of the{of} prompts."
        if style.same >= _SAME and style.answer:
            yield f"{code(name)} gives one answer to {style.same:.0%} of the{of} prompts: {code(_cut(style.answer))}."
        elif style.boilerplate >= _OPENING:
            yield f"{code(name)} begins {style.boilerplate:.0%} of its{of} answers with {code(style.opening)}."
        if style.repetition >= _LOOPS:
            yield f"{code(name)} goes round in circles in {style.repetition:.0%} of its{of} answers."


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
