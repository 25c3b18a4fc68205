"""The hooks that other tests rely on; the S3 semantics of FakeStore are in tests/contract."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from s3fsx.errors import DeadlineExceeded, EndpointDown, NotFound, ServerFault
from s3fsx.store.objects import Payload
from tests.fakestore import FakeStore


async def test_a_planned_failure_hits_the_next_calls_only() -> None:
    store = FakeStore()
    store.fail_next("put", ServerFault("x"), times=2)
    for _ in range(2):
        with pytest.raises(ServerFault):
            await store.put("k", Payload.of(b"1"), metadata={})
    assert store.keys() == []
    await store.put("k", Payload.of(b"1"), metadata={})
    assert store.log == [("put", "k")] * 3


async def test_a_failure_after_the_effect_leaves_the_effect() -> None:
    store = FakeStore()
    store.fail_next("put", ServerFault("x"), after_effect=True)
    with pytest.raises(ServerFault):
        await store.put("k", Payload.of(b"1"), metadata={})
    assert store.data("k") == b"1"


async def test_a_hung_call_ends_by_its_deadline_or_its_release(autojump_clock: MockClock) -> None:
    store = FakeStore()
    store.poke("k", b"1")
    store.hang("head")
    start = trio.current_time()
    with pytest.raises(DeadlineExceeded):
        await store.head("k")
    assert trio.current_time() - start == pytest.approx(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.head, "k")
        await trio.sleep(1)
        store.release("head")
    assert trio.current_time() - start == pytest.approx(11)


async def test_an_outage_refuses_new_work_and_holds_uploads(autojump_clock: MockClock) -> None:
    store = FakeStore()
    upload = await store.create_upload("k", metadata={})
    store.down = True
    with pytest.raises(EndpointDown):
        await store.head("k")
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.upload_part, "k", upload, 1, Payload.of(b"1"))
        await trio.sleep(30)
        store.down = False
    assert trio.current_time() - start == pytest.approx(30)
    assert [part.size for part in await store.list_parts("k", upload)] == [1]


async def test_latency_is_drawn_from_the_seed(autojump_clock: MockClock) -> None:
    async def run(seed: int) -> float:
        store = FakeStore(latency=(0.1, 0.2), seed=seed)
        start = trio.current_time()
        for _ in range(3):
            with pytest.raises(NotFound):
                await store.head("k")
        return trio.current_time() - start

    assert await run(1) == pytest.approx(await run(1))
    assert 0.3 <= await run(2) <= 0.6
