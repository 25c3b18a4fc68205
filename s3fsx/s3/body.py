"""A request body read straight from a Payload's chunks.

urllib3 asks for 16 KiB at a time, but what it gets goes to one ``sendall``; Python limits a whole ``sendall``
by the socket's timeout, and urllib3 has the *connect* timeout set while it sends. So a block is small
enough for a slow link (256 KiB in 5 s: 51 KiB/s per connection is the slowest that works) and large enough
to cost nothing (4 000 system calls per GiB).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from ..errors import Corrupted
from ..store.checksum import GRAIN, grain_crcs
from ..store.objects import Payload

BLOCK = 256 << 10


class CorruptedInMemory(Corrupted):
    """Not the wire's doing: sending again cannot help."""


class Body:
    """File-like enough for botocore (length, signing, rewinding) and urllib3 (reading); copies nothing.

    ``interrupted`` is called before each block and raises to give the transfer up.
    """

    def __init__(self, payload: Payload, interrupted: Callable[[], None] = lambda: None) -> None:
        self._chunks = [memoryview(chunk).cast("B") for chunk in payload.chunks if len(chunk)]
        self._size = sum(map(len, self._chunks))
        self._interrupted = interrupted
        self._position = 0
        self._index = 0  # of the chunk that holds the position
        self._start = 0  # position of that chunk's first byte

    def __len__(self) -> int:
        return self._size

    def read(self, amount: int = -1) -> bytes | memoryview:
        """The next block, of up to BLOCK bytes whatever positive ``amount`` was asked; b"" at the end."""
        if amount is None or amount < 0:
            blocks = []
            while block := self.read(BLOCK):
                blocks.append(block)
            return b"".join(blocks)
        if self._position >= self._size:
            return b""
        self._interrupted()
        chunk = self._chunks[self._index]
        offset = self._position - self._start
        block = chunk[offset : offset + BLOCK]
        self._position += len(block)
        if self._position == self._start + len(chunk):
            self._start = self._position
            self._index += 1
        return block

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._position, self._size)[whence]
        self._position = min(max(base + offset, 0), self._size)
        self._index = self._start = 0
        while self._index < len(self._chunks) and self._start + len(self._chunks[self._index]) <= self._position:
            self._start += len(self._chunks[self._index])
            self._index += 1
        return self._position


class TwoFacedBody(Body):
    """Sends other bytes than it was signed for: the probe's way to see whether the store looks at the hash."""

    def __init__(self, signed: Payload, sent: Payload) -> None:
        super().__init__(signed)
        self._sent = sent

    def seek(self, offset: int, whence: int = 0) -> int:
        if self._position:  # the signer has read all and rewinds
            self._chunks = [memoryview(chunk).cast("B") for chunk in self._sent.chunks]
        return super().seek(offset, whence)


def check_crcs(payload: Payload, what: str) -> None:
    """Raises CorruptedInMemory when the chunks are no longer what was handed over."""
    size, found = sum(map(len, payload.chunks)), grain_crcs(payload.chunks)
    if size != payload.size:
        raise CorruptedInMemory(f"{what}: {size} bytes in memory, {payload.size} written")
    if found != payload.grains:
        pairs = enumerate(zip(found, payload.grains, strict=True))
        grain = next(i // 4 for i, (a, b) in pairs if a != b)
        raise CorruptedInMemory(
            f"{what}: other bytes in memory than were written, between {grain * GRAIN} and {(grain + 1) * GRAIN}"
        )


def md5(payload: Payload) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in payload.chunks:
        digest.update(chunk)
    return digest.hexdigest()


def crc32_header(crc: int) -> str:
    """The value of x-amz-checksum-crc32: base64 of the big-endian number."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def crc32_of_header(value: str | None) -> int | None:
    """None where there is no value or not one of a single part (a composite ends in -N, and no CRC-32 has other
    than four bytes)."""
    if not value or "-" in value:
        return None
    raw = base64.b64decode(value)
    return int.from_bytes(raw, "big") if len(raw) == 4 else None
