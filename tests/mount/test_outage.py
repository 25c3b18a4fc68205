"""The S3 server stops answering (SIGSTOP: connections stay open, nothing comes) or goes away. Nothing may hang."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import MakeMount
from tests.mount.harness import Mount, eventually
from tests.s3server import S3Server

# An outage is loud, and how often it is said is not the point here.
pytestmark = [pytest.mark.mount, pytest.mark.expect_log(r"", optional=True)]

CONTENT = ("dump", "images", "template/iso", "template/cache", "snippets", "import", "private")
# Short limits, so that the tests are; what is asserted is that they hold. Seconds.
LIMITS = {
    "connect_timeout": "1s",
    "read_timeout": "2s",
    "metadata_deadline": "3s",
    "read_deadline": "4s",
    "write_deadline": "5s",
    "publish_deadline": "6s",
    "list_ttl": "1s",
    "attr_ttl": "1s",
}
DEADLINE = 15.0  # the longest of the above, twice (one call may need two requests), and a busy machine
AT_ONCE = 1.0  # promised are 100 ms; a machine with two busy cores gets some grace


@contextmanager
def stopped(server: S3Server) -> Iterator[None]:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def timed(script: str, *arguments: object, limit: float) -> tuple[float, int, str]:
    """Runs Python code in a process of its own, so that a hang is a failure: (seconds, errno or 0, output).

    The time is taken inside: starting Python is not what is measured.
    """
    wrapped = f"""
import os, sys, time
begin = time.monotonic()
try:
    {script}
    code = 0
except OSError as e:
    code = e.errno
print(time.monotonic() - begin, code)
"""
    try:
        command = [sys.executable, "-c", wrapped, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit + 30, check=True)
    except subprocess.TimeoutExpired:
        pytest.fail(f"hangs for more than {limit + 30:.0f} s: {script}")
    seconds, code = done.stdout.split()[-2:]
    return float(seconds), int(code), done.stdout


def ends(script: str, *arguments: object, limit: float = DEADLINE) -> int:
    """The errno of script (0: success), which must end within limit."""
    seconds, code, _ = timed(script, *arguments, limit=limit)
    assert seconds < limit, f"{seconds:.1f} s: {script}"
    return code


STATFS = "os.statvfs(sys.argv[1])"
STAT = "os.stat(sys.argv[1])"
LISTDIR = "os.listdir(sys.argv[1])"
READ = "open(sys.argv[1], 'rb').read()"
WRITE = "f = open(sys.argv[1], 'wb'); f.write(bytes(1000)); f.close()"


@pytest.fixture
def limited(make_mount: MakeMount) -> Mount:
    return make_mount(**LIMITS)


def test_status_answers_while_the_server_hangs(limited: Mount, s3: S3Server) -> None:
    """R1: what pvestatd asks every 10 s, before, while and after the mount notices."""
    with stopped(s3):
        for _ in range(8):
            for path in (limited.path, *(limited.path / d for d in CONTENT)):
                assert ends(STAT, path, limit=AT_ONCE) == 0
            assert ends(STATFS, limited.path, limit=AT_ONCE) == 0
            time.sleep(0.5)  # the outage has to last for a while; nothing is waited for
        done = subprocess.run(["df", str(limited.path)], capture_output=True, timeout=30, check=False)
        assert done.returncode == 0
    eventually(lambda: os.statvfs(limited.path).f_blocks > 0, "the storage is active again", limit=60)


def test_other_calls_end_in_an_error_and_work_again(limited: Mount, s3: S3Server) -> None:
    limited.view.put("dump/a.vma.zst", b"a" * (8 << 20))
    limited.view.put("dump/b.vma.zst", b"b" * (8 << 20))
    assert (limited.path / "dump/a.vma.zst").read_bytes() == b"a" * (8 << 20)
    with stopped(s3):
        assert ends(READ, limited.path / "dump/b.vma.zst") == errno.EIO
        assert ends(WRITE, limited.path / "dump/new") == errno.EIO
        assert ends("os.mkdir(sys.argv[1])", limited.path / "snippets/d") == errno.EIO
        assert ends("os.unlink(sys.argv[1])", limited.path / "dump/b.vma.zst") == errno.EIO
        assert ends(STAT, limited.path / "dump/never-heard-of") in (errno.EIO, errno.ENOENT)
        assert ends(LISTDIR, limited.path / "template/iso") in (0, errno.EIO)
        assert ends(STATFS, limited.path, limit=AT_ONCE) == 0
    eventually(lambda: ends(READ, limited.path / "dump/b.vma.zst") == 0, "reading works again", limit=60)
    assert (limited.path / "dump/b.vma.zst").read_bytes() == b"b" * (8 << 20)
    (limited.path / "dump/after").write_bytes(b"x")
    assert limited.view.body("dump/after") == b"x"
    eventually(lambda: limited.view.uploads() == [], "nothing is left of what failed")
    eventually(lambda: sorted(os.listdir(limited.path / "dump"))[:2] == ["a.vma.zst", "after"], "the listing is true")


def test_status_answers_while_others_wait(limited: Mount, s3: S3Server) -> None:
    """Readers that hang in their deadline must not hold up those that need no network."""
    for i in range(32):
        limited.view.put(f"dump/{i}.vma.zst", bytes(1 << 20))
    assert len(os.listdir(limited.path / "dump")) == 32
    with stopped(s3):
        readers = [
            subprocess.Popen(
                ["cat", f"{limited.path}/dump/{i}.vma.zst"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for i in range(32)
        ]
        try:
            for _ in range(6):
                assert ends(STATFS, limited.path, limit=AT_ONCE) == 0
                assert ends(STAT, limited.path / "dump", limit=AT_ONCE) == 0
            for reader in readers:
                assert reader.wait(DEADLINE * 2) != 0
        finally:
            for reader in readers:
                reader.kill()
                reader.wait()
    eventually(lambda: ends(READ, f"{limited.path}/dump/1.vma.zst") == 0, "reading works again", limit=60)


def test_a_backup_in_an_outage_fails_and_leaves_nothing(limited: Mount, s3: S3Server) -> None:
    """R3: the error comes out of write, close or rename, in bounded time; never success without the bytes."""
    path = limited.path / "dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.dat"
    script = """
    f = open(sys.argv[1], "wb", buffering=0)
    f.write(b"\\x28\\xb5\\x2f\\xfd" + bytes(20 << 20))
    print("written", flush=True)
    sys.stdin.readline()
    f.write(bytes(40 << 20))
    f.close()
    os.rename(sys.argv[1], sys.argv[2])
