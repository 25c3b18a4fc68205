"""One byte budget for every writer and reader of a mount.

Why: parts wait in memory until the store has acknowledged them (a failed part must be sent again and nothing is
staged on disk), so memory is the only place where N parallel backups meet. They slow down instead of growing.

A writer is admitted with a reservation. What it holds beyond that comes from the shared remainder. Because the
sum of reservations never exceeds the total, and a reservation is enough for one part of the smallest legal size,
every admitted writer can always fill and send a part: back-pressure never becomes a deadlock. Readers hold no
reservation; their read-ahead is given up when somebody needs the memory (``on_pressure``).
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable

import trio

from .checksum import GRAIN
from .errors import FileSystemError

# Parts are built from chunks so that a part costs what is in it, and so that buffers can be reused: a fresh
# 8 MiB bytearray costs 2 048 page faults (measured 1.1 ms), a recycled chunk none.
CHUNK = GRAIN  # so that each chunk has one checksum
_KEPT_CHUNKS = 16

# mallopt(3), malloc.h. The threshold is glibc's largest (HEAP_MAX_SIZE / 2).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_THRESHOLD = 32 << 20


def tame_malloc() -> bool:
    """Makes what the budget gave back usable by whoever needs it next; False where the C library has no such knobs.

    To be called before there are worker threads. glibc gives each of them a heap of its own, in which the 8 MiB that
    this thread read stay for this thread: 4 writers and 3 readers within a budget of 128 MiB peaked at 270-321 MiB,
    with one heap at 200-248; one reader after one writer at 185-199 and 132-142. A low threshold would give blocks back
    to the kernel at once (198 and 122), but its page faults cost 0.35 CPU-s per GiB read, of 0.85.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _THRESHOLD), (_M_TRIM_THRESHOLD, _THRESHOLD))
    taken = [mallopt(name, value) == 1 for name, value in wanted]
    return all(taken)


class Budget:
    """Accounts for bytes; ``total`` is the limit. Not a lock: nothing here awaits except ``Lease.take``."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.committed = 0
        self.peak = 0
        self._spare: list[bytearray] = []
        self._freed = trio.Event()
        self._pressure: list[Callable[[], None]] = []

    def admit(self, reserve: int) -> Lease:
        """A lease with ``reserve`` bytes of its own; ENOMEM at once when that much is not to be had."""
        if self.committed + reserve > self.total:
            self.press()
        if self.committed + reserve > self.total:
            raise FileSystemError(
                errno.ENOMEM, f"memory_budget of {self.total >> 20} MiB is used up: close files or raise memory_budget"
            )
        self._commit(reserve)
        return Lease(self, reserve)

    def on_pressure(self, give_up: Callable[[], None]) -> Callable[[], None]:
        """Register a function that releases what can be had again; returns the one that unregisters it."""
        self._pressure.append(give_up)
        return lambda: self._pressure.remove(give_up)

    def press(self) -> None:
        for give_up in list(self._pressure):
            give_up()

    def _commit(self, change: int) -> None:
        self.committed += change
        self.peak = max(self.peak, self.committed)

    def _wake(self) -> None:
        self._freed.set()
        self._freed = trio.Event()

    async def wait_freed(self) -> None:
        """Until somebody gives memory back. The caller brings the deadline."""
        await self._freed.wait()

    def new_chunk(self) -> bytearray:
        """CHUNK bytes with arbitrary content. The caller has taken them from its lease."""
        return self._spare.pop() if self._spare else bytearray(CHUNK)

    def recycle(self, chunk: bytearray) -> None:
        if len(self._spare) < _KEPT_CHUNKS:
            self._spare.append(chunk)


class Lease:
    """What one writer or reader holds. ``held`` may be below ``reserve``; the reservation counts all the same."""

    def __init__(self, budget: Budget, reserve: int) -> None:
        self.budget = budget
        self.reserve = reserve
        self.held = 0

    def try_take(self, amount: int) -> bool:
        """True when ``amount`` more bytes are ours now."""
        more = max(self.reserve, self.held + amount) - max(self.reserve, self.held)
        if self.budget.committed + more > self.budget.total:
            return False
        self.held += amount
        if more:
            self.budget._commit(more)
        return True

    async def take(self, amount: int) -> None:
        """Wait until ``amount`` more bytes are ours. The caller brings the deadline."""
        while not self.try_take(amount):
            self.budget.press()
            if self.try_take(amount):
                return
            await self.budget.wait_freed()

    def give(self, amount: int) -> None:
        less = max(self.reserve, self.held) - max(self.reserve, self.held - amount)
        self.held -= amount
        self.budget._commit(-less)
        self.budget._wake()  # even within the reservation: our own next part may be waiting for it

    def close(self) -> None:
        """Give everything back, the reservation included. Harmless when repeated."""
        left = max(self.reserve, self.held)
        self.reserve = self.held = 0
        self.budget._commit(-left)
        self.budget._wake()
