"""Many writers and readers, one budget: everybody gets on, nobody holds what another was promised."""

from __future__ import annotations

import gc
import os
import weakref
from random import Random

import pytest
import trio

from s3fsx.errors import ServerFault
from s3fsx.transfer.memory import Budget
from s3fsx.transfer.window import Window
from tests.domain.conftest import Make
from tests.domain.harness import KIB, SmallSchedule, pattern
from tests.fakestore import FakeStore

RESERVE = 5 * KIB  # of a writer in small units: a part of 4 KiB and a chunk


async def test_a_new_writer_is_admitted_while_others_have_everything_under_way(
    make: Make, schedule: SmallSchedule
) -> None:
    """A backup's notes must not fail because other backups are busy."""
    store = FakeStore(min_part=4 * KIB)
    mount = make(store, schedule=schedule, budget=40 * KIB)
    store.hang("upload_part")
    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(mount.write, f"dump/{n}", pattern(40 * KIB, n), KIB)
        await trio.sleep(1)
        assert mount.budget.held == 40 * KIB
        late = [await mount.create(f"dump/late{n}") for n in range(5)]
        nursery.start_soon(mount.finish, late[0], pattern(3 * KIB, 9))
        await trio.sleep(1)
        store.release("upload_part")
    assert mount.stored("dump/late0") == pattern(3 * KIB, 9)
    for n in range(3):
        assert mount.stored(f"dump/{n}") == pattern(40 * KIB, n)
    assert mount.budget.peak <= 40 * KIB
    for handle in late[1:]:
        await mount.close(handle)
    await mount.nothing_left()


async def test_paused_writers_give_up_what_others_were_promised(make: Make, schedule: SmallSchedule) -> None:
    """Five backups whose guests pause with a full part hold everything; three more are written all the same."""
    mount = make(FakeStore(min_part=4 * KIB), schedule=schedule, budget=40 * KIB)
    paused = [await mount.create(f"dump/paused{n}") for n in range(5)]
    for n, handle in enumerate(paused):
        await mount.fill(handle, pattern(8 * KIB, n), step=KIB)
    assert mount.budget.held == 40 * KIB
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(mount.write, f"dump/{n}", pattern(50 * KIB, 10 + n), KIB)
    assert trio.current_time() - started < 30  # the deadline of a write is 120
    for n, handle in enumerate(paused):
        await mount.fill(handle, pattern(30 * KIB, n)[8 * KIB :], offset=8 * KIB, step=KIB)
        await mount.close(handle)
    for n in range(3):
        assert mount.stored(f"dump/{n}") == pattern(50 * KIB, 10 + n)
    for n in range(5):
        assert mount.stored(f"dump/paused{n}") == pattern(30 * KIB, n)
    assert mount.budget.peak <= 40 * KIB
    await mount.nothing_left()


async def test_files_that_are_published_and_open_give_up_theirs(make: Make, schedule: SmallSchedule) -> None:
    mount = make(FakeStore(min_part=4 * KIB), schedule=schedule, budget=40 * KIB)
    handles = [await mount.create(f"dump/open{n}", os.O_RDWR) for n in range(5)]
    for n, handle in enumerate(handles):
        await mount.fill(handle, pattern(8 * KIB, n), step=KIB)
        await mount.files.fsync(handle)
    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(mount.write, f"dump/{n}", pattern(50 * KIB, 10 + n), KIB)
    for n, handle in enumerate(handles):
        assert await mount.read_all(handle) == pattern(8 * KIB, n)
        await mount.fill(handle, b"edited", offset=100)
        await mount.close(handle)
        assert mount.stored(f"dump/open{n}")[100:106] == b"edited"
    assert mount.budget.peak <= 40 * KIB
    await mount.nothing_left()


async def test_idle_readers_give_up_what_writers_were_promised(make: Make, schedule: SmallSchedule) -> None:
    store = FakeStore(min_part=4 * KIB)
    mount = make(store, schedule=schedule, budget=512 * KIB, read_ahead=256 * KIB)
    store.poke(mount.key("dump/big"), pattern(1 << 20))
    readers = [await mount.open("dump/big") for _ in range(8)]
    for handle in readers:  # each ends in the middle of a block
        await mount.files.read(handle, 0, 44 * KIB - 100)
    await mount.idle()
    assert mount.budget.held > 300 * KIB
    async with trio.open_nursery() as nursery:
        for n in range(100):
            nursery.start_soon(mount.write, f"dump/{n}", pattern(20 * KIB, n), KIB)
    for n in range(100):
        assert mount.stored(f"dump/{n}") == pattern(20 * KIB, n)
    for handle in readers:
        assert bytes(await mount.files.read(handle, 5000, 100)) == pattern(1 << 20)[5000:5100]
        await mount.files.release(handle)
    assert mount.budget.peak <= 512 * KIB
    await mount.nothing_left()


