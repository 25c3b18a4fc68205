"""How an object is cut into parts, and how the parts are checked against the whole.

Pure arithmetic over the limits of S3 (``objects``): part sizes that grow with the part number, ranges for
server-side copies, and the multipart ETag.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..errors import ConfigError, TooLarge
from .checksum import GRAIN
from .objects import MAX_OBJECT, MAX_PART, MAX_PARTS, MIN_PART, UploadedPart

# (parts, factor): 1000 parts of ``first``, then 2000 of twice that, ... The sum of parts x factor is 721 000,
# so with first = 8 MiB the schedule holds 5.5 TiB, 10 % more than S3's 5 TiB, while the first 7.8 GiB need
# buffers of 8 MiB only and the first 100 GiB of 32 MiB.
_GROWTH = ((1000, 1), (2000, 2), (2000, 4), (500, 8), (500, 16), (250, 32), (250, 64), (3500, 192))
_LAST_NUMBERS = tuple(itertools.accumulate(count for count, _ in _GROWTH))


@dataclass(frozen=True, slots=True)
class PartSchedule:
    """The size of each part of an upload whose final size is unknown.

    first: bytes of part 1, at least MIN_PART.
    largest: no part is larger (memory budget); at least ``first``.
    uniform: every part has the size ``first``, for stores that insist on equal parts (Cloudflare R2).
    count: parts that an upload may have; with fewer than MAX_PARTS (Scaleway: 1000) they grow sooner.

    Raises ConfigError when these contradict each other or S3.
    """

    first: int
    largest: int
    uniform: bool = False
    count: int = MAX_PARTS

    def __post_init__(self) -> None:
        if not MIN_PART <= self.first <= MAX_PART:
            raise ConfigError(f"part size {self.first} is not within S3's limits, {MIN_PART} to {MAX_PART} bytes")
        if not 1 <= self.count <= MAX_PARTS:
            raise ConfigError(f"an upload has 1 to {MAX_PARTS} parts, not {self.count}")
        if self.largest < self.first:
            raise ConfigError(f"the largest part, {self.largest} bytes, is smaller than the first, {self.first} bytes")

    @classmethod
    def uniform_for(cls, capacity: int, largest: int) -> PartSchedule:
        """The smallest equal parts, in whole MiB, with which an object of ``capacity`` bytes fits.

        Raises TooLarge when that is more than an object or ``largest`` allows.
        """
        size = max(MIN_PART, -(-capacity // MAX_PARTS))
        size = -(-size >> 20) << 20
        if capacity > MAX_OBJECT or size > min(largest, MAX_PART):
            raise TooLarge(f"{capacity} bytes do not fit into {MAX_PARTS} parts of at most {largest} bytes")
        return cls(size, largest, uniform=True)

    def size(self, number: int) -> int:
        """Target size in bytes of part ``number`` (from 1). A growing schedule's part may be sent sooner, from
        MIN_PART on, which uses numbers up faster and changes nothing here. Raises TooLarge after ``count``."""
        if not 1 <= number <= self.count:
            raise TooLarge(f"an upload has parts 1 to {self.count}, not {number}")
        if self.uniform:
            return self.first
        return self._clip(_GROWTH[bisect.bisect_left(self._last_numbers(), number)][1])

    def capacity(self) -> int:
        """Bytes of the largest object that fits when every part has its target size."""
        if self.uniform:
            return min(MAX_OBJECT, self.first * self.count)
        total, before = 0, 0
        for last, (_, factor) in zip(self._last_numbers(), _GROWTH, strict=True):
            total += (last - before) * self._clip(factor)
            before = last
        return min(MAX_OBJECT, total)

    def _last_numbers(self) -> tuple[int, ...]:
        """The last part of each step of _GROWTH, in the proportions it has among MAX_PARTS."""
        if self.count == MAX_PARTS:
            return _LAST_NUMBERS
        return tuple(last * self.count // MAX_PARTS for last in _LAST_NUMBERS)

    def _clip(self, factor: int) -> int:
        return min(self.first * factor, self.largest, MAX_PART)


def copy_ranges(start: int, length: int, piece: int) -> tuple[tuple[int, int], ...]:
    """Cut ``length`` bytes from ``start`` into (start, length) ranges for UploadPartCopy.

    About ``piece`` bytes each, all equal but the last, which is never larger; each at least MIN_PART, so that
    other parts may follow (unless the whole is smaller), and at most MAX_PART; at most MAX_PARTS of them. Whole grains
    but for the last, so that the checksums of what is copied are those of the copy.
    Raises TooLarge for more than MAX_OBJECT bytes.
    """
    if length > MAX_OBJECT:
        raise TooLarge(f"{length} bytes are more than an object can have")
    if length <= 0:
        return ()
    piece = min(max(piece, MIN_PART), MAX_PART)
    count = min(-(-length // piece), MAX_PARTS)
    while True:
        each = -(-length // (count * GRAIN)) * GRAIN
        count = -(-length // each)
        tail = length - (count - 1) * each
        # Too short a last range: one fewer, each larger.
        if tail >= MIN_PART or count == 1:
            break
        count -= 1
    return tuple((start + i * each, each if i < count - 1 else tail) for i in range(count))


def composite_etag(etags: Iterable[str]) -> str | None:
    """The ETag S3 gives to a multipart object: MD5 of its parts' MD5s, "-", their number.

    None when there is no part, or when a part's ETag is not an MD5 (encrypted with KMS, or the store's own
    invention): then the object's ETag says nothing about its bytes.
    """
    digests = []
    for etag in etags:
        if not re.fullmatch(r"[0-9a-fA-F]{32}", etag):
            return None
        digests.append(bytes.fromhex(etag))
    if not digests:
        return None
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def compare_parts(ours: Sequence[UploadedPart], theirs: Sequence[UploadedPart]) -> str | None:
    """None when the store lists the very parts that were sent (numbers, sizes, ETags; in any order), else one
    line that names the first difference. CRCs are not compared: a listing has none."""
    sent = sorted(ours, key=lambda part: part.number)
    stored = sorted(theirs, key=lambda part: part.number)
    for mine, its in zip(sent, stored, strict=False):
        if mine.number != its.number:
            number = min(mine.number, its.number)
            return f"part {number} was {'sent but is not stored' if number == mine.number else 'stored but not sent'}"
        if mine.size != its.size:
            return f"part {mine.number}: {mine.size} bytes were sent, {its.size} are stored"
        if mine.etag != its.etag:
            return f"part {mine.number}: its ETag was {mine.etag!r} when sent, {its.etag!r} is stored"
    if len(sent) != len(stored):
        return f"{len(sent)} parts were sent, {len(stored)} are stored"
    return None


def up_to(ours: Sequence[UploadedPart], theirs: Sequence[UploadedPart]) -> list[UploadedPart]:
    """Their parts without those behind our last one: a tail that was sent and then cut off the file again."""
    last = max((part.number for part in ours), default=0)
    return [part for part in theirs if part.number <= last]


def sent_again(
    ours: Sequence[UploadedPart], theirs: Sequence[UploadedPart], announced: UploadedPart | None
) -> UploadedPart | None:
    """The store's last part, when it is all that differs and is the announced one: a file that was closed and then
    written to again has that part sent once more, under the same number. Told by its size, and its CRC-32 where the
    store lists one; the ETag it would get nobody knew when it was announced."""
    if announced is None or not ours or not theirs or compare_parts(ours[:-1], theirs[:-1]) is not None:
        return None
    last = theirs[-1]
    if (last.number, last.size) != (announced.number, announced.size) or last.number != ours[-1].number:
        return None
    return replace(announced, etag=last.etag) if last.crc32 in (None, announced.crc32) else None
