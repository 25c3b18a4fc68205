"""Calls that hold a directory, in an outage: they end within the store's patience, and nothing that was promised is
lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from s3fsx.errors import DeadlineExceeded, EndpointDown, S3fsxError
from tests.domain.conftest import Make
from tests.domain.harness import MIB, Domain, pattern

TEMPORARY = "dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.dat"
FINAL = TEMPORARY.replace(".dat", ".zst")
BACKUP = b"\x28\xb5\x2f\xfd" + pattern(17 * MIB)
PATIENCE = 30.0

pytestmark = pytest.mark.expect_log("be tried again|could not be|left in the journal", optional=True)


async def seconds(call: Callable[[], Awaitable[object]], error: type[S3fsxError] = EndpointDown) -> float:
    begin = trio.current_time()
    with pytest.raises(error):
        await call()
    return trio.current_time() - begin


async def settled(mount: Domain) -> None:
    await mount.write(TEMPORARY, BACKUP)
    assert mount.paths() == []


@pytest.mark.parametrize("op", ["list_parts", "complete_upload", "head"])
async def test_a_rename_ends_and_can_be_repeated(mount: Domain, nursery: trio.Nursery, op: str) -> None:
    """In the middle of which request the outage began makes no difference."""
    await settled(mount)
    mount.store.hang(op)
    nursery.start_soon(outage, mount, 5.0)
    took = await seconds(lambda: mount.rename(TEMPORARY, FINAL), S3fsxError)
    assert took <= 5 + PATIENCE + 1
    assert await mount.lookup(TEMPORARY) is not None
    mount.store.down = False
    mount.store.release(op)
    await mount.rename(TEMPORARY, FINAL)
    assert mount.stored(FINAL) == BACKUP
    await mount.nothing_left()


async def outage(mount: Domain, after: float) -> None:
    await trio.sleep(after)
    mount.store.down = True


async def test_a_rename_whose_answer_was_lost_and_a_deletion_after_it(mount: Domain) -> None:
    """vzdump gives up and removes its .dat: the object that the lost Complete made goes with it."""
    await settled(mount)
    mount.store.fail_next("complete_upload", EndpointDown("no answer"), after_effect=True)
    await seconds(lambda: mount.rename(TEMPORARY, FINAL))
    assert mount.paths() == [FINAL]
    await mount.unlink(TEMPORARY)
    assert mount.paths() == []
    await mount.nothing_left()


async def test_the_same_with_a_restart_in_between(mount: Domain) -> None:
    """The rename had been told EIO, but what close promised is kept: rolled forward to the final name."""
    await settled(mount)
    mount.store.down = True
    await seconds(lambda: mount.rename(TEMPORARY, FINAL))
    mount.store.down = False
    again = await mount.restarted()
    assert await again.lookup(TEMPORARY) is not None
    await again.rename(TEMPORARY, FINAL)
    assert again.stored(FINAL) == BACKUP
    await again.nothing_left()


async def test_a_deletion_in_an_outage_ends_and_the_upload_goes_later(mount: Domain) -> None:
    await settled(mount)
    mount.store.down = True
    begin = trio.current_time()
    await mount.unlink(TEMPORARY)
    assert trio.current_time() - begin <= PATIENCE
    mount.store.down = False
    await trio.sleep(200)
    await mount.nothing_left()


async def test_a_deletion_does_not_wait_for_a_close_that_waits_for_a_part(mount: Domain, nursery: trio.Nursery) -> None:
    handle = await mount.create(TEMPORARY)
    await mount.fill(handle, BACKUP)
    mount.store.hang("upload_part")
    ended: list[float] = []

    async def close() -> None:
        with pytest.raises(S3fsxError):
            await mount.close(handle)
        ended.append(trio.current_time())

    nursery.start_soon(close)
    await trio.sleep(1)
    mount.store.down = True
    begin = trio.current_time()
    await mount.unlink(TEMPORARY)
    assert trio.current_time() - begin <= PATIENCE + 1
    mount.store.down = False
    mount.store.release("upload_part")
    await trio.sleep(200)
    assert ended
    await mount.nothing_left()


async def test_a_truncation_does_not_wait_for_one_who_waits_for_room(mount: Domain, nursery: trio.Nursery) -> None:
    """create with O_TRUNC of a file whose close hangs: the kernel holds the directory for it."""
    handle = await mount.create("dump/x")
    await mount.fill(handle, BACKUP)
    mount.store.hang("upload_part")

    async def close() -> None:
        with pytest.raises(S3fsxError):
            await mount.close(handle)

    nursery.start_soon(close)
    await trio.sleep(1)
    mount.store.down = True
    assert await seconds(lambda: mount.create("dump/x", 0o1001)) <= PATIENCE + 1
    await trio.sleep(300)
    mount.store.down = False
    mount.store.release("upload_part")


async def test_a_backup_survives_a_restart_of_the_store(make: Make) -> None:
    """90 s without a store in the middle of the stream: longer than the patience, which is not for parts."""
    mount = make()
    handle = await mount.create(TEMPORARY)
    await mount.fill(handle, BACKUP[: 9 * MIB])

    async with trio.open_nursery() as nursery:
        mount.store.down = True
        nursery.start_soon(mount.fill, handle, BACKUP[9 * MIB :], 9 * MIB)
        await trio.sleep(90)
        mount.store.down = False
    await mount.close(handle)
    await mount.rename(TEMPORARY, FINAL)
    assert mount.stored(FINAL) == BACKUP
    await mount.nothing_left()


async def test_an_interrupted_write_publishes_nothing(mount: Domain) -> None:
    """Its program was killed: the file must not become a backup that lacks what was being written."""
    handle = await mount.create(TEMPORARY)
    await mount.fill(handle, BACKUP)
    mount.store.hang("upload_part")
    with trio.move_on_after(20) as scope:
        await mount.fill(handle, pattern(100 * MIB), len(BACKUP))
    assert scope.cancelled_caught
    mount.store.release("upload_part")
    with pytest.raises(DeadlineExceeded, match="half way"):
        await mount.close(handle)
    assert mount.paths() == []
    await mount.nothing_left()