async def test_twenty_writers_and_readers_on_a_store_that_stalls(make: Make, schedule: SmallSchedule) -> None:
    """No deadlock, and nobody is left behind: each write goes on within the deadline once the store does."""
    store = FakeStore(min_part=4 * KIB, latency=(0.01, 0.5), seed=3)
    mount = make(store, schedule=schedule, budget=20 * RESERVE, read_ahead=32 * KIB)
    store.poke(mount.key("dump/big"), pattern(300 * KIB))
    ended: dict[int, float] = {}

    async def write(n: int) -> None:
        await mount.write(f"dump/{n}", pattern(60 * KIB, n), KIB)
        ended[n] = trio.current_time()

    async def read() -> None:
        assert await mount.read("dump/big") == pattern(300 * KIB)

    async def stall() -> None:
        for _ in range(3):
            await trio.sleep(1)
            for op in ("upload_part", "get_range"):
                store.hang(op)
            await trio.sleep(20)
            for op in ("upload_part", "get_range"):
                store.release(op)

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stall)
        for n in range(20):
            nursery.start_soon(write, n)
            nursery.start_soon(read)
    for n in range(20):
        assert mount.stored(f"dump/{n}") == pattern(60 * KIB, n)
    assert max(ended.values()) - started < 120
    assert mount.budget.peak <= 20 * RESERVE
    await mount.nothing_left()


class Chunk(bytearray):
    """One that can be watched."""


@pytest.mark.parametrize("op", ["put", "upload_part", "complete_upload"])
async def test_memory_of_what_failed_is_free_without_the_collector(
    make: Make, schedule: SmallSchedule, monkeypatch: pytest.MonkeyPatch, op: str
) -> None:
    """Which looks seldom: a backup that failed would stay in memory until the next one is half written."""
    chunks: list[weakref.ref[Chunk]] = []

    def new_chunk(_: Budget) -> bytearray:
        chunk = Chunk(KIB)
        chunks.append(weakref.ref(chunk))
        return chunk

    monkeypatch.setattr(Budget, "new_chunk", new_chunk)
    mount = make(FakeStore(min_part=4 * KIB), schedule=schedule)
    mount.store.fail_next(op, ServerFault("500"), times=9)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ServerFault):
            await mount.write("dump/a", pattern((7 if op == "put" else 30) * KIB))
        await mount.idle()
        assert chunks
        mount.budget._spare.clear()  # one is kept for the next file
        assert [chunk for chunk in chunks if chunk() is not None] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("seed", [1, 2, 25, 36, 55])
async def test_readers_short_of_memory_hold_no_block_that_they_have_forgotten(
    make: Make, schedule: SmallSchedule, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """It would stay until the file is closed: what is fetched first can take the place of what was planned after it."""
    for name, size in {"BLOCK": 8, "NEAR": 4, "BACK": 1, "IDLE": 4, "GRAIN": 1}.items():
        monkeypatch.setattr(f"s3fsx.transfer.window.{name}", size * KIB)
    monkeypatch.setattr(Window.__init__, "__kwdefaults__", {"first": KIB, "block": 8 * KIB})
    random = Random(seed)
    mount = make(
        FakeStore(latency=(0.01, 0.1), seed=seed),
        schedule=schedule,
        budget=random.choice([20, 32, 48, 64]) * KIB,
        read_ahead=random.choice([16, 32, 64]) * KIB,
    )
    content = pattern(400 * KIB)
    mount.store.poke(mount.key("template/iso/a"), content)

    async def read(reader: Random) -> None:
        handle = await mount.open("template/iso/a")
        offset = 0
        while offset < len(content):
            size = reader.choice([512, 1024, 4096])
            assert bytes(await mount.files.read(handle, offset, size)) == content[offset : offset + size]
            assert handle.reader is not None
            assert all(handle.reader._window.knows(block) for block in handle.reader._fetches)
            offset = reader.randrange(len(content)) if reader.random() < 0.02 else offset + size
        await mount.files.release(handle)

    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(read, Random(seed * 1000 + n))
    await mount.nothing_left()
