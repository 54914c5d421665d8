"""Where a model's calls go out: its addresses and keys side by side, each with limits and a breaker of its own.

A lane that is told to slow down slows down; one that fails is left alone and asked a small question now and
then. Calls wait here as long as it takes, the oldest record's first: waiting in our own queue is no failure.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from rlaif.backends import Backend
from rlaif.errors import EndpointGone, Pending, ProviderError, ProviderErrorKind
from rlaif.types import Request

# Of the last replies (a mean that forgets: each counts for 1/64 of it), so many may be refusals for the rate: the
# calls wait by themselves, and the server is kept full. Above it the calls in flight are cut to 0.8, once for all
# that were sent before; above the second share the lane rests, as long as it was told ...
_MEMORY, _CUT_ABOVE, _REST_ABOVE = 1 / 64, 0.25, 0.5
_CUT, _SHOWN = 0.8, 32  # and not again before so many replies
# ... and each second in which they were all used, they grow by this share, by half a call at least; a tenth as
# fast where the last cut was, give or take this share of it.
_GROWTH_PER_S, _LEAST_GROWTH_PER_S = 0.05, 0.5
_NEAR, _SLOWLY = 0.1, 0.1
# Without a Retry-After: 0.1, 0.2, 0.4 ... s while nothing is answered in between.
_FIRST_REST_S, _LONGEST_REST_S = 0.1, 30.0
_LONGEST_RETRY_AFTER_S = 600.0
_LONG_S = 5.0  # a wait that is the lane's, not the call's
# So many failures in a row open the breaker; it then asks a question that the model can answer, after 1, 2, 4 ... s.
_BREAKS_AFTER = 5
_FIRST_PROBE_S, _LONGEST_PROBE_S = 1.0, 30.0
# Of an address with a key: no other request to it will fare better.
REFUSED_FOR_GOOD: tuple[ProviderErrorKind, ...] = ("auth", "not_found")
_BURST_S = 1.0  # of a rate limit's calls, at once


@dataclass(slots=True)
class Rate:
    """So many units a minute, a second's worth of them at once (the generic cell rate algorithm).

    What is more than that at once passes too, and is waited off afterwards.
    """

    per_minute: float
    due: float = 0.0  # when all that was taken so far is paid off

    def ready_at(self) -> float:
        return self.due - _BURST_S

    def take(self, units: float, now: float) -> None:
        self.due = max(self.due, now) + units * 60.0 / self.per_minute


@dataclass(eq=False)
class Lane:
    """One address with one key: a backend, how much it is given now, and whether it is given anything.

    Args:
        name: the address, with the key's variable where there are several.
        most: calls in flight at most; `limit` is how many it takes now.
        requests, tokens: the provider's own limits a minute, if they are known.
        outage_s: a lane that fails whatever it is asked for so long is given up.
    """

    name: str
    open_backend: Callable[[], Backend]
    most: int = 64
    requests: Rate | None = None
    tokens: Rate | None = None
    outage_s: float = 600.0
    in_flight: int = 0
    sent: int = 0
    refused: int = 0  # 429s
    limit: float = field(init=False)
    resting_until: float = 0.0
    failures: int = 0  # in a row
    broken: ProviderError | None = None  # why it is left alone now
    given_up: bool = False
    _backend: Backend | None = None
    _refusals: float = 0.0  # their share of the last replies
    _rests: int = 0  # in a row, that nobody named
    _cut_at: float = 0.0
    _cut_from: float = 0.0
    _since_cut: list[int] = field(default_factory=lambda: [0, 0])  # answered, refused
    _grown_at: float = 0.0
    _refused_since: float | None = None  # nothing was answered since
    _breaks_after: int = _BREAKS_AFTER

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    @property
    def backend(self) -> Backend:
        """Opened by the first call, so that a finished run starts no server."""
        if self._backend is None:
            self._backend = self.open_backend()
            endpoint = getattr(self._backend, "endpoint", None)  # optional part of the Backend protocol
            if endpoint is not None:
                endpoint.on_rest = self.rest
        return self._backend

    @property
    def live(self) -> Backend:
        """Answers now, where the backend itself only queues."""
        backend: Backend = getattr(self.backend, "live", self.backend)  # optional part of the Backend protocol
        return backend

    @property
    def opened(self) -> Backend | None:
        return self._backend

    def free_at(self, now: float) -> float | None:
        """When it takes a call, as far as time decides; None while all its places are taken or it is broken."""
        if self.broken is not None or self.in_flight + 1 > max(1.0, self.limit):
            return None
        at = max(now, self.resting_until)
        for rate in (self.requests, self.tokens):
            at = at if rate is None else max(at, rate.ready_at())
        return at

    def refused_too_long(self, error: ProviderError, now: float) -> bool:
        """Nothing but refusals for so long, the wait that was asked for apart."""
        for_s = now - (self._refused_since or now)
        return self._refusals >= _REST_ABOVE and for_s > self.outage_s + (error.retry_after_s or 0.0)

    def take(self, tokens: int, now: float) -> None:
        self.in_flight += 1
        self.sent += 1
        if self.requests is not None:
            self.requests.take(1, now)
        if self.tokens is not None:
            self.tokens.take(tokens, now)

    def answered(self, now: float) -> None:
        self._refused_since = None
        self._since_cut[0] += 1
        self._refusals -= self._refusals * _MEMORY
        self.failures = self._rests = 0
        self._breaks_after = _BREAKS_AFTER
        if self.limit < self.most:
            since, self._grown_at = min(1.0, now - self._grown_at), now
            if self.in_flight + 1 >= int(self.limit):  # only what is used may grow
                growth = since * max(_LEAST_GROWTH_PER_S, _GROWTH_PER_S * self.limit)
                near = abs(self.limit - self._cut_from) <= _NEAR * self._cut_from
                self.limit = min(self.most, self.limit + growth * (_SLOWLY if near else 1.0))

    def slowed(self, error: ProviderError, sent_at: float, now: float) -> None:
        """Refused for the rate. Refusals of what was on its way at the last cut tell nothing new."""
        known = now < self.resting_until or sent_at <= self._cut_at
        self.refused += 1
        self._since_cut[1] += 1
        self._refusals += (1.0 - self._refusals) * _MEMORY
        self._refused_since = self._refused_since or now
        if self._refusals >= _REST_ABOVE or (error.retry_after_s or 0.0) > _LONG_S:
            self._rest_as_told(error, known)
        answered, refused = self._since_cut
        shown = answered + refused >= _SHOWN or not self._cut_at  # what the last cut came to
        if known or not shown or self._refusals < _CUT_ABOVE:
            return
        self._cut_from = min(self.limit, self.in_flight + 1)
        if self._cut_at and refused > 2 * answered:  # far too many
            self._cut_from = max(min(self._cut_from, answered), self._cut_from / 4)
        self.limit = max(1.0, _CUT * self._cut_from)
        self._cut_at = self._grown_at = now
        self._since_cut = [0, 0]

    def _rest_as_told(self, error: ProviderError, known: bool) -> None:
        if error.retry_after_s is not None:
            self.rest(error.retry_after_s * random.uniform(1.0, 1.05))
        elif not known:
            self.rest(min(_LONGEST_REST_S, _FIRST_REST_S * 2.0**self._rests) * random.uniform(0.5, 1.0))
            self._rests += 1

    def rest(self, seconds: float) -> None:
        self.resting_until = max(self.resting_until, time.monotonic() + min(seconds, _LONGEST_RETRY_AFTER_S))

    def failed(self, error: ProviderError) -> bool:
        """Counts a failure that may be the endpoint's; True when it is time to leave it alone."""
        self.failures += 1
        if self.broken is not None or self.failures < max(self._breaks_after, self.in_flight):
            return False
        self.broken = error
        return True

    async def probe(self, question: Request | None) -> ProviderError | None:
        """Does it answer a small question? Taken up again if so; else why not.

        The calls that failed are not asked here: they may fail for what is in them. If the lane fails them
        again although it answers the question, it is left alone less readily.
        """
        try:
            if question is not None:
                await self.live.complete(question)
                self._breaks_after *= 2
        except Pending:  # it has no place in the budget now, or no turn
            return self.broken
        except ProviderError as error:
            if error.kind != "rate_limit":  # then it is there
                self.broken = error
                return error
        if not self.given_up:
            self.broken, self.failures = None, 0
        return None


