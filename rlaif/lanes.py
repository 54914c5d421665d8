"""Where a model's calls go out: its addresses and keys side by side, each with limits and a breaker of its own.

A lane that is told to slow down slows down; one that fails is left alone and asked a small question now and
then. Calls wait here as long as it takes, the oldest record's first: waiting in our own queue is no failure.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from rlaif.backends import Backend
from rlaif.errors import EndpointGone, Pending, ProviderError, ProviderErrorKind
from rlaif.throttle import Rate, Throttle

# So many failures in a row open the breaker; it then asks a question that the model can answer, after 1, 2, 4 ... s.
_BREAKS_AFTER = 5
_FIRST_PROBE_S, _LONGEST_PROBE_S = 1.0, 30.0
# A place that is given back waits a moment: the record whose call it was may send its next one, and the server still
# has its prompt in the cache.
_MOMENT_S = 0.001
# Of an address with a key: no other request to it will fare better.
REFUSED_FOR_GOOD: tuple[ProviderErrorKind, ...] = ("auth", "not_found")


@dataclass(eq=False)
class Lane:
    """One address with one key: a backend, how much it is given now, and whether it is given anything.

    Args:
        name: the address, with the key's variable where there are several.
        most: calls in flight at most; `throttle` knows how many it takes now.
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
    cooling: int = 0  # places of refused calls that stay empty for a moment
    sent: int = 0
    refused: int = 0  # 429s
    throttle: Throttle = field(init=False)
    failures: int = 0  # in a row
    broken: ProviderError | None = None  # why it is left alone now
    given_up: bool = False
    _backend: Backend | None = None
    _breaks_after: int = _BREAKS_AFTER

    def __post_init__(self) -> None:
        self.throttle = Throttle(self.most)

    @property
    def backend(self) -> Backend:
        """Opened by the first call, so that a finished run starts no server."""
        if self._backend is None:
            self._backend = self.open_backend()
            endpoint = getattr(self._backend, "endpoint", None)  # optional part of the Backend protocol
            if endpoint is not None:
                endpoint.on_rest = self.throttle.rest
        return self._backend

    @property
    def live(self) -> Backend:
        """Answers now, where the backend itself only queues."""
        backend: Backend = getattr(self.backend, "live", self.backend)  # optional part of the Backend protocol
        return backend

    @property
    def opened(self) -> Backend | None:
        return self._backend

    @property
    def places(self) -> int:
        """Taken, or not to be given away yet."""
        return self.in_flight + self.cooling

    @property
    def load(self) -> float:
        """How much of what it takes now is under way."""
        return self.places / self.throttle.limit

    def free_at(self, now: float) -> float | None:
        """When it takes a call, as far as time decides; None while all its places are taken or it is broken."""
        if self.broken is not None or self.places + 1 > max(1.0, self.throttle.limit):
            return None
        at = max(now, self.throttle.resting_until)
        for rate in (self.requests, self.tokens):
            at = at if rate is None else max(at, rate.ready_at())
        return at

    def refused_too_long(self, error: ProviderError, now: float) -> bool:
        """Nothing but refusals for so long, the wait that was asked for apart."""
        since = self.throttle.refuses_since()
        return since is not None and now - since > self.outage_s + (error.retry_after_s or 0.0)

    def take(self, tokens: int, now: float) -> None:
        self.in_flight += 1
        self.sent += 1
        if self.requests is not None:
            self.requests.take(1, now)
        if self.tokens is not None:
            self.tokens.take(tokens, now)

    def answered(self, sent_at: float, now: float) -> None:
        self.failures, self._breaks_after = 0, _BREAKS_AFTER
        self.throttle.answered(self.places, sent_at, now)

    def slowed(self, error: ProviderError, sent_at: float, now: float) -> float:
        """Refused for the rate: how long a place is to stay empty, s."""
        self.refused += 1
        return self.throttle.refused(error, self.places, sent_at, now)

    def failed(self, error: ProviderError) -> bool:
        """Counts a failure that may be the endpoint's; True when it is time to leave it alone."""
        self.failures += 1
        if self.broken is not None or self.failures < max(self._breaks_after, self.in_flight):
            return False
        self.broken = error
        return True

    async def probe(self, ask: Callable[[Lane], Awaitable[None]] | None) -> ProviderError | None:
        """Does it answer when somebody asks? Taken up again if so; else why not.

        The calls that failed are not asked here: they may fail for what is in them. If the lane fails them
        again although it answers the question, it is left alone less readily.
        """
        try:
            if ask is not None:
                await ask(self)
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

    `probe` asks a lane that was left alone a small question, which it must answer before it is trusted again;
    `say` is told of lanes that are left alone and taken up again.
    """

    def __init__(self, lanes: Sequence[Lane], say: Callable[[str], None]) -> None:
        self.all = list(lanes)
        self.probe: Callable[[Lane], Awaitable[None]] | None = None
        self._say = say
        self._waiting: list[tuple[int, int, int, asyncio.Future[Lane]]] = []  # a heap: rank, turn, tokens
        self._turn = 0
        self._timer: asyncio.TimerHandle | None = None  # of places that only time keeps
        self._soon: asyncio.TimerHandle | None = None  # of places that are free
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
        if self._waiting and self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_MOMENT_S, self.serve)

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
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = None
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
        # What the user can mend comes first: a key that is refused, before an address that does not answer.
        last = max(reversed(errors), key=lambda error: error.kind in REFUSED_FOR_GOOD)
        return EndpointGone(last.kind, str(last), status=last.status, parameter=last.parameter)

    def slowed(self, lane: Lane, error: ProviderError, sent_at: float) -> None:
        """A call was refused for the rate."""
        now = time.monotonic()
        cooling_s = lane.slowed(error, sent_at, now)
        lane.cooling += 1
        asyncio.get_running_loop().call_later(cooling_s, self._cooled, lane)
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
            free.sort(key=lambda lane: (lane in avoid, lane.load, lane is not self.all[home]))
        return free[0] if free else None

    def _cooled(self, lane: Lane) -> None:
        lane.cooling -= 1
        if self._waiting:
            self.serve()

    async def _mend(self, lane: Lane) -> None:
        since, wait_s = time.monotonic(), _FIRST_PROBE_S
        try:
            while not lane.given_up:
                await self.pause(min(wait_s, lane.outage_s) * random.uniform(0.8, 1.2))
                wait_s = min(_LONGEST_PROBE_S, 2.0 * wait_s)
                error = await lane.probe(self.probe)
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
