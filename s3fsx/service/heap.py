"""The C library's heap, made to hold no more than what is in use.

The byte budget counts what we hold; the kernel counts what malloc has not given back. Measured with 8 writers and 8
readers on a budget of 128 MiB, where everything else takes 62: 250 MiB, because blocks of many sizes leave holes.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path

import trio

# mallopt(3), malloc.h. The threshold is glibc's largest (HEAP_MAX_SIZE / 2).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_THRESHOLD = 32 << 20

# Objects more than were freed before the collector looks at the young ones; at Python's 700 it took 8 % of the CPU of a
# backup, for nothing: what our requests leave behind has no cycles.
_YOUNG, _MIDDLE, _OLD = 10_000, 20, 50

# Seconds between two looks, and how far holes may grow meanwhile; at 200 MB/s the heap can grow by 20 MiB in a tenth of
# a second, but mostly it reuses its holes.
CHECK_EVERY = 0.1
SLACK = 8 << 20
# Bytes above the budget from which on holes are given back at once. Below, they wait until nothing has been in use for
# QUIET seconds: a hole that a restore leaves behind is where its next block goes, and given back it costs the page
# faults again. 2 GiB through zstd: 251 000 faults when it was always given back, 97 000 so, 30 000 at the start.
NEAR = 32 << 20
QUIET = 1.0
# Bytes above the budget from which on it is looked more often, for smaller holes, and without a thread. 8 writers
# and 8 readers on a busy machine (load 12 to 15): 218 to 230 MiB at the peak. Before, and when what was free after the
# last time was all that growth was compared with (a hole in use again hid the next one): 228 to 290.
URGENT, OFTEN, CRUMBS = 80 << 20, 0.03, 2 << 20
_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def tame_malloc() -> bool:
    """Makes what the budget gave back usable by whoever needs it next; False where the C library has no such knobs.

    To be called before there are worker threads. glibc gives each of them a heap of its own, in which the 8 MiB that
    this thread read stay for this thread: 4 writers and 3 readers within a budget of 128 MiB peaked at 270-321 MiB,
    with one heap at 200-248; one reader after one writer at 185-199 and 132-142. A low threshold would give blocks back
    to the kernel at once (198 and 122), but its page faults cost 0.35 CPU-s per GiB read, of 0.85.
    """
    mallopt = _function("mallopt")
    if mallopt is None:
        return False
    wanted = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _THRESHOLD), (_M_TRIM_THRESHOLD, _THRESHOLD))
    taken = [mallopt(name, value) == 1 for name, value in wanted]
    return all(taken)


def calm_collector() -> None:
    """What is there now (80 000 objects, most of them boto3's models) is never looked at again, the rest less often.
    To be called when everything is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def _function(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    return found


def resident() -> int:
    """Bytes of this process in RAM (proc(5))."""
    return int(_STATM.read_text().split()[1]) * _PAGE


async def keep_trimmed(held: Callable[[], int], budget: int) -> None:
    """Background task: gives the heap's holes back to the kernel when they have grown by SLACK. held: bytes in use of
    the budget; whatever else is resident is compared with what it was after the last time."""
    trim = _function("malloc_trim")
    if trim is None:
        return
    rest = resident() - held()
    quiet, pause = 0.0, CHECK_EVERY
    while True:
        await trio.sleep(pause)
        taken, used = resident(), held()
        rest = min(rest, taken - used)  # what was a hole and is in use again may become one again
        quiet = 0.0 if used else quiet + pause
        urgent = taken > budget + URGENT
        pause = OFTEN if urgent else CHECK_EVERY
        if urgent and taken - used > rest + CRUMBS:
            trim(0)  # some milliseconds, in which nobody takes memory either
        elif taken - used > rest + SLACK and (taken > budget + NEAR or quiet >= QUIET):
            await trio.to_thread.run_sync(trim, 0)
        else:
            continue
        rest = resident() - held()
