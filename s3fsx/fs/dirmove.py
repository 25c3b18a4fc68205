"""Renaming a directory: every object in it is copied, then the old ones are deleted.

Other nodes see none of our locks. The law: what is deleted is a copy that we made, or the very version that we copied.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from ..errors import DeadlineExceeded, EndpointDown, FileSystemError, NotFound, S3fsxError
from ..local.intents import is_copy, piece_of
from ..local.journal import JournalError
from ..store.objects import ObjectInfo
from ..transfer.several import each
from .changes import Change, Changes
from .copies import copied_within, copy_object
from .listing import Listings
from .pages import Pages
from .tree import Directory, File
from .upload import Transfers
from .version import Version

log = logging.getLogger("s3fsx.dirmove")

# Seconds for taking the copies back; what is left then goes at the next mount.
_TAKE_BACK = 120.0

Pairs = list[tuple[ObjectInfo, str]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Copies:
    """made: the copies by the old key. begun: old keys of those that were asked for. open: those of them without an
    answer (yet), which may still come to be."""

    made: dict[str, ObjectInfo] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)


class DirectoryMoves:
    """limit: most objects a renamed directory may hold. deadline: seconds for all of its copies. unpublished: whether
    something below a directory is being written, waits or is being changed."""

    def __init__(
        self,
        listings: Listings,
        transfers: Transfers,
        changes: Changes,
        unpublished: Callable[[Directory], bool],
        *,
        limit: int,
        deadline: float,
    ) -> None:
        self._listings = listings
        self._layout = listings.layout
        self._store = transfers.store
        self._transfers = transfers
        self._protection = transfers.protection
        self._changes = changes
        self._unpublished = unpublished
        self._limit = limit
        self._deadline = deadline

    async def require_empty(self, directory: Directory) -> None:
        """ENOTEMPTY must be exact: also for what is not published yet, however deep, and for what only the store
        knows."""
        path = directory.path
        if self._unpublished(directory):
            raise FileSystemError(errno.ENOTEMPTY, f"{path}: has files that are being written")
        if self._layout.content_children(path):
            raise FileSystemError(errno.ENOTEMPTY, f"{path}: has content directories")
        try:
            await self._require_nothing_below(path)
        except FileSystemError:
            directory.distrust()
            raise

    async def _require_nothing_below(self, path: str) -> None:
        prefix = self._layout.directory(path)
        page = await self._store.list_page(prefix, limit=2)
        if page.prefixes or any(info.key != prefix for info in page.objects):
            raise FileSystemError(errno.ENOTEMPTY, f"{path}: not empty")

    async def move(self, node: Directory, target: Directory | None, new_parent: Directory, new_name: str) -> None:
        """Empty or small directories only. After a failure the source is whole, and what was copied is gone or is
        removed by the next mount."""
        path = self._listings.child_path(new_parent, new_name)
        if self._layout.holds_content(node.path) or self._layout.holds_content(path):
            raise FileSystemError(errno.EBUSY, f"{node.path or '/'}: content directories stay where they are")
        ancestor: Directory | None = new_parent
        while ancestor is not None:
            if ancestor is node:
                raise FileSystemError(errno.EINVAL, f"{path}: is inside {node.path}")
            ancestor = ancestor.parent
        with self._listings.moving(node):
            if self._unpublished(node):
                raise FileSystemError(errno.EBUSY, f"{node.path}: something in it is being changed")
            if target is not None:
                await self.require_empty(target)
            else:  # for all we know: another node may have made it since
                await self._require_nothing_below(path)
            await self._move(node, target, new_parent, new_name, path)

    async def _move(
        self, node: Directory, target: Directory | None, new_parent: Directory, new_name: str, path: str
    ) -> None:
        source, destination = self._layout.directory(node.path), self._layout.directory(path)
        objects = await self._all_below(source, self._limit)
        await self._protection.require_movable(info.key for info in objects)
        pairs = [(info, destination + info.key[len(source) :]) for info in objects]
        old_parent = node.parent
        async with self._changes.renaming(path, pairs) as change:
            copies = _Copies()
            copied = copies.made
            try:
                with copied_within(self._deadline, path):
                    await self._copy_all(pairs, copies)
                there = {info.key: info for info in await self._all_below(source, None)} if pairs else {}
                await change.copied([copied[info.key] for info, _ in pairs])
            except S3fsxError:
                kept = destination if target is not None else ""  # the marker of a directory that was there before
                await self._take_back([pair for pair in pairs if pair[1] != kept], copies, change, path)
                raise
            self._follow(node, copied)
            self._listings.tree.move(node, new_parent, new_name)
            node.marker = source in copied

            doomed = {info.key: info for info in objects if info.key in there and _same(info, there[info.key])}
            for info in objects:
                if info.key in there and info.key not in doomed:
                    log.info("%s: was replaced by others while it was being renamed; left alone", info.key)
                    if old_parent is not None:
                        old_parent.distrust()
            for error in (await self._store.delete_many(doomed)).values():
                raise error

    def _follow(self, directory: Directory, copied: dict[str, ObjectInfo]) -> None:
        """Files below a renamed directory have other keys now, for those who have them open too."""
        directory.distrust()
        for child in list(directory.children.values()):
            if isinstance(child, Directory):
                self._follow(child, copied)
            elif isinstance(child, File) and child.version is not None:
                moved = copied.get(child.version.key)
                if moved is None:
                    self._listings.tree.detach(child)
                else:
                    child.version.update(moved)

    async def _all_below(self, prefix: str, limit: int | None) -> list[ObjectInfo]:
        """Every object below a prefix; EXDEV when there are more than the limit (mv then copies by itself)."""
        objects: list[ObjectInfo] = []
        pages = Pages(self._store, prefix, delimiter="")
        while (page := await pages.next()) is not None:
            objects += page.objects
            if limit is not None and len(objects) > limit:
                raise FileSystemError(errno.EXDEV, f"{prefix}: more than rename_limit={limit} objects to copy")
        return objects

    async def _copy_all(self, pairs: Pairs, copies: _Copies) -> None:
        """Raises the first failure."""

        async def copy(pair: tuple[ObjectInfo, str]) -> None:
            info, key = pair
            copies.begun.add(info.key)
            copies.open.add(info.key)
            try:
                path = self._layout.path_of(key) or key
                copies.made[info.key] = await copy_object(self._transfers, Version(info), key, path)
            except (DeadlineExceeded, EndpointDown):
                raise
            except S3fsxError:
                copies.open.discard(info.key)
                raise
            copies.open.discard(info.key)

        await each(pairs, copy)

    async def _take_back(self, pairs: Pairs, copies: _Copies, change: Change, path: str) -> None:
        """Removes what we copied. Raises nothing: what cannot be judged or removed now is left to the next mount."""
        pairs = [pair for pair in pairs if pair[0].key in copies.begun]
        if not pairs:
            return
        left = {key for _, key in pairs}

        async def remove(pair: tuple[ObjectInfo, str]) -> None:
            info, key = pair
            try:
                there = await self._store.head(key)
            except NotFound:
                if info.key not in copies.open:
                    left.discard(key)
                return
            if await self._is_ours(info, copies.made.get(info.key), there):
                await self._store.delete(key, known=there)
            else:
                log.info("%s: is no copy of ours; left alone", key)
            left.discard(key)

        with suppress(JournalError):  # what it would only make sure of is tried all the same
            await change.undo(left)
        try:
            with copied_within(_TAKE_BACK, path):
                await each(pairs, remove)
        except S3fsxError as e:
            log.warning("%s: what was copied before the rename failed is removed by the next mount (%s)", path, e)
        if left:  # no more than these: what others make under the other names is theirs
            with suppress(JournalError):
                await change.undo(left)
        else:
            change.kept = False

    async def _is_ours(self, source: ObjectInfo, copy: ObjectInfo | None, there: ObjectInfo) -> bool:
        """copy: what our copy was when it was made, None where its answer was lost."""
        if copy is not None:
            return (there.etag, there.metadata) == (copy.etag, copy.metadata)
        try:
            return is_copy(piece_of(source, there.key), await self._store.head(source.key), there)
        except NotFound:
            return False


def _same(copied: ObjectInfo, now: ObjectInfo) -> bool:
    """Both from listings: the times are as exact as the store has them."""
    return (copied.etag, copied.size, copied.modified) == (now.etag, now.size, now.modified)
