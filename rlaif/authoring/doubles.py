"""Principles that say the same twice: in all their texts, in one, in nearly the same words, or turned round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from rlaif.authoring.finding import PURPOSES, Finding
from rlaif.authoring.words import Words, alike, shingles, tokens
from rlaif.constitution import Constitution, Purpose

# Jaccard of the words that are not in every principle. Of any two texts in the bundled constitutions it is at
# most 0.38; of published principles that people call the same, mostly 0.5 to 0.8.
NEAR = 0.5


def doubles(constitution: Constitution, words: Words | None) -> Iterator[Finding]:
    plain = {
        p.id: tuple(" ".join(tokens(p.text(purpose) or "")) for purpose in PURPOSES) for p in constitution.principles
    }
    twins = _same(plain)
    for group in twins:
        yield Finding(
            "error",
            "duplicate",
            group,
            "say the same word for word: one principle, drawn for all of them",
            "keep one, and give it their weights together if it should be drawn as often",
        )
    for i, purpose in enumerate(PURPOSES):
        given = {p.id: plain[p.id][i] for p in constitution.principles if p.text(purpose)}
        for group in _same(given):
            if not any(set(group) <= set(twin) for twin in twins):
                yield Finding(
                    "warning",
                    "same-text",
                    group,
                    f"have the same {purpose} text",
                    "say in each what it asks for beyond the others",
                )
        yield from _near(purpose, given, words)


def _near(purpose: Purpose, given: dict[str, str], words: Words | None) -> Iterator[Finding]:
    """Of `given`, the plain texts by id."""
    of = {name: shingles(text, words) for name, text in given.items()}
    turned = {name: words is not None and bool(words.less.search(text)) for name, text in given.items()}
    near = {
        (a, b): share
        for a, b in combinations(given, 2)
        if given[a] != given[b] and (share := alike(of[a], of[b])) >= NEAR
    }
    opposite = [(a, b) for a, b in near if purpose == "judge" and turned[a] != turned[b]]
    for group in _joined(pair for pair in near if pair not in opposite):
        most = max(share for pair, share in near.items() if set(pair) <= set(group))
        yield Finding(
            "warning",
            "near-duplicate",
            group,
            f"have nearly the same {purpose} text: up to {most:.0%} of the words are common",
            "merge them, or say in each what it asks for beyond the others; together they weigh as one topic",
        )
    for pair in opposite:
        yield Finding(
            "warning",
            "opposite",
            pair,
            "judge by nearly the same words, in one of them turned round: do their verdicts cancel each other out?",
            "if they contradict each other, drop one; if not, say in each when it holds",
        )


def _plain(text: str | None) -> str:
    return " ".join(tokens(text or ""))


def _same(texts: Mapping[str, object]) -> list[tuple[str, ...]]:
    """The ids of equal texts, where there is more than one."""
    groups: dict[object, list[str]] = defaultdict(list)
    for name, text in texts.items():
        groups[text].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _joined(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Groups of all that hang together, directly or through others, in the order of the pairs."""
    groups: list[dict[str, None]] = []
    for a, b in pairs:
        touched = [group for group in groups if a in group or b in group]
        groups = [group for group in groups if group not in touched]
        groups.append(dict.fromkeys([*(name for group in touched for name in group), a, b]))
    return [tuple(group) for group in groups]
