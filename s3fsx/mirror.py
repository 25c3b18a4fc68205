"""Keeps the copy of this node's journal in the bucket, for the day this node does not come back.

Best effort and in the background: nothing waits for it and nothing fails with it. An upload is copied once it is older
than a second, so that short ones cost no request; no request is made while nothing changes; an empty journal has no
copy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import trio

from .errors import S3fsxError
from .journal import Journal
from .nodecopy import CopiedUpload, NodeCopy, copied, to_json
from .objects import Payload, Store

log = logging.getLogger("s3fsx.mirror")

SETTLE = 1.0  # seconds
_AGAIN = 60.0  # seconds after a failure
_LAST = 5.0  # seconds that the end of the mount waits for the last copy


class Mirror:
    """prefix: of the mount. host: for people. now: Unix seconds."""

    def __init__(
        self, store: Store, journal: Journal, prefix: str, host: str, now: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._journal = journal
        self._prefix = prefix
        self._host = host
        self._now = now
        self._there: tuple[CopiedUpload, ...] | None = None  # what the copy says; None: not known
        self._failing = False
        self._turn = trio.Lock()

    async def run(self) -> None:
        """Until cancelled. The copy of an earlier mount is brought up to date first."""
        if not await self._earlier():
            self._there = ()
        seen = -1
        while True:
            await self._journal.wait_changed(seen)
            await trio.sleep(SETTLE)
            seen = self._journal.changes
            if not await self._update(SETTLE):
                seen = -1  # some are too young
            if self._failing:
                await trio.sleep(_AGAIN)

    async def finish(self) -> None:
        """The mount ends: what is left in the journal is in the copy, and without anything left there is none."""
        if not self._store.down:
            with trio.move_on_after(_LAST):
                await self._update(0.0)

    async def _earlier(self) -> bool:
        try:
            return await self._journal.copied()
        except S3fsxError:
            return True

    async def _update(self, old: float) -> bool:
        """Copy what is older than ``old`` seconds; whether that is all there is."""
        async with self._turn:
            try:
                records = [record for record in await self._journal.records() if record.upload_id]
                begun = [record for record in records if self._now() - record.created >= old]
                await self._write(tuple(copied(record) for record in begun))
            except S3fsxError as e:
                if not self._failing:
                    log.info("the copy of the journal in the bucket is out of date (%s); tried again", e)
                self._failing = True
                return False
            self._failing = False
            return len(begun) == len(records)

    async def _write(self, uploads: tuple[CopiedUpload, ...]) -> None:
        if uploads == self._there:
            return
        copy = NodeCopy(self._journal.node, self._host, self._now(), self._prefix, uploads)
        self._there = None
        if uploads:
            await self._journal.set_copied(True)
            await self._store.put(copy.key, Payload.of(to_json(copy)), metadata={})
        else:
            await self._store.delete(copy.key)
            await self._journal.set_copied(False)
        self._there = uploads
