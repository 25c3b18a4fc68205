"""The mount's process: foreground, signals, and the daemon that reports. Daemons run from a small program of their own,
because pytest has threads and a fork takes none of them along."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from s3fsx.configuration.settings import Settings
from s3fsx.errors import AccessDenied, BucketMissing, ConfigError, ConnectionFailed, S3fsxError
from s3fsx.service import daemon, launch

ROOT = Path(__file__).parents[2]

# What a mount does, by its first word. {LOG} is the directory of the test.
PROGRAM = """
import os, sys, time
from s3fsx.service import launch, daemon
from s3fsx.errors import AccessDenied, ConfigError, S3fsxError
from s3fsx.configuration.settings import Settings
import trio
what, directory = sys.argv[1], sys.argv[2]

def note(name, text=""):
    with open(os.path.join(directory, name), "w") as file:
        file.write(text)

async def run(settings, mountpoint, *, ready):
    if what == "denied":
        raise AccessDenied("the key is unknown")
    if what == "input":
        raise ConfigError("prefix: no")
    if what == "bug":
        raise KeyError("oops")
    if what == "silent":
        note("pid", str(os.getpid()))
        await trio.sleep(60)
    if what == "dies":
        os._exit(9)
    if what == "chatty":
        os.write(2, b"fuse: explains itself\\n")
        raise S3fsxError("cannot be mounted")
    note("pid", str(os.getpid()))
    ready()
    print("lost")
    os.write(2, b"libfuse: into the log\\n")
    try:
        if what == "late":
            raise S3fsxError("much later")
        await trio.sleep_forever()
    finally:
        note("unmounted")

if what == "silent":
    launch.MIN_START, launch.START_REQUESTS = 0.5, 0
if what == "badlog":
    settings = Settings(log_file="/nonexistent/x")
else:
    settings = Settings(bucket="b", endpoint="http://e", log_file=os.path.join(directory, "log"))
sys.exit(launch.background(lambda: run, settings, "/mnt/x"))
"""


def start(what: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Waits for the end of output, too: a daemon that kept stdout or stderr open would block it."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, what, str(directory)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


def gone(pid: int, limit: float = 10.0) -> bool:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z"):
            return True  # a container without an init that reaps
        time.sleep(0.02)
    return False


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[int]:
    """The pid of a daemon whose mount works."""
    done = start("works", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = int((tmp_path / "pid").read_text())
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_daemon_stays_after_the_command_and_sigterm_unmounts(mounted: int, tmp_path: Path) -> None:
    assert not gone(mounted, 0.1)
    assert os.getsid(mounted) not in (mounted, os.getsid(0))  # cannot get a terminal back, and left ours
    assert os.readlink(f"/proc/{mounted}/cwd") == "/"
    assert [os.readlink(f"/proc/{mounted}/fd/{n}") for n in (0, 1)] == [os.devnull] * 2
    os.kill(mounted, signal.SIGHUP)
    assert not gone(mounted, 0.2)
    os.kill(mounted, signal.SIGTERM)
    assert gone(mounted)
    assert (tmp_path / "unmounted").exists()
    lines = (tmp_path / "log").read_text().splitlines()
    assert [re.sub(r"^\S+ ", "", line, count=1) for line in lines if " INFO " in line] == [
        "INFO launch: mounted on /mnt/x",
        "INFO launch: SIGTERM: unmounting",
        "INFO launch: unmounted /mnt/x",
    ]
    assert "libfuse: into the log" in lines
    assert "lost" not in lines


@pytest.mark.parametrize(
    ("what", "code", "printed"),
    [
        ("denied", 1, "s3fsx: s3://b/ at http://e: the key is unknown\n"),
        ("input", 2, "s3fsx: prefix: no\n"),
        ("bug", 1, "s3fsx: unexpected KeyError: 'oops' (a bug; --debug shows where)\n"),
        ("dies", 1, "s3fsx: the daemon ended without a word; its log: LOG\n"),
        ("badlog", 2, "s3fsx: log_file /nonexistent/x: No such file or directory\n"),
        ("chatty", 1, "fuse: explains itself\ns3fsx: cannot be mounted\n"),
    ],
)
def test_a_daemon_that_cannot_start_says_why(what: str, code: int, printed: str, tmp_path: Path) -> None:
    done = start(what, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", printed.replace("LOG", str(tmp_path / "log")))
    log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert ("Traceback" in log) == (what == "bug")
    assert ("ERROR" in log) == (what not in ("dies", "badlog"))


def test_a_daemon_that_says_nothing_is_killed(tmp_path: Path) -> None:
    done = start("silent", tmp_path)
    assert (done.returncode, done.stderr) == (1, "s3fsx: no answer from the daemon within 0 s\n")
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_failure_after_the_start_is_in_the_log(tmp_path: Path) -> None:
    assert start("late", tmp_path).returncode == 0
    assert gone(int((tmp_path / "pid").read_text()))
    assert "ERROR launch: much later" in (tmp_path / "log").read_text()


FOREGROUND = """
import os, signal, sys
import trio
from s3fsx.service import launch
from s3fsx.errors import S3fsxError
from s3fsx.configuration.settings import Settings

