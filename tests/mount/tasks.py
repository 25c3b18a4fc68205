"""Processes that work on a mount, watched from outside: their states, and what Proxmox would say of the storage."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Plugin::status by way of df with 2 s in a forked child (PVE/Storage/Plugin.pm, PVE/Tools.pm): inactive when statvfs
# fails or does not come back, when f_frsize is 0, or when f_blocks is 0.
DF_LIMIT = 2.0


def proxmox_status(path: Path) -> tuple[bool, float]:
    """(active, seconds it took), as pvestatd finds out every 10 s. A child that hangs is killed, and waited for as long
    as that takes: that is the hang of pvestatd."""
    begin = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = os.statvfs(path)
            os.write(writing, b"1" if answer.f_frsize and answer.f_blocks else b"0")
        finally:
            os._exit(0)
    os.close(writing)
    try:
        came = select.select([reading], [], [], DF_LIMIT)[0]
        said = os.read(reading, 1) if came else b""
    finally:
        os.close(reading)
        if not said:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return said == b"1", time.monotonic() - begin


@dataclass(frozen=True)
class Task:
    """A thread: state is a letter of proc(5), wchan the kernel function in which it waits."""

    pid: int
    name: str
    state: str
    wchan: str


def tasks(pid: int) -> Iterator[Task]:
    """The threads of a process; none when it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for directory in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                head, _, rest = (directory / "stat").read_text().rpartition(") ")
                yield Task(int(directory.name), head.partition("(")[2], rest[0], (directory / "wchan").read_text())


@dataclass
class Actors:
    """Small Python programs, each told by a line on stdin to go on from its first part (``ready``) to its second."""

    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def start(self, name: str, first: str, second: str, *arguments: object) -> None:
        script = (
            f"import os, sys, time, mmap\nargs = sys.argv[1:]\n{first}\nprint('ready', flush=True)\n"
            f"sys.stdin.readline()\n{second}\n"
        )
        self.running[name] = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Until every one has done its first part."""
        for name, process in self.running.items():
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == "ready\n", f"{name}: {line}{process.stderr and process.stderr.read()}"

    def go(self) -> None:
        for process in self.running.values():
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def uninterruptible(self) -> dict[str, list[Task]]:
        """By actor, the threads in D state."""
        found = {name: [t for t in tasks(p.pid) if t.state == "D"] for name, p in self.running.items()}
        return {name: there for name, there in found.items() if there}

    def count(self) -> int:
        return sum(1 for p in self.running.values() for _ in tasks(p.pid))

    def __enter__(self) -> Actors:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.communicate(timeout=180)
