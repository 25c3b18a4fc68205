"""The byte budget: never exceeded, never a deadlock, and everything comes back."""

from __future__ import annotations

import errno

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from s3fsx.errors import FileSystemError
from s3fsx.memory import Budget, Lease


def test_admission_counts_reservations_and_refuses_at_once() -> None:
    budget = Budget(100)
    first, second = budget.admit(40), budget.admit(60)
    assert budget.committed == 100
    with pytest.raises(FileSystemError) as refused:
        budget.admit(1)
    assert refused.value.errno == errno.ENOMEM
    second.close()
    budget.admit(60)
    first.close()
    first.close()  # harmless
    assert budget.committed == 60


def test_what_is_within_the_reservation_is_always_there() -> None:
    budget = Budget(100)
    mine, other = budget.admit(40), budget.admit(10)
    assert other.try_take(60)  # all that is shared
    assert not other.try_take(1)
    assert mine.try_take(40)
    assert not mine.try_take(1)
    assert (budget.committed, budget.peak) == (100, 100)


def test_admission_asks_readers_to_give_up_first() -> None:
    budget = Budget(100)
    reader = Lease(budget, 0)
    assert reader.try_take(90)
    unregister = budget.on_pressure(lambda: reader.give(90))
    lease = budget.admit(50)
    assert (reader.held, budget.committed) == (0, 50)
    unregister()
    assert reader.try_take(50)
    with pytest.raises(FileSystemError):
        budget.admit(10)
    lease.close()


async def test_taking_waits_for_whoever_gives(autojump_clock: MockClock) -> None:
    budget = Budget(100)
    holder, waiter = budget.admit(10), budget.admit(10)
    assert holder.try_take(90)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiter.take, 20)
        await wait_all_tasks_blocked()
        assert waiter.held == 0
        holder.give(5)
        await wait_all_tasks_blocked()
        assert waiter.held == 0  # not enough
        holder.give(5)
    assert (waiter.held, budget.committed) == (20, 100)


async def test_giving_within_the_reservation_wakes_the_own_next_part(autojump_clock: MockClock) -> None:
    budget = Budget(20)
    lease = budget.admit(20)
    assert lease.try_take(20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lease.take, 10)
        await wait_all_tasks_blocked()
        lease.give(10)
    assert (lease.held, budget.committed) == (20, 20)


def test_memory_given_back_after_the_close_counts_once() -> None:
    """A part that was still being sent when its file was closed."""
    budget = Budget(100)
    lease = budget.admit(10)
    lease.try_take(30)
    lease.close()
    lease.give(30)
    assert budget.committed == 0


def test_chunks_are_recycled_up_to_a_bound() -> None:
    budget = Budget(1 << 30)
    chunk = budget.new_chunk()
    budget.recycle(chunk)
    assert budget.new_chunk() is chunk
    for _ in range(100):
        budget.recycle(bytearray(0))
    assert len(budget._spare) <= 16


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["take", "give", "close"]), st.integers(1, 60)), max_size=60)
)
def test_the_sum_is_right_and_bounded_after_any_sequence(steps: list[tuple[int, str, int]]) -> None:
    budget = Budget(100)
    leases: list[Lease | None] = [budget.admit(20), budget.admit(30), Lease(budget, 0)]
    for which, what, amount in steps:
        lease = leases[which]
        if lease is None:
            continue
        if what == "take":
            had = lease.held
            if not lease.try_take(amount):
                assert lease.held == had
                assert had + amount > lease.reserve
        elif what == "give":
            lease.give(min(amount, lease.held))
        else:
            lease.close()
            leases[which] = None
        assert budget.committed == sum(max(x.reserve, x.held) for x in leases if x is not None) <= 100
