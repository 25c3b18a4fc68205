"""Random operations against the model of tests/model.py, on the domain layer: one task and three, with faults, with
crashes and with both.

S3FSX_TEST_MODEL_RUNS multiplies the number of seeds (nightly: 50). A failing list is cut down before it is shown; it
can be run again as ``LISTS`` of ``test_these``.
"""

from __future__ import annotations

import os

import pytest
import trio

from tests.domain.conftest import Make
from tests.domain.harness import KIB, SMALL_PART, SmallSchedule
from tests.domain.modeldriver import DomainDriver, mortal_store
from tests.model import Model, Op, operations, shrunk, told

RUNS = int(os.environ.get("S3FSX_TEST_MODEL_RUNS", "1"))
STEPS = 120

pytestmark = pytest.mark.expect_log(
    "could not be|renamed, but|could not abort|left in the journal|is lost|without checksums|nothing was published"
    "|which somebody else made",
    optional=True,
)


class Rig:
    """Runs lists of operations, one per task, each time on a new mount."""

    def __init__(self, make: Make, schedule: SmallSchedule, seed: int, *, faults: bool = False) -> None:
        self._make = make
        # Every fifth run as on a store that insists on equal parts.
        self._schedule = schedule if seed % 5 else SmallSchedule(SMALL_PART, SMALL_PART, uniform=True)
        self._seed = seed
        self._faults = faults
        self.models: list[Model] = []
        self._first: Exception | None = None

    async def run(self, lists: list[list[Op]]) -> None:
        mount = self._make(mortal_store(self._seed), schedule=self._schedule, budget=256 * KIB)
        driver = DomainDriver(mount)
        roots = ["dump"] if len(lists) == 1 else [f"t{i}" for i in range(len(lists))]
        if len(lists) > 1:
            for root in roots:
                await driver.mkdir(root)
        self.models = [Model(driver, root, faults=self._faults) for root in roots]
        async with trio.open_nursery() as nursery:
            for model, ops in zip(self.models, lists, strict=True):
                nursery.start_soon(model.run, ops)
        await driver.settle()
        assert driver.mount.budget.committed == 0
        await (await driver.mount.restarted()).nothing_left()

    async def failing(self, lists: list[list[Op]]) -> list[list[Op]] | None:
        try:
            await self.run(lists)
        except Exception as e:
            if self._first is None:
                e.add_note(f"LISTS = {lists}\n{told(self.models)}")
                self._first = e
            return [model.done for model in self.models]
        return None

    async def check(self, lists: list[list[Op]]) -> None:
        failed = await self.failing(lists)
        if failed is None:
            return
        least = await shrunk(failed, self.failing)
        try:
            await self.run(least)
        except Exception as e:
            e.add_note(f"LISTS = {least}\n{told(self.models)}")
            raise
        assert self._first is not None
        raise self._first  # trio's order of tasks was another one this time


@pytest.mark.parametrize("seed", range(50 * RUNS))
async def test_one_task(make: Make, schedule: SmallSchedule, seed: int) -> None:
    await Rig(make, schedule, seed).check([operations(seed, STEPS)])


@pytest.mark.parametrize("seed", range(50 * RUNS))
async def test_one_task_with_faults(make: Make, schedule: SmallSchedule, seed: int) -> None:
    await Rig(make, schedule, seed, faults=True).check([operations(seed, STEPS, fault=2)])


@pytest.mark.parametrize("seed", range(50 * RUNS))
async def test_one_task_with_crashes(make: Make, schedule: SmallSchedule, seed: int) -> None:
    await Rig(make, schedule, seed).check([operations(seed, STEPS, crash=2)])


@pytest.mark.parametrize("seed", range(20 * RUNS))
async def test_three_tasks(make: Make, schedule: SmallSchedule, seed: int) -> None:
    """On different directories of one mount, sharing its budget."""
    await Rig(make, schedule, seed).check([operations(3 * seed + i, STEPS // 2) for i in range(3)])


@pytest.mark.parametrize("seed", range(30 * RUNS))
async def test_several_tasks_with_faults_and_crashes(make: Make, schedule: SmallSchedule, seed: int) -> None:
    """A crash comes to all of them, wherever they are."""
    lists = [operations(4 * seed + i, STEPS // 2, fault=1, crash=1) for i in range(2 + seed % 3)]
    await Rig(make, schedule, seed, faults=True).check(lists)


LISTS: list[list[Op]] = [[("create", 1), ("write", 2), ("crash", 3), ("create", 1), ("write", 2), ("close", 4)]]


async def test_these(make: Make, schedule: SmallSchedule) -> None:
    await Rig(make, schedule, 1, faults=True).run(LISTS)
