"""The checksums of one version of one object, and the bytes they are stored as. Pure.

Stored beside the objects, under ``name(key, etag)``. All numbers in network order:

    8 bytes   "S3FSXS01"
    u32 x 2   length of the key (UTF-8), length of the ETag
    u64       size of the object
    u32 x 2   size of a grain, number of parts
              the key, the ETag
    u64 each  size of a part; bit 63: its checksums are not known
    u32 each  CRC-32 of a grain, part by part; grains are counted from the beginning of their part
    u32       CRC-32 of all of the above

About four bytes per MiB. What comes from the store is believed in nothing: every length is checked before it is used.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import Corrupted
from .checksum import GRAIN, crc32, grain_count, grain_crcs
from .objects import MAX_OBJECT, MAX_PARTS, ObjectInfo

# An object up to this size is fetched whole, so that its MD5 can be compared with its ETag; larger ones need sums.
WHOLE = 8 << 20
# Of an object of 5 TiB in 10 000 parts, each with a short last grain: 21.1 MB.
LIMIT = 22 << 20

_MAGIC = b"S3FSXS01"
_HEAD = struct.Struct(">8sIIQII")
_UNKNOWN = 1 << 63
_MAX_KEY = 1024  # bytes, as S3 has it
_ETAG = re.compile(r"[0-9A-Za-z-]{1,64}")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class PartSums:
    """size: bytes. grains: as ``checksum.grain_crcs`` makes them, b"" where they are not known."""

    size: int
    grains: bytes


@dataclass(frozen=True, slots=True)
class Checked:
    """verified: bytes that were compared with a checksum. wrong: offset in the object of the first grain that differs
    from its own, None when all agree."""

    verified: int
    wrong: int | None


def is_md5(etag: str) -> bool:
    """By its looks: see ``Capabilities.md5_etags``."""
    return _MD5.fullmatch(etag) is not None


def needed(info: ObjectInfo) -> bool:
    """Its ETag cannot tell whether it was read right."""
    return info.size > WHOLE or (info.size > 0 and not is_md5(info.etag))


def name(key: str, etag: str) -> str | None:
    """Of the object that holds the sums; None for an ETag that no object name can be made of."""
    if _ETAG.fullmatch(etag) is None:
        return None
    return f"{stem(key)}-{etag}"


def stem(key: str) -> str:
    """What the names of all versions of a key begin with, up to the first "-"."""
    return hashlib.sha256(_bytes(key)).hexdigest()[:32]


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


class Sums:
    """Of the version ``etag`` of ``key``. parts: in order, each at least one byte; their sizes add up to ``size``."""

    __slots__ = ("_starts", "etag", "key", "parts", "size")

    def __init__(self, key: str, etag: str, parts: Iterable[PartSums]) -> None:
        self.key = key
        self.etag = etag
        self.parts = tuple(parts)
        self._starts = [0, *itertools.accumulate(part.size for part in self.parts)]
        self.size = self._starts.pop()

    @property
    def weight(self) -> int:
        """Bytes in memory, roughly."""
        return 400 + sum(150 + len(part.grains) for part in self.parts)

    def moved(self, key: str, etag: str) -> Sums:
        """Of a copy."""
        return Sums(key, etag, self.parts)

    def _overlapping(self, start: int, end: int) -> Iterator[tuple[int, PartSums]]:
        """(start of the part, part)."""
        for i in range(max(0, bisect.bisect_right(self._starts, start) - 1), len(self.parts)):
            if self._starts[i] >= end:
                return
            yield self._starts[i], self.parts[i]

    def cover(self, start: int, end: int) -> tuple[int, int]:
        """The range, and what more it takes to have every grain in it whole."""
        first, last = start, min(end, self.size)
        for at, part in self._overlapping(start, end):
            if part.grains and at < start:
                first = start - (start - at) % GRAIN
            if part.grains and end < at + part.size:
                last = end + -(end - at) % GRAIN
                last = min(last, at + part.size)
        return first, last

    def check(self, start: int, data: bytes) -> Checked:
        """Compare the grains that are whole in ``data``, which begins at ``start`` of the object."""
        view, end, verified = memoryview(data), start + len(data), 0
        for at, part in self._overlapping(start, end):
            if not part.grains:
                continue
            first = max(0, -(-(start - at) // GRAIN))
            stop = min(part.size, end - at)
            last = grain_count(stop) if stop == part.size else stop // GRAIN
            if first >= last:
                continue
            begin, stop = at + first * GRAIN, at + min(last * GRAIN, part.size)
            found, known = grain_crcs((view[begin - start : stop - start],)), part.grains[4 * first : 4 * last]
            if found != known:
                wrong = next(i for i in range(last - first) if found[4 * i : 4 * i + 4] != known[4 * i : 4 * i + 4])
                return Checked(verified, begin + wrong * GRAIN)
            verified += stop - begin
        return Checked(verified, None)

    def grains_of(self, start: int, length: int) -> bytes:
        """Of that range as a part of its own; b"" where it is not made of grains that are known."""
        end = start + length
        if end > self.size:
            return b""
        found = []
        for at, part in self._overlapping(start, end):
            begin, stop = max(start, at) - at, min(end, at + part.size) - at
            # The last grain may be short at the end of the range, and only there.
            aligned = begin % GRAIN == 0 and (stop % GRAIN == 0 or (stop == part.size and at + stop == end))
            if not part.grains or not aligned or (at + begin - start) % GRAIN:
                return b""
            found.append(part.grains[4 * (begin // GRAIN) : 4 * grain_count(stop)])
        return b"".join(found)

    def encode(self) -> bytes:
        key, etag = _bytes(self.key), self.etag.encode()
        body = b"".join(
            (
                _HEAD.pack(_MAGIC, len(key), len(etag), self.size, GRAIN, len(self.parts)),
                key,
                etag,
                *(struct.pack(">Q", part.size | (0 if part.grains else _UNKNOWN)) for part in self.parts),
                *(part.grains for part in self.parts),
            )
        )
        return body + struct.pack(">I", crc32(body))


def decode(data: bytes) -> Sums:
    """Raises Corrupted for anything that ``encode`` did not make."""
    if len(data) < _HEAD.size + 4 or len(data) > LIMIT:
        raise Corrupted(f"checksums: {len(data)} bytes cannot be right")
    body, (crc,) = memoryview(data)[:-4], struct.unpack(">I", data[-4:])
    if crc32(body) != crc:
        raise Corrupted("checksums: they do not match their own checksum")
    magic, key_length, etag_length, size, grain, count = _HEAD.unpack_from(body)
    if magic != _MAGIC or grain != GRAIN or not 0 < count <= MAX_PARTS or not 0 < size <= MAX_OBJECT:
        raise Corrupted("checksums: of an unknown format")
    if key_length > _MAX_KEY or etag_length > 64 or len(body) < _HEAD.size + key_length + etag_length + 8 * count:
        raise Corrupted("checksums: cut short")
    at = _HEAD.size
    key, at = bytes(body[at : at + key_length]), at + key_length
    etag, at = bytes(body[at : at + etag_length]), at + etag_length
    sizes: Sequence[int] = struct.unpack_from(f">{count}Q", body, at)
    at += 8 * count
    parts = []
    for flagged in sizes:
        part = flagged & ~_UNKNOWN
        length = 0 if flagged & _UNKNOWN else 4 * grain_count(part)
        if part == 0 or length > len(body) - at:
            raise Corrupted("checksums: their parts make no sense")
        parts.append(PartSums(part, bytes(body[at : at + length])))
        at += length
    if at != len(body) or sum(part.size for part in parts) != size:
        raise Corrupted("checksums: their parts make no sense")
    try:
        return Sums(key.decode(errors="surrogateescape"), etag.decode("ascii"), parts)
    except UnicodeDecodeError:
        raise Corrupted("checksums: of no ETag") from None
