"""What is in a directory: listings, their lifetime, and the questions they answer without asking the store.

One ListObjectsV2 pass fills a directory and *seals* it: until the seal ends, hits and misses are answered from memory
(Proxmox looks for ``X.notes`` and ``X.protected`` of every backup). Our own changes update a sealed directory in place.
The content directories of Proxmox exist without asking anybody.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from .attributes import Attributes, Defaults
from .cache import MetadataCache
from .errors import EndpointDown, FileSystemError, NotFound, S3fsxError
from .layout import Layout
from .merge import Merger, Merging
from .objects import ObjectInfo, Store
from .pages import Pages
from .tree import Directory, File, Node, Tree
from .version import Version

log = logging.getLogger("s3fsx.listing")

# A listing that took long to make lives longer than list_ttl: 10 000 backups are 10 requests, and Proxmox looks at
# 30 000 names after them; expiring in the middle would double the cost for nothing.
_LIFE_PER_SECOND_OF_LISTING = 10
# Above this many files in one directory their exact mode and mtime come with open, not with the listing.
_EXACT_UP_TO = 1000
_HEADS_AT_ONCE = 8
# Seconds a change waits for the end of a directory rename (at most rename_limit server-side copies).
_MOVE_LIMIT = 60.0
_EXACT_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class ListingPolicy:
    """list_ttl: seconds a listing is believed. defaults: attributes where nothing better is known."""

    list_ttl: float
    defaults: Defaults


class _Listing:
    """One that is under way; others wait for it and share its outcome."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: S3fsxError | None = None


