"""A judge audited by asking it: a run over the labelled items, and any run's verdicts as what an audit looks at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import msgspec
import numpy as np

from rlaif.audit.labels import PairKey, label_of, read_labels
from rlaif.audit.read import majority, read_labelled
from rlaif.audit.table import CASCADE, Items, Judged
from rlaif.budget import BATCH, Limits
from rlaif.config import Settings, StageEntry, asked_roles, stages_of
from rlaif.errors import ConfigError
from rlaif.export.comparisons import Comparisons
from rlaif.export.settings import ExportSettings
from rlaif.job import Observer, Result
from rlaif.job import run as run_job
from rlaif.judges.cascade import Cascade
from rlaif.runs import read_summary, settings_of
from rlaif.source import PromptReader, Prompts
from rlaif.stages.judge import Judge
from rlaif.store import RunFolder
from rlaif.types import Record, Verdict, VerdictOutcome

# The columns that a judge is shown, and what they are called unless the mapping says otherwise.
_SHOWN = ("prompt", "a", "b")
_WRITERS = ("generator_a", "generator_b")


class Answers(NamedTuple):
    """What judges said of items, each of them; of several, `together` is what an export would make of it."""

    items: Items
    judges: tuple[Judged, ...]
    together: Judged | None = None

    @property
    def word(self) -> str | None:
        """Whose word is exported; None where no judge has said anything yet."""
        if self.together is not None:
            return self.together.judge
        return self.judges[0].judge if self.judges else None


def audit_live(
    settings: Settings,
    path: Path,
    folder: RunFolder,
    *,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    dry_run: bool = False,
    allow_code: bool = False,
    environment: Mapping[str, str],
    observer: Observer | None = None,
    limits: Limits | None = None,
) -> tuple[Result, Answers]:
    """Ask the judges of these settings about the items of a labelled file, as the run `folder`.

    Where the run did not get so far, or in a dry run, items were not asked about.
    """
    asking = auditing(settings, path, columns or {}, allow_code=allow_code)
    items = _items(asking.prompts[0], columns or {}, labels)  # before anything is paid for
    result = run_job(
        asking,
        folder,
        dry_run=dry_run,
        allow_code=allow_code,
        environment=environment,
        observer=observer,
        limits=limits,
    )
    verdicts = _Verdicts(asking)
    if not dry_run:
        places = {name: i for i, name in enumerate(items.ids)}
        for record in folder.records():
            verdicts.add(places[record.id], record, 0, 1)
    return result, verdicts.answers(items, result.summary)


def auditing(settings: Settings, path: Path, columns: Mapping[str, str], *, allow_code: bool = False) -> Settings:
    """The judge stages of a pipeline alone, on the items of a labelled file."""
    stages = tuple(_everything(entry) for entry in settings.stages if entry.judge is not None)
    if not stages:
        raise ConfigError(
            f"pipeline '{settings.name}' has no judge stage to audit; name another one with --pipeline, like rejudge"
        )
    prompt, a, b = (columns.get(role, role) for role in _SHOWN)
    generators = tuple(columns[role] for role in _WRITERS if role in columns)
    prompts = Prompts(
        path=str(path),
        column=prompt,
        category_column=columns.get("group"),
        responses=(a, b),
        generators=generators if len(generators) == len(_WRITERS) else (),
    )
    export = ExportSettings(panel=settings.export.panel, weights=settings.export.weights, configs=("preference",))
    changes = {"stages": stages, "prompts": (prompts,), "export": export, "limit": None}
    asking = settings.model_copy(update=changes)
    roles = asked_roles(stages_of(asking, allow_code=allow_code))
    return asking.model_copy(update={"models": {role: settings.models[role] for role in roles}})


def _items(prompts: Prompts, columns: Mapping[str, str], labels: Mapping[str, str] | None) -> Items:
    """The labelled items by the ids of their records: rows of the same texts are one, whatever else they say."""
    path = Path(prompts.path)
    whole = "+".join((prompts.column, *prompts.responses))
    items, _ = read_labelled(path, {**columns, "item": whole}, labels)
    ids = tuple(record.id for record in PromptReader((prompts,)))
    if len(ids) != len(items):
        raise ConfigError(f"{path}: {len(items):,} items, but {len(ids):,} different texts; remove rows that are twice")
    if np.isnan(items.gold).all():
        raise ConfigError(f"{path}: no item has a label to hold the judge against; name its column with label=NAME")
    return replace(items, ids=ids)


def _everything(entry: StageEntry) -> StageEntry:
    """A judge stage for all sets and all pairs: the two responses of an item are no revisions."""
    assert entry.judge is not None
    return StageEntry(judge=entry.judge.model_copy(update={"only": (), "comparisons": ("all",)}))


def of_run(folder: RunFolder) -> Answers:
    """What the judges of a run said, with the labels that people gave it (`rlaif label`); of no labels gold is nan."""
    verdicts = _Verdicts(settings_of(folder))
    given = read_labels(folder)
    ids: list[str] = []
    lengths: list[tuple[float, float]] = []
    generators: list[tuple[str | None, str | None]] = []
    groups: list[str | None] = []
    said: list[Mapping[str, float]] = []
    for record in folder.records():
        for first, second in sorted({_pair(verdict) for verdict in record.verdicts}):
            one, other = record.responses[first], record.responses[second]
            verdicts.add(len(ids), record, first, second)
            ids.append(f"{record.id}/{first}-{second}")
            lengths.append((len(one.text), len(other.text)))
            generators.append((one.model, other.model))
            groups.append(record.category)
            said.append({name: label_of(label) for name, label in given.get((record.id, first, second), {}).items()})
    if not ids:
        raise ConfigError(f"run '{folder.name}' has no verdicts to audit: no stage of it compares responses")
    names = sorted({name for labels in given.values() for name in labels})
    annotators = {name: np.array([labels.get(name, math.nan) for labels in said]) for name in names}
    items = Items(
        ids=tuple(ids),
        gold=majority(annotators, len(ids)),
        lengths=np.array(lengths, dtype=np.float64),
        generators=tuple(generators),
        annotators=annotators if len(annotators) > 1 else {},
        groups=tuple(groups) if any(groups) else (),
    )
    return verdicts.answers(items, read_summary(folder))


def gold_of(folder: RunFolder) -> list[dict[str, Any]]:  # Any: plain JSON
    """The pairs of a run that people labelled, as the rows of a labelled file: to audit other judges on them."""
    given = {
        pair: said for pair, said in read_labels(folder).items() if {"first", "second", "tie"} & set(said.values())
    }
    names = sorted({name for said in given.values() for name in said})
    by_name = {name: np.array([label_of(said.get(name, "skipped")) for said in given.values()]) for name in names}
    gold = dict(zip(given, majority(by_name, len(given)), strict=True))
    of_record: dict[str, list[PairKey]] = {}
    for pair in given:
        of_record.setdefault(pair[0], []).append(pair)
    rows: list[dict[str, Any]] = []
    for record in folder.records():
        alone = len(record.prompt) == 1
        prompt = record.prompt[0].content if alone else [msgspec.to_builtins(turn) for turn in record.prompt]
        for pair in of_record.get(record.id, ()):
            one, other = (record.responses[i] for i in pair[1:])
            row = {"prompt": prompt, "a": one.text, "b": other.text, "label": _WORDS[gold[pair]]}
            said = [_WORDS.get(label_of(given[pair].get(name, "skipped"))) for name in names]
            rows.append(row | {"annotators": said, "generator_a": one.model, "generator_b": other.model})
    return rows


_WORDS = {1.0: "a", 0.0: "b", 0.5: "tie"}


class _Said(NamedTuple):
    """What a judge says of an item, by one principle or several."""

    p_ab: float
    p_ba: float
    outcome: VerdictOutcome
    principle: str | None


@dataclass(slots=True)
class _Verdicts:
    """Verdicts as they are read, by judge and item; and what the export makes of them, where several judges speak."""

    settings: Settings
    _by_judge: dict[str, dict[int, _Said]] = field(default_factory=dict)
    _together: dict[int, _Said] = field(default_factory=dict)

    def add(self, i: int, record: Record, first: int, second: int) -> None:
        seen = [_from(first, verdict) for verdict in record.verdicts if _pair(verdict) == (first, second)]
        for judge in dict.fromkeys(verdict.judge for verdict in seen):
            self._by_judge.setdefault(judge, {})[i] = _said([verdict for verdict in seen if verdict.judge == judge])
        if seen:
            self._together[i] = self._exported(record, first, second)

    def _exported(self, record: Record, first: int, second: int) -> _Said:
        compared = Comparisons(record, self.settings.export.panel, self.settings.export.weights)
        found = compared.of(first, second) if {first, second} <= compared.texts.keys() else None
        if found is None:
            return _Said(math.nan, math.nan, "unparsed", None)
        return _Said(found.p_ab, found.p_ba, "both_bad" if found.both_bad else "ok", _only(found.principles))

    def answers(self, items: Items, summary: Mapping[str, Any]) -> Answers:
        bills = {judge: _bill(summary, judge) for judge in self._by_judge}
        n = len(items)
        judges = tuple(_judged(judge, said, n, *bills[judge]) for judge, said in self._by_judge.items())
        if len(judges) < 2:
            return Answers(items, judges)
        calls, costs = zip(*bills.values(), strict=True)
        return Answers(items, judges, _judged(self._name, self._together, n, _sum(calls), _sum(costs)))

    @property
    def _name(self) -> str:
        judges = [judge for entry in self.settings.stages if isinstance(entry.judge, Judge) for judge in entry.judge.by]
        if len(judges) == 1 and isinstance(judges[0], Cascade):
            return CASCADE
        return f"panel ({self.settings.export.panel})"


def _pair(verdict: Verdict) -> tuple[int, int]:
    return min(verdict.first, verdict.second), max(verdict.first, verdict.second)


class _Seen(NamedTuple):
    """A verdict, seen from the item's first response."""

    judge: str
    p_ab: float
    p_ba: float
    outcome: VerdictOutcome
    principle: str
    weight: float


