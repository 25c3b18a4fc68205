"""The state directory's disk is full, fails or holds rubbish: one clear line, an errno, nothing lost or half done."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MakeMount
from tests.mount.harness import Mount, detach, eventually
from tests.mount.test_mounting import Attempt, attempt
from tests.mount.test_recover import BODY, name, recover

__all__ = ["attempt"]  # the fixture

pytestmark = [pytest.mark.mount, pytest.mark.rgw]


def run(*command: object) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """1 MiB of memory as a disk of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path)
    yield path
    detach(path)


def fill(disk: Path) -> Path:
    """Not one byte is left. Removing the file makes room again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert os.statvfs(disk).f_bfree == 0
    return ballast


def fails(action: Callable[[], object]) -> int:
    with pytest.raises(OSError) as error:  # noqa: PT011  # the caller looks at the errno
        action()
    return error.value.errno or 0


def backup(mount: Mount, number: int) -> None:
    (mount.path / name(number)).write_bytes(BODY)
    (mount.path / name(number)).rename(mount.path / name(number, "zst"))


def test_a_full_disk_at_mount(attempt: Attempt, disk: Path) -> None:
    attempt.options["state_dir"] = disk / "state"
    ballast = fill(disk)
    attempt.refused("disk is full", "state_dir")
    ballast.unlink()
    done = attempt.mount()
    assert done.returncode == 0, done
    run("umount", attempt.directory)


def test_a_read_only_disk_at_mount(attempt: Attempt, disk: Path) -> None:
    attempt.options["state_dir"] = disk / "state"
    run("mount", "-o", "remount,ro", disk)
    attempt.refused("Read-only file system", "state_dir")
    run("mount", "-o", "remount,rw", disk)
    done = attempt.mount()
    assert done.returncode == 0, done
    run("umount", attempt.directory)


@pytest.mark.expect_log(r"is the disk of state_dir full or read-only\?")
@pytest.mark.expect_log(r"could not be|tried again|renamed, but", optional=True)
def test_a_disk_that_fills_up_during_a_backup(make_mount: MakeMount, disk: Path) -> None:
    mount = make_mount(state_dir=disk / "state")
    dump = mount.path / "dump"
    backup(mount, 1)
    (dump / "notes").write_bytes(b"x")
    (dump / "old").write_bytes(b"o")
    fd = os.open(mount.path / name(2), os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, BODY)
    ballast = fill(disk)
    # What needs the journal fails, before anything is done in the bucket; what does not, goes on.
    assert fails(lambda: os.close(fd)) == errno.EIO
    assert fails(lambda: backup(mount, 3)) == errno.EIO
    assert fails(lambda: (dump / "notes").rename(dump / "other")) == errno.EIO
    assert (mount.path / name(1, "zst")).read_bytes() == BODY
    (dump / "small").write_bytes(b"y")
    (dump / "old").unlink()
    assert mount.view.keys("dump/") == ["dump/notes", "dump/small", name(1, "zst")]
    eventually(lambda: mount.view.uploads() == [], "nothing of the failed backups costs money")
    ballast.unlink()
    # And again, without a remount.
    backup(mount, 4)
    (dump / "notes").rename(dump / "other")
    (dump / "small").unlink()
    assert mount.view.body(name(4, "zst")) == BODY
    assert mount.view.keys("dump/") == ["dump/other", name(1, "zst"), name(4, "zst")]
    mount.kill9()
    mount.start()
    assert mount.view.uploads() == []
    assert sorted(os.listdir(dump)) == ["other", name(1, "zst")[5:], name(4, "zst")[5:]]


@pytest.mark.expect_log(r"is the disk of state_dir full or read-only\?")
# The last: the disk still says that an early close settled it, and the program was told that its close failed.
@pytest.mark.expect_log(r"could not be|tried again|renamed, but|the file is lost", optional=True)
def test_a_disk_that_fails_during_a_backup(make_mount: MakeMount, tmp_path: Path) -> None:
    """ext4 makes itself read-only after an error; what was written before is safe, and the next mount goes on."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    run("mkfs.ext4", "-q", image)
    run("mount", "-o", "loop", image, disk)
    try:
        mount = make_mount(state_dir=disk / "state")
        (mount.path / name(1)).write_bytes(BODY)
        (mount.path / "dump/notes").write_bytes(b"x")
        fd = os.open(mount.path / name(2), os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, BODY)
        run("mount", "-o", "remount,abort", disk)
        with pytest.raises(OSError, match="Read-only"):
            (disk / "f").touch()
        os.write(fd, b"more: the command above has closed a duplicate of the descriptor")
        assert fails(lambda: os.close(fd)) == errno.EIO
        assert fails(lambda: (mount.path / "dump/notes").rename(mount.path / "dump/other")) == errno.EIO
        assert (mount.path / "dump/notes").read_bytes() == b"x"
        assert mount.view.keys("dump/") == ["dump/notes"]
        mount.kill9()
        run("umount", disk)
        run("mount", "-o", "loop", image, disk)
        mount.start()
        assert (mount.path / name(1)).stat().st_size == len(BODY), "what close promised"
        (mount.path / name(1)).rename(mount.path / name(1, "zst"))
        assert mount.view.body(name(1, "zst")) == BODY
        assert not (mount.path / name(2)).exists()
        assert mount.view.uploads() == []
        mount.umount()
    finally:
        detach(disk)


@pytest.mark.expect_log("the journal here is new, and the bucket has that of node")
@pytest.mark.expect_log("journal.sqlite cannot be used")
def test_a_corrupt_journal_is_kept_and_recover_points_the_way(make_mount: MakeMount) -> None:
    mount = make_mount()
    (mount.path / name(1)).write_bytes(BODY)
    eventually(lambda: any("/journal/" in key for key in mount.view.internal_keys()), "the copy in the bucket")
    mount.kill9()
    (journal,) = Path(str(mount.options["state_dir"])).glob("*/journal.sqlite")
    for tail in ("-wal", "-shm"):
        journal.with_name(journal.name + tail).unlink(missing_ok=True)
    damaged = b"SQLite format 3\0" + os.urandom(8192)
    journal.write_bytes(damaged)
    line = recover(mount, code=2)
    assert line.count("\n") == 0
    assert f"the journal {journal} cannot be used" in line
    with pytest.raises(AssertionError, match=f"the journal {journal} cannot be used"):
        mount.start()
    mount.process = None
    assert journal.read_bytes() == damaged
    shutil.move(journal, journal.with_name("damaged"))
    mount.start()
    command = next(text for text in mount.log().splitlines() if " --node " in text).partition("--node ")[2]
    recover(mount, "--node", command.split()[0], "--apply")
    assert mount.view.body(name(1)) == BODY
    assert mount.view.uploads() == []
