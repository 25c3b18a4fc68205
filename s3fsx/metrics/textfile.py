"""A file for the textfile collector of Prometheus' node_exporter: there whole or not at all.

The directory belongs to whoever runs the collector. So every step is on a descriptor of it, the new file is one that
nobody else has made, and a rename replaces a link and does not follow it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable
from urllib.parse import quote

import trio

from ..transfer.threads import in_thread

log = logging.getLogger("s3fsx.metrics")

EVERY = 15.0  # seconds
PATIENCE = 10.0  # seconds for a disk
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def name_of(mountpoint: str) -> str:
    """The collector reads names that end in .prom."""
    return f"s3fsx-{quote(mountpoint.strip('/'), safe='')[:200]}.prom"


def write(directory: str, name: str, text: str) -> None:
    """Blocks. Mode 0644: the collector runs as another user. Raises OSError."""
    place = os.open(directory, _DIRECTORY)
    try:
        temporary = f".{name}.{secrets.token_hex(8)}"
        descriptor = os.open(temporary, _NEW, 0o644, dir_fd=place)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(descriptor, 0o644)
            os.rename(temporary, name, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=place)
            raise
    finally:
        os.close(place)


class TextFile:
    """``run`` writes text() into the directory every 15 s; a disk that fails is one WARNING. When it ends the file is
    removed: what is not mounted has no metrics."""

    def __init__(self, directory: str, mountpoint: str, text: Callable[[], str]) -> None:
        self._directory = directory
        self._name = name_of(mountpoint)
        self._text = text
        self._turn = trio.CapacityLimiter(1)
        self._told = ""

    async def run(self) -> None:
        try:
            while True:
                with trio.move_on_after(PATIENCE) as scope:
                    await self._write()
                if scope.cancelled_caught:
                    self._tell(f"no answer from the disk for {PATIENCE:.0f} s")
                await trio.sleep(EVERY)
        finally:
            with trio.move_on_after(PATIENCE) as scope:
                scope.shield = True
                await self._remove()

    async def _write(self) -> None:
        try:
            await in_thread(write, self._directory, self._name, self._text(), limiter=self._turn, abandon=True)
        except OSError as error:
            self._tell(error.strerror or str(error))
        else:
            self._told = ""

    def _tell(self, why: str) -> None:
        if why != self._told:
            log.warning("metrics_textfile %s: %s; tried again every %.0f s", self._directory, why, EVERY)
            self._told = why

    async def _remove(self) -> None:
        path = os.path.join(self._directory, self._name)
        with contextlib.suppress(OSError):
            await in_thread(os.unlink, path, limiter=self._turn, abandon=True)
