"""Reading one version of one object: blocks fetched ahead of a sequential reader, each by a range GET with If-Match.

Bytes of two versions are never mixed: the first answer that says the object changed makes this reader stale for good
(ESTALE). Closing cancels what is under way. Read-ahead is given up when writers need the memory, and a needed block
that does not fit into the budget is replaced by a GET of just the bytes that were asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from ..errors import Changed, DeadlineExceeded, NotFound, S3fsxError
from ..local.blockcache import CachedFile
from ..store.objects import Store
from ..store.sums import WHOLE
from ..transfer.memory import Budget, Lease
from ..transfer.window import FIRST, Block, Window
from .version import Version

# A block that takes so many seconds comes over a thin link: more at once only bring each nearer to its deadline.
_SLOW = 5.0


class _Fetch:
    """A block on its way or here: ``done`` is set when ``data`` or ``error`` is. begun: False for one that the read
    which wants it has still to get itself."""

    __slots__ = ("begun", "data", "done", "dropped", "error", "scope")

    def __init__(self) -> None:
        self.begun = False
        self.done = trio.Event()
        self.data = b""
        self.error: S3fsxError | None = None
        self.dropped = False
        self.scope = trio.CancelScope()


class Reader:
    """One open file. ``deadline``: seconds one read may take. ``ahead``: most bytes fetched ahead. ``cached``: what the
    local disk has of this version; closed with the reader.

    Raises Changed (ESTALE) once the object was replaced or deleted elsewhere.
    """

    def __init__(
        self,
        store: Store,
        budget: Budget,
        version: Version,
        spawn: Callable[..., Any],
        *,
        ahead: int,
        deadline: float,
        cached: CachedFile | None = None,
    ) -> None:
        self.version = version
        self.position = 0  # where the latest read ended
        self._cached = cached
        self._store = store
        self._spawn = spawn
        self._deadline = deadline
        # A small object is one block, because its ETag is of all of it.
        self._window = Window(version.size, first=WHOLE if version.size <= WHOLE else FIRST, limit=ahead)
        self._lease = Lease(budget, 0)
        self._fetches: dict[Block, _Fetch] = {}
        self._stale: Changed | None = None
        self._closed = False
        self._reading = 0
        self._took = 0.0  # seconds the latest block was under way
        budget.on_pressure(self._give_up)

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """Up to ``length`` bytes, fewer only at the end of the file."""
        if self._stale is not None:
            raise self._stale
        end = min(offset + length, self.version.size)
        if offset >= end:
            return b""
        self.position = end
        if self._cached is not None:
            self._cached.passes(offset, end)
            if not self._window.holds(offset, end) and (known := await self._cached.read(offset, end)) is not None:
                return known
        plan = self._window.read(offset, length)
        for block in plan.drop:
            self._drop(block)
        own = len(plan.need) == 1 and not plan.ahead  # a task for it would take two more passes through the scheduler
        fetches = [(block, self._fetch(block, needed=True, begin=not own)) for block in plan.need]
        for block in plan.ahead:  # but what was given up for those above
            if self._window.knows(block) and self._fetch(block, needed=False) is None:
                self._window.forget(block)
        try:
            return await self._together(offset, end, fetches)
        finally:
            for block in plan.need:
                if not self._window.knows(block):
                    self._drop(block)  # given up for another block of this read, before it was fetched

    async def _together(self, offset: int, end: int, fetches: list[tuple[Block, _Fetch | None]]) -> bytes | memoryview:
        """What was asked for, of the blocks that cover it."""
        if any(fetch is None for _, fetch in fetches):
            return await self._direct(offset, end - offset)
        self._reading += 1
        try:
            await self._wait([(block, fetch) for block, fetch in fetches if fetch is not None])
        finally:
            self._reading -= 1
        pieces: list[memoryview] = []
        for block, fetch in fetches:
            assert fetch is not None
            if fetch.error is not None:
                self._window.forget(block)
                self._drop(block)
                raise fetch.error
            if len(fetch.data) != block.length:
                return await self._direct(offset, end - offset)  # given up while we waited
            view = memoryview(fetch.data)
            pieces.append(view[max(0, offset - block.start) : end - block.start])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _wait(self, fetches: list[tuple[Block, _Fetch]]) -> None:
        waiting = [(block, fetch) for block, fetch in fetches if not fetch.done.is_set()]
        if not waiting:
            return
        if self._took < _SLOW:
            self._window.starved()
        try:
            with trio.fail_after(self._deadline):
                for block, fetch in waiting:
                    if fetch.begun:
                        await fetch.done.wait()
                    else:
                        await self._get(block, fetch)
        except trio.TooSlowError:
            raise self._late() from None

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self.version.key}: no data for {self._deadline:.0f} s")

    async def _direct(self, offset: int, length: int) -> bytes:
        try:
            with trio.fail_after(self._deadline):
                return await self._range(offset, length)
        except trio.TooSlowError:
            raise self._late() from None

    async def _range(self, start: int, length: int) -> bytes:
        """Again where our own rename or metadata change moved the version meanwhile."""
        while True:
            key, etag = self.version.key, self.version.etag
            try:
                data = await self._store.get_range(key, start, length, etag=etag, size=self.version.size)
                if self._cached is not None:
                    self._cached.put(start, data)
                return data
            except (Changed, NotFound) as e:
                if (key, etag) == (self.version.key, self.version.etag):
                    raise self._became_stale(e) from None

    def _fetch(self, block: Block, *, needed: bool, begin: bool = True) -> _Fetch | None:
        """The fetch of a block, begun now (but for ``begin``) if it was not; None when there is no memory for it."""
        fetch = self._fetches.get(block)
        if fetch is not None:
            return fetch
        if not self._lease.try_take(block.length):
            if not needed:
                return None
            self._lease.press(block.length)
            if not self._lease.try_take(block.length):
                self._window.forget(block)
                return None
        fetch = self._fetches[block] = _Fetch()
        if begin:
            fetch.begun = True
            self._spawn(self._get, block, fetch)
        return fetch

    async def _get(self, block: Block, fetch: _Fetch) -> None:
        fetch.begun = True
        began = trio.current_time()
        try:
            with fetch.scope:
                fetch.data = await self._range(block.start, block.length)
            self._took = trio.current_time() - began
        except S3fsxError as e:
            fetch.error = e
        except BaseException:  # the read that got it by itself is late: others that wait for it ask again
            if self._fetches.get(block) is fetch:
                self._window.forget(block)
                self._drop(block)
            raise
        finally:
            if fetch.dropped:
                self._lease.give(block.length)
            fetch.done.set()

    def _became_stale(self, cause: S3fsxError) -> Changed:
        self._stale = Changed(f"{self.version.key}: replaced or deleted elsewhere while it was read ({cause})")
        return self._stale

    def _drop(self, block: Block) -> None:
        """Forget a block. Its memory counts until the request has really ended."""
        fetch = self._fetches.pop(block, None)
        if fetch is None:
            return
        fetch.dropped = True
        if fetch.done.is_set():
            self._lease.give(block.length)
        else:
            fetch.scope.cancel()

    def _give_up(self, promised: bool) -> None:
        """promised: to a writer; then also the block that the next read would go on in, unless a read is under way."""
        for block in self._window.shrink():
            self._drop(block)
        if promised and not self._reading:
            for block in list(self._fetches):
                self._window.forget(block)
                self._drop(block)

    def close(self) -> None:
        """Cancel what is under way and give the memory back. Harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._lease.budget.off_pressure(self._give_up)
        if self._cached is not None:
            self._cached.close()
        for block in list(self._fetches):
            self._drop(block)
