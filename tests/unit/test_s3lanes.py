"""Threads that are left behind: what comes after them on the same key waits for their end."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio

from s3fsx.errors import ConnectionFailed, EndpointDown, S3fsxError, UploadGone
from s3fsx.s3.lanes import PUBLISH_THREADS, Lane, Lanes, Requests
from s3fsx.s3.options import S3Options
from s3fsx.store.endpoint import Endpoint

pytestmark = pytest.mark.expect_log("is down", optional=True)


def translate(what: str, error: Exception) -> S3fsxError:
    return S3fsxError(f"{what}: {error}")


class Store:
    """Requests that hang until they are let go, and the order of those that came through."""

    def __init__(self) -> None:
        self.endpoint = Endpoint("store", patience=0.05)
        self.requests = Requests(self.endpoint, lambda name: self, translate)
        self.lanes = Lanes(S3Options("bucket"))
        self.go = threading.Event()
        self.done: list[str] = []

    async def run(self, lane: Lane, name: str, key: str, *, hang: bool = False) -> None:
        def work(_: Any) -> None:
            if hang:
                assert self.go.wait(30)
            self.done.append(name)

        await self.requests.run(lane, name, f"{name} {key}", work, key)

    async def left_behind(self, name: str, key: str) -> None:
        """A Complete under way when the outage becomes too long."""
        self.endpoint._open()
        with pytest.raises(EndpointDown):
            await self.run(self.lanes.publish, name, key, hang=True)
        self.endpoint._answered()


async def eventually(condition: Callable[[], bool]) -> None:
    """For what a thread does: it sets no event of ours."""
    for _ in range(3000):
        if condition():
            return
        await trio.sleep(0.01)
    raise AssertionError


async def test_a_change_of_the_same_key_waits_for_the_thread() -> None:
    store = Store()
    await store.left_behind("COMPLETE", "dump/a")
    assert store.done == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run, store.lanes.settle, "ABORT", "dump/a")
        nursery.start_soon(store.run, store.lanes.change, "DELETE", "dump/a")
        await store.run(store.lanes.put, "PUT", "dump/b")  # another key
        await trio.sleep(0.1)
        assert store.done == ["PUT"]
        store.go.set()
    assert store.done[:2] == ["PUT", "COMPLETE"]
    assert set(store.done[2:]) == {"ABORT", "DELETE"}
    assert store.requests._left == {}


async def test_the_place_in_the_lane_is_kept_until_the_thread_ends() -> None:
    store = Store()
    for number in range(PUBLISH_THREADS):
        await store.left_behind("COMPLETE", f"dump/{number}")
    assert store.lanes.publish.limiter.available_tokens == 0
    with trio.move_on_after(0.1) as scope:
        await store.run(store.lanes.publish, "COMPLETE", "dump/x")
    assert scope.cancelled_caught
    store.go.set()
    await eventually(lambda: store.lanes.publish.limiter.available_tokens == PUBLISH_THREADS)
    await store.run(store.lanes.publish, "COMPLETE", "dump/x")


async def test_the_wait_for_it_ends_with_the_outage_patience() -> None:
    store = Store()
    await store.left_behind("COMPLETE", "dump/a")
    store.endpoint._open()
    with pytest.raises(EndpointDown):
        await store.run(store.lanes.settle, "ABORT", "dump/a")
    store.go.set()
    await eventually(lambda: store.done == ["COMPLETE"])


async def test_a_connection_for_later_holds_nothing_up() -> None:
    store, trying = Store(), threading.Event()

    def connect() -> None:
        trying.set()
        assert store.go.wait(30)
        raise OSError("nobody listens")

    store.connect = connect  # type: ignore[attr-defined]

    async def request(what: str) -> None:
        assert await trio.to_thread.run_sync(trying.wait, 30)
        await store.run(store.lanes.settle, what, "dump/a")
        if what == "ABORT":
            raise UploadGone("dump/a")

    await store.requests.before(store.lanes.publish, lambda: request("LIST PARTS"))
    with pytest.raises(UploadGone):
        await store.requests.before(store.lanes.publish, lambda: request("ABORT"))
    assert store.done == ["LIST PARTS", "ABORT"]
    store.go.set()
    await eventually(lambda: store.lanes.publish.limiter.available_tokens == PUBLISH_THREADS)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_what_a_failed_request_was_to_send_is_free_without_the_collector(attempts: int) -> None:
    store, bodies = Store(), []

    class Body:
        """One that can be watched."""

    async def fail() -> None:
        body = Body()
        bodies.append(weakref.ref(body))

        def work(_: Any, body: Body = body) -> None:
            raise ConnectionFailed("reset")

        await store.requests.run(replace(store.lanes.put, attempts=attempts), "PutObject", "PUT a", work)

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(ConnectionFailed):
                await fail()
        await eventually(lambda: all(body() is None for body in bodies))
    finally:
        gc.enable()
