"""A real mount, seen by those who should see nothing: where secrets could show up, and what programs could try."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.checklogs import LogWatch
from tests.mount.harness import COMMAND, Mount, detach, environment, eventually, is_mountpoint
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.rgw]

NOBODY = 65534


# Secrets.


def run(*arguments: str, env: dict[str, str]) -> str:
    done = subprocess.run([*COMMAND, *arguments], env=env, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


def bare(server: S3Server, **more: str) -> dict[str, str]:
    return {k: v for k, v in environment(server, **more).items() if "AWS_" not in k or "METADATA" in k}


@pytest.mark.parametrize("given", ["file", "S3FSX", "AWS"])
def test_the_secret_is_nowhere(s3: S3Server, tmp_path: Path, given: str) -> None:
    """A daemon at log level debug, from its start until it is killed by SIGSEGV."""
    bucket, home, mnt = s3.make_bucket("secret"), tmp_path / "home", tmp_path / "mnt"
    mnt.mkdir()
    settings = {
        "bucket": bucket,
        "endpoint": s3.endpoint,
        "log_file": str(home / "log"),
        "log_level": "debug",
        **{f"{name}_dir": str(home / name) for name in ("cache", "state", "runtime")},
    }
    keys = {"access_key": s3.access_key, "secret_key": s3.secret_key}
    env = bare(s3, S3FSX_CONFIG_DIR=str(tmp_path))
    if given == "file":
        settings |= keys
    elif given == "S3FSX":
        env |= {f"S3FSX_{name.upper()}": value for name, value in keys.items()}
    else:
        env |= {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    home.mkdir()
    toml = tmp_path / "mine.toml"
    toml.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    toml.chmod(0o600)
    secret = s3.secret_key
    before = os.umask(0)
    try:
        said = run("mount", "mine", str(mnt), "--debug", env=env)
    finally:
        os.umask(before)
    try:
        assert is_mountpoint(mnt), said
        where = ("-o", f"runtime_dir={settings['runtime_dir']}")
        status = run("status", "--json", *where, env=env)
        pid = json.loads(status)[str(mnt)]["pid"]
        (mnt / "dump").mkdir(exist_ok=True)
        (mnt / "snippets" / "a.sh").write_text("x")
        attributes = [os.getxattr(mnt / "snippets" / "a.sh", name) for name in os.listxattr(mnt / "snippets" / "a.sh")]
        assert len(attributes) == 3
        proc = Path(f"/proc/{pid}")
        places = {
            "output": said,
            "status": status,
            "status for people": run("status", *where, env=env),
            "config show": run("config", "show", "mine", env=env),
            "check": run("check", "mine", env=env),
            "mount": subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout,
            "df": subprocess.run(["df", str(mnt)], capture_output=True, text=True, check=True).stdout,
            "a mistake": run("mount", "mine", "/nowhere", env=env) + run("mount", "mine", "/", env=env),
            "attributes": repr(attributes),
            **{n: (proc / n).read_bytes().decode(errors="replace") for n in ("cmdline", "mountinfo", "status", "comm")},
        }
        if given != "AWS":  # botocore reads those variables when it likes
            places["environ"] = (proc / "environ").read_bytes().decode(errors="replace")
        assert stat.S_IMODE((proc / "environ").stat().st_mode) == 0o400
        assert (proc / "environ").stat().st_uid == 0
        assert re.search(r"Max core file size\s+0\s+0", (proc / "limits").read_text())
        places |= {str(p): p.read_bytes().decode(errors="replace") for p in home.rglob("*") if p.is_file()}
        assert any("journal.sqlite" in name for name in places)
        assert any("cache.db" in name for name in places)
        assert "DEBUG" in places[str(home / "log")]
        assert [name for name, text in places.items() if secret in text] == []
        for path in home.rglob("*"):
            assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path
        cores = set(Path("/").glob("core*")) | set(home.rglob("core*"))
        os.kill(pid, signal.SIGSEGV)
        eventually(lambda: not proc.exists(), "the daemon is gone")
        assert set(Path("/").glob("core*")) | set(home.rglob("core*")) == cores
    finally:
        detach(mnt)


def test_a_token_and_a_proxy_s_password_are_in_no_message(s3: S3Server, tmp_path: Path) -> None:
    """Nobody is there to be asked; what is said about that names neither."""
    env = bare(s3, S3FSX_CONFIG_DIR=str(tmp_path))
    env |= {"S3FSX_ACCESS_KEY": "AK", "S3FSX_SECRET_KEY": "hunter2", "S3FSX_SESSION_TOKEN": "hunter3"}
    env |= {"S3FSX_PROXY": "http://user:hunter4@127.0.0.1:1"}
    options = "endpoint=http://s3.example.test,attempts=1,metadata_deadline=2s"
    options += "".join(f",{name}_dir={tmp_path / name}" for name in ("cache", "state", "runtime"))
    (tmp_path / "mnt").mkdir()
    said = run("check", "s3://bucket", "-o", options, "--debug", env=env)
    said += run("mount", "s3://bucket", str(tmp_path / "mnt"), "-o", options, "-f", "--debug", env=env)
    said += run("config", "show", "s3://bucket", "-o", options, env=env)
    assert "the proxy cannot be reached" in said
    assert "not https" in said
    assert not re.search("hunter[234]", said)


# Programs on the mount.


@pytest.fixture(scope="module")
def shared(s3: S3Server) -> Iterator[Mount]:
    """Where other users can go: pytest's own directories are closed to them."""
    with tempfile.TemporaryDirectory(prefix="s3fsx-") as home:
        os.chmod(home, 0o755)
        with Mount(s3, s3.make_bucket("programs"), "pve/", Path(home), LogWatch(), {"list_ttl": "0.2s"}) as made:
            yield made


