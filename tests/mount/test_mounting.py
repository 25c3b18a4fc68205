"""Mounting by hand, from fstab and as a daemon; and the one clear line when it does not work."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import policy
from tests.checklogs import LogWatch
from tests.mount.conftest import with_tls
from tests.mount.harness import COMMAND, Mount, detach, environment, is_mountpoint, join_options
from tests.s3server import S3Server

pytestmark = pytest.mark.mount


class Attempt:
    """`s3fsx mount` as a user types it, without --foreground: options and environment can be changed before ``run``."""

    def __init__(self, server: S3Server, bucket: str, home: Path, watch: LogWatch) -> None:
        self.bucket = bucket
        self.source = f"s3://{bucket}/pve/"
        self.directory = home / "mnt"
        self.directory.mkdir(parents=True)
        self.watch = watch
        watch.follow(home / "log")
        self.environment = environment(server)
        self.options: dict[str, object] = {
            "endpoint": server.endpoint,
            "cache_dir": home / "cache",
            "state_dir": home / "state",
            "runtime_dir": home / "run",
            "log_file": home / "log",
            "connect_timeout": "2s",
            "read_timeout": "2s",
            "metadata_deadline": "5s",
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """The command with the options; a daemon closes its inherited descriptors, or this would wait for its end."""
        return subprocess.run(
            [*command, self.source, str(self.directory), "-o", join_options(self.options)],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd="/",
            timeout=90,
            check=False,
        )

    def mount(self) -> subprocess.CompletedProcess[str]:
        return self.run(*COMMAND, "mount")

    def refused(self, *words: str) -> None:
        """Exit status not 0, nothing mounted, and one line that has all the words."""
        self.watch.expect(r"", optional=True)  # the log says it, too
        done = self.mount()
        assert done.returncode not in (0, -9), done
        lines = (done.stdout + done.stderr).strip().splitlines()
        assert len(lines) == 1, lines
        assert all(word.lower() in lines[0].lower() for word in words), lines[0]
        assert not is_mountpoint(self.directory)


@pytest.fixture
def attempt(s3: S3Server, tmp_path: Path, log_watch: LogWatch) -> Iterator[Attempt]:
    bucket = s3.make_bucket("cli")
    policy.grant(s3, bucket, "pve/")
    made = Attempt(s3, bucket, tmp_path, log_watch)
    try:
        yield made
    finally:
        detach(made.directory)


def test_daemon_mounts_shows_its_status_and_unmounts(attempt: Attempt) -> None:
    done = attempt.mount()
    assert done.returncode == 0, done
    assert is_mountpoint(attempt.directory)
    (attempt.directory / "snippets/x").write_text("x")
    variables = {**attempt.environment, "S3FSX_RUNTIME_DIR": str(attempt.options["runtime_dir"])}
    status = subprocess.run(
        [*COMMAND, "status", "--json", str(attempt.directory)],
        capture_output=True,
        text=True,
        env=variables,
        timeout=30,
        check=False,
    )
    assert status.returncode == 0, status
    assert json.loads(status.stdout)[str(attempt.directory)]["pid"] > 0
    done = subprocess.run(
        [*COMMAND, "umount", str(attempt.directory)],
        capture_output=True,
        text=True,
        env=variables,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done
    assert not is_mountpoint(attempt.directory)


def test_a_mount_while_the_one_before_has_not_ended(attempt: Attempt) -> None:
    """Busy, then detached: the daemon lives on for the open file; the next mount names it, with exit code 1."""
    assert attempt.mount().returncode == 0
    variables = {**attempt.environment, "S3FSX_RUNTIME_DIR": str(attempt.options["runtime_dir"])}

    def s3fsx(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, env=variables, timeout=90, check=False
        )

    with (attempt.directory / "snippets/x").open("w"):
        busy = s3fsx("umount", str(attempt.directory))
        assert busy.returncode == 1, busy
        assert f"fuser -vm {attempt.directory} shows which" in busy.stderr
        status = json.loads(s3fsx("status", "--json").stdout)
        assert s3fsx("umount", "--lazy", str(attempt.directory)).returncode == 0
        attempt.watch.expect(r"", optional=True)
        again = attempt.mount()
        assert again.returncode == 1, again
        pid = status[str(attempt.directory)]["pid"]
        assert f"pid {pid} is still publishing what was written to {attempt.directory}" in again.stderr
        assert len(again.stderr.splitlines()) == 1
    assert attempt.mount().returncode == 0


def test_wrong_key(attempt: Attempt) -> None:
    attempt.environment["AWS_ACCESS_KEY_ID"] = "NOSUCHKEY00000000000"
    attempt.refused("key")


def test_wrong_secret(attempt: Attempt) -> None:
    attempt.environment["AWS_SECRET_ACCESS_KEY"] = "wrong"
    attempt.refused("secret")


def test_no_credentials(attempt: Attempt) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del attempt.environment[name]
    attempt.environment |= {"HOME": str(attempt.directory), "AWS_EC2_METADATA_DISABLED": "true"}
    attempt.refused("credentials")


def test_a_user_without_rights(attempt: Attempt, s3: S3Server) -> None:
    policy.revoke(s3, attempt.bucket)
    attempt.refused("denied")


def test_keys_that_may_only_read(attempt: Attempt, s3: S3Server) -> None:
    policy.grant_reading(s3, attempt.bucket, "pve/")
    s3.view(attempt.bucket, "pve/").put("dump/x", b"backup")
    attempt.refused("these keys may not write below pve/", "-o ro")
    attempt.options["ro"] = True
    done = attempt.mount()
    assert done.returncode == 0, done
    assert os.listdir(attempt.directory / "dump") == ["x"]
    assert (attempt.directory / "dump/x").read_bytes() == b"backup"
    assert not (attempt.directory / "dump/x.notes").exists()


def test_no_bucket(attempt: Attempt) -> None:
    attempt.source = "s3://no-such-bucket-here/pve/"
    attempt.refused("bucket 'no-such-bucket-here' does not exist at http", "create it")
    assert not any(os.path.exists(str(attempt.options[name])) for name in ("state_dir", "cache_dir"))


def test_a_full_state_directory_is_tried_again(attempt: Attempt, tmp_path: Path) -> None:
    """systemd restarts after exit code 1, and not after 2."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)], check=True, timeout=30)
    try:
        (small / "ballast").write_bytes(bytes(12 << 10))
        attempt.options["state_dir"] = small
        attempt.watch.expect(r"", optional=True)
        done = attempt.mount()
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done
    finally:
        subprocess.run(["umount", str(small)], check=True, timeout=30)


