"""The byte budget: never exceeded, never a deadlock, and everything comes back."""

from __future__ import annotations

import errno

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from s3fsx.errors import FileSystemError
from s3fsx.transfer.memory import CHUNK, Budget, Lease


async def take(lease: Lease, amount: int) -> None:
    """As a writer does."""
    while not lease.try_take(amount):
        lease.press(amount)
        if lease.try_take(amount):
            return
        await lease.budget.wait_freed()


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
    assert (budget.committed, budget.reserved) == (60, 60)


def test_what_is_within_the_reservation_is_always_there() -> None:
    budget = Budget(100)
    mine, other = budget.admit(40), budget.admit(10)
    assert other.try_take(60)  # all that is shared
    assert not other.try_take(1)
    assert mine.try_take(40)
    assert not mine.try_take(1)
    assert (budget.committed, budget.peak) == (100, 100)


def test_admission_does_not_depend_on_what_others_use_at_the_moment() -> None:
    """Found with 8 writers on 128 MiB: the parts they had under way made a ninth open, a backup's notes, ENOMEM."""
    budget = Budget(100)
    busy = budget.admit(10)
    assert busy.try_take(100)
    late = budget.admit(10)
    assert not late.try_take(10)  # owed: never more than the total is held
    busy.give(20)
    assert not busy.try_take(20)  # and nobody gets more than his reservation meanwhile
    assert late.try_take(10)
    assert busy.try_take(10)
    assert (budget.held, budget.committed, budget.peak) == (100, 100, 100)


async def test_what_was_promised_is_asked_for_and_comes(autojump_clock: MockClock) -> None:
    budget = Budget(100)
    idle, reader = budget.admit(10), Lease(budget, 0)
    assert idle.try_take(60)
    assert reader.try_take(40)
    asked: list[bool] = []
    budget.on_pressure(asked.append)
    writers = [budget.admit(30) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for writer in writers:
            nursery.start_soon(take, writer, 30)
        await wait_all_tasks_blocked()
        assert asked == [True] * 3
        idle.give(50)
        await wait_all_tasks_blocked()
        assert sum(writer.held for writer in writers) == 30
        reader.give(40)
    assert budget.held == 100
    assert not writers[0].try_take(1)
    writers[0].press(1)
    assert asked[-1] is False  # beyond the reservation nothing is owed
    budget.off_pressure(asked.append)
    budget.off_pressure(asked.append)  # harmless
    budget.press()
    assert asked.count(False) == 1


async def test_taking_waits_for_whoever_gives(autojump_clock: MockClock) -> None:
    budget = Budget(100)
    holder, waiter = budget.admit(10), budget.admit(10)
    assert holder.try_take(90)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, waiter, 20)
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
        nursery.start_soon(take, lease, 10)
        await wait_all_tasks_blocked()
        lease.give(10)
    assert (lease.held, budget.committed) == (20, 20)


def test_a_part_under_way_counts_until_it_has_arrived_also_after_the_close() -> None:
    budget = Budget(100)
    lease = budget.admit(10)
    lease.try_take(30)
    lease.close()
    assert (budget.held, budget.committed, budget.reserved) == (30, 30, 0)
    lease.give(30)
    assert (budget.held, budget.committed) == (0, 0)


def test_chunks_are_recycled_within_the_budget_and_all_but_one_only_while_somebody_writes() -> None:
    budget = Budget(8 * CHUNK)
    chunk = budget.new_chunk()
    budget.recycle(chunk)
    budget.recycle(bytearray(0))
    assert budget._spare == [chunk]
    assert budget.new_chunk() is chunk
    lease = budget.admit(CHUNK)
    budget.recycle(chunk)
    assert budget.new_chunk() is chunk
    lease.try_take(3 * CHUNK)
    for _ in range(100):
        budget.recycle(bytearray(0))
    assert len(budget._spare) == 5
    lease.try_take(4 * CHUNK)
    assert len(budget._spare) == 1
    lease.give(7 * CHUNK)
    budget.recycle(bytearray(0))
    budget.recycle(bytearray(0))
    lease.close()
    assert len(budget._spare) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["admit", "take", "give", "close"]), st.integers(1, 60)),
        max_size=60,
    )
)
def test_the_sums_are_right_and_bounded_after_any_sequence(steps: list[tuple[int, str, int]]) -> None:
    budget = Budget(100)
    leases: list[Lease] = [budget.admit(20), budget.admit(30), Lease(budget, 0), Lease(budget, 0)]
    closed: list[Lease] = []
    for which, what, amount in steps:
        lease = leases[which]
        if what == "admit":
            if sum(x.reserve for x in leases) + amount > 100:
                with pytest.raises(FileSystemError):
                    budget.admit(amount)
            else:
                closed.append(lease)
                lease.close()
                leases[which] = budget.admit(amount)
        elif what == "take":
            had = lease.held
            owed = sum(x.held for x in leases + closed) + amount > 100
            if not lease.try_take(amount):
                assert lease.held == had
                assert had + amount > lease.reserve or owed
        elif what == "give":
            lease.give(min(amount, lease.held))
        else:
            lease.close()
        everybody = leases + closed
        assert budget.held == sum(x.held for x in everybody) <= budget.peak <= 100
        assert budget.reserved == sum(x.reserve for x in everybody) <= 100
        assert budget.committed == sum(max(x.reserve, x.held) for x in everybody)
