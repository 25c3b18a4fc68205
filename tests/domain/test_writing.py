"""What goes into a file comes out of the bucket, within the budget, and every failure comes out of a call that is
looked at."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio

from s3fsx.errors import (
    Changed,
    Corrupted,
    DeadlineExceeded,
    Exists,
    FileSystemError,
    NotSupported,
    QuotaExceeded,
    S3fsxError,
    ServerFault,
    TooLarge,
)
from s3fsx.fs.files import Handle
from s3fsx.store.objects import Capabilities, Payload, UploadedPart
from tests.domain.conftest import Make
from tests.domain.harness import KIB, MIB, SMALL_PART, Domain, SmallSchedule, pattern
from tests.fakestore import FakeStore

# -- sizes


@pytest.mark.parametrize("size", [0, 1, SMALL_PART - 1, SMALL_PART, SMALL_PART + 1, 2 * SMALL_PART, 7 * SMALL_PART + 5])
@pytest.mark.parametrize("step", [1000, 4096, 128 * KIB])
async def test_what_is_written_is_what_is_stored(small: Domain, size: int, step: int) -> None:
    await small.write("template/iso/a.iso", pattern(size), step=step)
    assert small.stored("template/iso/a.iso") == pattern(size)
    assert await small.read("template/iso/a.iso") == pattern(size)
    await small.nothing_left()


async def test_real_part_sizes(mount: Domain) -> None:
    await mount.write("dump/a.bin", pattern(20 * MIB + 3), step=MIB)
    assert mount.stored("dump/a.bin") == pattern(20 * MIB + 3)
    assert [len(mount.stored("dump/a.bin")), mount.calls()["upload_part"]] == [20 * MIB + 3, 3]
    await mount.nothing_left()


async def test_one_part_is_a_single_put(small: Domain) -> None:
    await small.write("dump/a", pattern(SMALL_PART))
    assert small.calls() == {"list_page": 1, "put": 1}


async def test_parts_grow_only_where_the_schedule_says(small: Domain) -> None:
    sizes: list[int] = []
    send = small.store.upload_part

    async def watched(key: str, upload_id: str, number: int, payload: Payload) -> UploadedPart:
        sizes.append(payload.size)
        return await send(key, upload_id, number, payload)

    small.store.upload_part = watched  # type: ignore[method-assign]
    await small.write("dump/a", pattern(4 * SMALL_PART + 1), step=777)
    assert sorted(sizes) == [1] + [SMALL_PART] * 4


async def test_a_uniform_schedule_never_sends_a_smaller_part_before_the_last(
    make: Make, schedule: SmallSchedule
) -> None:
    uniform = SmallSchedule(SMALL_PART, SMALL_PART, uniform=True)
    store = FakeStore(min_part=SMALL_PART, latency=(0.5, 1.0))
    mount = make(store, schedule=uniform, budget=2 * SMALL_PART)
    sizes: list[tuple[int, int]] = []
    send = store.upload_part

    async def watched(key: str, upload_id: str, number: int, payload: Payload) -> UploadedPart:
        sizes.append((number, payload.size))
        return await send(key, upload_id, number, payload)

    store.upload_part = watched  # type: ignore[method-assign]
    await mount.write("dump/a", pattern(5 * SMALL_PART + 9), step=3 * KIB)
    assert sorted(sizes) == [(n, SMALL_PART) for n in range(1, 6)] + [(6, 9)]
    assert mount.stored("dump/a") == pattern(5 * SMALL_PART + 9)
    await mount.nothing_left()


async def test_nothing_is_visible_before_the_close(small: Domain) -> None:
    small.store.poke(small.key("dump/a"), b"old")
    handle = await small.open("dump/a", os.O_WRONLY | os.O_TRUNC)
    await small.fill(handle, pattern(5 * SMALL_PART))
    await small.idle()
    assert small.stored("dump/a") == b"old"
    await small.close(handle)
    assert small.stored("dump/a") == pattern(5 * SMALL_PART)
    await small.nothing_left()


# -- memory


async def test_a_small_budget_slows_writers_and_is_never_exceeded(make: Make, schedule: SmallSchedule) -> None:
    store = FakeStore(min_part=4 * KIB, latency=(1.0, 2.0), seed=3)
    mount = make(store, schedule=schedule, budget=24 * KIB)
    files = {f"dump/{i}": pattern(10 * SMALL_PART + i, i) for i in range(4)}
    handles = [await mount.create(path) for path in files]  # a fifth would not be admitted
    started = trio.current_time()

    async def write(handle: Handle, data: bytes) -> None:
        await mount.fill(handle, data, step=2 * KIB)
        await mount.close(handle)

    async with trio.open_nursery() as nursery:
        for handle, data in zip(handles, files.values(), strict=True):
            nursery.start_soon(write, handle, data)
    assert trio.current_time() - started > 10  # it waited for the store
    assert mount.budget.peak <= 24 * KIB
    for path, data in files.items():
        assert mount.stored(path) == data
    await mount.nothing_left()


async def test_short_memory_sends_parts_early(make: Make, schedule: SmallSchedule) -> None:
    """Parts of 8 KiB are planned, but another file holds the memory: parts from 4 KiB on leave as they are."""
    mount = make(FakeStore(min_part=4 * KIB, latency=(0.1, 0.1)), schedule=schedule, budget=14 * KIB)
    held = await mount.create("dump/held")
    await mount.fill(held, pattern(SMALL_PART))
    await mount.write("dump/a", pattern(3 * SMALL_PART), step=KIB)
    assert mount.stored("dump/a") == pattern(3 * SMALL_PART)
    assert mount.calls()["upload_part"] > 3
    await mount.close(held)
    await mount.nothing_left()


async def test_a_writer_too_many_is_refused_at_once(make: Make, schedule: SmallSchedule) -> None:
    mount = make(FakeStore(min_part=4 * KIB), schedule=schedule, budget=14 * KIB)  # 5 KiB each
    first, second = await mount.create("dump/1"), await mount.create("dump/2")
    with pytest.raises(FileSystemError) as refused:
        await mount.create("dump/3")
    assert refused.value.errno == errno.ENOMEM
    assert await mount.names("dump") == ["1", "2"]
    mount.store.poke(mount.key("dump/4"), b"x")
    await trio.sleep(6)
    with pytest.raises(FileSystemError) as refused:
        await mount.open("dump/4", os.O_WRONLY)
    assert refused.value.errno == errno.ENOMEM
    assert await mount.read("dump/4") == b"x"  # reading needs no admission
    await mount.close(first)
    await mount.close(await mount.create("dump/3"))
    await mount.close(second)
    await mount.nothing_left()


async def test_a_write_that_gets_no_memory_ends_by_its_deadline(make: Make, schedule: SmallSchedule) -> None:
    store = FakeStore(min_part=4 * KIB)
    mount = make(store, schedule=schedule, budget=10 * KIB, write_deadline=30.0)
    store.hang("upload_part")
    handle = await mount.create("dump/a")
    started = trio.current_time()
    with pytest.raises(DeadlineExceeded, match="no memory for 30 s"):
        await mount.fill(handle, pattern(64 * KIB), step=KIB)
    assert trio.current_time() - started == pytest.approx(30)
    with pytest.raises(DeadlineExceeded):
        await mount.close(handle)
    store.release("upload_part")
    await mount.nothing_left()
    assert mount.paths() == []


async def test_a_write_waits_for_a_place_among_the_parts_in_flight_until_its_deadline(
    make: Make, schedule: SmallSchedule
) -> None:
    store = FakeStore(min_part=4 * KIB)
    mount = make(store, schedule=schedule, budget=1 * MIB, max_uploads=2, write_deadline=30.0)
    store.hang("upload_part")
    handle = await mount.create("dump/a")
    with pytest.raises(DeadlineExceeded, match="S3 took no part for 30 s"):
        await mount.fill(handle, pattern(64 * KIB), step=KIB)
    assert store.peak["upload_part"] == 2
    with pytest.raises(DeadlineExceeded):
        await mount.close(handle)
    await mount.nothing_left()


async def test_no_more_parts_in_flight_than_allowed(make: Make, schedule: SmallSchedule) -> None:
    store = FakeStore(min_part=4 * KIB, latency=(1.0, 3.0))
    mount = make(store, schedule=schedule, budget=1 * MIB, max_uploads=3)
    await mount.write("dump/a", pattern(20 * SMALL_PART))
    assert store.peak["upload_part"] == 3


async def test_publishing_ends_by_its_deadline(make: Make, schedule: SmallSchedule) -> None:
    store = FakeStore(min_part=4 * KIB)
    mount = make(store, schedule=schedule, publish_deadline=50.0)
    handle = await mount.create("dump/a")
    await mount.fill(handle, pattern(3 * SMALL_PART))
    store.hang("complete_upload")
    started = trio.current_time()
    with pytest.raises(DeadlineExceeded, match="not in the bucket after 50 s"):
        await mount.close(handle)
    assert trio.current_time() - started == pytest.approx(50)
    store.release("complete_upload")
    await mount.nothing_left()
    assert mount.paths() == []


async def test_more_parts_than_s3_has_is_too_large(make: Make, schedule: SmallSchedule) -> None:
    mount = make(FakeStore(min_part=4 * KIB), schedule=replace(schedule, count=3))
    handle = await mount.create("dump/a")
    with pytest.raises(TooLarge):
        await mount.fill(handle, pattern(16 * SMALL_PART))
    with pytest.raises(TooLarge):
        await mount.close(handle)
    await mount.nothing_left()


async def test_the_byte_that_makes_an_object_too_large_is_refused(
    make: Make, schedule: SmallSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is appended to a part that has room for it."""
    monkeypatch.setattr("s3fsx.store.parts.MAX_OBJECT", 20 * KIB)
    mount = make(FakeStore(min_part=4 * KIB), schedule=schedule)
    handle = await mount.create("dump/a")
    await mount.fill(handle, pattern(20 * KIB), step=KIB)
    assert not mount.files.try_append(handle, 20 * KIB, b"x")
    with pytest.raises(TooLarge):
        await mount.fill(handle, b"x", offset=20 * KIB)
    with pytest.raises(TooLarge):
        await mount.close(handle)
    await mount.nothing_left()