def _from(first: int, verdict: Verdict) -> _Seen:
    ab, ba = verdict.in_both_orders or (math.nan if p is None else p for p in (verdict.p_ab, verdict.p_ba))
    if verdict.first != first:
        ab, ba = 1 - ba, 1 - ab
    return _Seen(verdict.judge, ab, ba, verdict.outcome, verdict.principle, verdict.weight)


def _said(seen: Sequence[_Seen]) -> _Said:
    """A judge's votes, averaged by weight; of none, what became of the first. What a cascade escalated was a vote."""
    votes = [one for one in seen if not math.isnan(one.p_ab + one.p_ba)]
    principle = _only([one.principle for one in seen])
    if not votes:
        return _Said(seen[0].p_ab, seen[0].p_ba, seen[0].outcome, principle)
    named: list[VerdictOutcome] = ["both_bad", "tie"]
    most = next((name for name in named if 2 * sum(one.outcome == name for one in votes) > len(votes)), None)
    weights = [one.weight for one in votes]
    p_ab, p_ba = (fmean(p, weights) for p in ([one.p_ab for one in votes], [one.p_ba for one in votes]))
    return _Said(p_ab, p_ba, most or "ok", principle)


def _only(principles: Sequence[str]) -> str | None:
    return principles[0] if len(set(principles)) == 1 else None


