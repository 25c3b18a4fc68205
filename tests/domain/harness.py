"""The domain layer wired as ``s3fsx/service/mount.py`` wires it, on a FakeStore, and driven by path.

Nothing here is real I/O: the journal runs its SQL in this thread on a database in memory, so the autojump clock never
runs ahead of a worker thread.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
import trio

from s3fsx.fs.attributes import Attributes, Defaults
from s3fsx.fs.changes import Changes
from s3fsx.fs.content import WriteLimits
from s3fsx.fs.files import FilePolicy, Files, Handle
from s3fsx.fs.listing import ListingPolicy, Listings
from s3fsx.fs.mirror import Mirror
from s3fsx.fs.namespace import NamePolicy, Namespace
from s3fsx.fs.protection import Protection
from s3fsx.fs.publisher import Publisher
from s3fsx.fs.recover import Recovery
from s3fsx.fs.tree import Directory, File, Tree
from s3fsx.fs.upload import Transfers
from s3fsx.fs.waiting import Waiting
from s3fsx.layout import Layout
from s3fsx.local.blockcache import BlockCache
from s3fsx.local.cache import MetadataCache
from s3fsx.local.journal import Journal
from s3fsx.store.objects import ObjectInfo
from s3fsx.store.parts import PartSchedule
from s3fsx.store.sumstore import DIRECTORY
from s3fsx.store.verified import VerifiedStore
from s3fsx.transfer.memory import Budget
from s3fsx.transfer.slots import Slots
from tests.fakestore import FakeStore
from tests.model import pattern as pattern

T = TypeVar("T")

DEFAULTS = Defaults(0o640, 0o750, 0, 0)
ATTRS = Attributes(0o644, 1000, 1000, 1_700_000_000_000_000_000)
KIB = 1 << 10
MIB = 1 << 20


async def _inline(function: Callable[..., T], *args: object) -> T:
    await trio.lowlevel.checkpoint()
    return function(*args)


class InlineJournal(Journal):
    """The real journal's SQL without its thread and disk. log: (write id, state) of every change, None: removed."""

    def __init__(self) -> None:
        database = sqlite3.connect(":memory:", isolation_level=None)
        super().__init__(database, -1)

    def close(self) -> None:
        self._db.close()

    async def _run(self, action: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return action()


class DictCache(MetadataCache):
    """The metadata cache without its disk."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Mapping[str, str]] = {}
        self.hits = self.misses = 0

    async def get_many(self, infos: Iterable[ObjectInfo]) -> dict[str, Mapping[str, str]]:
        await trio.lowlevel.checkpoint()
        return {i.key: self.known[i.key, i.etag] for i in infos if (i.key, i.etag) in self.known}

    def put(self, info: ObjectInfo) -> None:
        if info.metadata is not None:
            self.known[info.key, info.etag] = info.metadata


class SmallSchedule(PartSchedule):
    """Parts below S3's 5 MiB, for stores and modules whose limits were lowered too (``small_units``)."""

    def __post_init__(self) -> None:
        pass


SMALL_PART = 8 * KIB
SMALL_COPY = 48 * KIB


def small_units(monkeypatch: pytest.MonkeyPatch) -> SmallSchedule:
    """Everything 1024 times smaller: chunks of 1 KiB, parts of 4 KiB and more, CopyObject up to 48 KiB."""
    for name in ("transfer.memory", "transfer.partbuffer", "fs.content"):
        monkeypatch.setattr(f"s3fsx.{name}.CHUNK", KIB)
    monkeypatch.setattr("s3fsx.transfer.partbuffer._ZEROS", bytes(KIB))
    for name in ("store.checksum", "store.parts", "store.sums", "store.verified"):
        monkeypatch.setattr(f"s3fsx.{name}.GRAIN", KIB)
    monkeypatch.setattr("s3fsx.fs.reader.FIRST", KIB)
    for name in ("fs.reader", "store.sums", "store.verified"):
        monkeypatch.setattr(f"s3fsx.{name}.WHOLE", SMALL_PART)
    for name in ("fs.content", "store.parts"):
        monkeypatch.setattr(f"s3fsx.{name}.MIN_PART", 4 * KIB)
    for name in ("fs.copies", "fs.publisher"):
        monkeypatch.setattr(f"s3fsx.{name}.MAX_COPY", SMALL_COPY)
    monkeypatch.setattr("s3fsx.fs.upload._COPY_PIECE", 16 * KIB)
    return SmallSchedule(SMALL_PART, 2 * SMALL_PART)


@dataclass(frozen=True)
class Options:
    """What a test may want otherwise; the defaults are those of a mount, with a short listing life."""

    prefix: str = "pve/"
    list_ttl: float = 5.0
    budget: int = 64 * MIB
    schedule: PartSchedule = field(default_factory=lambda: PartSchedule(8 * MIB, 32 * MIB))
    write_deadline: float = 120.0
    publish_deadline: float = 600.0
    max_uploads: int = 4
    pending_limit: float = 3600.0
    rename_limit: int = 1000
    read_only: bool = False
    nodes: int = 200_000
    read_ahead: int = 16 * MIB
    read_deadline: float = 60.0
    cached: bool = False
    verify_reads: bool = True


class Domain:
    """One mount without a kernel. ``crash`` ends its background work where it stands, as kill -9 does."""

    def __init__(
        self,
        nursery: trio.Nursery,
        store: FakeStore,
        options: Options | None = None,
        journal: InlineJournal | None = None,
        budget: Budget | None = None,
        blocks: BlockCache | None = None,
    ) -> None:
        o = self.options = options or Options()
        self.store = store
        self.verified = VerifiedStore(store, o.prefix, reads=o.verify_reads, in_thread=_inline)
        self.journal = journal or InlineJournal()
        self.cache = DictCache() if o.cached else None
        self.budget = budget or Budget(o.budget)
        self.blocks = blocks
        self._nursery = nursery
        self._background: set[trio.CancelScope] = set()
        self._idle = trio.Event()
        root = Attributes(DEFAULTS.dir_mode, DEFAULTS.uid, DEFAULTS.gid, time.time_ns())
        self.tree = Tree(root, o.nodes)
        self.listings = Listings(
            self.tree, Layout(o.prefix), self.verified, self.cache, ListingPolicy(o.list_ttl, DEFAULTS), self._spawn
        )
        self.transfers = Transfers(
            self.verified, self.journal, self._spawn, Protection(self.verified), slots=Slots(o.max_uploads)
        )
        self.publisher = Publisher(self.listings, self.transfers)
        self.changes = Changes(self.verified, self.journal, self._spawn, self.transfers.protection)
        self.namespace = Namespace(
            self.listings,
            self.transfers,
            self.publisher,
            self.changes,
            NamePolicy(o.rename_limit, o.publish_deadline, o.read_only),
        )
        self.files = Files(
            self.listings,
            self.namespace,
            self.publisher,
            self.transfers,
            self.budget,
            o.schedule,
            self._spawn,
            FilePolicy(
                WriteLimits(o.write_deadline, o.publish_deadline),
                o.read_ahead,
                o.read_deadline,
                o.pending_limit,
            ),
            self.blocks,
        )
        self.mirror = Mirror(store, self.journal, o.prefix, "host")
        waiting = Waiting(self.listings, self.transfers, self.files.new_writer)
        self.recovery = Recovery(self.journal, self.listings.layout, self.transfers, waiting.bring_back, self.changes)

    def _spawn(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        scope = trio.CancelScope()
        self._background.add(scope)

        async def run() -> None:
            try:
                with scope:
                    await task(*args)
            finally:
                self._background.discard(scope)
                self._idle.set()
                self._idle = trio.Event()

        self._nursery.start_soon(run)

    @property
    def busy(self) -> bool:
        return bool(self._background)

    async def idle(self) -> None:
        """Until no background work is under way."""
        while self._background:
            await self._idle.wait()

    async def crash(self) -> None:
        for scope in list(self._background):
            scope.cancel()
        await self.idle()

    async def restarted(self, options: Options | None = None) -> Domain:
        """Another mount with the same bucket and journal, after its recovery."""
        await self.crash()
        mount = Domain(self._nursery, self.store, options or self.options, self.journal)
        await mount.recovery.run()
        return mount

    # By path.

    async def directory(self, path: str) -> Directory:
        node = self.tree.root
        for name in filter(None, path.split("/")):
            child = await self.listings.lookup(node, name)
            if child is None:
                raise FileNotFoundError(path)
            assert isinstance(child, Directory), path
            node = child
        return node

    async def parent(self, path: str) -> tuple[Directory, str]:
        head, _, name = path.rpartition("/")
        return await self.directory(head), name

    async def lookup(self, path: str) -> File | Directory | None:
        parent, name = await self.parent(path)
        node = await self.listings.lookup(parent, name)
        assert node is None or isinstance(node, File | Directory)
        return node

    async def file(self, path: str) -> File:
        node = await self.lookup(path)
        if node is None:
            raise FileNotFoundError(path)
        assert isinstance(node, File), path
        return node

    async def create(self, path: str, flags: int = os.O_WRONLY, attrs: Attributes = ATTRS) -> Handle:
        parent, name = await self.parent(path)
        _, handle = await self.files.create(parent, name, attrs, flags | os.O_CREAT)
        return handle

    async def open(self, path: str, flags: int = os.O_RDONLY) -> Handle:
        return await self.files.open(await self.file(path), flags)

    async def close(self, handle: Handle) -> None:
        """What close(2) of the last descriptor does: flush, whose error the program sees, and release."""
        try:
            await self.files.flush(handle)
        finally:
            await self.files.release(handle)

    async def write(self, path: str, data: bytes, step: int = 128 * KIB) -> None:
        """Create or truncate, write, close."""
        handle = await self.create(path, os.O_WRONLY | os.O_TRUNC)
        await self.fill(handle, data, step=step)
        await self.close(handle)

    async def finish(self, handle: Handle, data: bytes) -> None:
        """Write and close: the last chance of an error is the close's."""
        try:
            await self.fill(handle, data)
        finally:
            await self.close(handle)

    async def fill(self, handle: Handle, data: bytes, offset: int = 0, step: int = 128 * KIB) -> None:
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            assert await self.files.write(handle, offset + start, piece) == len(piece)

    async def read(self, path: str) -> bytes:
        handle = await self.open(path)
        try:
            return await self.read_all(handle)
        finally:
            await self.files.release(handle)

    async def read_all(self, handle: Handle, step: int = 128 * KIB) -> bytes:
        pieces: list[bytes] = []
        while piece := bytes(await self.files.read(handle, sum(map(len, pieces)), step)):
            pieces.append(piece)
        return b"".join(pieces)

    async def rename(self, path: str, new: str, *, no_replace: bool = False) -> None:
        parent, name = await self.parent(path)
        new_parent, new_name = await self.parent(new)
        await self.namespace.rename(parent, name, new_parent, new_name, no_replace=no_replace)

    async def unlink(self, path: str) -> None:
        await self.namespace.unlink(*await self.parent(path))

    async def mkdir(self, path: str) -> Directory:
        parent, name = await self.parent(path)
        return await self.namespace.mkdir(parent, name, replace(ATTRS, mode=0o755))

    async def rmdir(self, path: str) -> None:
        await self.namespace.rmdir(*await self.parent(path))

    async def names(self, path: str = "") -> list[str]:
        return [node.name for node in await self.listings.children(await self.directory(path))]

    # What the bucket holds.

    def key(self, path: str) -> str:
        return self.options.prefix + path

    def paths(self) -> list[str]:
        """Every object, without the markers of directories."""
        start = len(self.options.prefix)
        return [key[start:] for key in self.bucket() if not key.endswith("/")]

    def bucket(self) -> list[str]:
        """Without what s3fsx keeps for itself."""
        return [key for key in self.store.keys() if not self._internal(key)]  # noqa: SIM118

    def sums(self) -> list[str]:
        return [key for key in self.store.keys() if self._internal(key)]  # noqa: SIM118

    def _internal(self, key: str) -> bool:
        return key.startswith(self.options.prefix + DIRECTORY)

    def stored(self, path: str) -> bytes:
        return self.store.data(self.key(path))

    def calls(self) -> Counter[str]:
        return Counter(name for name, key in self.store.log if not self._internal(key))

    async def nothing_left(self) -> None:
        """No upload in the bucket, no record in the journal, no byte of the budget in use."""
        await self.idle()
        assert self.store.uploads == {}
        assert await self.journal.records() == []
        assert await self.journal.intents() == []
        assert self.budget.committed == 0