async def test_the_last_part_is_not_sent_because_another_wants_memory(make: Make, schedule: SmallSchedule) -> None:
    """There would be no number left for what comes after it."""
    mount = make(FakeStore(min_part=4 * KIB), schedule=replace(schedule, count=3))
    handle = await mount.create("dump/a")
    await mount.fill(handle, pattern(2 * SMALL_PART + 6 * KIB), step=KIB)
    mount.budget.press(promised=True)
    await mount.idle()
    await mount.fill(handle, b"end", offset=2 * SMALL_PART + 6 * KIB)
    await mount.close(handle)
    assert mount.stored("dump/a") == pattern(2 * SMALL_PART + 6 * KIB) + b"end"
    await mount.nothing_left()


# -- failures


@pytest.mark.parametrize("op", ["create_upload", "upload_part", "list_parts", "complete_upload"])
@pytest.mark.parametrize("error", [ServerFault("500"), QuotaExceeded("507"), DeadlineExceeded("late")])
async def test_a_failed_upload_is_told_and_leaves_the_old_object_and_nothing_else(
    small: Domain, op: str, error: S3fsxError
) -> None:
    small.store.poke(small.key("dump/a"), b"old")
    handle = await small.open("dump/a", os.O_WRONLY | os.O_TRUNC)
    small.store.fail_next(op, error, times=5 if op == "create_upload" else 1)  # without an answer it is begun again
    with pytest.raises(type(error)):
        await small.finish(handle, pattern(3 * SMALL_PART))
    assert small.stored("dump/a") == b"old"
    await small.idle()
    assert small.store.uploads == {}


