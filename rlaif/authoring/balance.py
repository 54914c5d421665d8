"""The whole: what principles are for, how often each is drawn, what is missing, and what only forbids."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlaif.authoring.finding import PURPOSES, Finding
from rlaif.authoring.words import AIMS, Aim, Words, only_forbids, words_of
from rlaif.constitution import Constitution, Principle, Purpose

DOMINANT = 0.5
RARE = 0.001
ONE_SIDED = 3  # times as much weight for harmlessness as for help and against preaching
ROUNDS = 4  # of `revise` by default


def shares(constitution: Constitution) -> dict[Purpose, dict[str, float]]:
    """By purpose and id, the share of draws: the weight among those that have a text for the purpose."""
    pools = {purpose: {p.id: p.weight for p in constitution.principles if p.text(purpose)} for purpose in PURPOSES}
    return {
        purpose: {name: weight / whole for name, weight in pool.items()}
        for purpose, pool in pools.items()
        for whole in [sum(pool.values())]
    }


def aims(principle: Principle, words: Words | None) -> frozenset[Aim]:
    """What it is for. By its tags where they name an aim, else by its words; preaching is told by words alone."""
    tagged: frozenset[Aim] = frozenset(aim for aim in AIMS if aim in principle.tags)
    if words is None:
        return tagged
    text = " ".join(filter(None, (principle.critique, principle.revision, principle.judge))).casefold()
    told: frozenset[Aim] = frozenset(aim for aim in AIMS if words.aims[aim].search(text))
    return (tagged or told) | (told & {"unpreachy"})


def aim_shares(constitution: Constitution) -> dict[Aim, float]:
    """By aim, the share of all weight that principles for it have; one may be for several."""
    words = words_of(constitution.language)
    whole = sum(p.weight for p in constitution.principles)
    return {aim: sum(p.weight for p in constitution.principles if aim in aims(p, words)) / whole for aim in AIMS}


def forbidding(principles: list[Principle], words: Words) -> Iterator[Finding]:
    """Principles that refusing would satisfy; none against refusal does."""
    only = [
        p for p in principles if "unpreachy" not in aims(p, words) and all(only_forbids(t, words) for t in _asked(p))
    ]
    if not only:
        return
    share = max(_weight(only, field) / (_weight(principles, field) or 1) for field in ("revision", "judge"))
    most = len(principles) > 1 and share > 0.5
    yield Finding(
        "warning" if most else "note",
        "mostly-forbids" if most else "only-forbids",
        tuple(p.id for p in only),
        f"say only what should not be there ({share:.0%} of the draws): refusing everything would satisfy "
        + ("it" if len(only) == 1 else "them"),
        'add what to do instead: "... and answer the harmless part", "... and keep the facts that are safe"',
    )


def _weight(principles: list[Principle], field: Purpose) -> float:
    return sum(p.weight for p in principles if p.text(field))


def _asked(principle: Principle) -> list[str]:
    """What is asked of the response; a critique looks for faults by its nature."""
    return [text for text in (principle.revision, principle.judge) if text]


_MEANING: dict[Aim, str] = {
    "harmless": "harmlessness",
    "helpful": "helpfulness",
    "honest": "honesty",
    "unpreachy": "no preaching and no needless refusal",
}


def balance(constitution: Constitution, words: Words | None) -> Iterator[Finding]:
    share = aim_shares(constitution)
    told = [aim for aim in AIMS if share[aim] > 0]
    missing = [aim for aim in AIMS if not share[aim]]
    if words is None:
        missing = [aim for aim in missing if aim != "unpreachy"]  # that one is told by words
    has = "share of the weight: " + ", ".join(f"{_MEANING[aim]} {share[aim]:.0%}" for aim in told)
    lacks = " or ".join(_MEANING[aim] for aim in missing)
    against = sum(p.weight for p in constitution.principles if {"helpful", "unpreachy"} & aims(p, words)) / sum(
        p.weight for p in constitution.principles
    )
    if share["harmless"] > 0.5 and share["harmless"] > ONE_SIDED * against:
        yield Finding(
            "warning",
            "balance",
            (),
            f"nothing asks for {lacks} ({has})" if missing else f"mostly about harmlessness ({has})",
            "models that learn harmlessness alone refuse and lecture: add principles for help, and against preaching",
        )
    elif told and missing:
        yield Finding(
            "note",
            "balance",
            (),
            f"nothing asks for {lacks} ({has})",
            "add principles for it if your prompts need it; `tags:` say what a principle is for",
        )


def draws(constitution: Constitution) -> Iterator[Finding]:
    all_shares = shares(constitution)
    revise_by: Purpose = "critique" if all_shares["critique"] or not all_shares["revision"] else "revision"
    drawn_for: dict[Purpose, str] = {
        revise_by: "critique and revision" if revise_by == "critique" else "revision",
        "judge": "judging",
    }
    for purpose, what in drawn_for.items():
        if share := all_shares[purpose]:
            yield from _pool(constitution, purpose, share, what)
    if not all_shares["judge"]:
        yield _none_for("judge", "a pipeline that judges cannot use this constitution")
    if not all_shares["revision"]:
        yield _none_for("revision", "a pipeline that revises cannot use this constitution")
    elif not all_shares["critique"]:
        yield _none_for("critique", "a stage that revises needs `critique: false`")
    if 0 < (few := len(all_shares[revise_by])) < ROUNDS:
        yield Finding(
            "note",
            "few",
            (),
            f"{few} principle(s) to revise by: answers vary less, and with `replacement: false` there are no more "
            f"rounds than that ({ROUNDS} by default)",
            "add principles, or leave `replacement` as it is",
        )


def _pool(constitution: Constitution, purpose: Purpose, share: dict[str, float], what: str) -> Iterator[Finding]:
    if lacking := tuple(p.id for p in constitution.principles if p.id not in share):
        yield Finding(
            "note",
            "never-drawn",
            lacking,
            f"no {purpose} text in {len(lacking)} of {len(constitution.principles)}: never drawn for {what}",
            f"add `{purpose}:`, unless that is what you want",
        )
    top = max(share, key=lambda name: share[name])
    if len(share) > 1 and share[top] > DOMINANT:
        yield Finding(
            "warning",
            "dominant",
            (top,),
            f"has {share[top]:.0%} of the draws for {what}: the others hardly count",
            "lower its weight, or split it into several principles",
        )
    if rare := tuple(name for name in share if share[name] < RARE):
        yield Finding(
            "note",
            "rare",
            rare,
            f"drawn less than once in {1 / RARE:,.0f} times for {what}",
            "raise the weight, or remove it",
        )


def _none_for(purpose: Purpose, so: str) -> Finding:
    return Finding(
        "note",
        "no-purpose",
        (),
        f"no principle has `{purpose}:`; {so}",
        f"add `{purpose}:` texts if you want to use it there",
    )


_UNREADABLE = re.compile(r"\d+|[0-9a-f]{8,}|(?:[a-z]|principle|rule|harmful|item|no|id)[-_.]?\d+", re.IGNORECASE)


def ids(constitution: Constitution) -> Iterator[Finding]:
    unreadable = tuple(p.id for p in constitution.principles if _UNREADABLE.fullmatch(p.id))
    if unreadable:
        yield Finding(
            "note",
            "unreadable-id",
            unreadable,
            "their ids say nothing, and they are what statistics, verdicts and dataset cards name",
            "name them after what they ask for; a new id is drawn anew, so do it before the first run",
        )
