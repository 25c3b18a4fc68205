"""Which reads are stored, and who goes: never what is in use, never more than the limit, never into the reserve."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from s3fsx.local.blockformat import Identity
from s3fsx.local.blockpolicy import NEAR, SEQUENTIAL, Ledger, Run

MIB = 1 << 20
KIB = 1 << 10


def test_a_run_is_long_once_it_has_read_more_than_8_mib_in_sequence() -> None:
    run = Run()
    for at in range(0, SEQUENTIAL, 128 * KIB):
        run.read(at, at + 128 * KIB)
        assert not run.long
    run.read(SEQUENTIAL, SEQUENTIAL + 4 * KIB)
    assert run.long


def test_requests_that_overtake_one_another_are_one_run() -> None:
    run = Run()
    for at in range(0, 12 * MIB, 2 * MIB):
        run.read(at + MIB, at + 2 * MIB)
        run.read(at, at + MIB)
    assert run.long


def test_a_read_elsewhere_begins_anew() -> None:
    run = Run()
    run.read(0, 9 * MIB)
    assert run.long
    run.read(9 * MIB + NEAR + 1, 9 * MIB + NEAR + 2)
    assert not run.long
    for at in range(900 * MIB, 0, -5 * MIB):  # strides are no sequence, however much they read
        run.read(at, at + MIB)
        assert not run.long


def name(key: int, version: int) -> str:
    return Identity(f"k{key}", f"e{version}", 100).name


NAMES = st.builds(name, st.integers(0, 4), st.integers(0, 2))


class Model(RuleBasedStateMachine):
    """The ledger against a plain list of (name, bytes), oldest first."""

    @initialize(limit=st.integers(0, 40))
    def begin(self, limit: int) -> None:
        self.ledger = Ledger(limit)
        self.stored: dict[str, int] = {}
        self.order: list[str] = []  # of use, the last one last
        self.users: list[str] = []

    def touch(self, who: str) -> None:
        if who in self.order:
            self.order.remove(who)
        self.order.append(who)

    @rule(who=NAMES)
    def use(self, who: str) -> None:
        self.ledger.use(who)
        self.users.append(who)
        self.touch(who)

    @precondition(lambda self: self.users)
    @rule(data=st.data())
    def unuse(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(self.users))
        self.users.remove(who)
        assert self.ledger.unuse(who) == (who not in self.users)
        if who not in self.users:
            self.touch(who)

    @rule(who=NAMES, size=st.integers(1, 12), free=st.integers(-20, 40))
    def store(self, who: str, size: int, free: int) -> None:
        """As the cache does: a version that is stored is in use."""
        self.use(who)
        victims = self.ledger.victims(size, free)
        idle = [n for n in self.order if n in self.stored and n not in self.users]
        if victims is None:
            gone = sum(self.stored[n] for n in idle)
            assert self.ledger.used - gone + size > self.ledger.limit or gone + free < size
            return
        assert victims == idle[: len(victims)]
        gone = sum(self.stored[n] for n in victims)
        assert self.ledger.used - gone + size <= self.ledger.limit
        assert gone + free >= size
        if victims:  # and not one more than it takes
            less = gone - self.stored[victims[-1]]
            assert self.ledger.used - less + size > self.ledger.limit or less + free < size
        for n in victims:
            self.remove(n)
        self.ledger.grow(who, size)
        self.stored[who] = self.stored.get(who, 0) + size

    def remove(self, who: str) -> None:
        self.ledger.remove(who)
        del self.stored[who]

    @rule(free=st.integers(-60, 10))
    def the_disk_fills_up(self, free: int) -> None:
        surplus = self.ledger.surplus(free)
        idle = [n for n in self.order if n in self.stored and n not in self.users]
        assert surplus == idle[: len(surplus)]
        if sum(self.stored[n] for n in surplus) + free < 0:
            assert surplus == idle
        for n in surplus:
            self.remove(n)

    @rule(who=NAMES)
    def other_versions(self, who: str) -> None:
        others = self.ledger.others(who)
        assert sorted(others) == sorted(
            n for n in self.stored if n != who and n.split("-")[0] == who.split("-")[0] and n not in self.users
        )

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert self.ledger.used == sum(self.stored.values()) <= self.ledger.limit
        assert len(self.ledger) == len(self.stored)
        assert all(n in self.ledger for n in self.stored)


TestLedger = Model.TestCase
TestLedger.settings = settings(max_examples=40, stateful_step_count=30)