async def test_a_failed_put_is_told_and_leaves_nothing(small: Domain) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, b"x")
    small.store.fail_next("put", ServerFault("500"))
    with pytest.raises(ServerFault):
        await small.close(handle)
    assert await small.lookup("dump/a") is None
    await small.nothing_left()


async def test_an_error_sticks_until_the_file_is_truncated(small: Domain) -> None:
    handle = await small.create("dump/a")
    small.store.fail_next("upload_part", ServerFault("500"))
    await small.fill(handle, pattern(2 * SMALL_PART))
    await small.idle()
    with pytest.raises(ServerFault):
        await small.files.flush(handle)
    for _ in range(2):
        with pytest.raises(ServerFault):
            await small.files.write(handle, 0, b"x")
        with pytest.raises(ServerFault):
            await small.files.flush(handle)
        with pytest.raises(ServerFault):
            await small.files.fsync(handle)
    await small.files.truncate(handle.file, 0)
    await small.fill(handle, b"anew")
    await small.close(handle)
    assert small.stored("dump/a") == b"anew"
    await small.nothing_left()


async def test_a_failed_write_is_forgotten_by_opening_anew(small: Domain) -> None:
    small.store.poke(small.key("dump/a"), b"old")
    handle = await small.open("dump/a", os.O_WRONLY | os.O_TRUNC)
    await small.fill(handle, b"new")
    small.store.fail_next("put", ServerFault("500"))
    with pytest.raises(ServerFault):
        await small.close(handle)
    assert await small.read("dump/a") == b"old"
    await small.write("dump/a", b"newer")
    assert small.stored("dump/a") == b"newer"
    await small.nothing_left()


