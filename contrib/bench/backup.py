"""Writing and reading a backup."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import monotonic

from . import data
from .bench import Bench, Measurement, call
from .data import BACKUP
from .tools import Tool, ToolError

STREAMS = 4
WRITTEN = "private/sequential.raw"  # below dump/ or template/ a tool might treat it as something special
STEM = "dump/vzdump-qemu-200-2026_01_01-00_00_00"


def write(bench: Bench, tool: Tool, number: int) -> None:
    """128 KiB writes under the final name, to the point where the bucket has the object whole."""
    size = bench.data.size
    with bench.cleared(WRITTEN), bench.mounted(tool) as mount:
        path = mount.path / WRITTEN
        path.parent.mkdir(exist_ok=True)
        with bench.measure(tool.name, "write", number, mount) as m:
            _stream(bench, path, m)
            if mount.stores:
                await_whole(bench, WRITTEN, size, m.ours)
                m.step("in bucket")


def _stream(bench: Bench, path: Path, m: Measurement) -> None:
    m.size = bench.data.size
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        data.write_to(target, bench.data, m.size)
        m.step("write")
    finally:
        os.close(target)
    m.step("close")


def vzdump(bench: Bench, tool: Tool, number: int) -> None:
    """What vzdump does: write a temporary name, close, rename, list. Then until the bucket has it: before there is no
    backup, whatever was said."""
    size = bench.data.size
    with bench.cleared(STEM), bench.mounted(tool) as mount:
        temporary, final = mount.path / f"{STEM}.vma.dat", mount.path / f"{STEM}.vma.zst"
        final.parent.mkdir(exist_ok=True)
        with bench.measure(tool.name, "vzdump", number, mount) as m:
            _stream(bench, temporary, m)
            os.rename(temporary, final)
            m.step("rename")
            if f"{final.name}" not in call(["ls", "-l", str(final.parent)], bench.amounts.limit):
                raise ToolError(f"{tool.name}: the backup is not in the listing")
            m.step("list")
            await_whole(bench, f"{STEM}.vma.zst", size, m.ours)
            m.step("in bucket")


def await_whole(bench: Bench, key: str, size: int, ours: Counter[str]) -> None:
    bench.await_bucket(key, lambda found: found.get(key) == size, f"{key} with {size} bytes", ours)


def read(bench: Bench, tool: Tool, number: int) -> None:
    """A restore: one stream from start to end."""
    _read(bench, tool, number, "read", 1)


def read4(bench: Bench, tool: Tool, number: int) -> None:
    """Four readers of the same file, a quarter each."""
    _read(bench, tool, number, "read4", STREAMS)


def _read(bench: Bench, tool: Tool, number: int, job: str, streams: int) -> None:
    with bench.mounted(tool) as mount:
        path = mount.path / BACKUP
        size = path.stat().st_size
        bounds = [size * n // streams for n in range(streams + 1)]
        with bench.measure(tool.name, job, number, mount) as m:
            m.size = size
            wanted = bench.data if mount.stores else None
            together([partial(data.read, path, wanted, *bound) for bound in pairwise(bounds)])
            m.step("read")


def together(jobs: list[Callable[[], None]]) -> None:
    """All at once, each in a thread; raises what the first of them raised when all have ended."""
    failed: list[Exception] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def zstd(bench: Bench, tool: Tool, number: int) -> None:
    """``zstd -dc BACKUP | sha256sum``; raises ToolError when the sum is wrong."""
    with bench.mounted(tool) as mount:
        path = mount.path / BACKUP
        with bench.measure(tool.name, "zstd | sha256", number, mount) as m:
            m.size = path.stat().st_size
            m.start()
            with (
                subprocess.Popen(["zstd", "-dcq", str(path)], stdout=subprocess.PIPE) as unpacking,
                subprocess.Popen(["sha256sum"], stdin=unpacking.stdout, stdout=subprocess.PIPE, text=True) as summing,
            ):
                assert unpacking.stdout is not None
                unpacking.stdout.close()
                said, _ = summing.communicate()
            m.step("read")
        if unpacking.returncode or said.split()[0] != bench.data.plain_sha256:
            raise ToolError(f"{tool.name}: zstd unpacks something else than was packed")


def first_byte(bench: Bench, tool: Tool, number: int) -> None:
    """Open and read one byte of a cold backup, several times with a new mount each. The name was looked up before: a
    program finds it in a listing."""
    opened, looked_up = [], []
    for _ in range(bench.amounts.opens):
        with bench.mounted(tool) as mount:
            path = mount.path / BACKUP
            start = monotonic()
            path.stat()
            found = monotonic()
            with path.open("rb", buffering=0) as file:
                if len(file.read(1)) != 1:
                    raise ToolError(f"{tool.name}: {BACKUP} is empty")
            opened.append(monotonic() - found)
            looked_up.append(found - start)
    with bench.measure(tool.name, "first byte", number) as m:
        m.seconds = median(opened)
        m.steps = {"look up": median(looked_up), "first byte": median(opened), "worst": max(opened)}
