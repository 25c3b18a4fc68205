"""Random reads that come again are answered from the local disk, and nothing that happens to it is ever seen."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from s3fsx.fs.files import Handle
from s3fsx.local.blockcache import BlockCache
from s3fsx.transfer.memory import Budget
from tests.domain.harness import KIB, MIB, Domain, Options, pattern
from tests.fakestore import FakeStore

ISO = "template/iso/a.iso"
DIRECTORIES = ("template", "images")


async def inline(function: Callable[..., object], *args: object, limiter: object, abandon: bool) -> object:
    await trio.lowlevel.checkpoint()
    return function(*args)


class Node:
    """One machine: mounts that come and go, with one directory for the cache."""

    def __init__(self, directory: Path, nursery: trio.Nursery) -> None:
        self.directory = directory / "blocks"
        self.store = FakeStore()
        self._nursery = nursery
        self.in_thread: Callable[..., object] = inline

    @asynccontextmanager
    async def mounted(self, *, size: int = 64 * MIB, reserve: int = 0, **options: object) -> AsyncIterator[Domain]:
        o = Options(**options)  # type: ignore[arg-type]
        budget = Budget(o.budget)
        blocks = BlockCache(str(self.directory), size, reserve, DIRECTORIES, budget, in_thread=self.in_thread)
        async with trio.open_nursery() as background:
            background.start_soon(blocks.run)
            mount = Domain(self._nursery, self.store, o, budget=budget, blocks=blocks)
            yield mount
            await stored(mount)
            await mount.nothing_left()
            background.cancel_scope.cancel()
        blocks.close()

    def files(self) -> list[Path]:
        return sorted(path for path in self.directory.iterdir() if path.name != "lock")


async def stored(mount: Domain) -> None:
    """Until nothing waits to be stored."""
    await mount.idle()
    with trio.fail_after(60):
        while mount.blocks is not None and mount.blocks._lease.held:
            await mount.budget.wait_freed()


def numbers(mount: Domain) -> dict[str, object]:
    assert mount.blocks is not None
    return mount.blocks.snapshot()


def asked(mount: Domain) -> int:
    return mount.calls()["get_range"]


async def read_at_random(mount: Domain, data: bytes, seed: int = 1, path: str = ISO, count: int = 60) -> None:
    """Each MiB at least once, and compared."""
    places = random.Random(seed)
    handle = await mount.open(path)
    offsets = [at + places.randrange(MIB) for at in range(0, len(data), MIB)]
    offsets += [places.randrange(len(data)) for _ in range(count)]
    places.shuffle(offsets)
    for offset in offsets:
        size = places.choice([1, 4 * KIB, 64 * KIB, MIB])
        assert bytes(await mount.files.read(handle, offset, size)) == data[offset : offset + size], offset
        await stored(mount)
    await mount.files.release(handle)


@pytest.fixture
def node(tmp_path: Path, nursery: trio.Nursery) -> Node:
    return Node(tmp_path, nursery)


async def test_the_second_pass_asks_the_store_for_nothing_also_after_a_restart(node: Node) -> None:
    data = pattern(20 * MIB + 5000)
    node.store.poke("pve/" + ISO, data)
    async with node.mounted() as mount:
        await read_at_random(mount, data)
        before = asked(mount)
        await read_at_random(mount, data, seed=2)
        assert asked(mount) == before
        assert numbers(mount)["hits"] > 60  # type: ignore[operator]
    async with node.mounted() as mount:
        before = asked(mount)
        await read_at_random(mount, data, seed=3)
        assert asked(mount) == before
        assert numbers(mount)["misses"] == 0
        assert 20 * MIB < numbers(mount)["used"] < 22 * MIB  # type: ignore[operator]


async def test_it_answers_while_the_store_is_down(node: Node) -> None:
    data = pattern(12 * MIB)
    node.store.poke("pve/" + ISO, data)
    async with node.mounted() as mount:
        await read_at_random(mount, data)
        handle = await mount.open(ISO)
        node.store.down = True
        for at in range(0, len(data), MIB):
            assert bytes(await mount.files.read(handle, at, MIB)) == data[at : at + MIB]
        node.store.down = False
        await mount.files.release(handle)


@pytest.mark.parametrize("path", ["dump/vzdump-qemu-1.vma", "templates.iso", "other/a", "templateX/a"])
async def test_other_directories_leave_nothing_on_the_disk(node: Node, path: str) -> None:
    data = pattern(10 * MIB)
    node.store.poke("pve/" + path, data)
    async with node.mounted() as mount:
        await read_at_random(mount, data, path=path)
        assert node.files() == []
        assert numbers(mount)["misses"] == 0


async def test_a_long_sequential_read_stores_its_beginning_only(node: Node) -> None:
    data = pattern(60 * MIB)
    node.store.poke("pve/" + ISO, data)
    async with node.mounted() as mount:
        assert await mount.read(ISO) == data
        await stored(mount)
        assert 0 < numbers(mount)["used"] <= 32 * MIB  # type: ignore[operator]
        assert numbers(mount)["evicted"] == 0


async def test_another_version_is_never_answered_with_the_old_one_and_takes_its_place(node: Node) -> None:
    old, new = pattern(12 * MIB, 1), pattern(12 * MIB, 2)
    node.store.poke("pve/" + ISO, old)
    async with node.mounted(list_ttl=0) as mount:
        await read_at_random(mount, old)
        open_before = await mount.open(ISO)
        assert bytes(await mount.files.read(open_before, 0, 10)) == old[:10]
        node.store.poke("pve/" + ISO, new)
        await read_at_random(mount, new)
        assert len(node.files()) == 2  # the old one is in use
        assert bytes(await mount.files.read(open_before, 5 * MIB, 10)) == old[5 * MIB : 5 * MIB + 10]
        await mount.files.release(open_before)
        await mount.files.release(await opened_and_read(mount))
        await trio.sleep(60)
        assert len(node.files()) == 1
        await read_at_random(mount, new, seed=5)


async def opened_and_read(mount: Domain, path: str = ISO) -> Handle:
    handle = await mount.open(path)
    await mount.files.read(handle, 0, 1)
    return handle


async def test_our_own_rewrite_is_another_version(node: Node) -> None:
    async with node.mounted() as mount:
        for seed in range(3):
            data = pattern(10 * MIB, seed)
            await mount.write(ISO, data)
            await read_at_random(mount, data, seed=seed)
            await read_at_random(mount, data, seed=seed + 10)


async def test_two_readers_of_one_version_share_it(node: Node) -> None:
    data = pattern(16 * MIB)
    node.store.poke("pve/" + ISO, data)
    async with node.mounted() as mount:
        async with trio.open_nursery() as nursery:
            for seed in range(4):
                nursery.start_soon(read_at_random, mount, data, seed)
        before = asked(mount)
        async with trio.open_nursery() as nursery:
            for seed in range(4, 8):
                nursery.start_soon(read_at_random, mount, data, seed)
        assert asked(mount) == before
        assert len(node.files()) == 1


async def test_damage_on_the_disk_costs_one_request_and_is_mended(node: Node) -> None:
    data = pattern(10 * MIB)
    node.store.poke("pve/" + ISO, data)
    async with node.mounted() as mount:
        await read_at_random(mount, data)
    (path,) = node.files()
    rotten = random.Random(3)
    with path.open("r+b") as raw:
        for _ in range(40):
            at = rotten.randrange(path.stat().st_size)
            raw.seek(at)
            byte = raw.read(1)
            raw.seek(at)
            raw.write(bytes([byte[0] ^ 0x10]))
    async with node.mounted() as mount:
        before = asked(mount)
        for seed in range(4, 10):
            await read_at_random(mount, data, seed)
        assert asked(mount) > before
        before = asked(mount)
        await read_at_random(mount, data, 10)
        assert asked(mount) == before


async def test_the_one_not_opened_for_the_longest_time_goes_first_also_after_a_restart(node: Node) -> None:
    names = [f"template/iso/{i}.iso" for i in range(4)]
    data = {name: pattern(5 * MIB, i) for i, name in enumerate(names)}
    for name in names:
        node.store.poke("pve/" + name, data[name])
    for name in names[:3]:
        async with node.mounted(size=16 * MIB) as mount:
            await read_at_random(mount, data[name], path=name)
    async with node.mounted(size=16 * MIB) as mount:
        await read_at_random(mount, data[names[0]], path=names[0])  # 1 is the oldest now
    async with node.mounted(size=16 * MIB) as mount:
        await read_at_random(mount, data[names[3]], path=names[3])
        assert numbers(mount)["evicted"] == 1
        assert numbers(mount)["used"] <= 16 * MIB  # type: ignore[operator]
        before = asked(mount)
        for name in (names[0], names[2]):
            await read_at_random(mount, data[name], path=name)
        assert asked(mount) == before


async def test_what_is_open_is_not_evicted_and_the_limit_holds_all_the_same(node: Node) -> None:
    big, other = pattern(30 * MIB, 1), pattern(10 * MIB, 2)
    node.store.poke("pve/" + ISO, big)
    node.store.poke("pve/images/1/disk.raw", other)
    async with node.mounted(size=20 * MIB) as mount:
        handle = await opened_and_read(mount)
        await read_at_random(mount, big)
        assert 15 * MIB < numbers(mount)["used"] <= 20 * MIB  # type: ignore[operator]
        assert numbers(mount)["dropped"] > 0  # type: ignore[operator]
        await read_at_random(mount, other, path="images/1/disk.raw")
        assert numbers(mount)["evicted"] == 0
        await mount.files.release(handle)
        await read_at_random(mount, other, path="images/1/disk.raw")
        assert numbers(mount)["evicted"] == 1
        before = asked(mount)
        await read_at_random(mount, other, seed=9, path="images/1/disk.raw")
        assert asked(mount) == before


async def test_the_reserve_is_kept_and_given_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pattern(10 * MIB)
    node.store.poke("pve/" + ISO, data)
    free = 20 * MIB

    def statvfs(path: str) -> os.statvfs_result:
        used = sum(p.stat().st_blocks * 512 for p in node.files())
        blocks = max(0, free - used) // 4096
        return os.statvfs_result((4096, 4096, 25600, blocks, blocks, 0, 0, 0, 0, 255))  # a disk of 100 MiB

    monkeypatch.setattr("os.statvfs", statvfs)
    async with node.mounted(reserve=4 * MIB) as mount:  # a tenth of the disk is more
        await read_at_random(mount, data)
        assert 0 < numbers(mount)["used"] <= 10 * MIB  # type: ignore[operator]
        await trio.sleep(60)
        assert node.files() != []
        free = 12 * MIB  # somebody else takes it
        await trio.sleep(60)
        assert node.files() == []
        await read_at_random(mount, data)
    async with node.mounted(reserve=13 * MIB) as mount:
        await read_at_random(mount, data)
        assert node.files() == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
@pytest.mark.expect_log("block cache .* off until the next mount")
async def test_a_disk_that_fails_on_writing_ends_the_cache_and_no_read(
    node: Node, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    data = pattern(10 * MIB)
    node.store.poke("pve/" + ISO, data)
    written = 0
    pwrite = os.pwrite

    def failing(number: int, block: memoryview, at: int) -> int:
        nonlocal written
        written += len(block)
        if written > 3 * MIB:
            raise OSError(code, os.strerror(code))
        return pwrite(number, block[: 100 * KIB], at)  # it may also take less than it was given

    async with node.mounted() as mount:
        monkeypatch.setattr("os.pwrite", failing)
        await read_at_random(mount, data)
        await read_at_random(mount, data, 2)
        assert numbers(mount)["off"] == os.strerror(code)
        monkeypatch.undo()
    async with node.mounted() as mount:
        await read_at_random(mount, data, 3)
        before = asked(mount)
        await read_at_random(mount, data, 4)
        assert asked(mount) == before


@pytest.mark.expect_log("block cache .* off until the next mount")
async def test_a_disk_that_fails_on_reading_ends_the_cache_and_no_read(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pattern(10 * MIB)
    node.store.poke("pve/" + ISO, data)
    async with node.mounted() as mount:
        await read_at_random(mount, data)

        def failing(*args: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("os.preadv", failing)
        await read_at_random(mount, data, 2)
        assert numbers(mount)["off"] == "Input/output error"


@pytest.mark.expect_log("off until the next mount .no answer from the disk for 5 s")
async def test_a_disk_that_hangs_costs_five_seconds_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pattern(10 * MIB)
    node.store.poke("pve/" + ISO, data)
    async with node.mounted() as mount:
        await read_at_random(mount, data)

    async def hung(function: Callable[..., object], *args: object, limiter: object, abandon: bool) -> object:
        assert abandon
        return await trio.sleep_forever()

    node.in_thread = hung
    async with node.mounted() as mount:
        started = trio.current_time()
        await read_at_random(mount, data, 2)
        assert trio.current_time() - started < 6


async def test_a_file_system_without_nowait_is_read_in_threads(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """ZFS."""
    data = pattern(10 * MIB)
    node.store.poke("pve/" + ISO, data)
    preadv = os.preadv
    tried = 0

    def without(number: int, buffers: list[memoryview], at: int, flags: int = 0) -> int:
        nonlocal tried
        if flags:
            tried += 1
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return preadv(number, buffers, at)

    monkeypatch.setattr("os.preadv", without)
    async with node.mounted() as mount:
        await read_at_random(mount, data)
        before = asked(mount)
        await read_at_random(mount, data, 2)
        assert asked(mount) == before
        assert tried == 1


async def test_a_slow_disk_is_waited_for_in_a_thread(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pattern(10 * MIB)
    node.store.poke("pve/" + ISO, data)
    preadv = os.preadv

    def slow(number: int, buffers: list[memoryview], at: int, flags: int = 0) -> int:
        if flags:
            return preadv(number, [buffers[0][:4096]], at)  # the first page is in memory
        return preadv(number, buffers, at)

    monkeypatch.setattr("os.preadv", slow)
    async with node.mounted() as mount:
        await read_at_random(mount, data)
        before = asked(mount)
        await read_at_random(mount, data, 2)
        assert asked(mount) == before


async def test_a_second_mount_has_no_cache_and_says_so(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = pattern(10 * MIB)
    node.store.poke("pve/" + ISO, data)
    async with node.mounted(), node.mounted() as second:
        await read_at_random(second, data)
        assert node.files() == []
        assert "another mount" in str(numbers(second)["off"])
    assert [r.message for r in caplog.records if "another mount" in r.message] != []


async def test_nothing_waits_for_the_disk_and_writers_get_its_memory(node: Node) -> None:
    data = pattern(40 * MIB)
    node.store.poke("pve/" + ISO, data)
    go = trio.Event()

    async def waiting(function: Callable[..., object], *args: object, limiter: object, abandon: bool) -> object:
        await go.wait()
        return function(*args)

    node.in_thread = waiting
    async with node.mounted(size=64 * MIB) as mount:
        handle = await mount.open(ISO)
        for at in range(0, len(data), 5 * MIB):  # strides: each is stored
            assert bytes(await mount.files.read(handle, at, KIB)) == data[at : at + KIB]
        for at in range(2 * MIB, len(data), 5 * MIB):
            assert bytes(await mount.files.read(handle, at, KIB)) == data[at : at + KIB]
        await mount.idle()
        assert mount.blocks is not None
        assert 0 < mount.blocks._lease.held <= 16 * MIB
        mount.budget.press(promised=True)
        assert mount.blocks._lease.held <= 2 * MIB  # at most what is being stored
        assert numbers(mount)["dropped"] > 0  # type: ignore[operator]
        go.set()
        await mount.files.release(handle)


async def test_a_file_that_is_closed_leaves_no_descriptor_to_the_garbage_collector(node: Node) -> None:
    """The space of what is evicted would stay in use with it: seen on a full disk."""
    data = pattern(5 * MIB)
    node.store.poke("pve/" + ISO, data)
    async with node.mounted() as mount:
        handle = await opened_and_read(mount)
        await stored(mount)
        reader = handle.reader  # as a cycle would
        assert reader is not None
        assert open_below(node.directory) > 1
        await mount.files.release(handle)
        assert open_below(node.directory) == 1  # the lock


def open_below(directory: Path) -> int:
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(1 for link in links if link.is_relative_to(directory))


async def test_size_0_is_off_and_makes_nothing(node: Node) -> None:
    data = pattern(10 * MIB)
    node.store.poke("pve/" + ISO, data)
    async with node.mounted(size=0) as mount:
        await read_at_random(mount, data)
    assert not node.directory.exists()
