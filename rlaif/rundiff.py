"""Two runs over the same prompts: whose pairs changed, and which principles are behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from rlaif.about import constitution_of
from rlaif.authoring.diff import ROUNDS, Changes, compare
from rlaif.config import Settings, differences
from rlaif.errors import ConfigError
from rlaif.export.provenance import exported_with
from rlaif.export.selection import kept, selected
from rlaif.export.strategies import Found
from rlaif.runs import existing_run, meaning_of, policy_of, read_summary, settings_of
from rlaif.store import RunFolder
from rlaif.types import Record

# What became of a pair. "other_chosen": another response wins; "other_rejected": the same one, over another.
Fate = Literal["agree", "flipped", "other_chosen", "other_rejected", "gained", "lost"]
FATES: tuple[Fate, ...] = get_args(Fate)
# A principle's part in it. Of each chain of revisions the first round that differs, since the later ones follow from
# it; of verdicts those on candidates that both runs asked about.
What = Literal[
    "rounds_gone",  # drawn for it in the first run only
    "rounds_come",  # ... in the second run only
    "rounds_other",  # in both, for the same text, which became another one
    "verdicts_gone",
    "verdicts_come",
    "verdicts_other",  # in both, on the same two texts, with another probability
]
WHATS: tuple[What, ...] = get_args(What)
EXAMPLES = 3  # of each fate
# In thousandths. The journal gives the same answer; another one hardly differs by less.
_ANOTHER_P = 10


class Cause(NamedTuple):
    principle: str
    what: What


@dataclass(frozen=True, slots=True)
class Example:
    """One changed pair: the texts that were chosen and rejected in each run, None where there was no pair."""

    id: str
    fate: Fate
    prompt: str
    before: tuple[str, str] | None
    after: tuple[str, str] | None
    reason: str | None  # why one of the runs has none
    causes: tuple[Cause, ...]


@dataclass(slots=True)
class Side:
    """One of the runs, as far as it is to be said of it."""

    run: str
    records: int
    status: str
    alone: int = 0  # records that the other one has not


@dataclass(slots=True)
class RunDiff:
    """`pairs` and `new_texts` (of them, those one of whose texts is new) are by fate; reasons are NoPair.

    `parts` is by principle; `behind` counts the changed pairs of the records in which it has a part.
    """

    a: Side
    b: Side
    constitution: Changes | None  # None if one of the runs did not keep it
    settings: list[str]
    pairs: Counter[Fate] = field(default_factory=Counter)
    new_texts: Counter[Fate] = field(default_factory=Counter)
    no_pair: int = 0  # records without one in both
    lost: Counter[str] = field(default_factory=Counter)
    gained: Counter[str] = field(default_factory=Counter)
    new_drafts: int = 0  # records whose drafts are not the same
    parts: dict[str, Counter[What]] = field(default_factory=dict)
    behind: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    @property
    def both(self) -> int:
        return self.a.records - self.a.alone

    @property
    def changed(self) -> int:
        return self.pairs.total() - self.pairs["agree"]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        changes = None if self.constitution is None else asdict(self.constitution)
        if changes is not None:
            del changes["redrawn"]  # simulated; the records say what was drawn
        return {
            "a": asdict(self.a),
            "b": asdict(self.b),
            "records_in_both": self.both,
            "constitution": changes,
            "settings": self.settings,
            "pairs": {fate: {"all": self.pairs[fate], "new_texts": self.new_texts[fate]} for fate in FATES},
            "no_pair_in_both": self.no_pair,
            "lost": dict(self.lost.most_common()),
            "gained": dict(self.gained.most_common()),
            "records_with_new_drafts": self.new_drafts,
            "principles": {
                name: {what: part[what] for what in WHATS} | {"pairs": self.behind[name]}
                for name, part in sorted(self.parts.items())
            },
            "examples": [asdict(one) | {"causes": [cause._asdict() for cause in one.causes]} for one in self.examples],
        }


def diff(runs_dir: Path, a: str, b: str) -> RunDiff:
    """From run `a` to run `b`; of each record of `a` some 200 bytes are kept.

    Raises ConfigError when there is nothing to compare.
    """
    folders = existing_run(runs_dir, a), existing_run(runs_dir, b)
    for folder in folders:
        if not folder.part_numbers():
            raise ConfigError(
                f"run '{folder.name}' has no finished part yet: go on with its `rlaif generate` command first"
            )
    changes = _constitutions(*folders)
    found = RunDiff(_side(folders[0]), _side(folders[1]), changes, _settings(*folders, constitutions=changes is None))
    names = _Names()
    of_a = {record.id: _packed(_brief(record, made, names)) for record, made in _made(folders[0])}
    found.a.records = len(of_a)
    examples: dict[Fate, list[_Changed]] = {fate: [] for fate in FATES}
    for record, made in _made(folders[1]):
        found.b.records += 1
        packed, brief = of_a.pop(record.id, None), _brief(record, made, names)
        if packed is None:
            found.b.alone += 1
        elif packed == _packed(brief):  # most are the same
            found.pairs["agree"] += len(brief.pairs)
            found.no_pair += not brief.pairs
        else:
            for changed in _compared(found, record.id, _unpacked(packed), brief, names):
                if len(examples[changed.fate]) < EXAMPLES:
                    examples[changed.fate].append(changed)
    found.a.alone = len(of_a)
    if not found.both:
        raise ConfigError(f"runs '{a}' and '{b}' have no prompt in common: compare runs over the same prompts")
    found.examples = _with_texts([one for fate in (*FATES[1:], FATES[0]) for one in examples[fate]], *folders)
    return found


# --- the runs ---


def _made(folder: RunFolder) -> Iterator[tuple[Record, Found]]:
    """What the run's last export made of each record."""
    settings = _exported(folder)
    for record, found, why in selected(folder.records, settings.export, policy_of(settings)):
        yield record, kept(found, why)


