"""Directories, renames of what is published, and what POSIX refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable

import pytest
import trio

from s3fsx.errors import Changed, DeadlineExceeded, EndpointDown, FileSystemError, S3fsxError, ServerFault
from s3fsx.fs.tree import Directory
from tests.domain.conftest import Make
from tests.domain.harness import KIB, SMALL_COPY, SMALL_PART, Domain, SmallSchedule, pattern
from tests.fakestore import FakeStore


async def refusal(call: Awaitable[object]) -> int:
    with pytest.raises(FileSystemError) as refused:
        await call
    return refused.value.errno


# -- mkdir and rmdir


async def test_a_directory_is_a_marker(mount: Domain) -> None:
    await mount.mkdir("dump/d")
    assert mount.bucket() == ["pve/dump/d/"]
    assert await mount.names("dump") == ["d"]
    assert await refusal(mount.mkdir("dump/d")) == errno.EEXIST
    await mount.rmdir("dump/d")
    assert mount.bucket() == []
    assert await mount.names("dump") == []
    assert await refusal(mount.rmdir("dump/d")) == errno.ENOENT


async def test_content_directories_exist_always(mount: Domain) -> None:
    assert await mount.names() == ["dump", "images", "import", "private", "snippets", "template"]
    assert await mount.names("template") == ["cache", "iso"]
    mount.store.log.clear()
    for path in ("dump", "template", "template/iso"):
        assert await refusal(mount.mkdir(path)) == errno.EEXIST
    assert mount.store.log == []  # answered from memory: Proxmox asks every ten seconds
    assert await refusal(mount.rmdir("dump")) == errno.EBUSY
    assert await refusal(mount.rmdir("template")) == errno.ENOTEMPTY
    assert await refusal(mount.rename("dump", "dump2")) == errno.EBUSY


async def test_rmdir_of_what_only_the_store_knows_to_be_full(mount: Domain) -> None:
    await mount.mkdir("dump/d")
    assert await mount.names("dump/d") == []
    mount.store.poke(mount.key("dump/d/by another node"), b"")
    assert await refusal(mount.rmdir("dump/d")) == errno.ENOTEMPTY
    assert await mount.names("dump/d") == ["by another node"]
    assert await refusal(mount.rmdir("dump")) == errno.ENOTEMPTY


async def test_rmdir_of_what_only_we_know_to_be_full(mount: Domain) -> None:
    await mount.mkdir("dump/d")
    handle = await mount.create("dump/d/unpublished")
    assert await refusal(mount.rmdir("dump/d")) == errno.ENOTEMPTY
    await mount.close(handle)
    await mount.unlink("dump/d/unpublished")
    await mount.rmdir("dump/d")


@pytest.mark.parametrize("waits", [False, True])
async def test_a_directory_with_something_unpublished_far_below_is_not_empty(
    make: Make, schedule: SmallSchedule, waits: bool
) -> None:
    """Nothing of it is in the bucket: neither markers (other tools make none) nor the file."""
    mount = make(FakeStore(min_part=4 * KIB), schedule=schedule)
    mount.store.poke("pve/a/b/other", b"by another tool")
    data = pattern(2 * SMALL_PART)
    path = "a/b/vzdump-qemu-100-2026_11_20-13_15_26.vma.dat" if waits else "a/b/f"
    handle = await mount.create(path)
    await mount.fill(handle, data)
    if waits:
        await mount.close(handle)
    mount.store.remove("pve/a/b/other")
    await mount.mkdir("new")
    await trio.sleep(10)
    assert await refusal(mount.rmdir("a")) == errno.ENOTEMPTY
    assert await refusal(mount.rename("new", "a")) == errno.ENOTEMPTY
    if waits:
        await mount.rename(path, path.replace(".dat", ".zst"))
        path = path.replace(".dat", ".zst")
    else:
        await mount.close(handle)
    assert mount.stored(path) == data


async def test_rmdir_and_unlink_mind_the_kind(mount: Domain) -> None:
    await mount.mkdir("dump/d")
    await mount.write("dump/f", b"")
    assert await refusal(mount.rmdir("dump/f")) == errno.ENOTDIR
    assert await refusal(mount.unlink("dump/d")) == errno.EISDIR
    assert await refusal(mount.unlink("dump/nothing")) == errno.ENOENT


async def test_a_directory_outlives_its_last_entry(mount: Domain) -> None:
    mount.store.poke(mount.key("dump/d/f"), b"")  # another tool: no marker
    mount.store.poke(mount.key("dump/e/f"), b"")
    await mount.unlink("dump/d/f")
    await mount.rename("dump/e/f", "dump/f")
    await trio.sleep(6)
    assert await mount.names("dump") == ["d", "e", "f"]
    await mount.unlink("dump/f")
    assert "pve/dump/" not in mount.bucket()  # a content directory needs none


async def test_unlink_of_a_file_that_fails_keeps_it(mount: Domain) -> None:
    await mount.write("dump/f", b"x")
    mount.store.fail_next("delete", ServerFault("500"))
    with pytest.raises(ServerFault):
        await mount.unlink("dump/f")
    assert await mount.read("dump/f") == b"x"


# -- renaming files


@pytest.mark.parametrize("size", [0, 10, 3 * SMALL_PART, SMALL_COPY, SMALL_COPY + 1, 3 * SMALL_COPY])
async def test_rename_of_a_published_file_of_any_size(small: Domain, size: int) -> None:
    small.store.poke(small.key("dump/a"), pattern(size), {"mode": "33261", "x": "kept"})
    node = await small.file("dump/a")
    await small.rename("dump/a", "snippets/b")
    assert small.stored("snippets/b") == pattern(size)
    assert small.paths() == ["snippets/b"]
    assert small.store.objects["pve/snippets/b"].metadata["x"] == "kept"
    assert await small.file("snippets/b") is node
    assert await small.read("snippets/b") == pattern(size)
    await trio.sleep(6)
    assert await small.file("snippets/b") is node
    await small.nothing_left()


@pytest.mark.parametrize("size", [10, 2 * SMALL_COPY])
@pytest.mark.parametrize("op", ["copy", "copy_part", "create_upload", "complete_upload", "delete", "list_parts"])
async def test_a_rename_that_fails_loses_nothing_and_may_be_repeated(small: Domain, size: int, op: str) -> None:
    small.store.poke(small.key("dump/a"), pattern(size))
    small.store.poke(small.key("dump/b"), b"target")
    small.store.fail_next(op, ServerFault("500"))
    try:
        await small.rename("dump/a", "dump/b")
    except ServerFault:
        await trio.sleep(1)
        assert small.stored("dump/a") == pattern(size)
        assert await small.read("dump/a") == pattern(size)
        assert await small.read("dump/b") == small.stored("dump/b")
        small.store._faults.clear()
        await small.rename("dump/a", "dump/b")
    assert small.stored("dump/b") == pattern(size)
    assert small.paths() == ["dump/b"]
    await small.nothing_left()


async def test_deleting_after_a_failed_rename_deletes_the_source(mount: Domain) -> None:
    await mount.write("dump/a", b"a")
    mount.store.fail_next("delete", ServerFault("500"))
    with pytest.raises(ServerFault):
        await mount.rename("dump/a", "dump/b")
    await trio.sleep(1)
    await mount.unlink("dump/a")
    assert mount.paths() == ["dump/b"]
    assert await mount.names("dump") == ["b"]


async def test_rename_replaces_and_readers_of_the_old_file_get_estale(small: Domain) -> None:
    await small.write("dump/a", b"new")
    await small.write("dump/b", b"old")
    old = await small.open("dump/b")
    await small.rename("dump/a", "dump/b")
    assert await small.read("dump/b") == b"new"
    with pytest.raises(Changed) as stale:
        await small.read_all(old)
    assert stale.value.errno == errno.ESTALE
    await small.files.release(old)
    assert await small.names("dump") == ["b"]
    await small.nothing_left()


async def test_a_reader_follows_the_file_it_reads_through_a_rename(make: Make) -> None:
    mount = make(FakeStore(latency=(0.2, 0.4)), read_ahead=0)
    mount.store.poke(mount.key("dump/a"), pattern(2_000_000))
    handle = await mount.open("dump/a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "dump/a", "dump/b")
        assert await mount.read_all(handle) == pattern(2_000_000)
    await mount.files.release(handle)
    assert mount.paths() == ["dump/b"]
    await mount.nothing_left()


async def test_what_another_node_writes_under_the_old_name_meanwhile_stays(make: Make) -> None:
    store = FakeStore()
    one, two = make(store), make(store)
    await one.write("dump/a", b"old")
    copy = store.copy

    async def and_then(*args: object, **more: object) -> object:
        done = await copy(*args, **more)  # type: ignore[arg-type]
        await two.write("dump/a", b"acknowledged by node two")
        return done

    store.copy = and_then  # type: ignore[assignment,method-assign]
    await one.rename("dump/a", "dump/b")
    assert (one.stored("dump/a"), one.stored("dump/b")) == (b"acknowledged by node two", b"old")
    await trio.sleep(0.1)
    assert await one.names("dump") == ["a", "b"]
    assert await one.read("dump/a") == b"acknowledged by node two"


async def test_rename_onto_itself_does_nothing(mount: Domain) -> None:
    await mount.write("dump/a", b"a")
    before = mount.calls()
    await mount.rename("dump/a", "dump/a")
    assert mount.calls() == before


async def test_rename_over_a_file_that_is_being_written_is_refused(mount: Domain) -> None:
    await mount.write("dump/a", b"a")
    handle = await mount.create("dump/b")
    assert await refusal(mount.rename("dump/a", "dump/b")) == errno.EBUSY
    await mount.close(handle)
    await mount.rename("dump/a", "dump/b")
    assert mount.stored("dump/b") == b"a"


async def test_rename_while_it_is_being_written(small: Domain) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, pattern(3 * SMALL_PART))
    await small.rename("dump/a", "dump/b")
    assert small.stored("dump/b") == pattern(3 * SMALL_PART)
    await small.fill(handle, b"end", offset=3 * SMALL_PART)
    await small.close(handle)
    assert small.stored("dump/b") == pattern(3 * SMALL_PART) + b"end"
    assert small.paths() == ["dump/b"]
    await small.nothing_left()


async def test_a_write_during_the_copy_of_a_rename_goes_to_the_new_name(small: Domain) -> None:
    """No kernel sends that, but a page written back from a mapping."""
    await small.write("dump/a", pattern(3 * SMALL_PART))
    handle = await small.open("dump/a", os.O_WRONLY)
    small.store.hang("copy")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(small.rename, "dump/a", "dump/b")
        await trio.sleep(1)
        await small.fill(handle, b"more", offset=3 * SMALL_PART)
        small.store.release("copy")
    await small.close(handle)
    assert small.stored("dump/b") == pattern(3 * SMALL_PART) + b"more"
    assert small.paths() == ["dump/b"]
    await small.nothing_left()


async def test_rename_of_what_was_deleted_elsewhere(mount: Domain) -> None:
    await mount.write("dump/a", b"a")
    mount.store.remove(mount.key("dump/a"))
    assert await refusal(mount.rename("dump/a", "dump/b")) == errno.ENOENT


async def test_rename_between_kinds(mount: Domain) -> None:
    await mount.write("dump/f", b"")
    await mount.mkdir("dump/d")
    assert await refusal(mount.rename("dump/f", "dump/d")) == errno.EISDIR
    assert await refusal(mount.rename("dump/d", "dump/f")) == errno.ENOTDIR
    assert await refusal(mount.rename("dump/nothing", "dump/f")) == errno.ENOENT


# -- renaming directories


def fill(mount: Domain) -> dict[str, bytes]:
    files = {f"{i}": pattern(i * 1000, i) for i in range(20)} | {"sub/x": b"x", "sub/deep/y": b"y"}
    for name, data in files.items():
        mount.store.poke(mount.key(f"dump/old/{name}"), data)
    return files


async def test_a_directory_moves_with_everything_below_it(small: Domain) -> None:
    files = fill(small)
    sub = await small.lookup("dump/old/sub")
    node = await small.file("dump/old/sub/x")
    reader = await small.open("dump/old/sub/x")
    await small.rename("dump/old", "dump/new")
    assert {path.removeprefix("dump/new/"): small.stored(path) for path in small.paths()} == files
    assert await small.names("dump") == ["new"]
    assert await small.lookup("dump/new/sub") is sub
    assert await small.file("dump/new/sub/x") is node
    assert await small.read_all(reader) == b"x"
    await small.files.release(reader)
    await small.write("dump/new/sub/z", b"z")  # through an inode the kernel still has
    assert small.stored("dump/new/sub/z") == b"z"
    for name, data in files.items():
        assert await small.read(f"dump/new/{name}") == data
    await small.nothing_left()


async def test_an_empty_directory_moves(mount: Domain) -> None:
    await mount.mkdir("dump/old")
    await mount.rename("dump/old", "dump/new")
    assert mount.bucket() == ["pve/dump/new/"]
    await mount.rename("dump/new", "images/new")
    await trio.sleep(6)
    assert isinstance(await mount.lookup("images/new"), Directory)
    assert await mount.names("dump") == []


async def test_a_directory_replaces_only_an_empty_one(mount: Domain) -> None:
    fill(mount)
    await mount.mkdir("dump/empty")
    await mount.mkdir("dump/full")
    mount.store.poke(mount.key("dump/full/x"), b"")
    assert await refusal(mount.rename("dump/old", "dump/full")) == errno.ENOTEMPTY
    await mount.rename("dump/old", "dump/empty")
    assert await mount.names("dump") == ["empty", "full"]
    assert await mount.read("dump/empty/sub/x") == b"x"


async def test_a_directory_cannot_move_into_itself(mount: Domain) -> None:
    fill(mount)
    assert await refusal(mount.rename("dump/old", "dump/old/sub/new")) == errno.EINVAL


async def test_a_directory_with_a_file_being_written_stays(mount: Domain) -> None:
    fill(mount)
    handle = await mount.create("dump/old/sub/new")
    assert await refusal(mount.rename("dump/old", "dump/new")) == errno.EBUSY
    await mount.close(handle)
    await mount.rename("dump/old", "dump/new")
    assert await mount.read("dump/new/sub/new") == b""


async def test_a_large_directory_is_for_mv_to_copy(make: Make) -> None:
    mount = make(rename_limit=21)
    fill(mount)
    assert await refusal(mount.rename("dump/old", "dump/new")) == errno.EXDEV
    mount.store.remove(mount.key("dump/old/7"))
    await mount.rename("dump/old", "dump/new")
    assert len(mount.paths()) == 21


async def test_a_directory_rename_that_fails_half_way_leaves_the_source_whole(
    make: Make, schedule: SmallSchedule
) -> None:
    mount = make(FakeStore(min_part=4 * KIB), schedule=schedule)
    files = fill(mount)
    await mount.mkdir("dump/new")
    copies = 0
    copy = mount.store.copy

    async def some(*args: object, **more: object) -> object:
        nonlocal copies
        copies += 1
        if copies == 15:
            raise ServerFault("500")
        return await copy(*args, **more)  # type: ignore[arg-type]

    mount.store.copy = some  # type: ignore[assignment,method-assign]
    with pytest.raises(ServerFault):
        await mount.rename("dump/old", "dump/new")
    assert {path.removeprefix("dump/old/"): mount.stored(path) for path in mount.paths()} == files
    assert await mount.names("dump") == ["new", "old"]
    assert await mount.names("dump/new") == []
    await mount.rename("dump/old", "dump/new")
    assert {path.removeprefix("dump/new/"): mount.stored(path) for path in mount.paths()} == files


@pytest.mark.parametrize("error", [ServerFault("500"), EndpointDown("down"), DeadlineExceeded("late")])
async def test_a_directory_rename_that_cannot_delete_its_source_shows_both(mount: Domain, error: S3fsxError) -> None:
    files = fill(mount)
    mount.store.fail_next("delete_many", error)
    with pytest.raises(type(error)):
        await mount.rename("dump/old", "dump/new")
    await trio.sleep(6)
    assert await mount.names("dump") == ["new", "old"]
    for name, data in files.items():
        assert await mount.read(f"dump/new/{name}") == data


async def test_unlink_beside_a_publication_whose_answer_is_lost_leaves_nothing(small: Domain) -> None:
    await small.write("dump/a", b"old")
    handle = await small.create("dump/a", os.O_WRONLY | os.O_TRUNC)
    await small.fill(handle, pattern(40 * KIB))
    small.store.hang("complete_upload")
    small.store.fail_next("complete_upload", DeadlineExceeded("no answer"), after_effect=True)
    async with trio.open_nursery() as nursery:

        async def close() -> None:
            with pytest.raises(S3fsxError):
                await small.close(handle)

        nursery.start_soon(close)
        await trio.testing.wait_all_tasks_blocked(0.1)
        nursery.start_soon(small.unlink, "dump/a")
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert small.store.count("delete") == 1
        small.store.release("complete_upload")
    await small.idle()
    assert small.store.keys() == []
