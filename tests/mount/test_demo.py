"""contrib/demo.sh as a new user runs it, in directories of its own, with the Python of the tests instead of .venv."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.harness import ROOT, detach, is_mountpoint

pytestmark = [pytest.mark.mount, pytest.mark.slow]
LIMIT = 240.0  # seconds; 5 is usual


@dataclass(frozen=True)
class Demo:
    directory: Path
    mountpoint: Path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """In a process group of its own: sh waits for a hanging child before it listens to a signal."""
        command = ["sh", str(ROOT / "contrib/demo.sh"), *arguments]
        surroundings = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "S3FSX_BUCKET": "not-of-the-demo",
            "DEMO_DIR": str(self.directory),
            "DEMO_MOUNT": str(self.mountpoint),
            "DEMO_PYTHON": sys.executable,
            **environment,
        }
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=surroundings,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def server_pid(self) -> int:
        return int((self.directory / "server.pid").read_text())

    def leftovers(self) -> list[str]:
        found = [str(path) for path in (self.directory, self.mountpoint) if path.exists()]
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it ended
            if os.fsencode(self.directory) in command:
                found.append(f"{entry.name}: {command!r}")
        return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path / "demo", tmp_path / "mnt")
    yield made
    try:
        made.run("stop")
    finally:
        detach(made.mountpoint)


def test_it_runs_twice_and_stops(demo: Demo) -> None:
    first = demo.run()
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stderr == ""
    out = first.stdout
    assert "OK: all identical, no rename copied, no upload left behind" in out
    assert [int(ms) for ms in re.findall(r"in (\d+) ms: 1 CompleteMultipartUpload, 0 copies", out)], out
    assert "an upload waits under the final name, nothing is visible" in out
    assert "restored through zstd, identical" in out
    assert re.search(r"^ +0 unfinished multipart uploads$", out, re.MULTILINE)
    keys = re.findall(r"^ *\d+ (pve/\S+)$", out, re.MULTILINE)
    stamp = r"\d{4}(_\d\d){2}-\d\d(_\d\d){2}"
    for pattern in (
        rf"pve/dump/vzdump-qemu-100-{stamp}\.vma\.zst(\.notes|\.protected)?",
        rf"pve/dump/vzdump-lxc-101-{stamp}\.tar\.zst(\.notes|\.protected)?",
        rf"pve/dump/vzdump-(qemu-100|lxc-101)-{stamp}\.log",
        r"pve/template/iso/installer\.iso",
    ):
        assert any(re.fullmatch(pattern, key) for key in keys), (pattern, keys)
    assert len(keys) == 9, keys  # nothing of the backup that failed, nor of the scratch directory
    assert "\033" not in out
    hints = re.findall(r"^  (s3fsx (?:backups|ls) .*)$", out, re.MULTILINE)
    (alias,) = re.findall(r"^  alias s3fsx='(.*)'$", out, re.MULTILINE)
    assert len(hints) == 2
    for hint in hints:
        command = f"{alias} {hint.removeprefix('s3fsx ')}"
        done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "100" in done.stdout) == (0, True), done
    assert [line for line in out.splitlines() if len(line) > 80 and str(demo.directory.parent) not in line] == []

    assert is_mountpoint(demo.mountpoint)
    archive = next((demo.mountpoint / "dump").glob("*.vma.zst"))
    assert os.getxattr(archive, "user.s3fsx.key").decode() == f"pve/dump/{archive.name}"
    settings = demo.directory / "demo.toml"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    for key in re.findall(r'_key = "(\w+)"', settings.read_text()):
        assert key not in out
    shown = demo.run("status")
    assert (shown.returncode, "verified by" in shown.stdout) == (0, True), shown

    old_server = demo.server_pid()
    second = demo.run()
    assert second.returncode == 0, second.stdout + second.stderr
    assert "former run removed" in second.stdout
    assert demo.server_pid() != old_server
    assert not Path(f"/proc/{old_server}").exists()
    took = re.search(r"^ +all +(\d+)\.\d s$", second.stdout, re.MULTILINE)
    assert took is not None

    stopped = demo.run("stop")
    assert (stopped.returncode, stopped.stderr) == (0, ""), stopped
    assert demo.leftovers() == []
    assert demo.run("stop").returncode == 0


def test_a_port_that_is_taken_is_one_line(demo: Demo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = demo.run(DEMO_PORT=str(port))
    assert done.returncode == 1
    assert re.fullmatch(
        rf"demo\.sh: step 2, Start an S3 server: .*127\.0\.0\.1:{port}: Address already in use\n", done.stderr
    )
    assert demo.leftovers() == []


def test_a_server_that_dies_fails_the_demo_and_leaves_nothing(demo: Demo, tmp_path: Path) -> None:
    """Its Python ends the S3 server at the first look into the bucket."""
    python = tmp_path / "python"
    kill = f'kill -9 "$(cat "{demo.directory}/server.pid")"'
    python.write_text(f'#!/bin/sh\n[ "$2" != uploads ] || {kill}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = demo.run(DEMO_PYTHON=str(python))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "demo.sh: step 5, Back up VM 100 as vzdump does: the S3 server does not answer"
    assert demo.leftovers() == []


def test_what_is_not_its_own_is_left_alone(demo: Demo) -> None:
    demo.directory.mkdir()
    (demo.directory / "mine").write_text("mine")
    done = demo.run()
    assert done.returncode == 1
    assert done.stderr == (
        f"demo.sh: {demo.directory} is not empty and not of this demo; set DEMO_DIR to another one\n"
    )
    assert demo.run("stop").returncode == 0
    assert (demo.directory / "mine").read_text() == "mine"


def test_a_mount_in_use_is_not_stopped(demo: Demo) -> None:
    assert demo.run().returncode == 0
    with (demo.mountpoint / "in-use").open("w"):
        done = demo.run("stop")
        assert done.returncode == 1
        assert re.fullmatch(r"demo\.sh: not stopped: .*busy.*\n", done.stderr)
        assert is_mountpoint(demo.mountpoint)
        assert demo.run("nonsense").returncode == 1
        assert is_mountpoint(demo.mountpoint)
    assert demo.run("stop").returncode == 0
    assert demo.leftovers() == []
