from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from s3fsx.errors import ConnectionFailed, EndpointDown, Throttled
from s3fsx.store.endpoint import PROBE_LIMIT, SILENT_AFTER, Endpoint
from s3fsx.store.patience import Patience

pytestmark = pytest.mark.expect_log("is down", optional=True)


async def test_a_wait_ends_when_an_outage_has_lasted_long_enough(autojump_clock: MockClock) -> None:
    patience, start = Patience(30), trio.current_time()

    async def outage() -> None:
        await trio.sleep(100)
        patience.outage()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outage)
        with pytest.raises(EndpointDown, match="k: the endpoint has been down for 30 s"), patience.scope("k"):
            await trio.sleep_forever()
    assert trio.current_time() - start == pytest.approx(130)
    with pytest.raises(EndpointDown), patience.scope("k"):  # the outage goes on: at once
        raise AssertionError
    patience.recovery()
    with patience.scope("k"):
        await trio.sleep(1000)


async def test_a_recovery_gives_all_the_time_back(autojump_clock: MockClock) -> None:
    patience = Patience(30)

    async def flapping() -> None:
        for _ in range(10):
            patience.outage()
            await trio.sleep(20)
            patience.recovery()
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flapping)
        with patience.scope("k"):
            await trio.sleep(205)


async def never() -> None:
    await trio.sleep(math.inf)


async def test_requests_that_wait_make_the_watch_ask(autojump_clock: MockClock) -> None:
    """A hung store is found out long before the deadline of the part that waits for it."""
    e = Endpoint("store", patience=30)

    async def answered() -> str:
        return ""

    await e.call(answered, what="X", deadline=1)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(e.watch, never)
        await trio.sleep(7)  # idle: nobody asks
        assert not e.down
        begun = trio.current_time()
        with pytest.raises(EndpointDown, match="outage_patience"):
            await e.call(never, what="COMPLETE k", deadline=120, through_outage=True, interrupt=False, patient=True)
        assert e.down
        assert trio.current_time() - begun <= SILENT_AFTER + PROBE_LIMIT + 1 + 30
        nursery.cancel_scope.cancel()
    assert trio.current_time() - start < 60


async def test_a_slow_store_is_not_down(autojump_clock: MockClock) -> None:
    """Every answer takes 3 s; one request takes minutes."""
    e = Endpoint("store")

    async def slow() -> str:
        await trio.sleep(3)
        return "answer"

    async def copying() -> str:
        await trio.sleep(300)
        return "copied"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(e.watch, slow)
        assert await e.call(copying, what="COPY", deadline=120, interrupt=False, patient=True) == "copied"
        for _ in range(5):
            assert await e.call(slow, what="X", deadline=10) == "answer"
        assert not e.down
        nursery.cancel_scope.cancel()


async def test_a_storm_of_throttling_is_no_outage(autojump_clock: MockClock) -> None:
    e = Endpoint("store")

    async def throttled() -> str:
        raise Throttled("503")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(e.watch, throttled)
        await trio.sleep(600)
        assert not e.down
        nursery.cancel_scope.cancel()


async def test_what_is_not_patient_goes_on_through_it(autojump_clock: MockClock) -> None:
    """A part: it holds no directory, and an upload of hours must survive a restart of the store."""
    e, began = Endpoint("store", patience=30), trio.current_time()

    async def restarting() -> str:
        if trio.current_time() - began < 90:
            raise ConnectionFailed("refused")
        return "stored"

    result = await e.call(restarting, what="part", deadline=120, through_outage=True, interrupt=False)
    assert result == "stored"
    began = trio.current_time()
    with pytest.raises(EndpointDown):
        await e.call(restarting, what="COMPLETE", deadline=120, through_outage=True, interrupt=False, patient=True)
    assert 29 < trio.current_time() - began < 40
