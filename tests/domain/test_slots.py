"""How many parts are under way at once, over all files."""

from __future__ import annotations

import pytest
import trio

from s3fsx.errors import Rejected
from s3fsx.transfer.concurrency import START
from tests.domain.conftest import Make
from tests.domain.harness import KIB, MIB, SMALL_PART, SmallSchedule, pattern
from tests.fakestore import FakeStore


async def test_latency_is_hidden_by_more_parts_at_once(make: Make, schedule: SmallSchedule) -> None:
    store = FakeStore(min_part=4 * KIB, latency=(1.0, 1.2))
    mount = make(store, schedule=schedule, budget=4 * MIB, max_uploads=16)
    started = trio.current_time()
    await mount.write("dump/a", pattern(300 * SMALL_PART))
    assert 12 <= store.peak["upload_part"] <= 16
    assert trio.current_time() - started < 300 / START  # what START at a time would take at the very least
    await mount.nothing_left()


async def test_a_writer_slower_than_the_store_gets_no_more_places(make: Make, schedule: SmallSchedule) -> None:
    store = FakeStore(min_part=4 * KIB, latency=(1.0, 1.2))
    mount = make(store, schedule=schedule, budget=4 * MIB, max_uploads=16)
    handle = await mount.create("dump/a")
    for part in range(100):
        await mount.files.write(handle, part * SMALL_PART, pattern(SMALL_PART))
        await trio.sleep(0.5)
    await mount.close(handle)
    assert store.peak["upload_part"] <= START
    assert mount.transfers.slots.limit == START


async def test_files_take_turns(make: Make, schedule: SmallSchedule) -> None:
    store = FakeStore(min_part=4 * KIB, latency=(1.0, 1.0))
    mount = make(store, schedule=schedule, budget=4 * MIB)
    ended: dict[str, float] = {}

    async def write(name: str, parts: int) -> None:
        await mount.write(name, pattern(parts * SMALL_PART))
        ended[name] = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, "dump/long", 100)
        await trio.sleep(3)
        nursery.start_soon(write, "dump/short", 10)
    assert ended["dump/short"] < ended["dump/long"] / 2


async def test_what_fails_or_is_given_up_leaves_its_place(make: Make, schedule: SmallSchedule) -> None:
    store = FakeStore(min_part=4 * KIB, latency=(1.0, 1.0))
    mount = make(store, schedule=schedule, budget=4 * MIB)
    for attempt in range(START):
        store.fail_next("upload_part", Rejected("no"))
        with pytest.raises(Rejected):
            await mount.write(f"dump/{attempt}", pattern(5 * SMALL_PART))
    await mount.idle()
    store.peak.clear()
    await mount.write("dump/a", pattern(20 * SMALL_PART))
    assert store.peak["upload_part"] >= START
    await mount.nothing_left()
