"""What the attempts of a write had for effect: a failed one may have had its own, and the next finds it in the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from ..errors import Changed, NotFound, S3fsxError
from ..store.objects import WRITE_ID, ObjectInfo

Head = Callable[[str], Awaitable[ObjectInfo]]


async def written_by_us(head: Head, key: str, size: int, write_id: str | None, etag: str) -> ObjectInfo | None:
    """The object that is there, if it is the one we tried to write: an earlier attempt had its effect."""
    try:
        there = await head(key)
    except NotFound:
        return None
    mine = (there.metadata or {}).get(WRITE_ID) == write_id if write_id else bool(etag) and there.etag == etag
    return there if mine and there.size == size else None


async def check_still(head: Head, source: str, etag: str) -> ObjectInfo:
    """Ceph RGW 16 ignores x-amz-copy-source-if-match; that the source is the same afterwards says the same. Of a copy
    onto itself only what was there before can be told: between the two is the time of one request. Raises Changed."""
    there = await head(source)
    if etag and there.etag != etag:
        raise Changed(f"COPY {source}: it changed while it was copied")
    return there


async def copied(
    head: Head, original: ObjectInfo, target: str, metadata: Mapping[str, str] | None
) -> ObjectInfo | None:
    """The target, if it is what the copy was to make: the failed attempts had their effect. One write has one content,
    and so has one ETag."""
    try:
        there = await head(target)
    except S3fsxError:
        return None
    wanted = (original.metadata or {}) if metadata is None else metadata
    same = bool(wanted.get(WRITE_ID)) or there.etag == original.etag
    return there if same and there.size == original.size and there.metadata == wanted else None
