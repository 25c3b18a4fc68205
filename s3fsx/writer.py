"""The unpublished content of one file: a buffer for its last part, and the upload the full parts have gone to.

    buffer only     everything is in memory (at most one part): any edit is possible; published by one PUT
    streaming       full parts have left, the buffer is the next part: sequential writes, edits inside the buffer
    settled         a temporary name was closed: every byte is in the store, nothing is visible, waits for its rename

A file is published by ``publish`` (close or fsync of an ordinary name) or by ``commit`` (rename of a temporary one).
After that it is clean, and further writes go on from the published version: from a copy of it in memory when it is
small, from a server-side copy when it is appended to. What would need a random write into a large object is refused
at once with EOPNOTSUPP.

Law: every await that depends on the content holds ``_lock``; ``error`` is sticky, because bytes a program believes
written are gone, and comes out of every later call until the file is opened anew.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from .errors import Changed, DeadlineExceeded, NotFound, NotSupported, S3fsxError, TooLarge
from .memory import CHUNK, Budget
from .objects import MAX_PARTS, MIN_PART, ObjectInfo
from .partbuffer import PartBuffer
from .parts import PartSchedule
from .tempnames import HEAD_BYTES
from .upload import WRITE_ID, Transfers, Upload, copy_object
from .version import Version


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """write: seconds a write may wait for memory; publish: seconds a publication may take;
    in_flight: parts of one file under way at once."""

    write: float
    publish: float
    in_flight: int


class Destination(Protocol):
    """What a writer asks about its file at the moment it matters."""

    @property
    def path(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def new(self) -> bool:
        """No object had this name when it was created."""
        ...

    def metadata(self) -> dict[str, str]: ...

    async def predicted_key(self, head: bytes) -> str | None:
        """The key this temporary name will be renamed to; None: publish under the own name."""
        ...


class Writer:
    """size: bytes, as written so far. dirty: differs from ``base``. base: the published version, None for none yet.
    settled_at: monotonic seconds (trio clock) since when a temporary name waits, None while it does not."""

    def __init__(
        self,
        transfers: Transfers,
        budget: Budget,
        schedule: PartSchedule,
        limits: WriteLimits,
        destination: Destination,
        base: Version | None,
    ) -> None:
        self._transfers = transfers
        self._budget = budget
        self._schedule = schedule
        self._limits = limits
        self._destination = destination
        self._lock = trio.Lock()
        self._lease = budget.admit(schedule.size(1) if schedule.uniform else MIN_PART + CHUNK)
        self._buffer = PartBuffer(self._lease, 0)
        self._tail_sent = True  # the buffer's bytes are in the store as part ``_number``
        self._loaded = base is None  # the buffer and upload hold the content; else it is still ``base``'s
        self._inherited = False  # some of the content comes from ``base``: it must not have changed meanwhile
        self._upload: Upload | None = None
        self._number = 1
        self._predicted = False
        self.base = base
        self.size = base.size if base is not None else 0
        self.dirty = base is None
        self.settled_at: float | None = None
        self.error: S3fsxError | None = None
        self.discarded = False

    def restore(self, upload: Upload) -> None:
        """A settled file of an earlier mount, back from the journal."""
        self._upload = upload
        self._predicted = True
        self._loaded = False
        self.size = upload.record.size
        self.settled_at = trio.current_time()
        self._lease.close()

    # -- reading back

    @property
    def in_memory(self) -> bool:
        return self._loaded and self._upload is None

    def read(self, offset: int, length: int) -> bytes:
        """Of a file that is ``in_memory``; the gap up to ``size`` reads as zeros."""
        length = max(0, min(length, self.size - offset))
        data = self._buffer.read(offset, length) if offset < self._buffer.length else b""
        return data + bytes(length - len(data))

    # -- writing

    async def write(self, offset: int, data: bytes) -> None:
        """All of data or an error. Raises NotSupported for a random write into what has left the buffer."""
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            self._raise_if_failed()
            if not self._loaded:
                await self._load(offset)
            buffer = self._buffer
            if offset < buffer.start:
                raise NotSupported(
                    f"{self._destination.path}: write at {offset} of a large file whose first {buffer.start} bytes "
                    "are in the bucket already: random writes into large objects are not supported"
                )
            self.dirty = True
            self._tail_sent = False
            self.settled_at = None
            if offset > buffer.end:
                await self._extend(offset)
            await self._fill(offset, data)
            self.size = max(self.size, offset + len(data))
        finally:
            self._lock.release()

    async def _fill(self, offset: int, data: bytes) -> None:
        done = 0
        view: bytes | memoryview = data
        while done < len(data):
            buffer = self._buffer
            at = offset + done - buffer.start
            room = min(buffer.length + buffer.room, self._target()) - at
            if room <= 0:
                await self._grow()
                continue
            step = min(room, len(data) - done)
            if done or step < len(data):
                view = memoryview(data)[done : done + step]
            buffer.write(at, view)
            done += step

    def _target(self) -> int:
        return self._schedule.size(self._number)

    async def _grow(self) -> None:
        """Another chunk for the buffer, or a new buffer when the part is full or memory is short."""
        buffer = self._buffer
        if buffer.length >= self._target():
            await self._dispatch()
            return
        if buffer.try_reserve():
            return
        self._budget.press()
        if buffer.try_reserve():
            return
        if buffer.length >= MIN_PART and not self._schedule.uniform:
            await self._dispatch()  # a smaller part than planned gets the memory moving
            return
        with trio.move_on_after(self._limits.write):
            await self._budget.wait_freed()
            return
        self._fail(DeadlineExceeded(f"{self._destination.path}: no memory for {self._limits.write:.0f} s, S3 is slow"))
        self._raise_if_failed()

    async def _extend(self, end: int) -> None:
        """A forward gap, as sparse copies make it: zeros up to ``end``."""
        while self._buffer.end < end:
            buffer = self._buffer
            room = min(buffer.room, self._target() - buffer.length, end - buffer.end)
            if room > 0:
                buffer.append_zeros(room)
            else:
                await self._grow()

    async def _dispatch(self) -> None:
        """Send the full buffer on its way and begin the next part."""
        if self._number >= MAX_PARTS:
            self._fail(
                TooLarge(
                    f"{self._destination.path}: more than {MAX_PARTS} parts; with this part_size and memory_budget a "
                    f"file may have about {self._schedule.capacity() >> 30} GiB: raise memory_budget"
                )
            )
            self._raise_if_failed()
        upload = await self._begin()
        try:
            with trio.fail_after(self._limits.write):
                await upload.room(self._limits.in_flight)
        except trio.TooSlowError:
            self._fail(DeadlineExceeded(f"{self._destination.path}: S3 took no part for {self._limits.write:.0f} s"))
        except S3fsxError as e:
            self._fail(e)
        self._raise_if_failed()
        full = self._buffer
        upload.start(self._number, full.payload(), full.release)
        self._number += 1
        self._buffer = PartBuffer(self._lease, full.end)

    async def _begin(self) -> Upload:
        if self._upload is None:
            key: str | None = None
            try:
                if self._buffer.start == 0:
                    key = await self._destination.predicted_key(self._buffer.read(0, HEAD_BYTES))
                self._predicted = key is not None
                self._upload = await Upload.begin(
                    self._transfers, key or self._destination.key, self._destination.path, self._destination.metadata()
                )
            except S3fsxError as e:
                self._fail(e)
                raise
        return self._upload

    async def _load(self, offset: int) -> None:
        """Make the published content writable at ``offset``: into memory when small, by server-side copy to append."""
        base = self.base
        if base is None or self._upload is not None:
            raise NotSupported(f"{self._destination.path}: cannot be changed before it is renamed")
        if base.size <= self._schedule.size(1):
            await self._load_into_memory(base, base.size)
        elif offset >= base.size:
            await self._load_copy(base, base.size)
        else:
            raise NotSupported(
                f"{self._destination.path}: write at {offset} of an object of {base.size} bytes: "
                "random writes into large objects are not supported"
            )

    async def _load_into_memory(self, base: Version, length: int) -> None:
        data = b""
        if length:
            data = await self._transfers.store.get_range(base.key, 0, length, etag=base.etag)
        self._buffer.cut(0)
        await self._fill(0, data)
        self._loaded = self._inherited = True

    async def _load_copy(self, base: Version, length: int) -> None:
        if not self._transfers.store.capabilities.part_copy:
            raise NotSupported(f"{self._destination.path}: this store has no UploadPartCopy, large files cannot grow")
        self._buffer = PartBuffer(self._lease, 0)
        upload = await Upload.begin(
            self._transfers, self._destination.key, self._destination.path, self._destination.metadata()
        )
        try:
            whole = length - length % self._schedule.size(1) if self._schedule.uniform else length
            self._number = await upload.copy_in(base, whole, self._schedule.size(1) if self._schedule.uniform else 0)
            self._buffer = PartBuffer(self._lease, whole)
            if whole < length:
                tail = await self._transfers.store.get_range(base.key, whole, length - whole, etag=base.etag)
                await self._fill(whole, tail)
        except BaseException:
            upload.abort_later()
            raise
        self._upload = upload
        self._loaded = self._inherited = True

    async def truncate(self, size: int) -> None:
        """Raises NotSupported when bytes would have to be cut that are in the store already and unpublished."""
        async with self._lock:
            if size == 0:
                await self._restart()
                return
            self._raise_if_failed()
            if size == self.size:
                return
            if not self._loaded and self.base is not None and self._upload is None:
                keep = min(size, self.base.size)
                if keep <= self._schedule.size(1):
                    await self._load_into_memory(self.base, keep)
                else:
                    await self._load_copy(self.base, keep)
            if not self._loaded or size < self._buffer.start:
                raise NotSupported(f"{self._destination.path}: cannot be cut to {size} bytes, they have left already")
            if size < self._buffer.end:
                self._buffer.cut(size - self._buffer.start)
            self.size = size
            self.dirty = True
            self._tail_sent = False
            self.settled_at = None

    async def _restart(self) -> None:
        """Truncate to zero: a new stream; the published version stays until the next publication."""
        if self._upload is not None:
            self._upload.abort_later()
            self._upload = None
        self._buffer = PartBuffer(self._lease, 0)
        self._number = 1
        self._loaded = self.dirty = True
        self._inherited = self._predicted = False
        self._tail_sent = True
        self.size = 0
        self.error = None
        self.settled_at = None

    # -- publishing

    async def _send_tail(self, upload: Upload) -> None:
        """What is in the buffer becomes the last part; should more be written, the part is sent again, fuller."""
        await self._extend(self.size)
        if self._buffer.length and not self._tail_sent:
            await upload.send(self._number, self._buffer.payload())
        self._tail_sent = True

    async def settle(self) -> bool:
        """Close of a temporary name: every byte is in the store, nothing is visible. False: no rename is predicted,
        the file must be published like any other."""
        async with self._lock:
            self._raise_if_failed()
            if self.settled_at is not None or self.size == 0:
                return True
            if not self._loaded:
                return self._predicted
            return await self._guarded(self._settle)

    async def _settle(self) -> bool:
        if self._upload is None:
            await self._extend(self.size)
            if self._upload is None and await self._destination.predicted_key(self._buffer.read(0, HEAD_BYTES)) is None:
                return False
        upload = await self._begin()
        if not self._predicted:
            return False
        await self._send_tail(upload)
        await upload.settle(self._destination.path)
        self.settled_at = trio.current_time()
        return True

    async def publish(self) -> None:
        """Close or fsync of an ordinary name: the object is verified in the bucket under its own key. Cheap when clean.

        A temporary name that was to wait is published under its own name too: completed under the predicted key,
        copied on the server, the predicted key removed.
        """
        async with self._lock:
            self._raise_if_failed()
            if self.dirty:
                await self._guarded(self._publish)

    async def _publish(self) -> None:
        own = self._destination.path
        if self._upload is None:
            await self._extend(self.size)  # may begin an upload
        if self._upload is None:
            info = await self._put()
        else:
            upload = self._upload
            info = await self._finish(own, keep_record=self._predicted)
            if self._predicted:
                moved = Version(info)
                info = await copy_object(self._transfers, moved, self._destination.key, own)
                await self._transfers.store.delete(moved.key)
                await upload.forget()
        self._published(info)

    async def commit(self, key: str, path: str) -> bool:
        """Rename of a temporary name to ``key``: one CompleteMultipartUpload when that was the prediction.
        False: it was not; the caller publishes and copies."""
        async with self._lock:
            self._raise_if_failed()
            if not self.dirty or not self._predicted or self._upload is None or self._upload.key != key:
                return False
            await self._guarded(lambda: self._commit(path))
            return True

    async def _commit(self, path: str) -> None:
        self._published(await self._finish(path))

    async def put_as(self, key: str, path: str) -> bool:
        """Rename of a file that is in memory and was never published: it is published there. False: not so."""
        async with self._lock:
            self._raise_if_failed()
            if not self.dirty or not self.in_memory or self.base is not None:
                return False
            await self._guarded(lambda: self._put_as(key))
            return True

    async def _put_as(self, key: str) -> None:
        await self._extend(self.size)
        self._published(await self._put(key))

    async def _put(self, key: str | None = None) -> ObjectInfo:
        await self._check_base()
        metadata = {**self._destination.metadata(), WRITE_ID: uuid.uuid4().hex}
        new = key is None and self.base is None and self._destination.new
        return await self._transfers.store.put(
            key or self._destination.key,
            self._buffer.payload(),
            metadata=metadata,
            only_if_absent=new and self._transfers.store.capabilities.conditional_put,
        )

    async def _finish(self, path: str, *, keep_record: bool = False) -> ObjectInfo:
        upload = self._upload
        assert upload is not None
        if self._loaded:
            await self._send_tail(upload)
        await self._check_base()
        new = self.base is None and self._destination.new
        return await upload.finish(
            path,
            self.size,
            only_if_absent=new and self._transfers.store.capabilities.conditional_complete,
            keep_record=keep_record,
        )

    async def _check_base(self) -> None:
        """Never replace an object that changed remotely since we took part of our content from it."""
        if self._inherited and self.base is not None:
            try:
                there = await self._transfers.store.head(self.base.key)
            except NotFound:
                raise Changed(f"{self._destination.path}: was deleted elsewhere while it was being changed") from None
            if there.etag != self.base.etag:
                raise Changed(f"{self._destination.path}: was replaced elsewhere while it was being changed")

    def _published(self, info: ObjectInfo) -> None:
        self.base = Version(info)
        self.dirty = False
        self.settled_at = None
        self._predicted = False
        if self._upload is not None:
            self._upload = None
            self._buffer.release()
            self._buffer = PartBuffer(self._lease, 0)
            self._number = 1
            self._loaded = False
        self._inherited = True

    async def _guarded(self, action: Callable[[], Awaitable[bool | None]]) -> bool:
        """Run a step of publishing with its deadline; any failure is final for this content."""
        try:
            with trio.fail_after(self._limits.publish):
                return bool(await action())
        except trio.TooSlowError:
            self._fail(
                DeadlineExceeded(f"{self._destination.path}: not in the bucket after {self._limits.publish:.0f} s")
            )
        except S3fsxError as e:
            self._fail(e)
        self._raise_if_failed()
        raise AssertionError("unreachable")

    # -- the end

    def _raise_if_failed(self) -> None:
        if self.error is not None:
            raise self.error

    def _fail(self, error: S3fsxError) -> None:
        if self.error is None:
            self.error = error
            if self._upload is not None:
                self._upload.abort_later()
                self._upload = None

    def release_buffer(self) -> None:
        """The last descriptor is closed: give the memory back. A settled file needs none."""
        self._buffer.release()
        self._loaded = False
        self._lease.close()

    async def discard(self) -> None:
        """The file was deleted, or failed and was closed: nothing of it may stay in the bucket."""
        self.discarded = True
        async with self._lock:
            upload, self._upload = self._upload, None
            if self.error is None:
                self.error = Changed(f"{self._destination.path}: was deleted")
            self.release_buffer()
        if upload is not None:
            await upload.abort()
