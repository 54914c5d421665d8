"""A run's limits on cost, calls and time, kept by reserving the most a call may cost before it is sent."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from rlaif.backends import Backend
from rlaif.errors import ConfigError, Pending, ProviderError
from rlaif.prices import PICO, Price, dollars
from rlaif.types import Completion, Request, Usage

# What chat templates and providers put around a message, and before them all; theirs have 3 to 30 tokens.
_TOKENS_A_MESSAGE, _TOKENS_A_REQUEST = 32, 128


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may use at most; cost and calls count over all its invocations, time over one. Raises ConfigError.

    `spent_usd` and `calls` are what another run used of it, its audit.
    """

    max_cost_usd: float | None = None
    max_calls: int | None = None
    max_time_s: float | None = None
    spent_usd: float = 0.0
    calls: int = 0

    def __post_init__(self) -> None:
        if self.max_cost_usd is not None and not 0 <= self.max_cost_usd <= _LARGEST_USD:
            raise ConfigError(f"--max-cost {self.max_cost_usd:g}: give US dollars, like 5.00")
        if self.max_calls is not None and self.max_calls < 1:
            raise ConfigError(f"--max-calls {self.max_calls}: give 1 or more; --dry-run sends none")
        if self.max_time_s is not None and not 0 < self.max_time_s < float("inf"):
            raise ConfigError(f"--max-time {self.max_time_s:g} s: give more than nothing, like 2h, 90m or 600s")

    @classmethod
    def of(cls, max_cost_usd: float | None, max_calls: int | None, max_time: float | str | None) -> Limits:
        """`max_time` in seconds, or as `seconds` reads it."""
        return cls(max_cost_usd, max_calls, seconds(max_time) if isinstance(max_time, str) else max_time)

    def __bool__(self) -> bool:
        return (self.max_cost_usd, self.max_calls, self.max_time_s) != (None, None, None)


def seconds(text: str) -> float:
    """2h, 90m, 1h30m, 600s or 600. Raises ConfigError."""
    found = _TIME.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        raise ConfigError(f"--max-time '{text}' is no time; write it like 2h, 90m, 1h30m or 600s")
    hours, minutes, rest = (float(number or 0) for number in found.groups())
    return 3600 * hours + 60 * minutes + rest


# After a model's name in the ledger, for what was sent at the price of its batch API.
BATCH = " (batch)"
_LARGEST_USD = 1e9
_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


@dataclass(frozen=True, slots=True)
class Reservation:
    """The most that one sent request may cost, in picodollars; given back with `settle` or `release`, once."""

    amount: int
    price: Price | None
    batch: bool


