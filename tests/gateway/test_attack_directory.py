"""The directory backend under attack and bad luck: links, ghosts, odd times, races, a full disk."""

from __future__ import annotations

import os
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from s3fsx.gateway.backend import Source
from s3fsx.gateway.directory import files, fsck
from s3fsx.gateway.directory.names import Names
from s3fsx.gateway.directory.provider import DirectoryBackend
from s3fsx.gateway.directory.walk import Listings
from s3fsx.gateway.errors import S3Error
from s3fsx.gateway.keynames import INTERNAL
from s3fsx.gateway.model import Bucket, Object, Part, Query
from s3fsx.gateway.render import http_date, iso
from tests.gateway.test_backend import anyhow, backend, body, keys, pieces, put, root, steps

__all__ = ["backend", "root", "steps"]


async def test_a_linked_directory_leads_nowhere(backend: DirectoryBackend, root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (secret / "sub").mkdir(parents=True)
    (secret / "passwd").write_bytes(b"secret")
    (secret / "sub" / "deep").write_bytes(b"secret")
    (root / "bucket" / "link").symlink_to(secret)
    for key in ("link/passwd", "link/sub/deep"):
        with pytest.raises(S3Error, match="NoSuchKey"):
            await backend.open("bucket", key)
    for prefix in ("", "link", "link/", "link/p", "link/sub/"):
        assert await keys(backend, prefix=prefix) == []
    await backend.delete("bucket", "link/passwd", "", anyhow, anyhow)
    assert (secret / "passwd").exists()
    await put(backend, "link/sub/deep", b"mine")
    assert (secret / "sub" / "deep").read_bytes() == b"secret"
    assert await body(backend, "link/sub/deep") == b"mine"
    assert await keys(backend) == ["link/sub/deep"]


async def test_a_prefix_longer_than_any_path(backend: DirectoryBackend) -> None:
    await put(backend, "x")
    for prefix in ("a/" * 5000, "%" * 2000 + "/"):
        assert await keys(backend, prefix=prefix) == []
        assert (await backend.list_versions("bucket", Query(prefix))).entries == ()


async def test_times_of_no_calendar(backend: DirectoryBackend, root: Path) -> None:
    """A file of the year 2096 does not set the clock of what is written after it."""
    path = root / "bucket" / "far"
    path.write_bytes(b"1")
    try:
        os.utime(path, ns=(10**9 * 4_000_000_000, 10**9 * 4_000_000_000))
    except OverflowError:
        pytest.skip("a file system without such times")
    far = await put(backend, "far", b"2")
    assert far.modified > 10**9 * 4_000_000_000
    again = await put(backend, "far", b"3")
    assert again.modified > far.modified
    assert (await put(backend, "near")).modified < 10**9 * 4_000_000_000
    assert await body(backend, "far") == b"3"
    for time, year in ((10**22, "9999"), (-(10**22), "1000")):  # btrfs, xfs and tmpfs have them
        assert iso(time).startswith(year)
        assert f" {year} " in http_date(time)


async def test_a_bucket_that_has_gone_does_not_come_back(
    backend: DirectoryBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is deleted while a PUT, an upload and a marker are written to it."""
    real = os.fsync
    gone = False

    def fsync(descriptor: int) -> None:
        nonlocal gone
        real(descriptor)
        if not gone:
            gone = True
            backend._shelf.delete("bucket")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(S3Error, match="NoSuchBucket"):
        await put(backend, "x")
    assert gone
    assert [b.name for b in await backend.buckets()] == []
    assert [name for name in os.listdir(root) if not name.startswith(".")] == []


async def test_a_bucket_is_made_whole_or_not_at_all(
    backend: DirectoryBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be one without an owner, and its name taken."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "full")

    with monkeypatch.context() as patched:
        patched.setattr(files, "replace", full)
        with pytest.raises(S3Error, match="StorageFull"):
            await backend.create_bucket(Bucket("other", 0, "me"))
    assert [b.name for b in await backend.buckets()] == ["bucket"]
    await backend.create_bucket(Bucket("other", 0, "me"))
    assert (await backend.bucket("other")).owner == "me"
    with pytest.raises(S3Error, match="BucketAlreadyExists"):
        await backend.create_bucket(Bucket("other", 0, "you"))


async def test_one_damaged_bucket_does_not_hide_the_others(backend: DirectoryBackend, root: Path) -> None:
    await backend.create_bucket(Bucket("other", 0, "me"))
    (root / "other" / INTERNAL.decode() / "bucket.json").write_bytes(b"{")
    assert [b.name for b in await backend.buckets()] == ["bucket"]
    with pytest.raises(S3Error, match=r"bucket\.json"):
        await backend.bucket("other")
    backend.release()
    DirectoryBackend(str(root)).claim()


async def test_an_upload_that_is_aborted_leaves_nothing(
    backend: DirectoryBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a part comes meanwhile, and where the process ends before all is deleted."""
    upload = await backend.create_upload("bucket", Object("x", 0, "", 0))
    place = root / "bucket" / INTERNAL.decode() / "uploads"
    real = os.rename
    aborted = False

    def rename(source: Any, target: Any) -> None:
        nonlocal aborted
        real(source, target)
        if not aborted and b"/uploads/" in os.fsencode(target):
            aborted = True
            backend._shelf.space("bucket")[1].abort(upload.id)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", rename)
        with pytest.raises(S3Error, match="NoSuchUpload"):
            await backend.put_part("bucket", upload.id, pieces(b"1"), lambda size: Part(1, size, "e"))
    assert aborted
    assert os.listdir(place) == []
    upload = await backend.create_upload("bucket", Object("x", 0, "", 0))
    await backend.put_part("bucket", upload.id, pieces(b"1"), lambda size: Part(1, size, "e"))
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)  # as killed before it
        await backend.abort("bucket", upload.id)
    assert os.listdir(place) == []
    backend.release()
    DirectoryBackend(str(root)).claim()
    assert [name for name in (root / "bucket").rglob("*") if name.name.startswith("00001")] == []


async def test_two_completes_make_one_object(backend: DirectoryBackend) -> None:
    await backend.configure("bucket", {"versioning": "Enabled"})
    upload = await backend.create_upload("bucket", Object("x", 0, "", 0))
    await backend.put_part("bucket", upload.id, pieces(b"1"), lambda size: Part(1, size, "e"))
    outcomes: list[str] = []

    async def complete() -> None:
        try:
            made = await backend.complete("bucket", upload.id, [1], lambda _: Object("x", 1, "e", 0), anyhow)
        except S3Error as error:
            outcomes.append(error.code)
        else:
            outcomes.append(made.upload)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(complete)
    assert sorted(outcomes) == sorted([upload.id, *["NoSuchUpload"] * 3])
    assert len((await backend.list_versions("bucket", Query())).entries) == 1


async def test_a_directory_is_never_an_object(backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """``a`` becomes ``a%~`` and a directory between two looks of a reader."""
    await put(backend, "a", b"1")
    real = Names.find
    moved = False

    def find(self: Names, key: bytes) -> bytes | None:
        nonlocal moved
        found = real(self, key)
        if key == b"a" and not moved:
            moved = True
            os.rename(self.root + b"/a", self.root + b"/a%~")
            os.mkdir(self.root + b"/a")
        return found

    for ask in (lambda: body(backend, "a"), lambda: keys(backend)):
        moved = False
        with monkeypatch.context() as patched:
            patched.setattr(Names, "find", find)
            assert await ask() in (b"1", ["a"])
        space = backend._shelf.space("bucket")[0]
        os.rmdir(space.path + b"/a")
        os.rename(space.path + b"/a%~", space.path + b"/a")


async def test_what_somebody_left_beside_does_not_hide_what_is_written(backend: DirectoryBackend, root: Path) -> None:
    (root / "bucket" / "a%~").write_bytes(b"aside")
    (root / "bucket" / "a").write_bytes(b"old")
    await put(backend, "a", b"new")
    assert await body(backend, "a") == b"new"


async def test_the_marker_of_a_page_may_have_gone(backend: DirectoryBackend) -> None:
    """Whoever deletes page by page sees all versions of a key."""
    await backend.configure("bucket", {"versioning": "Enabled"})
    for number in range(7):
        await put(backend, "x", b"%d" % number)
    await put(backend, "y")
    seen = 0
    query = Query(limit=2)
    for _ in range(10):
        page = await backend.list_versions("bucket", query)
        for found in page.entries:
            await backend.delete("bucket", found.key, found.version, anyhow, anyhow)
            seen += 1
        if not page.next_key:
            break
        query = Query(limit=2, after=page.next_key, after_mark=page.next_mark)
    assert seen == 8
    assert (await backend.list_versions("bucket", Query())).entries == ()


async def test_a_key_that_is_replaced_while_the_directory_is_read(
    backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems tell neither its old nor its new place; it is in the listing nevertheless."""
    for key in ("a", "b", "c"):
        await put(backend, key)
    space = backend._shelf.space("bucket")[0]
    real = os.scandir
    calls = 0

    class Missing:
        def __init__(self, found: Any) -> None:
            self.found = found

        def __enter__(self) -> Any:
            entries = [entry for entry in self.found if entry.name != b"b"]
            os.rename(space.path + b"/b", space.path + b"/new")
            os.rename(space.path + b"/new", space.path + b"/b")
            return iter(entries)

        def __exit__(self, *_: object) -> None:
            self.found.close()

    def scandir(path: bytes) -> Any:
        nonlocal calls
        calls += 1
        return Missing(real(path)) if calls == 1 else real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert Listings().level(space.path, space.path, b"") == [b"a", b"b", b"c"]


async def test_a_tree_deeper_than_python_recurses(backend: DirectoryBackend, root: Path) -> None:
    """A key may have 1024 directories, and Python's limit is 1000; here 400 and 350, which takes less time."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(350)
    try:
        key = "/" * 400 + "x"
        await put(backend, key)
        assert await keys(backend) == [key]
        backend.release()
        assert fsck.check(str(root), data=False, repair=True, tell=lambda _: None).objects == 1
        again = DirectoryBackend(str(root))
        again.claim()
        await again.delete("bucket", key, "", anyhow, anyhow)
        path = str(root / "bucket")
        for _ in range(400):  # as a crash leaves them
            path += "/d"
            os.mkdir(path)
        await again.delete_bucket("bucket")
        again.release()
    finally:
        sys.setrecursionlimit(limit)


async def test_keys_in_each_other_s_way(backend: DirectoryBackend) -> None:
    """A file that becomes a directory and goes again, while it is written, read, listed and deleted."""
    names = ["a", "a/b", "a/b/c", "a/", "a//", "a/b/"]
    done = 0

    async def change(seed: int) -> None:
        nonlocal done
        choose = random.Random(seed)
        for _ in range(40):
            key = choose.choice(names)
            try:
                if choose.random() < 0.5:
                    await put(backend, key, key.encode(), key)
                elif choose.random() < 0.7:
                    await backend.delete("bucket", key, "", anyhow, anyhow)
                else:
                    assert await body(backend, key) == key.encode()
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
            assert set(await keys(backend)) <= set(names)
        done += 1

    async with trio.open_nursery() as nursery:
        for seed in range(6):
            nursery.start_soon(change, seed)
    assert done == 6
    for key in names:
        await put(backend, key, key.encode(), key)
    assert await keys(backend) == sorted(names)
    backend.release()
    found = fsck.check(backend._shelf._root.decode(), data=False, repair=False, tell=lambda _: None)
    assert (found.objects, found.foreign, found.left) == (6, 0, 0)


@pytest.mark.parametrize("change", ["complete", "abort", "touch", "update", "overwrite", "create bucket", "delete"])
async def test_killed_at_any_step(root: Path, steps: Any, change: str) -> None:
    """As before or as after; and then it can be done again."""
    for crash in range(40):
        steps.left, steps.taken = 10**9, 0
        await trio.run_process(["rm", "-rf", str(root)])
        os.mkdir(root)
        backend = DirectoryBackend(str(root))
        await backend.create_bucket(Bucket("bucket", 0, "me"))
        await put(backend, "x", b"1", "1")
        upload = await backend.create_upload("bucket", Object("x", 0, "", 0, metadata={"for": "2"}))
        await backend.put_part("bucket", upload.id, pieces(b"2"), lambda size: Part(1, size, "e"))

        async def run(backend: DirectoryBackend = backend, upload: str = upload.id) -> None:
            if change == "complete":
                wanted = Object("x", 1, "2", 0, metadata={"for": "2"})
                await backend.complete("bucket", upload, [1], lambda _: wanted, anyhow)
            elif change == "abort":
                await backend.abort("bucket", upload)
            elif change == "touch":
                itself = Source("bucket", "x")
                await backend.copy(itself, "bucket", "x", lambda old: replace(old, tags=(("t", "2"),)), anyhow)
            elif change == "update":
                await backend.update("bucket", "x", "", lambda old: replace(old, tags=(("t", "2"),)))
            elif change == "overwrite":
                await put(backend, "x", b"2", "2")
            elif change == "create bucket":
                await backend.create_bucket(Bucket("other", 0, "me"))
            else:
                await backend.delete("bucket", "x", "", anyhow, anyhow)

        steps.left, steps.taken = crash, 0
        crashed = False
        try:
            await run()
        except KeyboardInterrupt:
            crashed = True
        steps.left = 10**9
        again = DirectoryBackend(str(root))
        again.claim()
        for name in [b.name for b in await again.buckets()]:
            assert (await again.bucket(name)).owner == "me"
        listed = await keys(again)
        assert listed in ([["x"], []] if change == "delete" else [["x"]])
        if listed:
            found = await again.head("bucket", "x")
            assert (await body(again, "x")).decode() == found.etag == found.metadata["for"]
            assert found.tags in ((), (("t", "2"),))
        again.release()
        assert fsck.check(str(root), data=False, repair=True, tell=lambda _: None).foreign == 0
        gone = change in ("complete", "abort") and not (await again.list_uploads("bucket", Query())).uploads
        if crashed and not gone and (change != "create bucket" or len(await again.buckets()) == 1):
            await run(again)
        if not crashed:
            return
    raise AssertionError(f"{change} has more than 40 steps")


async def test_a_clock_that_goes_back(backend: DirectoryBackend, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over a start: what is written last is the latest version, and no two have one time."""
    await backend.configure("bucket", {"versioning": "Enabled"})
    made = [await put(backend, "x", b"0", "0")]
    for number, back in ((1, 10**9), (2, 10**12), (3, 10**12)):
        now = made[0].modified - back
        monkeypatch.setattr("time.time_ns", lambda now=now: now)
        if number == 2:
            backend.release()
            backend = DirectoryBackend(str(root))
            backend.claim()
        made.append(await put(backend, "x", b"%d" % number, str(number)))
        assert await body(backend, "x") == b"%d" % number
    await backend.delete("bucket", "x", "", anyhow, anyhow)
    assert await keys(backend) == []
    found = (await backend.list_versions("bucket", Query())).entries
    assert [version.etag for version in found] == ["", "3", "2", "1", "0"]
    assert len({version.modified for version in found}) == 5
    backend.release()