async def lose_a_part(store: FakeStore) -> None:
    (upload,) = store.uploads.values()
    del upload.parts[2]


async def change_a_part(store: FakeStore) -> None:
    (upload,) = store.uploads.values()
    data, _ = upload.parts[2]
    upload.parts[2] = (data[:-1] + b"!", "0" * 32)


async def shorten_a_part(store: FakeStore) -> None:
    (upload,) = store.uploads.values()
    data, etag = upload.parts[2]
    upload.parts[2] = (data[:-1], etag)


@pytest.mark.parametrize("spoil", [lose_a_part, change_a_part, shorten_a_part])
async def test_parts_that_are_not_what_was_sent_are_never_published(
    small: Domain, spoil: Callable[[FakeStore], Awaitable[None]]
) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, pattern(4 * SMALL_PART))
    await small.idle()
    await spoil(small.store)
    with pytest.raises(Corrupted, match="part 2"):
        await small.close(handle)
    assert small.paths() == []
    await small.nothing_left()


async def test_a_wrong_object_after_complete_is_removed_again(small: Domain) -> None:
    complete = small.store.complete_upload

    async def wrong(*args: object, **more: object) -> str:
        etag = await complete(*args, **more)  # type: ignore[arg-type]
        small.store.objects[small.key("dump/a")].data += b"!"
        return etag

    small.store.complete_upload = wrong  # type: ignore[method-assign]
    handle = await small.create("dump/a")
    await small.fill(handle, pattern(4 * SMALL_PART))
    with pytest.raises(Corrupted, match="removed again"):
        await small.close(handle)
    assert small.paths() == []
    await small.nothing_left()


@pytest.mark.expect_log("the ETag of an upload is e{32}-4")
async def test_a_store_with_other_etags_for_uploads_keeps_them(small: Domain, caplog: pytest.LogCaptureFixture) -> None:
    """Every backup was deleted after its Complete. The warning comes once."""
    small.store.composite_etag = "e" * 32 + "-4"
    for name in ("dump/a", "dump/b"):
        await small.write(name, pattern(4 * SMALL_PART))
        assert small.stored(name) == pattern(4 * SMALL_PART)
    assert caplog.text.count("the ETag of an upload") == 1
    await small.nothing_left()


@pytest.mark.expect_log("the ETag of an upload is e{32}-4", optional=True)
@pytest.mark.parametrize("agreed", [True, False])
async def test_another_etag_is_wrong_where_they_were_right_before(small: Domain, agreed: bool) -> None:
    if agreed:
        await small.write("dump/a", pattern(4 * SMALL_PART))
    small.store.composite_etag = "e" * 32 + "-4"
    handle = await small.create("dump/b")
    await small.fill(handle, pattern(4 * SMALL_PART))
    if agreed:
        with pytest.raises(Corrupted, match="removed again"):
            await small.close(handle)
    else:
        await small.close(handle)
    assert small.paths() == (["dump/a"] if agreed else ["dump/b"])
    await small.nothing_left()


