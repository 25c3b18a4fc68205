"""A store whose reads are verified: what a range of an object cannot tell by itself is fetched along with it.

    an object of up to 8 MiB whose ETag is an MD5    is fetched whole, and its MD5 compared with the ETag
    one that s3fsx wrote and that is larger          has sums (``sums``): every MiB that a range touches is compared
    any other                                        is read as it comes, and counted as unverified

What differs is fetched again, data and sums, and is Corrupted (EIO) when it goes on to differ. Sums are stored when an
upload was completed, follow its copies, and go when it is deleted. Nothing else changes on the way through.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import trio

from ..errors import Corrupted, NotFound, S3fsxError, StoreError
from ..transfer.threads import in_thread
from .checksum import GRAIN
from .objects import LIST_LIMIT, Capabilities, ListPage, ObjectInfo, Payload, Store, UploadedPart, UploadInfo
from .parts import composite_etag
from .sums import WHOLE, PartSums, Sums, is_md5, needed
from .sumstore import ATTEMPTS, SumStore

T = TypeVar("T")

log = logging.getLogger("s3fsx.verify")

_OPAQUE = 1000
_THREADS = 4
_WIDENED = 2
# Bytes whose checksum takes 0.1 ms, which is about what a thread costs, and on a busy machine ms pass until it runs.
_CRC_AT_ONCE = GRAIN
_MD5_AT_ONCE = 64 << 10


@dataclass
class ReadCounters:
    """Bytes that were compared with a checksum, and that had none to be compared with; differences that were gone when
    the bytes were fetched again, and that were not."""

    verified: int = 0
    unverified: int = 0
    healed: int = 0
    fatal: int = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    """The last range that was fetched for a smaller one: a reader without memory will ask for its next bytes next."""

    key: str
    etag: str
    start: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Came:
    """What a range became once it was fetched. sums: None where there are none."""

    start: int
    data: bytes
    sums: Sums | None


class VerifiedStore:
    """Implements ``objects.Store``. prefix: of the mount. reads: verify them; sums are stored in any case. in_thread:
    runs a function that takes milliseconds (a MiB is checked in the loop).

    _opaque: objects whose ETag only looks like an MD5. _md5_seen: a read-only mount, which could not try, has met an
    object whose ETag was its MD5: that is no accident. _early: the ETag under which sums were stored of an upload that
    may not have been completed, by upload id. _etags_add_up: an object's is what those of its parts make.
    """

    def __init__(
        self, inner: Store, prefix: str, *, reads: bool = True, in_thread: Callable[..., Any] | None = None
    ) -> None:
        self.counters = ReadCounters()
        self.sums = SumStore(inner, prefix)
        self._inner = inner
        self._reads = reads
        self._in_thread = in_thread or InThreads()
        self._opaque: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._md5_seen = False
        self._early: dict[str, str] = {}
        self._etags_add_up = True
        self._kept = _Kept("", "", 0, b"")
        self._widening = trio.CapacityLimiter(_WIDENED)  # of bytes that no budget knows of

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    @property
    def down(self) -> bool:
        return self._inner.down

    def patience(self, what: str) -> AbstractContextManager[None]:
        return self._inner.patience(what)

    # -- reading

    async def get_range(self, key: str, start: int, length: int, *, etag: str, size: int = 0) -> bytes:
        kept = self._kept
        at = start - kept.start
        if (kept.key, kept.etag) == (key, etag) and 0 <= at <= len(kept.data) - length:
            return kept.data[at : at + length]
        if not (self._reads and etag and length):
            return await self._unverified(key, start, length, etag)
        if not 0 < size <= WHOLE or not is_md5(etag):
            return await self._by_sums(key, start, length, etag, size)
        if self.capabilities.md5_etags is False or (key, etag) in self._opaque:
            return await self._unverified(key, start, length, etag)
        if length == size:
            return await self._by_md5(key, etag, size)
        async with self._widening:
            return self._keep(key, etag, 0, await self._by_md5(key, etag, size), start, length)

    async def get(self, key: str, *, limit: int) -> bytes:
        return await self._inner.get(key, limit=limit)

    async def _unverified(self, key: str, start: int, length: int, etag: str) -> bytes:
        data = await self._inner.get_range(key, start, length, etag=etag)
        self.counters.unverified += length
        return data

    def _keep(self, key: str, etag: str, at: int, data: bytes, start: int, length: int) -> bytes:
        if len(data) <= WHOLE + 2 * GRAIN:
            self._kept = _Kept(key, etag, at, data)
        return data[start - at : start - at + length]

    async def _by_md5(self, key: str, etag: str, size: int) -> bytes:
        before = b""
        for attempt in range(1, ATTEMPTS + 1):
            data = await self._inner.get_range(key, 0, size, etag=etag)
            if (_md5(data) if size <= _MD5_AT_ONCE else await self._in_thread(_md5, data)) == etag:
                self._md5_seen = True
                self._count(size, healed=attempt > 1)
                return data
            if attempt == 1 and await self._is_opaque(key, etag):
                self.counters.unverified += size
                return data
            if data == before and not (self.capabilities.md5_etags or self._md5_seen):
                self._remember_opaque(key, etag)
                self.counters.unverified += size
                return data
            before = data
            if attempt == 1:
                self._warn(key, 0, f"its MD5 is not its ETag {etag}")
        raise self._fatal(key, 0, f"its MD5 is not its ETag {etag}")

    async def _is_opaque(self, key: str, etag: str) -> bool:
        """Asked when they differ: a HEAD says how the object is encrypted."""
        info = await self._inner.head(key)
        if info.opaque_etag and info.etag == etag:
            self._remember_opaque(key, etag)
            return True
        return False

    def _remember_opaque(self, key: str, etag: str) -> None:
        self._opaque[key, etag] = None
        if len(self._opaque) > _OPAQUE:
            self._opaque.popitem(last=False)

    async def _by_sums(self, key: str, start: int, length: int, etag: str, size: int) -> bytes:
        wrong = 0
        for attempt in range(1, ATTEMPTS + 1):
            came = await self._fetch(key, start, length, etag, size, anew=attempt > 1)
            if came.sums is None:
                self.counters.unverified += length
                return came.data
            if size and came.sums.size != size:
                raise self._fatal(key, 0, f"its checksums are of {came.sums.size} bytes, it has {size}")
            if len(came.data) <= _CRC_AT_ONCE:
                found = came.sums.check(came.start, came.data)
            else:
                found = await self._in_thread(came.sums.check, came.start, came.data)
            if found.wrong is None:
                self._count(found.verified, healed=attempt > 1)
                self.counters.unverified += len(came.data) - found.verified
                if len(came.data) == length:
                    return came.data
                return self._keep(key, etag, came.start, came.data, start, length)
            wrong = found.wrong
            if attempt == 1:
                self._warn(key, wrong, "the CRC-32 is wrong")
        raise self._fatal(key, wrong, "the CRC-32 is wrong")

    async def _fetch(self, key: str, start: int, length: int, etag: str, size: int, *, anew: bool) -> _Came:
        """The range, with what has to be around it to be verified. The sums of an object that is read for the first
        time come at the same time, so that the first byte does not wait for them: nearly all parts are whole MiBs."""
        end, data = start + length, b""
        known = None if anew else self.sums.known(key, etag)
        if known is not None:
            sums = known.sums
        elif start % GRAIN == 0 and (end % GRAIN == 0 or end == size):
            data, sums = await self._both(key, start, length, etag, anew=anew)
        else:
            sums = await self.sums.get(key, etag, anew=anew)
        first, last = (start, end) if sums is None else sums.cover(start, end)
        if not data or (first, last) != (start, end):
            data = await self._inner.get_range(key, first, last - first, etag=etag)
        return _Came(first, data, sums)

    async def _both(self, key: str, start: int, length: int, etag: str, *, anew: bool) -> tuple[bytes, Sums | None]:
        data, sums = b"", None
        failed: list[S3fsxError] = []

        async def load() -> None:
            nonlocal sums
            try:
                sums = await self.sums.get(key, etag, anew=anew)
            except S3fsxError as e:
                failed.append(e)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            try:
                data = await self._inner.get_range(key, start, length, etag=etag)
            except S3fsxError as e:
                failed.insert(0, e)
                nursery.cancel_scope.cancel()
        if failed:
            raise failed[0]
        return data, sums

    def _count(self, verified: int, *, healed: bool) -> None:
        self.counters.verified += verified
        self.counters.healed += healed

    def _warn(self, key: str, offset: int, why: str) -> None:
        log.warning("%s: what came from the store at offset %d is not what was stored: %s; again", key, offset, why)

    def _fatal(self, key: str, offset: int, why: str) -> Corrupted:
        self.counters.fatal += 1
        return Corrupted(f"{key}: {ATTEMPTS} times wrong bytes came from the store at offset {offset}: {why}")

    # -- writing

    async def put(
        self, key: str, payload: Payload, *, metadata: Mapping[str, str], only_if_absent: bool = False
    ) -> ObjectInfo:
        info = await self._inner.put(key, payload, metadata=metadata, only_if_absent=only_if_absent)
        if needed(info):
            await self.sums.put(Sums(key, info.etag, [PartSums(payload.size, payload.grains)]))
        else:
            await self.sums.replaced(key, info.etag)
        return info

    async def upload_part(self, key: str, upload_id: str, number: int, payload: Payload) -> UploadedPart:
        part = await self._inner.upload_part(key, upload_id, number, payload)
        return replace(part, grains=payload.grains)

    async def copy_part(
        self, key: str, upload_id: str, number: int, source: str, start: int, length: int, *, etag: str
    ) -> UploadedPart:
        part = await self._inner.copy_part(key, upload_id, number, source, start, length, etag=etag)
        sums = await self._of_source(source, etag)
        return part if sums is None else replace(part, grains=sums.grains_of(start, length))

    async def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], *, only_if_absent: bool = False
    ) -> str:
        """The sums are stored at the same time, which hides their round trip: the parts tell the ETag that the object
        is to have. Of an upload that is aborted instead they go."""
        if not any(part.grains for part in parts):
            return await self._inner.complete_upload(key, upload_id, parts, only_if_absent=only_if_absent)
        foreseen = composite_etag(part.etag for part in parts) or ""
        sums = Sums(key, foreseen, [PartSums(part.size, part.grains) for part in parts if part.size])
        early, etag, why = bool(foreseen) and self._etags_add_up, "", ""
        failed: list[S3fsxError] = []

        async def store() -> None:
            nonlocal why
            why = await self.sums.store(sums)

        async with trio.open_nursery() as nursery:
            if early:
                self._early[upload_id] = foreseen
                nursery.start_soon(store)
            try:
                etag = await self._inner.complete_upload(key, upload_id, parts, only_if_absent=only_if_absent)
            except S3fsxError as e:
                failed.append(e)
                nursery.cancel_scope.cancel()
        if failed:
            raise failed[0]
        self._early.pop(upload_id, None)
        etag = etag or foreseen
        self._etags_add_up = etag == foreseen
        if early and etag == foreseen:
            await self.sums.published(sums, why)
        elif etag:
            await self.sums.put(sums.moved(key, etag))
            if early:
                await self.sums.drop((key, foreseen))
        return etag

    async def copy(
        self, source: str, target: str, *, etag: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        info = await self._inner.copy(source, target, etag=etag, metadata=metadata)
        if not needed(info):
            await self.sums.replaced(target, info.etag)
        elif (source, etag) != (target, info.etag):
            sums = await self._of_source(source, etag)
            if sums is None:
                await self.sums.replaced(target, info.etag)
            else:
                await self.sums.put(sums.moved(target, info.etag))
        return info

    async def _of_source(self, key: str, etag: str) -> Sums | None:
        try:
            return await self.sums.get(key, etag) if etag else None
        except S3fsxError as e:
            log.warning("%s: the checksums of a copy of it cannot be had: %s", key, e)
            return None

    async def delete(self, key: str, *, known: ObjectInfo | None = None) -> None:
        await self._inner.delete(key)
        if known is not None and needed(known):
            await self.sums.drop((key, known.etag))

    async def delete_many(self, doomed: Mapping[str, ObjectInfo | None]) -> Mapping[str, StoreError]:
        failed = await self._inner.delete_many(doomed)
        gone = [info for key, info in doomed.items() if info is not None and key not in failed and needed(info)]
        await self.sums.drop(*((info.key, info.etag) for info in gone))
        return failed

    # -- what passes through

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "/",
        token: str | None = None,
        limit: int = LIST_LIMIT,
        early: Callable[[str], object] | None = None,
    ) -> ListPage:
        return await self._inner.list_page(prefix, delimiter=delimiter, token=token, limit=limit, early=early)

    async def head(self, key: str) -> ObjectInfo:
        return await self._inner.head(key)

    async def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        return await self._inner.create_upload(key, metadata=metadata)

    async def list_parts(self, key: str, upload_id: str) -> tuple[UploadedPart, ...]:
        return await self._inner.list_parts(key, upload_id)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        await self._inner.abort_upload(key, upload_id)
        etag = self._early.pop(upload_id, None)
        if etag is not None and not await self._is_there(key, etag):
            await self.sums.drop((key, etag))

    async def _is_there(self, key: str, etag: str) -> bool:
        """That version after all, or another of the same bytes; also where the store does not say."""
        try:
            return (await self._inner.head(key)).etag == etag
        except NotFound:
            return False
        except S3fsxError:
            return True

    async def list_uploads(self, prefix: str) -> tuple[UploadInfo, ...]:
        return await self._inner.list_uploads(prefix)

    async def legal_hold(self, key: str) -> bool:
        return await self._inner.legal_hold(key)

    async def set_legal_hold(self, key: str, on: bool) -> None:
        await self._inner.set_legal_hold(key, on)

    async def retained_until(self, key: str) -> float:
        return await self._inner.retained_until(key)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class InThreads:
    """Checksums of 8 MiB take 1 to 10 ms: not in the event loop."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(_THREADS)

    async def __call__(self, function: Callable[..., T], *args: Any) -> T:
        result: T = await in_thread(function, *args, limiter=self._limiter, abandon=False)
        return result
