"""The one door: every model call is looked up in the journal first and written there before it returns."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeVar

import msgspec
import tenacity

from rlaif.backends import Backend
from rlaif.errors import CallFailed, Pending, ProviderError
from rlaif.journal import Journal, Traits
from rlaif.types import Completion, Failure, Message, Request

# A provider that names no wait: 0.5, 1, 2, ... up to 30 s, each a random share of it.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_LONGEST_RETRY_AFTER_S = 600.0
# So many calls in a row that failed after all attempts are an outage: the run stops and burns no more records.
_OUTAGE = 8
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
    unsent: int = 0  # dry run: would have been sent
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(slots=True)
class LLM:
    """One model behind the door.

    Args:
        name: what users call it. `identity`: what its answers are filed under.
        open_backend: called at the first call that must be sent, so that a finished run starts no server.
        sending: False in a dry run; then every unanswered call is Pending.
        retry_failed: ask again what the journal holds as failed.
    """

    name: str
    identity: str
    journal: Journal
    open_backend: Callable[[], Backend]
    concurrency: int = 64
    attempts: int = 6
    sending: bool = True
    retry_failed: bool = False
    extra: dict[str, object] | None = None  # provider's own body fields and headers, part of every key
    traits: Traits = Traits()
    notices: list[str] = field(default_factory=list)
    _row: int = field(init=False)
    _traits_row: int = field(init=False)
    _answered: bool = False
    _backend: Backend | None = None
    _slots: asyncio.Semaphore = field(init=False)
    _in_flight: dict[bytes, asyncio.Task[Completion]] = field(default_factory=dict)
    _failures_in_a_row: int = 0
    _retried: set[bytes] = field(default_factory=set)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._row = self.journal.model(self.identity, self.name)
        # Other body fields may make another model of it: one that thinks, say.
        form = f"{self.identity}+{blake2b(msgspec.json.encode(self.extra), digest_size=6).hexdigest()}"
        self._traits_row = self.journal.model(form, self.name) if self.extra else self._row
        self._slots = asyncio.Semaphore(self.concurrency)

    async def complete(self, request: Request, tally: Tally) -> Completion:
        """The answer to `request`, from the journal or from the model.

        Raises CallFailed when the model will not answer, now or ever; Pending when it has not yet;
        ProviderError when the endpoint as a whole is of no use. A caller that is cancelled leaves
        the call running: it is paid for, so its answer goes into the journal.
        """
        key = request.key()
        task = self._in_flight.get(key)
        if task is None:
            found = self.journal.find(key)
            if found is not None and not (isinstance(found[0], Failure) and self._ask_again(key)):
                tally.from_journal += found[1]
                return _handed_on(found[0])
            if not self.sending:
                tally.unsent += 1
                raise Pending
            task = asyncio.get_running_loop().create_task(self._answer(key, request, tally))
            self._in_flight[key] = task
            task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return await asyncio.shield(task)

    def stop(self) -> None:
        """Start no new call; those in flight go on into the journal."""
        self._stopped.set()

    async def close(self) -> None:
        """Waits for the calls in flight, then closes the backend."""
        self.stop()
        if self._in_flight:
            await asyncio.gather(*self._in_flight.values(), return_exceptions=True)
        if self._backend is not None:
            await self._backend.close()

    async def settle(self) -> bool:
        """Between passes: let a backend that queues get its answers; True if a new pass can get further."""
        settle = getattr(self._backend, "settle", None)  # optional part of the Backend protocol
        return bool(await settle()) if settle is not None else False

    def known_traits(self) -> Traits | None:
        """What an earlier run learned about this model."""
        return self.journal.traits(self._traits_row)

    def remember(self, traits: Traits) -> None:
        self.journal.set_traits(self._traits_row, traits)

    def _ask_again(self, key: bytes) -> bool:
        return self.retry_failed and key not in self._retried

    async def _answer(self, key: bytes, request: Request, tally: Tally) -> Completion:
        answer: Completion | Failure
        async with self._slots:
            try:
                answer = await self.send(request, tally)
            except ProviderError as error:
                tally.failed += 1
                # A model that refuses whatever it is asked is no better than one that is not there.
                self._failures_in_a_row += error.transient or not (self._answered or self.retry_failed)
                if error.fatal or self._failures_in_a_row >= _OUTAGE:
                    raise
                answer = Failure(error.kind, str(error))
            if self.retry_failed:
                self._retried.add(key)
            self._answered = self._answered or isinstance(answer, Completion)
            return _handed_on(await self.journal.put(key, self._row, answer))

    async def send(self, request: Request, tally: Tally, *, attempts: int | None = None) -> Completion:
        """Ask the backend, again where a failure may pass. Raises the last ProviderError, or Pending."""
        if self._stopped.is_set():
            raise Pending
        attempts = attempts or self.attempts
        if self._backend is None:
            self._backend = self.open_backend()
        try:
            tally.sent += 1
            completion = await self._backend.complete(request)
        except Pending:
            tally.sent -= 1  # queued, not asked
            raise
        except ProviderError as error:
            if not error.transient or attempts == 1:
                raise
            completion = await self._send_again(request, tally, error, attempts)
        self._failures_in_a_row = 0
        usage = completion.usage
        tally.prompt_tokens += usage.prompt_tokens
        tally.completion_tokens += usage.completion_tokens
        tally.cached_tokens += usage.cached_tokens
        return completion

    async def _send_again(self, request: Request, tally: Tally, first: ProviderError, attempts: int) -> Completion:
        assert self._backend is not None
        await self._pause(_wait_s(first, 1))
        async for attempt in tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(attempts - 1),
            wait=lambda state: _wait_s(state.outcome.exception() if state.outcome else None, state.attempt_number + 1),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, ProviderError) and error.transient),
            sleep=self._pause,
            reraise=True,
        ):
            with attempt:
                tally.sent += 1
                tally.retried += 1
                return await self._backend.complete(request)
        raise AssertionError("tenacity either returns or raises")

    async def _pause(self, seconds: float) -> None:
        """Sleep, but wake when the run is stopped."""
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return
        raise Pending


def _wait_s(error: BaseException | None, attempt: int) -> float:
    if isinstance(error, ProviderError) and error.retry_after_s is not None:
        return min(error.retry_after_s, _LONGEST_RETRY_AFTER_S) * random.uniform(1.0, 1.1)
    return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)


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
