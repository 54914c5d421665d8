"""The models of a job: met before the first record, enough records for all of them, closed at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from rlaif.config import Settings
from rlaif.context import Context
from rlaif.errors import Pending
from rlaif.journal import Traits
from rlaif.llm import LLM, Tally
from rlaif.models import with_fallbacks
from rlaif.plan import calls_per_record
from rlaif.preflight import preflight
from rlaif.stages import Stage

# Of the window: a record under way takes some kilobytes.
_NARROWEST, _WIDEST = 256, 8192


async def meet(llm: LLM, tally: Tally) -> Traits:
    """What the model can do; where another engine has its turn, that one ends here. Raises as `preflight` does."""
    try:
        return await preflight(llm, tally)
    except Pending:
        if not await llm.settle():
            raise
    return await preflight(llm, tally)


def records_at_once(settings: Settings, models: Iterable[LLM]) -> int:
    """Records under way: enough for every model to be full, though most records wait for another one."""
    places = sum(lane.most for llm in models for lane in llm.lanes.all)
    return settings.window or min(_WIDEST, max(_NARROWEST, 2 * places))


def planned_calls(context: Context, stages: Sequence[tuple[str, Stage]], settings: Settings) -> int:
    """Calls of a record at most."""
    given = max(len(one.responses) for one in settings.prompts)
    return calls_per_record(stages, len(context.constitution.principles), voters(context, settings), given)


def voters(context: Context, settings: Settings) -> set[str]:
    """The roles of models without log-probabilities, as far as it is known yet."""
    specs = with_fallbacks(settings.models)
    known = {role: llm.known_traits() for role, llm in context.models.items()}
    return {
        role
        for role, traits in known.items()
        if (traits is None and specs[role].provider == "anthropic") or (traits and not traits.top_logprobs)
    }


async def check_models(models: Iterable[LLM]) -> None:
    """Keys and packages, which only opening finds out; nothing is started or sent."""
    for llm in models:
        for lane in llm.lanes.all:
            await lane.open_backend().close()


async def close_models(models: Iterable[LLM]) -> None:
    """All of them, whatever one raises."""
    ends = await asyncio.gather(*(llm.close() for llm in models), return_exceptions=True)
    for error in ends:
        if isinstance(error, BaseException):
            raise error
