"""Temporary names commit on rename: one CompleteMultipartUpload, no copy; and the fallbacks."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from s3fsx.errors import (
    AccessDenied,
    ConnectionFailed,
    Corrupted,
    FileSystemError,
    NotFound,
    QuotaExceeded,
    S3fsxError,
    ServerFault,
    UploadGone,
)
from s3fsx.local.journal import JournalError
from s3fsx.store.objects import Capabilities
from tests.domain.conftest import Make
from tests.domain.harness import KIB, SMALL_COPY, SMALL_PART, Domain, SmallSchedule, pattern
from tests.fakestore import FakeStore

VM = "dump/vzdump-qemu-100-2026_11_20-13_15_26"
CT = "dump/vzdump-lxc-101-2026_11_20-13_15_26"
ZST, GZ, LZO = b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08", b"\x89LZO\0\r\n"
TAR = pattern(257) + b"ustar\x0000" + bytes(247)
CASES = [
    (f"{VM}.vma.dat", f"{VM}.vma.zst", ZST),
    (f"{VM}.vma.dat", f"{VM}.vma.gz", GZ),
    (f"{VM}.vma.dat", f"{VM}.vma.lzo", LZO),
    (f"{VM}.dat", f"{VM}.vma", b"VMA\0"),
    (f"{CT}.tar.dat", f"{CT}.tar.zst", ZST),
    (f"{CT}.tar.dat", f"{CT}.tar.gz", GZ),
    (f"{CT}.tar.dat", f"{CT}.tar.lzo", LZO),
    (f"{CT}.dat", f"{CT}.tar", TAR),
    ("template/iso/a.iso.tmp_dwnl.4711", "template/iso/a.iso", b""),
    ("template/cache/a.tar.zst.tmp_dcom.4711", "template/cache/a.tar.zst", b""),
    (f"{VM}.vma.zst.notes.tmp.4711", f"{VM}.vma.zst.notes", b""),
]
DAT, FINAL = f"{VM}.vma.dat", f"{VM}.vma.zst"
BIG = ZST + pattern(5 * SMALL_PART + 99)


async def release_copy_later(mount: Domain) -> None:
    await trio.sleep(5)
    mount.store.release("copy")


@pytest.mark.parametrize("size", [30, 5 * SMALL_PART + 17])
@pytest.mark.parametrize(("name", "final", "head"), CASES)
async def test_one_complete_and_no_copy(small: Domain, name: str, final: str, head: bytes, size: int) -> None:
    data = head + pattern(size)
    handle = await small.create(name, os.O_WRONLY | os.O_TRUNC)
    await small.files.flush(handle)  # of descriptors duplicated into children that close theirs
    await small.fill(handle, data, step=3000)
    await small.files.flush(handle)
    await small.close(handle)
    assert small.paths() == []
    before = small.calls()
    await small.rename(name, final)
    assert small.calls() - before == {"list_parts": 1, "complete_upload": 1, "head": 1}
    assert small.stored(final) == data
    assert small.paths() == [final]
    assert not {"copy", "copy_part", "delete", "put"} & set(small.calls())
    assert small.calls()["create_upload"] == 1
    assert await small.read(final) == data
    assert await small.lookup(name) is None
    await small.nothing_left()


async def test_the_rename_may_overtake_the_release(small: Domain) -> None:
    handle = await small.create(DAT)
    await small.fill(handle, BIG)
    await small.files.flush(handle)
    await small.rename(DAT, FINAL)
    await small.files.release(handle)
    assert small.stored(FINAL) == BIG
    await small.nothing_left()


async def test_a_rename_before_any_flush_commits_all_that_was_written(small: Domain) -> None:
    handle = await small.create(DAT)
    await small.fill(handle, BIG)
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == BIG
    await small.fill(handle, b"more", offset=len(BIG))
    await small.close(handle)
    assert small.stored(FINAL) == BIG + b"more"
    assert small.paths() == [FINAL]
    await small.nothing_left()


@pytest.mark.parametrize("name", ["dump/a", "dump/a.tmp"])
async def test_a_rename_commits_the_gap_behind_what_was_written(small: Domain, name: str) -> None:
    handle = await small.create(name)
    await small.fill(handle, b"head")
    await small.files.truncate(handle.file, 5 * SMALL_PART)
    await small.rename(name, "dump/b")
    assert small.stored("dump/b") == b"head" + bytes(5 * SMALL_PART - 4)
    await small.close(handle)
    assert small.paths() == ["dump/b"]
    await small.nothing_left()


@pytest.mark.parametrize("size", [30, 3 * SMALL_PART, SMALL_COPY + 5])
async def test_a_wrong_prediction_only_costs_copies(small: Domain, size: int) -> None:
    data = ZST + pattern(size)
    await small.write(DAT, data)
    await small.rename(DAT, "dump/other")
    assert small.stored("dump/other") == data
    assert small.paths() == ["dump/other"]
    assert await small.read("dump/other") == data
    await small.nothing_left()


@pytest.mark.parametrize("size", [30, 3 * SMALL_PART, SMALL_COPY + 5])
async def test_reading_back_before_the_rename_publishes_under_the_temporary_name(small: Domain, size: int) -> None:
    data = ZST + pattern(size)
    await small.write(DAT, data)
    assert await small.read(DAT) == data
    assert small.paths() == [DAT]
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == data
    assert small.paths() == [FINAL]
    await small.nothing_left()


async def test_no_prediction_where_the_target_exists(small: Domain) -> None:
    small.store.poke(small.key(FINAL), b"old")
    await small.write(DAT, BIG)
    assert (small.stored(DAT), small.stored(FINAL)) == (BIG, b"old")
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == BIG
    assert small.paths() == [FINAL]
    await small.nothing_left()


async def test_a_target_that_came_into_being_meanwhile_is_replaced_as_rename_does(small: Domain) -> None:
    await small.write(DAT, BIG)
    await small.write(FINAL, b"by somebody on this node")
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == BIG
    await small.nothing_left()


async def test_a_rename_that_fails_over_a_waiting_file_leaves_it_waiting(small: Domain) -> None:
    """Its close was OK. Nothing of it is published while the rename is under way, before or after ours."""
    temporary = "dump/b.tmp"
    await small.write("dump/a", BIG)
    await small.write(temporary, BIG[:-9])
    assert small.paths() == ["dump/a"]
    small.store.hang("copy")
    small.store.fail_next("copy", AccessDenied("403"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(release_copy_later, small)
        nursery.start_soon(small.files.publish_waiting, -1.0)
        with pytest.raises(AccessDenied):
            await small.rename("dump/a", temporary)
    assert small.stored(temporary) == BIG[:-9]
    await small.write(temporary, BIG[:-8])
    small.store.fail_next("copy", AccessDenied("403"))
    with pytest.raises(AccessDenied):
        await small.rename("dump/a", temporary)
    await small.rename(temporary, "dump/b")
    assert small.stored("dump/b") == BIG[:-8]
    await small.nothing_left()


async def test_a_rename_over_a_waiting_file_is_not_published_over(small: Domain) -> None:
    temporary = "dump/b.tmp"
    await small.write("dump/a", BIG)
    await small.write(temporary, BIG[:-9])
    small.store.hang("copy")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(release_copy_later, small)
        nursery.start_soon(small.rename, "dump/a", temporary)
        await trio.sleep(1)
        await small.files.publish_waiting(-1.0)
    assert small.stored(temporary) == BIG
    assert await small.read(temporary) == BIG
    await small.nothing_left()


async def test_a_rename_that_fails_over_an_open_file_leaves_its_descriptor_alone(small: Domain) -> None:
    await small.write("dump/a", b"a")
    await small.write("dump/b", b"b")
    handle = await small.open("dump/b", os.O_WRONLY)
    small.store.fail_next("copy", AccessDenied("403"))
    with pytest.raises(AccessDenied):
        await small.rename("dump/a", "dump/b")
    await small.finish(handle, b"B")
    assert (small.stored("dump/a"), small.stored("dump/b")) == (b"a", b"B")
    handle = await small.open("dump/b", os.O_WRONLY)
    await small.rename("dump/a", "dump/b")
    with pytest.raises(FileSystemError) as stale:
        await small.finish(handle, b"of the file that was replaced")
    assert stale.value.errno == errno.ESTALE
    assert small.stored("dump/b") == b"a"


async def test_noreplace_asks_the_store(make: Make) -> None:
    """Another node made it since this one has listed the directory."""
    store = FakeStore()
    one, two = make(store), make(store)
    await one.write("dump/a", b"one")
    await one.mkdir("dump/d")
    await one.names("dump")
    await two.write("dump/b", b"two")
    await two.mkdir("dump/e")
    for old, new in (("a", "b"), ("a", "e"), ("d", "e"), ("d", "b")):
        with pytest.raises(FileSystemError) as refused:
            await one.rename(f"dump/{old}", f"dump/{new}", no_replace=True)
        assert refused.value.errno == errno.EEXIST, (old, new)
    await one.rename("dump/a", "dump/c", no_replace=True)
    assert (one.stored("dump/b"), one.stored("dump/c")) == (b"two", b"one")


async def test_noreplace(small: Domain) -> None:
    await small.write(DAT, BIG)
    await small.write(FINAL, b"old")
    with pytest.raises(FileSystemError) as refused:
        await small.rename(DAT, FINAL, no_replace=True)
    assert refused.value.errno == errno.EEXIST
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == BIG


async def test_an_abandoned_backup_leaves_nothing(small: Domain) -> None:
    await small.write(DAT, BIG)
    await small.unlink(DAT)
    await small.nothing_left()
    assert small.paths() == []
    assert await small.names("dump") == []


async def test_unlink_while_parts_are_under_way_does_not_wait_for_them(small: Domain) -> None:
    handle = await small.create(DAT)
    small.store.hang("upload_part")
    await small.fill(handle, BIG[: 3 * SMALL_PART])
    started = trio.current_time()
    await small.unlink(DAT)
    assert trio.current_time() - started < 1
    with pytest.raises(FileSystemError) as refused:
        await small.fill(handle, b"x")
    assert refused.value.errno == errno.ESTALE
    await small.close(handle)
    assert small.paths() == []
    await small.nothing_left()


async def test_unlink_while_it_is_being_published(small: Domain) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, BIG)
    small.store.hang("complete_upload")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(small.close, handle)
        await trio.sleep(1)
        nursery.start_soon(small.unlink, "dump/a")
        await trio.sleep(1)
        small.store.release("complete_upload")
    assert small.paths() == []
    await small.nothing_left()


async def test_unlink_while_the_close_waits_for_parts_ends_both(small: Domain) -> None:
    handle = await small.create("dump/a")
    small.store.hang("upload_part")
    await small.fill(handle, BIG[: 3 * SMALL_PART])
    failed: list[S3fsxError] = []

    async def close() -> None:
        try:
            await small.close(handle)
        except S3fsxError as e:
            failed.append(e)

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        await trio.sleep(1)
        nursery.start_soon(small.unlink, "dump/a")
    assert trio.current_time() - started < 2
    assert isinstance(failed[0], UploadGone)
    await small.nothing_left()


# -- failures


@pytest.mark.parametrize("op", ["list_parts", "complete_upload", "head"])
@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_rename_that_failed_may_be_repeated(small: Domain, op: str, after_effect: bool) -> None:
    await small.write(DAT, BIG)
    small.store.fail_next(op, ServerFault("500"), after_effect=after_effect)
    with pytest.raises(ServerFault):
        await small.rename(DAT, FINAL)
    assert [n for n in await small.names("dump") if n.endswith(".dat")]
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == BIG
    assert small.paths() == [FINAL]
    await small.nothing_left()


@pytest.mark.parametrize("op", ["list_parts", "complete_upload", "head"])
@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_rename_that_failed_and_is_given_up_leaves_nothing(small: Domain, op: str, after_effect: bool) -> None:
    """As vzdump does: a failed rename fails the job, which deletes the temporary name."""
    await small.write(DAT, BIG)
    small.store.fail_next(op, ServerFault("500"), after_effect=after_effect)
    with pytest.raises(ServerFault):
        await small.rename(DAT, FINAL)
    await small.unlink(DAT)
    await small.nothing_left()
    assert small.paths() == []


PASSING = [
    ("list_parts", AccessDenied("ExpiredToken")),
    ("list_parts", UploadGone("a proxy's 404")),
    ("complete_upload", UploadGone("a proxy's 404")),
    ("complete_upload", NotFound("a proxy's 404")),
    ("complete_upload", AccessDenied("RequestTimeTooSkewed")),
    ("complete_upload", QuotaExceeded("507")),
    ("head", AccessDenied("403")),
]


@pytest.mark.parametrize(("op", "error"), PASSING)
async def test_a_refusal_that_may_pass_destroys_no_closed_backup(small: Domain, op: str, error: S3fsxError) -> None:
    await small.write(DAT, BIG)
    small.store.fail_next(op, error)
    with pytest.raises(type(error)):
        await small.rename(DAT, FINAL)
    await small.idle()
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == BIG
    await small.nothing_left()


async def test_a_full_state_disk_destroys_no_closed_backup(small: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(record: object) -> None:
        raise JournalError("journal: database or disk is full")

    await small.write(DAT, BIG)
    with monkeypatch.context() as patch:
        patch.setattr(small.journal, "put", full)
        with pytest.raises(JournalError):
            await small.rename(DAT, FINAL)
        await small.idle()
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == BIG
    await small.nothing_left()


async def test_a_hold_set_on_the_target_at_that_moment_destroys_no_closed_backup(
    small: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.store.capabilities = Capabilities("crc32", object_lock=True, md5_etags=True)
    await small.write(DAT, BIG)
    small.store.poke("pve/" + FINAL, b"of another node")
    ask = small.store.legal_hold
    asked = 0

    async def held_in_between(key: str) -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            small.store.hold("pve/" + FINAL)
        return await ask(key)

    with monkeypatch.context() as patch:
        patch.setattr(small.store, "legal_hold", held_in_between)
        with pytest.raises(FileSystemError) as refused:
            await small.rename(DAT, FINAL)
    assert (refused.value.errno, small.store.hidden) == (errno.EPERM, [])
    small.store.hold("pve/" + FINAL, False)
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == BIG


async def test_an_upload_that_is_gone_fails_the_rename_for_good(small: Domain) -> None:
    await small.write(DAT, BIG)
    small.store.uploads.clear()
    for _ in range(2):
        with pytest.raises((UploadGone, FileNotFoundError)):
            await small.rename(DAT, FINAL)
        await small.idle()
    await small.nothing_left()


async def test_an_error_of_the_stream_comes_out_of_the_rename(small: Domain) -> None:
    """A compressor that does not look at close."""
    handle = await small.create(DAT)
    await small.fill(handle, BIG)
    small.store.fail_next("upload_part", ServerFault("500"))
    with pytest.raises(ServerFault):
        await small.files.flush(handle)
    with pytest.raises(ServerFault):
        await small.rename(DAT, FINAL)
    await small.files.release(handle)
    with pytest.raises(FileSystemError):
        await small.rename(DAT, FINAL)
    assert small.paths() == []
    await small.nothing_left()


async def test_a_published_temporary_name_whose_rewrite_failed_is_not_renamed(small: Domain) -> None:
    await small.write(DAT, b"VMA\0")
    await small.read(DAT)
    handle = await small.open(DAT, os.O_WRONLY | os.O_TRUNC)
    await small.fill(handle, BIG)
    small.store.fail_next("upload_part", ServerFault("500"))
    with pytest.raises(ServerFault):
        await small.close(handle)
    with pytest.raises(ServerFault):
        await small.rename(DAT, FINAL)
    assert small.stored(DAT) == b"VMA\0"


async def test_parts_lost_between_close_and_rename_fail_the_rename(small: Domain) -> None:
    await small.write(DAT, BIG)
    (upload,) = small.store.uploads.values()
    del upload.parts[3]
    with pytest.raises(Corrupted):
        await small.rename(DAT, FINAL)
    assert small.paths() == []
    await small.nothing_left()


@pytest.mark.expect_log("what was published before could not be deleted")
async def test_a_committed_rename_does_not_fail_for_what_is_cleaned_up_after_it(small: Domain) -> None:
    await small.write(DAT, ZST)
    await small.read(DAT)  # published under the temporary name
    handle = await small.open(DAT, os.O_WRONLY | os.O_TRUNC)
    await small.fill(handle, BIG)
    await small.close(handle)
    small.store.fail_next("delete", ServerFault("500"))
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == BIG
    assert await small.read(FINAL) == BIG


# -- no rename comes


async def test_a_name_that_waits_too_long_is_published_as_it_is(
    make: Make, schedule: SmallSchedule, nursery: trio.Nursery
) -> None:
    mount = make(FakeStore(min_part=4 * KIB), schedule=schedule, pending_limit=600.0)
    nursery.start_soon(mount.files.janitor)
    await mount.write(DAT, BIG)
    await trio.sleep(590)
    assert mount.paths() == []
    await trio.sleep(30)
    assert mount.stored(DAT) == BIG
    assert mount.paths() == [DAT]
    await mount.nothing_left()


async def test_the_unmount_publishes_what_waits(small: Domain) -> None:
    await small.write(DAT, BIG)
    await small.files.publish_waiting(-1.0)
    assert small.stored(DAT) == BIG
    assert small.paths() == [DAT]
    await small.nothing_left()


@pytest.mark.expect_log("could not be published under its temporary name", optional=True)
@pytest.mark.parametrize("op", ["list_parts", "complete_upload", "head", "copy"])
@pytest.mark.parametrize("after_effect", [False, True])
async def test_an_outage_at_the_unmount_loses_nothing(small: Domain, op: str, after_effect: bool) -> None:
    await small.write(DAT, BIG)
    small.store.fail_next(op, ConnectionFailed("gone"), after_effect=after_effect)
    await small.files.publish_waiting(-1.0)
    after = await small.restarted()
    assert await after.names("dump") == [DAT.rpartition("/")[2]]
    assert await after.read(DAT) == BIG
    assert after.paths() == [DAT]
    await after.nothing_left()


async def test_the_janitor_leaves_an_outage_alone(make: Make, schedule: SmallSchedule, nursery: trio.Nursery) -> None:
    mount = make(FakeStore(min_part=4 * KIB), schedule=schedule, pending_limit=60.0)
    nursery.start_soon(mount.files.janitor)
    await mount.write(DAT, BIG)
    mount.store.down = True
    await trio.sleep(3600)
    mount.store.down = False
    await mount.rename(DAT, FINAL)
    assert mount.stored(FINAL) == BIG


@pytest.mark.expect_log("which somebody else made meanwhile|412", optional=True)
@pytest.mark.parametrize("capabilities", [Capabilities(), Capabilities("crc32", True, True)])
async def test_a_predicted_name_that_somebody_took_is_not_overwritten_by_a_file_nobody_renames(
    make: Make, schedule: SmallSchedule, capabilities: Capabilities
) -> None:
    mount = make(FakeStore(min_part=4 * KIB, capabilities=capabilities), schedule=schedule)
    await mount.write(DAT, BIG)
    mount.store.poke(mount.key(FINAL), b"theirs")
    await mount.files.publish_waiting(-1.0)
    assert mount.stored(FINAL) == b"theirs"
    after = await mount.restarted()
    assert mount.stored(FINAL) == b"theirs"
    await after.rename(DAT, FINAL)  # which replaces
    assert after.stored(FINAL) == BIG
    await after.nothing_left()


@pytest.mark.expect_log("could not abort the upload now")
async def test_an_upload_that_cannot_be_aborted_now_is_aborted_later(small: Domain) -> None:
    await small.write(DAT, BIG)
    small.store.fail_next("abort_upload", ServerFault("500"), times=3)
    await small.unlink(DAT)
    assert len(small.store.uploads) == 1
    await trio.sleep(200)
    await small.nothing_left()


async def test_opening_a_waiting_file_again_goes_on_from_it(small: Domain) -> None:
    await small.write(DAT, BIG)
    async with trio.open_nursery() as nursery:  # both wait for the same publication
        for _ in range(2):
            nursery.start_soon(small.open, DAT, os.O_WRONLY)
    assert small.stored(DAT) == BIG
    file = await small.file(DAT)
    assert file.writers == 2
    handle = await small.open(DAT, os.O_WRONLY)
    await small.fill(handle, b"more", offset=len(BIG))
    await small.rename(DAT, FINAL)
    assert small.stored(FINAL) == BIG + b"more"


async def test_a_temporary_name_that_was_only_created_exists(small: Domain) -> None:
    await small.close(await small.create(DAT))
    assert small.stored(DAT) == b""
    await small.rename(DAT, FINAL)
    assert small.paths() == [FINAL]
    await small.nothing_left()