class Budget:
    """What a run may still use. With no limit set it lets everything pass.

    Reservations are one for each request sent, so for every attempt of a call. What is spent and reserved never
    exceeds the limit while a provider counts no more tokens than were reserved. When the next request in line
    does not fit beside those in flight it waits, since most come to less than was reserved for them; when it
    would not fit even alone, or the time is over, the run is at its end: `exhausted` says why, `when_exhausted` is
    called once, and nothing more is granted, not even what is cheaper.

    Args:
        max_cost_usd, max_calls: over all invocations of the run; `spent_usd` and `calls` are those before this one.
        max_time_s: of this invocation.
    """

    def __init__(
        self,
        *,
        max_cost_usd: float | None = None,
        max_calls: int | None = None,
        max_time_s: float | None = None,
        spent_usd: float = 0.0,
        calls: int = 0,
        when_exhausted: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.calls = calls
        self.queued = 0  # in batches, of those in flight
        self.exhausted: str | None = None
        self.when_exhausted = when_exhausted
        self._most = None if max_cost_usd is None else round(max_cost_usd * PICO)
        self._max_calls = max_calls
        self._max_time_s = max_time_s
        self._spent = round(spent_usd * PICO)
        self._reserved = 0
        self._in_flight = 0
        self._clock = clock
        self._begun = clock()
        self._waiting: deque[tuple[Reservation, asyncio.Future[Reservation | None]]] = deque()

    @property
    def spent_usd(self) -> float:
        """As far as prices are known."""
        return self._spent / PICO

    @property
    def under_way(self) -> int:
        """Requests that come back before the pass is over."""
        return self._in_flight - self.queued

    @property
    def reserved_usd(self) -> float:
        return self._reserved / PICO

    def carry(self, spent_usd: float, calls: int) -> None:
        """What earlier invocations of the run came to."""
        self._spent += round(spent_usd * PICO)
        self.calls += calls

    @property
    def max_cost_usd(self) -> float | None:
        return None if self._most is None else self._most / PICO

    def check_prices(self, prices: Mapping[str, Price | None]) -> None:
        """Refuse a limit on cost that cannot be kept; `prices` are by the models' names, fallbacks too."""
        unknown = [name for name, price in prices.items() if price is None]
        if unknown and self._most is not None:
            raise ConfigError(
                f"--max-cost cannot be kept: the price of {', '.join(unknown)} is not known; give it in USD per "
                "million tokens as `price: {input: 0.1, output: 0.4}` in the model's settings, or in a file with "
                "--set prices=FILE"
            )

    async def reserve(
        self, prompt_tokens: int, completion_tokens: int, price: Price | None, *, batch: bool = False
    ) -> Reservation | None:
        """Leave to send a request of at most so many tokens, as soon as there is room; None when the run is to end."""
        asked = self._asked(prompt_tokens, completion_tokens, price, batch)
        if not self._waiting or self.exhausted is not None:  # nobody overtakes: a dear request would wait for ever
            granted = self._granted(asked)
            if granted is not None or self.exhausted is not None:
                return granted
        future: asyncio.Future[Reservation | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and (late := future.result()) is not None:
                self.release(late, sent=False)
            raise

    def stop(self) -> None:
        """Those that wait for room get None: no call begins any more."""
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def reserve_now(
        self, prompt_tokens: int, completion_tokens: int, price: Price | None, *, batch: bool = False
    ) -> Reservation | None:
        """The same without waiting: None also where there is no room beside what is in flight."""
        if self._waiting:
            return None
        return self._granted(self._asked(prompt_tokens, completion_tokens, price, batch))

    def settle(self, reservation: Reservation, usage: Usage | None) -> None:
        """The request was answered. A usage of None or nothing (a server that does not count): all of it is spent.

        None is also for requests whose answer was lost on the way, by a timeout or a cut connection: they may be
        on the bill.
        """
        spent = reservation.amount
        if usage is not None and usage.counted and reservation.price is not None:
            spent = reservation.price.cost(
                usage.prompt_tokens,
                usage.cached_tokens,
                usage.completion_tokens,
                usage.written_tokens,
                batch=reservation.batch,
            )
        self._spent += spent
        self._free(reservation, sent=True)

    def release(self, reservation: Reservation, *, sent: bool) -> None:
        """Nothing is billed: the request was refused, or was not even sent."""
        self._free(reservation, sent=sent)

    async def watch(self) -> None:
        """Ends the run when its time is over; a task beside it, cancelled with it."""
        if self._max_time_s is None:
            return
        await asyncio.sleep(self._max_time_s - (self._clock() - self._begun))
        self._end(self._time_over())

    def _asked(self, prompt_tokens: int, completion_tokens: int, price: Price | None, batch: bool) -> Reservation:
        amount = 0 if price is None else price.cost_at_most(prompt_tokens, completion_tokens, batch=batch)
        return Reservation(amount, price, batch)

    def _granted(self, asked: Reservation) -> Reservation | None:
        """The reservation made; None if there is no room now, or, with `exhausted` set, never will be."""
        if self.exhausted is None and (why := self._never(asked)) is not None:
            self._end(why)
        if self.exhausted is not None or not self._fits(asked):
            return None
        self._reserved += asked.amount
        self._in_flight += 1
        return asked

    def _never(self, asked: Reservation) -> str | None:
        """Why there would be no room even if all that is in flight came to nothing."""
        if self._max_time_s is not None and self._clock() - self._begun >= self._max_time_s:
            return self._time_over()
        if self._max_calls is not None and self.calls >= self._max_calls:
            return f"--max-calls {self._max_calls:,} reached"
        if self._most is not None and self._spent + asked.amount > self._most:
            most, spent, next_one = (dollars(pico / PICO) for pico in (self._most, self._spent, asked.amount))
            return f"--max-cost {most} reached: {spent} USD spent, and the next call may cost {next_one}"
        return None

    def _fits(self, asked: Reservation) -> bool:
        calls = self._max_calls is None or self.calls + self._in_flight < self._max_calls
        return calls and (self._most is None or self._spent + self._reserved + asked.amount <= self._most)

    def _free(self, reservation: Reservation, *, sent: bool) -> None:
        self._reserved -= reservation.amount
        self._in_flight -= 1
        self.calls += sent
        while self._waiting:
            asked, future = self._waiting[0]
            if not future.done():
                granted = self._granted(asked)
                if granted is None:  # no room; or none ever, then nobody waits any more
                    return
                future.set_result(granted)
            self._waiting.popleft()

    def _end(self, why: str) -> None:
        if self.exhausted is not None:
            return
        self.exhausted = why
        self.stop()
        self.when_exhausted()

    def _time_over(self) -> str:
        return f"--max-time reached: {self._max_time_s:g} s"


class Limited:
    """A backend whose every request has a place in the budget before it is sent; Pending where there is none.

    Args:
        price: of the model's tokens.
        waits: for room beside what is in flight. Not where batches hold places: they are free only after the pass.
    """

    def __init__(
        self,
        backend: Backend,
        budget: Budget,
        price: Price | None,
        *,
        waits: bool = True,
    ) -> None:
        self.endpoint = getattr(backend, "endpoint", None)  # optional part of the Backend protocol
        self._backend = backend
        self._budget = budget
        self._price = price
        self._waits = waits
        self._put_off = False

    async def complete(self, request: Request) -> Completion:
        held = await self._place(self._tokens(request))
        try:
            completion = await self._backend.complete(request)
        except Pending:  # it has no turn
            self._budget.release(held, sent=False)
            raise
        except ProviderError as error:
            if may_be_billed(error):
                self._budget.settle(held, None)
            else:
                self._budget.release(held, sent=True)
            raise
        except BaseException:
            self._budget.settle(held, None)
            raise
        self._budget.settle(held, completion.usage)
        return completion

    async def settle(self) -> bool:
        again, self._put_off = self._put_off and self._budget.exhausted is None, False
        if again:
            return True
        settle = getattr(self._backend, "settle", None)  # optional part of the Backend protocol
        return settle is not None and await settle()

    def stop(self) -> None:
        self._budget.stop()
        if (stop := getattr(self._backend, "stop", None)) is not None:  # optional part of the Backend protocol
            stop()

    @property
    def waiting(self) -> str:
        return getattr(self._backend, "waiting", "")

    async def close(self) -> None:
        await self._backend.close()

    def _tokens(self, request: Request) -> tuple[int, int]:
        if self._budget.max_cost_usd is None:
            return 0, 0
        prompt, completion = tokens_at_most(request)
        if completion is None and self._price is not None and self._price.free:
            return prompt, 0
        if completion is None:
            raise ConfigError(
                "--max-cost cannot be kept: a stage asks without max_tokens, so an answer may have any length"
            )
        return prompt, completion

    async def _place(self, tokens: tuple[int, int]) -> Reservation:
        if self._waits:
            held = await self._budget.reserve(*tokens, self._price)
        else:
            held = self._budget.reserve_now(*tokens, self._price)
        if held is None:
            self._put_off = self._put_off or self._budget.under_way > 0  # there is room when they are back
            raise Pending
        return held


class LimitedBatches(Limited):
    """The same for a batch API: what is Pending was handed in all the same, and keeps its place until it is answered.

    Args:
        batches: with `live` for the calls that are not queued, and `stop`.
        live_price: of those.
    """

    def __init__(
        self,
        batches: Batches,
        budget: Budget,
        price: Price | None,
        live_price: Price | None,
    ) -> None:
        super().__init__(batches, budget, price, waits=False)
        self.live = Limited(batches.live, budget, live_price, waits=False)
        self._queued: dict[bytes, Reservation] = {}

    async def complete(self, request: Request) -> Completion:
        key = request.key()
        held = self._queued.pop(key, None)
        if held is None:
            held = await self._place(self._tokens(request))
        else:
            self._budget.queued -= 1
        try:
            completion = await self._backend.complete(request)
        except Pending:
            self._queued[key] = held
            self._budget.queued += 1
            raise
        except ProviderError:  # a line without an answer is not on the bill
            self._budget.release(held, sent=True)
            raise
        self._budget.settle(held, completion.usage)
        return completion


class Batches(Backend, Protocol):
    live: Backend

    def stop(self) -> None: ...


def may_be_billed(error: ProviderError) -> bool:
    """A reply cut off, unreadable or too late. A refusal is not on the bill, save a gateway's that waited in vain."""
    return error.kind in ("timeout", "server") and error.status in (None, 408, 504)


def tokens_at_most(request: Request) -> tuple[int, int | None]:
    """(prompt, completion) tokens that no tokenizer exceeds, without having it; None: an answer has no limit.

    A token stands for at least one byte of UTF-8 in byte-level BPE, and with byte fallback in the others. For
    English that is four times too many, which costs no more than calls that wait at the very end of a budget,
    until those in flight have come to less: a guess that fits better could be exceeded, and is no limit.
    """
    body = request.extra.get("body", {}) if request.extra else {}
    shape = msgspec.json.encode([request.response_format, body]) if request.response_format or body else b""
    texts = sum(len(message.content.encode()) for message in request.messages)
    prompt = texts + len(shape) + _TOKENS_A_MESSAGE * len(request.messages) + _TOKENS_A_REQUEST
    limits = (body.get("max_completion_tokens"), body.get("max_tokens"), request.max_tokens)
    return prompt, next((limit for limit in limits if isinstance(limit, int)), None)
