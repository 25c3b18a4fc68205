"""The bytes of one part on their way to the store, in chunks from the budget, with the CRC-32s of what came in."""

from __future__ import annotations

from ..store.checksum import crc32
from ..store.objects import Payload
from .memory import CHUNK, Lease

_ZEROS = bytes(CHUNK)


class PartBuffer:
    """Holds ``length`` bytes that start at ``start`` of the file. Not bounded itself: the writer asks the lease.

    chunks: CHUNK-sized, all but the last full; each was taken from the lease by ``reserve``. A chunk is a grain.
    _crcs: of each chunk, of the kernel's own buffers as they came. _rewritten: chunks that were not only appended to.
    """

    __slots__ = ("_crcs", "_lease", "_rewritten", "chunks", "length", "start")

    def __init__(self, lease: Lease, start: int) -> None:
        self._lease = lease
        self._crcs: list[int] = []
        self._rewritten: set[int] = set()
        self.start = start
        self.length = 0
        self.chunks: list[bytearray] = []

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def room(self) -> int:
        """Bytes that can be appended without more memory."""
        return len(self.chunks) * CHUNK - self.length

    def try_reserve(self) -> bool:
        """One more chunk, if the budget has it."""
        if not self._lease.try_take(CHUNK):
            return False
        self.chunks.append(self._lease.budget.new_chunk())
        return True

    def write(self, position: int, data: bytes | memoryview) -> None:
        """Put data at ``position`` (relative to start, at most ``length``); the room must be there."""
        size = len(data)
        index, at = divmod(position, CHUNK)
        if at + size <= CHUNK:
            self._write(index, at, data)
        else:
            view = memoryview(data)
            done = 0
            while done < size:
                index, at = divmod(position + done, CHUNK)
                step = min(CHUNK - at, size - done)
                self._write(index, at, view[done : done + step])
                done += step

    def _write(self, index: int, at: int, data: bytes | memoryview) -> None:
        """Within one chunk."""
        position = index * CHUNK + at
        if index == len(self._crcs):
            self._crcs.append(0)
        if position == self.length:
            self._crcs[index] = crc32(data, self._crcs[index])
        else:
            self._rewritten.add(index)
        memoryview(self.chunks[index])[at : at + len(data)] = data  # a bytearray would copy data first
        self.length = max(self.length, position + len(data))

    def append_zeros(self, count: int) -> None:
        """At most the room there is."""
        while count:
            step = min(count, CHUNK)
            self.write(self.length, memoryview(_ZEROS)[:step])
            count -= step

    def read(self, position: int, size: int) -> bytes:
        size = max(0, min(size, self.length - position))
        pieces = []
        while size:
            index, at = divmod(position, CHUNK)
            step = min(CHUNK - at, size)
            pieces.append(bytes(memoryview(self.chunks[index])[at : at + step]))
            position += step
            size -= step
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def cut(self, length: int) -> None:
        """Forget everything behind ``length``."""
        self.length = length
        keep = -(-length // CHUNK)
        del self._crcs[keep:]
        self._rewritten = {index for index in self._rewritten if index < keep}
        if length % CHUNK:
            self._rewritten.add(keep - 1)
        for chunk in self.chunks[keep:]:
            self._lease.give(CHUNK)
            self._lease.budget.recycle(chunk)
        del self.chunks[keep:]

    def payload(self) -> Payload:
        """Views of the chunks (no copy): nobody may write until it is sent.

        The CRCs were made write by write, from the kernel's own buffer; only that of a chunk that was rewritten is
        made anew from the chunk.
        """
        views = []
        left = self.length
        for chunk in self.chunks:
            if left <= 0:
                break
            views.append(memoryview(chunk)[: min(left, CHUNK)])
            left -= CHUNK
        for index in self._rewritten:
            self._crcs[index] = crc32(views[index])
        self._rewritten.clear()
        return Payload(views, self.length, b"".join(crc.to_bytes(4, "big") for crc in self._crcs))

    def release(self) -> None:
        self.cut(0)
