"""File contents that are checked without being stored: made anew from a seed, block by block."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass

BLOCK = 1 << 20
ZSTD = b"\x28\xb5\x2f\xfd"  # what vzdump's .dat begins with; s3fsx reads the final name off it
_BASE = random.Random(1).randbytes(2 * BLOCK)
_HEADER = struct.Struct("<4sQQ")


@dataclass(frozen=True)
class Content:
    """``size`` bytes, incompressible, and at no offset like those of another seed: a mix of two versions shows."""

    seed: int
    size: int
    magic: bytes = ZSTD

    @property
    def blocks(self) -> int:
        return -(-self.size // BLOCK)

    def block(self, index: int) -> bytes:
        """Bytes index * BLOCK and on; the last one is shorter."""
        header = _HEADER.pack(self.magic, self.seed, index)
        shift = zlib.crc32(header) % BLOCK
        length = min(BLOCK, self.size - index * BLOCK)
        return (header + _BASE[shift + len(header) : shift + BLOCK])[:length]
