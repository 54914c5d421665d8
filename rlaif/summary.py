"""What a run came to: the attrition funnel from its parts, drafts that refuse, the calls of the last invocation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any  # plain JSON

from rlaif.hygiene.refusing import RefusalSample
from rlaif.journal import Charge
from rlaif.llm import Tally
from rlaif.types import Record

# (model, what it was asked) -> US dollars; None where they are not known.
Cost = Callable[[str, Tally | Charge], float | None]


# Failed records that summary.json names; `rlaif show RUN --outcome failed` names all.
LISTED = 100
# Before a share of refusals means something, and before the run has cost much.
_FEWEST, _EARLY = 16, 32


class Drafts(RefusalSample):
    """How many records' first drafts refuse."""

    def read(self, record: Record) -> None:
        """A record may come again, as far as it has got. The sides of a contrast are asked to differ, not to answer."""
        for response in record.responses:
            if response.revises is None and response.side is None:
                self.add(record.id, response)
                break

    def plain(self) -> dict[str, int]:
        return {"n": self.n, "refusals": self.refusals}


def enough_drafts(records: int | None) -> int:
    """So many of a run's first drafts tell whether its policy refuses; None: it is not known how many there are."""
    return _EARLY if records is None else min(_EARLY, max(_FEWEST, records // 10))


def refusing(n: int, refusals: int, revised: bool) -> str | None:
    """What to say of so many first drafts, if most of them refuse; `revised`: they are what is to be revised."""
    if n < _FEWEST or 2 * refusals < n:
        return None
    little = "there is little to revise" if revised else "two refusals are no pair to learn from"
    return (
        f"{refusals:,} of {n:,} first drafts refuse already: {little}. Use a policy that answers (a base model, or "
        "one tuned to be helpful only), or prompts that it does not refuse"
    )


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
    drafts: Drafts = field(default_factory=Drafts)

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
        for verdict in record.verdicts:
            self.verdicts[verdict.outcome] += 1
        for score in record.scores:
            self.scores["unparsed" if score.value is None else "ok"] += 1
        self.drafts.read(record)


def funnel_of(records: Iterable[Record]) -> Funnel:
    funnel = Funnel()
    for record in records:
        funnel.add(record)
    return funnel


def of_run(
    funnel: Funnel,
    duplicates: int,
    dataset: Mapping[str, Any] | None,
    principles: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The part of summary.json that is about the whole run; `dataset` are its counts, as plain JSON.

    `principles` are dataclasses by id: what the export counted of each.
    """
    counts = {name: getattr(funnel, name) for name in Funnel.__dataclass_fields__ if name != "drafts"}
    plain = {name: dict(value) if isinstance(value, Counter) else value for name, value in counts.items()}
    return {
        "records": plain.pop("records"),
        "outcomes": plain.pop("outcomes"),
        "duplicate_prompts": duplicates,
        "failures": plain.pop("failures"),
        "funnel": plain,
        "drafts": funnel.drafts.plain(),
        "principles": {name: asdict(stats) for name, stats in (principles or {}).items()},
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


def reused(tallies: Mapping[tuple[str, str], Tally], whole: Iterable[Charge] = ()) -> dict[str, int]:
    """Of the answers that a run's records needed, those that earlier runs had paid for.

    `tallies` are of an invocation that went through all of the records; `whole` is the ledger of the run, if it is not
    the first one: what the run itself has asked for before is in the journal too.
    """
    own = [(tally, tally.sent - tally.retried - tally.failed) for key, tally in tallies.items() if _of_records(key[0])]
    answered, found = sum(answers for _, answers in own), sum(tally.from_journal for tally, _ in own)
    before = sum(charge.sent - charge.failed for charge in whole if _of_records(charge.stage)) - answered
    return {"answers": max(0, found - max(0, before)), "of": answered + found}


def _of_records(stage: str) -> bool:
    return stage not in ("preflight", "probe")


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
