"""What every backend does; here the one that keeps buckets as directories."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from s3fsx.gateway.backend import Source
from s3fsx.gateway.directory import files, fsck
from s3fsx.gateway.directory.provider import DirectoryBackend
from s3fsx.gateway.errors import S3Error
from s3fsx.gateway.model import Bucket, Object, Part, Query


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "buckets"
    path.mkdir()
    return path


@pytest.fixture
async def backend(root: Path) -> AsyncIterator[DirectoryBackend]:
    made = DirectoryBackend(str(root))
    made.claim()
    await made.create_bucket(Bucket("bucket", 0, "me"))
    yield made
    made.release()


class Pieces:
    """No generator: one that a failed write leaves unfinished is warned of when it is collected."""

    def __init__(self, data: tuple[bytes, ...]) -> None:
        self._left = iter(data)

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for piece in self._left:
            return piece
        raise StopAsyncIteration


def pieces(*data: bytes) -> AsyncIterator[bytes]:
    return Pieces(data)


def anyhow(_: Object | None) -> None:
    """A condition that always holds."""


def described(key: str, etag: str = "e", **more: Any) -> Any:
    return lambda size: Object(key, size, etag, 0, metadata={"for": etag}, **more)


async def put(backend: DirectoryBackend, key: str, data: bytes = b"data", etag: str = "e") -> Object:
    return await backend.put("bucket", key, pieces(data), described(key, etag), anyhow)


async def body(backend: DirectoryBackend, key: str, version: str = "") -> bytes:
    opened = await backend.open("bucket", key, version)
    try:
        return os.pread(opened.descriptor, opened.object.size + 1, 0)
    finally:
        os.close(opened.descriptor)


async def keys(backend: DirectoryBackend, **query: Any) -> list[str]:
    return [found.key for found in (await backend.list("bucket", Query(**query))).entries]


async def test_files_that_people_can_read(backend: DirectoryBackend, root: Path) -> None:
    await put(backend, "dump/vm 100.zst", b"backup")
    assert (root / "bucket" / "dump" / "vm 100.zst").read_bytes() == b"backup"
    await backend.delete("bucket", "dump/vm 100.zst", "", anyhow, anyhow)
    assert not (root / "bucket" / "dump").exists()


async def test_a_file_made_by_hand_is_an_object(backend: DirectoryBackend, root: Path) -> None:
    (root / "bucket" / "by hand").write_bytes(b"1")
    found = await backend.head("bucket", "by hand")
    assert found.etag.endswith("-0")
    assert await keys(backend) == ["by hand"]
    (root / "bucket" / "by hand").write_bytes(b"22")
    assert (await backend.head("bucket", "by hand")).etag != found.etag
    (root / "made").mkdir()
    assert [b.name for b in await backend.buckets()] == ["bucket", "made"]


async def test_a_copy_of_the_tree_keeps_all(backend: DirectoryBackend, root: Path, tmp_path: Path) -> None:
    made = await put(backend, "a/b")
    await trio.to_thread.run_sync(lambda: subprocess.run(["cp", "-a", root, tmp_path / "copy"], check=True))
    other = DirectoryBackend(str(tmp_path / "copy"))
    assert await other.head("bucket", "a/b") == made


async def test_bytes_that_do_not_all_come_leave_what_was(backend: DirectoryBackend, root: Path) -> None:
    await put(backend, "x", b"old")

    async def cut() -> AsyncIterator[bytes]:
        yield b"new"
        raise S3Error("IncompleteBody")

    with pytest.raises(S3Error, match="IncompleteBody"):
        await backend.put("bucket", "x", cut(), described("x"), anyhow)
    assert await body(backend, "x") == b"old"
    assert os.listdir(root / "bucket" / ".s3fsx-gateway" / "tmp") == []


async def test_one_of_many_is_first(backend: DirectoryBackend) -> None:
    """If-None-Match: * of twenty at once; readers meanwhile see the data of one with its own metadata."""
    won: list[int] = []
    lost: list[str] = []

    def absent(current: Object | None) -> None:
        if current is not None:
            raise S3Error("PreconditionFailed")

    async def attempt(number: int) -> None:
        try:
            await backend.put("bucket", "x", pieces(b"%d" % number), described("x", str(number)), absent)
        except S3Error as error:
            lost.append(error.code)
        else:
            won.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(attempt, number)
    assert await body(backend, "x") == b"%d" % won[0]
    assert (len(won), lost) == (1, ["PreconditionFailed"] * 19)


async def test_data_and_metadata_belong_together_while_written(backend: DirectoryBackend) -> None:
    await put(backend, "x", b"0", "0")
    done = False

    async def write() -> None:
        nonlocal done
        for number in range(1, 40):
            text = str(number)
            await put(backend, "x", text.encode(), text)
            await put(backend, f"x/{number}", b"")  # moves the file of x aside, once
        done = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        while not done:
            opened = await backend.open("bucket", "x")
            data = os.pread(opened.descriptor, 100, 0)
            os.close(opened.descriptor)
            assert opened.object.metadata == {"for": data.decode()}
            listed = (await backend.list("bucket", Query(limit=1))).entries[0]
            assert (listed.key, listed.metadata["for"]) == ("x", listed.etag)


async def test_a_file_and_a_directory_of_one_name(backend: DirectoryBackend, root: Path) -> None:
    for order in (["a", "a/b", "a/", "a//"], ["a//", "a/", "a/b", "a"]):
        for key in order:
            await put(backend, key, key.encode())
        for key in order:
            assert await body(backend, key) == key.encode()
        assert await keys(backend) == ["a", "a/", "a//", "a/b"]
        for key in order:
            await backend.delete("bucket", key, "", anyhow, anyhow)
        assert await keys(backend) == []
        assert os.listdir(root / "bucket") == [".s3fsx-gateway"]


async def test_metadata_alone_changes_without_a_copy(backend: DirectoryBackend, root: Path) -> None:
    await put(backend, "x", b"1")
    before = (root / "bucket" / "x").stat()
    made = await backend.copy(
        Source("bucket", "x"), "bucket", "x", lambda old: replace(old, metadata={"new": "1"}), anyhow
    )
    after = (root / "bucket" / "x").stat()
    assert (after.st_ino, made.metadata) == (before.st_ino, {"new": "1"})
    assert made.modified > before.st_mtime_ns
    assert await backend.head("bucket", "x") == made


async def test_only_a_bucket_without_anything_goes(backend: DirectoryBackend, root: Path) -> None:
    (root / "bucket" / "100%").write_bytes(b"no key has this path")
    assert await keys(backend) == []
    with pytest.raises(S3Error, match="BucketNotEmpty"):
        await backend.delete_bucket("bucket")
    (root / "bucket" / "100%").unlink()
    (root / "bucket" / "left" / "of a crash").mkdir(parents=True)
    await backend.delete_bucket("bucket")
    assert [entry for entry in os.listdir(root) if not entry.startswith(".")] == []
    with pytest.raises(S3Error, match="NoSuchBucket"):
        await put(backend, "x")


async def test_a_full_disk_is_an_error_that_loses_nothing(
    backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(backend, "x", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    for name in ("write_all", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(files, name, full)
            with pytest.raises(S3Error, match="StorageFull"):
                await put(backend, "x", b"new")
        assert await body(backend, "x") == b"old"


async def test_one_process_serves_a_directory(backend: DirectoryBackend, root: Path) -> None:
    with pytest.raises(BlockingIOError):
        DirectoryBackend(str(root)).claim()


async def test_links_lead_nowhere(backend: DirectoryBackend, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "bucket" / "link").symlink_to(tmp_path / "secret")
    assert await keys(backend) == []
    with pytest.raises(S3Error, match="NoSuchKey"):
        await backend.open("bucket", "link")
    await put(backend, "link", b"mine")
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert stat.S_ISREG((root / "bucket" / "link").lstat().st_mode)


# Versions after a crash between two steps: as before the change, or as after it.


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Lets the n-th rename, link, unlink or rmdir fail, and all after it: a crash as the disk sees it."""
    real = {name: getattr(os, name) for name in ("rename", "link", "unlink", "rmdir", "replace")}

    class Steps:
        left = 10**9
        taken = 0

    def make(name: str) -> Any:
        def step(*arguments: Any, **more: Any) -> Any:
            Steps.taken += 1
            if Steps.taken > Steps.left:
                raise KeyboardInterrupt  # which no code here takes for an error of its own
            return real[name](*arguments, **more)

        return step

    for name in real:
        monkeypatch.setattr(os, name, make(name))
    yield Steps
    Steps.left = 10**9


