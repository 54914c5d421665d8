"""What an edit of a constitution changes, and which share of a run's draws it sends to the models again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from rlaif.authoring.words import tokens
from rlaif.constitution import Constitution, Principle, Purpose
from rlaif.resources import names

Kind = Literal["same", "removed", "added"]
TEXTS: tuple[Purpose, ...] = ("critique", "revision", "judge")
METADATA = ("name", "version", "licence", "description", "language")

# A principle that went and one that came are one that was renamed, if this much of their words is in the same order.
RENAMED = 0.85
DRAWS = 10_000
ROUNDS = 4  # of `revise` by default: a chain in which each round reads the one before

_Pool = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Reworded:
    """One text of a principle that is in both; `before` or `after` is None where it was given or taken away."""

    principle: str
    field: Purpose
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Renamed:
    """`alike` is 1.0 if the texts are the same."""

    before: str
    after: str
    alike: float


@dataclass(frozen=True, slots=True)
class Changed:
    """A value that is not text: a weight, tags, a field of the head."""

    name: str
    before: Any  # a number, a tuple of tags, a string
    after: Any  # as above


@dataclass(frozen=True, slots=True)
class Redrawn:
    """What becomes of a purpose's draws. Shares of `draws` simulated ones, but those by principle, which are exact.

    `moved` go to a principle with another text, `reworded` stay with one whose text was changed. `again` is what is
    sent anew: both, or all if the templates' language changed. What follows from an answer that changed comes on
    top; `chains` is the share of responses revised in 4 rounds of which a round is sent anew, None for judges.
    """

    purpose: Purpose
    draws: int
    moved: float
    reworded: float
    again: float
    chains: float | None
    before: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True, slots=True)
class Changes:
    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: tuple[Renamed, ...]
    reworded: tuple[Reworded, ...]
    weights: tuple[Changed, ...]
    tags: tuple[Changed, ...]
    metadata: tuple[Changed, ...]
    reordered: bool  # changes no draw
    new_language: bool  # of the templates: every call is another one
    redrawn: tuple[Redrawn, ...]

    def __bool__(self) -> bool:
        parts = (self.added, self.removed, self.renamed, self.reworded, self.weights, self.tags, self.metadata)
        return any(parts) or self.reordered


def compare(a: Constitution, b: Constitution, draws: int = DRAWS) -> Changes:
    """From `a` to `b`. Renamed principles are found by their texts; their other changes are told under the new id."""
    before, after = ({p.id: p for p in constitution.principles} for constitution in (a, b))
    renamed = tuple(_renamed(before, after))
    old_names = {found.after: found.before for found in renamed}
    pairs = [(before[old], p) for p in b.principles if (old := old_names.get(p.id, p.id)) in before]
    kept = [old.id for old, _ in pairs]
    new_language = _templates(a) != _templates(b)
    return Changes(
        added=tuple(name for name in after if name not in before and name not in old_names),
        removed=tuple(name for name in before if name not in kept),
        renamed=renamed,
        reworded=tuple(
            Reworded(new.id, field, old.text(field), new.text(field))
            for old, new in pairs
            for field in TEXTS
            if old.text(field) != new.text(field)
        ),
        weights=tuple(Changed(new.id, old.weight, new.weight) for old, new in pairs if old.weight != new.weight),
        tags=tuple(Changed(new.id, old.tags, new.tags) for old, new in pairs if set(old.tags) != set(new.tags)),
        metadata=tuple(Changed(n, getattr(a, n), getattr(b, n)) for n in METADATA if getattr(a, n) != getattr(b, n)),
        reordered=kept != [p.id for p in a.principles if p.id in kept],
        new_language=new_language,
        redrawn=tuple(_redrawn(a, b, draws, new_language)),
    )


def marked(before: str, after: str) -> list[tuple[Kind, str]]:
    """The words that stayed, went and came, in reading order, with the spaces between them."""
    old, new = _pieces(before), _pieces(after)
    found: list[tuple[Kind, str]] = []
    for what, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            found.append(("same", "".join(old[i:j])))
            continue
        found += [("removed", "".join(old[i:j]))] if j > i else []
        found += [("added", "".join(new[k:m]))] if m > k else []
    return found


def _pieces(text: str) -> list[str]:
    """Words with the space after them; characters of scripts that part none."""
    return re.findall(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[\w'\u2019-]+\s*|\s+|[^\w\s]\s*", text)


def _renamed(before: dict[str, Principle], after: dict[str, Principle]) -> Iterator[Renamed]:
    gone = [p for name, p in before.items() if name not in after]
    come = [p for name, p in after.items() if name not in before]
    likely = sorted(
        ((alike, old.id, new.id) for old in gone for new in come if (alike := _alike(old, new)) >= RENAMED),
        key=lambda found: -found[0],
    )
    used: set[str] = set()
    for alike, old_name, new_name in likely:
        if not used & {f"-{old_name}", f"+{new_name}"}:
            used |= {f"-{old_name}", f"+{new_name}"}
            yield Renamed(old_name, new_name, alike)


def _alike(a: Principle, b: Principle) -> float:
    one, other = ([(field, w) for field in TEXTS for w in tokens(p.text(field) or "")] for p in (a, b))
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= RENAMED else 0.0


def _redrawn(a: Constitution, b: Constitution, draws: int, every: bool) -> Iterator[Redrawn]:
    """For the purposes that both have; `every` draw is sent again if the templates are others."""
    known: dict[tuple[_Pool, _Pool], list[tuple[Principle, Principle]]] = {}
    for purpose in TEXTS:
        pools = _pool(a, purpose), _pool(b, purpose)
        if not all(pools):
            continue
        if pools not in known:  # a draw depends on ids and weights alone
            known[pools] = [_drawn(a, b, purpose, i) for i in range(draws // ROUNDS * ROUNDS)]
        drawn = known[pools]
        other_words = [_sent(old, purpose) != _sent(new, purpose) for old, new in drawn]
        again = [every or other for other in other_words]
        stayed = sum(other and old.id == new.id for other, (old, new) in zip(other_words, drawn, strict=True))
        chains = [any(again[i : i + ROUNDS]) for i in range(0, len(again), ROUNDS)]
        yield Redrawn(
            purpose,
            len(drawn),
            moved=(sum(other_words) - stayed) / len(drawn),
            reworded=stayed / len(drawn),
            again=sum(again) / len(drawn),
            chains=None if purpose == "judge" else sum(chains) / len(chains),
            before=_shares(pools[0]),
            after=_shares(pools[1]),
        )


def _drawn(a: Constitution, b: Constitution, purpose: Purpose, number: int) -> tuple[Principle, Principle]:
    """Drawn as a run does: by `seed/record/stage/draft/round`."""
    record, step = divmod(number, ROUNDS)
    draw_id = f"0/{record:016x}/revise/0/{step}"
    return a.draw(draw_id, purpose), b.draw(draw_id, purpose)


def _sent(principle: Principle, purpose: Purpose) -> tuple[str | None, ...]:
    """What of a principle the models read: a critique is followed by its revision."""
    both = purpose == "critique"
    return (principle.critique, principle.revision) if both else (principle.text(purpose),)


def _pool(constitution: Constitution, purpose: Purpose) -> _Pool:
    return tuple(sorted((p.id, p.weight) for p in constitution.principles if p.text(purpose)))


def _shares(pool: _Pool) -> dict[str, float]:
    whole = sum(weight for _, weight in pool)
    return {name: weight / whole for name, weight in pool}


def _templates(constitution: Constitution) -> str:
    """The language of the turns around the texts."""
    folder = re.split("[-_]", constitution.language)[0].lower()
    return folder if any(name.startswith(f"{folder}/") for name in names("prompts")) else "en"
