"""The copy of the journal in the bucket: there when another node may need it, free of charge otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio

from s3fsx.errors import EndpointDown, NotFound
from s3fsx.fs.mirror import Mirror, read_copies
from s3fsx.local.nodecopy import NodeCopy, directory, from_json
from s3fsx.store.objects import ListPage
from tests.domain.harness import SMALL_PART, Domain, pattern

DAT = "dump/vzdump-qemu-100-2026_11_20-13_15_26.vma.dat"
DATA = b"\x28\xb5\x2f\xfd" + pattern(3 * SMALL_PART)


class Clock:
    """Unix seconds that go with trio's clock, from when records are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("s3fsx.fs.upload.time.time", self)

    def __call__(self) -> float:
        return 1000.0 + trio.current_time()


@pytest.fixture
def watched(small: Domain, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Domain:
    small.mirror = Mirror(small.store, small.journal, "pve/", "host", Clock(monkeypatch))
    nursery.start_soon(small.mirror.run)
    return small


def copies(mount: Domain) -> list[NodeCopy]:
    place = directory("pve/")
    return [from_json(key, "pve/", mount.store.data(key)) for key in mount.bucket() if key.startswith(place)]


def requests(mount: Domain) -> int:
    return sum(key.startswith(directory("pve/")) for _, key in mount.store.log)


async def test_short_uploads_and_an_idle_mount_cost_no_request(watched: Domain) -> None:
    for i in range(30):
        await watched.write(f"dump/{i}", DATA)
        await trio.sleep(0.3)
    await watched.write(DAT, DATA)
    await watched.rename(DAT, DAT.replace(".dat", ".zst"))
    await trio.sleep(1000)
    await watched.mirror.finish()
    assert requests(watched) == 0


async def test_a_long_upload_is_copied_and_the_copy_goes_with_it(watched: Domain) -> None:
    handle = await watched.create(DAT)
    await watched.fill(handle, DATA)
    await trio.sleep(3)
    (copy,) = copies(watched)
    assert (copy.node, copy.host) == (watched.journal.node, "host")
    assert [(u.path, u.state, u.parts) for u in copy.uploads] == [(DAT, "open", 0)]
    await watched.close(handle)
    await trio.sleep(3)
    (copy,) = copies(watched)
    (upload,) = copy.uploads
    assert (upload.state, upload.size, upload.parts) == ("settled", len(DATA), 4)
    count = requests(watched)
    assert count == 2
    await trio.sleep(1000)
    assert requests(watched) == count
    await watched.rename(DAT, DAT.replace(".dat", ".zst"))
    await trio.sleep(3)
    assert copies(watched) == []
    assert requests(watched) == 3
    await watched.nothing_left()


async def test_what_is_left_at_the_unmount_is_in_the_copy_and_the_next_mount_removes_it(
    watched: Domain, nursery: trio.Nursery
) -> None:
    await watched.write(DAT, DATA)
    await watched.mirror.finish()
    assert [u.state for u in copies(watched)[0].uploads] == ["settled"]
    after = await watched.restarted()
    await after.unlink(DAT)
    assert len(copies(after)) == 1
    nursery.start_soon(after.mirror.run)
    await trio.sleep(3)
    assert copies(after) == []


@pytest.mark.parametrize("really", [True, False])
async def test_a_copy_that_is_gone_while_they_are_read(watched: Domain, really: bool) -> None:
    """Finished meanwhile, or a 404 that is not true: the node's uploads would look like nobody's, to be aborted."""
    await watched.write(DAT, DATA)
    await watched.mirror.finish()
    (key,) = [key for key in watched.bucket() if key.startswith(directory("pve/"))]
    watched.store.fail_next("get_range", NotFound("404 NoSuchKey"))
    if really:
        page = watched.store.list_page

        async def list_page(prefix: str, **options: Any) -> ListPage:
            found = await page(prefix, **options)
            watched.store.objects.pop(key, None)
            return found

        watched.store.list_page = list_page  # type: ignore[method-assign]
    found, unreadable = await read_copies(watched.store, "pve/")
    assert found == []
    assert unreadable == ([] if really else [f"{key}: 404 NoSuchKey, and it is listed"])


async def test_a_failure_is_said_once_delays_nothing_and_is_made_good(
    watched: Domain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    watched.store.fail_next("put", EndpointDown("down"), times=3)
    handle = await watched.create(DAT)
    await watched.fill(handle, DATA)
    await trio.sleep(150)
    await watched.close(handle)
    assert copies(watched) == []
    await trio.sleep(100)
    assert [u.state for u in copies(watched)[0].uploads] == ["settled"]
    assert caplog.text.count("out of date") == 1


async def test_the_node_keeps_its_id(small: Domain, make: Callable[..., Domain]) -> None:
    assert len(small.journal.node) == 32
    assert (await small.restarted()).journal.node == small.journal.node
    assert make().journal.node != small.journal.node


async def test_an_upload_without_an_id_is_not_copied(watched: Domain) -> None:
    handle = await watched.create("dump/f", os.O_WRONLY)
    await watched.fill(handle, DATA)
    record = (await watched.journal.records())[0]
    await watched.journal.put(replace(record, write_id="w2", upload_id="", state="opening"))
    await trio.sleep(10)
    assert [u.write_id for u in copies(watched)[0].uploads] == [record.write_id]
    await watched.close(handle)
