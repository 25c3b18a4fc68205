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

from ..errors import Changed, NotFound, S3fsxError
from ..local.journal import Journal
from ..local.nodecopy import CopiedUpload, NodeCopy, copied, directory, from_json, to_json
from ..store.objects import ObjectInfo, Payload, Store
from .gone import still_listed

log = logging.getLogger("s3fsx.mirror")

SETTLE = 1.0  # seconds
_AGAIN = 60.0  # seconds after a failure
_MAX_SIZE = 16 << 20  # bytes of a copy; that of 10 000 uploads has 5 MiB
_LAST = 5.0  # seconds that the end of the mount waits for the last copy


async def read_copies(store: Store, prefix: str) -> tuple[list[NodeCopy], list[str]]:
    """Of every node that mounts this prefix; and, each in one line, what is wrong with those that cannot be read."""
    copies: list[NodeCopy] = []
    unreadable: list[str] = []
    token: str | None = None
    while True:
        page = await store.list_page(directory(prefix), delimiter="", token=token)
        for listed in page.objects:
            try:
                body = await _newest(store, listed)
                copies.append(from_json(listed.key, prefix, body))
            except NotFound as e:
                # Whose copy is missed has uploads that look like nobody's.
                if await still_listed(store, listed.key):  # else its journal is empty by now
                    unreadable.append(f"{listed.key}: {e}, and it is listed")
            except ValueError as e:
                unreadable.append(str(e))
        token = page.next_token
        if token is None:
            return copies, unreadable


async def _newest(store: Store, info: ObjectInfo) -> bytes:
    """A node at work may write its copy anew while it is read."""
    while True:
        if info.size > _MAX_SIZE:
            raise ValueError(f"{info.key}: is no copy of a journal ({info.size} bytes)")
        try:
            return await store.get_range(info.key, 0, info.size, etag=info.etag)
        except Changed:
            info = await store.head(info.key)


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

    async def look_for_lost(self, source: str) -> None:
        """A journal that was just made: if this host has left a copy in the bucket, another one was lost."""
        try:
            copies, _ = await read_copies(self._store, self._prefix)
            for copy in copies:
                if copy.host == self._host and copy.node != self._journal.node:
                    log.warning(
                        "the journal here is new, and the bucket has that of node %s of this host, with %d unfinished "
                        "uploads; unless that is another mount at work: s3fsx recover SOURCE --node %s --apply, with "
                        "the SOURCE of this mount of %s",
                        copy.node, len(copy.uploads), copy.node, source,
                    )  # fmt: skip
        except S3fsxError as e:
            log.info("no journal copies could be looked for (%s)", e)

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
