"""What the records after a sample will take, by what those of the sample took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlaif.budget import BATCH
from rlaif.estimate import Estimate, from_sample
from rlaif.job.under_way import Job
from rlaif.llm import Tally


def extrapolated(job: Job, stages: Sequence[str], everything: int) -> Estimate:
    """For the records after those that ran, by what these took in this invocation, or else in the ones before it.

    What the ledger has beyond these was asked for others of the run, and need not be asked again.
    """
    whole: dict[tuple[str, str], Tally] = {}
    for charge in job.ledger:
        key = charge.stage, charge.model.removesuffix(BATCH)
        counts = Tally(charge.sent, 0, charge.failed, prompt_tokens=charge.prompt_tokens)
        counts.cached_tokens, counts.completion_tokens = charge.cached_tokens, charge.completion_tokens
        counts.written_tokens = charge.written_tokens
        whole[key] = whole.get(key, Tally()) + counts
    ran = max(1, job.progress.records + job.progress.skipped)
    tallies, known = {}, {}
    for key, tally in whole.items():
        if key[0] not in stages:
            continue
        of_these = job.tallies.get(key, Tally())
        answered = of_these.sent - of_these.retried - of_these.failed
        needed = answered + of_these.from_journal
        others = tally.sent - tally.failed - needed
        if job.progress.skipped:  # parts that were not looked at: their calls are in the ledger only
            tallies[key], ran = tally, max(ran, job.folder.size())
        elif needed:
            known[key] = max(0, others)
            tallies[key] = of_these if answered > 0 else _as_many(tally, needed)
    tallies = {key: tallies[key] for name in stages for key in tallies if key[0] == name}
    now = sum(job.tallies.values(), start=Tally())
    prices = {model: job.prices.get(model) for _, model in tallies}
    wall_s = job.took_s * (1 + now.from_journal / now.sent) if now.sent else 0.0
    left = max(0, everything - ran)
    found = from_sample(tallies, prices, ran, left, wall_s, job.at_once, known=known)
    measured = {name for name, _ in tallies}
    unmeasured = tuple(dict.fromkeys(name for name, _ in job.tallies if name in stages and name not in measured))
    time_s = found.time_s if wall_s and not job.progress.skipped else None
    return replace(found, time_s=time_s, records=left, unmeasured=unmeasured)


def _as_many(tally: Tally, calls: int) -> Tally:
    """What so many of its answered calls came to, on average."""
    share = calls / max(1, tally.sent - tally.failed)
    tokens = tally.prompt_tokens, tally.completion_tokens, tally.cached_tokens, tally.written_tokens
    prompt, completion, cached, written = (round(count * share) for count in tokens)
    counts = Tally(sent=calls, prompt_tokens=prompt, completion_tokens=completion)
    counts.cached_tokens, counts.written_tokens = cached, written
    return counts
