"""One multipart upload: created, filled part by part, verified, completed or aborted, and journaled all the way.

Nothing of it is visible in the bucket before ``finish`` returns. Before CompleteMultipartUpload the store's own list
of parts is compared with what was sent; after it the size of the object and its ETag (see ``compositeetags``) are. What
differs is Corrupted.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import trio

from ..errors import Changed, Corrupted, DeadlineExceeded, NotFound, S3fsxError, Transient, UploadGone
from ..local.journal import JournalError
from ..local.records import UploadRecord
from ..store.objects import WRITE_ID, ObjectInfo, Payload, Store, UploadedPart, UploadInfo
from ..store.parts import compare_parts, composite_etag, copy_ranges, up_to
from ..transfer.slots import Slots
from .compositeetags import CompositeEtags
from .protection import Protection
from .unpublished import Unpublished
from .version import Version

log = logging.getLogger("s3fsx.upload")

_COPY_PIECE = 1 << 30
_COPIES_AT_ONCE = 8
_ABORT_AGAIN = 60.0  # seconds
_CREATE_AGAIN = (0.2, 0.5, 1.0, 2.0)  # seconds between attempts to begin an upload
# Clock skew beyond 15 minutes is refused by S3 itself.
_SAME_MOMENT = 900.0


class UploadJournal(Protocol):
    """Where uploads are remembered: ``journal.Journal``, or the copy of a dead node's."""

    async def put(self, record: UploadRecord) -> None: ...

    async def change(self, record: UploadRecord, **changes: Any) -> UploadRecord: ...

    async def remove(self, write_id: str) -> None: ...

    async def records(self) -> list[UploadRecord]: ...


@dataclass(frozen=True, slots=True)
class Transfers:
    """What every upload of a mount shares. spawn starts a background task that outlives the caller. protection is asked
    before an object is replaced. strays: what the journal holds about objects under keys they are not to keep, by
    key. creating: keys an upload is asked for now. etags: of completed uploads. slots: for parts being sent.
    unpublished: who has something to publish."""

    store: Store
    journal: UploadJournal
    spawn: Callable[..., Any]
    protection: Protection
    strays: dict[str, UploadRecord] = field(default_factory=dict)
    creating: list[str] = field(default_factory=list)
    etags: CompositeEtags = field(default_factory=CompositeEtags)
    slots: Slots = field(default_factory=Slots)
    unpublished: Unpublished = field(default_factory=Unpublished)

    async def claim(self, key: str, path: str, write_id: str = "") -> None:
        """Something else is about to be published under ``key``: an object that an unfinished publication left there
        and was still to remove becomes that something, and must not be removed any more. write_id: not this one."""
        record = self.strays.get(key)
        if record is not None and record.write_id != write_id:
            del self.strays[key]
            await self.journal.change(record, state="aborting", key=key, path=path)


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
        for again in (*_CREATE_AGAIN, None):
            # A record for each attempt: what a lost one left, or is still to leave, must be found later.
            record = UploadRecord(uuid.uuid4().hex, "", "opening", key, path, time.time())
            await transfers.journal.put(record)
            transfers.creating.append(key)
            try:
                upload_id = await transfers.store.create_upload(key, metadata={**metadata, WRITE_ID: record.write_id})
            except (Transient, DeadlineExceeded) as e:  # it may have taken effect although its answer was lost
                lost = e
                transfers.spawn(_sweep_in_the_end, transfers, record)
            except S3fsxError:
                await transfers.journal.remove(record.write_id)
                raise
            else:
                return cls(transfers, await transfers.journal.change(record, upload_id=upload_id, state="open"), {})
            finally:
                transfers.creating.remove(key)
            if again is None or isinstance(lost, DeadlineExceeded) or not await _sweep(transfers, record):
                raise lost
            await trio.sleep(again)
        raise AssertionError("unreachable")

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
            e.with_traceback(None)  # which would keep the payload
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
                async with self._transfers.slots.transfer(payload.size):
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
            self.record, state="settled", path=path, size=self.size, parts=parts, resent=None
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
        await self._transfers.claim(self.key, path, self.record.write_id)
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
                self.record, state="publishing", path=path, size=size, parts=tuple(ours), resent=None
            )
            await self._store.complete_upload(self.key, self.record.upload_id, ours, only_if_absent=only_if_absent)
        info = await self.confirm()
        if stray:
            self.record = await self._transfers.journal.change(self.record, etag=info.etag, modified=info.modified)
            self._transfers.strays[self.key] = self.record
        return info

    async def forget(self) -> None:
        """The journal need not know this upload any more."""
        self._transfers.strays.pop(self.key, None)
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
        if info.size != self.record.size or not self._transfers.etags.fits(info.etag, expected):
            # It carries our write id: a wrong object must not look like a backup.
            await self._store.delete(self.key, known=info)
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
        if self._stray and self.record.modified and self.key not in self._transfers.strays:
            self._stray = False  # claimed: the object belongs to a later publication
        self.record = replace(self.record, state="removing" if self._stray else "aborting")
        with suppress(JournalError):  # a full disk keeps no part in the bucket; that the record stays is told below
            await self._transfers.journal.put(self.record)
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
    if stray:
        await remove_stray(transfers, record)
    if transfers.strays.get(record.key, record).write_id == record.write_id:
        transfers.strays.pop(record.key, None)
    await transfers.journal.remove(record.write_id)


