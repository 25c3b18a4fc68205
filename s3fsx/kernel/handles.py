"""Open files by the number the kernel knows them by, and whether the kernel keeps pages of them.

A program that only writes needs no pages: with direct_io its bytes come to us without a copy into the page cache, and
without the kernel asking for security.capability before each write(2). 128 KiB writes to a null file system: 0.9 ->
0.45 CPU-s/GiB in the daemon, and less in the writer, too. But kernels before 6.6 do not tell the pages of one handle
what was written directly through another, so both kinds are never open together for one file while it is written.
"""

from __future__ import annotations

import errno
import itertools

import pyfuse3

from ..errors import FileSystemError
from ..fs.files import Handle
from ..fs.reader import Reader


class Handles:
    """Of files. ``number`` gives out numbers for what else is opened."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, Handle] = {}

    def __len__(self) -> int:
        return len(self._open)

    def readers(self) -> list[tuple[str, Reader]]:
        """With the path of the file."""
        return [(handle.file.path, handle.reader) for handle in self._open.values() if handle.reader is not None]

    def written(self) -> int:
        """How many files are open for writing."""
        return len({handle.file.ino for handle in self._open.values() if handle.writable})

    def number(self) -> int:
        return next(self._numbers)

    def add(self, handle: Handle, ctx: pyfuse3.RequestContext, *, keep_cache: bool = False) -> pyfuse3.FileInfo:
        """keep_cache: the pages the kernel may have of the file are those of this version."""
        file = handle.file
        handle.opener = ctx.pid
        alone = handle.writable and not handle.readable and file.handles == 1
        direct = alone or file.direct_writers > 0
        handle.direct = direct and handle.writable
        file.direct_writers += handle.direct
        number = self.number()
        self._open[number] = handle
        return pyfuse3.FileInfo(fh=number, direct_io=direct, keep_cache=keep_cache)

    def get(self, number: int) -> Handle:
        handle = self._open.get(number)
        if handle is None:
            raise FileSystemError(errno.EBADF, "no such handle")
        return handle

    def remove(self, number: int) -> Handle:
        handle = self._open.pop(number)
        handle.file.direct_writers -= handle.direct
        return handle
