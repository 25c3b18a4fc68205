"""A mount, put together from its parts: built in order, torn down in the opposite order."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pyfuse3
import trio

from ..configuration.config import to_s3_options
from ..configuration.settings import Settings
from ..errors import S3fsxError
from ..fs.attributes import Attributes, Defaults
from ..fs.changes import Changes
from ..fs.content import WriteLimits
from ..fs.files import FilePolicy, Files
from ..fs.listing import ListingPolicy, Listings
from ..fs.mirror import Mirror
from ..fs.namespace import NamePolicy, Namespace
from ..fs.protection import Protection
from ..fs.publisher import Publisher
from ..fs.recover import Recovery
from ..fs.tree import Tree
from ..fs.upload import Transfers
from ..fs.waiting import Waiting
from ..kernel import fuseloop, tuning
from ..kernel.callers import Callers
from ..kernel.forget import keep_forgetting
from ..kernel.fuse import FileSystem, KernelPolicy
from ..kernel.mountpoint import source_name
from ..layout import Layout
from ..local.blockcache import BlockCache
from ..local.cache import MetadataCache
from ..local.journal import Journal
from ..metrics import catalogue, exposition, server
from ..metrics.textfile import TextFile
from ..s3.probe import probe
from ..s3.store import S3Store
from ..store.endpoint import Endpoint
from ..store.findings import weaker
from ..store.objects import MAX_PART
from ..store.parts import PartSchedule
from ..store.verified import VerifiedStore
from ..transfer.memory import Budget
from ..transfer.slots import Slots
from . import lastwords
from .ending import Ending
from .heap import calm_collector, keep_trimmed, tame_malloc
from .snapshot import Parts, Snapshot
from .state import full_disk_is_trouble, has_state, identity, open_journal, source, state_directory
from .status import serve_status, socket_path

log = logging.getLogger("s3fsx.mount")

# Requests the loop serves at once. Every one that waits for S3 holds a task, and statfs must still find one.
_TASKS = 1000
_RESERVE = 100
_IDLE_TASKS = 8
_WATCH_AGAIN = 10.0  # seconds
# Seconds that requests under way get to end after SIGTERM, within systemd's 90.
_DRAIN = 30.0
_NODES = 250_000  # names in memory, about 0.9 KiB each


def schedule(settings: Settings) -> PartSchedule:
    """Parts grow with the offset, up to half of the memory budget: one part fills while another is sent."""
    if settings.part_profile == "uniform":
        return PartSchedule(settings.part_size, settings.part_size, uniform=True, count=settings.max_parts)
    largest = max(settings.part_size, min(MAX_PART, settings.memory_budget // 2))
    return PartSchedule(settings.part_size, largest, count=settings.max_parts)


class Mount:
    """Everything one mount consists of, wired together. ``spawn`` runs background transfers."""

    def __init__(
        self,
        settings: Settings,
        store: S3Store,
        journal: Journal,
        cache: MetadataCache,
        budget: Budget,
        blocks: BlockCache,
        spawn: Callable[..., Any],
        mountpoint: str,
    ) -> None:
        self.settings = settings
        self.store = store
        self.verified = VerifiedStore(store, settings.prefix, reads=settings.verify_reads)
        self.budget = budget
        self.cache = cache
        self.blocks = blocks
        defaults = Defaults(
            settings.file_mode & ~settings.umask, settings.dir_mode & ~settings.umask, settings.uid, settings.gid
        )
        layout = Layout(settings.prefix, settings.layout)
        policy = ListingPolicy(settings.list_ttl, defaults)
        self.tree = Tree(_root_attrs(defaults), _NODES)
        self.listings = Listings(self.tree, layout, self.verified, cache, policy, spawn)
        protection = Protection(self.verified)
        transfers = Transfers(self.verified, journal, spawn, protection, slots=Slots(settings.max_uploads))
        publisher = Publisher(self.listings, transfers)
        changes = Changes(self.verified, journal, spawn, protection)
        self.namespace = Namespace(
            self.listings,
            transfers,
            publisher,
            changes,
            NamePolicy(settings.rename_limit, settings.publish_deadline, settings.read_only),
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
                WriteLimits(settings.write_deadline, settings.publish_deadline),
                min(settings.read_ahead, settings.memory_budget // 2),
                settings.read_deadline,
                settings.pending_limit,
            ),
            blocks,
        )
        waiting = Waiting(self.listings, transfers, self.files.new_writer)
        self.mirror = Mirror(store, journal, settings.prefix, socket.gethostname())
        self.recovery = Recovery(journal, layout, transfers, waiting.bring_back, changes)
        self.callers = Callers(mountpoint)
        self.fuse = FileSystem(
            self.listings,
            self.namespace,
            self.files,
            self.callers,
            KernelPolicy(settings.attr_ttl, settings.capacity, settings.xattrs, _TASKS - _RESERVE),
            time.monotonic,
        )
        self.snapshot = Snapshot(
            Parts(
                settings,
                store,
                self.verified,
                journal,
                cache,
                blocks,
                budget,
                self.listings,
                transfers,
                self.fuse,
                mountpoint,
            )
        )

    def metrics(self) -> str:
        """In Prometheus' text format."""
        return exposition.render(catalogue.families(self.snapshot()))


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
        store = await stack.enter_async_context(
            S3Store(to_s3_options(settings), Endpoint(patience=settings.outage_patience))
        )
        # A first mount that is refused (bucket, keys, endpoint) makes no directories. Later ones ask who has the
        # journal before: that is the better answer, also in an outage.
        first = not has_state(settings)
        if first:
            await store.list_page(settings.prefix, limit=1)
        with full_disk_is_trouble():
            journal = await open_journal(settings, state_directory(settings))
            stack.callback(journal.close)
            cache = MetadataCache(os.path.join(settings.cache_dir, name), settings.cache_size)
            stack.callback(cache.close)
            budget = Budget(settings.memory_budget)
            blocks = BlockCache(
                os.path.join(settings.cache_dir, name, "blocks"),
                settings.block_cache_size,
                settings.block_cache_reserve,
                settings.block_cache_dirs,
                budget,
            )
        stack.callback(blocks.close)
        if not first:
            await store.list_page(settings.prefix, limit=1)
        if not settings.read_only:
            for note in (await probe(store, settings.prefix, multipart=False)).notes:
                log.warning("%s", note)
        store.reset_counters()
        if not settings.read_only and (less := weaker(store.capabilities)):
            log.info("weaker on this store: %s", less)
        log.info(
            "%s: parts are verified by %s, conditional writes %s",
            settings.endpoint or "Amazon S3",
            store.capabilities.integrity,
            "yes" if store.capabilities.conditional_put else "no: two nodes writing one name are not told apart",
        )
        failed: list[Exception] = []
        async with trio.open_nursery() as background:
            mount = Mount(settings, store, journal, cache, budget, blocks, _guarded(background), mountpoint)
            try:
                if not settings.read_only:
                    if journal.new:
                        await mount.mirror.look_for_lost(source(settings))
                    await mount.recovery.run()
                await _serve(mount, mountpoint, ready, background, stop)
            except Exception as e:
                failed.append(e)
            await cache.flush()
            background.cancel_scope.cancel()
        if failed:
            raise failed[0]


