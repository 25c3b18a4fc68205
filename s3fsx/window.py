"""The read-ahead window of one open file: which byte ranges to fetch, and which to let go.

Pure: the caller fetches. The file is cut into *blocks*, the units of fetching, as it is read; the window
knows the blocks it has planned and not dropped, and they never overlap.

A *run* is a stretch of sequential reading. The further a run has come, the further ahead it looks and the
larger its blocks are: as far ahead as it has read, in blocks of up to that size, from ``first`` to ``block``
(so ``head -c 1M`` plans 3 MiB at most). A read elsewhere starts a new run with one small block and nothing ahead, so a
reader at random places fetches about ``first`` bytes per read: what can be verified by itself. The kernel sends its
read-ahead in requests that overtake one another, so a run tolerates reads within ``NEAR`` of its front; it looks ahead
only while at least half of what it passes over is really read, so strides do not pass for sequential reading.

State is bounded: all blocks lie between ``front - NEAR - block`` and ``front + limit + block``, but for those the
last read needed.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from .checksum import GRAIN

FIRST = GRAIN  # less cannot be verified
BLOCK = 8 << 20
NEAR = 4 << 20  # the largest read_ahead_kb s3fsx sets: requests arrive out of order within it
BACK = 1 << 20  # blocks that were read completely stay this far behind the front, for small steps back


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """The bytes from ``start`` up to ``end``, fetched in one request."""

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Plan:
    """What one read asks of the caller.

    need: blocks that together cover the read, in order; some may have been planned before.
    ahead: new blocks to start fetching, in order, after the needed ones.
    drop: blocks that are forgotten. An earlier read may still be waiting for one: it keeps what it holds.
    """

    need: tuple[Block, ...] = ()
    ahead: tuple[Block, ...] = ()
    drop: tuple[Block, ...] = ()


class Window:
    """Read-ahead decisions for one open file of ``size`` bytes.

    first: the smallest fetch, and the grid on which random reads are fetched; a power of two.
    block: the largest fetch; a power-of-two multiple of ``first``.
    limit: how far ahead of the reader to plan at most; 0 for no read-ahead.

    Attributes:
        _blocks: the known blocks, sorted.
        _unread: for each known block, how many of its bytes no read has asked for yet.
        _front: end of the furthest read of the run.
        _passed: bytes the run's front has moved over, and
        _read: bytes of them that were asked for. Both are halved when they exceed 2 x limit, so that the
            ratio follows what the reader does now.
        _finished: blocks of the run that were read completely and dropped, at most NEAR behind: a read in one of
            them is a second reading, hence a new run, not a request that was overtaken.
    """

    def __init__(self, size: int, *, first: int = FIRST, block: int = BLOCK, limit: int) -> None:
        if first <= 0 or first & (first - 1) or block < first or (block // first) & (block // first - 1):
            raise ValueError("first must be a power of two, block a power-of-two multiple of it")
        self._size = size
        self._first = first
        self._block = block
        self._limit = max(0, limit)
        self._blocks: list[Block] = []
        self._unread: dict[Block, int] = {}
        self._finished: list[Block] = []
        self._front = 0
        self._passed = 0
        self._read = 0

    @property
    def planned(self) -> int:
        """Bytes in the known blocks, read or not."""
        return sum(block.length for block in self._blocks)

    @property
    def ahead(self) -> int:
        """How many bytes beyond its front the run may plan now."""
        return min(self._limit, self._read) if 2 * self._read >= self._passed else 0

    def holds(self, offset: int, end: int) -> bool:
        """Some of these bytes are in a known block."""
        return bool(self._overlapping(offset, end))

    def read(self, offset: int, length: int) -> Plan:
        """Plan for a read of ``length`` bytes at ``offset``; what lies beyond the file's end is not planned."""
        end = min(offset + length, self._size)
        if offset >= end:
            return Plan()
        dropped: list[Block] = []
        if self._continues(offset):
            self._advance(offset, end)
            ahead = self.ahead
        else:
            dropped = self._restart(offset, end)
            ahead = 0
        self._cover(offset, _up(end, self._first), self._block)
        need = self._overlapping(offset, end)
        for block in need:
            asked = min(end, block.end) - max(offset, block.start)
            self._unread[block] = max(0, self._unread[block] - asked)
        planned: list[Block] = []
        if ahead:
            unit = self._unit()
            planned = self._cover(self._front, _up(self._front + ahead, unit), unit)
        dropped += self._drop_behind(keep=need)
        return Plan(tuple(need), tuple(planned), tuple(dropped))

    def shrink(self) -> tuple[Block, ...]:
        """Memory is short: halve the distance ahead (it grows again with what is read from now on) and forget the
        blocks beyond it. Nobody has read from these yet."""
        self._read = self._passed = min(self._limit, self._read) // 2
        return self._remove([block for block in self._blocks if block.start >= self._front + self._read])

    def forget(self, block: Block) -> None:
        """The fetch of the block failed, or its bytes were given away: plan it anew when it is read."""
        if block in self._unread:
            self._remove([block])

    def _continues(self, offset: int) -> bool:
        if self._overlapping(offset, offset + 1):
            return True
        if any(block.start <= offset < block.end for block in self._finished):
            return False
        return self._passed > 0 and self._front - NEAR <= offset <= self._front + NEAR

    def _advance(self, offset: int, end: int) -> None:
        if end > self._front:
            self._passed += end - self._front
            self._front = end
        self._read = min(self._read + end - offset, self._passed)
        if self._passed > 2 * max(self._limit, self._block):
            self._passed //= 2
            self._read //= 2

    def _restart(self, offset: int, end: int) -> list[Block]:
        self._front = end
        self._passed = self._read = end - offset
        self._finished.clear()
        keep = set(self._overlapping(offset, end))
        return list(self._remove([block for block in self._blocks if block not in keep]))

    def _unit(self) -> int:
        """Size of blocks ahead: the power of two at or below what the run has read; two fit into the limit."""
        wanted = min(self._read, self._limit // 2)
        return min(max(self._first, 1 << max(0, wanted.bit_length() - 1)), self._block)

    def _cover(self, start: int, stop: int, piece: int) -> list[Block]:
        """Make blocks for whatever is not known between start, rounded down to the ``first`` grid, and stop; they
        end at multiples of ``piece``."""
        stop = min(stop, self._size)
        made: list[Block] = []
        position = start
        while position < stop:
            i = bisect.bisect_right(self._blocks, position, key=lambda block: block.start)
            before = self._blocks[i - 1].end if i else 0
            if before > position:
                position = before
                continue
            after = self._blocks[i].start if i < len(self._blocks) else stop
            begin = max(before, position - position % self._first)
            block = Block(begin, min(stop, after, _up(position + 1, piece)) - begin)
            self._blocks.insert(i, block)
            self._unread[block] = block.length
            made.append(block)
            position = block.end
        return made

    def _overlapping(self, start: int, stop: int) -> list[Block]:
        i = bisect.bisect_right(self._blocks, start, key=lambda block: block.start)
        if i and self._blocks[i - 1].end > start:
            i -= 1
        j = bisect.bisect_left(self._blocks, stop, lo=i, key=lambda block: block.start)
        return self._blocks[i:j]

    def _drop_behind(self, keep: list[Block]) -> tuple[Block, ...]:
        """Completely read blocks go when they are BACK behind, others when nothing out of order can want them."""
        near = self._front - NEAR
        gone: list[Block] = []
        for block in self._blocks:
            if block.end > self._front - BACK:
                break
            if (self._unread[block] == 0 or block.end <= near) and block not in keep:
                gone.append(block)
        if gone:
            self._finished = [block for block in (*self._finished, *gone) if block.end > near]
        return self._remove(gone)

    def _remove(self, gone: list[Block]) -> tuple[Block, ...]:
        for block in gone:
            del self._unread[block]
            del self._blocks[bisect.bisect_left(self._blocks, block)]
        return tuple(gone)


def _up(value: int, grain: int) -> int:
    return -(-value // grain) * grain
