"""Several at a time: two backups, a restore, and somebody who looks."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

from . import data
from .backup import await_whole, together
from .bench import Bench
from .data import BACKUP
from .randomread import percentile
from .tools import Tool

WRITERS = 2
SHARE = 4  # each backup is this part of the size
INTERVAL = 1.0  # seconds from one ls to the next
STEM = "dump/vzdump-qemu-40"


def run(bench: Bench, tool: Tool, number: int) -> None:
    """All bytes over the time until the last backup is in the bucket and the restore has read its last; and how long
    ``ls -l`` of the directory took meanwhile."""
    size = max(1, bench.data.size // SHARE)
    with bench.cleared(STEM), bench.mounted(tool) as mount:
        over = threading.Event()
        ours = [Counter[str]() for _ in range(WRITERS)]
        latencies: list[float] = []
        restored = (mount.path / BACKUP).stat().st_size
        with bench.measure(tool.name, "mixed", number, mount) as m:
            looking = threading.Thread(target=_look, args=(bench, mount.path / "dump", over, latencies), daemon=True)
            looking.start()
            try:
                together(
                    [
                        *(lambda n=n: _backup(bench, mount.path, n, size, ours[n]) for n in range(WRITERS)),
                        lambda: data.read(mount.path / BACKUP, bench.data, 0, restored),
                    ]
                )
            finally:
                over.set()
                looking.join()
            m.step("all")
            for asked in ours:
                m.ours.update(asked)
            m.size = WRITERS * size + restored
        with bench.measure(tool.name, "mixed ls", number) as m:
            m.seconds = percentile(latencies, 50)
            m.steps = {f"p{p}": percentile(latencies, p) for p in (50, 95, 100)}


def _backup(bench: Bench, root: Path, n: int, size: int, ours: Counter[str]) -> None:
    stem = f"{STEM}{n}-2026_01_01-00_00_00"
    data.write(root / f"{stem}.vma.dat", bench.data, size)
    os.rename(root / f"{stem}.vma.dat", root / f"{stem}.vma.zst")
    await_whole(bench, f"{stem}.vma.zst", size, ours)


def _look(bench: Bench, directory: Path, over: threading.Event, latencies: list[float]) -> None:
    """A name that is renamed between being listed and looked at makes ls fail; that is not what is measured here."""
    command = ["ls", "-l", str(directory)]
    while True:
        start = time.monotonic()
        subprocess.run(command, capture_output=True, timeout=bench.amounts.limit, check=False)
        latencies.append(time.monotonic() - start)
        if over.wait(max(0.0, INTERVAL - latencies[-1])):
            return
