"""The kernel's requests: decode, call one domain method, encode. The one place where errors become an errno.

pyfuse3 ends its main loop on any exception but FUSEError, so every handler catches everything. What the root and the
content directories are asked (statfs, getattr, lookup, mkdir, opendir) is answered from memory: Proxmox does that
every ten seconds and has no working timeout.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import pyfuse3

from . import replies
from .attributes import KEPT_BITS, Attributes
from .errors import EndpointDown, FileSystemError, S3fsxError
from .files import Files, Handle
from .layout import check_name
from .listing import Listings
from .namespace import Namespace
from .tree import Directory, File, Node, Tree

log = logging.getLogger("s3fsx.fuse")

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

_USAGE_EVERY = 60.0
_QUIET = frozenset({errno.ENOENT, errno.ENODATA, errno.EEXIST, errno.ENOTEMPTY, errno.EBUSY})


@dataclass(frozen=True, slots=True)
class KernelPolicy:
    """attr_ttl: seconds the kernel may keep an attribute or a name. capacity: bytes df shows. xattrs: answer
    getxattr (costs a request per write(2), see docs/DESIGN.md). default_umask: bits cleared from asked modes."""

    attr_ttl: float
    capacity: int
    xattrs: bool


def _operation(handler: F) -> F:
    """Domain errors as errno; anything unexpected as EIO and a line in the log."""

    @functools.wraps(handler)
    async def wrapped(self: Any, *args: Any) -> Any:
        try:
            return await handler(self, *args)
        except pyfuse3.FUSEError:
            raise
        except FileSystemError as e:
            if e.errno not in _QUIET:
                log.info("%s: %s (%s)", handler.__name__, e, errno.errorcode.get(e.errno, e.errno))
            raise pyfuse3.FUSEError(e.errno) from None
        except S3fsxError as e:
            self.report(handler.__name__, e)
            raise pyfuse3.FUSEError(e.errno) from None
        except Exception:
            log.exception("%s failed; this is a bug", handler.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return cast(F, wrapped)


class FileSystem(pyfuse3.Operations):
    """pyfuse3's operations over the domain layer. Handles are numbered; a directory handle is its listing."""

    enable_writeback_cache = False  # errors must come from write and close, with their own errno
    supports_dot_lookup = False

    def __init__(
        self, listings: Listings, namespace: Namespace, files: Files, policy: KernelPolicy, now: Callable[[], float]
    ) -> None:
        super().__init__()
        self._listings = listings
        self._tree: Tree = listings.tree
        self._namespace = namespace
        self._files = files
        self._policy = policy
        self._now = now
        self._next_handle = 1
        self._handles: dict[int, Handle] = {}
        self._directories: dict[int, tuple[Directory, list[Node] | None]] = {}
        self._usage = (0, -_USAGE_EVERY)
        self._last_report: tuple[str, float] = ("", 0.0)
        self.errors = 0

    @property
    def open_files(self) -> int:
        return len(self._handles)

    def report(self, what: str, error: S3fsxError) -> None:
        """One line per error, the same one at most once in ten seconds: an outage must not fill the disk with log."""
        self.errors += 1
        text = f"{what}: {error}"
        if isinstance(error, EndpointDown):  # that it is down was said once, by the endpoint
            log.debug("%s", text)
            return
        now = self._now()
        if text != self._last_report[0] or now - self._last_report[1] > 10:
            self._last_report = (text, now)
            log.warning("%s", text)

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

    def _handle(self, fh: int) -> Handle:
        handle = self._handles.get(fh)
        if handle is None:
            raise FileSystemError(errno.EBADF, "no such handle")
        return handle

    def _add_handle(self, handle: Handle) -> int:
        number = self._next_handle
        self._next_handle += 1
        self._handles[number] = handle
        return number

    def _entry(self, node: Node) -> pyfuse3.EntryAttributes:
        life = self._policy.attr_ttl
        if isinstance(node, File):
            if node.writer is not None or node.parent is None:
                life = 0
            else:
                life = min(life, self._listings.sealed_for(node.parent))
        return replies.entry(node, life)

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

    @_operation
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        parent = self._directory(parent_inode)
        node = await self._listings.lookup(parent, self._name(name))
        if node is not None:
            return self._shown(node)
        life = min(self._policy.attr_ttl, self._listings.sealed_for(parent))
        if life <= 0:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return replies.absence(life)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for ino, count in inode_list:
            self._tree.forget(ino, count)

    @_operation
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node = self._node(inode)
        if isinstance(node, File) and node.handles == 0:
            now = await self._listings.current(node)
            if now is not node:
                raise FileSystemError(errno.ESTALE, f"{node.path}: was replaced or deleted elsewhere")
        return self._entry(node)

    @_operation
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent = self._directory(parent_inode)
        attrs = self._new_attrs(mode, ctx)
        return self._shown(await self._namespace.mkdir(parent, self._name(name), attrs))

    def _new_attrs(self, mode: int, ctx: pyfuse3.RequestContext) -> Attributes:
        return Attributes(mode & KEPT_BITS & ~ctx.umask, ctx.uid, ctx.gid, time.time_ns())

    @_operation
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._namespace.rmdir(self._directory(parent_inode), self._name(name))

    @_operation
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._namespace.unlink(self._directory(parent_inode), self._name(name))

    @_operation
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise FileSystemError(errno.EINVAL, "names cannot be exchanged")
        await self._namespace.rename(
            self._directory(parent_inode_old),
            self._name(name_old),
            self._directory(parent_inode_new),
            self._name(name_new),
            no_replace=bool(flags & pyfuse3.RENAME_NOREPLACE),
        )

    @_operation
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise FileSystemError(errno.EPERM, "an object has one name: no hard links")

    @_operation
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise FileSystemError(errno.EPERM, "no symbolic links in a bucket")

    @_operation
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

    @_operation
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        directory = self._directory(inode)
        number = self._next_handle
        self._next_handle += 1
        self._directories[number] = (directory, None)
        return number

    @_operation
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        directory, nodes = self._directories[fh]
        if nodes is None or start_id == 0:
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

    @_operation
    async def releasedir(self, fh: int) -> None:
        self._directories.pop(fh, None)

    @_operation
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Every change of a name is in the bucket when its call returns."""

    # -- files

    @_operation
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        file = self._file(inode)
        handle = await self._files.open(file, flags)
        etag = file.version.etag if file.version is not None and file.writer is None else ""
        keep = bool(etag) and etag == file.cached_etag
        file.cached_etag = etag
        return pyfuse3.FileInfo(fh=self._add_handle(handle), keep_cache=keep)

    @_operation
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        file, handle = await self._files.create(
            self._directory(parent_inode), self._name(name), self._new_attrs(mode, ctx), flags
        )
        return pyfuse3.FileInfo(fh=self._add_handle(handle), keep_cache=False), self._shown(file)

    @_operation
    async def read(self, fh: int, off: int, size: int) -> Any:  # bytes-like: pyfuse3 takes any buffer
        return await self._files.read(self._handle(fh), off, size)

    @_operation
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self._files.write(self._handle(fh), off, buf)

    @_operation
    async def flush(self, fh: int) -> None:
        await self._files.flush(self._handle(fh))

    @_operation
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._files.fsync(self._handle(fh))

    @_operation
    async def release(self, fh: int) -> None:
        await self._files.release(self._handles.pop(fh))

    @_operation
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
        attrs = node.attrs
        if fields.update_mode:
            attrs = replace(attrs, mode=attr.st_mode & KEPT_BITS)
        if fields.update_uid:
            attrs = replace(attrs, uid=attr.st_uid)
        if fields.update_gid:
            attrs = replace(attrs, gid=attr.st_gid)
        if fields.update_mtime:
            attrs = replace(attrs, mtime_ns=attr.st_mtime_ns)
        if attrs != node.attrs:
            self._namespace.require_writable()
            if isinstance(node, File):
                await self._files.set_attributes(node, attrs)
            else:
                node.attrs = attrs  # of directories: accepted, kept while the mount lasts
        return self._entry(node)

    # -- the mount

    @_operation
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

    @_operation
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if not self._policy.xattrs:
            raise pyfuse3.FUSEError(errno.ENOSYS)
        if not name.startswith(b"user."):  # asked before every write(2): security.capability
            raise pyfuse3.FUSEError(errno.ENODATA)
        value = replies.xattrs(self._node(inode)).get(bytes(name))
        if value is None:
            raise pyfuse3.FUSEError(errno.ENODATA)
        return value.encode()

    @_operation
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        return list(replies.xattrs(self._node(inode))) if self._policy.xattrs else []

    @_operation
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        raise FileSystemError(errno.EOPNOTSUPP, "extended attributes are read-only")

    @_operation
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        raise FileSystemError(errno.EOPNOTSUPP, "extended attributes are read-only")
