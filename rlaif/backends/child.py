"""A child process behind many askers: started at the first question, again when it died, but not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from rlaif.errors import ConfigError, ProviderError

STARTS = 4  # of one model in memory; what dies more often than that will go on dying


class Child(Protocol):
    @property
    def ended(self) -> bool: ...

    async def close(self) -> None: ...


T = TypeVar("T", bound=Child)


class Restarted(Generic[T]):
    """Gives the living child. `name` and `log` are for the error of one that dies again and again."""

    def __init__(self, start: Callable[[], Awaitable[T]], name: str, log: Path) -> None:
        self.living: T | None = None
        self.starts = 0
        self._start = start
        self._name = name
        self._log = log
        self._starting = asyncio.Lock()
        self._unusable: ProviderError | ConfigError | None = None

    async def running(self) -> T:
        """However many ask at once, one of them starts it. Raises what `start` does."""
        async with self._starting:
            if self._unusable is not None:
                raise self._unusable
            if self.living is not None and not self.living.ended:
                return self.living
            await self._stop()
            if self.starts == STARTS:
                raise ProviderError("not_found", f"{self._name} ended {STARTS} times; its log: {self._log}")
            self.starts += 1
            try:
                self.living = await self._start()
            except (ProviderError, ConfigError) as error:
                self._unusable = error  # the calls that wait for it don't each start it again
                raise
            return self.living

    async def close(self) -> None:
        async with self._starting:
            await self._stop()

    async def _stop(self) -> None:
        if self.living is not None:
            await self.living.close()
            self.living = None
