"""Random reads of an ISO image, as a guest that boots from it makes them."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Sequence
from statistics import mean, median

from .bench import Bench, drop_caches
from .data import ISO
from .tools import Tool, ToolError

SIZES = (4 << 10, 64 << 10, 1 << 20)
SETTLE = 1.0  # seconds for a tool that fills its disk cache behind the reader's back


def places(size: int, block: int, area: tuple[int, int], count: int, seed: int) -> list[int]:
    """``count`` different multiples of block within the share of the file that area says; fewer if it has no more."""
    first, last = (-(-size * part // len(SIZES) // block) for part in area)
    possible = range(first, last)
    return [block * n for n in random.Random(seed).sample(possible, min(count, len(possible)))]


def run(bench: Bench, tool: Tool, number: int) -> None:
    """Cold: nothing cached anywhere; each size in a third of the file of its own, so that it stays cold. Warm: the same
    reads once more on the same mount, with what the tool keeps in memory and on disk, but without the kernel's pages
    (neither of the mount nor of the disk)."""
    with bench.mounted(tool) as mount:
        path = mount.path / ISO
        size = path.stat().st_size
        plan = [(block, places(size, block, (n, n + 1), _count(bench, block), number)) for n, block in enumerate(SIZES)]
        for state in ("cold", "warm"):
            for block, offsets in plan:
                with (
                    path.open("rb", buffering=0) as file,
                    bench.measure(tool.name, f"random {block >> 10} KiB {state}", number, mount) as m,
                ):
                    times = _read(bench, file.fileno(), block, offsets, tool.name)
                    m.seconds = mean(times)
                    m.steps = {"median": median(times), "p99": percentile(times, 99), "all": sum(times)}
            time.sleep(SETTLE)
            drop_caches()


def _count(bench: Bench, block: int) -> int:
    """A quarter of them for the largest: 200 MiB of an ISO are enough."""
    return max(1, bench.amounts.reads // (4 if block == max(SIZES) else 1))


def _read(bench: Bench, file: int, block: int, offsets: Sequence[int], tool: str) -> list[float]:
    times = []
    with memoryview(bytearray(block)) as buffer:
        for offset in offsets:
            start = time.monotonic()
            got = os.preadv(file, [buffer], offset)
            times.append(time.monotonic() - start)
            if got != block or not bench.data.agrees(offset, buffer):
                raise ToolError(f"{tool}: read at {offset}: not what was written")
    return times


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
