"""The read-ahead window of one open file: which byte ranges to fetch, and which to let go.

Pure: the caller fetches. The file is cut into *blocks*, the units of fetching, as it is read; the window
knows the blocks it has planned and not dropped, and they never overlap.

A *run* is a stretch of sequential reading. The further a run has come, the further ahead it looks and the
larger its blocks are: as far ahead as it has read, in blocks of up to that size, from ``first`` to ``block``
(so ``head -c 1M`` plans 3 MiB at most). At two blocks it stays until the reader *starved*, had to wait for a block:
then the distance doubles, up to ``limit``, at most once per distance read, and blocks are twice as large: half as many
requests are 20 % more MB/s where the store shares our processors, and over a thin link a block would take too long. A
reader that is slower than the store therefore holds two blocks, whatever the limit is.

A read elsewhere starts a new run with one small block and nothing ahead, so a reader at random places fetches about
``first`` bytes per read: what can be verified by itself. The latest ``RUNS`` runs are kept, so that several streams
of one open file (a virtual disk has them) do not disturb one another. The kernel sends its
read-ahead in requests that overtake one another, so a run tolerates reads within ``NEAR`` of its front; it looks ahead
only while at least half of what it passes over is really read, so strides do not pass for sequential reading.

Runs that look ahead share ``limit``. A run that is not gone on with while ``IDLE`` bytes are read elsewhere was left,
and what was fetched for it is not wanted any more.

State is bounded: each block lies between ``front - NEAR - block`` and ``front + limit + 2 block`` of one of the runs,
but for those the last read needed.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from ..store.checksum import GRAIN

FIRST = GRAIN  # less cannot be verified
BLOCK = 8 << 20
NEAR = 4 << 20  # the largest read_ahead_kb s3fsx sets: requests arrive out of order within it
BACK = 1 << 20  # blocks that were read completely stay this far behind the front, for small steps back
RUNS = 4
IDLE = 4 << 20


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


class _Run:
    """A stretch of sequential reading.

    front: end of its furthest read. tail: none of its blocks ends earlier. last: the window's clock at its latest read.
    most: how far ahead it may look. grows_at: the front at which ``most`` may double again.
    passed: bytes the front has moved over, and read: bytes of them that were asked for. Both are halved when they
        exceed what decides anything, so that the ratio follows what the reader does now.
    finished: blocks that were read completely and dropped, at most NEAR behind: a read in one of them is a second
        reading, hence a new run, not a request that was overtaken.
    """

    __slots__ = ("finished", "front", "grows_at", "last", "most", "passed", "read", "tail")

    def __init__(self, offset: int, end: int, most: int) -> None:
        self.front = end
        self.tail = offset
        self.last = 0
        self.most = most
        self.grows_at = offset + most
        self.passed = self.read = end - offset
        self.finished: tuple[Block, ...] = ()

    @property
    def ahead(self) -> int:
        """How many bytes beyond its front it would plan."""
        return min(self.most, self.read) if 2 * self.read >= self.passed else 0

    def wants(self, block: Block, unread: int) -> bool:
        """Completely read blocks are kept until they are BACK behind, others until nothing out of order can want
        them; ahead, those that it would plan."""
        behind = NEAR if unread else BACK
        return block.end > self.front - behind and block.start < self.front + max(1, self.ahead)


class Window:
    """Read-ahead decisions for one open file of ``size`` bytes.

    first: the smallest fetch, and the grid on which random reads are fetched; a power of two.
    block: the largest fetch, but for a reader that starved, for whom it is twice as much; a power-of-two multiple of
        ``first``.
    limit: how far ahead of the readers to plan at most; 0 for no read-ahead.

    Attributes:
        _blocks: the known blocks, sorted, and _starts: where each of them begins.
        _unread: for each known block, how many of its bytes no read has asked for yet.
        _runs: the latest last. _clock: bytes read in all.
    """

    def __init__(self, size: int, *, first: int = FIRST, block: int = BLOCK, limit: int) -> None:
        if first <= 0 or first & (first - 1) or block < first or (block // first) & (block // first - 1):
            raise ValueError("first must be a power of two, block a power-of-two multiple of it")
        self._size = size
        self._first = first
        self._block = block
        self._limit = max(0, limit)
        self._modest = min(self._limit, 2 * block)
        self._blocks: list[Block] = []
        self._starts: list[int] = []
        self._unread: dict[Block, int] = {}
        self._runs: list[_Run] = []
        self._clock = 0

    @property
    def planned(self) -> int:
        """Bytes in the known blocks, read or not."""
        return sum(block.length for block in self._blocks)

    @property
    def ahead(self) -> int:
        """How many bytes beyond its front the latest run may plan now."""
        return self._ahead(self._runs[-1]) if self._runs else 0

    def knows(self, block: Block) -> bool:
        """It is planned, and not dropped."""
        return block in self._unread

    def holds(self, offset: int, end: int) -> bool:
        """Some of these bytes are in a known block."""
        return bool(self._overlapping(offset, end))

    def read(self, offset: int, length: int) -> Plan:
        """Plan for a read of ``length`` bytes at ``offset``; what lies beyond the file's end is not planned."""
        end = min(offset + length, self._size)
        if offset >= end:
            return Plan()
        self._clock += end - offset
        run = self._run_at(offset)
        if run is None:
            return self._begin(offset, end)
        before = run.front
        self._advance(run, offset, end)
        i = bisect.bisect_right(self._starts, offset) - 1
        if i >= 0 and run.read >= self._modest and before // GRAIN == run.front // GRAIN:
            block = self._blocks[i]
            if end <= block.end:  # nearly always: nothing new to decide within a MiB
                self._unread[block] = max(0, self._unread[block] - (end - offset))
                return Plan((block,))
        need = self._need(offset, end)
        planned: list[Block] = []
        if ahead := self._ahead(run):
            unit = self._unit(run)
            planned = self._cover(run.front, _up(run.front + ahead, unit), unit)
        dropped = self._drop_behind(run, need) + self._end_idle(need)
        return Plan(need, tuple(planned), dropped)

    def starved(self) -> None:
        """The read that was planned last has to wait for its bytes: its run may look further ahead."""
        run = self._runs[-1]
        if run.front >= run.grows_at and run.most < self._limit:
            run.most = min(self._limit, 2 * run.most)
            run.grows_at = run.front + run.most

    def shrink(self) -> tuple[Block, ...]:
        """Memory is short: halve the distances ahead (they grow again with what is read from now on) and forget the
        blocks beyond them. Nobody has read from these yet."""
        for run in self._runs:
            run.read = run.passed = self._ahead(run) // 2
            run.most = max(self._modest, run.most // 2)
            run.grows_at = run.front + run.most
        return self._unwanted(())

    def forget(self, block: Block) -> None:
        """The fetch of the block failed, or its bytes were given away: plan it anew when it is read."""
        if block in self._unread:
            self._remove([block])

    # -- runs

    def _run_at(self, offset: int) -> _Run | None:
        """The run that a read at ``offset`` goes on with, now the latest: the nearest, else the one that has planned
        the place."""
        runs = self._runs
        if not runs or runs[-1].front == offset:
            return runs[-1] if runs else None
        found = min(runs, key=lambda run: abs(run.front - offset))
        if abs(found.front - offset) > NEAR:
            if not self._overlapping(offset, offset + 1):
                return None
            ahead = [run for run in runs if run.front <= offset < run.front + 2 * self._block + run.ahead]
            if not ahead:
                return None
            found = max(ahead, key=lambda run: run.front)
        elif self._is_again(found, offset):
            return None
        if found is not runs[-1]:
            runs.remove(found)
            runs.append(found)
        return found

    def _is_again(self, run: _Run, offset: int) -> bool:
        again = any(block.start <= offset < block.end for block in run.finished)
        return again and not self._overlapping(offset, offset + 1)

    def _begin(self, offset: int, end: int) -> Plan:
        need = self._need(offset, end)
        run = _Run(offset, end, self._modest)
        run.last = self._clock
        gone = self._runs[: -RUNS + 1] if len(self._runs) >= RUNS else []
        self._runs = [*self._runs[len(gone) :], run]
        return Plan(need, (), self._unwanted(need) if gone else self._end_idle(need))

    def _advance(self, run: _Run, offset: int, end: int) -> None:
        run.last = self._clock
        if end > run.front:
            run.passed += end - run.front
            run.front = end
        run.read = min(run.read + end - offset, run.passed)
        if run.passed > 2 * max(self._limit, 2 * self._block):
            run.passed //= 2
            run.read //= 2

    def _ahead(self, run: _Run) -> int:
        ahead = run.ahead
        if ahead and len(self._runs) > 1:
            return min(ahead, self._limit // sum(1 for other in self._runs if other is run or other.ahead))
        return ahead

    def _unit(self, run: _Run) -> int:
        """Size of blocks ahead: the power of two at or below what the run has read; two fit into the limit."""
        wanted = min(run.read, self._limit // 2)
        largest = 2 * self._block if run.most > self._modest else self._block
        return min(max(self._first, 1 << max(0, wanted.bit_length() - 1)), largest)

    def _end_idle(self, keep: tuple[Block, ...]) -> tuple[Block, ...]:
        if len(self._runs) == 1 or self._clock - self._runs[0].last <= IDLE:
            return ()
        self._runs = [run for run in self._runs if self._clock - run.last <= IDLE]
        return self._unwanted(keep)

    # -- blocks

    def _need(self, offset: int, end: int) -> tuple[Block, ...]:
        self._cover(offset, _up(end, self._first), self._block)
        need = self._overlapping(offset, end)
        for block in need:
            asked = min(end, block.end) - max(offset, block.start)
            self._unread[block] = max(0, self._unread[block] - asked)
        return tuple(need)

    def _cover(self, start: int, stop: int, piece: int) -> list[Block]:
        """Make blocks for whatever is not known between start, rounded down to the ``first`` grid, and stop; they
        end at multiples of ``piece``."""
        stop = min(stop, self._size)
        made: list[Block] = []
        position = start
        while position < stop:
            i = bisect.bisect_right(self._starts, position)
            before = self._blocks[i - 1].end if i else 0
            if before > position:
                position = before
                continue
            after = self._starts[i] if i < len(self._starts) else stop
            begin = max(before, position - position % self._first)
            block = Block(begin, min(stop, after, _up(position + 1, piece)) - begin)
            self._blocks.insert(i, block)
            self._starts.insert(i, begin)
            self._unread[block] = block.length
            made.append(block)
            position = block.end
        return made

    def _overlapping(self, start: int, stop: int) -> list[Block]:
        i = bisect.bisect_right(self._starts, start)
        if i and self._blocks[i - 1].end > start:
            i -= 1
        return self._blocks[i : bisect.bisect_left(self._starts, stop, lo=i)]

    def _drop_behind(self, run: _Run, keep: tuple[Block, ...]) -> tuple[Block, ...]:
        """Blocks that the run has passed, and that no other run wants."""
        gone: list[Block] = []
        tail = run.front - BACK
        for block in self._overlapping(run.tail, run.front - BACK):
            if block.end > run.front - BACK or block in keep or run.wants(block, self._unread[block]):
                tail = min(tail, block.start)
            elif not any(other.wants(block, self._unread[block]) for other in self._runs if other is not run):
                gone.append(block)
        run.tail = max(run.tail, tail)
        if gone:
            run.finished = tuple(block for block in (*run.finished, *gone) if block.end > run.front - NEAR)
        return self._remove(gone)

    def _unwanted(self, keep: tuple[Block, ...]) -> tuple[Block, ...]:
        return self._remove(
            [
                block
                for block in self._blocks
                if block not in keep and not any(run.wants(block, self._unread[block]) for run in self._runs)
            ]
        )

    def _remove(self, gone: list[Block]) -> tuple[Block, ...]:
        for block in gone:
            del self._unread[block]
            i = bisect.bisect_left(self._starts, block.start)
            del self._blocks[i], self._starts[i]
        return tuple(gone)


def _up(value: int, grain: int) -> int:
    return -(-value // grain) * grain
