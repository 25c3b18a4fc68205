"""Files and directories as programs other than Proxmox use them, and what is refused at once."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import MakeMount
from tests.mount.harness import Mount, eventually
from tests.s3server import STORES

pytestmark = pytest.mark.mount

NAMES = [
    "with space",
    "plus+plus",
    "per%cent",
    "per%20cent",
    "ümläut-日本",
    "q?uestion&=#",
    "dots..",
    "-dash",
    "a\\b",
    "'\"$x`",
]


def run(*command: str, cwd: Path | None = None, timeout: float = 120) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("bucket_on", STORES, indirect=True)
def test_odd_names_go_in_and_out(mount: Mount) -> None:
    directory = mount.path / "snippets" / "of many+kinds %41"
    directory.mkdir()
    for name in NAMES:
        (directory / name).write_bytes(name.encode())
        mount.view.put(f"snippets/of many+kinds %41/{name} remote", name.encode())
    expected = sorted(NAMES + [f"{name} remote" for name in NAMES])
    assert sorted(k.rpartition("/")[2] for k in mount.view.keys("snippets/") if not k.endswith("/")) == expected
    mount.restart()
    assert sorted(os.listdir(directory)) == expected
    for name in expected:
        assert (directory / name).read_bytes() == name.removesuffix(" remote").encode()
    for name in expected:
        (directory / name).rename(directory / f"{name}.new")
    assert sorted(os.listdir(directory)) == sorted(f"{n}.new" for n in expected)


def test_a_name_of_255_bytes_and_one_more(mount: Mount) -> None:
    (mount.path / "snippets" / ("x" * 255)).write_text("long")
    assert mount.view.body("snippets/" + "x" * 255) == b"long"
    with pytest.raises(OSError, match=rf"Errno {errno.ENAMETOOLONG}"):
        (mount.path / "snippets" / ("x" * 256)).write_text("too long")


def test_more_than_a_page_of_keys(mount: Mount) -> None:
    """1000 is all one ListObjectsV2 tells."""
    names = [f"n{i:04}.iso" for i in range(2100)]
    for name in names:
        mount.view.put(f"template/iso/{name}")
    assert sorted(os.listdir(mount.path / "template/iso")) == names
    assert (mount.path / "template/iso/n2099.iso").stat().st_size == 0


def test_keys_that_are_no_file_names_are_hidden(mount: Mount) -> None:
    """`a` beside `a/b`, empty components, dots: the listing works, the directory wins, nothing crashes."""
    for key in (
        "snippets/a",
        "snippets/a/b",
        "snippets//c",
        "snippets/./d",
        "snippets/../e",
        "snippets/ok",
        "snippets/f/",
    ):
        mount.view.put(key, b"x")
    directory = mount.path / "snippets"
    assert {"a", "ok", "f"} <= set(os.listdir(directory))
    assert not {"", ".", ".."} & set(os.listdir(directory))
    assert (directory / "a").is_dir()
    assert (directory / "a" / "b").read_bytes() == b"x"
    assert (directory / "f").is_dir()
    run("find", str(mount.path), "-type", "f")


def test_append(mount: Mount) -> None:
    for size in (10, 6 << 20, 20 << 20):  # a small object, one part, several
        first, second = random.Random(size).randbytes(size), random.Random(-size).randbytes(70_000)
        path = mount.path / f"snippets/append-{size}"
        path.write_bytes(first)
        with path.open("ab") as file:
            file.write(second)
        assert mount.view.body(f"snippets/append-{size}") == first + second
        assert path.stat().st_size == size + 70_000
    assert mount.view.uploads() == []


def test_small_edits_in_place(mount: Mount) -> None:
    path = mount.path / "snippets/edit"
    path.write_bytes(b"0123456789" * 1000)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"ABC")
        file.seek(10)
        assert file.read(3) == b"012"
        file.write(b"xyz")
    expected = bytearray(b"0123456789" * 1000)
    expected[5000:5003], expected[13:16] = b"ABC", b"xyz"
    assert mount.view.body("snippets/edit") == bytes(expected)
    assert path.read_bytes() == bytes(expected)


def test_truncate(mount: Mount) -> None:
    path = mount.path / "snippets/cut"
    path.write_bytes(b"0123456789")
    os.truncate(path, 4)
    assert mount.view.body("snippets/cut") == b"0123"
    os.truncate(path, 8)
    assert mount.view.body("snippets/cut") == b"0123\0\0\0\0"
    os.truncate(path, 0)
    assert mount.view.body("snippets/cut") == b""
    path.write_bytes(b"new")
    with path.open("w"):
        pass
    assert mount.view.body("snippets/cut") == b""


def test_whole_rewrite_keeps_the_old_version_until_close(mount: Mount) -> None:
    path = mount.path / "snippets/rewrite"
    path.write_bytes(b"old")
    with path.open("wb", buffering=0) as file:
        file.write(b"n" * (20 << 20))
        assert mount.view.body("snippets/rewrite") == b"old"
    assert mount.view.size("snippets/rewrite") == 20 << 20


def test_fsync_is_durable(mount: Mount) -> None:
    with (mount.path / "snippets/synced").open("wb", buffering=0) as file:
        file.write(b"one")
        os.fsync(file.fileno())
        assert mount.view.body("snippets/synced") == b"one"
        file.write(b"two")
    assert mount.view.body("snippets/synced") == b"onetwo"


@pytest.mark.expect_log(r"", optional=True)
def test_random_write_into_a_large_object_is_refused_at_once(mount: Mount) -> None:
    """Disks under images/ come with the volume engine; until then nothing pretends. The log says so."""
    body = random.Random(4).randbytes(96 << 20)
    mount.view.put("images/100/vm-100-disk-0.raw", body)
    path = mount.path / "images/100/vm-100-disk-0.raw"
    fd = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(OSError, match=rf"Errno {errno.EOPNOTSUPP}"):
            os.pwrite(fd, b"x" * 4096, 40 << 20)
    finally:
        os.close(fd)
    assert "vm-100-disk-0.raw" in mount.log()
    assert mount.view.size("images/100/vm-100-disk-0.raw") == len(body)
    assert mount.view.sha256("images/100/vm-100-disk-0.raw") == hashlib.sha256(body).hexdigest()
    assert mount.view.uploads() == []


def test_sparse_copies_read_as_zeros(mount: Mount, tmp_path: Path) -> None:
    """cp --sparse and dd conv=sparse seek over the holes; dd ends with ftruncate."""
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.write(b"head")
        file.seek(9 << 20)
        file.write(b"middle")
        file.truncate((20 << 20) + 77)
    content = source.read_bytes()
    run("cp", "--sparse=always", str(source), str(mount.path / "template/iso/cp.img"))
    run("dd", f"if={source}", f"of={mount.path}/template/iso/dd.img", "bs=64k", "conv=sparse", "status=none")
    for name in ("cp.img", "dd.img"):
        assert (mount.path / "template/iso" / name).read_bytes() == content, name
        assert mount.view.body(f"template/iso/{name}") == content, name


def test_rename(mount: Mount) -> None:
    directory = mount.path / "snippets"
    (directory / "a").write_bytes(b"1")
    (directory / "a").rename(directory / "b")
    (directory / "sub").mkdir()
    (directory / "b").rename(directory / "sub" / "c")
    assert mount.view.body("snippets/sub/c") == b"1"
    (directory / "sub").rename(directory / "moved")
    assert mount.view.body("snippets/moved/c") == b"1"
    assert (directory / "moved" / "c").read_bytes() == b"1"
    assert [k for k in mount.view.keys("snippets/") if not k.endswith("/")] == ["snippets/moved/c"]
    with pytest.raises(FileNotFoundError):
        (directory / "a").rename(directory / "x")
    with pytest.raises(OSError, match=rf"Errno {errno.EINVAL}"):
        (directory / "moved").rename(directory / "moved" / "inside")


def test_rename_keeps_a_large_object_whole(mount: Mount) -> None:
    body = random.Random(5).randbytes(40 << 20)
    mount.view.put("template/iso/large.iso", body)
    (mount.path / "template/iso/large.iso").rename(mount.path / "template/iso/other.iso")
    assert (mount.path / "template/iso/other.iso").read_bytes() == body
    assert not (mount.path / "template/iso/large.iso").exists()
    mount.umount()  # waits for the copy
    assert mount.view.keys("template/") == ["template/iso/other.iso"]
    assert mount.view.body("template/iso/other.iso") == body
    mount.start()


@pytest.mark.expect_log(r"", optional=True)
def test_rename_replaces_while_the_old_one_is_read(mount: Mount) -> None:
    """R14: a reader of the old file sees the old bytes or ESTALE, never a mix."""
    old, new = b"o" * (24 << 20), b"n" * (24 << 20)
    directory = mount.path / "template/iso"
    (directory / "x.iso").write_bytes(old)
    with (directory / "x.iso").open("rb", buffering=0) as reader:
        assert reader.read(1000) == old[:1000]
        (directory / "y.iso").write_bytes(new)
        (directory / "y.iso").rename(directory / "x.iso")
        seen = bytearray()
        try:
            while piece := reader.read(1 << 20):
                seen += piece
        except OSError as e:
            if e.errno != errno.ESTALE:
                raise
        assert set(seen) <= {ord("o")}
    assert (directory / "x.iso").read_bytes() == new
    assert sorted(os.listdir(directory)) == ["x.iso"]


@pytest.mark.expect_log(r"", optional=True)
def test_an_open_file_that_changes_remotely_is_stale(mount: Mount) -> None:
    mount.view.put("template/iso/r.iso", b"1" * (64 << 20))
    with (mount.path / "template/iso/r.iso").open("rb", buffering=0) as file:
        assert file.read(10) == b"1" * 10
        mount.view.put("template/iso/r.iso", b"2" * (64 << 20))
        file.seek(60 << 20)
        try:
            piece = file.read(1 << 20)
        except OSError as e:
            if e.errno != errno.ESTALE:
                raise
        else:
            assert set(piece) == {ord("1")}  # read ahead before the change


def test_directories(mount: Mount) -> None:
    directory = mount.path / "snippets/d"
    directory.mkdir()
    with pytest.raises(FileExistsError):
        directory.mkdir()
    assert os.listdir(directory) == []
    mount.restart()
    assert directory.is_dir()  # an empty one outlives the mount
    (directory / "f").write_text("x")
    with pytest.raises(OSError, match=rf"Errno {errno.ENOTEMPTY}"):
        directory.rmdir()
    (directory / "f").unlink()
    directory.rmdir()
    assert not directory.exists()
    assert mount.view.keys("snippets/") == []
    (mount.path / "snippets/file").write_text("x")
    with pytest.raises(NotADirectoryError):
        (mount.path / "snippets/file").rmdir()
    with pytest.raises(IsADirectoryError):
        (mount.path / "snippets").unlink()


def test_links_and_device_nodes_are_refused(mount: Mount) -> None:
    path = mount.path / "snippets/file"
    path.write_text("x")
    refused = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
    attempts: list[Callable[[], None]] = [
        lambda: os.symlink("file", mount.path / "snippets/soft"),
        lambda: os.link(path, mount.path / "snippets/hard"),
        lambda: os.mkfifo(mount.path / "snippets/fifo"),
        lambda: os.mknod(mount.path / "snippets/null", 0o020666, os.makedev(1, 3)),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="Errno") as caught:
            attempt()
        assert caught.value.errno in refused, caught.value
    assert os.listdir(mount.path / "snippets") == ["file"]


def test_virtual_attributes_tell_the_key(mount: Mount) -> None:
    path = mount.path / "snippets/x y"
    path.write_text("x")
    head = mount.server.client.head_object(Bucket=mount.bucket, Key="pve/snippets/x y")
    assert os.getxattr(path, "user.s3fsx.key") == b"pve/snippets/x y"
    assert os.getxattr(path, "user.s3fsx.etag").decode().strip('"') == head["ETag"].strip('"')
    assert os.getxattr(path, "user.s3fsx.storage_class") == b"STANDARD"
    assert {"user.s3fsx.key", "user.s3fsx.etag"} <= set(os.listxattr(path))
    with pytest.raises(OSError, match="Errno"):
        os.setxattr(path, "user.s3fsx.key", b"other")
    with pytest.raises(OSError, match=rf"Errno {errno.ENODATA}"):
        os.getxattr(path, "user.nothing")


def test_modes_owner_and_time_survive_a_remount(mount: Mount) -> None:
    path = mount.path / "snippets/hook.sh"
    path.write_text("#!/bin/sh\necho called $1\n")
    path.chmod(0o755)
    os.chown(path, 1000, 1001)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    mount.restart()
    status = path.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o755, 1000, 1001)
    assert status.st_mtime == 1_600_000_000
    assert run(str(path), "pre-start") == "called pre-start\n"


def test_metadata_of_other_programs_is_read(mount: Mount) -> None:
    """s3fs: mode (decimal, with the type), uid, gid, mtime. rclone: mtime with a fraction."""
    s3fs = {"mode": str(0o100750), "uid": "33", "gid": "34", "mtime": "1500000000"}
    mount.view.put("snippets/s3fs", b"x", **s3fs)
    mount.view.put("snippets/rclone", b"x", mtime="1400000000.123456789")
    mount.view.put("snippets/strange", b"x", mode="rwx", mtime="yesterday", uid="-1")
    status = (mount.path / "snippets/s3fs").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o750, 33, 34)
    assert status.st_mtime == 1_500_000_000
    assert int((mount.path / "snippets/rclone").stat().st_mtime) == 1_400_000_000
    assert (mount.path / "snippets/strange").read_bytes() == b"x"


def test_metadata_is_written_as_s3fs_does(mount: Mount) -> None:
    path = mount.path / "snippets/own"
    path.write_text("x")
    path.chmod(0o750)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    eventually(lambda: float(mount.view.metadata("snippets/own").get("mtime", 0)) == 1_600_000_000, "mtime is stored")
    metadata = mount.view.metadata("snippets/own")
    assert int(metadata["mode"]) & 0o7777 == 0o750


def text_of(path: Path) -> str | None:
    """None: the open believed a listing younger than the TTL and the read found another version, which is ESTALE."""
    try:
        return path.read_text()
    except OSError as e:
        if e.errno != errno.ESTALE:
            raise
        return None


@pytest.mark.expect_log(r"WARNING fuse: read: .* replaced or deleted elsewhere", optional=True)
def test_what_others_do_is_seen_within_the_ttl(make_mount: MakeMount) -> None:
    one = make_mount(list_ttl="1s", attr_ttl="1s")
    two = make_mount(bucket=one.bucket, list_ttl="1s", attr_ttl="1s")
    assert os.listdir(two.path / "snippets") == []
    (one.path / "snippets/new").write_text("x")
    eventually((two.path / "snippets/new").exists, "the other node's file is seen")
    (one.path / "snippets/new").write_text("changed")
    eventually(lambda: text_of(two.path / "snippets/new") == "changed", "the other node's change is seen")
    (two.path / "snippets/new").unlink()
    eventually(lambda: not (one.path / "snippets/new").exists(), "the other node's removal is seen")


def test_open_revalidates(make_mount: MakeMount) -> None:
    """Close-to-open: at the latest after the TTL an open sees the new bytes, of the same length or not."""
    mount = make_mount(list_ttl="1s", attr_ttl="1s")
    mount.view.put("snippets/f", b"old")
    assert (mount.path / "snippets/f").read_bytes() == b"old"
    mount.view.put("snippets/f", b"new")
    time.sleep(1.1)  # the TTL is the promise under test
    assert (mount.path / "snippets/f").read_bytes() == b"new"


def test_unaligned_and_tiny_writers(mount: Mount, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(random.Random(6).randbytes((12 << 20) + 321))
    for size in ("4096", "10240", "77777", "3800001"):
        target = f"{mount.path}/template/iso/w{size}.iso"
        run("dd", f"if={source}", f"of={target}", f"bs={size}", "status=none")
        assert mount.view.body(f"template/iso/w{size}.iso") == source.read_bytes()


def test_the_size_grows_while_a_file_is_written(mount: Mount) -> None:
    """`ls -l` on a running backup."""
    with (mount.path / "snippets/log").open("wb", buffering=0) as writer:
        writer.write(b"line 1\n")
        writer.write(b"line 2\n")
        assert (mount.path / "snippets/log").stat().st_size == 14
    assert mount.view.body("snippets/log") == b"line 1\nline 2\n"


def test_exclusive_creation(mount: Mount) -> None:
    path = mount.path / "snippets/once"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    with pytest.raises(FileExistsError):
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    assert mount.view.body("snippets/once") == b""


def test_read_only_mount(make_mount: MakeMount) -> None:
    mount = make_mount(ro=True)
    mount.view.put("snippets/f", b"x")
    assert (mount.path / "snippets/f").read_bytes() == b"x"
    for attempt in (
        lambda: (mount.path / "snippets/g").write_text("x"),
        lambda: (mount.path / "snippets/f").unlink(),
        lambda: (mount.path / "snippets/d").mkdir(),
    ):
        with pytest.raises(OSError, match=rf"Errno {errno.EROFS}"):
            attempt()


def test_the_internal_prefix_is_never_listed(mount: Mount) -> None:
    mount.view.put(".s3fsx/anything", b"x")
    assert ".s3fsx" not in os.listdir(mount.path)
    assert not (mount.path / ".s3fsx" / "anything").exists()


@pytest.mark.parametrize("reader_first", [True, False])
def test_a_reader_sees_what_another_program_goes_on_to_write(mount: Mount, reader_first: bool) -> None:
    """Whichever of the two kinds of handles the kernel has for them."""
    path = mount.path / "snippets" / "log"
    path.write_bytes(b"0" * 5000)
    reader = os.open(path, os.O_RDONLY) if reader_first else -1
    writer = os.open(path, os.O_WRONLY | os.O_APPEND)
    if not reader_first:
        reader = os.open(path, os.O_RDONLY)
    try:
        expected = b"0" * 5000
        for character in b"abc":
            assert os.pread(reader, 100_000, 0) == expected
            piece = bytes([character]) * 3000
            os.write(writer, piece)
            expected += piece
        assert os.pread(reader, 100_000, 0) == expected
        assert path.stat().st_size == len(expected)
    finally:
        os.close(reader)
        os.close(writer)
    assert path.read_bytes() == expected == mount.view.body("snippets/log")


def test_edited_in_place_by_a_program_that_only_writes(mount: Mount) -> None:
    path = mount.path / "snippets" / "table"
    path.write_bytes(b"0" * 10_000)
    assert path.read_bytes() == b"0" * 10_000  # its pages are in the kernel now
    writer = os.open(path, os.O_WRONLY)
    os.pwrite(writer, b"1" * 10, 4090)
    os.close(writer)
    assert path.read_bytes() == b"0" * 4090 + b"1" * 10 + b"0" * 5900


def test_what_kinds_of_extended_attributes_there_are(mount: Mount) -> None:
    """ENOTSUP makes ``ls`` ask once and not for every file."""
    path = mount.path / "snippets" / "a"
    path.write_text("x")
    for name, expected in (
        ("security.selinux", errno.ENOTSUP),
        ("system.posix_acl_access", errno.ENOTSUP),
        ("user.else", errno.ENODATA),
        ("user.s3fsx.else", errno.ENODATA),
    ):
        with pytest.raises(OSError, match=f"Errno {expected}"):
            os.getxattr(path, name)


def test_who_sets_one_attribute_after_ls_keeps_the_others(mount: Mount) -> None:
    """The kernel has the name from readdir, with what a listing tells, and asks for nothing before it sets one."""
    stored = {"mode": str(0o100755), "uid": "12", "gid": "34", "mtime": "1600000000"}
    mount.view.put("snippets/hook", b"#!/bin/sh\n", **stored)
    mount.view.put("snippets/other", b"#!/bin/sh\n", **stored)
    assert sorted(os.listdir(mount.path / "snippets")) == ["hook", "other"]
    os.utime(mount.path / "snippets/hook", (7, 7))
    (mount.path / "snippets/other").chmod(0o644)  # which is also what is shown of a file without a mode
    hook, other = (mount.path / "snippets/hook").stat(), (mount.path / "snippets/other").stat()
    assert (hook.st_mode, hook.st_uid, hook.st_gid, hook.st_mtime) == (0o100755, 12, 34, 7)
    assert (other.st_mode, other.st_uid, other.st_gid, other.st_mtime) == (0o100644, 12, 34, 1_600_000_000)
