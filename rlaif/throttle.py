"""How much an endpoint takes: by its own word (`Rate`), and by what it refuses (`Throttle`)."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from rlaif.errors import ProviderError

# Of the last replies (a mean that forgets: each counts for 1/64 of it), so many may be refusals for the rate: the
# calls wait by themselves, and the server is kept full. Above it the calls in flight are cut to 0.8, once for all
# that were sent before; above the second share nothing is sent for as long as was asked for ...
_MEMORY, _CUT_ABOVE, _REST_ABOVE = 1 / 64, 0.25, 0.5
_CUT, _SHOWN = 0.8, 32  # and not again before so many replies
# ... and each second in which they were all used, they grow by this share, by half a call at least; a tenth as
# fast where the last cut was, give or take this share of it.
_GROWTH_PER_S, _LEAST_GROWTH_PER_S = 0.05, 0.5
_NEAR, _SLOWLY = 0.1, 0.1
# Without a Retry-After: 0.1, 0.2, 0.4 ... s while nothing is answered in between.
_FIRST_REST_S, _LONGEST_REST_S = 0.1, 30.0
_LONGEST_RETRY_AFTER_S = 600.0
_LONG_S = 5.0  # a wait that is the endpoint's, not the call's
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
    _cut_from: float = 0.0
    _since_cut: list[int] = field(default_factory=lambda: [0, 0])  # answered, refused
    _grown_at: float = 0.0

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    def answered(self, in_flight: int, now: float) -> None:
        self._refused_since = None
        self._since_cut[0] += 1
        self._refusals -= self._refusals * _MEMORY
        self._rests = 0
        if self.limit < self.most:
            since, self._grown_at = min(1.0, now - self._grown_at), now
            if in_flight + 1 >= int(self.limit):  # only what is used may grow
                growth = since * max(_LEAST_GROWTH_PER_S, _GROWTH_PER_S * self.limit)
                near = abs(self.limit - self._cut_from) <= _NEAR * self._cut_from
                self.limit = min(self.most, self.limit + growth * (_SLOWLY if near else 1.0))

    def refused(self, error: ProviderError, in_flight: int, sent_at: float, now: float) -> None:
        """Refusals of what was on its way at the last cut tell nothing new."""
        known = now < self.resting_until or sent_at <= self._cut_at
        self._since_cut[1] += 1
        self._refusals += (1.0 - self._refusals) * _MEMORY
        self._refused_since = self._refused_since or now
        if self._refusals >= _REST_ABOVE or (error.retry_after_s or 0.0) > _LONG_S:
            self._rest_as_told(error, known)
        answered, refused = self._since_cut
        shown = answered + refused >= _SHOWN or not self._cut_at  # what the last cut came to
        if known or not shown or self._refusals < _CUT_ABOVE:
            return
        self._cut_from = min(self.limit, in_flight + 1)
        if self._cut_at and refused > 2 * answered:  # far too many
            self._cut_from = max(min(self._cut_from, answered), self._cut_from / 4)
        self.limit = max(1.0, _CUT * self._cut_from)
        self._cut_at = self._grown_at = now
        self._since_cut = [0, 0]

    def refuses_since(self) -> float | None:
        """When it began to refuse nearly everything; None if it does not."""
        return self._refused_since if self._refusals >= _REST_ABOVE else None

    def rest(self, seconds: float) -> None:
        self.resting_until = max(self.resting_until, time.monotonic() + min(seconds, _LONGEST_RETRY_AFTER_S))

    def _rest_as_told(self, error: ProviderError, known: bool) -> None:
        if error.retry_after_s is not None:
            self.rest(error.retry_after_s * random.uniform(1.0, 1.05))
        elif not known:
            self.rest(min(_LONGEST_REST_S, _FIRST_REST_S * 2.0**self._rests) * random.uniform(0.5, 1.0))
            self._rests += 1
