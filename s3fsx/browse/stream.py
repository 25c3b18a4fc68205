"""The bytes of one object in order, verified, as fast as the wire, through the reader of the mount.

A mount hands an outage to its program after half a minute; a command that has come through 400 GB waits for longer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..errors import DeadlineExceeded, EndpointDown, S3fsxError, Transient
from ..fs.reader import Reader
from ..fs.version import Version
from ..store.objects import ObjectInfo, Store
from ..transfer.memory import Budget

log = logging.getLogger("s3fsx.browse")

Sink = Callable[[bytes | memoryview], Awaitable[object]]

PIECE = 1 << 20  # bytes handed on at once: a slice of what came, without a copy
PATIENCE = 600.0  # seconds without a byte until an outage is given up
_PAUSE = 2.0


class Streams:
    """ahead: most bytes fetched ahead. deadline: seconds for one read. spawn: runs the fetches."""

    def __init__(
        self,
        store: Store,
        budget: Budget,
        spawn: Callable[..., Any],
        *,
        ahead: int,
        deadline: float,
        patience: float = PATIENCE,
    ) -> None:
        self._store = store
        self._budget = budget
        self._spawn = spawn
        self._ahead = ahead
        self._deadline = deadline
        self._patience = patience

    async def copy(self, info: ObjectInfo, sink: Sink, *, start: int = 0) -> None:
        """Awaits ``sink`` with each piece from ``start`` to the end. Raises Changed when the object is replaced
        meanwhile, Corrupted, what else the store raises, and what sink raises."""
        reader = Reader(
            self._store, self._budget, Version(info), self._spawn, ahead=self._ahead, deadline=self._deadline
        )
        try:
            while start < info.size:
                # Up to a whole MiB: what comes in blocks that begin there is a slice of one of them.
                piece = await self._read(reader, start, min(PIECE - start % PIECE, info.size - start))
                start += len(piece)
                await sink(piece)
        finally:
            reader.close()

    async def _read(self, reader: Reader, start: int, length: int) -> bytes | memoryview:
        end: float | None = None
        while True:
            try:
                return await reader.read(start, length)
            except (EndpointDown, DeadlineExceeded, Transient) as e:
                if end is None:
                    log.warning("%s; going on as soon as there is an answer", e)
                    end = trio.current_time() + self._patience
                if trio.current_time() >= end:
                    raise
            await trio.sleep(_PAUSE)


class Enough(S3fsxError):
    """Raised by a sink that needs no more."""
