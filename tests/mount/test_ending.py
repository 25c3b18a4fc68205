"""How a mount ends: by umount and SIGTERM while S3 is down, by kill -9, and what stands in the way of the next one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MakeMount
from tests.mount.harness import COMMAND, ROOT, Mount, environment, eventually, is_mountpoint, join_options
from tests.mount.test_outage import LIMITS, stopped
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.expect_log(r"", optional=True)]

BACKUP = b"\x28\xb5\x2f\xfd" + bytes(20 << 20)
UNIT = ROOT / "contrib/systemd/s3fsx@.service"
ENDS = 180.0  # seconds; what an ending may take in an outage: 40 measured, 65 on a machine with a load of 20


def backup(mount: Mount, number: int) -> Path:
    """Closed, and waiting for its rename."""
    path = mount.path / f"dump/vzdump-qemu-{number}-2026_11_20-13_15_26.vma.dat"
    path.write_bytes(BACKUP)
    return path


def s3fsx(mount: Mount, *arguments: str, limit: float = ENDS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments, str(mount.path), "-o", f"runtime_dir={mount.options['runtime_dir']}"],
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
        env=environment(mount.server),
    )


def gone(mount: Mount) -> None:
    """The daemon has ended by itself."""
    assert mount.process is not None
    assert mount.process.wait(ENDS) == 0, mount.output()
    assert not is_mountpoint(mount.path)
    mount.kill9()  # nothing left to kill: it tells the harness


def intact(mount: Mount, *paths: Path) -> None:
    for path in paths:
        assert path.read_bytes() == BACKUP
        path.unlink()
    eventually(lambda: mount.view.uploads() == [], "nothing is left")


def test_s3fsx_umount_in_an_outage_says_what_is_left(make_mount: MakeMount, s3: S3Server) -> None:
    """With default deadlines."""
    mount = make_mount()
    one, two = backup(mount, 1), backup(mount, 2)
    with stopped(s3):
        done = s3fsx(mount, "umount")
        assert done.returncode == 1
        assert re.search(
            rf"^s3fsx: {mount.path}: unmounted; S3 is down: 2 files \(40\.0 MiB\) were closed but not "
            rf"yet under a name in the bucket, and kept: .* the journal in {mount.options['state_dir']} knows it, and "
            rf"the next mount has the files again: dump/{one.name} \(20\.0 MiB\), dump/{two.name}",
            done.stderr,
        )
        assert "S3 is down: 2 files" in mount.log()
        gone(mount)
    mount.start()
    intact(mount, one, two)
    done = s3fsx(mount, "umount")
    assert (done.returncode, done.stderr) == (0, "")
    gone(mount)
    mount.start()


def test_plain_umount_in_an_outage(make_mount: MakeMount, s3: S3Server) -> None:
    mount = make_mount(**LIMITS)
    path = backup(mount, 3)
    with stopped(s3):
        mount.umount()
        assert f"dump/{path.name} (20.0 MiB)" in mount.log()
    mount.start()
    intact(mount, path)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGKILL])
def test_sigterm_in_an_outage_with_many_files(make_mount: MakeMount, s3: S3Server, second: signal.Signals) -> None:
    """A second SIGTERM changes nothing; SIGKILL may come at any time, as systemd sends it after TimeoutStopSec."""
    mount = make_mount(**LIMITS)
    paths = [backup(mount, number) for number in range(10, 18)]
    writing = (mount.path / "dump/vzdump-qemu-9-2026_11_20-13_15_26.vma.dat").open("wb", buffering=0)
    writing.write(BACKUP)
    with stopped(s3):
        assert mount.process is not None
        mount.process.terminate()
        time.sleep(1)  # it is draining
        mount.process.send_signal(second)
        with contextlib.suppress(OSError):
            writing.close()
        if second == signal.SIGTERM:
            gone(mount)
            assert "8 files" in mount.log()
        else:
            mount.kill9()
    mount.start()
    intact(mount, *paths)
    assert mount.view.keys() == []


def test_sigterm_publishes_what_waits(mount: Mount) -> None:
    paths = [backup(mount, number) for number in range(20, 24)]
    assert mount.process is not None
    mount.process.terminate()
    gone(mount)
    assert mount.view.keys() == [f"dump/{path.name}" for path in paths]
    mount.start()
    intact(mount, *paths)


def test_s3fsx_umount_names_what_was_never_renamed(mount: Mount) -> None:
    """In the bucket, so no trouble, but Proxmox shows nothing of it."""
    path = backup(mount, 30)
    deleted = backup(mount, 31)
    deleted.unlink()
    done = s3fsx(mount, "umount")
    assert done.returncode == 0
    assert re.fullmatch(
        rf"s3fsx: {mount.path}: unmounted; 1 file \(20\.0 MiB\) was never renamed, and published under the "
        rf"temporary name, .*: dump/{path.name} \(20\.0 MiB\)\n",
        done.stderr,
    )
    gone(mount)
    assert mount.view.keys() == [f"dump/{path.name}"]
    mount.start()
    intact(mount, path)


@contextlib.contextmanager
def user_of(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A program with its working directory and an open file in there."""
    script = "import sys; f = open('snippets/f'); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def leave_dead(mount: Mount) -> None:
    """kill -9, and nobody cleans up."""
    assert mount.process is not None
    mount.process.kill()
    mount.process.wait(30)
    with pytest.raises(OSError, match="Transport endpoint is not connected"):
        os.statvfs(mount.path)