CHANGES = ("put", "delete", "delete current version", "delete marker", "suspended put", "suspended delete")


@pytest.mark.parametrize("change", CHANGES)
async def test_a_crash_at_any_step(root: Path, steps: Any, change: str) -> None:
    for crash in range(40):
        steps.left, steps.taken = 10**9, 0
        shutil.rmtree(root)
        os.mkdir(root)
        backend = DirectoryBackend(str(root))
        await backend.create_bucket(Bucket("bucket", 0, "me", {"versioning": "Enabled"}))
        one = await put(backend, "x", b"1", "1")
        two = await put(backend, "x", b"2", "2")
        expected = {"1": b"1", "2": b"2"}
        marker = ""
        if change == "delete marker":
            marker = (await backend.delete("bucket", "x", "", anyhow, anyhow)).version
        if change.startswith("suspended"):
            await backend.configure("bucket", {"versioning": "Suspended"})
        steps.left, steps.taken = crash, 0
        crashed = False
        try:
            if change.endswith("put"):
                await put(backend, "x", b"3", "3")
            elif change == "delete current version":
                await backend.delete("bucket", "x", two.version, anyhow, anyhow)
            elif change == "delete marker":
                await backend.delete("bucket", "x", marker, anyhow, anyhow)
            else:
                await backend.delete("bucket", "x", "", anyhow, anyhow)
        except KeyboardInterrupt:
            crashed = True
        steps.left = 10**9
        again = DirectoryBackend(str(root))
        versions = (await again.list_versions("bucket", Query())).entries
        listed = await keys(again)
        latest = next(found for found in versions if found.latest)
        assert listed == ([] if latest.marker else ["x"])
        assert [found.latest for found in versions].count(True) == 1
        for found in versions:
            if not found.marker:
                assert await body(again, "x", found.version) == found.etag.encode()
        kept = {found.etag for found in versions if not found.marker}
        assert "1" in kept
        assert change == "delete current version" or "2" in kept
        assert one.version in {found.version for found in versions}
        assert set(expected) <= kept | {"2"}
        if not crashed:
            after = {"put": "3", "suspended put": "3", "delete current version": "1", "delete marker": "2"}
            assert latest.etag == after.get(change, "")
            return
    raise AssertionError(f"{change} has more than 40 steps")


