from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from s3fsx.errors import ConfigError, S3fsxError
from s3fsx.kernel import mountpoint

MOUNTINFO = r"""
22 28 0:21 / /proc rw,nosuid shared:13 - proc proc rw
40 28 0:35 / /mnt/a\040b rw,nosuid,nodev shared:20 master:1 - fuse.s3fsx s3://b/ rw,user_id=1000,group_id=0
41 28 0:36 / /mnt/x rw - ext4 /dev/sda1 rw
42 41 0:37 / /mnt/x rw - fuse.s3fsx s3fsx rw
torn line
"""


def test_mountinfo() -> None:
    assert mountpoint.table(MOUNTINFO) == {
        "/proc": mountpoint.Entry("proc", "proc", None, "0:21"),
        "/mnt/a b": mountpoint.Entry("fuse.s3fsx", "s3://b/", 1000, "0:35"),
        "/mnt/x": mountpoint.Entry("fuse.s3fsx", "s3fsx", None, "0:37"),
    }
    assert mountpoint.mounted()["/proc"] == "proc"


def test_the_same_bucket_and_prefix_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {
        "/mnt/a": mountpoint.Entry("fuse.s3fsx", "s3://bucket/p_q/", 0),
        "/mnt/b": mountpoint.Entry("fuse.s3fs", "s3://bucket/p_q/", 0),
    }
    monkeypatch.setattr(mountpoint, "table", lambda: table)
    assert mountpoint.is_mounted("/mnt/a", "bucket", "p,q/")  # a comma would end the mount option
    assert not mountpoint.is_mounted("/mnt/a", "bucket", "other/")
    assert not mountpoint.is_mounted("/mnt/b", "bucket", "p,q/")
    assert not mountpoint.is_mounted("/mnt/c", "bucket", "p,q/")


def test_links_are_followed_up_to_the_last_part(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert mountpoint.absolute(f"{tmp_path}/link/mnt") == f"{tmp_path}/real/mnt"
    assert mountpoint.absolute(f"{tmp_path}/link") == f"{tmp_path}/link"


def test_a_directory_can_be_mounted_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountpoint, "DEVICE", os.devnull)
    (tmp_path / "link").symlink_to(".")
    assert mountpoint.prepare(f"{tmp_path}/link") == str(tmp_path)


def test_what_cannot_be_mounted_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path, line in (
        (f"{tmp_path}/absent", f"{tmp_path}/absent: no such directory: mkdir -p {tmp_path}/absent"),
        (f"{tmp_path}/file", f"{tmp_path}/file: not a directory"),
        (f"{tmp_path}/file/x", f"{tmp_path}/file/x: Not a directory"),
        ("/proc", "/proc: already a mountpoint (proc)"),
    ):
        with pytest.raises(ConfigError) as caught:
            mountpoint.prepare(path)
        assert str(caught.value) == line
    monkeypatch.setattr(mountpoint, "mounted", lambda: {str(tmp_path): "fuse.s3fsx"})
    with pytest.raises(ConfigError, match=rf"already a mountpoint \(fuse.s3fsx\); s3fsx umount {tmp_path} first"):
        mountpoint.prepare(str(tmp_path))


def test_fuse_itself_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountpoint, "DEVICE", f"{tmp_path}/fuse")
    with pytest.raises(S3fsxError, match="fuse is missing: modprobe fuse"):
        mountpoint.prepare(str(tmp_path))
    (tmp_path / "fuse").mkdir()
    with pytest.raises(S3fsxError, match="fuse: Is a directory"):
        mountpoint.prepare(str(tmp_path))


def test_only_fuse_mounts_are_unmounted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path}: not a mountpoint$"):
        mountpoint.unmount(str(tmp_path))
    with pytest.raises(ConfigError, match=r"^/proc: a proc mount, not one of s3fsx$"):
        mountpoint.unmount("/proc")


@pytest.mark.parametrize(
    ("owner", "line"),
    [
        (0, "/mnt/a: only root can unmount it"),
        (1001, "/mnt/a: only root or uid 1001, whose mount it is, can unmount it"),
    ],
)
def test_the_mount_of_another_user(owner: int, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountpoint, "table", lambda: {"/mnt/a": mountpoint.Entry("fuse.s3fsx", "s3://b/", owner)})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(S3fsxError) as caught:
        mountpoint.unmount("/mnt/a")
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (
            "echo 'umount: DIR: target is busy.' >&2; exit 32",
            "umount: DIR: target is busy. "
            "(a program still uses it: fuser -vm DIR shows which; or s3fsx umount --lazy DIR)",
        ),
        ("echo no >&2; exit 1", "DIR: no"),
        ("exit 3", "DIR: umount failed with 3"),
        (
            "exec sleep 60",
            "DIR: umount did not end within 0 s: its daemon may hang; s3fsx umount --lazy DIR takes it out of the tree",
        ),
    ],
)
def test_failures_of_umount_in_one_line(
    script: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(tmp_path / "mnt")
    for name in ("umount", "fusermount3"):
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\n" + script.replace("DIR", directory) + "\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(mountpoint, "table", lambda: {directory: mountpoint.Entry("fuse.s3fsx", "s3://b/", 0)})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(S3fsxError) as caught:
        mountpoint.unmount(directory, limit=0.3 if "sleep" in script else 30.0)
    assert str(caught.value) == line.replace("DIR", directory)


def test_the_end_of_the_daemon_behind_a_socket_is_seen(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    assert mountpoint.daemon_of(path) is None
    server = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", server, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        pidfd = mountpoint.daemon_of(path)
        assert pidfd is not None
        assert not mountpoint.wait_for_end(pidfd, 0.05)
        process.stdin.close()
        assert mountpoint.wait_for_end(pidfd, 10)
        os.close(pidfd)
    with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    assert mountpoint.daemon_of(path) is None