@pytest.mark.parametrize("command", ["s3fsx mount", "s3fsx mount --foreground", "mount -t s3fsx"])
def test_a_dead_mount_does_not_stand_in_the_way(mount: Mount, command: str, tmp_path: Path) -> None:
    (mount.path / "snippets/f").write_text("x")
    with user_of(mount.path):
        leave_dead(mount)
        if command.endswith("--foreground"):
            mount._forget()  # the harness starts the next one in the foreground
            begin = mount.output_file.stat().st_size
            mount.start()
            eventually(lambda: "unmounted what" in mount.output_file.read_text()[begin:], "it says so")
            eventually(lambda: works(mount.path), "it is mounted anew")
        else:
            options = ["-o", join_options({**mount.options, "log_file": mount.log_file})]
            if command.startswith("mount"):
                helper = "from s3fsx.cli import mount_helper; import sys; sys.exit(mount_helper())"
                run = [sys.executable, "-c", helper, mount.source, str(mount.path), *options]
            else:
                run = [*COMMAND, "mount", mount.source, str(mount.path), *options]
            done = subprocess.run(
                run, capture_output=True, text=True, timeout=60, check=False, env=environment(mount.server)
            )
            assert (done.returncode, done.stderr.count("unmounted what an s3fsx that was killed")) == (0, 1), done
        assert (mount.path / "snippets/f").read_text() == "x"
        if not command.endswith("--foreground"):
            assert s3fsx(mount, "umount").returncode == 0
            mount.kill9()


def test_umount_of_a_dead_mount_in_use(mount: Mount) -> None:
    (mount.path / "snippets/f").write_text("x")
    with user_of(mount.path):
        leave_dead(mount)
        done = s3fsx(mount, "umount")
        assert (done.returncode, done.stderr) == (0, "")
        assert not is_mountpoint(mount.path)
    mount.kill9()


class Systemd:
    """What systemd does with the service's commands (systemd.service(5)): a small part, read from the unit itself."""

    def __init__(self, mount: Mount, directory: Path) -> None:
        self.values: dict[str, list[str]] = {}
        for line in UNIT.read_text().splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                self.values.setdefault(name, []).append(value)
        config = directory / "etc"
        config.mkdir()
        toml = "".join(f'{k} = "{v}"\n' for k, v in mount.options.items())
        (config / "node.toml").write_text(f'bucket = "{mount.bucket}"\nprefix = "{mount.prefix}"\n{toml}')
        binary = directory / "bin"
        binary.mkdir()
        (binary / "s3fsx").write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
        (binary / "s3fsx").chmod(0o755)
        self.env = environment(
            mount.server,
            MOUNTPOINT=str(mount.path),
            S3FSX_CONFIG_DIR=str(config),
            PATH=f"{binary}:{os.environ['PATH']}",
        )
        self.output = mount.output_file
        self.restarts = 0
        self.main: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, daemon=True)

    def command(self, name: str) -> list[list[str]]:
        """Words of each command: %i and ${VARIABLE} replaced, "-" before it and "$$" undone."""
        found = []
        for line in self.values[name]:
            words = re.findall(r"'[^']*'|\S+", line.lstrip("-"))
            found.append(
                [
                    w.strip("'")
                    .replace("%i", "node")
                    .replace("${MOUNTPOINT}", self.env["MOUNTPOINT"])
                    .replace("$$", "$")
                    for w in words
                ]
            )
        return found

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            for command in self.command("ExecStartPre"):
                subprocess.run(command, env=self.env, check=True, timeout=30)
            [start] = self.command("ExecStart")
            with self.output.open("ab") as output:
                self.main = subprocess.Popen(start, env=self.env, stdout=output, stderr=output)
            code = self.main.wait()
            status = str(code) if code >= 0 else signal.Signals(-code).name.removeprefix("SIG")
            for command in self.command("ExecStopPost"):
                subprocess.run(command, env={**self.env, "EXIT_STATUS": status}, check=False, timeout=30)
            if code == 0 or str(code) in self.values["RestartPreventExitStatus"]:
                return
            self.restarts += 1

    def __enter__(self) -> Systemd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self.main is not None and self.main.poll() is None:
            self.main.terminate()
        self._thread.join(ENDS)
        assert not self._thread.is_alive()


def works(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return (path / "dump").is_dir() and is_mountpoint(path)
    return False


def test_a_crash_under_load_leads_to_a_clean_mount(mount: Mount, tmp_path: Path) -> None:
    """kill -9 of the service's daemon, three times, while a backup runs and a program sits in the mount."""
    mount.umount()
    with Systemd(mount, tmp_path) as systemd:
        eventually(lambda: works(mount.path), "the service is up")
        (mount.path / "snippets/f").write_text("x")
        kept = backup(mount, 30)
        for number in range(3):
            path = mount.path / f"dump/vzdump-qemu-{40 + number}-2026_11_20-13_15_26.vma.dat"
            with user_of(mount.path), contextlib.suppress(OSError), path.open("wb") as file:
                file.write(BACKUP)
                assert systemd.main is not None
                systemd.main.kill()
                for _ in range(64):
                    file.write(BACKUP)
            eventually(lambda n=number: systemd.restarts == n + 1, "systemd restarts it")  # type: ignore[misc]
            eventually(lambda: works(mount.path), "the mount is back")
            assert kept.stat().st_size == len(BACKUP)
            assert (
                len([e for e in Path("/proc/self/mountinfo").read_text().splitlines() if f" {mount.path} " in e]) == 1
            )
        intact(mount, kept)
    assert not is_mountpoint(mount.path)
    assert systemd.restarts == 3


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    """And what our stand-in for systemd relies on."""
    values = UNIT.read_text()
    assert "Type=notify" in values
    assert "KillMode=mixed" in values
    unit = tmp_path / "s3fsx@node.service"
    unit.write_text(values)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in done.stderr.splitlines() if "s3fsx@node" in line] == []
