"""Blocks of files on the local disk, for random reads that come again: an ISO that is booted, an image.

One file for each version of an object (``blockfile``), named by key, ETag and size, so that another version is another
file. A read is answered from the disk or is a miss: whatever is wrong with what is there costs a request to the store
and no more.

What is in the page cache of this machine is read in the event loop (RWF_NOWAIT). What is not has been asked for by
that, so the loop looks again for as long as an SSD takes, and leaves a slower disk to a thread. Reads of 4 KiB on a
loaded machine, page cache dropped: 0.56 ms and 0.54 ms of CPU with a thread at once, 0.24 and 0.23 this way.

Stored is what comes for a reader, in the background: a queue within the memory budget, and what finds no room in it is
not stored. When the disk fails, is full or does not answer, the cache is off for the rest of the mount.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import trio

from .. import safepath
from ..store.checksum import GRAIN
from ..transfer.memory import Budget, Lease
from ..transfer.threads import in_thread
from .blockfile import BlockFile, Damaged, Span
from .blockformat import Identity
from .blockpolicy import Ledger, Run

T = TypeVar("T")

log = logging.getLogger("s3fsx.blockcache")

_LOOKS = 16  # rounds of the loop, 15 us each when it is idle
_SMALL = 128 << 10  # bytes; more take the disk longer than that, and each look copies what has come
_QUEUE = 16 << 20  # bytes on their way to the disk
_THREADS = 4
_PATIENCE = 5.0  # seconds a read waits for the disk
_LOOK_EVERY = 30.0  # seconds, at the free space of the disk
_LEAST_FREE = 10  # the n-th part of the disk that stays free in any case
_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}")
_NO_NOWAIT = (errno.EOPNOTSUPP, errno.EINVAL)  # ZFS, and old kernels


@dataclass
class Counters:
    """hits, misses: reads. stored, dropped: bytes; dropped are those that found no room in the queue or on the disk.
    evicted: versions. damaged: reads that found something else than what was stored."""

    hits: int = 0
    misses: int = 0
    stored: int = 0
    dropped: int = 0
    evicted: int = 0
    damaged: int = 0


class _Entry:
    """A version that is in use. loaded: set once its index is in memory."""

    __slots__ = ("file", "loaded", "loading", "name")

    def __init__(self, directory: str, identity: Identity) -> None:
        self.name = identity.name
        self.file = BlockFile(directory, identity)
        self.loading = False
        self.loaded = trio.Event()


@dataclass(frozen=True, slots=True)
class _Arrived:
    """Bytes of the object from ``start``, to be stored."""

    entry: _Entry
    start: int
    data: bytes


class CachedFile:
    """One open file. ``read`` and ``put`` never raise and never wait for longer than the disk may take."""

    __slots__ = ("_cache", "_closed", "_entry", "_run")

    def __init__(self, cache: BlockCache, entry: _Entry) -> None:
        self._cache = cache
        self._entry = entry
        self._run = Run()
        self._closed = False

    def passes(self, offset: int, end: int) -> None:
        """A read, whoever answers it."""
        self._run.read(offset, end)

    async def read(self, offset: int, end: int) -> bytes | memoryview | None:
        """The bytes, within the size of the object; None when they have to be fetched."""
        return await self._cache.read(self._entry, offset, end)

    def put(self, start: int, data: bytes) -> None:
        """What was fetched and verified, wherever it begins. Stored later, or not."""
        if not (self._run.long or self._closed):
            self._cache.put(self._entry, start, data)

    def close(self) -> None:
        """Harmless when repeated."""
        if not self._closed:
            self._closed = True
            self._cache.leave(self._entry)


class BlockCache:
    """directory: an absolute path, for one bucket and prefix. limit: bytes on disk. reserve: bytes of the disk that
    stay free. directories: paths in the mount whose files are cached, with what is below them."""

    def __init__(
        self,
        directory: str,
        limit: int,
        reserve: int,
        directories: tuple[str, ...],
        budget: Budget,
        *,
        in_thread: Callable[..., Any] = in_thread,
    ) -> None:
        self.counters = Counters()
        self.why_off = ""
        self.failed = False  # off because of the disk
        self._spare = 0
        self._in_thread = in_thread
        self._directory = directory
        self._reserve = reserve
        self._below = tuple(name + "/" for name in directories)
        self._ledger = Ledger(limit)
        self._entries: dict[str, _Entry] = {}
        self._outdated: list[str] = []
        self._leaving: set[str] = set()  # evicted, their files not deleted yet
        self._queue: deque[_Arrived] = deque()
        self._lease = Lease(budget, 0)
        budget.on_pressure(self._give_up)
        self._wake = trio.Event()
        self._readers = trio.CapacityLimiter(_THREADS)
        self._turn = trio.CapacityLimiter(1)
        self._nowait = os.RWF_NOWAIT
        self._lock = -1
        self._begin()

    @property
    def used(self) -> int:
        return self._ledger.used

    def snapshot(self) -> dict[str, object]:
        return {
            "limit": self._ledger.limit,
            "used": self.used,
            "versions": len(self._ledger),
            "off": self.why_off,
            "failed": self.failed,
            "spare": self._spare,
            **asdict(self.counters),
        }

    def _begin(self) -> None:
        """Blocks: one stat for each version. Raises ConfigError for a directory that others could have made."""
        if not self._ledger.limit:
            self.why_off = "block_cache_size is 0"
            return
        try:
            safepath.private_directory(self._directory, "cache_dir")
            lock = os.path.join(self._directory, "lock")
            safepath.private_file(lock, "cache_dir")
            self._lock = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._find()
        except BlockingIOError:
            self.why_off = "another mount of the same bucket and prefix has it"
            log.info("block cache %s: not used, %s", self._directory, self.why_off)
        except OSError as e:
            self._off(e)

    def _find(self) -> None:
        found: list[tuple[float, str, int]] = []
        with os.scandir(self._directory) as listing:
            for item in listing:
                status = item.stat(follow_symlinks=False)
                if _NAME.fullmatch(item.name) and stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime, item.name, status.st_blocks * 512))
        for _, name, size in sorted(found):
            self._outdated += self._ledger.others(name)
            self._ledger.grow(name, size)
        gone = self._evict(self._ledger.surplus(self._free()))
        self._delete(gone)

    def _free(self) -> int:
        """Blocks. Bytes that may be taken from the disk; negative when the reserve is touched already."""
        disk = os.statvfs(self._directory)
        least = max(self._reserve, disk.f_blocks * disk.f_frsize // _LEAST_FREE)
        self._spare = disk.f_bavail * disk.f_frsize - least
        return self._spare

    # -- what a reader calls

    def file(self, path: str, identity: Identity) -> CachedFile | None:
        """For a file of the mount that is opened for reading; None where its directory is not cached. What one request
        fetches whole is not worth a file."""
        if self.why_off or not path.startswith(self._below) or not identity.etag or identity.size <= GRAIN:
            return None
        name = identity.name
        if name in self._leaving:
            return None
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(self._directory, identity)
            if name not in self._ledger:
                entry.loaded.set()
        self._ledger.use(name)
        self._outdated += self._ledger.others(name)
        return CachedFile(self, entry)

    def leave(self, entry: _Entry) -> None:
        if self._ledger.unuse(entry.name):
            del self._entries[entry.name]
            entry.file.close()

    async def read(self, entry: _Entry, offset: int, end: int) -> bytes | memoryview | None:
        if not entry.loaded.is_set():
            await self._load(entry)
        spans = None if self.why_off else entry.file.find(offset, end)
        data = None if spans is None else await self._read(entry, spans)
        if data is None:
            self.counters.misses += 1
        else:
            self.counters.hits += 1
        return data

    async def _read(self, entry: _Entry, spans: list[Span]) -> bytes | memoryview | None:
        try:
            looks = _LOOKS if sum(span.length for span in spans) <= _SMALL else 1
            while self._nowait and looks:
                try:
                    return entry.file.read(spans, self._nowait)
                except BlockingIOError:
                    looks -= 1
                    await trio.lowlevel.checkpoint()
                except OSError as e:
                    if e.errno not in _NO_NOWAIT:
                        raise
                    self._nowait = 0
            return await self._in_time(partial(entry.file.read, spans))
        except Damaged as e:
            entry.file.forget(e.grain)
            self.counters.damaged += 1
        except OSError as e:
            self._off(e)
        return None

    async def _load(self, entry: _Entry) -> None:
        if entry.loading:
            await entry.loaded.wait()
            return
        entry.loading = True
        try:
            if not await self._in_time(entry.file.load):
                self._ledger.remove(entry.name)
                self.counters.damaged += 1
        except OSError as e:
            self._off(e)
        finally:
            entry.loaded.set()

    async def _in_time(self, work: Callable[[], T]) -> T:
        """Raises OSError ETIMEDOUT when the disk does not answer; the thread is left behind."""
        with trio.move_on_after(_PATIENCE):
            result: T = await self._in_thread(work, limiter=self._readers, abandon=True)
            return result
        raise OSError(errno.ETIMEDOUT, f"no answer from the disk for {_PATIENCE:.0f} s")

    def put(self, entry: _Entry, start: int, data: bytes) -> None:
        if self.why_off or not entry.loaded.is_set():
            return
        if not entry.file.cost(entry.file.grains_in(start, len(data))):
            return
        if self._lease.held + len(data) > _QUEUE or not self._lease.try_take(len(data)):
            self.counters.dropped += len(data)
            return
        self._ledger.use(entry.name)
        self._queue.append(_Arrived(entry, start, data))
        self._wake.set()

    # -- in the background

    async def run(self) -> None:
        """Background task: store what was put, delete what has to go. Cancelled, it leaves its thread behind: the end
        of the mount does not wait for a disk."""
        while not self.why_off:
            with trio.move_on_after(_LOOK_EVERY):
                await self._wake.wait()
            self._wake = trio.Event()
            try:
                await self._work()
            except OSError as e:
                self._off(e)
        await trio.sleep_forever()

    async def _work(self) -> None:
        free = await self._in_thread(self._free, limiter=self._turn, abandon=True)
        outdated, self._outdated = set(self._outdated), []
        gone = self._evict([name for name in outdated if name in self._ledger and name not in self._entries])
        gone += self._evict(self._ledger.surplus(free))
        if gone:
            await self._in_thread(partial(self._delete, gone), limiter=self._turn, abandon=True)
        while self._queue:
            arrived = self._queue.popleft()
            try:
                free = await self._store(arrived, free)
            finally:
                self._done(arrived)

    async def _store(self, arrived: _Arrived, free: int) -> int:
        """free: as ``_free`` told last; returns what it tells now."""
        file, start, view = arrived.entry.file, arrived.start, memoryview(arrived.data)
        grains = file.grains_in(start, len(view))
        victims = self._ledger.victims(file.cost(grains), free)
        if victims is None:
            self.counters.dropped += len(view)
            return free
        gone = self._evict(victims)

        def work() -> tuple[int, int]:
            self._delete(gone)
            grown = 0
            for grain in grains:
                at = grain * GRAIN - start
                grown += file.store(grain, view[at : at + file.length_of(grain)])
            return grown, self._free()

        grown, free = await self._in_thread(work, limiter=self._turn, abandon=True)
        if grown:
            self._ledger.grow(arrived.entry.name, grown)
        self.counters.stored += grown
        return free

    def _evict(self, names: list[str]) -> list[str]:
        """They are gone for the ledger; ``_delete`` has to follow."""
        for name in names:
            self._ledger.remove(name)
        self._leaving.update(names)
        self.counters.evicted += len(names)
        return names

    def _delete(self, names: list[str]) -> None:
        """Blocks."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._directory, name))
            self._leaving.discard(name)

    def _done(self, arrived: _Arrived) -> None:
        self._lease.give(len(arrived.data))
        self.leave(arrived.entry)

    def _drop_queue(self) -> None:
        """What is being stored right now still counts."""
        while self._queue:
            arrived = self._queue.pop()
            self.counters.dropped += len(arrived.data)
            self._done(arrived)

    def _off(self, error: OSError) -> None:
        if not self.why_off:
            self.why_off, self.failed = error.strerror or str(error), True
            log.warning(
                "block cache %s: off until the next mount (%s), reads go to the store", self._directory, self.why_off
            )
        self._drop_queue()
        self._wake.set()

    def _give_up(self, _: bool) -> None:
        self._drop_queue()

    def close(self) -> None:
        self._lease.budget.off_pressure(self._give_up)
        self._drop_queue()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
