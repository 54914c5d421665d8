"""Run beside run: what each made of the records that both have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from rlaif.about import constitution_of
from rlaif.authoring.diff import ROUNDS, Changes, compare
from rlaif.config import Settings, differences
from rlaif.errors import ConfigError
from rlaif.export.provenance import exported_with
from rlaif.export.selection import kept, selected
from rlaif.export.strategies import Found
from rlaif.rundiff.brief import Names, brief_of, packed, unpacked
from rlaif.rundiff.changes import Changed, Pair, changes
from rlaif.rundiff.found import FATES, Example, Fate, RunDiff, Side
from rlaif.runs import existing_run, meaning_of, policy_of, read_summary, settings_of
from rlaif.store import RunFolder
from rlaif.types import Record

EXAMPLES = 3  # of each fate


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
    edits = _constitutions(*folders)
    found = RunDiff(_side(folders[0]), _side(folders[1]), edits, _settings(*folders, constitutions=edits is None))
    names = Names()
    of_a = {record.id: packed(brief_of(record, made, names)) for record, made in _made(folders[0])}
    found.a.records = len(of_a)
    examples: dict[Fate, list[Changed]] = {fate: [] for fate in FATES}
    for record, made in _made(folders[1]):
        found.b.records += 1
        before, brief = of_a.pop(record.id, None), brief_of(record, made, names)
        if before is None:
            found.b.alone += 1
        elif before == packed(brief):  # most are the same
            found.pairs["agree"] += len(brief.pairs)
            found.no_pair += not brief.pairs
        else:
            for changed in changes(found, record.id, unpacked(before), brief, names):
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


# --- the texts of the examples ---


def _with_texts(changed: Sequence[Changed], a: RunFolder, b: RunFolder) -> list[Example]:
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


def _texts(record: Record, pair: Pair) -> tuple[str, str]:
    at = {2 * draft + (draft != i): i for i in record.candidates() for draft in (record.draft_of(i),)}
    return record.responses[at[pair[0]]].text, record.responses[at[pair[1]]].text
