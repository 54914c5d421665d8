"""A run under way, as an observer sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

from rlaif.budget import Budget
from rlaif.config import Settings
from rlaif.estimate import Estimate
from rlaif.journal import Charge
from rlaif.llm import LLM, Tally
from rlaif.prices import Price, cost_usd
from rlaif.runner import Progress
from rlaif.store import RunFolder

Status = Literal["done", "stopped", "interrupted", "dry_run"]


@dataclass(slots=True)
class Job:
    """A run under way, as an observer sees it."""

    settings: Settings
    folder: RunFolder
    total: int | None  # prompts, if known
    calls_per_record: int = 0  # at most
    models: int = 0  # each is asked once before the run
    limited_for_local: bool = False
    progress: Progress = field(default_factory=Progress)
    tallies: Mapping[tuple[str, str], Tally] = field(default_factory=dict)
    asked: Sequence[LLM] = ()
    notices: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    prices: Mapping[str, Price | None] = field(default_factory=dict)  # by the models' names
    bills: Mapping[str, Price | None] = field(default_factory=dict)  # by their names in the ledger
    budget: Budget | None = None
    ledger: Sequence[Charge] = ()  # of all invocations; when this one has ended
    took_s: float = 0.0  # without the models' start
    at_once: int = 0  # records
    estimate: Estimate | None = None
    new: bool = True  # this is its first invocation
    revised: bool = False  # its drafts are
    draining: bool = False  # told to stop, it waits for the calls in flight
    warning: str = ""  # what may be a reason to stop before the bill grows

    def cost_usd(self, model: str, counts: Tally | Charge) -> float | None:
        """None where the price is not known."""
        price = (self.prices if isinstance(counts, Tally) else self.bills).get(model)
        if not counts.prompt_tokens + counts.completion_tokens:
            return 0.0 if counts.sent == counts.failed or price is not None else None  # nothing was answered
        return None if price is None else cost_of(price, counts)


Observer = Callable[[Job], AbstractContextManager[object]]


def cost_of(price: Price, counts: Tally | Charge) -> float:
    tokens = counts.prompt_tokens, counts.cached_tokens, counts.completion_tokens, counts.written_tokens
    return cost_usd(price, *tokens)