async def run(settings, mountpoint, *, ready):
    if sys.argv[1] == "denied":
        raise ExceptionGroup("a nursery", [S3fsxError("the key is unknown")])
    if sys.argv[1] == "early":
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()
    ready()
    if sys.argv[1] == "umount":
        return
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    await trio.sleep_forever()

sys.exit(launch.foreground(run, Settings(log_level="error", **eval(sys.argv[2])), "/mnt/x"))
"""


@pytest.mark.parametrize(
    ("what", "code", "printed"),
    [
        ("umount", 0, ""),
        ("SIGTERM", 0, ""),
        ("SIGINT", 0, ""),
        ("denied", 1, "s3fsx: the key is unknown\n"),
        ("early", 1, "s3fsx: ended by a signal before it was mounted\n"),
    ],
)
def test_foreground(what: str, code: int, printed: str, tmp_path: Path) -> None:
    for more in ({}, {"log_file": str(tmp_path / "log")}):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", FOREGROUND, what, repr(more)],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (code, "", printed)
    assert ("the key is unknown" in (tmp_path / "log").read_text()) == (what == "denied")


def test_systemd_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(5)
        assert daemon.notify_systemd("READY=1", {"NOTIFY_SOCKET": path})
        assert manager.recv(100) == b"READY=1"
    assert not daemon.notify_systemd("READY=1", {"NOTIFY_SOCKET": path})
    assert not daemon.notify_systemd("READY=1", {})
    assert not daemon.notify_systemd("READY=1", {"NOTIFY_SOCKET": "vsock:2:1"})


def test_no_core_file_and_no_tracing() -> None:
    program = """
        import ctypes, resource
        from s3fsx.service.daemon import keep_private
        keep_private()
        print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # 3: PR_GET_DUMPABLE
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout == "(0, 0) 0\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("two\nlines"), "two lines"),
        (AccessDenied(), "AccessDenied"),
        (ExceptionGroup("g", [ValueError("x"), ExceptionGroup("h", [S3fsxError("inner")])]), "inner"),
        (ExceptionGroup("g", [ValueError("x\ny")]), "unexpected ValueError: x y (a bug; --debug shows where)"),
        (RuntimeError(), "unexpected RuntimeError (a bug; --debug shows where)"),
    ],
)
def test_errors_are_one_line(error: BaseException, line: str) -> None:
    assert launch.describe(error) == line


def test_the_time_to_start_follows_the_deadlines() -> None:
    assert launch.start_limit(Settings()) == 120
    assert launch.start_limit(Settings(metadata_deadline=1)) == 60


async def test_cancelling_reaches_the_mount() -> None:
    ended: list[str] = []

    async def run(settings: Settings, mountpoint: str, *, ready: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()
        finally:
            ended.append(mountpoint)

    await launch._until_signal(run, Settings(), "/mnt/x", lambda: None)
    assert ended == ["/mnt/x"]


def test_a_store_that_cannot_be_used_is_explained() -> None:
    here = Settings(bucket="bbb", prefix="p/", endpoint="http://e:1")
    missing = "bucket 'bbb' does not exist at http://e:1: create it, or check bucket and endpoint"
    assert launch.explain(BucketMissing("LIST p/: 404 NoSuchBucket"), here) == missing
    step = S3fsxError("connect and list: LIST p/: 404 NoSuchBucket")
    step.__cause__ = BucketMissing()
    assert launch.explain(step, here) == missing  # as s3fsx check has it
    assert launch.explain(AccessDenied("no"), here) == "s3://bbb/p/ at http://e:1: no"
    lost = ConnectionFailed("LIST: connection lost: Remote end closed connection without response")
    assert launch.explain(lost, here) == f"s3://bbb/p/ at http://e:1: {lost} (should the endpoint be https://?)"
    old = Settings(bucket="My_Bucket", endpoint="http://e:1")
    assert "does not exist at http://e:1, which may want a name of 3 to 63 lower-case" in launch.explain(
        BucketMissing(), old
    )
    amazon = Settings(bucket="bbb")
    assert "at Amazon S3 us-east-1: create it" in launch.explain(BucketMissing(), amazon)
