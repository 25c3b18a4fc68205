"""The bytes of a file that is being written: a buffer for its last part, and the upload that took the full ones.

    in memory    everything is in the buffer (at most one part): any edit is possible
    streaming    full parts have left, the buffer is the next part: sequential writes, and edits inside the buffer

What would need a random write into bytes that have left is refused at once with NotSupported. A published file is
made writable again from a copy of it in memory when it is small, from a server-side copy when it is appended to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import trio

from ..errors import DeadlineExceeded, NotSupported, TooLarge
from ..store.objects import MIN_PART, Payload, UploadedPart
from ..store.parts import PartSchedule
from ..transfer.memory import CHUNK, Budget
from ..transfer.partbuffer import PartBuffer
from .tempnames import HEAD_BYTES
from .upload import Transfers, Upload
from .version import Version

# Parts of one file that wait for a place beside those that fill all of them: the next one is there at once.
_QUEUED = 2
# Seconds between two attempts to get memory others could give up: a reader may have become idle meanwhile.
_PRESS_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """write: seconds a write may wait for memory; publish: seconds a publication may take."""

    write: float
    publish: float


class Destination(Protocol):
    """What is asked about the file at the moment it matters."""

    @property
    def path(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def new(self) -> bool:
        """No object had this name when it was created."""
        ...

    def metadata(self) -> Mapping[str, str]: ...

    async def predicted_key(self, head: bytes) -> str | None:
        """The key this temporary name will be renamed to; None: publish under the own name."""
        ...


class Content:
    """Not locked and not sticky: its one user, the Writer, is.

    size: bytes, as written so far. upload: None while in memory. loaded: buffer and upload hold the content; else it
    is still the published version's. inherited: some of it comes from that version. predicted: the upload's key is
    not the file's own but the one it will be renamed to.
    """

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
        self._capacity = schedule.capacity()
        self._limits = limits
        self._destination = destination
        # Enough to fill and send one part of the smallest legal size, see memory.py.
        self._lease = budget.admit(schedule.size(1) if schedule.uniform else MIN_PART + CHUNK)
        self._buffer = PartBuffer(self._lease, 0)
        self._tail_sent = True  # the buffer's bytes are in the store as part ``_number``
        self._number = 1
        self.upload: Upload | None = None
        self.loaded = base is None
        self.inherited = False
        self.predicted = False
        self.size = base.size if base is not None else 0

    @property
    def in_memory(self) -> bool:
        return self.loaded and self.upload is None

    def read(self, offset: int, length: int) -> bytes:
        """Of content that is ``in_memory``; the gap up to ``size`` reads as zeros."""
        length = max(0, min(length, self.size - offset))
        data = self._buffer.read(offset, length) if offset < self._buffer.length else b""
        return data + bytes(length - len(data))

    def head(self) -> bytes:
        """The first bytes of content that is in memory."""
        return self._buffer.read(0, HEAD_BYTES)

    # -- taking bytes in

    def try_append(self, offset: int, data: bytes) -> bool:
        """What nearly every write is: it goes on where the buffer ends, which has room for it. False: use ``write``."""
        buffer = self._buffer
        size = len(data)
        if not self.loaded or offset != buffer.end or buffer.length + size > self._target():
            return False
        if offset + size > self._capacity:
            return False
        if buffer.room < size and not (size <= CHUNK and buffer.try_reserve()):
            return False
        buffer.write(buffer.length, data)
        self._tail_sent = False
        self.size = max(self.size, offset + size)
        return True

    async def write(self, base: Version | None, offset: int, data: bytes) -> None:
        """All of data, or an error. base: the published version, where the content is not loaded yet."""
        self._require_room(offset + len(data))
        if not self.loaded:
            await self._load(base, offset)
        if offset < self._buffer.start:
            raise NotSupported(
                f"{self._destination.path}: write at {offset} of a large file whose first {self._buffer.start} bytes "
                "are in the bucket already: random writes into large objects are not supported"
            )
        self._tail_sent = False
        if offset > self._buffer.end:
            await self.extend(offset)
        await self._fill(offset, data)
        self.size = max(self.size, offset + len(data))

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

    async def extend(self, end: int) -> None:
        """A forward gap, as sparse copies make it: zeros up to ``end``."""
        while self._buffer.end < end:
            buffer = self._buffer
            room = min(buffer.room, self._target() - buffer.length, end - buffer.end)
            if room > 0:
                buffer.append_zeros(room)
                self._tail_sent = False
            else:
                await self._grow()

    def _target(self) -> int:
        return self._schedule.size(self._number)

    async def _grow(self) -> None:
        """Another chunk for the buffer, or a new buffer when the part is full or memory is short."""
        buffer = self._buffer
        if buffer.length >= self._target():
            await self._dispatch()
            return
        with trio.move_on_after(self._limits.write) as waiting:
            while not buffer.try_reserve():
                self._lease.press(CHUNK)
                if buffer.try_reserve():
                    return
                idle = self.upload is None or self.upload.in_flight == 0
                if idle and buffer.length >= MIN_PART and not self._schedule.uniform:
                    break
                with trio.move_on_after(_PRESS_AGAIN):
                    await self._budget.wait_freed()
            else:
                return
        if waiting.cancelled_caught:
            raise DeadlineExceeded(f"{self._destination.path}: no memory for {self._limits.write:.0f} s, S3 is slow")
        # Others hold the memory: a smaller part than planned gets ours moving. (With parts of our own under way their
        # memory comes back, and small parts would only use up the 10 000 numbers.)
        await self._dispatch()

    @property
    def could_shed(self) -> bool:
        """The buffer holds more than the reservation, and is enough for a part that is not the last possible one."""
        enough = self._buffer.length >= MIN_PART and self._lease.held > self._lease.reserve
        return enough and not self._schedule.uniform and self._number < self._schedule.count

    async def shed(self, *, published: bool) -> None:
        """Give up memory that is promised to another writer: send the part as it is, forget what can be read again."""
        if not self.could_shed:
            return
        if published:
            self._empty()
            self.loaded = False
        elif self._tail_sent and self.upload is not None:
            end = self._buffer.end
            self._buffer.release()
            self._number += 1
            self._buffer = PartBuffer(self._lease, end)
        else:
            await self._dispatch()

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"{self._destination.path}: more than {self._schedule.count} parts; with this part_size and memory_budget "
            f"a file may have about {self._schedule.capacity() >> 30} GiB: raise memory_budget"
        )

    def _require_room(self, end: int) -> None:
        """A gap is sent as zeros: one that cannot fit fails before hours of them."""
        if end > self._capacity:
            raise self._too_large()

    async def _dispatch(self) -> None:
        """Send the full buffer on its way and begin the next part."""
        if self._number >= self._schedule.count:
            raise self._too_large()
        upload = await self.begin()
        try:
            with trio.fail_after(self._limits.write):
                await upload.room(self._transfers.slots.limit + _QUEUED)
        except trio.TooSlowError:
            raise DeadlineExceeded(
                f"{self._destination.path}: S3 took no part for {self._limits.write:.0f} s"
            ) from None
        full = self._buffer
        payload = full.payload()
        await self._announce(upload, payload)
        upload.start(self._number, payload, full.release)
        self._number += 1
        self._buffer = PartBuffer(self._lease, full.end)

    async def begin(self) -> Upload:
        """The upload, created now if there is none: under the key the file will be renamed to where that is known."""
        if self.upload is None:
            key = await self._destination.predicted_key(self.head())
            self.predicted = key is not None
            self.upload = await Upload.begin(
                self._transfers, key or self._destination.key, self._destination.path, self._destination.metadata()
            )
        return self.upload

    # -- going on from a published version

    async def _load(self, base: Version | None, offset: int) -> None:
        if base is None or self.upload is not None:
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
            data = await self._transfers.store.get_range(base.key, 0, length, etag=base.etag, size=base.size)
        self._buffer.cut(0)
        await self._fill(0, data)
        self.loaded = self.inherited = True

    async def _load_copy(self, base: Version, length: int) -> None:
        if not self._transfers.store.capabilities.part_copy:
            raise NotSupported(f"{self._destination.path}: this store has no UploadPartCopy, large files cannot grow")
        upload = await Upload.begin(
            self._transfers, self._destination.key, self._destination.path, self._destination.metadata()
        )
        piece = self._schedule.size(1) if self._schedule.uniform else 0
        whole = length - length % piece if piece else length
        try:
            self._number = await upload.copy_in(base, whole, piece)
            self._buffer = PartBuffer(self._lease, whole)
            if whole < length:
                tail = await self._transfers.store.get_range(
                    base.key, whole, length - whole, etag=base.etag, size=base.size
                )
                self._tail_sent = False
                await self._fill(whole, tail)
        except BaseException:
            self._empty()
            upload.abort_later()
            raise
        self.upload = upload
        self.loaded = self.inherited = True

    async def truncate(self, base: Version | None, size: int) -> None:
        """To another size than 0. Raises NotSupported when bytes would have to be cut that have left already."""
        self._require_room(size)
        if not self.loaded and base is not None and self.upload is None:
            keep = min(size, base.size)
            if keep <= self._schedule.size(1):
                await self._load_into_memory(base, keep)
            else:
                await self._load_copy(base, keep)
        if not self.loaded or size < self._buffer.start:
            raise NotSupported(f"{self._destination.path}: cannot be cut to {size} bytes, they have left already")
        if size < self._buffer.end:
            self._buffer.cut(size - self._buffer.start)
        self.size = size
        self._tail_sent = False

    def restart(self) -> None:
        """Truncated to zero: a new stream."""
        self.drop_upload()
        self.loaded = True
        self.inherited = False

    # -- handing it over

    def payload(self) -> Payload:
        """Of content that is in memory and extended to its size."""
        return self._buffer.payload()

    async def send_tail(self) -> None:
        """What is in the buffer becomes the last part; should more be written, the part is sent again, fuller."""
        await self.extend(self.size)
        upload = await self.begin()
        if self._buffer.length and not self._tail_sent:
            payload = self._buffer.payload()
            await self._announce(upload, payload)
            await upload.send(self._number, payload)
        elif not self._buffer.length:
            upload.withdraw(self._number)  # cut back to where the part begins
        self._tail_sent = True

    async def _announce(self, upload: Upload, payload: Payload) -> None:
        """A part that replay relies on is about to be replaced: from now on it may meet either."""
        record = upload.record
        if record.state == "settled" and any(part.number == self._number for part in record.parts):
            part = UploadedPart(self._number, payload.size, "", payload.crc32, payload.grains)
            upload.record = await self._transfers.journal.change(record, resent=part)

    def published(self) -> None:
        """The content is an object now. What was in memory stays there; a stream goes on from the object."""
        if self.upload is not None:
            self.upload = None
            self._empty()
            self.loaded = False
        self.inherited = True
        self.predicted = False

    def drop_upload(self) -> None:
        """Abort the upload, if any, in the background; what it held is lost."""
        if self.upload is not None:
            self.upload.abort_later()
            self.upload = None
        self._empty()
        self.predicted = False
        self.size = 0

    def _empty(self) -> None:
        self._buffer.release()
        self._buffer = PartBuffer(self._lease, 0)
        self._number = 1
        self._tail_sent = True

    def restore(self, upload: Upload) -> None:
        """A settled file of an earlier mount, back from the journal: all of it is in the store."""
        self.upload = upload
        self.predicted = True
        self.loaded = False
        self.size = upload.record.size
        self._lease.close()

    def release_memory(self) -> None:
        """The last descriptor is closed."""
        self._buffer.release()
        self.loaded = False
        self._lease.close()