def _exported(folder: RunFolder) -> Settings:
    settings = settings_of(folder)
    last = exported_with(folder.dataset)
    return settings if last is None else settings.model_copy(update={"export": last})


def _side(folder: RunFolder) -> Side:
    return Side(folder.name, 0, read_summary(folder).get("status", "interrupted"))


def _constitutions(a: RunFolder, b: RunFolder) -> Changes | None:
    """None where a run was made by a version that did not keep its constitution."""
    both = constitution_of(a), constitution_of(b)
    return None if both[0] is None or both[1] is None else compare(both[0], both[1], draws=ROUNDS)


def _settings(a: RunFolder, b: RunFolder, constitutions: bool) -> list[str]:
    """What else the runs were made with, as `path: before -> after`; `constitutions` too, by name and hash."""

    def side(folder: RunFolder) -> dict[str, Any]:
        meaning, settings = meaning_of(folder), _exported(folder)
        exported = settings.export.model_dump(mode="json")
        known = {**meaning, "export": exported, "limit": settings.limit}
        return known if constitutions else {**known, "constitution": None}

    return differences(side(a), side(b))


# --- a record in brief ---

_Place = int  # of a candidate: twice the index of its draft, one more for the last revision of that
_Judged = tuple[_Place, _Place, int, int | None]  # two candidates, the principle, p of the first in thousandths