async def test_fsck_finds_what_is_damaged_and_what_is_left(backend: DirectoryBackend, root: Path) -> None:
    for key in ("good", "bad"):
        await put(backend, key, b"data", hashlib.md5(b"data").hexdigest())
    (root / "bucket" / "foreign").write_bytes(b"x")
    status = (root / "bucket" / "bad").stat()
    (root / "bucket" / "bad").write_bytes(b"rott")
    os.utime(root / "bucket" / "bad", ns=(status.st_mtime_ns, status.st_mtime_ns))
    left = next((root / "bucket" / ".s3fsx-gateway" / "records").rglob("*.*"))
    left.with_name("0" * 40 + ".1").write_bytes(b"{}")
    backend.release()
    told: list[str] = []
    found = fsck.check(str(root), data=True, repair=True, tell=told.append)
    assert (found.objects, found.damaged, found.foreign, found.left) == (3, 1, 1, 1)
    assert any("bucket/bad" in line for line in told)
    again = fsck.check(str(root), data=False, repair=False, tell=told.append)
    assert (again.left, again.foreign) == (0, 1)


async def test_parts_come_in_any_order_and_replace_each_other(backend: DirectoryBackend) -> None:
    upload = await backend.create_upload("bucket", Object("x", 0, "", 0, metadata={"a": "1"}))

    async def part(number: int, data: bytes) -> None:
        await backend.put_part("bucket", upload.id, pieces(data), lambda size: Part(number, size, data.hex()))

    await part(2, b"two")
    await part(1, b"not this")
    await part(1, b"one")
    assert [(p.number, p.size) for p in await backend.parts("bucket", upload.id)] == [(1, 3), (2, 3)]

    def finish(parts: Any) -> Object:
        return replace(upload.attributes, size=6, etag="all", parts=tuple(parts))

    made = await backend.complete("bucket", upload.id, [1, 2], finish, anyhow)
    assert await body(backend, "x") == b"onetwo"
    assert (await backend.head("bucket", "x")).parts == tuple(replace(p, modified=0) for p in made.parts)
    with pytest.raises(S3Error, match="NoSuchUpload"):
        await backend.parts("bucket", upload.id)
