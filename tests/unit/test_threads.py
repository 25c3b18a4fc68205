"""Calls in worker threads: results, failures, places, cancellation, and that nothing is left."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable

import pytest
import trio
import trio.testing

from s3fsx.transfer import threads
from s3fsx.transfer.threads import check_cancelled, in_thread

LIMIT = 10.0  # seconds: generous


def workers() -> int:
    return sum(thread.name == "s3fsx worker" for thread in threading.enumerate())


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


async def test_what_a_function_returns_and_raises() -> None:
    limiter = trio.CapacityLimiter(1)
    assert await in_thread(max, 3, 7, limiter=limiter, abandon=False) == 7
    assert await in_thread(threading.get_ident, limiter=None, abandon=True) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0, limiter=limiter, abandon=False)
    with pytest.raises(SystemExit):
        await in_thread(lambda: exit(3), limiter=limiter, abandon=True)
    assert limiter.borrowed_tokens == 0


async def test_many_at_once_within_their_limit() -> None:
    limiter, inside, most = trio.CapacityLimiter(5), 0, 0
    lock = threading.Lock()
    done: list[int] = []

    def work(number: int) -> int:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.001)
        with lock:
            inside -= 1
        return number

    async def one(number: int) -> None:
        done.append(await in_thread(work, number, limiter=limiter, abandon=number % 2 == 0))

    before = workers()
    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(one, number)
    assert sorted(done) == list(range(200))
    assert most <= 5
    assert workers() - before <= 6  # one may have answered and not be idle yet


async def test_an_abandoned_call_goes_on_and_keeps_its_place() -> None:
    limiter, go, went = trio.CapacityLimiter(1), threading.Event(), threading.Event()

    def work() -> None:
        go.wait(LIMIT)
        went.set()

    with trio.move_on_after(0.01) as scope:
        await in_thread(work, limiter=limiter, abandon=True)
    assert scope.cancelled_caught
    assert limiter.borrowed_tokens == 1
    with trio.move_on_after(0.01) as scope:
        await in_thread(work, limiter=limiter, abandon=True)  # waits for the place, and never begins
    assert scope.cancelled_caught
    go.set()
    assert await in_thread(lambda: went.is_set(), limiter=limiter, abandon=True)
    assert limiter.borrowed_tokens == 0


async def test_other_calls_are_waited_for() -> None:
    limiter, ended = trio.CapacityLimiter(1), threading.Event()

    def work() -> str:
        time.sleep(0.05)
        ended.set()
        return "whole"

    with trio.move_on_after(0.001) as scope:
        assert await in_thread(work, limiter=limiter, abandon=False) == "whole"
        assert ended.is_set()
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_a_call_may_see_that_its_caller_was_cancelled() -> None:
    limiter, beats = trio.CapacityLimiter(1), 0

    def work() -> None:
        nonlocal beats
        for _ in range(10_000):
            check_cancelled()
            beats += 1
            time.sleep(0.001)

    with trio.move_on_after(0.02) as scope:
        await in_thread(work, limiter=limiter, abandon=False)
    assert scope.cancelled_caught
    assert beats < 10_000
    assert limiter.borrowed_tokens == 0
    check_cancelled()  # elsewhere it is nothing


async def test_a_cancelled_caller_begins_nothing() -> None:
    begun = threading.Event()
    with trio.CancelScope() as scope:
        scope.cancel()
        await in_thread(begun.set, limiter=None, abandon=False)
    assert scope.cancelled_caught
    assert not begun.is_set()


class Large:
    pass


async def test_results_and_failures_do_not_stay_in_memory() -> None:
    """The collector is calmed in a mount: no cycles, no thread that remembers its last call."""
    seen: list[weakref.ref[Large]] = []

    def work(fails: bool) -> Large:
        large = Large()
        seen.append(weakref.ref(large))
        if fails:
            raise ValueError(large)
        return large

    gc.disable()
    try:
        await in_thread(work, False, limiter=None, abandon=False)
        try:
            await in_thread(work, True, limiter=None, abandon=False)
        except ValueError as e:
            e.with_traceback(None)
        await in_thread(lambda: None, limiter=None, abandon=False)
        await trio.lowlevel.checkpoint()
        assert [reference() for reference in seen] == [None, None]
    finally:
        gc.enable()


def test_threads_end_when_they_are_idle_and_with_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_IDLE", 0.05)
    before = workers()

    async def main() -> None:
        await in_thread(lambda: None, limiter=None, abandon=False)
        end = trio.current_time() + LIMIT
        while workers() > before:
            assert trio.current_time() < end
            await trio.sleep(0.01)
        await in_thread(lambda: None, limiter=None, abandon=False)

    trio.run(main)
    monkeypatch.setattr(threads, "_IDLE", LIMIT)
    trio.run(in_thread_once)
    until(lambda: workers() <= before)


async def in_thread_once() -> None:
    await in_thread(lambda: None, limiter=None, abandon=False)


def test_a_call_that_outlives_its_loop_disturbs_no_other() -> None:
    """Not by the descriptor that once was its loop's, either."""
    go, over = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(LIMIT)
        over.set()

    async def leave() -> None:
        with trio.move_on_after(0.01):
            await in_thread(work, limiter=None, abandon=True)

    before = len(os.listdir("/proc/self/fd"))
    trio.run(leave)
    assert len(os.listdir("/proc/self/fd")) <= before
    reader, writer = os.pipe2(os.O_NONBLOCK)
    try:
        go.set()
        assert over.wait(LIMIT)
        trio.run(in_thread_once)
        with pytest.raises(BlockingIOError):
            os.read(reader, 8)
    finally:
        os.close(reader)
        os.close(writer)


async def test_without_more_threads_calls_wait_for_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter, go = trio.CapacityLimiter(10), threading.Event()
    done: list[int] = []

    def work(number: int) -> int:
        assert go.wait(LIMIT)
        return number

    async def one(number: int) -> None:
        done.append(await in_thread(work, number, limiter=limiter, abandon=False))

    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, 0)
            await trio.testing.wait_all_tasks_blocked()
            monkeypatch.setattr(threading.Thread, "start", no_more)
            for number in range(1, 5):
                nursery.start_soon(one, number)
            await trio.testing.wait_all_tasks_blocked()
            go.set()
        assert await in_thread(max, 1, 2, limiter=limiter, abandon=True) == 2
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert limiter.borrowed_tokens == 0


def test_without_any_thread_a_call_fails_and_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def call() -> None:
        limiter = trio.CapacityLimiter(1)
        with pytest.raises(RuntimeError, match="new thread"):
            await in_thread(max, 1, 2, limiter=limiter, abandon=True)
        assert limiter.borrowed_tokens == 0

    monkeypatch.setattr(threading.Thread, "start", no_more)
    trio.run(call)
