"""A directory is renamed while programs work in it: what they were told is stored is there under the new name."""

from __future__ import annotations

import errno
import os

import pytest
import trio

import tests.domain.harness
from s3fsx.errors import AccessDenied, DeadlineExceeded, FileSystemError
from s3fsx.layout import Layout
from tests.domain.conftest import Make
from tests.domain.harness import ATTRS, Domain
from tests.fakestore import FakeStore


async def renaming(mount: Domain, nursery: trio.Nursery) -> None:
    """dump/d with two files, on its way to dump/e; the copies hang until ``release``."""
    await mount.mkdir("dump/d")
    for name in ("a", "b"):
        await mount.write(f"dump/d/{name}", b"old")


async def start(mount: Domain, nursery: trio.Nursery) -> None:
    mount.store.hang("copy")
    nursery.start_soon(mount.rename, "dump/d", "dump/e")
    await trio.sleep(1)


async def test_what_is_written_meanwhile_is_published_under_the_new_name(mount: Domain, nursery: trio.Nursery) -> None:
    await renaming(mount, nursery)
    handle = await mount.open("dump/d/a", os.O_RDWR)
    directory = await mount.directory("dump/d")
    await start(mount, nursery)
    await mount.files.write(handle, 0, b"new bytes")

    async def create() -> None:
        _, created = await mount.files.create(directory, "c", handle.file.attrs, os.O_WRONLY | os.O_CREAT)
        await mount.finish(created, b"created")

    nursery.start_soon(mount.close, handle)
    nursery.start_soon(create)
    nursery.start_soon(mount.namespace.unlink, directory, "b")
    await trio.sleep(1)
    assert mount.stored("dump/d/a") == b"old"
    mount.store.release("copy")
    await trio.sleep(5)
    assert mount.paths() == ["dump/e/a", "dump/e/c"]
    assert mount.stored("dump/e/a") == b"new bytes"
    assert await mount.read("dump/e/a") == b"new bytes"
    assert await mount.read("dump/e/c") == b"created"
    await mount.nothing_left()


async def test_not_while_something_in_it_is_being_changed(mount: Domain, nursery: trio.Nursery) -> None:
    await renaming(mount, nursery)
    mount.store.hang("delete")
    nursery.start_soon(mount.unlink, "dump/d/a")
    await trio.sleep(1)
    with pytest.raises(FileSystemError) as busy:
        await mount.rename("dump/d", "dump/e")
    assert busy.value.errno == errno.EBUSY
    mount.store.release("delete")
    await trio.sleep(1)
    await mount.rename("dump/d", "dump/e")
    assert mount.paths() == ["dump/e/b"]


async def test_a_change_does_not_wait_for_ever(mount: Domain, nursery: trio.Nursery) -> None:
    await renaming(mount, nursery)
    directory = await mount.directory("dump/d")
    await start(mount, nursery)
    with pytest.raises(FileSystemError) as busy:
        await mount.namespace.unlink(directory, "a")
    assert busy.value.errno == errno.EBUSY
    mount.store.release("copy")
    await trio.sleep(1)
    assert mount.paths() == ["dump/e/a", "dump/e/b"]


async def release_later(store: FakeStore, op: str) -> None:
    await trio.sleep(1)
    store.release(op)


async def test_names_made_in_it_meanwhile_are_made_at_the_new_place(mount: Domain, nursery: trio.Nursery) -> None:
    await renaming(mount, nursery)
    directory = await mount.directory("dump/d")
    await start(mount, nursery)
    nursery.start_soon(mount.namespace.mkdir, directory, "sub", ATTRS)
    nursery.start_soon(mount.namespace.rename, directory, "b", directory, "c")
    await trio.sleep(1)
    mount.store.release("copy")
    await trio.sleep(5)
    assert mount.bucket() == ["pve/dump/e/", "pve/dump/e/a", "pve/dump/e/c", "pve/dump/e/sub/"]
    await trio.sleep(60)
    assert await mount.names("dump/e") == ["a", "c", "sub"]
    await mount.nothing_left()


async def test_nothing_is_made_in_a_directory_that_is_gone_by_then(mount: Domain, nursery: trio.Nursery) -> None:
    await mount.mkdir("dump/d")
    directory = await mount.directory("dump/d")
    mount.store.hang("delete")
    nursery.start_soon(mount.rmdir, "dump/d")
    await trio.sleep(1)
    nursery.start_soon(release_later, mount.store, "delete")
    with pytest.raises(FileSystemError) as gone:
        await mount.namespace.mkdir(directory, "sub", ATTRS)
    assert gone.value.errno == errno.ENOENT
    assert mount.bucket() == []


# -- with another node at work