class Listings:
    """Lookups and listings on a tree. hidden: keys seen that cannot be file names (of the last listings)."""

    def __init__(
        self, tree: Tree, layout: Layout, store: Store, cache: MetadataCache | None, policy: ListingPolicy
    ) -> None:
        self.tree = tree
        self.layout = layout
        self.store = store
        self.policy = policy
        self._cache = cache
        self._merger = Merger(tree, layout, cache, policy.defaults)
        self._under_way: dict[int, _Listing] = {}
        self._moving: dict[int, trio.Event] = {}
        self.hidden: dict[str, int] = {}
        self._add_content(tree.root)

    def _add_content(self, directory: Directory) -> None:
        for name in self.layout.content_children(directory.path):
            child = self.tree.add_directory(directory, name, self.directory_attrs())
            child.permanent = True
            self._add_content(child)

    def directory_attrs(self) -> Attributes:
        return self._merger.directory_attrs

    @staticmethod
    def child_path(directory: Directory, name: str) -> str:
        return f"{directory.path}/{name}" if directory.name else name

    def is_content(self, node: Node) -> bool:
        return isinstance(node, Directory) and self.layout.is_content(node.path)

    def sealed_for(self, directory: Directory) -> float:
        """Seconds the listing of the directory is still good for, at least 0."""
        return max(0.0, directory.sealed_until - trio.current_time())

    # -- directories that are being renamed

    @contextmanager
    def moving(self, directory: Directory) -> Iterator[None]:
        """What is below is being copied away or removed: whoever wants to change something there waits until then."""
        if directory.ino in self._moving:
            raise FileSystemError(errno.EBUSY, f"{directory.path}: is being renamed or removed")
        event = self._moving[directory.ino] = trio.Event()
        try:
            yield
        finally:
            del self._moving[directory.ino]
            event.set()

    async def settled_place(self, node: Node | None) -> None:
        """Until nothing above the node is being renamed; EBUSY when that takes too long, ENOENT when the node is gone
        then."""
        while self._moving:
            event: trio.Event | None = None
            above = node
            while above is not None and event is None:
                event = self._moving.get(above.ino)
                above = above.parent
            if event is None:
                return
            with trio.move_on_after(_MOVE_LIMIT) as scope:
                await event.wait()
            if scope.cancelled_caught:
                raise FileSystemError(errno.EBUSY, "the directory is being renamed")
            if node is not None and not node.reachable:
                raise FileSystemError(errno.ENOENT, f"{node.path}: was removed")

    # -- asking

    async def lookup(self, directory: Directory, name: str) -> Node | None:
        """The node of a name, None when there is none. A known name is answered from memory while the store is down."""
        path = self.child_path(directory, name)
        child = directory.children.get(name)
        if self.layout.is_content(path):
            return child
        if self.layout.is_hidden(path):
            return None
        if isinstance(child, File) and child.writer is not None:
            return child
        if directory.sealed_until <= trio.current_time():
            try:
                if not directory.large:
                    await self.refresh(directory, whole=False)
                if directory.sealed_until <= trio.current_time():
                    await self._probe(directory, name)
            except EndpointDown:
                if child is None:
                    raise
                return child
        child = directory.children.get(name)
        if isinstance(child, File):
            await self.make_exact([child])
            child = directory.children.get(name)
        return child

    async def children(self, directory: Directory) -> list[Node]:
        """Everything in a directory, in name order."""
        if directory.sealed_until <= trio.current_time():
            await self.refresh(directory, whole=True)
        files = [n for n in directory.children.values() if isinstance(n, File)]
        if len(files) <= _EXACT_UP_TO:
            await self.make_exact(files)
        return [node for _, node in sorted(directory.children.items())]

    async def current(self, node: Node) -> Node | None:
        """What the name of a node stands for now: the node itself, another one (replaced elsewhere) or None."""
        if isinstance(node, File) and node.unlinked:
            return node if node.handles else None
        if node.parent is None or (isinstance(node, File) and node.writer is not None):
            return node
        return await self.lookup(node.parent, node.name)

    # -- listing

    async def refresh(self, directory: Directory, *, whole: bool) -> None:
        """List the directory and seal it. Without ``whole`` one page is tried, and a directory with more is only
        marked as large. Callers that come meanwhile share the listing."""
        while (other := self._under_way.get(directory.ino)) is not None:
            await other.done.wait()
            if other.error is not None:
                raise other.error  # each trying by itself would add up their deadlines
            if directory.sealed_until > trio.current_time() or (directory.large and not whole):
                return
        listing = self._under_way[directory.ino] = _Listing()
        try:
            await self._list(directory, whole)
        except S3fsxError as e:
            listing.error = e
            raise
        finally:
            del self._under_way[directory.ino]
            listing.done.set()

    async def _list(self, directory: Directory, whole: bool) -> None:
        started = trio.current_time()
        path = directory.path
        merging = Merging(self._merger, directory, started)
        pages = Pages(self.store, self.layout.directory(path))
        directory.handles += 1  # so that nobody trims what is merged already
        try:
            while (page := await pages.next()) is not None:
                if pages.more and not whole:
                    directory.large = True
                    return
                merging.add(page)
                self._make_room(path)
        finally:
            self.tree.released(directory)
        merging.finish()
        directory.large = pages.count > 1
        directory.marker = merging.marker
        if merging.hidden and self.hidden.get(path) != merging.hidden:
            log.info("%s: %d keys cannot be shown as files", path or "/", merging.hidden)
        self.hidden[path] = merging.hidden
        took = trio.current_time() - started
        directory.sealed_until = trio.current_time() + max(
            self.policy.list_ttl, _LIFE_PER_SECOND_OF_LISTING * took if self.policy.list_ttl else 0
        )

    def _make_room(self, path: str) -> None:
        """Raises ENOMEM when the table of inodes is full of what is in use: the mount must not grow for ever."""
        if not self.tree.trim(trio.current_time()):
            raise FileSystemError(
                errno.ENOMEM,
                f"{path or '/'}: more than {self.tree.limit} names are in use at once; fewer files per directory, or a "
                "pause until the kernel has forgotten others",
            )

    def describe(self, file: File) -> None:
        """Attributes from what is known of the published version."""
        self._merger.describe(file)

    def learned(self, file: File, info: ObjectInfo) -> None:
        """A HEAD (or our own publication) told everything about the published version."""
        if file.version is None or file.version.size != info.size:
            file.version = Version(info)
        else:
            file.version.update(info)
        self.describe(file)
        if self._cache is not None:
            self._cache.put(info)

    def changed(self, directory: Directory, name: str) -> None:
        """We changed this name: a listing that began earlier must not undo it."""
        directory.changed[name] = trio.current_time()

    @contextmanager
    def changing(self, *names: tuple[Directory, str]) -> Iterator[None]:
        """We are changing these names: no listing that begins before the end may touch them. After a failure nobody
        knows what the store did: the directories are listed anew."""
        for directory, name in names:
            directory.changed[name] = math.inf
        try:
            yield
        except FileSystemError:
            raise
        except BaseException:
            for directory, _ in names:
                directory.sealed_until = -1.0
            raise
        finally:
            for directory, name in names:
                self.changed(directory, name)

    # -- single names

    async def _probe(self, directory: Directory, name: str) -> None:
        """Ask for one name of a directory that is too large to list for it."""
        path = self.child_path(directory, name)
        started = trio.current_time()
        info: ObjectInfo | None = None
        is_directory = False
        try:
            info = await self.store.head(self.layout.key(path))
        except NotFound:
            page = await self.store.list_page(self.layout.directory(path), limit=1)
            is_directory = bool(page.objects or page.prefixes)
        if directory.changed.get(name, -1.0) >= started:
            return
        self._make_room(path)
        child = directory.children.get(name)
        if info is not None:
            self._merger.file(directory, name, info)
        elif is_directory:
            self._merger.directory(directory, name)
        elif child is not None and not self._merger.only_here(child):
            self.tree.detach(child)

    def _needs_head(self, file: File) -> bool:
        """Mode and mtime of a backup are nobody's concern (Proxmox takes the time from the name), and there are
        thousands of them; a snippet must know whether it is executable."""
        if file.exact or file.version is None or file.writer is not None:
            return False
        return not (file.name.startswith("vzdump-") and file.parent is not None and file.parent.path == "dump")

    async def make_exact(self, files: list[File]) -> None:
        """Attributes from the objects' metadata: from the disk cache, else by HEAD. What cannot be had stays as the
        listing said it."""
        todo = [file for file in files if self._needs_head(file)]
        if not todo:
            return
        if self._cache is not None:
            asked = [(file, file.version.info) for file in todo if file.version is not None]
            known = await self._cache.get_many([info for _, info in asked])
            for file, info in asked:
                metadata = known.get(info.key)
                if metadata is not None and file.version is not None and file.version.info == info:
                    file.version.metadata = metadata
                    self.describe(file)
        rest = iter([file for file in todo if self._needs_head(file)])

        async def worker() -> None:
            for file in rest:
                await self._head(file)

        with trio.move_on_after(_EXACT_WITHIN):  # a store that hangs must not hold a listing for each of its files
            async with trio.open_nursery() as nursery:
                for _ in range(min(_HEADS_AT_ONCE, len(todo))):
                    nursery.start_soon(worker)

    async def _head(self, file: File) -> None:
        version, parent = file.version, file.parent
        if version is None or parent is None:
            return
        started, key = trio.current_time(), version.key
        info: ObjectInfo | None = None
        try:
            info = await self.store.head(key)
        except NotFound:
            pass
        except S3fsxError:
            return
        ours = parent.changed.get(file.name, -1.0) >= started or file.parent is not parent or version.key != key
        if ours or file.version is not version or file.writer is not None or file.unlinked:
            return
        if info is None:
            self.tree.detach(file)
        elif info.etag == version.etag:
            self.learned(file, info)
        else:
            self._merger.file(parent, file.name, info)
