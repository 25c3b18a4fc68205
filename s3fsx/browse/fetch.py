"""Getting one object out of the bucket, into a file that can be gone on with, or into a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from ..store.objects import ObjectInfo
from ..store.sums import needed
from ..store.verified import VerifiedStore
from ..transfer.threads import in_thread
from .partial import SYNC_EVERY, Partial
from .stream import Streams

T = TypeVar("T")

Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Fetched:
    """resumed: bytes that were there from an earlier time. verified: all of them were compared with a checksum that was
    made when the object was written."""

    size: int
    resumed: int
    verified: bool


class Fetch:
    """progress(bytes so far) is called with each piece."""

    def __init__(self, store: VerifiedStore, streams: Streams, progress: Progress) -> None:
        self._store = store
        self._streams = streams
        self._progress = progress
        self._thread = trio.CapacityLimiter(1)

    async def to_file(self, info: ObjectInfo, target: str, bucket: str, *, replace: bool) -> Fetched:
        """Raises ConfigError, S3fsxError; what has come then stays for the next time."""
        partial = Partial(target, bucket, info)
        try:
            sums = await self._store.sums.get(info.key, info.etag) if needed(info) else None
            start = await self._run(partial.begin, sums)
            before, done, synced = self._store.counters.unverified, start, start
            self._progress(done)

            async def sink(piece: bytes | memoryview) -> None:
                nonlocal done, synced
                await self._run(partial.write, piece)
                done += len(piece)
                self._progress(done)
                if done - synced >= SYNC_EVERY:
                    synced = done
                    await self._run(partial.sync, done)

            try:
                await self._streams.copy(info, sink, start=start)
            except BaseException:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                    await self._run(partial.sync, done)
                raise
            proved = start == 0 or (sums is not None and all(part.grains for part in sums.parts))
            verified = proved and self._store.counters.unverified == before
            await self._run(lambda: partial.finish(info.modified, replace=replace))
            return Fetched(info.size, start, verified)
        finally:
            partial.close()

    async def to_pipe(self, info: ObjectInfo, descriptor: int) -> Fetched:
        """Raises BrokenPipeError when nobody reads any more."""
        before, done = self._store.counters.unverified, 0

        def write(data: bytes | memoryview) -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

        async def sink(piece: bytes | memoryview) -> None:
            nonlocal done
            # Abandoned: a pipe that nobody reads must not hold the command when it is interrupted.
            await in_thread(write, piece, limiter=self._thread, abandon=True)
            done += len(piece)
            self._progress(done)

        await self._streams.copy(info, sink)
        return Fetched(info.size, 0, self._store.counters.unverified == before)

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        done: T = await in_thread(function, *args, limiter=self._thread, abandon=False)
        return done
