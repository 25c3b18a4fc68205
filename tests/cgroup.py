"""A memory cgroup for a test's processes, version 1 or 2, where this machine lets us make one."""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryGroup:
    """path: its directory. Every process that is added, and what it starts, counts in it."""

    path: Path
    version: int

    def add(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))

    @property
    def oom_kills(self) -> int:
        events = self.path / ("memory.oom_control" if self.version == 1 else "memory.events")
        found = re.search(r"^oom_kill (\d+)$", events.read_text(), re.MULTILINE)
        assert found is not None, events
        return int(found[1])

    @property
    def peak(self) -> int | None:
        """Bytes it ever held, page cache included; None on a kernel that does not say."""
        file = self.path / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")
        return int(file.read_text()) if file.exists() else None


def _make(limit: int) -> MemoryGroup | None:
    name = f"s3fsx-test-{uuid.uuid4().hex[:12]}"
    if (ROOT / "memory/memory.limit_in_bytes").exists():
        group = MemoryGroup(ROOT / "memory" / name, 1)
        files = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
    elif "memory" in _text(ROOT / "cgroup.subtree_control").split():
        group = MemoryGroup(ROOT / name, 2)
        files = ["memory.max"]
    else:
        return None
    try:
        group.path.mkdir()
        for file in files:
            if (group.path / file).exists():  # memsw: only with swap accounting
                (group.path / file).write_text(str(limit))
    except OSError:
        with contextlib.suppress(OSError):
            group.path.rmdir()
        return None
    return group


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup | None]:
    """A group of at most ``limit`` bytes; None where none can be made (a container without the right to)."""
    group = _make(limit)
    try:
        yield group
    finally:
        if group is not None:
            _remove(group)


def _remove(group: MemoryGroup) -> None:
    """Whoever is still in it goes back to where we are; the kernel needs a moment until it may be removed."""
    home = group.path.parent / "cgroup.procs"
    for _ in range(100):
        for pid in _text(group.path / "cgroup.procs").split():
            with contextlib.suppress(OSError):
                home.write_text(pid)
        try:
            os.rmdir(group.path)
        except OSError:
            time.sleep(0.05)
        else:
            return
