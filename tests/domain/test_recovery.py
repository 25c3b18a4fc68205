"""kill -9 at every moment, and each state a journal can be found in."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import pytest
import trio

from s3fsx.errors import ServerFault, UploadGone
from s3fsx.local.records import UploadRecord
from s3fsx.store.objects import Payload
from tests.domain.harness import KIB, SMALL_PART, Domain, InlineJournal, Options, SmallSchedule, pattern
from tests.fakestore import FakeStore

T = TypeVar("T")

DAT = "dump/vzdump-qemu-100-2026_11_20-13_15_26.vma.dat"
FINAL = "dump/vzdump-qemu-100-2026_11_20-13_15_26.vma.zst"
DATA = b"\x28\xb5\x2f\xfd" + pattern(3 * SMALL_PART + 99)


class Power:
    """Counts the steps of a run (requests and journal writes, each with a before and an after) and cuts it at one."""

    def __init__(self) -> None:
        self.cut_at = -1
        self.steps = 0
        self.scope: trio.CancelScope | None = None

    async def step(self) -> None:
        self.steps += 1
        if self.steps - 1 == self.cut_at and self.scope is not None:
            self.scope.cancel()
        if self.scope is not None and self.scope.cancel_called:
            await trio.sleep_forever()


class CutStore(FakeStore):
    def __init__(self, power: Power) -> None:
        super().__init__(min_part=4 * KIB)
        self.power = power

    @asynccontextmanager
    async def _call(self, op: str, key: str) -> AsyncIterator[None]:
        await self.power.step()
        async with super()._call(op, key):
            yield
        await self.power.step()

    async def _one_of_many(self, key: str) -> None:
        await self.power.step()


class CutJournal(InlineJournal):
    def __init__(self, power: Power) -> None:
        super().__init__()
        self.power = power

    async def _run(self, action: Callable[[], T]) -> T:
        await self.power.step()
        result = await super()._run(action)
        await self.power.step()
        return result


class Rig:
    """A mount whose power can be cut, and what returned success before that."""

    def __init__(self, nursery: trio.Nursery, schedule: SmallSchedule) -> None:
        self.power = Power()
        self.mount = Domain(
            nursery, CutStore(self.power), Options(schedule=schedule, budget=256 * KIB), CutJournal(self.power)
        )
        self.done: list[str] = []

    async def run(self, flow: Callable[[Rig], Awaitable[None]], cut_at: int) -> bool:
        """True when the flow was cut."""
        self.power.cut_at = cut_at
        with trio.CancelScope() as self.power.scope:
            await flow(self)
        scope, self.power.scope = self.power.scope, None
        self.mount = await self.mount.restarted()
        assert scope is not None
        return scope.cancelled_caught


async def backup(rig: Rig) -> None:
    mount = rig.mount
    handle = await mount.create(DAT)
    await mount.fill(handle, DATA[:100])
    await mount.files.flush(handle)
    await mount.fill(handle, DATA[100:], offset=100)
    await mount.close(handle)
    rig.done.append("closed")
    await mount.rename(DAT, FINAL)
    rig.done.append("renamed")


async def backup_without_rename(rig: Rig) -> None:
    await rig.mount.write(DAT, DATA)
    rig.done.append("closed")
    await rig.mount.files.publish_waiting(-1.0)


async def backup_renamed_otherwise(rig: Rig) -> None:
    await rig.mount.write(DAT, DATA)
    rig.done.append("closed")
    await rig.mount.rename(DAT, "dump/other")
    rig.done.append("renamed")


async def abandoned(rig: Rig) -> None:
    await rig.mount.write(DAT, DATA)
    rig.done.append("closed")
    await rig.mount.unlink(DAT)
    rig.done.append("deleted")


async def upload(rig: Rig) -> None:
    handle = await rig.mount.create(FINAL)
    await rig.mount.finish(handle, DATA)
    rig.done.append("renamed")


async def rewrite(rig: Rig) -> None:
    mount = rig.mount
    handle = await mount.open(FINAL, os.O_WRONLY | os.O_TRUNC)
    await mount.finish(handle, DATA)
    rig.done.append("renamed")


FLOWS = [backup, backup_without_rename, backup_renamed_otherwise, abandoned, upload, rewrite]


@pytest.mark.expect_log("its parts are not what was written", optional=True)  # cut between an early flush and close
@pytest.mark.parametrize("flow", FLOWS)
async def test_a_cut_at_every_step(flow: Callable[[Rig], Awaitable[None]], schedule: SmallSchedule) -> None:
    """What returned success is whole, nothing partial is ever visible, and no upload survives the next mount."""
    for cut_at in range(1000):
        async with trio.open_nursery() as nursery:
            rig = Rig(nursery, schedule)
            if flow is rewrite:
                rig.mount.store.poke(rig.mount.key(FINAL), b"old")
            cut = await rig.run(flow, cut_at)
            mount, where = rig.mount, f"cut at step {cut_at} after {rig.done}"
            for path in mount.paths():
                assert mount.stored(path) in ((DATA, b"old") if flow is rewrite else (DATA,)), f"{path}: {where}"
            names = [f"dump/{name}" for name in await mount.names("dump")]
            if "renamed" in rig.done:
                assert len(names) == 1, where
                assert await mount.read(names[0]) == DATA, where
            elif "deleted" in rig.done:
                assert names == [], where
            elif flow is rewrite:
                assert names == [FINAL], where
            elif flow is abandoned:
                assert len(names) <= 1, where
            elif "closed" in rig.done:
                assert names, where
                for name in names:
                    assert await mount.read(name) == DATA, where
            for name in names:
                await mount.unlink(name)
            assert mount.paths() == [], where
            await mount.nothing_left()
            if not cut:
                assert cut_at == rig.power.steps or cut_at > 10
                return
    pytest.fail("never came to an end")


# -- each state


def record(state: str, **more: object) -> UploadRecord:
    made = UploadRecord("w1", "", state, "pve/" + FINAL, DAT, 1000.0)
    return replace(made, **more)  # type: ignore[arg-type]


async def begun(mount: Domain, parts: int = 2, metadata: dict[str, str] | None = None) -> UploadRecord:
    """An upload with all its parts in the store, and its record (state open)."""
    upload_id = await mount.store.create_upload("pve/" + FINAL, metadata=metadata or {"s3fsx-write": "w1"})
    sent = [
        await mount.store.upload_part("pve/" + FINAL, upload_id, n, Payload.of(pattern(SMALL_PART, n)))
        for n in range(1, parts + 1)
    ]
    return record("open", upload_id=upload_id, size=parts * SMALL_PART, parts=tuple(sent))


async def test_opening_aborts_what_was_begun_at_that_moment_under_that_key_only(small: Domain) -> None:
    store = small.store
    mine = await store.create_upload("pve/" + FINAL, metadata={})
    longer = await store.create_upload("pve/" + FINAL + ".more", metadata={})
    old = await store.create_upload("pve/" + FINAL, metadata={})
    known = await begun(small)
    store.uploads[old].initiated -= 7200
    await small.journal.put(record("opening", created=store.uploads[mine].initiated))
    await small.journal.put(replace(known, write_id="w2", state="settled"))
    await small.recovery.run()
    assert set(store.uploads) == {longer, old, known.upload_id}
    assert [r.write_id for r in await small.journal.records()] == ["w2"]


@pytest.mark.parametrize("state", ["open", "aborting"])
async def test_what_never_returned_success_is_aborted(small: Domain, state: str) -> None:
    await small.journal.put(replace(await begun(small), state=state))
    await small.recovery.run()
    assert small.bucket() == []
    await small.nothing_left()


async def test_an_upload_that_is_gone_already_is_no_trouble(small: Domain) -> None:
    await small.journal.put(record("open", upload_id="no such upload"))
    await small.recovery.run()
    await small.nothing_left()


async def test_settled_comes_back_unpublished_and_can_be_renamed(small: Domain) -> None:
    await small.journal.put(replace(await begun(small), state="settled"))
    await small.recovery.run()
    assert small.paths() == []
    assert await small.names("dump") == [DAT.rpartition("/")[2]]
    assert (await small.file(DAT)).size == 2 * SMALL_PART
    small.store.log.clear()
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == pattern(SMALL_PART, 1) + pattern(SMALL_PART, 2)
    assert not {"copy", "copy_part"} & set(small.calls())
    await small.nothing_left()


async def test_settled_comes_back_and_can_be_deleted_or_read(small: Domain) -> None:
    await small.journal.put(replace(await begun(small), state="settled"))
    await small.recovery.run()
    assert len(await small.read(DAT)) == 2 * SMALL_PART
    await small.unlink(DAT)
    assert small.paths() == []
    await small.nothing_left()


@pytest.mark.expect_log("is lost")
@pytest.mark.parametrize("what", ["upload", "part"])
async def test_settled_whose_bytes_are_gone_is_not_brought_back(small: Domain, what: str) -> None:
    known = await begun(small)
    if what == "upload":
        small.store.uploads.clear()
    else:
        del small.store.uploads[known.upload_id].parts[2]
    await small.journal.put(replace(known, state="settled"))
    await small.recovery.run()
    assert await small.names("dump") == []
    await small.nothing_left()


@pytest.mark.expect_log("left in the journal")
@pytest.mark.parametrize(("state", "op"), [("settled", "list_parts"), ("publishing", "complete_upload")])
async def test_a_404_that_the_list_of_uploads_belies_loses_nothing(small: Domain, state: str, op: str) -> None:
    await small.journal.put(replace(await begun(small), state=state))
    small.store.fail_next(op, UploadGone("a proxy's 404"), times=2 if state == "settled" else 1)
    await small.recovery.run()
    assert [r.state for r in await small.journal.records()] == [state]
    await small.recovery.run()
    assert len(await small.read(DAT)) == 2 * SMALL_PART


async def test_a_404_that_comes_once_hides_no_closed_file(small: Domain) -> None:
    await small.journal.put(replace(await begun(small), state="settled"))
    small.store.fail_next("list_parts", UploadGone("a proxy's 404"))
    await small.recovery.run()
    assert len(await small.read(DAT)) == 2 * SMALL_PART


@pytest.mark.parametrize("path", [DAT, FINAL])
async def test_publishing_is_finished_whether_or_not_complete_was_sent(small: Domain, path: str) -> None:
    for completed in (False, True):
        known = replace(await begun(small), state="publishing", path=path)
        if completed:
            await small.store.complete_upload(known.key, known.upload_id, known.parts)
        await small.journal.put(known)
        await small.recovery.run()
        assert small.paths() == [path]
        assert len(small.stored(path)) == 2 * SMALL_PART
        await small.nothing_left()
        small.store.objects.clear()


@pytest.mark.expect_log("made or protected by others since")
@pytest.mark.parametrize("since", ["made", "protected"])
@pytest.mark.parametrize("lock", [True, False])
async def test_publishing_replaces_nothing_that_others_made_or_protected_since(
    small: Domain, since: str, lock: bool
) -> None:
    small.store.capabilities = replace(small.store.capabilities, object_lock=lock)
    if since == "protected":
        small.store.poke("pve/" + FINAL, b"theirs")
    known = await begun(small)
    if since == "made":
        small.store.poke("pve/" + FINAL, b"theirs")
    else:
        small.store.poke("pve/" + FINAL + ".protected", b"")
        small.store.hold("pve/" + FINAL, lock)
    await small.journal.put(replace(known, state="publishing", path=FINAL))
    await small.recovery.run()
    assert (small.stored(FINAL), small.store.hidden) == (b"theirs", [])
    (waiting,) = [name for name in await small.names("dump") if ".tmp." in name]
    after = await small.restarted()  # nothing more is decided by itself
    assert after.stored(FINAL) == b"theirs"
    if since == "made":
        await after.rename(f"dump/{waiting}", FINAL)
        assert len(after.stored(FINAL)) == 2 * SMALL_PART
        await after.nothing_left()


async def test_publishing_replaces_what_was_there_before_it_began(small: Domain) -> None:
    small.store.poke("pve/" + FINAL, b"older")
    await small.journal.put(replace(await begun(small), state="publishing", path=FINAL))
    await small.recovery.run()
    assert len(small.stored(FINAL)) == 2 * SMALL_PART
    await small.nothing_left()


@pytest.mark.expect_log("left in the journal")
async def test_a_late_publication_replaces_nothing_that_others_made_since(small: Domain) -> None:
    known = replace(await begun(small), state="publishing", path=DAT)
    await small.store.complete_upload(known.key, known.upload_id, known.parts)
    await small.journal.put(known)
    small.store.poke("pve/" + DAT, b"theirs")
    await small.recovery.run()
    assert small.stored(DAT) == b"theirs"
    assert len(small.stored(FINAL)) == 2 * SMALL_PART
    small.store.remove("pve/" + DAT)
    await small.recovery.run()
    assert small.paths() == [DAT]
    await small.nothing_left()


@pytest.mark.expect_log("its upload is gone")
async def test_publishing_whose_object_was_made_and_replaced_since(small: Domain) -> None:
    known = replace(await begun(small), state="publishing", path=FINAL)
    await small.store.complete_upload(known.key, known.upload_id, known.parts)
    small.store.poke("pve/" + FINAL, b"theirs")
    await small.journal.put(known)
    await small.recovery.run()
    assert small.stored(FINAL) == b"theirs"
    await small.nothing_left()


async def test_publishing_whose_copy_was_made_already_only_removes_the_source(small: Domain) -> None:
    known = replace(await begun(small), state="publishing", path=DAT)
    await small.store.complete_upload(known.key, known.upload_id, known.parts)
    await small.store.copy(known.key, small.key(DAT), etag="")
    await small.journal.put(known)
    await small.recovery.run()
    assert small.paths() == [DAT]
    await small.nothing_left()


async def test_publishing_whose_object_was_made_and_removed_since(
    small: Domain, expect_log: Callable[..., None]
) -> None:
    expect_log("nothing was published")
    await small.journal.put(record("publishing", upload_id="gone", path=FINAL))
    await small.recovery.run()
    assert small.bucket() == []
    await small.nothing_left()


@pytest.mark.expect_log("left in the journal")
async def test_what_cannot_be_dealt_with_now_stays_for_the_next_mount(small: Domain) -> None:
    await small.journal.put(replace(await begun(small), state="aborting"))
    other = await begun(small)
    await small.journal.put(replace(other, write_id="w2", state="open", created=2000.0))
    small.store.fail_next("abort_upload", ServerFault("500"))
    await small.recovery.run()
    assert len(small.store.uploads) == 1
    await small.recovery.run()
    await small.nothing_left()


async def test_a_rewrite_whose_process_died_leaves_the_old_object(small: Domain) -> None:
    await small.write("dump/a", b"old")
    handle = await small.open("dump/a", os.O_WRONLY | os.O_TRUNC)
    await small.fill(handle, DATA)
    after = await small.restarted()
    assert after.stored("dump/a") == b"old"
    assert await after.read("dump/a") == b"old"
    await after.nothing_left()