def _judged(judge: str, said: Mapping[int, _Said], n: int, calls: int | None, cost_usd: float | None) -> Judged:
    p_ab, p_ba = np.full(n, np.nan), np.full(n, np.nan)
    outcomes: list[VerdictOutcome | None] = [None] * n
    principles: list[str | None] = [None] * n
    for i, one in said.items():
        p_ab[i], p_ba[i], outcomes[i], principles[i] = one
    return Judged(judge, p_ab, p_ba, tuple(outcomes), tuple(principles), calls=calls, cost_usd=cost_usd)


def _bill(summary: Mapping[str, Any], judge: str) -> tuple[int | None, float | None]:
    """Calls, and US dollars, of a judge's answers; those that the journal had already cost what the others did."""
    lines = [line for line in summary.get("ledger", {}).get("lines", ()) if _is_of(line, judge)]
    last = [stage for stage in summary.get("stages", ()) if _is_of(stage, judge)]
    sent = sum(line["sent"] for line in lines)
    calls = max(sent, sum(stage["sent"] + stage["from_journal"] for stage in last))
    paid = _sum(line["cost_usd"] for line in lines)
    return calls or None, paid * calls / sent if sent and paid is not None else None


def _is_of(line: Mapping[str, Any], judge: str) -> bool:
    """Of a judge stage; what another stage asked of the same model is no verdict."""
    model, stage = str(line["model"]), str(line["stage"])
    return model.removesuffix(BATCH) == judge and stage.partition("-")[0] == "judge"


def _sum(numbers: Iterable[Any]) -> Any:  # Any: int or float
    """None if one of them is not known."""
    known = list(numbers)
    return None if None in known else sum(known)