async def test_it_never_covers_what_another_node_has_made_there(make: Make) -> None:
    """This node's listing is younger than list_ttl and does not have it yet."""
    store = FakeStore()
    one, two = make(store), make(store)
    await one.mkdir("a")
    await one.write("a/x", b"mine")
    await one.names()
    await two.mkdir("b")
    await two.write("b/x", b"theirs")
    with pytest.raises(FileSystemError) as refused:
        await one.rename("a", "b")
    assert refused.value.errno == errno.ENOTEMPTY
    assert (one.stored("a/x"), one.stored("b/x")) == (b"mine", b"theirs")
    await one.nothing_left()


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_failure_takes_back_its_own_copies_only(make: Make, after_effect: bool) -> None:
    """While the copies are made another node writes there; also where the answer of a copy was lost."""
    store = FakeStore()
    one, two = make(store), make(store)
    await one.mkdir("a")
    for name in ("x", "y", "z"):
        await one.write(f"a/{name}", b"the same bytes")
    copy = store.copy

    async def and_then(source: str, target: str, **more: object) -> object:
        if target != "pve/b/z":
            return await copy(source, target, **more)  # type: ignore[arg-type]
        await trio.sleep(1)
        await two.write("b/x", b"the same bytes")
        await two.write("b/new", b"theirs")
        if after_effect:
            await copy(source, target, **more)  # type: ignore[arg-type]
        raise DeadlineExceeded("no answer")

    store.copy = and_then  # type: ignore[assignment,method-assign]
    with pytest.raises(DeadlineExceeded):
        await one.rename("a", "b")
    await one.idle()
    assert [path for path in one.paths() if path.startswith("a/")] == ["a/x", "a/y", "a/z"]
    assert [path for path in one.paths() if path.startswith("b/")] == ["b/new", "b/x"]
    await one.restarted()
    assert [path for path in one.paths() if path.startswith("b/")] == ["b/new", "b/x"]


async def test_what_another_node_writes_to_the_old_place_meanwhile_stays(make: Make) -> None:
    store = FakeStore()
    one, two = make(store), make(store)
    await one.mkdir("a")
    for name in range(20):
        await one.write(f"a/{name:02}", b"old")
    copy, copies = store.copy, 0

    async def and_then(*args: object, **more: object) -> object:
        nonlocal copies
        done = await copy(*args, **more)  # type: ignore[arg-type]
        copies += 1
        if copies == 12:
            await two.write("a/00", b"acknowledged by node two")
            await two.write("a/new", b"this, too")
        return done

    store.copy = and_then  # type: ignore[assignment,method-assign]
    await one.rename("a", "b")
    assert [path for path in one.paths() if path.startswith("a/")] == ["a/00", "a/new"]
    assert one.stored("a/00") == b"acknowledged by node two"
    assert len([path for path in one.paths() if path.startswith("b/")]) == 20
    await trio.sleep(0.1)
    assert "a" in await one.names()
    await one.nothing_left()


async def test_a_failure_keeps_the_empty_directory_it_was_to_replace(mount: Domain) -> None:
    await mount.mkdir("dump/d")
    await mount.write("dump/d/a", b"a")
    await mount.mkdir("dump/e")
    mount.store.fail_next("copy", AccessDenied("403"), times=2)
    with pytest.raises(AccessDenied):
        await mount.rename("dump/d", "dump/e")
    assert mount.bucket() == ["pve/dump/d/", "pve/dump/d/a", "pve/dump/e/"]
    await mount.nothing_left()


# -- bounds


async def test_all_copies_of_one_rename_have_a_deadline(make: Make) -> None:
    """1000 copies of a minute each are hours, in each of which the kernel holds both directories."""
    store = FakeStore()
    mount = make(store)
    await mount.mkdir("a")
    for number in range(300):
        store.poke(f"pve/a/{number:03}", b"x")
    await trio.sleep(6)
    copy = store.copy

    async def slow(*args: object, **more: object) -> object:
        await trio.sleep(60)
        return await copy(*args, **more)  # type: ignore[arg-type]

    store.copy = slow  # type: ignore[assignment,method-assign]
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded):
        await mount.rename("a", "b")
    assert trio.current_time() - began < mount.options.publish_deadline + 130
    assert len(mount.paths()) == 300
    assert all(path.startswith("a/") for path in mount.paths())


async def test_a_mapped_content_directory_stays_where_it_is(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = {"dump": "backup/proxmox"}
    monkeypatch.setattr(tests.domain.harness, "Layout", lambda prefix: Layout(prefix, mapped))
    mount = make()
    mount.store.poke("pve/backup/other", b"other")
    await mount.write("dump/x", b"backup")
    await mount.mkdir("d")
    for old, new in (("backup", "old"), ("d", "backup")):
        with pytest.raises(FileSystemError) as busy:
            await mount.rename(old, new)
        assert busy.value.errno == errno.EBUSY
    assert mount.bucket() == ["pve/backup/other", "pve/backup/proxmox/x", "pve/d/"]


async def test_the_old_names_go_together(make: Make) -> None:
    mount = make()
    await mount.mkdir("a")
    for name in range(20):
        await mount.write(f"a/{name:02}", b"old")
    mount.store.log.clear()
    await mount.rename("a", "b")
    calls = mount.calls()
    assert (calls["copy"], calls["delete_many"], calls.get("delete", 0)) == (21, 1, 0)  # a marker, too
    await mount.nothing_left()


async def test_one_old_name_that_stays_is_an_error_and_keeps_no_other(make: Make) -> None:
    mount = make()
    await mount.mkdir("a")
    for name in ("x", "y", "z"):
        await mount.write(f"a/{name}", b"old")
    mount.store.undeletable["pve/a/y"] = AccessDenied("DELETE pve/a/y: 403")
    with pytest.raises(AccessDenied, match="a/y"):
        await mount.rename("a", "b")
    assert mount.paths() == ["a/y", "b/x", "b/y", "b/z"]
    await trio.sleep(6)
    assert await mount.names("a") == ["y"]
    await mount.restarted()  # the program was told, and may have gone on from there
    assert mount.paths() == ["a/y", "b/x", "b/y", "b/z"]
    await mount.nothing_left()
