"""A FUSE file system that keeps nothing: ``python -m contrib.bench.nullfs MOUNTPOINT PATH SIZE``.

What pyfuse3 and the kernel allow: whatever is written is thrown away, PATH (relative) has SIZE zeros, other files what
was written last. In the foreground, until it is unmounted or terminated. With the kernel's settings that s3fsx uses.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pyfuse3
import trio

from s3fsx.kernel import tuning

LARGEST = 1 << 20
TTL = 60.0


@dataclass
class Node:
    """size: None for a directory."""

    inode: int
    size: int | None
    children: dict[bytes, Node] = field(default_factory=dict)


class NullFs(pyfuse3.Operations):
    """No forgetting and no deleting: it lives for one job."""

    enable_writeback_cache = False

    def __init__(self, path: Path, size: int) -> None:
        super().__init__()
        self._nodes: list[Node] = []
        node = self._add(None, b"", None)
        for name in path.parts[:-1]:
            node = self._add(node, os.fsencode(name), None)
        self._add(node, os.fsencode(path.name), size)
        self._zeros = bytes(LARGEST)

    def _add(self, parent: Node | None, name: bytes, size: int | None) -> Node:
        node = Node(pyfuse3.ROOT_INODE + len(self._nodes), size)
        self._nodes.append(node)
        if parent:
            parent.children[name] = node
        return node

    def _node(self, inode: int) -> Node:
        return self._nodes[inode - pyfuse3.ROOT_INODE]

    def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(node.inode)
        entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o755 if node.size is None else stat.S_IFREG | 0o644)
        entry.st_nlink = 1
        entry.st_size = node.size or 0
        entry.attr_timeout = entry.entry_timeout = TTL
        return entry

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._attributes(self._node(inode))

    async def setattr(
        self, inode: int, attr: object, fields: object, fh: int | None, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._attributes(self._node(inode))

    async def lookup(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        found = self._node(parent).children.get(name)
        if found is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(found)

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._attributes(self._add(self._node(parent), name, None))

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        node = self._add(self._node(parent), name, 0)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(node.inode)), self._attributes(node)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode))

    async def read(self, fh: int, off: int, size: int) -> bytes:
        left = max(0, (self._node(fh).size or 0) - off)
        return self._zeros if size == LARGEST <= left else self._zeros[: min(size, left)]

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        node = self._node(fh)
        node.size = max(node.size or 0, off + len(buf))
        return len(buf)


async def serve(mountpoint: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tuning.tune, mountpoint)
        await pyfuse3.main()


def main(mountpoint: str, path: str, size: str) -> None:
    options = {"fsname=null"} | pyfuse3.default_options - {"default_permissions"}
    pyfuse3.init(NullFs(Path(path), int(size)), mountpoint, options)
    try:
        trio.run(serve, mountpoint)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
