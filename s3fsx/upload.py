"""One multipart upload: created, filled part by part, verified, completed or aborted, and journaled all the way.

Nothing of it is visible in the bucket before ``finish`` returns. Before CompleteMultipartUpload the store's own list
of parts is compared with what was sent; after it the size and ETag of the object are. What differs is Corrupted.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from .errors import Changed, Corrupted, NotFound, S3fsxError, StoreError, Transient, UploadGone
from .journal import Journal, UploadRecord
from .objects import MAX_COPY, WRITE_ID, ObjectInfo, Payload, Store, UploadedPart
from .parts import compare_parts, composite_etag, copy_ranges
from .version import Version

log = logging.getLogger("s3fsx.upload")

_COPY_PIECE = 1 << 30
_COPIES_AT_ONCE = 8
_ABORT_AGAIN = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Transfers:
    """What every upload of a mount shares. spawn starts a background task that outlives the caller."""

    store: Store
    journal: Journal
    spawn: Callable[..., Any]


class Upload:
    """parts: what the store has acknowledged, by number. in_flight: being sent. _stray: once completed, the object has
    a name that nobody asked for (yet)."""

    def __init__(self, transfers: Transfers, record: UploadRecord, parts: Mapping[int, UploadedPart]) -> None:
        self._transfers = transfers
        self._store = transfers.store
        self.record = record
        self.parts: dict[int, UploadedPart] = dict(parts)
        self.in_flight = 0
        self.error: S3fsxError | None = None
        self._stray = False
        self._moved = trio.Event()
        self._sending: set[trio.CancelScope] = set()

    @classmethod
    async def begin(cls, transfers: Transfers, key: str, path: str, metadata: Mapping[str, str]) -> Upload:
        """CreateMultipartUpload for ``key``; ``path`` is the file it will be known as."""
        write_id = uuid.uuid4().hex
        record = UploadRecord(write_id, "", "opening", key, path, time.time())
        await transfers.journal.put(record)
        try:
            upload_id = await transfers.store.create_upload(key, metadata={**metadata, WRITE_ID: write_id})
        except StoreError as e:
            if not isinstance(e, Transient):  # else it may have taken effect although its answer was lost
                await transfers.journal.remove(write_id)
            raise
        record = await transfers.journal.change(record, upload_id=upload_id, state="open")
        return cls(transfers, record, {})

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts.values())

    def start(self, number: int, payload: Payload, sent: Callable[[], None]) -> None:
        """Send a part in the background; ``sent`` is called when its memory is free again, failed or not."""
        self.in_flight += 1
        self._transfers.spawn(self._send, number, payload, sent)

    async def _send(self, number: int, payload: Payload, sent: Callable[[], None]) -> None:
        try:
            if self.error is None:
                await self.send(number, payload)
        except S3fsxError as e:
            self.error = self.error or e
        finally:
            sent()
            self.in_flight -= 1
            self._wake()

    async def send(self, number: int, payload: Payload) -> None:
        """Send a part now; a number that was sent before is replaced. Raises UploadGone when stopped meanwhile."""
        with trio.CancelScope() as scope:
            self._sending.add(scope)
            try:
                self.parts[number] = await self._store.upload_part(self.key, self.record.upload_id, number, payload)
            finally:
                self._sending.discard(scope)
        if scope.cancelled_caught:
            raise UploadGone(f"{self.key}: upload aborted")

    def _wake(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def room(self, limit: int) -> None:
        """Until fewer than ``limit`` parts are in flight; raises what a part failed with."""
        while self.in_flight >= limit and self.error is None:
            await self._moved.wait()
        if self.error is not None:
            raise self.error

    async def wait(self) -> None:
        """Until nothing is in flight; raises what a part failed with."""
        while self.in_flight:
            await self._moved.wait()
        if self.error is not None:
            raise self.error

    async def copy_in(self, version: Version, length: int, piece: int = 0) -> int:
        """Fill the upload with the first ``length`` bytes of a published version; the next free part number.

        piece: exact part size where the store insists on equal parts (length is then a multiple of it).
        """
        if piece:
            ranges = tuple((start, piece) for start in range(0, length, piece))
        else:
            ranges = copy_ranges(0, length, _COPY_PIECE)
        await self._copy_ranges(version, ranges)
        return len(ranges) + 1

    async def _copy_ranges(self, version: Version, ranges: tuple[tuple[int, int], ...]) -> None:
        numbered = iter(enumerate(ranges, 1))
        failed: list[S3fsxError] = []

        async def worker() -> None:
            for number, (start, size) in numbered:
                if failed:
                    return
                try:
                    self.parts[number] = await self._store.copy_part(
                        self.key, self.record.upload_id, number, version.key, start, size, etag=version.etag
                    )
                except S3fsxError as e:
                    failed.append(e)

        async with trio.open_nursery() as nursery:
            for _ in range(min(_COPIES_AT_ONCE, len(ranges))):
                nursery.start_soon(worker)
        if failed:
            raise failed[0]

    async def settle(self, path: str) -> None:
        """All parts are in the store: remember that, so that a crash keeps the file, unpublished, under ``path``."""
        await self.wait()
        parts = tuple(part for _, part in sorted(self.parts.items()))
        self.record = await self._transfers.journal.change(
            self.record, state="settled", path=path, size=self.size, parts=parts
        )

    async def finish(self, path: str, size: int, *, only_if_absent: bool = False, stray: bool = False) -> ObjectInfo:
        """Verify, complete, verify again: the object is ``size`` bytes under ``key`` when this returns. May be
        repeated when it failed, also where only the answer of Complete was lost.

        path: what the file will be called if we crash in between. stray: ``abort`` is to remove the object. The caller
        ends with ``forget`` or ``abort``. Raises Corrupted, Changed (somebody else's object is there instead of ours),
        Exists with only_if_absent.
        """
        await self.wait()
        ours = [part for _, part in sorted(self.parts.items())]
        if sum(part.size for part in ours) != size:
            raise Corrupted(f"{self.key}: {sum(p.size for p in ours)} bytes in parts, {size} were written")
        self._stray = stray
        try:
            theirs = await self._store.list_parts(self.key, self.record.upload_id)
        except UploadGone:
            if self.record.state != "publishing":
                raise
            # Completed by an earlier attempt whose answer was lost: what is there is confirmed below.
        else:
            if difference := compare_parts(ours, up_to(ours, theirs)):
                raise Corrupted(f"{self.key}: the store's parts differ from what was written: {difference}")
            self.record = await self._transfers.journal.change(
                self.record, state="publishing", path=path, size=size, parts=tuple(ours)
            )
            await self._store.complete_upload(self.key, self.record.upload_id, ours, only_if_absent=only_if_absent)
        return await self.confirm()

    async def forget(self) -> None:
        """The journal need not know this upload any more."""
        await self._transfers.journal.remove(self.record.write_id)

    async def taken(self) -> bool:
        """Another's object is there under our key."""
        try:
            info = await self._store.head(self.key)
        except NotFound:
            return False
        return (info.metadata or {}).get(WRITE_ID) != self.record.write_id

    async def confirm(self) -> ObjectInfo:
        """The object under our key is the one we completed, whole."""
        try:
            info = await self._store.head(self.key)
        except NotFound:
            raise Corrupted(f"{self.key}: was completed, and is not there") from None
        if (info.metadata or {}).get(WRITE_ID) != self.record.write_id:
            raise Changed(f"{self.key}: another writer replaced it at the same moment")
        expected = composite_etag([part.etag for _, part in sorted(self.parts.items())])
        if info.size != self.record.size or (expected and _is_composite(info.etag) and info.etag != expected):
            await self._store.delete(self.key)  # it carries our write id: a wrong object must not look like a backup
            raise Corrupted(
                f"{self.key}: published with {info.size} bytes, ETag {info.etag}; {self.record.size} bytes, "
                f"{expected} were written; removed again"
            )
        return info

    def withdraw(self, number: int) -> None:
        """The last part is not wanted any more: the store drops at Complete what it does not name."""
        self.parts.pop(number, None)

    def stop(self) -> None:
        """Send nothing more; who waits for a part gets UploadGone."""
        self.error = self.error or UploadGone(f"{self.key}: upload aborted")
        for scope in self._sending:
            scope.cancel()
        self._wake()

    async def abort(self) -> None:
        """Stop sending and leave nothing behind. If the store cannot be reached the journal keeps it for later."""
        self.stop()
        self.record = await self._transfers.journal.change(self.record, state="aborting")
        while self.in_flight:  # a part that arrives after the abort would stay as an orphan
            await self._moved.wait()
        await abort_record(self._transfers, self.record, stray=self._stray)

    def abort_later(self) -> None:
        self._transfers.spawn(self.abort_quietly)

    async def abort_quietly(self) -> None:
        try:
            await self.abort()
        except S3fsxError as e:
            log.warning("%s: could not abort the upload now (%s); it will be tried again", self.key, e)
            self._transfers.spawn(self._abort_in_the_end)

    async def _abort_in_the_end(self) -> None:
        """A mount may last for months, and parts cost money all the while. Should it end first, the next one aborts."""
        while True:
            await trio.sleep(_ABORT_AGAIN)
            try:
                return await self.abort()
            except S3fsxError:
                continue


def _is_composite(etag: str) -> bool:
    """Stores that encrypt or rewrite give ETags of other shapes; those say nothing about the content."""
    digest, _, count = etag.partition("-")
    return len(digest) == 32 and count.isdigit()


def up_to(ours: Sequence[UploadedPart], theirs: Sequence[UploadedPart]) -> list[UploadedPart]:
    """Their parts without those behind our last one: a tail that was sent and then cut off the file again."""
    last = max((part.number for part in ours), default=0)
    return [part for part in theirs if part.number <= last]


async def made_by(store: Store, key: str, write_id: str) -> ObjectInfo | None:
    """The object under a key, if this write made it or what it is a copy of."""
    try:
        info = await store.head(key)
    except NotFound:
        return None
    return info if (info.metadata or {}).get(WRITE_ID) == write_id else None


async def abort_record(transfers: Transfers, record: UploadRecord, *, stray: bool) -> None:
    """stray: should the upload have been completed after all, its object goes too."""
    await transfers.store.abort_upload(record.key, record.upload_id)
    if stray and await made_by(transfers.store, record.key, record.write_id) is not None:
        await transfers.store.delete(record.key)
    await transfers.journal.remove(record.write_id)


async def copy_object(
    transfers: Transfers, source: Version, target: str, path: str, metadata: Mapping[str, str] | None = None
) -> ObjectInfo:
    """Server-side copy of any size; metadata None keeps the source's. Above 5 GiB in parallel parts.

    Raises Changed when the source is no longer the version we know.
    """
    store = transfers.store
    if source.size <= MAX_COPY:
        return await store.copy(source.key, target, etag=source.etag, metadata=metadata)
    if metadata is None:
        metadata = {k: v for k, v in ((await store.head(source.key)).metadata or {}).items() if k != WRITE_ID}
    upload = await Upload.begin(transfers, target, path, metadata)
    try:
        await upload.copy_in(source, source.size)
        info = await upload.finish(path, source.size)
        await upload.forget()
        return info
    except (S3fsxError, trio.Cancelled):
        upload.abort_later()
        raise
