"""The one door: every model call is looked up in the journal first and written there before it returns."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeVar

import msgspec
import tenacity

from rlaif.backends import Backend
from rlaif.budget import BATCH, may_be_billed, tokens_at_most
from rlaif.errors import CallFailed, Pending, ProviderError
from rlaif.journal import Charge, Journal, Traits
from rlaif.lanes import REFUSED_FOR_GOOD, Lane, Lanes
from rlaif.prices import Price
from rlaif.types import Completion, Failure, Message, Request, Usage

# A provider that names no wait: 0.5, 1, 2, ... up to 30 s, each a random share of it.
_FIRST_WAIT_S, _LONGEST_WAIT_S, _LONGEST_RETRY_AFTER_S = 0.5, 30.0, 600.0
# A model that failed so many of a run's calls in a row is of no use, before it answered one and after.
_NEVER_ANSWERED, _NO_LONGER = 64, 1000
# Somebody waits for the first answer: for a limit to pass, not longer than this.
_SOON_S = 60.0
# What a reasoning model may think before each answer.
THINKING_TOKENS = 2048

_T = TypeVar("_T")


@dataclass(slots=True)
class Tally:
    """What happened to the calls of one stage to one model; tokens are of the calls sent.

    `from_journal` counts the answers from before the run began, however many passes look at them.
    """

    sent: int = 0
    from_journal: int = 0
    failed: int = 0
    retried: int = 0
    fell_back: int = 0  # to the fallback: failed for good, or refused to criticise or judge
    unsent: int = 0  # dry run: would have been sent
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(slots=True)
class _Call:
    """One call under way: how often it was sent, and which lanes failed it."""

    request: Request
    tally: Tally
    stage: str  # that it is charged to
    rank: int
    tokens: int  # of prompt and answer, as a provider may count them before it has answered
    patient: bool  # waits for what may pass, or for a batch; a preflight does not
    began: float = field(default_factory=time.monotonic)
    strikes: int = 0
    error: ProviderError | None = None  # the last one
    failed_by: set[Lane] = field(default_factory=set)
    answered_by: Lane | None = None  # whose place it keeps until the answer is in the journal


@dataclass(slots=True)
class LLM:
    """One model behind the door.

    Args:
        name: what users call it. `identity`: what its answers are filed under.
        lanes: where it answers; opened at the first call that must be sent, so that a finished run starts no server.
        attempts: of one call, as far as it is its own fault: limits, refused connections and keys do not count.
        sending: False in a dry run; then every unanswered call is Pending.
        retry_failed: ask again what the journal holds as failed.
        run: whose ledger the calls are charged to.
        price: of its tokens if they are not sent in a batch, None if it is not known.
        batch: they are, save the preflight's.
        observe: told the seconds of every answered call.
        elsewhere: another journal, asked for what is not in ours.
    """

    name: str
    identity: str
    journal: Journal
    lanes: Lanes
    attempts: int = 6
    sending: bool = True
    retry_failed: bool = False
    extra: dict[str, object] | None = None  # provider's own body fields and headers, part of every key
    traits: Traits = Traits()
    notices: list[str] = field(default_factory=list)
    run: str = ""
    price: Price | None = None
    batch: bool = False
    observe: Callable[[float], None] | None = None
    elsewhere: Callable[[bytes], Awaitable[Completion | Failure | None]] | None = None
    _row: int = field(init=False)
    _traits_row: int = field(init=False)
    _metered: bool = field(init=False)
    _billed_as: str = field(init=False)
    _answered: bool = False
    _in_flight: dict[bytes, asyncio.Task[Completion]] = field(default_factory=dict)
    _failures_in_a_row: int = 0
    _retried: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._row = self.journal.model(self.identity, self.name)
        # Other body fields may make another model of it: one that thinks, say.
        form = f"{self.identity}+{blake2b(msgspec.json.encode(self.extra), digest_size=6).hexdigest()}"
        self._traits_row = self.journal.model(form, self.name) if self.extra else self._row
        self._billed_as = self.name + BATCH if self.batch else self.name
        self._metered = any(lane.tokens for lane in self.lanes.all)

    async def complete(
        self, request: Request, tally: Tally, *, stage: str = "", rank: int = 0, again: bool = True
    ) -> Completion:
        """The answer to `request`, from the journal or from the model; the lowest rank is sent first.

        In a retry a failure in the journal is asked `again`, once.

        Raises CallFailed when the model will not answer, now or ever; Pending when it has not yet;
        ProviderError when the endpoint as a whole is of no use. A caller that is cancelled leaves
        the call running: it is paid for, so its answer goes into the journal.
        """
        key = request.key()
        task = self._in_flight.get(key)
        if task is None:
            found = self.journal.find(key)
            again = again and self.retry_failed and key not in self._retried
            if found is not None and not (again and isinstance(found[0], Failure)):
                tally.from_journal += found[1]
                self._answered = self._answered or isinstance(found[0], Completion)
                return _handed_on(found[0])
            if not self.sending:
                tally.unsent += 1
                raise Pending
            task = asyncio.get_running_loop().create_task(self._answer(key, request, tally, stage, rank, again))
            self._in_flight[key] = task
            task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return await asyncio.shield(task)

    def stop(self) -> None:
        """Start no new call; those in flight go on into the journal."""
        self.lanes.stop()

    async def close(self) -> None:
        """Waits for the calls in flight, then closes the backends."""
        self.stop()
        if self._in_flight:
            await asyncio.gather(*self._in_flight.values(), return_exceptions=True)
        await self.lanes.close()

    @property
    def waits_for(self) -> list[str]:
        """What keeps its calls waiting now, in words."""
        broken = [f"{lane.name} does not answer ({lane.broken})" for lane in self.lanes.all if lane.broken]
        now = time.monotonic()
        rests = [
            f"{lane.name} asks for a rest of {lane.throttle.resting_until - now:.0f} s"
            for lane in self.lanes.all
            if lane.broken is None and lane.throttle.resting_until - now > 5.0
        ]
        return broken + rests + [waiting for lane in self.lanes.all if (waiting := getattr(lane.opened, "waiting", ""))]

    @property
    def batched(self) -> bool:
        """Its calls are answered in batches: `settle` may wait for days."""
        return any(hasattr(lane.opened, "live") for lane in self.lanes.all)

    async def settle(self) -> bool:
        """Between passes: let a backend that queues get its answers; True if a new pass can get further."""
        further = False
        for lane in self.lanes.all:
            settle = getattr(lane.opened, "settle", None)  # optional part of the Backend protocol
            further = (settle is not None and await settle()) or further
        return further

    def known_traits(self) -> Traits | None:
        """What an earlier run learned about this model."""
        return self.journal.traits(self._traits_row)

    def remember(self, traits: Traits) -> None:
        self.journal.set_traits(self._traits_row, traits)

    def probe_with(self, question: Request, tally_of: Callable[[], Tally]) -> None:
        """What a lane that was left alone must answer before it is trusted again; counted and charged as "probe"."""

        async def ask(lane: Lane) -> None:
            call = self._call(question, tally_of(), "probe", patient=False)
            try:
                completion = await self._ask(call, lane.live)
            except ProviderError:
                call.tally.failed += 1
                raise
            _count(self._usage(call, completion), call.tally)
            self.journal.charge(self._charge(call, completion))

        self.lanes.probe = ask

    async def send(self, request: Request, tally: Tally, *, stage: str, attempts: int) -> Completion:
        """Ask without the journal, and without patience: somebody waits. Raises the last ProviderError, or Pending."""
        call = self._call(request, tally, stage, patient=False)
        try:
            completion = await self._send(call, attempts + len(self.lanes.all) - 1)
            self.journal.charge(self._charge(call, completion))
            return completion
        finally:
            self._done(call)

    async def _answer(
        self, key: bytes, request: Request, tally: Tally, stage: str, rank: int, again: bool
    ) -> Completion:
        answer: Completion | Failure
        if self.elsewhere is not None:
            known = await self.elsewhere(key)
            if known is not None and not (again and isinstance(known, Failure)):
                tally.from_journal += 1
                return _handed_on(known)
        call = self._call(request, tally, stage, rank=rank)
        try:
            answer = await self._send(call, self.attempts)
        except ProviderError as error:
            gone = self.lanes.gone if error.transient or error.fatal else None
            self._failures_in_a_row += 1
            if gone or error.fatal or (self._failures_in_a_row >= self._bearable() and not self.retry_failed):
                raise gone or error from error
            tally.failed += 1
            answer = Failure(error.kind, str(error))
        else:
            self._answered = True
            self._failures_in_a_row = 0
        if self.retry_failed:
            self._retried.add(key)
        charge = None if isinstance(answer, Failure) else self._charge(call, answer)
        try:
            return _handed_on(await self.journal.put(key, self._row, answer, charge))
        finally:
            self._done(call)

    def _done(self, call: _Call) -> None:
        """Only now may another one take its place: a kill loses no more than may be in flight."""
        if call.answered_by is not None:
            self.lanes.leave(call.answered_by)

    def _bearable(self) -> int:
        """Failures in a row: rows that fail for good are listed, but a model that is of no use burns no records."""
        return _NO_LONGER if self._answered else _NEVER_ANSWERED

    def _call(self, request: Request, tally: Tally, stage: str, rank: int = 0, patient: bool = True) -> _Call:
        tokens = 0
        if self._metered:
            tokens = sum(len(message.content) for message in request.messages) // 4 + (request.max_tokens or 0)
        return _Call(request, tally, stage, rank, tokens, patient)

    def _charge(self, call: _Call, completion: Completion | None, lost: bool = False) -> Charge:
        """Of one request: answered, or failed; `lost`: perhaps answered, so that all it may have cost is charged."""
        usage = Usage() if completion is None and not lost else self._usage(call, completion)
        tokens = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.written_tokens)
        billed_as = self._billed_as if call.patient else self.name
        return Charge(self.run, call.stage, billed_as, today(), 1, int(completion is None), *tokens)

    def _usage(self, call: _Call, completion: Completion | None) -> Usage:
        """As the provider counted it; where nobody did and it has its price, the most that it can be."""
        if completion is not None and completion.usage.counted:
            return completion.usage
        if self.price is None or self.price.free:
            return Usage()
        prompt, answer = tokens_at_most(call.request)
        return Usage(prompt, answer or 0)

    async def _send(self, call: _Call, attempts: int) -> Completion:
        try:
            completion = await self._send_once(call)
        except ProviderError as error:
            if not self._worth_again(error) or call.strikes >= attempts:
                raise
            completion = await self._send_again(call, attempts)
        _count(self._usage(call, completion), call.tally)
        return completion

    async def _ask(self, call: _Call, backend: Backend) -> Completion:
        """One request. Charged at once if it fails: however often it is tried, what a kill loses is in flight."""
        call.tally.sent += 1
        try:
            return await backend.complete(call.request)
        except Pending:
            call.tally.sent -= 1  # queued, not asked
            raise
        except ProviderError as error:
            in_batch = self.batch and call.patient  # there only what is answered is billed
            self.journal.charge(self._charge(call, None, lost=may_be_billed(error) and not in_batch))
            raise

    async def _send_once(self, call: _Call) -> Completion:
        lane = await self.lanes.take(call.rank, call.tokens, call.failed_by)
        try:
            self.journal.check_room()
            backend = lane.backend if call.patient else lane.live
        except BaseException:
            self.lanes.leave(lane)
            raise
        sent_at = time.monotonic()
        try:
            completion = await self._ask(call, backend)
        except ProviderError as error:
            call.error = error
            call.failed_by.add(lane)
            if error.kind == "rate_limit":
                self.lanes.slowed(lane, error, sent_at)
            elif error.kind in REFUSED_FOR_GOOD or (call.patient and error.transient):
                self.lanes.failed(lane, error)
            call.strikes += error.kind in ("timeout", "server") or not (call.patient or _passes_soon(call, error))
            raise
        else:
            now = time.monotonic()
            lane.answered(sent_at, now)
            call.answered_by = lane
            if lane.tokens is not None:
                lane.tokens.take(completion.usage.prompt_tokens + completion.usage.completion_tokens - call.tokens, now)
            if self.observe is not None:
                self.observe(now - sent_at)
            return completion
        finally:
            if call.answered_by is None:
                self.lanes.leave(lane)

    async def _send_again(self, call: _Call, attempts: int) -> Completion:
        await self.lanes.pause(self._wait_s(call, 0))
        async for attempt in tenacity.AsyncRetrying(
            stop=lambda _: call.strikes >= attempts,
            wait=lambda tried: self._wait_s(call, tried.attempt_number),
            retry=tenacity.retry_if_exception(self._worth_again),
            sleep=self.lanes.pause,
            reraise=True,
        ):
            with attempt:
                call.tally.retried += 1
                return await self._send_once(call)
        raise AssertionError("tenacity either returns or raises")

    def _worth_again(self, error: BaseException) -> bool:
        """What may pass, and what only one of several keys or addresses says."""
        if not isinstance(error, ProviderError):
            return False
        return not all(lane.given_up for lane in self.lanes.all) and (error.transient or error.fatal)

    def _wait_s(self, call: _Call, again: int) -> float:
        assert call.error is not None
        now = time.monotonic()
        others = [lane for lane in self.lanes.all if lane not in call.failed_by]
        if any((at := lane.free_at(now)) is not None and at <= now for lane in others):
            return 0.0  # another one does it now
        random_wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**again) * random.uniform(0.5, 1.0)
        asked_s = call.error.retry_after_s
        if asked_s is None:
            return random_wait_s
        # A server that says "now", or whose clock is not ours, is not asked at once again and again.
        return max(min(asked_s, _LONGEST_RETRY_AFTER_S) * random.uniform(1.0, 1.1), 0.1 * random_wait_s)


def _passes_soon(call: _Call, error: ProviderError) -> bool:
    """A limit that others have used up, as far as somebody waits for it."""
    soon = time.monotonic() - call.began + (error.retry_after_s or 0.0) < _SOON_S
    return error.kind == "rate_limit" and soon


def _count(usage: Usage, tally: Tally) -> None:
    tally.prompt_tokens += usage.prompt_tokens
    tally.completion_tokens += usage.completion_tokens
    tally.cached_tokens += usage.cached_tokens
    tally.written_tokens += usage.written_tokens


def today() -> str:
    """In UTC, as the ledger has it."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def _handed_on(answer: Completion | Failure) -> Completion:
    if isinstance(answer, Failure):
        raise CallFailed(answer.reason, answer.message)
    return answer


async def ask_all(*calls: Awaitable[_T]) -> list[_T]:
    """All answers, in order; every call is settled before the first exception is raised.

    A bare TaskGroup would cancel the siblings of the first Pending, and their calls would wait for
    another pass. Bugs and fatal errors come before Pending, Pending before failures: a record that
    still waits has not failed yet.
    """
    if len(calls) == 1:
        return [await calls[0]]  # no task needed
    answers = await asyncio.gather(*calls, return_exceptions=True)
    raised = [answer for answer in answers if isinstance(answer, BaseException)]
    if raised:
        raise min(raised, key=lambda error: 2 if isinstance(error, CallFailed) else isinstance(error, Pending))
    return answers  # type: ignore[return-value] # no exception is left among them


def without_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same conversation for a model without a system role: its text opens the first user turn."""
    if not messages or messages[0].role != "system":
        return messages
    system, *rest = messages
    for i, message in enumerate(rest):
        if message.role == "user":
            rest[i] = Message("user", f"{system.content}\n\n{message.content}")
            return tuple(rest)
    return (Message("user", system.content), *rest)
