"""What is in a directory: listings, their lifetime, and the questions they answer without asking the store.

One ListObjectsV2 pass fills a directory and *seals* it: until the seal ends, hits and misses are answered from memory
(Proxmox looks for ``X.notes`` and ``X.protected`` of every backup). Our own changes update a sealed directory in place.
In one of several pages single names are asked for, until that has cost as much as the listing that spares the others.
The content directories of Proxmox exist without asking anybody.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import trio

from ..errors import EndpointDown, FileSystemError, S3fsxError
from ..layout import Layout
from ..local.cache import MetadataCache
from ..store.objects import ObjectInfo, Store
from .attributes import Attributes, Defaults
from .exact import Exact
from .gone import present
from .merge import Merger, Merging
from .pages import Pages
from .tree import Directory, File, Node, Tree
from .walks import Walks

log = logging.getLogger("s3fsx.listing")

# A listing of several pages that took long to make lives longer than list_ttl: 10 000 backups are 10 requests, and
# Proxmox looks at 30 000 names after them; expiring in the middle would double the cost for nothing. One page is one
# request: a slow answer is no reason to believe it for longer than was promised.
_LIFE_PER_SECOND_OF_LISTING = 10
# What a page of a listing costs, in HEADs: 12 of them in Amazon's prices, about as many in time.
_PAGE = 10
_MOST_PROBED = 10_000
# Seconds a change waits for the end of a directory rename (at most rename_limit server-side copies).
_MOVE_LIMIT = 60.0


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
    """Lookups and listings on a tree. hidden: keys seen that cannot be file names (of the last listings). ``spawn``
    starts a background task that outlives the caller."""

    def __init__(
        self,
        tree: Tree,
        layout: Layout,
        store: Store,
        cache: MetadataCache | None,
        policy: ListingPolicy,
        spawn: Callable[..., Any],
    ) -> None:
        self.tree = tree
        self.layout = layout
        self.store = store
        self.policy = policy
        self._spawn = spawn
        self._merger = Merger(tree, layout, cache, policy.defaults)
        self._exact = Exact(tree, store, cache, self._merger, spawn)
        self._walks = Walks(self._list_ahead, spawn)
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

    def good_for(self, directory: Directory, name: str) -> float:
        """Seconds for which what is known of the name may be believed, at least 0."""
        return max(0.0, directory.known_until(name) - trio.current_time())

    def guessed(self, node: Node) -> bool:
        """Its mode and mtime are asked for when somebody wants to know them."""
        if not isinstance(node, File) or not self._exact.wanted(node) or node.parent is None:
            return False
        return not self._exact.by_listing(node.parent)

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

    async def lookup(
        self, directory: Directory, name: str, *, attributes: bool = True, opening: bool = False
    ) -> Node | None:
        """The node of a name, None when there is none. A known name is answered from memory while the store is down.
        attributes: False where its mode and mtime do not matter."""
        path = self.child_path(directory, name)
        child = directory.children.get(name)
        if self.layout.is_content(path):
            return child
        if self.layout.is_hidden(path):
            return None
        if isinstance(child, File) and child.writer is not None:
            return child
        if directory.known_until(name) <= trio.current_time():
            try:
                await self._ask(directory, name)
            except EndpointDown:
                if child is None:
                    raise
                return child
        child = directory.children.get(name)
        if isinstance(child, File) and attributes and (opening or not self._exact.by_listing(directory)):
            await self._exact.make(child)
            child = directory.children.get(name)
        return child

    async def children(self, directory: Directory) -> list[Node]:
        """Everything in a directory, in name order."""
        if self.policy.list_ttl and not self.store.down:
            self._walks.reading(directory)
        if directory.sealed_until <= trio.current_time():
            await self.refresh(directory)
        await self._exact.was_read(directory)
        return [node for _, node in sorted(directory.children.items())]

    async def current(self, node: Node, *, opening: bool = False) -> Node | None:
        """What the name of a node stands for now: the node itself, another one (replaced elsewhere) or None."""
        if isinstance(node, File) and node.unlinked:
            return node if node.handles else None
        if node.parent is None or (isinstance(node, File) and node.writer is not None):
            return node
        return await self.lookup(node.parent, node.name, opening=opening)

    # -- listing

    async def refresh(self, directory: Directory, *, most: int | None = None) -> None:
        """List the directory and seal it, unless it has more than ``most`` pages. Callers that come meanwhile share the
        listing."""
        while (other := self._under_way.get(directory.ino)) is not None:
            await other.done.wait()
            if other.error is not None:
                raise other.error  # each trying by itself would add up their deadlines
            if directory.sealed_until > trio.current_time() or (directory.pages > 1 and most is not None):
                return
        listing = self._under_way[directory.ino] = _Listing()
        try:
            await self._list(directory, most)
        except S3fsxError as e:
            listing.error = e
            raise
        finally:
            del self._under_way[directory.ino]
            listing.done.set()

    async def _list(self, directory: Directory, most: int | None) -> None:
        started = trio.current_time()
        path = directory.path
        merging = Merging(self._merger, directory, started)
        pages = Pages(self.store, self.layout.directory(path), spawn=self._spawn, most=most)
        directory.handles += 1  # so that nobody trims what is merged already
        directory.spent = 0
        try:
            while (page := await pages.next()) is not None:
                if pages.more and pages.count == most:
                    return
                merging.add(page)
                self._make_room(path)
        finally:
            self.tree.released(directory)
            if pages.more:
                directory.pages = max(directory.pages, 2 * pages.count)
        merging.finish()
        directory.pages = pages.count
        directory.marker = merging.marker
        if merging.hidden and self.hidden.get(path) != merging.hidden:
            log.info("%s: %d keys cannot be shown as files", path or "/", merging.hidden)
        self.hidden[path] = merging.hidden
        directory.probed.clear()
        life = self.policy.list_ttl
        if life and pages.count > 1:
            life = max(life, _LIFE_PER_SECOND_OF_LISTING * (trio.current_time() - started))
        directory.sealed_until = trio.current_time() + life

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
        self._merger.learned(file, info)

    def changed(self, directory: Directory, name: str) -> None:
        """We changed this name: a listing that began earlier must not undo it."""
        directory.changed[name] = trio.current_time()

    def published(self, directory: Directory, name: str) -> None:
        """We changed this name, and the store has agreed."""
        self.changed(directory, name)
        self._known(directory, name, trio.current_time())

    def _known(self, directory: Directory, name: str, since: float) -> None:
        if len(directory.probed) >= _MOST_PROBED:
            directory.probed.clear()
        directory.probed[name] = since + self.policy.list_ttl

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
                directory.distrust()
            raise
        else:
            for directory, name in names:
                self._known(directory, name, trio.current_time())
        finally:
            for directory, name in names:
                self.changed(directory, name)

    # -- single names

    async def _ask(self, directory: Directory, name: str) -> None:
        """The store is asked, by a listing where one page is enough."""
        if directory.pages <= 1:
            await self.refresh(directory, most=1)
        if directory.known_until(name) > trio.current_time():
            return
        await self._probe(directory, name)
        if directory.pages > 1 and directory.spent >= _PAGE * directory.pages:
            directory.spent = 0
            if directory.ino not in self._under_way:
                self._spawn(self._list_ahead, directory, 2 * directory.pages)

    async def _list_ahead(self, directory: Directory, most: int = 1) -> None:
        """Beside the questions of others, which neither wait for it nor fail with it."""
        with suppress(S3fsxError):
            await self.refresh(directory, most=most)

    async def _probe(self, directory: Directory, name: str) -> None:
        """Ask for one name of a directory that is too large to list for it."""
        path = self.child_path(directory, name)
        started = trio.current_time()
        is_directory = False
        directory.spent += 1
        before = directory.children.get(name)
        known = isinstance(before, File) and before.version is not None
        info = await present(self.store, self.layout.key(path), known=known)
        if info is None:
            directory.spent += _PAGE
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
        self._known(directory, name, started)
        if directory.ino in self._under_way:
            self.changed(directory, name)  # it knows less than we do now
