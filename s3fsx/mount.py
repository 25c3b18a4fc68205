"""A mount, put together from its parts: built in order, torn down in the opposite order."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any

import pyfuse3
import trio

from . import __version__, kernel
from .attributes import Attributes, Defaults
from .cache import MetadataCache
from .config import to_s3_options
from .content import WriteLimits
from .endpoint import Endpoint
from .errors import ConfigError, S3fsxError
from .files import FilePolicy, Files
from .forget import keep_forgetting
from .fuse import FileSystem, KernelPolicy
from .heap import keep_trimmed, tame_malloc
from .journal import Journal, JournalInUse
from .layout import Layout
from .listing import ListingPolicy, Listings
from .memory import Budget
from .mountpoint import is_mounted, source_name
from .namespace import NamePolicy, Namespace
from .objects import MAX_PART
from .parts import PartSchedule
from .probe import probe
from .publisher import Publisher
from .recover import Recovery
from .s3 import S3Store
from .settings import Settings
from .status import read_status, serve_status, socket_path, sockets
from .tree import Tree
from .upload import Transfers

log = logging.getLogger("s3fsx.mount")

# Requests the loop serves at once. Every one that waits for S3 holds a task, and statfs must still find one.
_TASKS = 1000
_RESERVE = 100
_IDLE_TASKS = 8
# Seconds that requests under way get to end after SIGTERM, within systemd's 90.
_DRAIN = 30.0
_LOCK_TRIES, _LOCK_PAUSE = 20, 0.5
_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_DISK_SQLITE = (10, 13)  # SQLITE_IOERR, SQLITE_FULL
_NODES = 250_000  # names in memory, about 0.9 KiB each


def identity(settings: Settings) -> str:
    """Names the state and cache directories of a mount: the same for the same bucket and prefix."""
    text = "\n".join((settings.endpoint, settings.bucket, settings.prefix))
    return f"{settings.bucket}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def schedule(settings: Settings) -> PartSchedule:
    """Parts grow with the offset, up to half of the memory budget: one part fills while another is sent."""
    if settings.part_profile == "uniform":
        return PartSchedule(settings.part_size, settings.part_size, uniform=True)
    largest = max(settings.part_size, min(MAX_PART, settings.memory_budget // 2))
    return PartSchedule(settings.part_size, largest)


class Mount:
    """Everything one mount consists of, wired together. ``spawn`` runs background transfers."""

    def __init__(
        self,
        settings: Settings,
        store: S3Store,
        journal: Journal,
        cache: MetadataCache,
        spawn: Callable[..., Any],
    ) -> None:
        self.settings = settings
        self.store = store
        self.budget = Budget(settings.memory_budget)
        self.cache = cache
        self.started = time.time()
        defaults = Defaults(
            settings.file_mode & ~settings.umask, settings.dir_mode & ~settings.umask, settings.uid, settings.gid
        )
        layout = Layout(settings.prefix, settings.layout)
        policy = ListingPolicy(settings.list_ttl, defaults)
        self.tree = Tree(_root_attrs(defaults), _NODES)
        self.listings = Listings(self.tree, layout, store, cache, policy)
        transfers = Transfers(store, journal, spawn)
        publisher = Publisher(self.listings, transfers)
        self.namespace = Namespace(
            self.listings, transfers, publisher, NamePolicy(settings.rename_limit, settings.read_only)
        )
        self.files = Files(
            self.listings,
            self.namespace,
            publisher,
            transfers,
            self.budget,
            schedule(settings),
            spawn,
            FilePolicy(
                WriteLimits(settings.write_deadline, settings.publish_deadline, settings.max_uploads + 2),
                min(settings.read_ahead, settings.memory_budget // 2),
                settings.read_deadline,
                settings.pending_limit,
            ),
        )
        self.recovery = Recovery(journal, self.listings, transfers, self.files.new_writer)
        self.fuse = FileSystem(
            self.listings,
            self.namespace,
            self.files,
            KernelPolicy(settings.attr_ttl, settings.capacity, settings.xattrs, _TASKS - _RESERVE),
            time.monotonic,
        )

    def snapshot(self, mountpoint: str) -> dict[str, object]:
        """What ``s3fsx status`` shows."""
        endpoint = self.store.endpoint
        capabilities = self.store.capabilities
        writers = [file.writer for file in self.tree.files() if file.writer is not None]
        return {
            "version": __version__,
            "pid": os.getpid(),
            "mountpoint": mountpoint,
            "source": _source(self.settings),
            "uptime_s": round(time.time() - self.started),
            "endpoint": {
                "url": _url(self.settings),
                "down": endpoint.down,
                "down_since": endpoint.down_since,
                "last_success": endpoint.last_success,
                "last_error": endpoint.last_error,
                "requests": dict(self.store.requests),
                "retries": endpoint.retries,
                "errors": dict(endpoint.errors),
            },
            "verified_by": capabilities.integrity,
            "conditional_writes": capabilities.conditional_put,
            "notes": list(capabilities.notes),
            "memory": {
                "budget": self.budget.total,
                "in_use": self.budget.held,
                "reserved": self.budget.reserved,
                "peak": self.budget.peak,
            },
            "files": {
                "open": self.fuse.open_files,
                "writing": sum(1 for w in writers if w.settled_at is None),
                "waiting_for_rename": sum(1 for w in writers if w.settled_at is not None),
                "unpublished_bytes": sum(w.size for w in writers if w.dirty),
            },
            "nodes": len(self.tree),
            "metadata_cache": {"hits": self.cache.hits, "misses": self.cache.misses},
            "hidden_keys": sum(self.listings.hidden.values()),
            "errors": self.fuse.requests.errors,
        }


def _root_attrs(defaults: Defaults) -> Attributes:
    return Attributes(defaults.dir_mode, defaults.uid, defaults.gid, time.time_ns())


def _fuse_options(settings: Settings) -> set[str]:
    options = set(pyfuse3.default_options)
    options.add("fsname=" + source_name(settings.bucket, settings.prefix))
    options.add("subtype=s3fsx")
    for wanted, option in (
        (settings.allow_other, "allow_other"),
        (settings.read_only, "ro"),
        (settings.noexec, "noexec"),
    ):
        if wanted:
            options.add(option)
    return options


async def run(settings: Settings, mountpoint: str, *, ready: Callable[[], None]) -> None:
    """Mount, serve until unmounted, leave nothing unpublished behind.

    Cancelled, it goes on until what had returned success is in the bucket, then unmounts. Raises S3fsxError with a
    one-line message when mounting fails; calls ready once the kernel's mount answers.
    """
    stop = trio.Event()
    failed: list[Exception] = []
    async with trio.open_nursery() as outer:
        outer.start_soon(_set_when_cancelled, stop)
        with trio.CancelScope(shield=True):  # the work ends by ``stop``, in its own order
            try:
                await _work(settings, mountpoint, ready, stop)
            except Exception as e:
                failed.append(e)  # out of the nursery, which would wrap it into a group
        outer.cancel_scope.cancel()
    if failed:
        raise failed[0]


async def _set_when_cancelled(stop: trio.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


async def _work(settings: Settings, mountpoint: str, ready: Callable[[], None], stop: trio.Event) -> None:
    name = identity(settings)
    tame_malloc()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(S3Store(to_s3_options(settings), Endpoint()))
        with _full_disk_is_trouble():
            journal = await _open_journal(settings, os.path.join(settings.state_dir, name))
            stack.callback(journal.close)
            cache = MetadataCache(os.path.join(settings.cache_dir, name), settings.cache_size)
        stack.callback(cache.close)
        await store.list_page(settings.prefix, limit=1)
        if not settings.read_only:
            for note in (await probe(store, settings.prefix, multipart=False)).notes:
                log.warning("%s", note)
        store.reset_counters()
        log.info(
            "%s: parts are verified by %s, conditional writes %s",
            settings.endpoint or "Amazon S3",
            store.capabilities.integrity,
            "yes" if store.capabilities.conditional_put else "no: two nodes writing one name are not told apart",
        )
        failed: list[Exception] = []
        async with trio.open_nursery() as background:
            mount = Mount(settings, store, journal, cache, _guarded(background))
            try:
                if not settings.read_only:
                    await mount.recovery.run()
                await _serve(mount, mountpoint, ready, background, stop)
            except Exception as e:
                failed.append(e)
            await cache.flush()
            background.cancel_scope.cancel()
        if failed:
            raise failed[0]


@contextmanager
def _full_disk_is_trouble() -> Iterator[None]:
    """A path that cannot be used is bad input, which is not tried again; a full or failing disk may be better later."""
    try:
        yield
    except ConfigError as e:
        reason = e.__context__
        sqlite = getattr(reason, "sqlite_errorcode", 0) & 0xFF  # the low byte of an extended code
        if getattr(reason, "errno", None) in _DISK_ERRNOS or sqlite in _DISK_SQLITE:
            raise S3fsxError(str(e)) from None
        raise


async def _open_journal(settings: Settings, directory: str) -> Journal:
    """A mount that was just unmounted may still be publishing: its lock is waited for, not long.

    Raises S3fsxError, not ConfigError, when it is held all that time: the one who holds it will end.
    """
    for _ in range(_LOCK_TRIES):
        try:
            return Journal.open(directory)
        except JournalInUse:
            await trio.sleep(_LOCK_PAUSE)
    try:
        return Journal.open(directory)
    except JournalInUse:
        holder = await trio.to_thread.run_sync(_holder, settings)
        raise S3fsxError(
            holder or f"{directory} is in use by an s3fsx that shows no status; wait for its end"
        ) from None


def _holder(settings: Settings) -> str:
    """Who has this bucket and prefix, by the status sockets; "" when none of them says so."""
    try:
        found = sockets(settings.runtime_dir)
    except S3fsxError:
        return ""
    for socket in found:
        try:
            document = read_status(socket)
        except S3fsxError:
            continue
        endpoint = document.get("endpoint")
        url = endpoint.get("url") if isinstance(endpoint, dict) else None
        if (document.get("source"), url) != (_source(settings), _url(settings)):
            continue
        pid, path = document.get("pid"), str(document.get("mountpoint"))
        if is_mounted(path, settings.bucket, settings.prefix):
            return f"pid {pid} serves {_source(settings)} on {path}: unmount that, or give this mount its own state_dir"
        return (
            f"pid {pid} is still publishing what was written to {path}, or a program still uses it "
            f"('s3fsx status {path}' shows more): mount again when it has ended"
        )
    return ""


def _source(settings: Settings) -> str:
    return f"s3://{settings.bucket}/{settings.prefix}"


def _url(settings: Settings) -> str:
    return settings.endpoint or "Amazon S3"


def _guarded(nursery: trio.Nursery) -> Callable[..., Any]:
    """start_soon for work whose bug must not take the mount down."""

    async def guarded(task: Callable[..., Awaitable[None]], *args: object) -> None:
        try:
            await task(*args)
        except Exception:
            log.exception("background task failed; this is a bug")

    return lambda task, *args: nursery.start_soon(guarded, task, *args)


async def _serve(
    mount: Mount, mountpoint: str, ready: Callable[[], None], background: trio.Nursery, stop: trio.Event
) -> None:
    settings = mount.settings
    try:
        pyfuse3.init(mount.fuse, mountpoint, _fuse_options(settings))
    except RuntimeError as e:
        raise S3fsxError(f"{mountpoint}: cannot be mounted ({e}); the lines above say why") from None
    ended = trio.Event()
    requests = trio.CancelScope()
    try:
        background.start_soon(_loop, requests, ended)
        status = partial(mount.snapshot, mountpoint)
        await background.start(serve_status, socket_path(settings.runtime_dir, mountpoint), status)
        background.start_soon(mount.store.endpoint.watch, mount.store.ping)
        background.start_soon(mount.files.janitor)
        background.start_soon(mount.cache.run)
        background.start_soon(keep_trimmed, lambda: mount.budget.held)
        background.start_soon(keep_forgetting, mount.tree)
        await kernel.tune(mountpoint)
        ready()
        await _first(stop, ended)
        # After a signal requests are still served meanwhile; after an unmount there are none any more.
        await _publish_waiting(mount)
    finally:
        if not ended.is_set():
            pyfuse3.terminate()
            with trio.move_on_after(_DRAIN):  # requests that were read are finished, new ones are not read
                await ended.wait()
            requests.cancel()
        pyfuse3.close(unmount=True)
        await mount.files.abandon_unfinished()


async def _publish_waiting(mount: Mount) -> None:
    """What waits for a rename gets its own name, unless the store is gone: the journal keeps it for the next mount."""

    async def give_up_when_down() -> None:
        await mount.store.endpoint.wait_down()
        nursery.cancel_scope.cancel()

    with trio.move_on_after(mount.settings.publish_deadline) as limit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up_when_down)
            await mount.files.publish_waiting(-1.0)
            nursery.cancel_scope.cancel()
    left = sum(1 for file in mount.tree.files() if file.writer is not None and file.writer.settled_at is not None)
    if left:
        why = "took too long" if limit.cancelled_caught else "S3 is down"
        log.warning("%d files that wait for a rename stay in the journal (%s); the next mount has them", left, why)


async def _first(*events: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)


async def _loop(scope: trio.CancelScope, ended: trio.Event) -> None:
    try:
        with scope:
            await pyfuse3.main(_IDLE_TASKS, _TASKS)
    finally:
        ended.set()