@pytest.fixture
def place(shared: Mount, log_watch: LogWatch) -> Mount:
    log_watch.follow(shared.log_file)
    return shared


def fails(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


@pytest.mark.expect_log("more than 10000 parts")
def test_a_size_that_no_object_can_have_is_refused_at_once(place: Mount) -> None:
    """And not after hours of zeros."""
    path = place.path / "sparse"
    path.write_bytes(b"small")
    fd = os.open(path, os.O_RDWR)
    assert fails(lambda: os.ftruncate(fd, 1 << 62)) == "EFBIG"
    os.close(fd)
    fd = os.open(path, os.O_RDWR)
    assert fails(lambda: os.pwrite(fd, b"x", 1 << 50)) == "EFBIG"
    fails(lambda: os.close(fd))
    assert path.read_bytes() == b"small"
    path.unlink()


def within(seconds: float, call: Callable[[], object]) -> None:
    """The call ends, one way or another."""
    thread = threading.Thread(target=lambda: fails(call), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"


@pytest.mark.parametrize(
    "name",
    [b"\x01\x1f\x7f", b"a\nb", b"\x1b[31mred", b"-rf", b" ", b"a b ", b"%2e%2e", b"+&?#;", b"\\", b"'\"`$(id)",
     "é".encode(), "e\u0301".encode(), "\u202egnp".encode(), b"a" * 255, "ä".encode() * 127, b"...", b".s3fs"],
)  # fmt: skip
def test_any_name_that_linux_allows(place: Mount, name: bytes) -> None:
    path = os.path.join(os.fsencode(place.path), b"snippets", name)
    with open(path, "wb") as file:
        file.write(b"content")
    assert name in os.listdir(os.path.join(os.fsencode(place.path), b"snippets"))
    assert Path(os.fsdecode(path)).read_bytes() == b"content"
    os.unlink(path)
    assert fails(lambda: os.stat(path)) == "ENOENT"
    assert all(line.isprintable() for line in place.log().splitlines())


@pytest.mark.parametrize(
    ("name", "error"), [(b"\xff\xfe", "EILSEQ"), (b"\xed\xa0\x80", "EILSEQ"), (b"a" * 256, "ENAMETOOLONG")]
)
def test_names_that_are_none(place: Mount, name: bytes, error: str) -> None:
    path = os.path.join(os.fsencode(place.path), name)
    assert fails(lambda: os.stat(path)) == error
    assert fails(lambda: os.open(path, os.O_CREAT | os.O_WRONLY)) == error
    assert fails(lambda: os.mkdir(path)) == error


def test_what_belongs_to_s3fsx_cannot_be_named(place: Mount) -> None:
    place.view.put(".s3fsx/journal", b"ours")
    hidden = place.path / ".s3fsx"
    assert fails(lambda: hidden.stat()) == "ENOENT"
    assert fails(lambda: (hidden / "journal").read_bytes()) == "ENOENT"
    assert fails(lambda: hidden.mkdir()) == "EPERM"
    assert fails(lambda: hidden.write_bytes(b"")) == "EPERM"
    (place.path / "mine").write_bytes(b"1")
    assert fails(lambda: (place.path / "mine").rename(hidden)) == "EPERM"
    assert ".s3fsx" not in os.listdir(place.path)
    assert place.view.body(".s3fsx/journal") == b"ours"
    (place.path / "mine").unlink()


def test_keys_that_lead_elsewhere_are_hidden_and_counted(place: Mount) -> None:
    directory = place.path / "odd"
    keys = ["../../../etc/passwd", "/etc/passwd", "a//b", "./c", "../d", "e/../../f", "a\x00b", "x" * 300, "fine"]
    for key in keys:
        try:
            place.view.put(f"odd/{key}", b"x")
        except Exception:  # RGW itself refuses some
            continue
    eventually(lambda: directory.is_dir(), "the directory is seen")
    assert set(os.listdir(directory)) <= {"fine", "a", "e"}
    assert "fine" in os.listdir(directory)
    env = environment(place.server)
    document = json.loads(run("status", "--json", "-o", f"runtime_dir={place.options['runtime_dir']}", env=env))
    assert document[str(place.path)]["hidden_keys"] >= 1


def test_no_program_becomes_root(place: Mount) -> None:
    place.view.put("snippets/planted", b"#!/bin/sh\n", mode=str(stat.S_IFREG | 0o6755), uid="0", gid="0")
    planted, own = place.path / "snippets" / "planted", place.path / "snippets" / "own"
    eventually(planted.exists, "it is seen")
    assert stat.S_IMODE(planted.stat().st_mode) == 0o755
    fd = os.open(own, os.O_CREAT | os.O_WRONLY, 0o6755)
    os.close(fd)
    own.chmod(0o6755)
    assert stat.S_IMODE(own.stat().st_mode) & 0o6000 == 0
    assert int(place.view.metadata("snippets/own")["mode"]) & 0o6000 == 0
    for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
        assert fails(lambda kind=kind: os.mknod(place.path / "node", kind | 0o666, os.makedev(1, 3))) == "EPERM"  # type: ignore[misc]
    line = next(text for text in Path("/proc/self/mountinfo").read_text().splitlines() if str(place.path) in text)
    assert {"nosuid", "nodev"} <= set(line.split()[5].split(","))


AS_NOBODY = """
import errno, os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
def fails(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""
d = sys.argv[1]
print(fails(os.stat, d + "/closed"), fails(open, d + "/closed", "rb"), fails(open, d + "/closed", "r+b"),
      fails(open, d + "/readable", "r+b"), fails(os.chmod, d + "/closed", 0o777), fails(os.unlink, d + "/closed"),
      fails(os.truncate, d + "/readable", 0), fails(os.mkdir, d + "/new"), fails(os.rename, d + "/closed", d + "/mine"),
      fails(os.utime, d + "/readable", (1, 1)), fails(os.chown, d + "/readable", 65534, 65534), sep=",")
print(open(d + "/readable").read())
"""


def test_modes_mean_what_they_say_to_other_users(place: Mount) -> None:
    """allow_other with default_permissions: the kernel checks."""
    for name, mode in (("closed", 0o640), ("readable", 0o644)):
        (place.path / "snippets" / name).write_text(name)
        (place.path / "snippets" / name).chmod(mode)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(place.path / "snippets")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    refused, content = done.stdout.splitlines()
    assert refused == ",EACCES,EACCES,EACCES,EPERM,EACCES,EACCES,EACCES,EACCES,EPERM,EPERM"
    assert content == "readable"
    assert (place.path / "snippets" / "closed").read_text() == "closed"


def mapped(fd: int) -> None:
    with mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as view:
        view[0] = 1
        view.flush()


CALLS: dict[str, Callable[[int], object]] = {
    "ioctl": lambda fd: fcntl.ioctl(fd, 0x5401, b"\0" * 64),
    "FS_IOC_SETFLAGS": lambda fd: fcntl.ioctl(fd, 0x40086602, b"\0" * 8),
    "fallocate": lambda fd: os.posix_fallocate(fd, 0, 1 << 20),
    "mmap": mapped,
    "flock": lambda fd: [fcntl.flock(fd, how) for how in (fcntl.LOCK_EX, fcntl.LOCK_UN)],  # type: ignore[func-returns-value]
    "lockf": lambda fd: (fcntl.lockf(fd, fcntl.LOCK_EX), fcntl.lockf(fd, fcntl.LOCK_UN)),
    "SEEK_HOLE": lambda fd: os.lseek(fd, 0, os.SEEK_HOLE),
    "copy_file_range": lambda fd: os.copy_file_range(fd, fd, 100, 0, 4096),
    "sendfile": lambda fd: os.sendfile(fd, fd, 0, 100),
    "setxattr": lambda fd: os.setxattr(fd, "user.x", b"y"),
    "lease": lambda fd: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK),
    "negative offset": lambda fd: os.pread(fd, 1, (1 << 63) - 1),
    "huge truncate": lambda fd: os.ftruncate(fd, 1 << 62),
}


@pytest.mark.expect_log("more than 10000 parts", optional=True)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_unusual_calls_end(place: Mount, call: Callable[[int], object]) -> None:
    path = place.path / "unusual"
    path.write_bytes(bytes(8192))
    fd = os.open(path, os.O_RDWR)
    try:
        within(30, lambda: call(fd))
    finally:
        within(30, lambda: os.close(fd))
    within(30, path.unlink)
    assert os.statvfs(place.path).f_blocks > 0


def test_ten_thousand_open_files(place: Mount) -> None:
    path = place.path / "opened"
    path.write_bytes(b"content")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 11_000), max(limits[1], 11_000)))
    descriptors: list[int] = []
    try:
        for _ in range(10_000):
            descriptors.append(os.open(path, os.O_RDONLY))  # noqa: PERF401 (those that are open are closed below)
        assert {os.pread(fd, 7, 0) for fd in descriptors[::1000]} == {b"content"}
    finally:
        for fd in descriptors:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(os.listdir(f"/proc/{place.pid}/fd")) < 100
    path.unlink()


def test_a_directory_is_read_while_it_grows(place: Mount) -> None:
    directory = place.path / "growing"
    directory.mkdir()
    names = [f"f{n:04}" for n in range(60)]
    done: list[str] = []

    def create(mine: list[str]) -> None:
        for name in mine:
            (directory / name).write_bytes(b"")
            done.append(name)

    threads = [threading.Thread(target=create, args=(names[n::4],), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        before = list(done)
        seen = os.listdir(directory)
        assert len(seen) == len(set(seen))
        assert set(before) <= set(seen)
    assert sorted(os.listdir(directory)) == names
