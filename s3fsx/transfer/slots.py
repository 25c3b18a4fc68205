"""Places for parts on their way to the store, shared by all files of a mount; their number follows what helps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .concurrency import START, Concurrency


class Slots:
    """First come, first served, so that several files advance alike. most: never more places than that."""

    def __init__(self, most: int = START) -> None:
        self._concurrency = Concurrency(most)
        self._limiter = trio.CapacityLimiter(self._concurrency.limit)

    @property
    def limit(self) -> int:
        """Places there are now."""
        return self._concurrency.limit

    @property
    def in_use(self) -> int:
        return self._limiter.borrowed_tokens

    @property
    def waiting(self) -> int:
        """Parts that wait for a place."""
        return self._limiter.statistics().tasks_waiting

    @asynccontextmanager
    async def transfer(self, size: int) -> AsyncIterator[None]:
        """A place for the transfer of ``size`` bytes. What fails or is given up tells nothing of the store's speed."""
        place = object()
        await self._limiter.acquire_on_behalf_of(place)
        began = trio.current_time()
        try:
            yield
            now, waiting = trio.current_time(), self._limiter.statistics().tasks_waiting
            self._concurrency.ended(now, size, now - began, wanted=waiting > 0)
            self._limiter.total_tokens = self._concurrency.limit
        finally:
            self._limiter.release_on_behalf_of(place)