"""
    command = [sys.executable, "-c", f"import os, sys\nif True:\n{script}", str(path), str(path.with_suffix(".zst"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        with stopped(s3):
            _, stderr = writer.communicate(b"\n", timeout=90)
    assert writer.returncode != 0
    assert b"OSError: [Errno 5]" in stderr
    eventually(lambda: ends("os.unlink(sys.argv[1])", path) in (0, errno.ENOENT), "vzdump removes the .dat", limit=60)
    eventually(lambda: limited.view.uploads() == [], "the upload is aborted", limit=60)
    assert limited.view.keys("dump/") == []


def test_a_short_stall_is_ridden_out(make_mount: MakeMount, s3: S3Server) -> None:
    """Two seconds are no outage with the default limits: a garbage collection, a failover."""
    mount = make_mount()
    path = mount.path / "dump/x.vma.dat"
    body = b"\x28\xb5\x2f\xfd" + os.urandom(30 << 20)
    with path.open("wb", buffering=0) as file:
        file.write(body[: 15 << 20])
        with stopped(s3):
            time.sleep(2)  # the stall itself
        file.write(body[15 << 20 :])
    path.rename(path.with_suffix(".zst"))
    assert mount.view.body("dump/x.vma.zst") == body


def test_unmounting_during_an_outage_ends(limited: Mount, s3: S3Server) -> None:
    with stopped(s3):
        begin = time.monotonic()
        limited.umount()
        assert time.monotonic() - begin < 60
    limited.start()
    assert ends(STAT, limited.path) == 0


def test_kill9_during_an_outage_and_a_mount_after_it(limited: Mount, s3: S3Server) -> None:
    path = limited.path / "dump/k.vma.dat"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20 << 20))
    with stopped(s3):
        limited.kill9()
    limited.start()
    eventually(lambda: Path(path).exists(), "what close promised is there")
    assert path.stat().st_size == (20 << 20) + 4
