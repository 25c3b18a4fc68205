"""Changing names: mkdir, rmdir, unlink and rename, on the store first and in the tree when the store has agreed."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from ..errors import FileSystemError, NotFound, S3fsxError
from ..layout import check_name
from ..store.objects import ObjectInfo, Payload
from .attributes import Attributes, to_metadata
from .changes import Changes
from .copies import copied_within, copy_object
from .dirmove import DirectoryMoves
from .listing import Listings
from .protection import is_mark
from .publisher import Publisher
from .tree import Directory, File, Node, Tree
from .upload import Transfers
from .version import Version

log = logging.getLogger("s3fsx.namespace")


@dataclass(frozen=True, slots=True)
class NamePolicy:
    """rename_limit: most objects a renamed directory may hold (EXDEV above). copy_deadline: seconds for all copies of
    one rename. read_only: EROFS for every change."""

    rename_limit: int
    copy_deadline: float
    read_only: bool


class Namespace:
    """Raises FileSystemError for what POSIX refuses and S3fsxError for what the store did."""

    def __init__(
        self, listings: Listings, transfers: Transfers, publisher: Publisher, changes: Changes, policy: NamePolicy
    ) -> None:
        self._listings = listings
        self._tree: Tree = listings.tree
        self._layout = listings.layout
        self._store = transfers.store
        self._transfers = transfers
        self._protection = transfers.protection
        self._publisher = publisher
        self._changes = changes
        self._policy = policy
        self._changing: Counter[int] = Counter()  # changes of names under way, by directory
        self._moves = DirectoryMoves(
            listings,
            transfers,
            changes,
            self._unpublished,
            limit=policy.rename_limit,
            deadline=policy.copy_deadline,
        )

    def require_writable(self) -> None:
        if self._policy.read_only:
            raise FileSystemError(errno.EROFS, "mounted read-only")

    async def _existing(self, parent: Directory, name: str, *, attributes: bool = True) -> Node:
        node = await self._listings.lookup(parent, name, attributes=attributes)
        if node is None:
            raise FileSystemError(errno.ENOENT, f"{self._listings.child_path(parent, name)}: no such file")
        return node

    @asynccontextmanager
    async def _change(self, *names: tuple[Directory, str]) -> AsyncIterator[None]:
        """Around a change of names: not while a directory above is being renamed, and no such rename meanwhile."""
        for directory, _ in names:
            await self._listings.settled_place(directory)
        for directory, _ in names:
            self._changing[directory.ino] += 1
        try:
            with self._listings.changing(*names):
                yield
        finally:
            for directory, _ in names:
                self._changing[directory.ino] -= 1
            self._changing += Counter()  # drops what is zero

    # -- directories

    async def mkdir(self, parent: Directory, name: str, attrs: Attributes) -> Directory:
        check_name(name)
        path = self._listings.child_path(parent, name)
        if self._layout.is_content(path):
            raise FileSystemError(errno.EEXIST, f"{path}: exists always")
        self.require_writable()
        self._layout.directory(path)  # what cannot be a path is refused as such
        if await self._listings.lookup(parent, name) is not None:
            raise FileSystemError(errno.EEXIST, f"{path}: exists")
        async with self._change((parent, name)):
            key = self._layout.directory(self._listings.child_path(parent, name))  # it may have moved meanwhile
            await self._store.put(key, Payload.of(b""), metadata=to_metadata(attrs, directory=True))
            node = self._tree.add_directory(parent, name, attrs)
            node.marker = True
        return node

    async def rmdir(self, parent: Directory, name: str) -> None:
        self.require_writable()
        node = await self._existing(parent, name)
        if not isinstance(node, Directory):
            raise FileSystemError(errno.ENOTDIR, f"{node.path}: not a directory")
        if self._listings.is_content(node):
            await self._moves.require_empty(node)
            raise FileSystemError(errno.EBUSY, f"{node.path}: content directories always exist")
        async with self._change((parent, name)):
            with self._listings.moving(node):
                await self._moves.require_empty(node)
                await self._store.delete(self._layout.directory(node.path))
                self._tree.detach(node)
        await self._keep_directory(parent)

    async def _keep_directory(self, directory: Directory) -> None:
        """A directory whose last entry we removed still exists: give it a marker unless it has one."""
        if directory.children or directory.marker or self._listings.is_content(directory) or directory.parent is None:
            return
        try:
            await self._store.put(
                self._layout.directory(directory.path),
                Payload.of(b""),
                metadata=to_metadata(directory.attrs, directory=True),
            )
            directory.marker = True
        except S3fsxError as e:
            log.info("%s: empty now, and its marker could not be written: %s", directory.path, e)

    # -- files

    async def unlink(self, parent: Directory, name: str) -> None:
        self.require_writable()
        node = await self._existing(parent, name, attributes=False)
        if not isinstance(node, File):
            raise FileSystemError(errno.EISDIR, f"{node.path}: is a directory")
        async with self._change((parent, name)):
            await self._protection.require_free(*self._published_key(node))
            await self._remove(node)
            if is_mark(name):  # the mark first: what has one is never without its hold, wherever this ends
                await self._protection.lift(self._layout.key(node.path))
        await self._keep_directory(parent)

    def _published_key(self, node: File) -> tuple[str, ...]:
        """The key under which the store (perhaps) has something of the file."""
        if node.version is not None:
            return (node.version.key,)
        return (self._layout.key(node.path),) if node.writer is not None and node.writer.unsure else ()

    async def _remove(self, node: File) -> None:
        """The object, then what is unpublished of it: the other way round an error would lose both. Not journaled: one
        DELETE is done or not done by itself, and nobody was told anything when a crash comes before its answer."""
        writer = node.writer
        known = writer.base if writer is not None else None
        if node.version is not None:
            await self._store.delete(node.version.key, known=node.version.info)
        elif writer is not None and writer.unsure:
            await self._store.delete(self._layout.key(node.path))
        self._tree.detach(node)
        late = await self._drop_content(node)
        if late is not None and late is not known:
            await self._store.delete(late.key, known=late.info)  # it was being published while we deleted the object
        elif writer is not None and writer.unsure:  # perhaps it was: the answer was lost
            with suppress(NotFound):
                there = await self._store.head(self._layout.key(node.path))
                await self._store.delete(there.key, known=there)

    async def _drop_content(self, node: File) -> Version | None:
        """Forget what is unpublished; the version that its writer published last."""
        node.deleted_size = node.size  # with 0 the kernel would answer reads by itself, as if it were empty
        writer, node.writer = node.writer, None
        node.failed = None
        if writer is None:
            return None
        await writer.discard()
        return writer.base

    async def rename(
        self, parent: Directory, name: str, new_parent: Directory, new_name: str, *, no_replace: bool = False
    ) -> None:
        """The commit barrier of a backup: success means that the target is verified in the bucket."""
        self.require_writable()
        check_name(new_name)
        node = await self._existing(parent, name)
        target = await self._listings.lookup(new_parent, new_name)
        if target is node:
            return
        if target is not None and no_replace:
            raise FileSystemError(errno.EEXIST, f"{target.path}: exists")
        async with self._change((parent, name), (new_parent, new_name)):
            path = self._listings.child_path(new_parent, new_name)  # only now: it may have moved meanwhile
            if no_replace:
                await self._require_absent(path)
            if isinstance(node, Directory):
                if isinstance(target, File):
                    raise FileSystemError(errno.ENOTDIR, f"{path}: is a file")
                await self._moves.move(node, target if isinstance(target, Directory) else None, new_parent, new_name)
                if not node.children and not node.marker:
                    await self._keep_directory(node)
            elif isinstance(target, Directory):
                raise FileSystemError(errno.EISDIR, f"{path}: is a directory")
            elif isinstance(node, File):
                key, old_key = self._layout.key(path), self._layout.key(node.path)
                await self._protection.require_free(*self._published_key(node), key)
                if is_mark(new_name):
                    await self._protection.protect(key)
                await self._rename_file(node, target if isinstance(target, File) else None, key, path)
                self._tree.move(node, new_parent, new_name)
                if is_mark(name):
                    await self._protection.lift(old_key)
        await self._keep_directory(parent)

    async def _require_absent(self, path: str) -> None:
        """EEXIST for what another node has made since the directory was listed, too."""
        key = self._layout.key(path)
        page = await self._store.list_page(f"{key}/", limit=1)
        there = bool(page.objects or page.prefixes)
        if not there:
            with suppress(NotFound):
                await self._store.head(key)
                there = True
        if there:
            raise FileSystemError(errno.EEXIST, f"{path}: exists")

    async def _rename_file(self, node: File, target: File | None, key: str, path: str) -> None:
        if node.failed is not None:
            failed, node.failed = node.failed, None
            raise failed
        writer = target.writer if target is not None else None
        if target is None or writer is None:
            await self._put_in_place(node, key, path, replaces=target is not None)
            return
        _require_finished(target)
        async with writer.replaced():
            _require_finished(target)  # while we waited for our turn
            await self._put_in_place(node, key, path, replaces=True)
            target.deleted_size = target.size  # see _drop_content
            if target.writer is writer:
                target.writer = None
            target.failed = None

    async def _put_in_place(self, node: File, key: str, path: str, *, replaces: bool) -> None:
        old = node.version
        writer = node.writer
        if writer is not None and await writer.commit(key, path, replaces=replaces):
            await self._committed(node, old)
        else:
            if writer is not None:
                await self._publisher.publish(node)
            version = node.version
            if version is None:
                raise FileSystemError(errno.ENOENT, f"{node.path}: nothing was ever written")
            source = version.info
            async with self._changes.renaming(path, [(source, key)]) as change:
                with copied_within(self._policy.copy_deadline, path):
                    copy = await self._copy(version, key, path)
                await change.copied([copy])
                version.update(copy)  # before the old key goes: somebody may be reading
                try:
                    await self._delete_copied(node, source)
                except S3fsxError:
                    version.update(source)
                    raise
            self._listings.learned(node, version.info)

    async def _delete_copied(self, node: File, source: ObjectInfo) -> None:
        """The old key of a rename, unless another node has replaced what we copied: a large copy takes minutes."""
        try:
            there = await self._store.head(source.key)
        except NotFound:
            return
        if (there.etag, there.size) == (source.etag, source.size):  # no times: PUT, LIST and HEAD tell different ones
            await self._store.delete(source.key, known=source)
        else:
            log.info("%s: was replaced by others while it was being renamed; left alone", source.key)
            if node.parent is not None:
                node.parent.distrust()

    async def _committed(self, node: File, old: Version | None) -> None:
        """The target is verified in the bucket: what fails after that must not make a failed backup of it."""
        try:
            await self._publisher.adopt(node)
        except S3fsxError as e:
            log.warning("%s: renamed, but its mode and times could not be stored: %s", node.path, e)
        if old is not None:
            try:
                await self._changes.delete(old.info, node.path)
            except S3fsxError as e:
                log.warning("%s: renamed, but what was published before could not be deleted: %s", old.key, e)

    async def _copy(self, version: Version, key: str, path: str) -> ObjectInfo:
        try:
            return await copy_object(self._transfers, version, key, path)
        except NotFound:
            raise FileSystemError(errno.ENOENT, f"{version.key}: was deleted elsewhere") from None

    def _unpublished(self, directory: Directory) -> bool:
        """Something below is being written, or a name below is being changed."""
        return self._changing[directory.ino] > 0 or any(
            self._unpublished(c) if isinstance(c, Directory) else isinstance(c, File) and _dirty(c)
            for c in directory.children.values()
        )


def _require_finished(target: File) -> None:
    if target.writers and _dirty(target):
        raise FileSystemError(errno.EBUSY, f"{target.path}: is being written")


def _dirty(file: File) -> bool:
    """Has unpublished content. (A writer alone says nothing: the kernel sends release some time after close.)"""
    return file.writer is not None and file.writer.dirty