class Lanes:
    """The lanes of one model, and the one queue before them.

    `question` is what a lane must answer before it is trusted again; `say` is told of lanes that are left
    alone and taken up again.
    """

    def __init__(self, lanes: Sequence[Lane], say: Callable[[str], None]) -> None:
        self.all = list(lanes)
        self.question: Request | None = None
        self._say = say
        self._waiting: list[tuple[int, int, int, asyncio.Future[Lane]]] = []  # a heap: rank, turn, tokens
        self._turn = 0
        self._timer: asyncio.TimerHandle | None = None
        self._mending: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    async def take(self, rank: int = 0, tokens: int = 0, avoid: Collection[Lane] = ()) -> Lane:
        """A place on the lane with the most room; the lowest rank is served first.

        Raises Pending once stopped, and EndpointGone when every lane is given up.
        """
        if self.stopped:
            raise Pending
        if not self._waiting and (lane := self._best(time.monotonic(), rank, avoid)) is not None:
            lane.take(tokens, time.monotonic())
            return lane
        if (gone := self.gone) is not None:
            raise gone
        future: asyncio.Future[Lane] = asyncio.get_running_loop().create_future()
        self._turn += 1
        heapq.heappush(self._waiting, (rank, self._turn, tokens, future))
        self.serve()
        return await future

    def leave(self, lane: Lane) -> None:
        """A call came back from `lane`: its place is for the next one."""
        lane.in_flight -= 1
        if self._waiting:
            self.serve()

    def serve(self) -> None:
        """Gives free places to those that wait; sets the clock if only time keeps them waiting."""
        now = time.monotonic()
        while self._waiting:
            rank, _, tokens, future = self._waiting[0]
            lane = None if future.done() else self._best(now, rank, ())
            if not future.done() and lane is None:
                break
            heapq.heappop(self._waiting)
            if lane is not None:
                lane.take(tokens, now)
                future.set_result(lane)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            soonest = min((at for lane in self.all if (at := lane.free_at(now)) is not None), default=None)
            if soonest is not None:
                self._timer = asyncio.get_running_loop().call_later(max(0.0, soonest - now), self.serve)

    @property
    def gone(self) -> EndpointGone | None:
        """Why there is nobody left to ask."""
        errors = [lane.broken for lane in self.all if lane.given_up and lane.broken is not None]
        if len(errors) < len(self.all):
            return None
        last = errors[-1]
        return EndpointGone(last.kind, str(last), status=last.status, parameter=last.parameter)

    def slowed(self, lane: Lane, error: ProviderError, sent_at: float) -> None:
        """A call was refused for the rate."""
        now = time.monotonic()
        lane.slowed(error, sent_at, now)
        if lane.refused_too_long(error, now):
            self._give_up(lane, error)

    def failed(self, lane: Lane, error: ProviderError) -> None:
        """A failure that may be the endpoint's own; a key or a model that is refused will not do tomorrow."""
        if error.kind in REFUSED_FOR_GOOD:
            self._give_up(lane, error)
        elif lane.failed(error):
            self._say(f"{lane.name} is left alone until it answers again ({error})")
            task = asyncio.get_running_loop().create_task(self._mend(lane))
            self._mending.add(task)
            task.add_done_callback(self._mending.discard)

    def stop(self) -> None:
        """Those that wait get Pending, now and from now on."""
        self._stopped.set()
        for lane in self.all:
            if (stop := getattr(lane.opened, "stop", None)) is not None:  # optional part of the Backend protocol
                stop()
        for *_, future in self._waiting:
            if not future.done():
                future.set_exception(Pending())
        self._waiting.clear()

    async def pause(self, seconds: float) -> None:
        """Sleep, but wake when the run is stopped: then raises Pending."""
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return
        raise Pending

    async def close(self) -> None:
        self.stop()
        for task in self._mending:
            task.cancel()
        await asyncio.gather(*self._mending, return_exceptions=True)
        for lane in self.all:
            if lane.opened is not None:
                await lane.opened.close()

    def _best(self, now: float, rank: int, avoid: Collection[Lane]) -> Lane | None:
        """The free lane that is loaded least; of equal ones the record's own, whose prompts it has in its cache."""
        free = [lane for lane in self.all if (at := lane.free_at(now)) is not None and at <= now]
        if len(free) > 1:
            home = rank % len(self.all)
            free.sort(key=lambda lane: (lane in avoid, lane.in_flight / lane.limit, lane is not self.all[home]))
        return free[0] if free else None

    async def _mend(self, lane: Lane) -> None:
        since, wait_s = time.monotonic(), _FIRST_PROBE_S
        try:
            while not lane.given_up:
                await self.pause(min(wait_s, lane.outage_s) * random.uniform(0.8, 1.2))
                wait_s = min(_LONGEST_PROBE_S, 2.0 * wait_s)
                error = await lane.probe(self.question)
                if error is None:
                    self._say(f"{lane.name} answers again")
                    self.serve()
                    return
                if not error.transient or time.monotonic() - since > lane.outage_s:
                    self._give_up(lane, error)
        except Pending:  # stopped
            return
        except Exception as bug:  # whatever it is, no caller may wait for ever
            self._give_up(lane, ProviderError("server", f"{lane.name}: {bug!r}"))

    def _give_up(self, lane: Lane, error: ProviderError) -> None:
        if lane.given_up:
            return
        lane.broken, lane.given_up = error, True
        if (gone := self.gone) is None:
            self._say(f"{lane.name} is given up, the others go on ({error})")
            self.serve()
            return
        for *_, future in self._waiting:
            if not future.done():
                future.set_exception(gone)
        self._waiting.clear()
