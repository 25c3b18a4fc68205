"""The file of one version in the block cache (``blockformat``). What blocks says so: it belongs into a worker thread.

The index, which grain is in which slot, is in memory while somebody uses the version: 0.5 KiB for each MiB stored.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from ..store.checksum import GRAIN, grain_count
from .blockformat import (
    HEADER_SIZE,
    PAGE,
    RECORD_SIZE,
    UNIT,
    Identity,
    pack_record,
    record_at,
    records,
    slot_at,
    slots_in,
    unit_crcs,
    wrong,
)

_MODE = 0o600
_NEW = 2 * PAGE  # bytes of a file without grains: the header, and the first records


class Damaged(Exception):
    """What is stored is not what was stored. grain: the one that is to be forgotten."""

    def __init__(self, grain: int) -> None:
        super().__init__(f"grain {grain}")
        self.grain = grain


class _Descriptor:
    """Closed when the last one lets go of it: a worker thread that was left behind may still use it, and a number that
    was closed and given to another file would have our bytes written there."""

    __slots__ = ("number",)

    def __init__(self, path: str, flags: int) -> None:
        self.number = -1
        self.number = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, _MODE)
        os.posix_fadvise(self.number, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


@dataclass(frozen=True, slots=True)
class Span:
    """Whole units of one grain that cover a read of ``take`` bytes. at: offset in the file. skip: bytes of the first
    unit that nobody asked for."""

    grain: int
    at: int
    length: int
    first: int
    crcs: bytes
    skip: int
    take: int


class BlockFile:
    """directory: an absolute path. ``load`` comes before everything else."""

    def __init__(self, directory: str, identity: Identity) -> None:
        self.identity = identity
        self.path = os.path.join(directory, identity.name)
        self._header = identity.header()
        self._file: _Descriptor | None = None
        self._grains: dict[int, tuple[int, bytes]] = {}
        self._spare: list[int] = []  # slots whose content is lost
        self._slots = 0

    def load(self) -> bool:
        """Blocks. Reads what is there; False when it was no file of ours, and was removed. Raises OSError."""
        try:
            file = _Descriptor(self.path, os.O_RDWR)
        except FileNotFoundError:
            return True
        os.utime(file.number)  # when it was opened last decides who goes first
        size = self.identity.size
        slots = slots_in(os.fstat(file.number).st_size, size)
        if os.pread(file.number, HEADER_SIZE, 0) != self._header:
            os.unlink(self.path)
            return False
        raw = os.pread(file.number, slots * RECORD_SIZE, record_at(0))
        for slot, record in enumerate(records(self._header, raw, size)):
            if record is None or record[1] in self._grains:
                self._spare.append(slot)
            else:
                self._grains[record[1]] = (slot, record[2])
        self._slots = len(raw) // RECORD_SIZE
        self._file = file
        return True

    def length_of(self, grain: int) -> int:
        return min(GRAIN, self.identity.size - grain * GRAIN)

    def grains_in(self, start: int, length: int) -> range:
        """Those that are whole in ``length`` bytes from ``start``."""
        end = start + length
        return range(-(-start // GRAIN), grain_count(end) if end == self.identity.size else end // GRAIN)

    def find(self, offset: int, end: int) -> list[Span] | None:
        """Where the bytes are; None when one of them is not there. From memory."""
        spans: list[Span] = []
        while offset < end:
            grain, at = divmod(offset, GRAIN)
            found = self._grains.get(grain)
            if found is None:
                return None
            slot, crcs = found
            take = min(end - offset, GRAIN - at)
            first = at // UNIT
            last = min(-(-(at + take) // UNIT) * UNIT, self.length_of(grain))
            begin = slot_at(slot, self.identity.size) + first * UNIT
            spans.append(Span(grain, begin, last - first * UNIT, first, crcs, at - first * UNIT, take))
            offset += take
        return spans

    def read(self, spans: list[Span], flags: int = 0) -> memoryview | bytes:
        """Verified. Blocks, but for RWF_NOWAIT, which raises BlockingIOError where the disk would be waited for.

        Raises Damaged, OSError.
        """
        pieces = [self._read(span, flags) for span in spans]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self, span: Span, flags: int) -> memoryview:
        file = self._file
        if file is None:
            raise Damaged(span.grain)
        units = memoryview(bytearray(span.length))
        if os.preadv(file.number, [units], span.at, flags) < span.length:
            if flags:
                raise BlockingIOError(errno.EAGAIN, "only some of it is in memory")
            raise Damaged(span.grain)
        if wrong(units, span.crcs, span.first):
            raise Damaged(span.grain)
        return units[span.skip : span.skip + span.take]

    def forget(self, grain: int) -> None:
        """It is damaged: its slot is for the next one."""
        found = self._grains.pop(grain, None)
        if found is not None:
            self._spare.append(found[0])

    def close(self) -> None:
        """Nobody reads it any more; a thread that still does keeps the descriptor until it is done."""
        self._file = None
        self._grains = {}

    def cost(self, grains: range) -> int:
        """Bytes that the file takes more, at most, when these are stored."""
        missing = sum(_pages(self.length_of(grain)) for grain in grains if grain not in self._grains)
        return missing + (_NEW if missing and self._file is None else 0)

    def store(self, grain: int, data: memoryview) -> int:
        """Blocks. How many bytes more the file takes. Raises OSError."""
        if grain in self._grains:
            return 0
        grows = 0
        file = self._file
        if file is None:
            file = self._file = _Descriptor(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            _write(file, self._header, 0)
            grows = _NEW
        if self._spare:
            slot = self._spare.pop()
        else:
            slot, self._slots = self._slots, self._slots + 1
            grows += _pages(len(data))
        crcs = unit_crcs(data)
        _write(file, data, slot_at(slot, self.identity.size))
        _write(file, pack_record(self._header, grain, crcs), record_at(slot))
        self._grains[grain] = (slot, crcs)
        return grows


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _write(file: _Descriptor, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file.number, view, at)
        view, at = view[written:], at + written
