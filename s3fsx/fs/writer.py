"""The unpublished content of one file, and the ways it is published.

    dirty      differs from what is published
    settled    a temporary name was closed: every byte is in the store, nothing is visible, it waits for its rename
    clean      published by ``publish`` (close or fsync of an ordinary name) or ``commit`` (rename of a temporary one)

Law: every await that depends on the content holds ``_lock``, which is waited for only as long as an outage may last by
those for whom the kernel may hold a directory; ``error`` is sticky, because bytes a program believes
written are gone, and comes out of every later call until the file is opened anew. A refused random write counts, once
anything was changed.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext

import trio

from ..errors import (
    Changed,
    Corrupted,
    DeadlineExceeded,
    EndpointDown,
    Exists,
    NotFound,
    NotSupported,
    S3fsxError,
    UploadGone,
)
from ..store.objects import WRITE_ID, ObjectInfo
from ..store.parts import PartSchedule
from ..transfer.memory import Budget
from .content import Content, Destination, WriteLimits
from .copies import copy_object
from .gone import is_gone
from .upload import Transfers, Upload
from .version import Version

# Seconds a deletion waits for the abort of an upload, whose parts may hang in an outage; then it goes on by itself.
_ABORT = 10.0
# Another attempt of a settled file meets them again. UploadGone, too, once the store's list of uploads confirms it; the
# rest passes: keys are renewed, clocks set, quotas raised, disks emptied, holds lifted.
_FINAL = (Corrupted, Changed)


class Writer:
    """base: the published version, None for none yet. settled_at: trio's clock when it was settled, else None.
    unsure: a publication failed that may have taken effect under the file's own name.

    Raises what the store raised; DeadlineExceeded; NotSupported for random writes into large objects; Changed when
    the object was replaced elsewhere since we took our content from it.
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
        self._store = transfers.store
        self._transfers = transfers
        self._limits = limits
        self._destination = destination
        self._lock = trio.Lock()
        self._content = Content(transfers, budget, schedule, limits, destination, base)
        self.base = base
        self.dirty = base is None
        self.settled_at: float | None = None
        self.error: S3fsxError | None = None
        self.unsure = False
        self._own = False  # base was written by this writer
        self._budget = budget
        budget.on_pressure(self._pressed)
        if self.dirty:
            transfers.unpublished.begin(self, self._content, destination)

    def restore(self, upload: Upload) -> None:
        """A settled file of an earlier mount, back from the journal."""
        self._content.restore(upload)
        self.dirty = True
        self._transfers.unpublished.begin(self, self._content, self._destination, upload.record.created)
        self.settled_at = trio.current_time()

    @property
    def size(self) -> int:
        return self._content.size

    @property
    def in_memory(self) -> bool:
        """``read`` can answer."""
        return self._content.in_memory

    def read(self, offset: int, length: int) -> bytes:
        return self._content.read(offset, length)

    # -- changing

    def try_append(self, offset: int, data: bytes) -> bool:
        """All of data, at the end of what was written, when nothing has to be waited for. False: use ``write``."""
        if self._lock.locked() or self.error is not None or not self._content.try_append(offset, data):
            return False
        self._changed()
        return True

    async def write(self, offset: int, data: bytes) -> None:
        """All of data or an error."""
        if self.try_append(offset, data):
            return
        try:
            self._lock.acquire_nowait()  # an uncontended acquire would still cost a pass through the scheduler
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            self._raise_if_failed()
            await self._content.write(self.base, offset, data)
            self._changed()
        except S3fsxError as e:
            # A program that goes on after a refused write (qemu-img does) must not get its half published as a whole.
            if self.dirty or not isinstance(e, NotSupported):
                self._fail(e)
            raise
        except (trio.Cancelled, BaseExceptionGroup):  # a group of them, out of a nursery
            self._fail(self._cut_off())
            raise
        finally:
            self._lock.release()

    async def truncate(self, size: int) -> None:
        """ftruncate(2), also upwards. To 0 it begins anew, whatever happened before."""
        async with self._turn():
            if size == 0:
                self._content.restart()
                self.error, self.dirty = None, False
            else:
                self._raise_if_failed()
                if size == self.size:
                    return
                try:
                    await self._content.truncate(self.base, size)
                except S3fsxError as e:
                    if self.dirty:
                        self._fail(e)
                    raise
            self._changed()

    def _changed(self) -> None:
        if not self.dirty:
            self._transfers.unpublished.begin(self, self._content, self._destination)
        self.dirty = True
        self.settled_at = None

    def _pressed(self, promised: bool) -> None:
        """An open file nobody writes to just now would sit on memory that another was promised. (One that is written
        to, which holds the lock, looks after itself.)"""
        if promised and not self._lock.locked() and self._content.could_shed:
            self._transfers.spawn(self._shed)

    async def _shed(self) -> None:
        async with self._lock:
            if self.error is None:
                try:
                    await self._content.shed(published=not self.dirty)
                except S3fsxError as e:
                    self._fail(e)

    # -- publishing

    async def settle(self) -> bool:
        """Close of a temporary name: every byte is in the store, nothing is visible. False: no rename is predicted,
        the file must be published like any other."""
        async with self._lock:
            self._raise_if_failed()
            if self.settled_at is not None or self.size == 0:
                return True
            if not self.dirty:
                return False
            return await self._guarded(self._settle)

    async def _settle(self) -> bool:
        content = self._content
        await content.extend(content.size)
        if content.upload is None and await self._destination.predicted_key(content.head()) is None:
            return False
        upload = await content.begin()
        if not content.predicted:
            return False
        await content.send_tail()
        await upload.settle(self._destination.path)
        self.settled_at = trio.current_time()
        return True

    async def publish(self) -> None:
        """Close or fsync of an ordinary name: the object is verified in the bucket under its own key. Cheap when clean.

        A temporary name that was to wait is published under its own name too: completed under the predicted key,
        copied on the server, the predicted key removed.
        """
        async with self._turn():
            self._raise_if_failed()
            if self.dirty:
                self.unsure = True
                await self._guarded(self._publish)

    async def _publish(self) -> None:
        content, own = self._content, self._destination.path
        if content.loaded:
            await content.extend(content.size)  # may begin an upload
        upload, new = content.upload, self.base is None and self._destination.new
        if upload is None:
            info = await self._put(self._destination.key, new=new)
        elif upload.key == self._destination.key:
            info = await self._finish(upload, own, new=new)
            await upload.forget()
        else:  # the prediction's key, or the file was renamed since the upload began
            if self.settled_at is None:
                await self._settle()  # what fails from here on leaves it settled: nothing is lost
            # What has got that name since is no concern of ours. Asked for, because a store may ignore the condition.
            if await upload.taken():
                raise Exists(f"{own}: was to become {upload.key}, which somebody else made meanwhile")
            try:
                moved = await self._finish(upload, own, new=True, stray=True)
            except Exists:
                await upload.settle(own)
                raise
            await self._check_free(self._destination.key)
            info = await copy_object(self._transfers, Version(moved), self._destination.key, own)
            await upload.abort_quietly()  # removes the stray object
        self._published(info)

    async def commit(self, key: str, path: str, *, replaces: bool) -> bool:
        """Rename of a temporary name to ``key``: one CompleteMultipartUpload when that was the prediction, one PUT when
        all is in memory. False: neither; the caller publishes and copies. replaces: something has that name now."""
        async with self._turn():
            self._raise_if_failed()
            return self.dirty and await self._guarded(lambda: self._commit(key, path, replaces), patient=True)

    async def _commit(self, key: str, path: str, replaces: bool) -> bool:
        content = self._content
        if content.loaded:
            await content.extend(content.size)  # may begin an upload
        upload = content.upload
        if upload is None and self.base is None:
            info = await self._put(key, new=False)
        elif upload is not None and upload.key == key:
            new = self.base is None and self._destination.new and not replaces
            info = await self._finish(upload, path, new=new, stray=not replaces)
            await upload.forget()
        else:
            return False
        self._published(info)
        return True

    async def _put(self, key: str, *, new: bool) -> ObjectInfo:
        await self._check_base()
        await self._check_free(key)
        metadata = {**self._destination.metadata(), WRITE_ID: uuid.uuid4().hex}
        only_if_absent = new and self._store.capabilities.conditional_put
        await self._transfers.claim(key, self._destination.path)
        return await self._store.put(key, self._content.payload(), metadata=metadata, only_if_absent=only_if_absent)

    async def _finish(self, upload: Upload, path: str, *, new: bool, stray: bool = False) -> ObjectInfo:
        if self._content.loaded:
            await self._content.send_tail()
        await self._check_base()
        await self._check_free(upload.key)
        only_if_absent = new and self._store.capabilities.conditional_complete
        return await upload.finish(path, self.size, only_if_absent=only_if_absent, stray=stray)

    async def _check_base(self) -> None:
        """Never replace an object that changed remotely since we took part of our content from it."""
        if self._content.inherited and self.base is not None:
            try:
                there = await self._store.head(self.base.key)
            except NotFound:
                raise Changed(f"{self._destination.path}: was deleted elsewhere while it was being changed") from None
            if there.etag != self.base.etag:
                raise Changed(f"{self._destination.path}: was replaced elsewhere while it was being changed")

    async def _check_free(self, key: str) -> None:
        """What is there may be protected since the file was opened."""
        ours = self._own and self.base is not None and self.base.key == key
        await self._transfers.protection.require_free(key, ours=ours)

    def _published(self, info: ObjectInfo) -> None:
        self.base = Version(info)
        self._own = True
        self.dirty = self.unsure = False
        self.settled_at = None
        self._content.published()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The lock; EndpointDown when who has it outlasts our patience with an outage."""
        with self._store.patience(self._destination.path):
            await self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    async def _guarded(self, action: Callable[[], Awaitable[bool | None]], *, patient: bool = False) -> bool:
        """A step of publishing within its deadline; patient: nor do parts under way go on after our patience. A failure
        is final for this content, unless it is settled, every byte in the store, and the failure may pass: then it
        stays settled, to be published or renamed or deleted."""
        try:
            patience = self._store.patience(self._destination.path) if patient else nullcontext()
            with trio.fail_after(self._limits.publish), patience:
                return bool(await action())
        except trio.TooSlowError:
            late = DeadlineExceeded(f"{self._destination.path}: not in the bucket after {self._limits.publish:.0f} s")
            self._fail_unless_settled(late)
            raise late from None
        except S3fsxError as e:
            if isinstance(e, UploadGone) and self.settled_at is not None and await self._is_gone():
                self._fail(e)
            self._fail_unless_settled(e)
            raise
        except (trio.Cancelled, BaseExceptionGroup):  # a group of them, out of a nursery
            self._fail_unless_settled(self._cut_off())
            raise

    async def _is_gone(self) -> bool:
        upload = self._content.upload
        with trio.move_on_after(_ABORT):
            return upload is not None and await is_gone(self._store, upload.record)
        return False

    def _cut_off(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self._destination.path}: was given up half way: its program was killed, or the mount ends"
        )

    def _fail_unless_settled(self, error: S3fsxError) -> None:
        if self.settled_at is None or isinstance(error, _FINAL):
            self._fail(error)

    # -- the end

    def _raise_if_failed(self) -> None:
        if self.error is not None:
            raise self.error

    def _fail(self, error: S3fsxError) -> None:
        if self.error is None:
            self.error = error.with_traceback(None)  # which would keep what could not be sent
            self._content.drop_upload()

    def release_memory(self) -> None:
        """The last descriptor is closed: give the memory back. A settled file needs none."""
        self._content.release_memory()
        self._budget.off_pressure(self._pressed)

    async def discard(self) -> None:
        """The file was deleted, or failed and was closed: nothing of it may stay in the bucket."""
        if self._content.upload is not None:
            self._content.upload.stop()  # whoever holds the lock and waits for a part gives up
        try:
            async with self._turn():
                upload = self._let_go()
        except EndpointDown:
            self._transfers.spawn(self._discard_later)
            raise
        await self._abort(upload)

    @asynccontextmanager
    async def replaced(self) -> AsyncIterator[None]:
        """Around a rename over the file: nothing of it is published meanwhile, which would land on top of what the
        rename puts there, and afterwards it is discarded. When the rename fails, all is as it was."""
        async with self._turn():
            yield
            upload = self._let_go()
        await self._abort(upload)

    async def _abort(self, upload: Upload | None) -> None:
        if upload is not None:
            with trio.move_on_after(_ABORT) as scope:
                await upload.abort_quietly()
            if scope.cancelled_caught:
                upload.abort_later()

    def _let_go(self) -> Upload | None:
        upload, self._content.upload = self._content.upload, None
        self.error = self.error or Changed(f"{self._destination.path}: was deleted")
        self.release_memory()
        return upload

    async def _discard_later(self) -> None:
        async with self._lock:
            upload = self._let_go()
        if upload is not None:
            await upload.abort_quietly()
