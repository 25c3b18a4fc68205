"""Mode, owner and mtime: before, during and after an upload, and what others wrote."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
import trio

from s3fsx.errors import FileSystemError, NotFound, ServerFault
from s3fsx.fs.attributes import Attributes, to_metadata
from s3fsx.fs.tree import File
from tests.domain.harness import ATTRS, DEFAULTS, SMALL_COPY, SMALL_PART, Domain, pattern

HOOK = Attributes(0o755, 12, 34, 1_600_000_000_123_456_789)


async def stored_attrs(mount: Domain, path: str) -> dict[str, str]:
    metadata = (await mount.store.head(mount.key(path))).metadata or {}
    return {name: metadata[name] for name in ("mode", "uid", "gid", "mtime")}


@pytest.mark.parametrize("size", [10, 3 * SMALL_PART])
async def test_attributes_set_before_the_first_byte(small: Domain, size: int) -> None:
    handle = await small.create("snippets/a")
    await small.files.set_attributes(handle.file, HOOK)
    await small.finish(handle, pattern(size))
    assert await stored_attrs(small, "snippets/a") == to_metadata(HOOK)
    assert small.calls()["copy"] == 0  # they went with the content
    assert (await small.file("snippets/a")).attrs == HOOK


@pytest.mark.parametrize("size", [10, 3 * SMALL_PART])
async def test_attributes_set_between_the_last_byte_and_the_close(small: Domain, size: int) -> None:
    """As cp -p does."""
    handle = await small.create("snippets/a")
    await small.fill(handle, pattern(size))
    await small.files.set_attributes(handle.file, HOOK)
    await small.close(handle)
    assert await stored_attrs(small, "snippets/a") == to_metadata(HOOK)
    assert small.calls()["copy"] == (1 if size > SMALL_PART else 0)
    assert small.stored("snippets/a") == pattern(size)
    assert (await small.file("snippets/a")).attrs == HOOK
    await trio.sleep(6)
    assert (await small.file("snippets/a")).attrs == HOOK
    await small.nothing_left()


@pytest.mark.parametrize("size", [10, 3 * SMALL_PART])
async def test_attributes_set_after_the_close(small: Domain, size: int) -> None:
    await small.write("snippets/a", pattern(size))
    file = await small.file("snippets/a")
    await small.files.set_attributes(file, HOOK)
    assert await stored_attrs(small, "snippets/a") == to_metadata(HOOK)
    assert small.stored("snippets/a") == pattern(size)
    await trio.sleep(6)
    assert await small.file("snippets/a") is file
    assert file.attrs == HOOK
    assert await small.read("snippets/a") == pattern(size)


async def test_attributes_of_a_waiting_temporary_name_go_along_with_the_rename(small: Domain) -> None:
    await small.write("template/iso/a.iso.tmp_dwnl.1", pattern(3 * SMALL_PART))
    await small.files.set_attributes(await small.file("template/iso/a.iso.tmp_dwnl.1"), HOOK)
    await small.rename("template/iso/a.iso.tmp_dwnl.1", "template/iso/a.iso")
    assert await stored_attrs(small, "template/iso/a.iso") == to_metadata(HOOK)
    await small.nothing_left()


@pytest.mark.expect_log("its mode and times could not be stored")
async def test_attributes_that_fail_do_not_fail_a_committed_rename(small: Domain) -> None:
    await small.write("template/iso/a.iso.tmp_dwnl.1", pattern(3 * SMALL_PART))
    await small.files.set_attributes(await small.file("template/iso/a.iso.tmp_dwnl.1"), HOOK)
    small.store.fail_next("copy", ServerFault("500"))
    await small.rename("template/iso/a.iso.tmp_dwnl.1", "template/iso/a.iso")
    assert await small.read("template/iso/a.iso") == pattern(3 * SMALL_PART)
    assert (await small.file("template/iso/a.iso")).attrs.mode == ATTRS.mode  # the truth


async def test_a_failed_chmod_is_told_and_not_shown(small: Domain) -> None:
    await small.write("snippets/a", b"x")
    file = await small.file("snippets/a")
    before = file.attrs
    small.store.fail_next("copy", ServerFault("500"))
    with pytest.raises(ServerFault):
        await small.files.set_attributes(file, HOOK)
    assert file.attrs == before
    await small.files.set_attributes(file, HOOK)
    assert await stored_attrs(small, "snippets/a") == to_metadata(HOOK)


async def test_an_open_reader_goes_on_after_a_chmod(small: Domain) -> None:
    await small.write("snippets/a", pattern(3 * SMALL_PART))  # its ETag changes with the copy
    handle = await small.open("snippets/a")
    await small.files.set_attributes(handle.file, HOOK)
    assert await small.read_all(handle) == pattern(3 * SMALL_PART)
    await small.files.release(handle)


async def test_an_open_writer_goes_on_after_a_chmod(small: Domain) -> None:
    await small.write("snippets/a", pattern(3 * SMALL_PART))
    handle = await small.open("snippets/a", os.O_WRONLY)
    await small.files.set_attributes(handle.file, HOOK)
    await small.fill(handle, b"end", offset=3 * SMALL_PART)
    await small.close(handle)
    assert small.stored("snippets/a") == pattern(3 * SMALL_PART) + b"end"
    assert (await stored_attrs(small, "snippets/a"))["mode"] == to_metadata(HOOK)["mode"]


async def test_the_same_attributes_cost_nothing(small: Domain) -> None:
    await small.write("snippets/a", b"x")
    file = await small.file("snippets/a")
    before = small.calls()
    await small.files.set_attributes(file, file.attrs)
    assert small.calls() == before


async def test_chmod_of_an_object_replaced_elsewhere_touches_nothing(small: Domain) -> None:
    small.store.poke(small.key("dump/vzdump-x"), b"old")
    file = await small.file("dump/vzdump-x")
    small.store.poke(small.key("dump/vzdump-x"), b"new", {"mode": "33188"})
    with pytest.raises(FileSystemError) as stale:
        await small.files.set_attributes(file, HOOK)
    assert stale.value.errno == errno.ESTALE
    assert small.store.objects["pve/dump/vzdump-x"].metadata == {"mode": "33188"}


async def test_above_copy_limits_attributes_stay_in_memory(small: Domain) -> None:
    await small.write("snippets/a", pattern(SMALL_COPY + 1))
    file = await small.file("snippets/a")
    await small.files.set_attributes(file, HOOK)
    assert file.attrs == HOOK
    assert (await stored_attrs(small, "snippets/a"))["mode"] == to_metadata(ATTRS)["mode"]


async def test_a_rewrite_keeps_mode_and_foreign_metadata_and_renews_mtime(small: Domain) -> None:
    small.store.poke(small.key("snippets/a"), b"old", {**to_metadata(HOOK), "colour": "red"})
    await small.write("snippets/a", b"new")
    metadata = small.store.objects["pve/snippets/a"].metadata
    assert metadata["mode"] == to_metadata(HOOK)["mode"]
    assert metadata["colour"] == "red"
    assert metadata["mtime"] != to_metadata(HOOK)["mtime"]


async def test_what_others_wrote_is_read(small: Domain) -> None:
    small.store.poke(small.key("snippets/s3fs"), b"", {"mode": "33261", "uid": "5", "gid": "6", "mtime": "7.5"})
    small.store.poke(small.key("snippets/none"), b"")
    assert (await small.file("snippets/s3fs")).attrs == Attributes(0o755, 5, 6, 7_500_000_000)
    none = (await small.file("snippets/none")).attrs
    assert (none.mode, none.uid, none.gid) == (DEFAULTS.file_mode, DEFAULTS.uid, DEFAULTS.gid)


async def test_a_chmod_elsewhere_is_seen_although_the_etag_stays(small: Domain) -> None:
    small.store.poke(small.key("snippets/a"), b"x", to_metadata(HOOK))
    file = await small.file("snippets/a")
    again = small.store.poke(small.key("snippets/a"), b"x", to_metadata(replace(HOOK, mode=0o600)))
    small.store.objects[again.key].modified += 10
    await trio.sleep(6)
    assert await small.file("snippets/a") is file
    assert file.attrs.mode == 0o600


async def test_a_404_of_what_is_still_listed_takes_no_name_away(small: Domain) -> None:
    """And keeps nobody from asking for the others."""
    for name in ("a", "b"):
        small.store.poke(small.key(f"snippets/{name}"), b"x", to_metadata(HOOK))
    small.store.fail_next("head", NotFound("404 NoSuchKey"))
    file = await small.file("snippets/a")
    assert file.attrs.mode == DEFAULTS.file_mode
    assert (await small.file("snippets/b")).attrs == HOOK
    await trio.sleep(15)
    assert await small.file("snippets/a") is file
    assert file.attrs == HOOK


async def test_what_a_listing_has_left_to_be_guessed_is_never_stored(small: Domain) -> None:
    """ls and then touch: the kernel knows the name from readdir, and asks for no attribute before it sets one."""
    small.store.poke(small.key("snippets/hook"), b"x", {**to_metadata(HOOK), "colour": "red"})
    (file,) = await small.listings.children(await small.directory("snippets"))
    assert isinstance(file, File)
    assert not file.exact
    await small.files.change_attributes(file, {"mtime_ns": 7_000_000_000})
    assert await stored_attrs(small, "snippets/hook") == to_metadata(replace(HOOK, mtime_ns=7_000_000_000))
    assert small.store.objects["pve/snippets/hook"].metadata["colour"] == "red"
    assert file.attrs == replace(HOOK, mtime_ns=7_000_000_000)


async def test_a_mode_that_was_guessed_right_by_chance_is_stored(small: Domain) -> None:
    small.store.poke(small.key("snippets/hook"), b"x", to_metadata(HOOK))
    (file,) = await small.listings.children(await small.directory("snippets"))
    assert isinstance(file, File)
    await small.files.change_attributes(file, {"mode": file.attrs.mode})
    assert await stored_attrs(small, "snippets/hook") == to_metadata(replace(HOOK, mode=DEFAULTS.file_mode))


async def test_attributes_that_cannot_be_asked_for_are_not_changed(small: Domain) -> None:
    small.store.poke(small.key("snippets/hook"), b"x", to_metadata(HOOK))
    (file,) = await small.listings.children(await small.directory("snippets"))
    assert isinstance(file, File)
    small.store.fail_next("head", ServerFault("500"))
    with pytest.raises(ServerFault):
        await small.files.change_attributes(file, {"uid": 7})
    assert await stored_attrs(small, "snippets/hook") == to_metadata(HOOK)


@pytest.mark.parametrize(("path", "failures"), [("snippets/hook", 1), ("dump/vzdump-qemu-1.log", 0)])
async def test_a_rewrite_keeps_the_mode_that_was_not_shown(small: Domain, path: str, failures: int) -> None:
    """After one question without an answer no other is asked for ten seconds; and none at all of backups."""
    small.store.poke(small.key(path), b"x", {**to_metadata(HOOK), "colour": "red"})
    if failures:
        small.store.fail_next("head", ServerFault("500"), times=failures)
    assert (await small.file(path)).attrs.mode == DEFAULTS.file_mode
    await small.write(path, b"new")
    metadata = small.store.objects[small.key(path)].metadata
    assert (metadata["mode"], metadata["uid"], metadata["colour"]) == (to_metadata(HOOK)["mode"], "12", "red")
