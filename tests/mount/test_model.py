"""The operations of tests/domain/test_model.py through the kernel, on Ceph RGW, against the same model.

S3FSX_TEST_MODEL_RUNS multiplies the number of seeds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

import pytest
import trio

from tests.checklogs import LogWatch
from tests.faultproxy import FaultProxy
from tests.faults.crashing import CrashMount
from tests.faults.warm import Warm
from tests.model import Model, Op, operations, told
from tests.mount.harness import environment
from tests.mount.modeldriver import TTL, MountDriver
from tests.s3server import S3Server

pytestmark = [
    pytest.mark.mount,
    pytest.mark.rgw,
    pytest.mark.expect_log("^WARNING", optional=True),  # of faults; an ERROR is none
]

RUNS = int(os.environ.get("S3FSX_TEST_MODEL_RUNS", "1"))
STEPS = 25
_numbers = itertools.count()
OPTIONS = {"list_ttl": f"{TTL}s", "attr_ttl": f"{TTL}s", "attempts": 1}


@pytest.fixture(scope="module")
def site(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CrashMount, FaultProxy]]:
    """One mount for all lists; after the last one nothing of them may be left."""
    home = tmp_path_factory.mktemp("model")
    with contextlib.ExitStack() as stack:
        warm = stack.enter_context(Warm(environment(s3)))
        proxy = stack.enter_context(FaultProxy(s3.endpoint))
        mount = CrashMount(s3, s3.make_bucket("model"), home, LogWatch(), proxy.endpoint, warm)
        mount.options.update(OPTIONS)
        stack.enter_context(mount)
        yield mount, proxy
        proxy.clear()
        mount.restart()
        assert mount.view.uploads() == []
        assert not [row for rows in mount.journal().values() for row in rows if "path" in row]


def check(site: tuple[CrashMount, FaultProxy], log_watch: LogWatch, lists: list[list[Op]], *, faults: bool) -> None:
    mount, proxy = site
    log_watch.follow(mount.log_file)
    models: list[Model] = []

    driver = MountDriver(mount, proxy)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            for ops in lists:
                root = f"run{next(_numbers)}"
                await driver.mkdir(root)
                models.append(Model(driver, root, faults=faults))
                nursery.start_soon(models[-1].run, ops)

    try:
        trio.run(run)
    except Exception as e:
        e.add_note(told(models))
        raise
    finally:
        proxy.clear()
        driver.close_all()


@pytest.mark.parametrize("seed", range(12 * RUNS))
def test_one_program(site: tuple[CrashMount, FaultProxy], log_watch: LogWatch, seed: int) -> None:
    check(site, log_watch, [operations(seed, STEPS, crash=1)], faults=False)


@pytest.mark.parametrize("seed", range(16 * RUNS))
def test_one_program_with_faults(site: tuple[CrashMount, FaultProxy], log_watch: LogWatch, seed: int) -> None:
    check(site, log_watch, [operations(seed, STEPS, fault=3, crash=1)], faults=True)


@pytest.mark.parametrize("seed", range(6 * RUNS))
def test_several_programs(site: tuple[CrashMount, FaultProxy], log_watch: LogWatch, seed: int) -> None:
    lists = [operations(4 * seed + i, STEPS, fault=1, crash=1) for i in range(2 + seed % 3)]
    check(site, log_watch, lists, faults=True)
