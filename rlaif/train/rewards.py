"""Rewards for TRL's online trainers: reward models and judges behind the one door, asked from a thread of its own.

What was asked before is in the journal, so that a training that goes on pays for no rating twice.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from rlaif.budget import Budget
from rlaif.constitution import Constitution, load_constitution
from rlaif.context import Context
from rlaif.errors import CallFailed, ConfigError, Pending
from rlaif.export.ratings import score_of
from rlaif.journal import Journal
from rlaif.judges.aspects import load_aspects
from rlaif.judges.ensemble import combined, spreads
from rlaif.judges.reward import score_in, scored
from rlaif.judges.rubric import Rubric
from rlaif.llm import Tally
from rlaif.models import open_models, with_fallbacks
from rlaif.preflight import preflight, question
from rlaif.prices import cost_usd, load_prices
from rlaif.stages.judge import Rate
from rlaif.templates import Templates
from rlaif.train.online import OnlineSettings, Source, sources
from rlaif.types import Message, Messages, Record, Response, prompt_id

T = TypeVar("T")
Score = float | None
# What TRL hands to a reward function: a text or a list of messages each, prompts repeated for their completions.
Texts = Sequence[Any]
# Completions in a row without a score: a judge of no use ends the training, a bad moment does not.
_HOPELESS = 64


@contextmanager
def open_rewards(
    settings: OnlineSettings,
    *,
    folder: Path,
    name: str,
    environment: Mapping[str, str],
    whole_groups: bool = True,
    device: str | None = None,
) -> Iterator[list[Reward]]:
    """The reward functions, in the order of the settings; the models start at their first question.

    `folder` is for the models' logs; `name` says in the journal's ledger whose calls these are. `whole_groups`: all
    completions of a prompt are in one process, see the function of that name. `device` is that of the reward models,
    like "cuda:1"; None: the first there is.
    """
    if not whole_groups and settings.combine != "mean" and any(len(one.specs) > 1 for one in sources(settings)):
        raise ConfigError(
            f"combine: {settings.combine} compares the completions of a prompt, and here some are in other processes; "
            "choose per_device_train_batch_size x steps_per_generation as a multiple of num_generations, or "
            "combine: mean"
        )
    if settings.max_cost_usd is not None and int(environment.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("max_cost_usd is kept in one process, and these are several: leave it out, or train in one")
    thread = _Thread()
    try:
        door = thread.run(_opened(settings, folder, name, environment, device))
        try:
            yield [Reward(source.name, partial(_ask, thread, door, source), settings) for source in door.sources]
        finally:
            thread.run(door.held.aclose())
    finally:
        thread.end()


def whole_groups(args: Any) -> bool:
    """Whether no prompt's completions are spread over processes; `args` is a GRPOConfig or an RLOOConfig."""
    of_process = args.per_device_train_batch_size * args.steps_per_generation
    return bool(args.world_size == 1 or of_process % args.num_generations == 0)


