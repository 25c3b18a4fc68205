"""Mode, owner and mtime of files, which a listing does not tell: from the disk cache, else by HEAD.

A listing asks for none of them: most are never looked at (``find``, a shell's ``*``). But whoever asks for one after he
has read the directory will ask for all, one after the other: then all are asked for, many at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import trio

from ..errors import DeadlineExceeded, EndpointDown, S3fsxError, Transient
from ..local.cache import MetadataCache
from ..store.objects import ObjectInfo, Store
from ..transfer.several import each
from .gone import StillListed, present
from .merge import Merger
from .tree import Directory, File, Tree

# Above this many files in one directory theirs come with open, not with stat.
EXACT_UP_TO = 1000
# With 30 ms to the store a thousand take 1.3 s, with 8 at once 3.8 s.
_AT_ONCE = 24
# Seconds without a question after one that had no answer: each would keep a program for its deadline.
_REST = 10.0


class Exact:
    """``spawn`` starts a background task that outlives the caller."""

    def __init__(
        self, tree: Tree, store: Store, cache: MetadataCache | None, merger: Merger, spawn: Callable[..., Any]
    ) -> None:
        self._tree = tree
        self._store = store
        self._cache = cache
        self._merger = merger
        self._spawn = spawn
        self._asking: dict[int, trio.Event] = {}  # HEADs under way, by inode
        self._rest_until = -1.0
        self._sweeping = trio.CapacityLimiter(_AT_ONCE)  # of all directories

    def wanted(self, file: File) -> bool:
        """Mode and mtime of a backup are nobody's concern (Proxmox takes the time from the name), and there are
        thousands of them; a snippet must know whether it is executable."""
        if file.exact or file.version is None or file.writer is not None:
            return False
        return not (file.name.startswith("vzdump-") and file.parent is not None and file.parent.path == "dump")

    def by_listing(self, directory: Directory) -> bool:
        """Its files are shown as the listing said it until they are opened."""
        return len(directory.children) > EXACT_UP_TO

    async def was_read(self, directory: Directory) -> None:
        """Somebody reads the directory: what the disk cache knows is told at once."""
        if self.by_listing(directory):
            return
        await self._recall(child for child in directory.children.values() if isinstance(child, File))
        directory.just_read = True

    async def make(self, file: File) -> None:
        """What cannot be had stays as the listing said it. The file may be gone afterwards."""
        parent = file.parent
        if parent is None or not self.wanted(file):
            return
        if parent.just_read:
            parent.just_read = False
            self._spawn(self._make_all, parent)
        elif file.ino not in self._asking:
            await self._recall([file])
        await self._ask(file)

    async def _recall(self, files: Iterable[File]) -> None:
        """From the disk cache."""
        if self._cache is None:
            return
        asked = [(file, file.version.info) for file in files if self.wanted(file) and file.version is not None]
        known = await self._cache.get_many([info for _, info in asked]) if asked else {}
        for file, info in asked:
            metadata = known.get(info.key)
            if metadata is not None and file.version is not None and file.version.info == info:
                file.version.metadata = metadata
                self._merger.describe(file)

    async def _make_all(self, directory: Directory) -> None:
        """In the order in which readdir told them."""
        files = [child for _, child in sorted(directory.children.items()) if isinstance(child, File)]
        await each(files, self._ask_in_turn, at_once=_AT_ONCE)

    async def _ask_in_turn(self, file: File) -> None:
        if self.wanted(file):
            async with self._sweeping:
                await self._ask(file)

    async def _ask(self, file: File) -> None:
        under_way = self._asking.get(file.ino)
        if under_way is not None:
            await under_way.wait()
            return
        if not self.wanted(file) or trio.current_time() < self._rest_until:
            return
        event = self._asking[file.ino] = trio.Event()
        try:
            await self._head(file)
        finally:
            del self._asking[file.ino]
            event.set()

    async def _head(self, file: File) -> None:
        version, parent = file.version, file.parent
        if version is None or parent is None:
            return
        started, key = trio.current_time(), version.key
        info: ObjectInfo | None = None
        try:
            info = await present(self._store, key, known=True)
        except StillListed:
            return  # no reason to let the others rest
        except (Transient, DeadlineExceeded, EndpointDown):
            self._rest_until = trio.current_time() + _REST
            return
        except S3fsxError:
            return  # refused, which says nothing about others: one that is encrypted with a key of its own, say
        ours = parent.changed.get(file.name, -1.0) >= started or file.parent is not parent or version.key != key
        if ours or file.version is not version or file.writer is not None or file.unlinked:
            return
        if info is None:
            self._tree.detach(file)
        elif info.etag == version.etag:
            self._merger.learned(file, info)
        else:
            self._merger.file(parent, file.name, info)
