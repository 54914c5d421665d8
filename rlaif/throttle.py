"""How much an endpoint takes: by its own word (`Rate`), and by what it refuses (`Throttle`)."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from rlaif.errors import ProviderError

# Of the last replies (a mean that forgets: each counts for 1/64 of it) so many may be refusals for the rate: those
# calls wait by themselves, and the server is kept full. Below the first share the calls in flight grow, each second
# in which they were all used by 5 %, by half a call at least. Above the second they are cut to 0.8, and where two of
# three were refused to a quarter; once for all that were sent before, and not again before so many replies.
_MEMORY, _GROW_BELOW, _CUT_ABOVE = 1 / 64, 0.05, 0.25
_GROWTH_PER_S, _LEAST_GROWTH_PER_S = 0.05, 0.5
_CUT, _DEEP_CUT, _SHOWN = 0.8, 0.25, 32
# A refusal comes at once, an answer does not: the place of a refused call stays empty for as long as an answer takes,
# or else a few places too many would give more refusals than all the others give answers.
_FIRST_LATENCY_S, _LONGEST_COOLING_S = 0.1, 5.0
# Where nothing at all is answered, nothing is sent for as long as was asked for.
# Without a Retry-After: 0.1, 0.2, 0.4 ... s while nothing is answered in between.
_FIRST_REST_S, _LONGEST_REST_S = 0.1, 30.0
_LONGEST_RETRY_AFTER_S = 600.0
_LONG_S = 5.0  # such a wait is the endpoint's, not the call's
_NEARLY_ALL = 0.5
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


@dataclass(slots=True)
class Throttle:
    """How many calls in flight an endpoint takes now, found out from its refusals for the rate.

    Args:
        most: never more.
    """

    most: int
    limit: float = field(init=False)
    resting_until: float = 0.0
    _refusals: float = 0.0  # their share of the last replies
    _refused_since: float | None = None  # nothing was answered since
    _rests: int = 0  # in a row, that nobody named
    _cut_at: float = 0.0
    _since_cut: list[int] = field(default_factory=lambda: [0, 0])  # answered, refused
    _grown_at: float = 0.0
    _latency_s: float = _FIRST_LATENCY_S  # of answers; a mean that forgets

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    def answered(self, places: int, sent_at: float, now: float) -> None:
        """`places` are those in use or cooling."""
        self._refused_since = None
        self._since_cut[0] += 1
        self._refusals -= self._refusals * _MEMORY
        self._rests = 0
        self._latency_s += (now - sent_at - self._latency_s) * _MEMORY
        if self.limit < self.most:
            since, self._grown_at = min(1.0, now - self._grown_at), now
            if self._refusals < _GROW_BELOW and places + 1 >= int(self.limit):  # only what is used may grow
                growth = since * max(_LEAST_GROWTH_PER_S, _GROWTH_PER_S * self.limit)
                self.limit = min(self.most, self.limit + growth)

    def refused(self, error: ProviderError, places: int, sent_at: float, now: float) -> float:
        """How long its place stays empty, s. Refusals of what was on its way at the last cut tell nothing new."""
        known = now < self.resting_until or sent_at <= self._cut_at
        self._refusals += (1.0 - self._refusals) * _MEMORY
        self._refused_since = self._refused_since or now
        if not known:
            self._since_cut[1] += 1
        answered, refused = self._since_cut
        shown = answered + refused >= _SHOWN or not self._cut_at  # what the last cut came to
        if (self._cut_at and not answered and shown) or (error.retry_after_s or 0.0) > _LONG_S:
            self._rest_as_told(error, known)
        if not known and shown and self._refusals >= _CUT_ABOVE:
            self.limit = max(1.0, min(self.limit, places) * (_DEEP_CUT if refused > 2 * answered else _CUT))
            self._cut_at = self._grown_at = now
            self._since_cut = [0, 0]
        return min(self._latency_s, _LONGEST_COOLING_S)

    def refuses_since(self) -> float | None:
        """When it began to refuse nearly everything; None if it does not."""
        return self._refused_since if self._refusals >= _NEARLY_ALL else None

    def rest(self, seconds: float) -> None:
        self.resting_until = max(self.resting_until, time.monotonic() + min(seconds, _LONGEST_RETRY_AFTER_S))

    def _rest_as_told(self, error: ProviderError, known: bool) -> None:
        if error.retry_after_s is not None:
            self.rest(error.retry_after_s * random.uniform(1.0, 1.05))
        elif not known:
            self.rest(min(_LONGEST_REST_S, _FIRST_REST_S * 2.0**self._rests) * random.uniform(0.5, 1.0))
            self._rests += 1
