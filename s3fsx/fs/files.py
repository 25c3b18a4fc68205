"""Open files: what a handle may do, which content it sees, and when that content is published.

flush (every close of every duplicate of a descriptor) and fsync publish an ordinary name, and settle a temporary
one (all bytes in the store, nothing visible) until its rename. Any failure comes out of write, flush or rename;
release, which nobody looks at, only tidies up.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import trio

from ..errors import FileSystemError, NotSupported, S3fsxError
from ..layout import check_name
from ..local.blockcache import BlockCache
from ..local.blockformat import Identity
from ..store.objects import COPY_OF, WRITE_ID
from ..store.parts import PartSchedule
from ..transfer.memory import Budget
from .attributes import Attributes, to_metadata
from .content import WriteLimits
from .listing import Listings
from .namespace import Namespace
from .protection import is_mark
from .publisher import Publisher
from .reader import Reader
from .tempnames import is_temporary, predict
from .tree import Directory, File
from .upload import Transfers
from .version import Version
from .writer import Writer

log = logging.getLogger("s3fsx.files")

_JANITOR_EVERY = 10.0


@dataclass(frozen=True, slots=True)
class FilePolicy:
    """write_limits: see Writer. read_ahead: bytes. read_deadline: seconds. pending_limit: seconds a closed temporary
    name waits for its rename before it is published under its own name."""

    write_limits: WriteLimits
    read_ahead: int
    read_deadline: float
    pending_limit: float


class Handle:
    """One open file description. opener: the thread that opened it. direct: it writes past the kernel's pages."""

    __slots__ = ("append", "created_read_only", "direct", "file", "opener", "readable", "reader", "writable")

    def __init__(self, file: File, flags: int) -> None:
        mode = flags & os.O_ACCMODE
        self.file = file
        self.readable = mode in (os.O_RDONLY, os.O_RDWR)
        self.writable = mode in (os.O_WRONLY, os.O_RDWR)
        self.append = bool(flags & os.O_APPEND)
        self.created_read_only = False
        self.opener = 0
        self.direct = False
        self.reader: Reader | None = None


class _Destination:
    """What a writer asks about its file."""

    def __init__(self, file: File, listings: Listings) -> None:
        self._file = file
        self._listings = listings

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def key(self) -> str:
        return self._listings.layout.key(self._file.path)

    @property
    def new(self) -> bool:
        return self._file.created

    def metadata(self) -> dict[str, str]:
        version = self._file.version
        kept = dict(version.metadata or {}) if version is not None else {}
        for ours in (WRITE_ID, COPY_OF):
            kept.pop(ours, None)
        return {**kept, **to_metadata(self._file.attrs)}

    async def predicted_key(self, head: bytes) -> str | None:
        name = predict(self._file.name, head)
        parent = self._file.parent
        if name is None or parent is None or self._file.unlinked:
            return None
        if await self._listings.lookup(parent, name) is not None:
            return None
        return self._listings.layout.key(self._listings.child_path(parent, name))