async def test_an_object_that_is_not_there_after_complete_is_corrupted(small: Domain) -> None:
    complete = small.store.complete_upload

    async def lost(*args: object, **more: object) -> str:
        etag = await complete(*args, **more)  # type: ignore[arg-type]
        small.store.remove(small.key("dump/a"))
        return etag

    small.store.complete_upload = lost  # type: ignore[method-assign]
    handle = await small.create("dump/a")
    await small.fill(handle, pattern(4 * SMALL_PART))
    with pytest.raises(Corrupted):
        await small.close(handle)
    await small.nothing_left()


async def test_somebody_elses_object_in_place_of_ours_is_not_ours(small: Domain) -> None:
    complete = small.store.complete_upload

    async def overtaken(*args: object, **more: object) -> str:
        etag = await complete(*args, **more)  # type: ignore[arg-type]
        small.store.poke(small.key("dump/a"), b"theirs")
        return etag

    small.store.complete_upload = overtaken  # type: ignore[method-assign]
    handle = await small.create("dump/a")
    await small.fill(handle, pattern(4 * SMALL_PART))
    with pytest.raises(Changed):
        await small.close(handle)
    assert small.stored("dump/a") == b"theirs"
    await small.nothing_left()


@pytest.mark.parametrize("size", [5, 3 * SMALL_PART])
async def test_two_nodes_creating_one_name_are_told_apart(small: Domain, size: int) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, pattern(size))
    small.store.poke(small.key("dump/a"), b"theirs")
    with pytest.raises(Exists):
        await small.close(handle)
    assert small.stored("dump/a") == b"theirs"
    await small.nothing_left()


@pytest.mark.parametrize("size", [5, 3 * SMALL_PART])
async def test_a_store_without_conditions_lets_the_last_writer_win(
    make: Make, schedule: SmallSchedule, size: int
) -> None:
    mount = make(FakeStore(min_part=4 * KIB, capabilities=Capabilities()), schedule=schedule)
    handle = await mount.create("dump/a")
    await mount.fill(handle, pattern(size))
    mount.store.poke(mount.key("dump/a"), b"theirs")
    await mount.close(handle)
    assert mount.stored("dump/a") == pattern(size)


@pytest.mark.parametrize("size", [5, 3 * SMALL_PART])
async def test_an_answer_lost_after_the_effect_never_loses_the_object(small: Domain, size: int) -> None:
    """Complete may succeed unheard. What the program is told may be an error; the bucket has the old or the whole new
    content, never less."""
    small.store.poke(small.key("dump/a"), b"old")
    handle = await small.open("dump/a", os.O_WRONLY | os.O_TRUNC)
    await small.fill(handle, pattern(size))
    small.store.fail_next("complete_upload" if size > SMALL_PART else "put", ServerFault("500"), after_effect=True)
    with pytest.raises(ServerFault):
        await small.close(handle)
    assert small.stored("dump/a") == pattern(size)
    await trio.sleep(6)
    assert await small.read("dump/a") == pattern(size)
    await small.nothing_left()


# -- edits


async def test_a_sparse_copy_reads_back_with_zeros_in_its_gaps(small: Domain) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, b"head")
    await small.fill(handle, b"tail", offset=5 * SMALL_PART + 100)
    await small.close(handle)
    assert small.stored("dump/a") == b"head" + bytes(5 * SMALL_PART + 96) + b"tail"
    await small.nothing_left()


@pytest.mark.parametrize("size", [100, SMALL_PART, SMALL_PART + 1, 3 * SMALL_PART + 7])
async def test_truncating_upwards_adds_zeros(small: Domain, size: int) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, b"head")
    await small.files.truncate(handle.file, size)
    assert handle.file.size == size
    assert await small.files.read(handle, 0, 8) == b"head\0\0\0\0"
    await small.close(handle)
    assert small.stored("dump/a") == b"head" + bytes(size - 4)
    await small.nothing_left()


async def test_truncating_down_and_up_again_leaves_no_old_bytes(small: Domain) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, pattern(5000))
    await small.files.truncate(handle.file, 3)
    await small.files.truncate(handle.file, 4000)
    await small.close(handle)
    assert small.stored("dump/a") == pattern(3) + bytes(3997)


