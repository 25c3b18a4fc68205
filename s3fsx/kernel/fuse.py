"""The kernel's requests: decode, call one domain method, encode. What the root and the
content directories are asked (statfs, getattr, lookup, mkdir, opendir) is answered from memory: Proxmox does that
every ten seconds and has no working timeout.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyfuse3

from ..errors import FileSystemError
from ..fs.attributes import KEPT_BITS, Attributes
from ..fs.files import Files
from ..fs.listing import Listings
from ..fs.namespace import Namespace
from ..fs.tree import Directory, File, Node, Tree
from ..layout import check_name
from . import replies, xattrs
from .callers import Callers
from .handles import Handles
from .operation import Requests, operation

log = logging.getLogger("s3fsx.fuse")

_USAGE_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class KernelPolicy:
    """attr_ttl: seconds the kernel may keep an attribute or a name. capacity: bytes df shows. xattrs: answer
    getxattr (costs a request per write(2), see docs/DESIGN.md). requests: most that may wait for the store at once;
    above it new ones are refused, so that those answered from memory always find a task."""

    attr_ttl: float
    capacity: int
    xattrs: bool
    requests: int


class FileSystem(pyfuse3.Operations):
    """pyfuse3's operations over the domain layer. Handles are numbered; a directory handle is its listing."""

    enable_writeback_cache = False  # errors must come from write and close, with their own errno
    supports_dot_lookup = False

    def __init__(
        self,
        listings: Listings,
        namespace: Namespace,
        files: Files,
        callers: Callers,
        policy: KernelPolicy,
        now: Callable[[], float],
    ) -> None:
        super().__init__()
        self._listings = listings
        self._tree: Tree = listings.tree
        self._namespace = namespace
        self._files = files
        self._callers = callers
        self._policy = policy
        self._now = now
        self._handles = Handles()
        self._directories: dict[int, tuple[Directory, list[Node] | None]] = {}
        self._usage = (0, -_USAGE_EVERY)
        self.requests = Requests(now)

    @property
    def handles(self) -> Handles:
        return self._handles

    def _admit(self) -> None:
        """Before anything that may ask the store, except what a program needs to finish writing."""
        if self.requests.under_way > self._policy.requests:
            raise FileSystemError(errno.EIO, f"more than {self._policy.requests} requests wait for S3")

    # -- decoding and encoding

    def _node(self, ino: int) -> Node:
        node = self._tree.get(ino)
        if node is None:
            raise FileSystemError(errno.ESTALE, f"inode {ino} is gone")
        return node

    def _directory(self, ino: int) -> Directory:
        node = self._node(ino)
        if not isinstance(node, Directory):
            raise FileSystemError(errno.ENOTDIR, f"{node.path}: not a directory")
        if not node.reachable:
            raise FileSystemError(errno.ENOENT, f"{node.path}: was removed")
        return node

    def _file(self, ino: int) -> File:
        node = self._node(ino)
        if not isinstance(node, File):
            raise FileSystemError(errno.EISDIR, f"{node.path}: is a directory")
        return node

    def _entry(self, node: Node) -> pyfuse3.EntryAttributes:
        life = self._policy.attr_ttl
        if isinstance(node, File):
            if node.writer is not None or node.parent is None:
                life = 0
            else:
                life = min(life, self._listings.good_for(node.parent, node.name))
        return replies.entry(node, life, 0 if self._listings.guessed(node) else life)

    def _shown(self, node: Node) -> pyfuse3.EntryAttributes:
        """An answer that the kernel will have to forget again."""
        entry = self._entry(node)
        self._tree.looked_up(node)
        return entry

    @staticmethod
    def _name(name: bytes) -> str:
        text = os.fsdecode(name)
        check_name(text)
        return text

    # -- names

    @operation
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        parent = self._directory(parent_inode)
        text = self._name(name)
        if not self._listings.layout.is_content(self._listings.child_path(parent, text)):
            self._admit()
        node = await self._listings.lookup(parent, text)
        if node is not None:
            return self._shown(node)
        life = min(self._policy.attr_ttl, self._listings.good_for(parent, text))
        if life <= 0:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return replies.absence(life)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for ino, count in inode_list:
            self._tree.forget(ino, count)

    @operation
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node = self._node(inode)
        if isinstance(node, File) and node.handles == 0:
            self._admit()
            now = await self._listings.current(node)
            if now is not node:
                raise FileSystemError(errno.ESTALE, f"{node.path}: was replaced or deleted elsewhere")
        return self._entry(node)

    @operation
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent = self._directory(parent_inode)
        attrs = self._new_attrs(mode, ctx)
        return self._shown(await self._namespace.mkdir(parent, self._name(name), attrs))

    def _new_attrs(self, mode: int, ctx: pyfuse3.RequestContext) -> Attributes:
        return Attributes(mode & KEPT_BITS & ~ctx.umask, ctx.uid, ctx.gid, time.time_ns())

    @operation
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._admit()
        await self._namespace.rmdir(self._directory(parent_inode), self._name(name))

    @operation
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._admit()
        await self._namespace.unlink(self._directory(parent_inode), self._name(name))

    @operation
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        self._admit()
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise FileSystemError(errno.EINVAL, "names cannot be exchanged")
        await self._namespace.rename(
            self._directory(parent_inode_old),
            self._name(name_old),
            self._directory(parent_inode_new),
            self._name(name_new),
            no_replace=bool(flags & pyfuse3.RENAME_NOREPLACE),
        )

    @operation
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise FileSystemError(errno.EPERM, "an object has one name: no hard links")

    @operation
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise FileSystemError(errno.EPERM, "no symbolic links in a bucket")

    @operation
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if not stat.S_ISREG(mode):
            raise FileSystemError(errno.EPERM, "no device nodes, sockets or pipes in a bucket")
        file, handle = await self._files.create(
            self._directory(parent_inode), self._name(name), self._new_attrs(mode, ctx), os.O_RDONLY | os.O_EXCL
        )
        try:
            await self._files.flush(handle)
        finally:
            await self._files.release(handle)
        return self._shown(file)

    # -- directories

    @operation
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        directory = self._directory(inode)
        directory.handles += 1
        number = self._handles.number()
        self._directories[number] = (directory, None)
        return number

    @operation
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        directory, nodes = self._directories[fh]
        if nodes is None or start_id == 0:
            self._admit()
            nodes = await self._listings.children(directory)
            self._directories[fh] = (directory, nodes)
        for index in range(start_id, len(nodes)):
            node = nodes[index]
            if directory.children.get(node.name) is not node:
                continue
            name = os.fsencode(node.name)
            if not pyfuse3.readdir_reply(token, name, self._entry(node), index + 1):
                return
            self._tree.looked_up(node)

    @operation
    async def releasedir(self, fh: int) -> None:
        directory, _ = self._directories.pop(fh)
        self._tree.released(directory)

    @operation
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Every change of a name is in the bucket when its call returns."""

    # -- files

    @operation
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        self._admit()
        file = self._file(inode)
        handle = await self._files.open(file, flags)
        etag = file.version.etag if file.version is not None and file.writer is None else ""
        keep = bool(etag) and etag == file.cached_etag
        file.cached_etag = etag
        return self._handles.add(handle, ctx, keep_cache=keep)

    @operation
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        self._admit()
        file, handle = await self._files.create(
            self._directory(parent_inode), self._name(name), self._new_attrs(mode, ctx), flags
        )
        return self._handles.add(handle, ctx), self._shown(file)

    @operation
    async def read(self, fh: int, off: int, size: int) -> Any:  # bytes-like: pyfuse3 takes any buffer
        self._admit()
        return await self._files.read(self._handles.get(fh), off, size)

    @operation
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        handle = self._handles.get(fh)
        if self._files.try_append(handle, off, buf):
            return len(buf)
        with self._callers.waits(handle.file.path, handle.opener):
            return await self._files.write(handle, off, buf)

    @operation
    async def flush(self, fh: int) -> None:
        handle = self._handles.get(fh)
        if handle.writable or handle.created_read_only:
            with self._callers.waits(handle.file.path, handle.opener):
                await self._files.flush(handle)

    @operation
    async def fsync(self, fh: int, datasync: bool) -> None:
        handle = self._handles.get(fh)
        with self._callers.waits(handle.file.path, handle.opener):
            await self._files.fsync(handle)

    @operation
    async def release(self, fh: int) -> None:
        await self._files.release(self._handles.remove(fh))

    @operation
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        node = self._node(inode)
        if fields.update_size:
            await self._files.truncate(self._file(inode), attr.st_size)
        if changes := _changes(attr, fields):
            self._namespace.require_writable()
            if isinstance(node, File):
                await self._files.change_attributes(node, changes)
            else:
                node.attrs = replace(node.attrs, **changes)  # of directories: accepted, kept while the mount lasts
        return self._entry(node)

    # -- the mount

    @operation
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """f_blocks = 0 is what Proxmox reads as "storage inactive": the truth while the endpoint is down."""
        return replies.statvfs(0 if self._listings.store.down else self._policy.capacity, self._used())

    def _used(self) -> int:
        """Bytes in the directories listed so far; S3 has no cheaper answer than a full listing."""
        used, when = self._usage
        now = self._now()
        if now - when >= _USAGE_EVERY:
            used = sum(file.size for file in self._tree.files())
            self._usage = (used, now)
        return used

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if not self._policy.xattrs:
            raise pyfuse3.FUSEError(errno.ENOSYS)
        if not xattrs.are_had(name):
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
        return await self._getxattr(inode, name)

    @operation
    async def _getxattr(self, inode: int, name: bytes) -> bytes:
        self._admit()
        value = await xattrs.get(self._files, self._node(inode), name)
        if value is None:
            raise pyfuse3.FUSEError(errno.ENODATA)
        return value.encode()

    @operation
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        if not self._policy.xattrs:
            return []
        return xattrs.names(self._node(inode), object_lock=self._listings.store.capabilities.object_lock)

    @operation
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        raise FileSystemError(errno.EOPNOTSUPP, "extended attributes are read-only")

    @operation
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        raise FileSystemError(errno.EOPNOTSUPP, "extended attributes are read-only")


def _changes(attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> dict[str, int]:
    """Of ``Attributes``, what is to be set."""
    changes: dict[str, int] = {}
    if fields.update_mode:
        changes["mode"] = attr.st_mode & KEPT_BITS
    if fields.update_uid:
        changes["uid"] = attr.st_uid
    if fields.update_gid:
        changes["gid"] = attr.st_gid
    if fields.update_mtime:
        changes["mtime_ns"] = attr.st_mtime_ns
    return changes