class Files:
    """Open, read, write and publish. Handles are the caller's to keep."""

    def __init__(
        self,
        listings: Listings,
        namespace: Namespace,
        publisher: Publisher,
        transfers: Transfers,
        budget: Budget,
        schedule: PartSchedule,
        spawn: Callable[..., Any],
        policy: FilePolicy,
        blocks: BlockCache | None,
    ) -> None:
        self._listings = listings
        self._tree = listings.tree
        self._namespace = namespace
        self._publisher = publisher
        self._transfers = transfers
        self._protection = transfers.protection
        self._budget = budget
        self._schedule = schedule
        self._spawn = spawn
        self._policy = policy
        self._blocks = blocks

    # -- opening and closing

    async def open(self, file: File, flags: int) -> Handle:
        """Raises ESTALE when the name stands for another version now: the kernel looks it up again and retries."""
        handle = Handle(file, flags)
        if handle.writable or flags & os.O_TRUNC:
            self._namespace.require_writable()
        if file.unlinked or await self._listings.current(file, opening=True) is not file:
            raise FileSystemError(errno.ESTALE, f"{file.path}: was replaced or deleted elsewhere")
        if handle.writable:
            if file.writer is None and file.version is not None:
                await self._protection.require_free(file.version.key)
                await self._publisher.ask_attributes(file)  # they go with the new content
            writer = await self._writer(file)
            file.writers += 1
            file.handles += 1
            if flags & os.O_TRUNC:
                try:
                    await writer.truncate(0)
                except S3fsxError:
                    await self.release(handle)
                    raise
            file.failed = None
        else:
            file.handles += 1
        return handle

    async def _writer(self, file: File) -> Writer:
        """The writer of a file that is about to be written: ENOMEM at once when memory cannot admit it."""
        writer = file.writer
        if writer is not None and file.writers == 0 and writer.settled_at is not None:
            await self._publisher.publish(file)  # a closed temporary name is opened again: go on from what is published
            writer = file.writer  # None, or that of another who opened it meanwhile
        if writer is None:
            writer = self.new_writer(file)
            file.writer = writer
        return writer

    def new_writer(self, file: File) -> Writer:
        return Writer(
            self._transfers,
            self._budget,
            self._schedule,
            self._policy.write_limits,
            _Destination(file, self._listings),
            file.version,
        )

    async def create(self, parent: Directory, name: str, attrs: Attributes, flags: int) -> tuple[File, Handle]:
        """A new file, or the existing one without O_EXCL."""
        self._namespace.require_writable()
        check_name(name)
        await self._listings.settled_place(parent)
        key = self._listings.layout.key(self._listings.child_path(parent, name))
        if is_mark(name) and await self._listings.lookup(parent, name) is None:
            await self._protection.protect(key)  # here: Proxmox looks at no error of close
        existing = await self._listings.lookup(parent, name)
        if existing is not None:
            if flags & os.O_EXCL or not isinstance(existing, File):
                raise FileSystemError(errno.EEXIST, f"{existing.path}: exists")
            return existing, await self.open(existing, flags)
        file = self._tree.add_file(parent, name, attrs)
        file.created = file.exact = True
        try:
            file.writer = self.new_writer(file)
        except S3fsxError:
            self._tree.detach(file)
            raise
        self._listings.changed(parent, name)
        handle = Handle(file, flags)
        handle.created_read_only = not handle.writable
        file.handles += 1
        file.writers += 1
        return file, handle

    async def release(self, handle: Handle) -> None:
        """The last descriptor is closed; nobody sees an error of what a failed or never flushed file leaves behind."""
        file = handle.file
        if handle.reader is not None:
            handle.reader.close()
            handle.reader = None
        try:
            if handle.writable or handle.created_read_only:
                file.writers -= 1
                if file.writers == 0:
                    await self._last_writer_closed(file)
        finally:
            self._tree.released(file)

    async def _last_writer_closed(self, file: File) -> None:
        writer = file.writer
        if writer is None:
            return
        if writer.error is None and writer.dirty and writer.settled_at is None and not file.unlinked:
            try:
                await self._publisher.publish(file)
            except S3fsxError as e:
                log.warning("%s: could not be published: %s", file.path, e)
            if file.writers or file.writer is not writer:
                return
        if writer.error is not None:
            await self._lost(file, writer, writer.error)
        elif writer.settled_at is not None:
            writer.release_memory()
        else:
            self._publisher.finished(file)

    async def _lost(self, file: File, writer: Writer, error: S3fsxError) -> None:
        """Nothing of it is unpublished any more: the name stands for what was published before, if anything was."""
        file.writer = None
        file.failed = error
        if file.version is None and not file.unlinked:
            parent = file.parent
            self._tree.detach(file)
            if parent is not None:
                self._listings.changed(parent, file.name)
        await self._discard(writer)

    async def _discard(self, writer: Writer) -> None:
        try:
            await writer.discard()
        except S3fsxError as e:
            log.warning("an upload could not be aborted now (%s); the next mount will", e)

    # -- content

    async def read(self, handle: Handle, offset: int, length: int) -> bytes | memoryview:
        file = handle.file
        writer = file.writer
        if writer is not None and writer.in_memory:
            return writer.read(offset, length)
        if writer is not None and writer.dirty:
            # Parts that have left cannot be read back before they are an object.
            if writer.settled_at is not None or not file.writers:
                await self._publisher.publish(file)
            elif handle.writable or file.version is None:
                raise NotSupported(f"{file.path}: is being written; what has left memory cannot be read before close")
            # else: others read what is published until the new content is
        version = file.version
        if version is None:
            if file.unlinked:
                raise FileSystemError(errno.ESTALE, f"{file.path}: was deleted before it was published")
            return b""
        if handle.reader is None or handle.reader.version is not version:
            if handle.reader is not None:
                handle.reader.close()
            handle.reader = self._new_reader(file, version)
        return await handle.reader.read(offset, length)

    def _new_reader(self, file: File, version: Version) -> Reader:
        identity = Identity(version.key, version.etag, version.size)
        return Reader(
            self._transfers.store,
            self._budget,
            version,
            self._spawn,
            ahead=self._policy.read_ahead,
            deadline=self._policy.read_deadline,
            cached=self._blocks.file(file.path, identity) if self._blocks is not None else None,
        )

    def try_append(self, handle: Handle, offset: int, data: bytes) -> bool:
        """A write that has nothing to wait for. False: use ``write``."""
        writer = handle.file.writer
        return writer is not None and handle.writable and writer.try_append(offset, data)

    async def write(self, handle: Handle, offset: int, data: bytes) -> int:
        writer = handle.file.writer
        if writer is None and handle.writable and handle.file.unlinked:
            raise FileSystemError(errno.ESTALE, f"{handle.file.path}: was deleted")
        if writer is None or not handle.writable:
            raise FileSystemError(errno.EBADF, f"{handle.file.path}: not open for writing")
        await writer.write(offset, data)
        return len(data)

    async def flush(self, handle: Handle) -> None:
        """One descriptor of a handle is closed: the last chance to tell a program about its data."""
        file = handle.file
        writer = file.writer
        if writer is None or not (handle.writable or handle.created_read_only) or file.unlinked:
            return
        if is_temporary(file.name) and not handle.created_read_only and await writer.settle():
            return
        await self._publisher.publish(file)

    async def fsync(self, handle: Handle) -> None:
        await self.flush(handle)

    # -- attributes

    async def truncate(self, file: File, size: int) -> None:
        """truncate(2) and ftruncate(2); without an open writer the result is published at once."""
        self._namespace.require_writable()
        if file.writer is not None and file.writers:
            await file.writer.truncate(size)
            return
        if size == file.size:
            return
        handle = await self.open(file, os.O_WRONLY)
        try:
            assert file.writer is not None
            await file.writer.truncate(size)
            await self._publisher.publish(file)
        finally:
            await self.release(handle)

    async def change_attributes(self, file: File, changes: Mapping[str, int]) -> None:
        """chmod, chown, utimens. The others stay what they are in the bucket, which a listing does not tell."""
        await self._publisher.ask_attributes(file)
        await self.set_attributes(file, replace(file.attrs, **changes))

    async def set_attributes(self, file: File, attrs: Attributes) -> None:
        """Goes with the content while that is unpublished, else by a copy onto itself."""
        self._namespace.require_writable()
        if attrs == file.attrs and file.exact:
            return
        published = file.writer is None or not file.writer.dirty
        if published and file.version is not None:
            await self._protection.require_free(file.version.key)  # the copy would be a version without its hold
        file.attrs = attrs
        file.explicit = True
        if file.writer is None or not file.writer.dirty:
            await self._publisher.store_attributes(file)

    async def legal_hold(self, file: File) -> bool | None:
        """Of the published object, asked now; None where there is no such thing."""
        if file.version is None or not self._protection.real:
            return None
        return await self._transfers.store.legal_hold(file.version.key)

    # -- background

    async def janitor(self) -> None:
        """A temporary name whose rename never comes is published under its own name."""
        while True:
            await trio.sleep(_JANITOR_EVERY)
            if not self._transfers.store.down:
                await self.publish_waiting(self._policy.pending_limit)

    async def publish_waiting(self, older_than: float) -> None:
        """Publish the temporary names that have waited for more than ``older_than`` seconds."""
        for file in self._tree.files():
            writer = file.writer
            if writer is None or writer.settled_at is None or file.unlinked:
                continue
            if trio.current_time() - writer.settled_at < older_than:
                continue
            try:
                await self._publisher.publish(file)
                log.info("%s: published under its temporary name, no rename came", file.path)
            except S3fsxError as e:
                if file.writer is not writer:
                    continue  # deleted or replaced while it waited for its turn
                log.warning("%s: could not be published under its temporary name: %s", file.path, e)
                if writer.settled_at is not None and writer.error is None:
                    writer.settled_at = trio.current_time()  # it waits on; nothing is lost
                elif writer.error is not None and not file.writers:
                    await self._lost(file, writer, writer.error)

    async def abandon_unfinished(self) -> None:
        """The mount ends: streams nobody finished never returned success, so nothing of them stays in the bucket."""
        async with trio.open_nursery() as nursery:
            for file in self._tree.files():
                writer = file.writer
                if writer is not None and writer.dirty and writer.settled_at is None:
                    nursery.start_soon(self._discard, writer)