async def test_overlapping_writes_inside_the_part_in_memory(small: Domain) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, pattern(SMALL_PART - 10))
    await small.fill(handle, b"z" * 3000, offset=1000)
    await small.fill(handle, b"y" * 20, offset=SMALL_PART - 20)
    await small.close(handle)
    expected = bytearray(pattern(SMALL_PART - 10))
    expected[1000:4000] = b"z" * 3000
    expected[SMALL_PART - 20 :] = b"y" * 20
    assert small.stored("dump/a") == expected


@pytest.mark.parametrize("how", ["write", "truncate"])
async def test_a_random_change_of_parts_that_left_is_refused_and_nothing_is_published(small: Domain, how: str) -> None:
    """qemu-img goes on after a refused write and reports success: half an image must not replace a whole one."""
    small.store.poke(small.key("dump/a"), b"old")
    handle = await small.open("dump/a", os.O_WRONLY | os.O_TRUNC)
    await small.fill(handle, pattern(4 * SMALL_PART))
    change = small.files.write(handle, 10, b"x") if how == "write" else small.files.truncate(handle.file, 10)
    with pytest.raises(NotSupported) as refused:
        await change
    assert refused.value.errno == errno.EOPNOTSUPP
    with pytest.raises(NotSupported):
        await small.fill(handle, b"end", offset=4 * SMALL_PART)
    with pytest.raises(NotSupported):
        await small.close(handle)
    assert small.stored("dump/a") == b"old"
    await small.nothing_left()


async def test_a_random_write_into_a_large_object_is_refused_at_once(small: Domain) -> None:
    await small.write("dump/a", pattern(4 * SMALL_PART))
    before = small.calls()
    handle = await small.open("dump/a", os.O_RDWR)
    with pytest.raises(NotSupported):
        await small.files.write(handle, 10, b"x")
    await small.close(handle)
    assert small.calls() == before
    assert small.stored("dump/a") == pattern(4 * SMALL_PART)


async def test_a_small_object_is_edited_in_place(small: Domain) -> None:
    await small.write("snippets/a", pattern(5000))
    handle = await small.open("snippets/a", os.O_RDWR)
    await small.fill(handle, b"EDIT", offset=1000)
    assert await small.files.read(handle, 998, 8) == pattern(5000)[998:1000] + b"EDIT" + pattern(5000)[1004:1006]
    await small.close(handle)
    assert small.stored("snippets/a") == pattern(5000)[:1000] + b"EDIT" + pattern(5000)[1004:]
    await small.nothing_left()


@pytest.mark.parametrize("uniform", [False, True])
async def test_appending_to_a_large_object_copies_it_on_the_server(
    make: Make, schedule: SmallSchedule, uniform: bool
) -> None:
    used = SmallSchedule(SMALL_PART, SMALL_PART, uniform=True) if uniform else schedule
    mount = make(FakeStore(min_part=4 * KIB), schedule=used, budget=64 * KIB)
    size = 6 * SMALL_PART + 100
    await mount.write("dump/a", pattern(size))
    mount.store.log.clear()
    handle = await mount.open("dump/a", os.O_WRONLY | os.O_APPEND)
    await mount.fill(handle, b"more" * 5000, offset=size)
    await mount.close(handle)
    assert mount.stored("dump/a") == pattern(size) + b"more" * 5000
    assert mount.calls()["copy_part"] == (6 if uniform else 4)
    assert mount.calls()["get_range"] == (1 if uniform else 0)  # the tail that is no whole part
    await mount.nothing_left()


async def test_a_large_object_cannot_grow_where_parts_cannot_be_copied(make: Make, schedule: SmallSchedule) -> None:
    mount = make(FakeStore(min_part=4 * KIB, capabilities=Capabilities(part_copy=False)), schedule=schedule)
    await mount.write("dump/a", pattern(3 * SMALL_PART))
    handle = await mount.open("dump/a", os.O_WRONLY)
    with pytest.raises(NotSupported, match="UploadPartCopy"):
        await mount.files.write(handle, 3 * SMALL_PART, b"x")
    await mount.close(handle)
    assert mount.stored("dump/a") == pattern(3 * SMALL_PART)
    await mount.nothing_left()


