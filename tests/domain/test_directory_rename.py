"""A directory is renamed while programs work in it: what they were told is stored is there under the new name."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from s3fsx.errors import FileSystemError
from tests.domain.harness import Domain


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
