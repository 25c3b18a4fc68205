"""The uploads of a node that is gone for good, also when the takeover itself is cut short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import trio

from s3fsx.errors import ServerFault
from s3fsx.fs.takeover import Takeover
from s3fsx.layout import Layout
from s3fsx.local.nodecopy import NodeCopy, directory, from_json
from tests.domain.harness import KIB, SMALL_PART, Domain, InlineJournal, Options, SmallSchedule, pattern
from tests.domain.test_changes import cut, stored
from tests.domain.test_recovery import CutStore, Power
from tests.fakestore import FakeStore

STEM = "dump/vzdump-qemu-100-2026_11_20-13_15_26.vma"
DAT, FINAL = STEM + ".dat", STEM + ".zst"
DATA = b"\x28\xb5\x2f\xfd" + pattern(3 * SMALL_PART + 99)


async def dead(nursery: trio.Nursery, store: FakeStore, schedule: SmallSchedule) -> Domain:
    """A node that closed one backup, was in the middle of another, and is gone."""
    mount = Domain(nursery, store, Options(schedule=schedule, budget=256 * KIB), InlineJournal())
    await mount.write(DAT, DATA)
    handle = await mount.create("dump/vzdump-lxc-1-x.tar.dat")
    await mount.fill(handle, DATA)
    await trio.sleep(5)
    await mount.mirror.finish()
    await mount.crash()
    return mount


def copy_of(store: FakeStore) -> NodeCopy | None:
    keys = [key for key in sorted(store.objects) if key.startswith(directory("pve/"))]
    assert len(keys) <= 1
    return from_json(keys[0], "pve/", store.data(keys[0])) if keys else None


async def take_over(nursery: trio.Nursery, store: FakeStore) -> int:
    copy = copy_of(store)
    assert copy is not None
    return await Takeover(store, Layout("pve/"), copy, nursery.start_soon).run()


def files(store: FakeStore) -> dict[str, bytes]:
    return {key: store.data(key) for key in sorted(store.objects) if "/.s3fsx/" not in key}


async def test_what_was_closed_is_published_and_the_rest_is_aborted(
    nursery: trio.Nursery, schedule: SmallSchedule
) -> None:
    store = FakeStore(min_part=4 * KIB)
    mount = await dead(nursery, store, schedule)
    other = await store.create_upload("pve/dump/other", metadata={})
    assert await take_over(nursery, store) == 0
    assert files(store) == {"pve/" + DAT: DATA}
    assert list(store.uploads) == [other]
    assert copy_of(store) is None
    # Should the node come back after all: everything is done.
    again = Domain(nursery, store, mount.options, mount.journal)
    await again.recovery.run()
    assert await again.read(DAT) == DATA
    assert await again.journal.records() == []


async def test_a_takeover_that_is_cut_anywhere_is_made_again(schedule: SmallSchedule) -> None:
    for at in range(200):
        async with trio.open_nursery() as nursery:
            power = Power()
            store = CutStore(power)
            mount = await dead(nursery, store, schedule)

            async def attempt() -> None:
                await take_over(nursery, store)  # noqa: B023

            was_cut, steps = await cut(mount, power, attempt, at), power.steps
            assert set(files(store).values()) <= {DATA}
            if copy_of(store) is not None:
                assert await take_over(nursery, store) == 0
            assert files(store) == {"pve/" + DAT: DATA}, f"cut at {at}"
            assert store.uploads == {}
            assert copy_of(store) is None
            nursery.cancel_scope.cancel()
        if not was_cut:
            assert at == steps > 20
            return
    pytest.fail("never came to an end")


@pytest.mark.expect_log("left: ")
@pytest.mark.parametrize("what", ["a part", "predicted name", "own name"])
async def test_what_is_not_as_the_node_left_it_is_left(
    what: str, nursery: trio.Nursery, schedule: SmallSchedule
) -> None:
    store = FakeStore(min_part=4 * KIB)
    await dead(nursery, store, schedule)
    (settled,) = [uid for uid, upload in store.uploads.items() if upload.key == "pve/" + FINAL]
    if what == "a part":
        del store.uploads[settled].parts[2]
    else:
        store.poke("pve/" + (FINAL if what == "predicted name" else DAT), b"of another node")
    before = files(store)
    assert await take_over(nursery, store) == 1
    assert files(store) == before
    assert list(store.uploads) == [settled], "the other one is aborted"
    copy = copy_of(store)
    assert copy is not None
    assert [upload.path for upload in copy.uploads] == [DAT]


@pytest.mark.expect_log("the file is lost")
async def test_an_upload_that_somebody_aborted(nursery: trio.Nursery, schedule: SmallSchedule) -> None:
    store = FakeStore(min_part=4 * KIB)
    await dead(nursery, store, schedule)
    store.uploads.clear()
    assert await take_over(nursery, store) == 0
    assert (files(store), copy_of(store)) == ({}, None)


@pytest.mark.expect_log("left")
async def test_a_store_that_fails_in_between(nursery: trio.Nursery, schedule: SmallSchedule) -> None:
    store = FakeStore(min_part=4 * KIB)
    await dead(nursery, store, schedule)
    store.fail_next("complete_upload", ServerFault("500"))
    assert await take_over(nursery, store) == 1
    assert files(store) == {}
    assert await take_over(nursery, store) == 0
    assert files(store) == {"pve/" + DAT: DATA}


async def test_one_that_was_being_published(nursery: trio.Nursery, schedule: SmallSchedule) -> None:
    """Before and after its Complete."""
    for completed in (False, True):
        store = FakeStore(min_part=4 * KIB)
        mount = Domain(nursery, store, Options(schedule=schedule, budget=256 * KIB), InlineJournal())
        await mount.write(DAT, DATA)
        (record,) = await mount.journal.records()
        await mount.journal.put(replace(record, state="publishing", path=FINAL))
        await mount.mirror.finish()
        await mount.crash()
        if completed:
            await store.complete_upload(record.key, record.upload_id, record.parts)
        assert await take_over(nursery, store) == 0
        assert files(store) == {"pve/" + FINAL: DATA}
        assert (store.uploads, copy_of(store)) == ({}, None)


@pytest.mark.expect_log("made by somebody else")
@pytest.mark.parametrize("path", [FINAL, DAT])
async def test_one_that_was_being_published_replaces_nothing(
    nursery: trio.Nursery, schedule: SmallSchedule, path: str
) -> None:
    store = FakeStore(min_part=4 * KIB)
    mount = Domain(nursery, store, Options(schedule=schedule, budget=256 * KIB), InlineJournal())
    await mount.write(DAT, DATA)
    store.poke("pve/" + FINAL, b"theirs")
    store.objects["pve/" + FINAL].modified -= 3600  # it was there before
    (record,) = await mount.journal.records()
    await mount.journal.put(replace(record, state="publishing", path=path))
    await mount.mirror.finish()
    await mount.crash()
    for _ in range(2):
        assert await take_over(nursery, store) == 1
        assert files(store) == {"pve/" + FINAL: b"theirs"}
    store.remove("pve/" + FINAL)
    assert await take_over(nursery, store) == 0
    assert files(store) == {"pve/" + path: DATA}


async def test_an_empty_copy_is_removed(make: Callable[..., Domain], nursery: trio.Nursery) -> None:
    mount = make()
    copy = NodeCopy("c" * 32, "pve9", 1.0, "pve/", ())
    mount.store.poke(copy.key, b"{}")
    assert await Takeover(mount.store, Layout("pve/"), copy, nursery.start_soon).run() == 0
    assert mount.bucket() == []
    assert stored(mount) == {}
