"""One byte budget for every writer and reader of a mount.

Why: parts wait in memory until the store has acknowledged them (a failed part must be sent again and nothing is
staged on disk), so memory is the only place where N parallel backups meet. They slow down instead of growing.

A writer is admitted with a reservation, enough for one part of the smallest legal size, and the sum of reservations
never exceeds the total: how many files can be written at once is a fixed number, whatever others hold at the moment.
What a writer holds beyond its reservation comes from the shared remainder.

When the remainder was lent out before a writer was admitted, more is *committed* (held or reserved) than there is. Then
nobody gets anything beyond a reservation until that is over: parts under way give their bytes back, and who sits on
bytes that are promised to another is asked for them (``on_pressure`` with ``promised``). So every admitted writer can
fill and send a part in the end: back-pressure never becomes a deadlock. Readers hold no reservation; their read-ahead
is given up when somebody needs the memory.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import trio

from ..errors import FileSystemError
from ..store.checksum import GRAIN

# Parts are built from chunks so that a part costs what is in it, and so that buffers can be reused: a fresh
# 8 MiB bytearray costs 2 048 page faults (measured 1.1 ms), a recycled chunk none. A stream has 48 of them under way.
CHUNK = GRAIN  # so that each chunk has one checksum


class Budget:
    """Accounts for bytes. Not a lock: nothing here awaits except ``wait_freed``.

    total: the limit of what is held. held: bytes in use. reserved: the sum of reservations. committed: held or
    reserved, above the total only until those who hold more than their reservation have given it back. peak: the most
    ever held.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0
        self.reserved = 0
        self.committed = 0
        self.peak = 0
        self._spare: list[bytearray] = []
        self._freed = trio.Event()
        self._pressure: dict[Callable[[bool], None], None] = {}  # a set that keeps its order

    def admit(self, reserve: int) -> Lease:
        """A lease with ``reserve`` bytes of its own; ENOMEM at once when that much can no longer be promised."""
        if self.reserved + reserve > self.total:
            raise FileSystemError(
                errno.ENOMEM, f"memory_budget of {self.total >> 20} MiB is used up: close files or raise memory_budget"
            )
        return Lease(self, reserve)

    def on_pressure(self, give_up: Callable[[bool], None]) -> None:
        """Register a function that releases what can be had again. Called with ``promised``: False when somebody would
        like more, True when it is owed to a writer."""
        self._pressure[give_up] = None

    def off_pressure(self, give_up: Callable[[bool], None]) -> None:
        """Harmless when repeated."""
        self._pressure.pop(give_up, None)

    def press(self, *, promised: bool = False) -> None:
        for give_up in list(self._pressure):
            give_up(promised)

    def _change(self, held: int, committed: int) -> None:
        self.held += held
        self.committed += committed
        self.peak = max(self.peak, self.held)
        while self._spare and self.held + len(self._spare) * CHUNK > self.total:
            self._spare.pop()  # kept for reuse only while nobody needs the bytes
        if held < 0 or committed < 0:  # even within a reservation: the own next part may be waiting for it
            self._freed.set()
            self._freed = trio.Event()

    async def wait_freed(self) -> None:
        """Until somebody gives memory back; then try again. The caller brings the deadline."""
        await self._freed.wait()

    def new_chunk(self) -> bytearray:
        """CHUNK bytes with arbitrary content. The caller has taken them from its lease."""
        return self._spare.pop() if self._spare else bytearray(CHUNK)

    def recycle(self, chunk: bytearray) -> None:
        """Kept for the next part as long as somebody writes, and one for the next small file: to fill a new one with
        zeros takes 0.15 ms, as much as all else in its write. The caller has given its bytes back."""
        if (self.reserved or not self._spare) and self.held + (len(self._spare) + 1) * CHUNK <= self.total:
            self._spare.append(chunk)


class Lease:
    """What one writer or reader holds. ``held`` may be below ``reserve``; the reservation counts all the same."""

    def __init__(self, budget: Budget, reserve: int) -> None:
        self.budget = budget
        self.reserve = reserve
        self.held = 0
        budget.reserved += reserve
        budget._change(0, reserve)

    def try_take(self, amount: int) -> bool:
        """True when ``amount`` more bytes are ours now."""
        budget = self.budget
        more = max(self.reserve, self.held + amount) - max(self.reserve, self.held)
        if (more and budget.committed + more > budget.total) or budget.held + amount > budget.total:
            return False
        self.held += amount
        budget._change(amount, more)
        return True

    def press(self, amount: int) -> None:
        """Make others give up what they can, so that ``amount`` can be taken, now or when it has come back."""
        self.budget.press(promised=self.held + amount <= self.reserve)

    def give(self, amount: int) -> None:
        less = max(self.reserve, self.held) - max(self.reserve, self.held - amount)
        self.held -= amount
        self.budget._change(-amount, -less)

    def close(self) -> None:
        """Give the reservation back. What is still under way counts until it is given. Harmless when repeated."""
        less = max(self.reserve, self.held) - self.held
        self.budget.reserved -= self.reserve
        self.reserve = 0
        if not self.budget.reserved:
            del self.budget._spare[1:]  # nobody writes any more
        self.budget._change(0, -less)