@dataclass(slots=True)
class Reward:
    """A reward function as TRL's GRPO and RLOO trainers call it; None for a completion that has no score.

    TRL leaves such a one out of its group's baseline and gives it no advantage. What became of the calls is logged as
    `NAME/unscored` and `NAME/failed` (shares of the completions), `NAME/sent` and `NAME/from_journal` (calls a batch)
    and `NAME/spread` (of an ensemble, the mean standard deviation of its members); `failures` counts them by reason.
    """

    name: str
    ask: Callable[[Sequence[Record]], _Answers]
    settings: OnlineSettings
    failures: Counter[str] = field(default_factory=Counter)
    _in_vain: int = 0

    @property
    def __name__(self) -> str:  # what TRL calls its figures
        return self.name

    def __call__(
        self,
        prompts: Texts,
        completions: Texts,
        log_metric: Callable[[str, float], None] = lambda name, value: None,
        **_: object,
    ) -> list[Score]:
        records = [_record(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        answers = self.ask(records)
        self.failures.update(answers.failures)
        groups: dict[str, list[int]] = {}
        for i, record in enumerate(records):
            if None not in answers.scores[i]:
                groups.setdefault(record.id, []).append(i)
        rewards: list[Score] = [None] * len(records)
        spread: list[float] = []
        for places in groups.values():
            scores = [[score for score in answers.scores[i] if score is not None] for i in places]
            spread += spreads(scores)
            together = combined(scores, self.settings.combine, self.settings.penalty)
            for i, score in zip(places, together, strict=True):
                rewards[i] = score
        self._log(answers, rewards, spread, log_metric)
        self._check_hope(rewards)
        return rewards

    def _log(
        self, answers: _Answers, rewards: Sequence[Score], spread: Sequence[float], log: Callable[[str, float], None]
    ) -> None:
        """Always the same names: TRL's processes gather them in turn."""
        n = max(1, len(rewards))
        log(f"{self.name}/unscored", rewards.count(None) / n)
        log(f"{self.name}/failed", (answers.failures.total() - answers.failures["unrated"]) / n)
        log(f"{self.name}/sent", answers.sent)
        log(f"{self.name}/from_journal", answers.from_journal)
        if len(answers.scores[0] if answers.scores else ()) > 1:
            log(f"{self.name}/spread", fmean(spread) if spread else math.nan)

    def _check_hope(self, rewards: Sequence[Score]) -> None:
        scored = any(reward is not None for reward in rewards)
        self._in_vain = 0 if scored else self._in_vain + len(rewards)
        if self._in_vain >= _HOPELESS:
            why = ", ".join(f"{reason} {count:,}" for reason, count in self.failures.most_common())
            raise ConfigError(
                f"{self.name} gave none of the last {self._in_vain} completions a score ({why}): choose another "
                "one; the same command then goes on from the last checkpoint"
            )


class _Answers(NamedTuple):
    """Of each completion the score by every member; `failures` are completions by the reason of their first one."""

    scores: list[list[Score]]
    failures: Counter[str]
    sent: int
    from_journal: int


# --- behind the door ---


@dataclass(frozen=True, slots=True)
class _Door:
    """The models of all sources, under roles `NAME.0`, `NAME.1` ...; `held` closes them and the journal."""

    sources: Sequence[Source]
    context: Context
    rate: Rate
    budget: Budget | None
    held: AsyncExitStack


async def _opened(
    settings: OnlineSettings, folder: Path, name: str, environment: Mapping[str, str], device: str | None
) -> _Door:
    there = sources(settings)
    specs = {f"{source.name}.{i}": spec for source in there for i, spec in enumerate(source.specs)}
    if device is not None:
        on_it = {"device_map": {"": device}}
        specs = {
            role: spec.model_copy(update={"engine": spec.engine | on_it}) if spec.provider == "reward" else spec
            for role, spec in specs.items()
        }
    rubric = load_aspects(settings.rubric) if settings.rubric else None
    judged = rubric is None and any(source.judge for source in there)
    constitution = load_constitution(settings.constitution) if judged else _NO_CONSTITUTION
    prices = load_prices()
    budget = Budget(max_cost_usd=settings.max_cost_usd) if settings.max_cost_usd is not None else None
    async with AsyncExitStack() as held:
        journal = await held.enter_async_context(Journal(Path(settings.runs_dir) / "calls.sqlite"))
        models = open_models(
            with_fallbacks(specs),
            journal,
            dict(environment),
            folder,
            one_engine_at_a_time=False,  # each step asks them all
            prices=prices,
            budget=budget,
        )
        language = rubric.language if rubric else constitution.language
        context = Context(models, constitution, Templates(language=language), settings.seed, "reward")
        for llm in {id(llm): llm for llm in models.values()}.values():
            llm.run = name
            held.push_async_callback(llm.close)
        if budget is not None:
            _carry(budget, journal, name, models.values())
        for role, spec in specs.items():
            if spec.provider != "reward":
                llm = models[role]
                try:
                    llm.traits = await preflight(llm, context.tally(llm))
                except Pending:
                    raise _used_up(budget) from None
                llm.probe_with(question(llm, llm.traits), partial(context.tally, llm))
        rate = Rate(principles="all" if rubric else settings.principles, rubric=rubric)
        return _Door(there, context, rate, budget, held.pop_all())
    raise AssertionError("the stack swallows no error")


def _carry(budget: Budget, journal: Journal, name: str, models: Any) -> None:
    """What this training has spent before it was interrupted counts too."""
    prices = {llm.name: llm.price for llm in models}
    budget.check_prices(prices)
    spent = journal.ledger(name)
    usd = 0.0
    for charge in spent:
        if (price := prices.get(charge.model)) is not None:
            tokens = charge.prompt_tokens, charge.cached_tokens, charge.completion_tokens, charge.written_tokens
            usd += cost_usd(price, *tokens)
    budget.carry(usd, sum(charge.sent for charge in spent))


def _used_up(budget: Budget | None) -> ConfigError:
    """Nothing else leaves a call without an answer: batches are refused, and engines do not take turns."""
    why = (budget and budget.exhausted) or "--max-cost is used up"
    why = why.replace("--max-cost", "online.max_cost_usd")
    return ConfigError(f"{why}; with a higher one the same command goes on from the last checkpoint")


def _ask(thread: _Thread, door: _Door, source: Source, records: Sequence[Record]) -> _Answers:
    return thread.run(_answers(door, source, records))


async def _answers(door: _Door, source: Source, records: Sequence[Record]) -> _Answers:
    """All of a step's completions at once: the models' own limits hold the calls back."""
    before = _sum(door.context, source)
    failures: Counter[str] = Counter()

    async def one(rank: int, record: Record) -> list[Score]:
        context = door.context.at(source.name, rank)
        found = await asyncio.gather(
            *(_score(door, source, i, record, context) for i in range(len(source.specs))), return_exceptions=True
        )
        raised = [one for one in found if isinstance(one, BaseException)]
        if lost := [one for one in raised if not isinstance(one, CallFailed)]:
            raise lost[0]
        scores = [None if isinstance(one, BaseException) else one for one in found]
        if None in scores:
            failures[next((str(one.reason) for one in raised if isinstance(one, CallFailed)), "unrated")] += 1
        return scores

    scores = await asyncio.gather(*(one(i, record) for i, record in enumerate(records)), return_exceptions=True)
    for error in scores:
        if isinstance(error, Pending):
            raise _used_up(door.budget) from None
        if isinstance(error, BaseException):
            raise error
    after = _sum(door.context, source)
    sent, known = after.sent - before.sent, after.from_journal - before.from_journal
    return _Answers([one for one in scores if not isinstance(one, BaseException)], failures, sent, known)


async def _score(door: _Door, source: Source, member: int, record: Record, context: Context) -> Score:
    role = f"{source.name}.{member}"
    if not source.judge:
        return score_in(await scored(role, record.prompt, record.responses[0].text, context))
    rate = door.rate.model_copy(update={"by": Rubric(model=role)})
    return score_of(await rate(record, context), 0)


def _sum(context: Context, source: Source) -> Tally:
    return sum((tally for (stage, _), tally in context.tallies.items() if stage == source.name), start=Tally())


_NO_CONSTITUTION = Constitution.model_construct(name="none", version="0", licence="", language="en", principles=())


# --- what TRL hands over ---


def _record(prompt: Any, completion: Any) -> Record:
    """A completion as the one response to its prompt; what it says before its last turn belongs to the prompt."""
    asked = _messages(prompt, "user")
    *before, answer = _messages(completion, "assistant")
    return Record(prompt_id(asked), (*asked, *before), responses=(Response(answer.content, "policy"),))


def _messages(given: Any, role: Any) -> Messages:
    if isinstance(given, str):
        return (Message(role, given),)
    turns = tuple(Message(turn["role"], turn["content"]) for turn in given)
    for turn in turns:
        if turn.role not in ("system", "user", "assistant") or not isinstance(turn.content, str):
            raise ConfigError(
                f"a turn of role '{turn.role}' in a prompt or completion: online rewards read turns of text by "
                "system, user and assistant"
            )
    return turns


class _Thread:
    """An event loop that runs beside TRL's synchronous code."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rewards", daemon=True)
        self._thread.start()

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
