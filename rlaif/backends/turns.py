"""One engine in this machine's memory at a time: while one answers, the calls of the others are Pending."""

from __future__ import annotations

from collections.abc import Callable

from rlaif.backends import Backend
from rlaif.errors import Pending
from rlaif.types import Completion, Request


class Turns:
    """Who holds the memory now. The turn passes on between the passes of a run, to an engine that was asked."""

    def __init__(self) -> None:
        self.holder: Engine | None = None
        self.fresh = False  # passed on, and nobody was asked since

    def engine(self, open_backend: Callable[[], Backend]) -> Engine:
        return Engine(self, open_backend)


class Engine:
    """A backend that is loaded for its turn only. The first to be asked has the first turn."""

    def __init__(self, turns: Turns, open_backend: Callable[[], Backend]) -> None:
        self._turns = turns
        self._open = open_backend
        self._backend: Backend | None = None
        self._asked_in_vain = False

    async def complete(self, request: Request) -> Completion:
        self._turns.fresh = False
        self._turns.holder = self._turns.holder or self
        if self._turns.holder is not self:
            self._asked_in_vain = True
            raise Pending
        if self._backend is None:
            self._backend = self._open()
        return await self._backend.complete(request)

    async def settle(self) -> bool:
        """Takes the turn if it was asked in vain; True while there is an engine that a new pass can ask."""
        if self._asked_in_vain and not self._turns.fresh:
            if self._turns.holder is not None:
                await self._turns.holder.close()
            self._turns.holder, self._turns.fresh = self, True
            self._asked_in_vain = False
            return True
        return self._asked_in_vain

    async def close(self) -> None:
        """Frees the memory; the next call of its turn would load it again."""
        if self._backend is not None:
            await self._backend.close()
            self._backend = None