def _guarded(nursery: trio.Nursery) -> Callable[..., Any]:
    """start_soon for work whose bug must not take the mount down."""

    async def guarded(task: Callable[..., Awaitable[None]], *args: object) -> None:
        try:
            await task(*args)
        except Exception:
            log.exception("background task failed; this is a bug")

    return lambda task, *args: nursery.start_soon(guarded, task, *args)


async def _kept(task: Callable[..., Awaitable[None]], *args: object) -> None:
    """A watch that goes on as long as the mount does: what goes wrong in one round is logged, the next one comes."""
    while True:
        try:
            await task(*args)
        except Exception:
            log.exception("a background watch failed; this is a bug")
        await trio.sleep(_WATCH_AGAIN)


async def _serve(
    mount: Mount, mountpoint: str, ready: Callable[[], None], background: trio.Nursery, stop: trio.Event
) -> None:
    settings = mount.settings
    try:
        pyfuse3.init(mount.fuse, mountpoint, _fuse_options(settings))
    except RuntimeError as e:
        raise S3fsxError(f"{mountpoint}: cannot be mounted ({e}); the lines above say why") from None
    socket = socket_path(settings.runtime_dir, mountpoint)
    lastwords.forget(socket)
    ending = Ending(
        mount.files,
        mount.tree,
        mount.store.endpoint,
        settings.publish_deadline,
        state_dir=settings.state_dir,
        socket=socket,
    )
    ended = trio.Event()
    requests = trio.CancelScope()
    try:
        background.start_soon(_loop, requests, ended)
        await background.start(serve_status, socket, mount.snapshot)
        background.start_soon(_kept, mount.store.endpoint.watch, mount.store.ping)
        background.start_soon(_kept, mount.files.janitor)
        background.start_soon(_kept, mount.callers.watch)
        background.start_soon(_kept, mount.cache.run)
        background.start_soon(_kept, mount.blocks.run)
        if not settings.read_only:
            background.start_soon(_kept, mount.mirror.run)
        background.start_soon(_kept, keep_trimmed, lambda: mount.budget.held, settings.memory_budget)
        background.start_soon(_kept, keep_forgetting, mount.tree)
        if settings.metrics_listen:
            background.start_soon(_kept, server.serve, settings.metrics_listen, mount.metrics)
        if settings.metrics_textfile:
            textfile = TextFile(settings.metrics_textfile, mountpoint, mount.metrics)
            background.start_soon(_kept, textfile.run)
        await tuning.tune(mountpoint)
        calm_collector()
        ready()
        await _first(stop, ended)
        # After a signal requests are still served meanwhile; after an unmount there are none any more.
        await ending.publish_waiting()
    finally:
        if not ended.is_set():
            pyfuse3.terminate()
            with trio.move_on_after(_DRAIN):  # requests that were read are finished, new ones are not read
                await ended.wait()
            requests.cancel()
        pyfuse3.close(unmount=True)
        await ending.abandon()
        if not settings.read_only:
            await mount.mirror.finish()


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
            await fuseloop.serve(_IDLE_TASKS, _TASKS)
    finally:
        ended.set()
