"""Objects and uploads that a publication left where they are not to stay: removed in the end, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio

from s3fsx.errors import ConnectionFailed, Exists, ServerFault
from s3fsx.local.journal import JournalError
from s3fsx.store.objects import Capabilities, Payload
from tests.domain.conftest import Make
from tests.domain.harness import KIB, SMALL_PART, Domain, SmallSchedule, pattern
from tests.fakestore import FakeStore

BODY = pattern(3 * SMALL_PART + 1)


async def published_under_its_temporary_name(mount: Domain) -> None:
    """x.tmp was read back; the object that was completed as x could not be deleted."""
    await mount.write("dump/x.tmp", BODY)
    mount.store.fail_next("delete", ServerFault("503"), times=1)
    assert await mount.read("dump/x.tmp") == BODY
    assert mount.paths() == ["dump/x", "dump/x.tmp"]


@pytest.mark.expect_log("could not abort")
async def test_what_could_not_be_deleted_goes_at_the_next_mount(small: Domain) -> None:
    await published_under_its_temporary_name(small)
    again = await small.restarted()
    assert again.paths() == ["dump/x.tmp"]
    await again.nothing_left()


@pytest.mark.expect_log("could not abort")
async def test_or_a_minute_later(small: Domain) -> None:
    await published_under_its_temporary_name(small)
    await trio.sleep(61)
    assert small.paths() == ["dump/x.tmp"]
    await small.nothing_left()


@pytest.mark.expect_log("could not abort")
@pytest.mark.parametrize("wait", [0, 61])
async def test_a_rename_to_the_predicted_name_makes_the_stray_the_file(small: Domain, wait: float) -> None:
    await published_under_its_temporary_name(small)
    small.listings.tree.root.sealed_until = -1.0
    await small.rename("dump/x.tmp", "dump/x")  # copied back: same bytes, same write id
    await trio.sleep(wait)
    again = await small.restarted()
    assert again.paths() == ["dump/x"]
    assert again.stored("dump/x") == BODY
    await again.nothing_left()


@pytest.mark.expect_log("could not abort")
async def test_what_another_tool_copied_back_is_not_deleted(small: Domain) -> None:
    await published_under_its_temporary_name(small)
    await small.crash()
    await trio.sleep(2)
    store = small.store
    await store.delete(small.key("dump/x"))
    await store.copy(small.key("dump/x.tmp"), small.key("dump/x"), etag="")
    again = await small.restarted()
    assert again.paths() == ["dump/x", "dump/x.tmp"]


@pytest.mark.expect_log("could not abort")
async def test_what_another_node_protected_stays(make: Make, schedule: SmallSchedule) -> None:
    """It was seen under that name, complete, and somebody set a legal hold; deleting would hide it."""
    locked = Capabilities(conditional_put=True, conditional_complete=True, object_lock=True)
    small = make(FakeStore(capabilities=locked, min_part=4096), schedule=schedule)
    await published_under_its_temporary_name(small)
    await small.crash()
    small.store.hold(small.key("dump/x"))
    again = await small.restarted()
    assert again.paths() == ["dump/x", "dump/x.tmp"]
    assert again.store.hidden == []
    await again.nothing_left()


@pytest.mark.parametrize("honoured", [True, False])
async def test_the_predicted_name_is_taken_meanwhile(make: Make, schedule: SmallSchedule, honoured: bool) -> None:
    """Nothing is replaced, nothing is lost, and the rename, which does replace, still works."""
    store = FakeStore(capabilities=Capabilities(conditional_put=True, conditional_complete=honoured), min_part=4096)
    small = make(store, schedule=schedule)
    await small.write("dump/x.tmp", BODY)
    await small.write("dump/x", b"precious")
    with pytest.raises(Exists):
        await small.read("dump/x.tmp")
    assert small.stored("dump/x") == b"precious"
    again = await small.restarted()
    assert again.stored("dump/x") == b"precious"
    await again.rename("dump/x.tmp", "dump/x")
    assert again.stored("dump/x") == BODY
    await again.nothing_left()


async def test_an_upload_whose_id_was_lost_is_aborted_before_the_next_is_begun(small: Domain) -> None:
    small.store.fail_next("create_upload", ServerFault("500"), after_effect=True)
    await small.write("dump/a", BODY)
    assert small.stored("dump/a") == BODY
    await small.nothing_left()


async def test_the_upload_another_node_is_filling_is_not_taken_for_the_lost_one(small: Domain) -> None:
    theirs = await small.store.create_upload(small.key("dump/a"), metadata={})
    await small.store.upload_part(small.key("dump/a"), theirs, 1, Payload.of(BODY))
    small.store.fail_next("create_upload", ServerFault("500"))
    await small.write("dump/a", BODY)
    assert list(small.store.uploads) == [theirs]


async def test_or_later_when_the_store_answers_again(small: Domain) -> None:
    small.store.fail_next("create_upload", ServerFault("500"), after_effect=True, times=5)
    small.store.fail_next("list_uploads", ServerFault("500"), times=3)
    handle = await small.create("dump/a")
    with pytest.raises(ServerFault):
        await small.finish(handle, BODY)
    await trio.sleep(190)
    await small.nothing_left()


@pytest.mark.expect_log("database or disk is full; tried again")
async def test_a_full_state_disk_at_the_end_of_the_search_ends_no_mount(
    small: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(write_id: str) -> None:
        raise JournalError("journal: database or disk is full")

    handle = await small.create("dump/a")
    small.store.fail_next("create_upload", ServerFault("500"), after_effect=True)
    await small.finish(handle, BODY)
    with monkeypatch.context() as patch:
        patch.setattr(small.journal, "remove", full)
        await trio.sleep(200)
    assert [r.state for r in await small.journal.records()] == ["opening"]
    await small.nothing_left()


async def test_an_upload_that_the_store_makes_after_its_answer_was_given_up_is_aborted_in_the_end(
    make: Make, schedule: SmallSchedule, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """Found by the soak: a store that hung worked off what it was asked before, when a second attempt had succeeded."""
    store = FakeStore(min_part=4 * KIB)
    mount = make(store, schedule=schedule, budget=64 * KIB)
    create, late = store.create_upload, [3.0, 90.0]  # seconds until the first two attempts have their effect

    async def hung(key: str, *, metadata: Mapping[str, str]) -> str:
        if not late:
            return await create(key, metadata=metadata)
        seconds = late.pop(0)

        async def afterwards() -> None:
            await trio.sleep(seconds)
            await create(key, metadata=metadata)

        nursery.start_soon(afterwards)
        raise ConnectionFailed("no answer")

    monkeypatch.setattr(store, "create_upload", hung)
    await mount.write("dump/a", pattern(40 * KIB))
    assert mount.stored("dump/a") == pattern(40 * KIB)
    assert [r.state for r in await mount.journal.records()] == ["opening", "opening"]  # a crash would not forget them
    await trio.sleep(91)
    assert len(store.uploads) == 1  # the second one, made after the first sweep
    await mount.nothing_left()