class _Names:
    """Principles by number, as they come: a number takes one byte."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
        return number

    def __getitem__(self, number: int) -> str:
        return self._names[number]


class _Brief(msgspec.Struct, array_like=True, gc=False):
    """As much of a record as is compared. Texts are 8 bytes of their hash."""

    texts: dict[_Place, bytes]
    pairs: list[tuple[_Place, _Place]]
    reason: str | None
    chains: dict[int, list[tuple[int, bytes]]]  # of each draft: (principle, text), round by round
    verdicts: list[_Judged]


_packed = msgspec.msgpack.Encoder().encode
_unpacked = msgspec.msgpack.Decoder(_Brief).decode


def _brief(record: Record, found: Found, names: _Names) -> _Brief:
    hashes = [blake2b(one.text.strip().encode(), digest_size=8).digest() for one in record.responses]
    drafts: list[int] = []
    places: list[_Place] = []
    chains: dict[int, list[tuple[int, bytes]]] = {}
    for i, response in enumerate(record.responses):
        draft = i if response.revises is None else drafts[response.revises]
        drafts.append(draft)
        places.append(2 * draft + (draft != i))
        if draft != i:
            chains.setdefault(draft, []).append((names.number(response.principle or ""), hashes[i]))
    verdicts: list[_Judged] = []
    for verdict in record.verdicts:
        one, other, p = places[verdict.first], places[verdict.second], verdict.p_first
        if one > other:
            one, other, p = other, one, None if p is None else 1 - p
        verdicts.append((one, other, names.number(verdict.principle), None if p is None else round(1000 * p)))
    return _Brief(
        texts={places[i]: hashes[i] for i in record.candidates()},
        pairs=[(places[pair.chosen], places[pair.rejected]) for pair in found.pairs],
        reason=found.reason or record.reason or (None if found.pairs else record.outcome),
        chains=chains,
        verdicts=verdicts,
    )


# --- what changed ---


class _Changed(NamedTuple):
    """An example without its texts: the places of the chosen and the rejected response instead."""

    id: str
    fate: Fate
    before: tuple[_Place, _Place] | None
    after: tuple[_Place, _Place] | None
    reason: str | None
    causes: tuple[Cause, ...]


def _compared(found: RunDiff, record_id: str, a: _Brief, b: _Brief, names: _Names) -> Iterator[_Changed]:
    """Counts the record, and gives its pairs that are not the same."""
    causes = [Cause(names[number], what) for number, what in (*_rounds(a, b), *_verdicts(a, b))]
    for cause in causes:
        found.parts.setdefault(cause.principle, Counter())[cause.what] += 1
    found.new_drafts += any(_differ(a, b, place) for place in a.texts.keys() | b.texts.keys() if not place % 2)
    found.no_pair += not a.pairs and not b.pairs
    for fate, before, after in _fates(a.pairs, b.pairs):
        new = any(_differ(a, b, place) for place in {*(before or ()), *(after or ())})
        found.pairs[fate] += 1
        found.new_texts[fate] += new
        reason = None
        if fate in ("lost", "gained"):
            reason = (b if fate == "lost" else a).reason or "other_pairs"
            (found.lost if fate == "lost" else found.gained)[reason] += 1
        if fate != "agree":
            found.behind.update({cause.principle for cause in causes})
        if fate != "agree" or new:
            yield _Changed(record_id, fate, before, after, reason, tuple(dict.fromkeys(causes)))


def _differ(a: _Brief, b: _Brief, place: _Place) -> bool:
    return a.texts.get(place) != b.texts.get(place)


_Pair = tuple[_Place, _Place]


def _fates(a: Sequence[_Pair], b: Sequence[_Pair]) -> Iterator[tuple[Fate, _Pair | None, _Pair | None]]:
    """Each pair of either run once, beside the one of the other run that it became."""
    yield from (("agree", pair, pair) for pair in a if pair in b)
    gone, come = [pair for pair in a if pair not in b], [pair for pair in b if pair not in a]
    for before in gone:
        fate, after = _became(before, come)
        if after is not None:
            come.remove(after)
        yield fate, before, after
    yield from (("gained", None, pair) for pair in come)


def _became(pair: _Pair, come: Sequence[_Pair]) -> tuple[Fate, _Pair | None]:
    if pair[::-1] in come:
        return "flipped", pair[::-1]
    if other := next((one for one in come if one[0] == pair[0]), None):
        return "other_rejected", other
    return ("other_chosen", come[0]) if come else ("lost", None)


def _rounds(a: _Brief, b: _Brief) -> Iterator[tuple[int, What]]:
    """Of the chains of drafts that both runs have, the first round that differs."""
    for draft in sorted(a.chains.keys() | b.chains.keys()):
        if _differ(a, b, 2 * draft):
            continue
        for one, other in zip_longest(a.chains.get(draft, ()), b.chains.get(draft, ())):
            if one == other:
                continue
            if one and other and one[0] == other[0]:
                yield one[0], "rounds_other"
            else:
                if one:
                    yield one[0], "rounds_gone"
                if other:
                    yield other[0], "rounds_come"
            break


def _verdicts(a: _Brief, b: _Brief) -> Iterator[tuple[int, What]]:
    """Of two candidates that both runs asked about."""
    in_a, in_b = _by_two(a), _by_two(b)
    for two, before in in_a.items():
        after = in_b.get(two)
        if after is None or before == after:
            continue
        for principle in before.keys() | after.keys():
            if principle not in after:
                yield principle, "verdicts_gone"
            elif principle not in before:
                yield principle, "verdicts_come"
            elif _another(before[principle], after[principle]) and not any(_differ(a, b, place) for place in two):
                yield principle, "verdicts_other"


def _by_two(brief: _Brief) -> dict[tuple[_Place, _Place], dict[int, list[int | None]]]:
    """By the two candidates and the principle, what each judge says."""
    found: dict[tuple[_Place, _Place], dict[int, list[int | None]]] = {}
    for one, other, principle, p in brief.verdicts:
        found.setdefault((one, other), {}).setdefault(principle, []).append(p)
    return found


def _another(before: Sequence[int | None], after: Sequence[int | None]) -> bool:
    said = [[p for p in some if p is not None] for some in (before, after)]
    if not all(said):
        return any(said)
    return abs(fmean(said[0]) - fmean(said[1])) >= _ANOTHER_P


def _with_texts(changed: Sequence[_Changed], a: RunFolder, b: RunFolder) -> list[Example]:
    wanted = {one.id for one in changed}
    old, new = ({record.id: record for record in _some(folder, wanted)} for folder in (a, b))
    return [
        Example(
            one.id,
            one.fate,
            new[one.id].prompt[-1].content,
            one.before and _texts(old[one.id], one.before),
            one.after and _texts(new[one.id], one.after),
            one.reason,
            one.causes,
        )
        for one in changed
    ]


def _some(folder: RunFolder, wanted: Set[str]) -> Iterator[Record]:
    """Stops reading when it has them all."""
    missing = set(wanted)
    if missing:
        for record in folder.records():
            if record.id in missing:
                yield record
                missing.remove(record.id)
                if not missing:
                    return


def _texts(record: Record, pair: _Pair) -> tuple[str, str]:
    at = {2 * draft + (draft != i): i for i in record.candidates() for draft in (record.draft_of(i),)}
    return record.responses[at[pair[0]]].text, record.responses[at[pair[1]]].text
