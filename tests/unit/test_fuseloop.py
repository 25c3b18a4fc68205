"""What pyfuse3's loop waits with: who gets the lock, and that other tasks are not starved."""

from __future__ import annotations

import os

import trio
import trio.testing

from s3fsx.kernel.fuseloop import Readable, ReadLock


async def test_a_free_lock_is_taken_without_a_checkpoint() -> None:
    lock, done = ReadLock(), False

    async def other() -> None:
        nonlocal done
        done = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(100):
            async with lock:
                pass
        assert not done


async def test_one_at_a_time_and_everybody_in_the_end(autojump_clock: trio.testing.MockClock) -> None:
    lock, inside, served = ReadLock(), 0, 0

    async def reader() -> None:
        nonlocal inside, served
        for _ in range(5):
            async with lock:
                inside += 1
                assert inside == 1
                await trio.sleep(1)
                inside -= 1
            served += 1
            await trio.sleep(2)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(reader)
    assert served == 40


async def test_a_cancelled_waiter_and_a_cancelled_holder_leave_the_lock_usable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lock, got = ReadLock(), 0

    async def use(hold: float) -> None:
        nonlocal got
        async with lock:
            got += 1
            await trio.sleep(hold)

    async with trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(4)]

        async def cancellable(scope: trio.CancelScope) -> None:
            with scope:
                await use(1000)

        for scope in scopes:
            nursery.start_soon(cancellable, scope)
        await trio.testing.wait_all_tasks_blocked()
        assert got == 1
        scopes[2].cancel()
        await trio.testing.wait_all_tasks_blocked()
        for scope in scopes:
            scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(use, 0)
        await trio.testing.wait_all_tasks_blocked()
    assert got >= 2


async def test_a_readable_descriptor_lets_others_run_now_and_then() -> None:
    readable, ticks = Readable(), 0
    receiver, sender = os.pipe()
    try:
        os.write(sender, b"x")

        async def other() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(100):
                await readable.wait_readable(receiver)
            assert 5 < ticks < 60
            nursery.cancel_scope.cancel()
    finally:
        os.close(receiver)
        os.close(sender)


async def test_a_task_that_waited_for_its_turn_does_not_look_for_a_request() -> None:
    """Who woke it has one and waits for its answer: a look (ten system calls) would be in vain."""
    turns: list[bool] = []
    lock = ReadLock(turns.append)

    async def turn() -> None:
        async with lock:
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(turn)
    await turn()
    assert turns == [False, True, True, False]
    readable, receiver = Readable(), os.eventfd(1)
    try:
        with trio.CancelScope() as scope:  # a look is no checkpoint
            scope.cancel()
            await readable.wait_readable(receiver)
        assert not scope.cancelled_caught
        readable.expected = False
        with trio.CancelScope() as scope:
            scope.cancel()
            await readable.wait_readable(receiver)
        assert scope.cancelled_caught
    finally:
        os.close(receiver)


async def test_an_unreadable_descriptor_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    readable = Readable()
    receiver, sender = os.pipe()
    try:
        with trio.move_on_after(5) as scope:
            await readable.wait_readable(receiver)
        assert scope.cancelled_caught
    finally:
        os.close(receiver)
        os.close(sender)