def test_no_endpoint(attempt: Attempt) -> None:
    with socket.socket() as closed:  # bound and not listening: refused, and nobody else takes the port meanwhile
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        attempt.options["endpoint"] = f"http://127.0.0.1:{port}"
        attempt.refused(f"127.0.0.1:{port}")


def test_an_endpoint_that_says_nothing(attempt: Attempt) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        attempt.options["endpoint"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begin = time.monotonic()
        attempt.refused(f"127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - begin < 60


def test_busy_mountpoint(mount: Mount, attempt: Attempt) -> None:
    own, attempt.directory = attempt.directory, mount.path
    done = attempt.mount()
    attempt.directory = own  # or the fixture would detach the other's
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(mount.path) in done.stderr
    assert os.listdir(mount.path / "dump") == []


def test_mountpoint_that_is_not_there(attempt: Attempt) -> None:
    attempt.directory.rmdir()
    attempt.refused(str(attempt.directory))


def test_credentials_file_that_others_can_read(attempt: Attempt, s3: S3Server, tmp_path: Path) -> None:
    path = tmp_path / "credentials.toml"
    path.write_text(f'access_key = "{s3.alt_access_key}"\nsecret_key = "{s3.alt_secret_key}"\n')
    attempt.options["credentials_file"] = path
    path.chmod(0o644)
    attempt.refused(str(path), "600")
    path.chmod(0o600)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del attempt.environment[name]
    assert attempt.mount().returncode == 0


def test_unknown_option_names_the_nearest(attempt: Attempt) -> None:
    attempt.options["endpont"] = "x"
    attempt.refused("endpont", "endpoint")


def test_bad_values_say_what_is_allowed(attempt: Attempt) -> None:
    attempt.options["part_size"] = "1MiB"
    attempt.refused("part_size", "5MiB")


def test_plain_http_to_a_tls_port(attempt: Attempt, s3: S3Server) -> None:
    attempt.options["endpoint"] = with_tls(s3).replace("https://", "http://")
    attempt.refused("should the endpoint be https://?")


def test_tls_with_an_own_authority(attempt: Attempt, s3: S3Server) -> None:
    attempt.options["endpoint"] = with_tls(s3)
    attempt.refused("certificate")
    attempt.options["ca_file"] = s3.ca_file
    done = attempt.mount()
    assert done.returncode == 0, done
    (attempt.directory / "snippets/tls").write_text("x")
    assert s3.client.head_object(Bucket=attempt.bucket, Key="pve/snippets/tls")["ContentLength"] == 1


@pytest.fixture
def helper() -> Iterator[None]:
    """mount(8) looks for /sbin/mount.TYPE only; what is there already stays."""
    installed = Path("/sbin/mount.s3fsx")
    if installed.exists():
        yield
        return
    command = Path(sys.executable).with_name("mount.s3fsx")
    assert command.exists(), f"{command} is missing: pip install -e ."
    installed.symlink_to(command)
    try:
        yield
    finally:
        installed.unlink()


@pytest.mark.usefixtures("helper")
def test_as_fstab_does_it(attempt: Attempt) -> None:
    """mount -t s3fsx with what people have in fstab; ro, uid, gid and umask mean something."""
    attempt.options |= {"_netdev": True, "nofail": True, "noatime": True, "uid": 33, "gid": 34, "umask": "027"}
    attempt.options |= {"allow_other": True, "x-systemd.requires": "network-online.target"}
    done = attempt.run("mount", "-t", "s3fsx")
    assert done.returncode == 0, done
    line = next(line for line in Path("/proc/mounts").read_text().splitlines() if f" {attempt.directory} " in line)
    assert line.split()[2] == "fuse.s3fsx"
    again = attempt.run("mount", "-t", "s3fsx")  # as mount -a does; it must not fail the boot
    assert (again.returncode, again.stderr) == (0, "")
    (attempt.directory / "snippets/f").write_text("x")
    status = (attempt.directory / "snippets").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (33, 34, 0o750)
    subprocess.run(["umount", str(attempt.directory)], check=True, timeout=60)
    attempt.options["ro"] = True
    assert attempt.run("mount", "-t", "s3fsx").returncode == 0
    assert (attempt.directory / "snippets/f").read_text() == "x"
    with pytest.raises(OSError, match="Read-only"):
        (attempt.directory / "snippets/g").write_text("x")


def test_sigterm_unmounts(mount: Mount) -> None:
    """systemctl stop."""
    (mount.path / "snippets/x").write_text("x")
    assert mount.process is not None
    mount.process.terminate()
    assert mount.process.wait(60) == 0
    assert not is_mountpoint(mount.path)
    assert mount.view.body("snippets/x") == b"x"
    mount.kill9()  # nothing left to kill: it tells the harness
    mount.start()
    assert (mount.path / "snippets/x").read_text() == "x"


def test_help_needs_nothing() -> None:
    for arguments in (["--help"], ["mount", "--help"], ["umount", "--help"], ["status", "--help"], ["check", "--help"]):
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done
        assert "usage" in done.stdout.lower()