async def remove_stray(transfers: Transfers, record: UploadRecord) -> None:
    """Delete the object that was completed under a key it is not to keep, and nothing else: a server-side copy back to
    that key has the same write id, but not the same time. One that somebody protected meanwhile stays."""
    store = transfers.store
    info = await made_by(store, record.key, record.write_id)
    if info is None or (record.modified and (info.etag, info.modified) != (record.etag, record.modified)):
        return
    if not await transfers.protection.keeps(record.key):
        await store.delete(record.key, known=info)


async def abort_lost(transfers: Transfers, record: UploadRecord) -> None:
    """An upload we asked for and whose id we never learnt: recognised by its key and the time it was begun. One that
    the journal knows is not it, and of more than we lost none is touched: other nodes use the bucket, too."""
    records = await transfers.journal.records()
    known = {r.upload_id for r in records}
    ours = sum(1 for r in records if r.key == record.key and r.state == "opening")
    there = [u for u in await transfers.store.list_uploads(record.key) if u.key == record.key]
    lost = [u for u in there if u.upload_id not in known and abs(u.initiated - record.created) < _SAME_MOMENT]
    # Ours never got a part; one that has some is another node's, at work.
    empty = [upload for upload in lost if not await _has_parts(transfers.store, upload)]
    if len(empty) > ours:
        log.warning("%s: %d unfinished uploads could be ours; not touched", record.key, len(empty))
        return
    for upload in empty:
        await transfers.store.abort_upload(upload.key, upload.upload_id)


async def _has_parts(store: Store, upload: UploadInfo) -> bool:
    try:
        return bool(await store.list_parts(upload.key, upload.upload_id))
    except (UploadGone, NotFound):
        return True


async def _sweep(transfers: Transfers, record: UploadRecord) -> bool:
    """Whether nothing of a lost attempt is left now: only then another may be made."""
    if record.key in transfers.creating:
        return False  # an upload that is just being made would look like the lost one
    try:
        await abort_lost(transfers, record)
    except S3fsxError:
        return False
    return True


async def _sweep_in_the_end(transfers: Transfers, record: UploadRecord) -> None:
    """Twice: a store that hung works off what it was asked before, in any order, when it goes on."""
    for _ in range(2):
        swept = False
        while not swept:
            await trio.sleep(_ABORT_AGAIN)
            swept = await _sweep(transfers, record)
    while True:
        try:
            return await transfers.journal.remove(record.write_id)
        except JournalError as e:
            log.warning("%s: %s; tried again", record.key, e)
            await trio.sleep(_ABORT_AGAIN)
