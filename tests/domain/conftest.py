"""A mount without a kernel for each test: ``make(options)`` on the test's own store, on an autojump clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.domain.harness import KIB, Domain, Options, SmallSchedule, small_units
from tests.fakestore import FakeStore

Make = Callable[..., Domain]


def _instant(test: Callable[[], Awaitable[object]], *, clock: None, instruments: Sequence[object]) -> object:
    # What pytest-trio does for Hypothesis, too: the same seed, the same schedule.
    scheduler = trio._core._run
    scheduler._r.seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        return trio.run(test, clock=MockClock(autojump_threshold=0))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here run on an autojump clock: pytest-trio would want each of them to ask for one by name."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.trio(run=_instant))


@pytest.fixture
async def make(nursery: trio.Nursery) -> Make:
    """``make(store=None, **options)``: a new Domain; options as in ``harness.Options``."""

    def made(store: FakeStore | None = None, **options: object) -> Domain:
        return Domain(nursery, store or FakeStore(), Options(**options))  # type: ignore[arg-type]

    return made


@pytest.fixture
async def mount(make: Make) -> Domain:
    return make()


@pytest.fixture
def schedule(monkeypatch: pytest.MonkeyPatch) -> SmallSchedule:
    """Units 1024 times smaller for this test."""
    return small_units(monkeypatch)


@pytest.fixture
async def small(schedule: SmallSchedule, make: Make) -> Domain:
    """A mount in small units: parts of 8 and then 16 KiB, a budget of 64 KiB, CopyObject up to 48 KiB."""
    return make(FakeStore(min_part=4 * KIB), schedule=schedule, budget=64 * KIB)