@pytest.mark.parametrize("old", [5000, 5 * SMALL_PART])
@pytest.mark.parametrize("new", [0, 1, SMALL_PART, 2 * SMALL_PART + 5, 5 * SMALL_PART, 5 * SMALL_PART + 3])
async def test_truncate_of_a_published_file_is_published_at_once(small: Domain, old: int, new: int) -> None:
    await small.write("dump/a", pattern(old))
    await small.files.truncate(await small.file("dump/a"), new)
    assert small.stored("dump/a") == pattern(old)[:new] + bytes(max(0, new - old))
    assert (await small.file("dump/a")).size == new
    await small.nothing_left()


async def test_cutting_a_stream_back_to_the_start_of_its_last_part(small: Domain) -> None:
    """The part was sent with an early flush already: it must not end up in the object."""
    name = "dump/a.tmp"
    handle = await small.create(name)
    await small.fill(handle, pattern(2 * SMALL_PART + 50))
    await small.files.flush(handle)
    await small.files.truncate(handle.file, 2 * SMALL_PART)
    await small.close(handle)
    await small.rename(name, "dump/a")
    assert small.stored("dump/a") == pattern(2 * SMALL_PART)
    await small.nothing_left()


async def test_flushes_come_early_and_often_and_cost_nothing_where_nothing_is_dirty(small: Domain) -> None:
    handle = await small.create("dump/a")
    for _ in range(3):
        await small.files.flush(handle)
    assert small.calls()["put"] == 1  # created-only counts
    data = pattern(5 * SMALL_PART + 5)
    for start in range(0, len(data), 5000):
        await small.fill(handle, data[start : start + 5000], offset=start)
        await small.files.flush(handle)
        assert small.stored("dump/a") == data[: start + 5000]
    before = small.calls()
    for _ in range(3):
        await small.files.flush(handle)
        await small.files.fsync(handle)
    await small.close(handle)
    assert small.calls() == before
    await small.nothing_left()


@pytest.mark.parametrize("size", [5000, 5 * SMALL_PART])
async def test_an_object_replaced_elsewhere_while_it_was_edited_is_kept(small: Domain, size: int) -> None:
    await small.write("dump/a", pattern(size))
    handle = await small.open("dump/a", os.O_WRONLY)
    await small.fill(handle, b"more", offset=size)
    small.store.poke(small.key("dump/a"), b"theirs")
    with pytest.raises(Changed) as lost:
        await small.close(handle)
    assert lost.value.errno == errno.ESTALE
    assert small.stored("dump/a") == b"theirs"
    await small.nothing_left()


async def test_an_object_deleted_elsewhere_while_it_was_edited_stays_deleted(small: Domain) -> None:
    await small.write("dump/a", b"12345")
    handle = await small.open("dump/a", os.O_WRONLY)
    await small.fill(handle, b"6", offset=5)
    small.store.remove(small.key("dump/a"))
    with pytest.raises(Changed):
        await small.close(handle)
    assert small.paths() == []
    await small.nothing_left()


async def test_a_whole_rewrite_replaces_whatever_is_there(small: Domain) -> None:
    await small.write("dump/a", b"12345")
    handle = await small.open("dump/a", os.O_WRONLY | os.O_TRUNC)
    await small.fill(handle, b"new")
    small.store.poke(small.key("dump/a"), b"theirs")
    await small.close(handle)
    assert small.stored("dump/a") == b"new"


# -- handles


async def test_a_file_that_was_only_created_exists(small: Domain) -> None:
    await small.close(await small.create("dump/x.protected", os.O_RDONLY))
    assert small.stored("dump/x.protected") == b""
    await small.nothing_left()


async def test_a_created_file_that_is_never_flushed_is_published_by_release(small: Domain) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, b"x")
    await small.files.release(handle)
    assert small.stored("dump/a") == b"x"
    await small.nothing_left()


@pytest.mark.expect_log("dump/a: could not be published: 500")
async def test_a_release_that_cannot_publish_says_so_in_the_log(small: Domain) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, b"x")
    small.store.fail_next("put", ServerFault("500"))
    await small.files.release(handle)
    assert await small.lookup("dump/a") is None
    await small.nothing_left()


