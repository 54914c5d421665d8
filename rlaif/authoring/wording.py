"""Single texts: what cannot be judged, looked for or rewritten by, as its words tell."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlaif.authoring.finding import PURPOSES, Finding
from rlaif.authoring.words import Words, only_praises, reads_as_english, script, script_of, tokens
from rlaif.constitution import Constitution, Principle, Purpose

# A text of fewer words, or characters in scripts without spaces, leaves the model to guess.
SHORT, SHORT_CHARACTERS = 4, 8
LONG = 150

_WRAPPER = re.compile(
    r"(?i:\b(?:critique|revision) ?request:)|\b(?:Critique|Revision|Options):\s*$|(?m:^\s*(?:Human|Assistant):)"
    r"|<\|[\w ]+\|>|\[/?INST\]"
)
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{\w*\}|\[(?:RESPONSE|PROMPT|PRINCIPLE|[A-Z]{3,}(?:[ _/][A-Z]+)+)\]")


def marks(constitution: Constitution) -> Iterator[Finding]:
    """What can be seen in any language: wrappers, placeholders, length, question marks, copies."""
    for principle in constitution.principles:
        given = {purpose: text for purpose in PURPOSES if (text := principle.text(purpose))}
        for purpose, text in given.items():
            yield from _text(principle.id, purpose, text)
        same = [purpose for purpose, text in given.items() if list(given.values()).count(text) > 1]
        if same:
            yield Finding(
                "warning",
                "copied",
                (principle.id,),
                f"has the same text for {' and '.join(same)}",
                "ask the critique for faults, the revision for a rewrite, the judge for the better of two",
            )


def _text(name: str, purpose: Purpose, text: str) -> Iterator[Finding]:
    if found := _WRAPPER.search(text):
        yield Finding(
            "error",
            "wrapper",
            (name,),
            f"has '{found[0].strip()}' in its {purpose}: the templates put such words around it, here they come twice",
            "take it out; `rlaif constitution import` does so for published files",
        )
    if found := _PLACEHOLDER.search(text):
        yield Finding(
            "warning",
            "placeholder",
            (name,),
            f"has {found[0]} in its {purpose}, which is filled by nobody: the model reads it as it stands",
            "write in words what it stands for; the conversation and the responses are shown beside it",
        )
    found_tokens = tokens(text)
    letters = sum(len(token) for token in found_tokens)
    short = letters < SHORT_CHARACTERS if letters == len(found_tokens) else len(found_tokens) < SHORT
    if short:
        yield Finding(
            "warning",
            "short",
            (name,),
            f"has a {purpose} of {len(found_tokens)} word(s), '{_cut(text)}': the model has to guess the rest",
            "say what to look for, and where",
        )
    if len(found_tokens) > LONG:
        yield Finding(
            "note",
            "long",
            (name,),
            f"has a {purpose} of {len(found_tokens)} words, which are paid for in every call",
            "split it: a principle that is drawn alone is followed better",
        )
    questions = text.count("?") + text.count("\uff1f")
    if purpose == "judge" and questions > 1:
        yield Finding(
            "warning",
            "several-questions",
            (name,),
            f"asks the judge {questions} questions at once, and it can answer only one",
            "make a principle of each; draws weigh them against each other",
        )


def foreign(constitution: Constitution) -> Iterator[Finding]:
    """Principles in another script than the language's, or not in English where that is said."""
    expected = script_of(constitution.language)
    whole = [" ".join(filter(None, map(p.text, PURPOSES))) for p in constitution.principles]
    expected = expected or script(" ".join(whole))
    english = constitution.language.casefold().startswith("en")
    odd = [
        p.id
        for p, text in zip(constitution.principles, whole, strict=True)
        if script(text) not in (expected, "") or (english and not all(map(reads_as_english, _given(p))))
    ]
    if odd:
        yield Finding(
            "warning",
            "language",
            tuple(odd),
            f"not written in the constitution's language, '{constitution.language}'",
            "translate, or set `language:`: the turns around the texts are in that language",
        )


def _given(principle: Principle) -> list[str]:
    return [text for text in map(principle.text, PURPOSES) if text]


def wording(principles: list[Principle], words: Words) -> Iterator[Finding]:
    """What its words tell: whether a text says what to look for, and asks for what its purpose is."""
    for principle in principles:
        for purpose in PURPOSES:
            text = principle.text(purpose)
            if text is None:
                continue
            if only_praises(text, words):
                yield Finding(
                    "warning",
                    "vague",
                    (principle.id,),
                    f"{purpose} '{_cut(text)}' names an aim, and nothing one can find in a text",
                    "say what the response does or does not do: which words, facts, steps, tone",
                )
            elif purpose == "judge" and (several := _ADJECTIVES.search(text)):
                yield Finding(
                    "note",
                    "several-aims",
                    (principle.id,),
                    f"judges by '{_cut(several[0])}' at once: which of them decides is left to the judge",
                    "one aim a principle; or say which comes first",
                )
            if complaint := _does_not_ask(purpose, text.casefold(), words):
                yield Finding("warning", complaint[0], (principle.id,), f"{complaint[1]}: '{_cut(text)}'", complaint[2])


# Four or more in a row: "as kind, calm, clear and short as possible".
_ADJECTIVES = re.compile(
    r"(?<!such )\b(?:as|more|most|less|least|is|are) (?:[\w-]+, ){2,}[\w-]+,? (?:and|or) (?:[\w-]+ )?[\w-]+",
    re.IGNORECASE,
)


def _does_not_ask(purpose: Purpose, text: str, words: Words) -> tuple[str, str, str] | None:
    if purpose == "judge" and not words.compares.search(text):
        return "no-comparison", "judge text compares nothing", 'begin with "Prefer the response that ..."'
    if purpose == "critique" and not all(pattern.search(text) for pattern in words.looks):
        return (
            "no-look",
            "critique does not ask for a look at the response",
            'begin with "Point out where the last response ..."',
        )
    if purpose == "revision" and not words.rewrites.search(text):
        return "no-rewrite", "revision asks for no rewrite", 'begin with "Rewrite the response so that ..."'
    return None


def _cut(text: str, length: int = 64) -> str:
    plain = " ".join(text.split())
    if len(plain) <= length:
        return plain
    return f"{plain[:length].rpartition(' ')[0] or plain[: length // 2]} ..."
