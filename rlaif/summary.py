"""What a run came to: the attrition funnel from its parts, and the calls of the last invocation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any  # plain JSON

from rlaif.journal import Charge
from rlaif.llm import Tally
from rlaif.types import Record

# (model, what it was asked) -> US dollars; None where they are not known.
Cost = Callable[[str, Tally | Charge], float | None]


# Failed records that summary.json names; `rlaif show RUN --outcome failed` names all.
LISTED = 100


@dataclass(slots=True)
class Funnel:
    """Counts over the records of a run; every record and every response ends in exactly one place."""

    records: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)  # records, by reason
    failed: Counter[str] = field(default_factory=Counter)  # records, by "stage: reason"
    failures: list[dict[str, str | None]] = field(default_factory=list)  # the first of them
    responses: int = 0
    responses_dropped: Counter[str] = field(default_factory=Counter)  # by reason
    revisions: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)  # by outcome
    scores: Counter[str] = field(default_factory=Counter)  # ok, unparsed
    principles: Counter[str] = field(default_factory=Counter)  # drawn for revisions and verdicts

    def add(self, record: Record) -> None:
        self.records += 1
        self.outcomes[record.outcome or "unfinished"] += 1
        if record.outcome == "dropped":
            self.dropped[record.reason or "unknown"] += 1
        if record.outcome == "failed":
            self.failed[f"{record.stage}: {record.reason}"] += 1
            if len(self.failures) < LISTED:
                names = ("id", "stage", "reason", "detail")
                self.failures.append({name: getattr(record, name) for name in names})
        self.responses += len(record.responses)
        for drop in record.drops:
            self.responses_dropped[drop.reason] += 1
        for response in record.responses:
            self.revisions += response.revises is not None
            if response.principle:
                self.principles[response.principle] += 1
        for verdict in record.verdicts:
            self.verdicts[verdict.outcome] += 1
            self.principles[verdict.principle] += 1
        for score in record.scores:
            self.scores["unparsed" if score.value is None else "ok"] += 1


def funnel_of(records: Iterable[Record]) -> Funnel:
    funnel = Funnel()
    for record in records:
        funnel.add(record)
    return funnel


def of_run(funnel: Funnel, duplicates: int, dataset: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part of summary.json that is about the whole run; `dataset` are its counts, as plain JSON."""
    counts = {name: getattr(funnel, name) for name in Funnel.__dataclass_fields__}
    plain = {name: dict(value) if isinstance(value, Counter) else value for name, value in counts.items()}
    return {
        "records": plain.pop("records"),
        "outcomes": plain.pop("outcomes"),
        "duplicate_prompts": duplicates,
        "failures": plain.pop("failures"),
        "funnel": plain,
        "dataset": dataset,
    }


def of_invocation(
    tallies: Mapping[tuple[str, str], Tally], status: str, wall_s: float, cost: Cost = lambda *_: None
) -> dict[str, Any]:
    """The part of summary.json that is about the last `generate` or `retry`: its calls, tokens, cost and time."""
    total = sum(tallies.values(), start=Tally())
    costs = {(stage, model): cost(model, tally) for (stage, model), tally in tallies.items()}
    return {
        "status": status,
        "calls": {"sent": total.sent, "from_journal": total.from_journal, "failed": total.failed},
        "tokens": {
            "prompt": total.prompt_tokens,
            "cached": total.cached_tokens,
            "completion": total.completion_tokens,
        },
        "cost_usd": total_usd(costs.values()),
        "wall_s": round(wall_s, 3),
        "stages": [
            {"stage": stage, "model": model, **asdict(tally), "cost_usd": costs[stage, model]}
            for (stage, model), tally in sorted(tallies.items())
        ],
    }


def of_ledger(charges: Iterable[Charge], cost: Cost) -> dict[str, Any]:
    """The part about all invocations of the run together: its calls, by day, stage and model."""
    lines = [{**charge._asdict(), "cost_usd": cost(charge.model, charge)} for charge in charges]
    for line in lines:
        del line["run"]
    return {
        "sent": sum(line["sent"] for line in lines),
        "cost_usd": total_usd(line["cost_usd"] for line in lines),
        "lines": lines,
    }


def total_usd(costs: Iterable[float | None]) -> float | None:
    """None if one of them is not known."""
    total = 0.0
    for usd in costs:
        if usd is None:
            return None
        total += usd
    return round(total, 9)
