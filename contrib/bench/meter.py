"""What a process costs, from /proc: CPU time, peak resident memory, bytes it keeps on local disk."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")
SAMPLE = 0.1  # seconds; a staging file lives for seconds at the sizes measured here
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """cpu_s: user + system seconds. rss_peak and disk_peak: bytes, the latter above what was there at the start."""

    cpu_s: float
    rss_peak: int
    disk_peak: int


def family(pid: int) -> list[int]:
    """pid and its living descendants."""
    found = [pid]
    for parent in found:
        for task in _entries(PROC / str(parent) / "task"):
            try:
                found += map(int, (task / "children").read_text().split())
            except OSError:
                continue
    return found


def cpu_ticks(stat: str) -> int:
    """Of a line of /proc/PID/stat: utime, stime, cutime, cstime (proc(5): fields 14 to 17; 3 is the first after the
    name). The last two are children that ended and were waited for."""
    return sum(map(int, stat.rpartition(") ")[2].split()[11:15]))


def cpu_seconds(pid: int) -> float:
    total = 0
    for member in family(pid):
        try:
            total += cpu_ticks((PROC / str(member) / "stat").read_text())
        except OSError:
            continue
    return total / _TICK


def high_water(status: str) -> int:
    """Bytes, from the VmHWM line of /proc/PID/status; 0 for a process without memory (a zombie)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def rss_peak(pid: int) -> int:
    """Sum over the family: more than was ever held at once if they did not peak together."""
    total = 0
    for member in family(pid):
        try:
            total += high_water((PROC / str(member) / "status").read_text())
        except OSError:
            continue
    return total


def disk_bytes(pid: int, directories: Iterable[Path]) -> int:
    """Allocated bytes of the files below directories, and of deleted files that the family still has open there."""
    seen: dict[tuple[int, int], int] = {}
    roots = [str(directory) for directory in directories]
    for root in roots:
        for where, _, names in os.walk(root):
            for name in names:
                _add(seen, os.path.join(where, name))
    for member in family(pid):
        for link in _entries(PROC / str(member) / "fd"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith(tuple(roots)):
                _add(seen, str(link), follow=True)
    return sum(seen.values())


def _add(seen: dict[tuple[int, int], int], path: str, *, follow: bool = False) -> None:
    try:
        status = os.stat(path, follow_symlinks=follow)
    except OSError:
        return
    seen[status.st_dev, status.st_ino] = status.st_blocks * 512


def _entries(directory: Path) -> Iterator[Path]:
    try:
        yield from list(directory.iterdir())
    except OSError:
        return


class Meter:
    """``with Meter(pid, dirs) as meter: job()``, then ``meter.cost()``. Needs root: it resets the peak of another
    process. directories: where the program may leave bytes on disk."""

    def __init__(self, pid: int, directories: Iterable[Path]) -> None:
        self._pid = pid
        self._directories = tuple(directories)
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._disk_peak = 0
        self._cost: Cost | None = None

    def __enter__(self) -> Meter:
        for member in family(self._pid):
            (PROC / str(member) / "clear_refs").write_text("5")  # resets VmHWM, proc(5)
        self._disk_start = disk_bytes(self._pid, self._directories)
        self._cpu_start = cpu_seconds(self._pid)
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._sampler.join()
        if error is None:
            spent = cpu_seconds(self._pid) - self._cpu_start
            self._cost = Cost(spent, rss_peak(self._pid), max(0, self._disk_peak - self._disk_start))

    def cost(self) -> Cost:
        assert self._cost is not None, "not over yet"
        return self._cost

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE):
            self._disk_peak = max(self._disk_peak, disk_bytes(self._pid, self._directories))
