"""Bytes of one version, from blocks fetched ahead within the budget."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from s3fsx.errors import Changed, DeadlineExceeded, ServerFault
from tests.domain.conftest import Make
from tests.domain.harness import KIB, MIB, Domain, pattern
from tests.fakestore import FakeStore

PATH = "template/iso/a.iso"


async def test_reads_in_any_order_and_size(mount: Domain) -> None:
    data = pattern(3 * MIB + 17)
    mount.store.poke(mount.key(PATH), data)
    handle = await mount.open(PATH)
    for offset, size in [
        (0, 10),
        (2 * MIB, 128 * KIB),
        (3 * MIB, 100),
        (3 * MIB + 17, 5),
        (9 * MIB, 5),
        (5, 3 * MIB),
        (0, 0),
    ]:
        assert bytes(await mount.files.read(handle, offset, size)) == data[offset : offset + size]
    await mount.files.release(handle)
    await mount.nothing_left()


async def test_a_sequential_reader_is_fetched_ahead_in_growing_blocks(make: Make) -> None:
    mount = make(FakeStore(latency=(0.05, 0.05)))
    data = pattern(64 * MIB)
    mount.store.poke(mount.key(PATH), data)
    started = trio.current_time()
    assert await mount.read(PATH) == data
    assert mount.calls()["get_range"] < 40
    assert mount.store.peak["get_range"] > 1
    assert trio.current_time() - started < 2  # 512 reads of 128 KiB one after the other would take 25 s
    assert mount.budget.peak <= mount.options.budget
    await mount.nothing_left()


@pytest.mark.parametrize(("latency", "farther"), [(0.05, True), (8.0, False)])
async def test_a_thin_link_is_not_filled_with_more_than_it_carries(make: Make, latency: float, farther: bool) -> None:
    """A reader that has to wait is fetched further ahead for, but not where each block takes long already."""
    mount = make(FakeStore(latency=(latency, latency)), read_ahead=64 * MIB, budget=128 * MIB)
    mount.store.poke(mount.key(PATH), bytes(160 * MIB))
    await mount.read(PATH)
    assert (mount.budget.peak > 48 * MIB) == farther


async def test_the_head_of_a_huge_file_stays_cheap(mount: Domain) -> None:
    mount.store.poke(mount.key(PATH), bytes(200 * MIB))
    handle = await mount.open(PATH)
    got: list[int] = []
    get = mount.store.get_range

    async def counted(key: str, start: int, length: int, *, etag: str, size: int = 0) -> bytes:
        got.append(length)
        return await get(key, start, length, etag=etag)

    mount.store.get_range = counted  # type: ignore[method-assign]
    for i in range(8):
        await mount.files.read(handle, i * 128 * KIB, 128 * KIB)
    await mount.files.release(handle)
    assert sum(got) <= 3 * MIB
    await mount.nothing_left()


async def test_closing_cancels_what_is_under_way(make: Make) -> None:
    mount = make(FakeStore(latency=(5.0, 5.0)))
    mount.store.poke(mount.key(PATH), bytes(20 * MIB))
    handle = await mount.open(PATH)
    for i in range(3):
        await mount.files.read(handle, i * MIB, MIB)
    assert mount.busy
    await mount.files.release(handle)
    now = trio.current_time()
    await mount.idle()
    assert trio.current_time() == now
    await mount.nothing_left()


async def test_an_object_replaced_under_an_open_handle_is_stale_for_good_and_never_mixed(mount: Domain) -> None:
    old, new = pattern(20 * MIB, 1), pattern(20 * MIB, 2)
    mount.store.poke(mount.key(PATH), old)
    handle = await mount.open(PATH)
    assert bytes(await mount.files.read(handle, 0, 128 * KIB)) == old[: 128 * KIB]
    await mount.idle()
    mount.store.poke(mount.key(PATH), new)
    seen = b""

    async def read_on() -> None:
        nonlocal seen
        while len(seen) < len(old):
            seen += bytes(await mount.files.read(handle, len(seen), 128 * KIB))

    with pytest.raises(Changed) as stale:
        await read_on()
    assert stale.value.errno == errno.ESTALE
    assert old.startswith(seen)
    mount.store.poke(mount.key(PATH), old)  # even when it comes back
    with pytest.raises(Changed):
        await mount.files.read(handle, 0, 10)
    await mount.files.release(handle)
    await mount.nothing_left()


async def test_an_object_deleted_under_an_open_handle_is_stale(mount: Domain) -> None:
    mount.store.poke(mount.key(PATH), pattern(8 * MIB))
    handle = await mount.open(PATH)
    mount.store.remove(mount.key(PATH))
    with pytest.raises(Changed):
        await mount.files.read(handle, 0, 10)
    await mount.files.release(handle)


async def test_our_own_rewrite_is_seen_by_an_open_reader_as_a_whole(mount: Domain) -> None:
    await mount.write(PATH, b"old")
    reader = await mount.open(PATH)
    assert await mount.read_all(reader) == b"old"
    writer = await mount.open(PATH, os.O_WRONLY | os.O_TRUNC)
    await mount.finish(writer, b"newer")
    assert await mount.read_all(reader) == b"newer"
    await mount.files.release(reader)
    await mount.nothing_left()


async def test_an_error_is_not_remembered(mount: Domain) -> None:
    mount.store.poke(mount.key(PATH), pattern(MIB))
    handle = await mount.open(PATH)
    mount.store.fail_next("get_range", ServerFault("500"))
    with pytest.raises(ServerFault):
        await mount.files.read(handle, 0, 10)
    assert await mount.read_all(handle) == pattern(MIB)
    await mount.files.release(handle)
    await mount.nothing_left()


@pytest.mark.parametrize("budget", [64 * MIB, 64 * KIB])
async def test_a_read_of_a_hung_store_ends_by_its_deadline(make: Make, budget: int) -> None:
    mount = make(read_deadline=20.0, budget=budget)  # the small one: no block fits, each read is a GET of its own
    mount.store.poke(mount.key(PATH), bytes(4 * MIB))
    handle = await mount.open(PATH)
    mount.store.hang("get_range")
    started = trio.current_time()
    with pytest.raises(DeadlineExceeded):
        await mount.files.read(handle, 0, MIB)
    assert trio.current_time() - started == pytest.approx(20)
    mount.store.release("get_range")
    assert bytes(await mount.files.read(handle, 0, 10)) == bytes(10)
    await mount.files.release(handle)
    await mount.nothing_left()


async def test_without_memory_reads_are_direct(make: Make) -> None:
    mount = make(budget=64 * KIB)
    mount.store.poke(mount.key(PATH), pattern(MIB))
    assert await mount.read(PATH) == pattern(MIB)
    assert mount.budget.peak == 0
    await mount.nothing_left()


async def test_read_ahead_is_given_up_for_a_writer(make: Make) -> None:
    mount = make(budget=24 * MIB, read_ahead=20 * MIB)
    mount.store.poke(mount.key(PATH), pattern(64 * MIB))
    handle = await mount.open(PATH)
    position = 0
    while mount.budget.committed < 19 * MIB:
        position += len(await mount.files.read(handle, position, 128 * KIB))
    await mount.idle()  # the memory of a request that is under way comes back when that has ended
    await mount.write("dump/a", pattern(9 * MIB))
    assert mount.stored("dump/a") == pattern(9 * MIB)
    assert mount.budget.peak <= 24 * MIB
    assert (
        bytes(await mount.files.read(handle, position, 128 * KIB)) == pattern(64 * MIB)[position : position + 128 * KIB]
    )
    await mount.files.release(handle)
    await mount.nothing_left()


async def test_many_readers_and_writers_within_one_budget(make: Make) -> None:
    mount = make(FakeStore(latency=(0.01, 0.2), seed=5), budget=48 * MIB)
    for i in range(4):
        mount.store.poke(mount.key(f"dump/r{i}"), pattern(20 * MIB, i))

    async def read(i: int) -> None:
        assert await mount.read(f"dump/r{i}") == pattern(20 * MIB, i)

    async with trio.open_nursery() as nursery:
        for i in range(4):
            nursery.start_soon(read, i)
            nursery.start_soon(mount.write, f"dump/w{i}", pattern(20 * MIB, 9 + i))
    for i in range(4):
        assert mount.stored(f"dump/w{i}") == pattern(20 * MIB, 9 + i)
    assert mount.budget.peak <= 48 * MIB
    await mount.nothing_left()


@pytest.mark.parametrize("size", [5 * KIB, 17 * MIB + 5 * KIB], ids=["by its ETag", "by checksums"])
async def test_a_read_that_is_late_leaves_others_their_bytes(make: Make, size: int) -> None:
    """A read that needs one block gets it by itself; another that waits for the same must not end with it: a block
    that has not come would be the end of the file to its program. Checksums come beside the block, in a nursery, out
    of which a cancellation comes as a group."""
    writing = make()
    data = pattern(size)
    await writing.write(PATH, data)
    mount = make(writing.store, read_deadline=20.0)
    at = size - 5 * KIB
    handle = await mount.open(PATH)
    mount.store.hang("get_range")
    came = b""

    async def later() -> None:
        nonlocal came
        await trio.sleep(10)
        came = bytes(await mount.files.read(handle, at + KIB, 3 * KIB))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        with pytest.raises(DeadlineExceeded):
            await mount.files.read(handle, at, KIB)
        mount.store.release("get_range")
    assert came == data[at + KIB : at + 4 * KIB]
    assert bytes(await mount.files.read(handle, at, 8 * KIB)) == data[at:]
    await mount.files.release(handle)
    await mount.nothing_left()