async def test_o_excl_and_existing_names(small: Domain) -> None:
    await small.write("dump/a", b"x")
    with pytest.raises(FileSystemError) as refused:
        await small.create("dump/a", os.O_WRONLY | os.O_EXCL)
    assert refused.value.errno == errno.EEXIST
    with pytest.raises(FileSystemError) as refused:
        await small.create("dump", os.O_WRONLY)
    assert refused.value.errno == errno.EISDIR
    handle = await small.create("dump/a")  # without O_EXCL: the existing one
    await small.fill(handle, b"yz", offset=1)
    await small.close(handle)
    assert small.stored("dump/a") == b"xyz"


async def test_a_handle_only_for_reading_cannot_write(small: Domain) -> None:
    await small.write("dump/a", b"x")
    handle = await small.open("dump/a")
    with pytest.raises(FileSystemError) as refused:
        await small.files.write(handle, 0, b"y")
    assert refused.value.errno == errno.EBADF
    await small.files.release(handle)


async def test_two_handles_write_one_content(small: Domain) -> None:
    first = await small.create("dump/a")
    second = await small.open("dump/a", os.O_RDWR)
    await small.fill(first, b"one ")
    await small.fill(second, b"two", offset=4)
    await small.close(first)
    assert small.stored("dump/a") == b"one two"
    await small.fill(second, b"!", offset=7)
    await small.close(second)
    assert small.stored("dump/a") == b"one two!"
    await small.nothing_left()


async def test_what_is_being_streamed_is_not_published_for_a_reader(small: Domain) -> None:
    handle = await small.create("dump/a", os.O_RDWR)
    await small.fill(handle, pattern(3 * SMALL_PART + 9))
    with pytest.raises(NotSupported):
        await small.read_all(handle)
    with pytest.raises(NotSupported):
        await small.read("dump/a")
    assert small.bucket() == []
    await small.fill(handle, b"end", offset=3 * SMALL_PART + 9)
    await small.close(handle)
    assert await small.read("dump/a") == pattern(3 * SMALL_PART + 9) + b"end"
    await small.nothing_left()


async def test_readers_see_the_old_object_whole_until_the_new_one_is_there(small: Domain) -> None:
    old, new = pattern(3 * SMALL_PART, 1), pattern(4 * SMALL_PART, 2)
    small.store.poke(small.key("dump/a"), old)
    handle = await small.open("dump/a", os.O_WRONLY | os.O_TRUNC)
    await small.fill(handle, new[: 2 * SMALL_PART + 1])
    assert await small.read("dump/a") == old
    assert small.stored("dump/a") == old
    await small.fill(handle, new[2 * SMALL_PART + 1 :], offset=2 * SMALL_PART + 1)
    await small.close(handle)
    assert await small.read("dump/a") == new


async def test_a_file_deleted_before_it_was_published_has_no_empty_content(small: Domain) -> None:
    handle = await small.create("dump/a", os.O_RDWR)
    await small.fill(handle, b"hello")
    await small.unlink("dump/a")
    with pytest.raises(FileSystemError) as gone:
        await small.files.read(handle, 0, 10)
    assert gone.value.errno == errno.ESTALE
    await small.files.release(handle)
    await small.nothing_left()


async def test_everything_is_refused_read_only(make: Make) -> None:
    mount = make(read_only=True)
    mount.store.poke(mount.key("dump/a"), b"x")
    file = await mount.file("dump/a")
    dump = await mount.directory("dump")
    for change in (
        lambda: mount.create("dump/b"),
        lambda: mount.open("dump/a", os.O_WRONLY),
        lambda: mount.open("dump/a", os.O_TRUNC),
        lambda: mount.files.truncate(file, 0),
        lambda: mount.files.set_attributes(file, file.attrs),
        lambda: mount.unlink("dump/a"),
        lambda: mount.rename("dump/a", "dump/b"),
        lambda: mount.mkdir("dump/d"),
        lambda: mount.namespace.rmdir(dump, "d"),
    ):
        with pytest.raises(FileSystemError) as refused:
            await change()
        assert refused.value.errno == errno.EROFS
    assert await mount.read("dump/a") == b"x"
    assert {op for op, _ in mount.store.log} <= {"list_page", "head", "get_range"}
