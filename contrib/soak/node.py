"""One node: an s3fsx mount of its own, with its own cache and journal, that can be killed and mounted again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

START_LIMIT, STOP_LIMIT = 90.0, 180.0  # seconds


class SoakError(Exception):
    """One line: why the run cannot go on."""


def is_mountpoint(directory: Path) -> bool:
    """From mountinfo, so that a daemon that does not answer cannot hang the question (proc(5): a space is \\040)."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split(" ")[4].replace("\\040", " ") == str(directory) for line in lines)


class Node:
    """path: where it is mounted. rss_peak: bytes, over all its daemons. source, options: as ``s3fsx mount`` takes."""

    def __init__(self, home: Path, source: str, options: Mapping[str, object], env: Mapping[str, str]) -> None:
        self.path = home / "mnt"
        self.path.mkdir(parents=True)
        self.log = home / "s3fsx.log"
        self.rss_peak = 0
        self._source = source
        self._env = {**env, "PYTHONPATH": str(Path(__file__).parents[2])}
        places = {f"{name}_dir": home / name for name in ("cache", "state", "runtime")}
        self._options = ",".join(f"{k}={v}" for k, v in {**options, **places, "log_file": self.log}.items())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def mounted(self) -> bool:
        return self._process is not None and self._process.poll() is None and is_mountpoint(self.path)

    def mount(self) -> None:
        """Returns when the directory is a mountpoint. Raises SoakError with the end of the log when it does not."""
        command = [sys.executable, "-m", "s3fsx", "mount", self._source, str(self.path), "--foreground"]
        self._process = subprocess.Popen(
            [*command, "-o", self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._env,
            cwd="/",
        )
        end = time.monotonic() + START_LIMIT
        while not is_mountpoint(self.path):
            if self._process.poll() is not None or time.monotonic() > end:
                raise SoakError(f"{self.path} does not mount:\n{self.tail()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """The power cut. Whoever is in the mount gets ENOTCONN until ``detach``; then the bare directory shows."""
        assert self._process is not None
        self.sample()
        self._process.kill()
        self._process.wait(30)

    def umount(self) -> None:
        """Raises SoakError when umount or the daemon fails, or takes too long."""
        assert self._process is not None
        self.sample()
        end = time.monotonic() + STOP_LIMIT
        while True:  # the kernel tells release(2) some time after close(2) has returned: busy for a moment
            done = subprocess.run(["umount", str(self.path)], capture_output=True, text=True, timeout=60, check=False)
            if done.returncode == 0:
                break
            if time.monotonic() > end:
                raise SoakError(f"umount {self.path}: {done.stderr.strip()}")
            time.sleep(0.2)
        try:
            code = self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            raise SoakError(f"the daemon of {self.path} does not end:\n{self.tail()}") from None
        if code:
            raise SoakError(f"the daemon of {self.path} ended with {code}:\n{self.tail()}")

    def detach(self) -> None:
        while is_mountpoint(self.path):
            subprocess.run(["umount", "-l", str(self.path)], check=True, capture_output=True, timeout=30)

    def tear_down(self) -> None:
        """Whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)
        self.detach()

    def sample(self) -> None:
        """Looks at the memory of the daemon (VmHWM, proc(5))."""
        if self._process is None:
            return
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            self.rss_peak = max(self.rss_peak, int(found[1]) << 10)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else "(no log)"


class DfProbe:
    """Asks df all the time from a process of its own, so that nothing but the mount can make it slow."""

    _PROGRAM = """
import os, sys, time
while True:
    begin = time.monotonic()
    try:
        blocks = os.statvfs(sys.argv[1]).f_blocks
    except OSError as e:
        blocks = -1
    print(time.monotonic() - begin, blocks, flush=True)
    time.sleep(0.5)
"""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self._PROGRAM, str(path)], stdout=subprocess.PIPE, text=True, cwd="/"
        )

    def next(self) -> tuple[float, int] | None:
        """(seconds, blocks; -1 for an error); None at the end."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        return (float(line[0]), int(line[1])) if len(line) == 2 else None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def environment() -> dict[str, str]:
    """Ours, without a proxy before a loopback server."""
    return {**os.environ, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
