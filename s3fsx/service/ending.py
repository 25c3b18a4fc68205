"""The end of a mount: what waits for a rename is published within a limit, and the rest is left to the journal."""

from __future__ import annotations

import logging

import trio

from ..fs.files import Files
from ..fs.tempnames import is_temporary
from ..fs.tree import File, Tree
from ..fs.writer import Writer
from ..store.endpoint import Endpoint
from . import lastwords
from .lastwords import LeftFile

log = logging.getLogger("s3fsx.mount")

# Seconds for the aborts of what was still being written, all together; the next mount does what is left of them.
_ABORTS = 20.0


class Ending:
    """limit: seconds for publishing what waits. state_dir, socket: where the journal is, and the status socket."""

    def __init__(
        self, files: Files, tree: Tree, endpoint: Endpoint, limit: float, *, state_dir: str, socket: str
    ) -> None:
        self._files = files
        self._tree = tree
        self._endpoint = endpoint
        self._limit = limit
        self._state_dir = state_dir
        self._socket = socket
        self._why = "not done in time"
        self._published: list[LeftFile] = []

    async def publish_waiting(self) -> None:
        """What waits for a rename gets its own name, unless the store is gone: the journal keeps it for the next
        mount."""

        async def give_up_when_down() -> None:
            await self._endpoint.wait_down()
            nursery.cancel_scope.cancel()

        waiting = self._waiting()
        with trio.move_on_after(self._limit) as limit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(give_up_when_down)
                await self._files.publish_waiting(-1.0)
                nursery.cancel_scope.cancel()
        # What was renamed meanwhile (after SIGTERM requests are still served) has its own name.
        self._published = [
            LeftFile(file.path, writer.size, kept=True)
            for file, writer in waiting
            if writer.error is None and not writer.dirty and not file.unlinked and is_temporary(file.name)
        ]
        if self._endpoint.down:
            self._why = "S3 is down"
        elif limit.cancelled_caught:
            self._why = f"not published within {self._limit:.0f} s"

    async def abandon(self) -> None:
        """Nobody can write any more: let go of what is unfinished, and tell of all that is not in the bucket."""
        left = self._left()
        for line in lastwords.describe_published(self._published):
            log.info("%s", line)
        for line in lastwords.describe(left, self._why, self._state_dir):
            log.warning("%s", line)
        if left or self._published:
            lastwords.write(self._socket, left, self._why, self._state_dir, published=self._published)
        with trio.move_on_after(_ABORTS):
            await self._files.abandon_unfinished()

    def _waiting(self) -> list[tuple[File, Writer]]:
        return [
            (file, file.writer)
            for file in self._tree.files()
            if file.writer is not None and file.writer.settled_at is not None and not file.unlinked
        ]

    def _left(self) -> list[LeftFile]:
        return [
            LeftFile(file.path, file.writer.size, kept=file.writer.settled_at is not None)
            for file in self._tree.files()
            if file.writer is not None and file.writer.dirty and file.writer.error is None
        ]
