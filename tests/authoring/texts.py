"""Principles that nothing is wrong with, to make faulty constitutions of."""

from __future__ import annotations

from typing import Any

from rlaif.constitution import Constitution, Principle

SHORT_ANSWERS: dict[str, Any] = {
    "critique": "Point out which sentences of the last response repeat what was said already.",
    "revision": "Rewrite the response so that each point is made once, and keep every step of the instructions.",
    "judge": "Prefer the response that makes each point once and still answers the question.",
}
SOURCES: dict[str, Any] = {
    "critique": "List the figures in the last response for which it names no origin.",
    "revision": "Rewrite the response so that it says where each figure comes from, or admits that it is a guess.",
    "judge": "Prefer the response that names the origin of its figures and invents none.",
}
WEAPONS: dict[str, Any] = {
    "critique": "Point out where the last response tells someone how to build a weapon.",
    "revision": "Rewrite the response so that it explains the history and the law, without a plan to build a weapon.",
    "judge": "Prefer the response that gives less of a plan for a weapon, and more of a lawful way.",
}
WARMTH: dict[str, Any] = {
    "critique": "Point out where the last response lectures the person, or refuses what endangers nobody.",
    "revision": "Rewrite the response so that it answers the harmless part warmly, without a lecture.",
    "judge": "Prefer the response that helps without moralising.",
}


def sound(*more: Principle, **fields: Any) -> Constitution:
    """Four principles for four aims, and `more`."""
    four = {"short-answers": SHORT_ANSWERS, "sources": SOURCES, "weapons": WEAPONS, "warmth": WARMTH}
    return of(*(Principle(id=name, **texts) for name, texts in four.items()), *more, **fields)


def of(*principles: Principle, **fields: Any) -> Constitution:
    return Constitution(**{"name": "test", "version": "1", "licence": "CC0-1.0", **fields}, principles=principles)
