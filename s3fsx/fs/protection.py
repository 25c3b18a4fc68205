"""Proxmox's protection made real: beside X, the file X.protected is a legal hold on the object X.

Only on buckets with Object Lock; elsewhere the file is all there is, and nothing is asked. Such a bucket keeps every
version, so a DELETE or PUT by key "succeeds" on a held object, by hiding it. Hence the store is asked first, each time:
other nodes and other tools set holds, too.
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Iterable

from ..errors import FileSystemError, NotFound, Rejected, S3fsxError
from ..layout import MAX_KEY
from ..store.objects import Payload, Store
from ..transfer.several import each
from .tempnames import is_temporary

log = logging.getLogger("s3fsx.protection")

SUFFIX = ".protected"
_VZDUMP_DIRECTORY = re.compile(r"(^|/)vzdump-[^/]+\.tmp/[^/]+$")


def is_mark(name: str) -> bool:
    """Of a file name or a key."""
    return name.endswith(SUFFIX) and name.rpartition("/")[2] != SUFFIX


def is_scratch(key: str) -> bool:
    """A bucket's default retention falls on these, too, and is not meant for them: the mark, what Proxmox writes before
    it renames it, and the directory vzdump works in and removes after each backup."""
    return is_mark(key) or is_temporary(key.rpartition("/")[2]) or _VZDUMP_DIRECTORY.search(key) is not None


class Protection:
    """Works on keys: the mark of an object is beside it in the bucket as in the mount.

    Raises FileSystemError (EPERM: kept by a hold, a retention or a mark; ENOENT: nothing to protect) and what the store
    raises: a question that gets no answer is never a yes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told = False

    @property
    def real(self) -> bool:
        """The bucket has Object Lock."""
        return self._store.capabilities.object_lock

    async def protect(self, mark: str) -> None:
        """Before the mark is made: sets the hold, and reads it back."""
        if not self.real:
            if not self._told:
                self._told = True
                log.info(
                    "%s: this bucket has no Object Lock, so the file alone protects: Proxmox honours it, but whoever "
                    "has the keys can delete the backup",
                    mark,
                )
            return
        key = mark.removesuffix(SUFFIX)
        try:
            if await self._store.legal_hold(key):
                return
            await self._store.set_legal_hold(key, True)
            held = await self._store.legal_hold(key)
        except NotFound:
            raise FileSystemError(errno.ENOENT, f"{key}: there is no such object to protect") from None
        if not held:
            raise Rejected(f"{key}: the store accepted a legal hold and does not show it")
        log.info("%s: protected by a legal hold", key)

    async def lift(self, mark: str) -> None:
        """After the mark was removed. When the hold cannot be lifted the mark is put back: nothing has changed. Not
        where the hold may be off, and only the answer was lost: a mark must have one."""
        if not self.real:
            return
        key = mark.removesuffix(SUFFIX)
        try:
            await self._store.set_legal_hold(key, False)
        except NotFound:
            return
        except S3fsxError:
            try:
                if not await self._store.legal_hold(key):
                    return
                await self._store.put(mark, Payload.of(b""), metadata={})
            except S3fsxError as e:
                log.warning("%s: may still have its legal hold, but not its mark: protect it again (%s)", key, e)
            raise
        log.info("%s: legal hold lifted", key)

    async def require_free(self, *keys: str, ours: bool = False) -> None:
        """EPERM when hiding an object would hide what is to be kept. ours: what is there was just written by the one
        who asks, to be written again: a retention, which begins with the first byte, does not count."""
        if self.real:
            for key in keys:
                await self._require_unlocked(key, ours)
                await self._require_unmarked(key)

    async def _require_unlocked(self, key: str, ours: bool = False) -> None:
        try:
            if await self._store.legal_hold(key):
                raise FileSystemError(errno.EPERM, f"{key}: has a legal hold")
            if not ours and not is_scratch(key):
                until = await self._store.retained_until(key)
                if until > time.time():
                    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(until))
                    raise FileSystemError(errno.EPERM, f"{key}: is retained until {when} UTC")
        except NotFound:
            return

    async def _require_unmarked(self, key: str) -> None:
        """Also where the hold was lifted by another tool, or the mark is older than the object."""
        if is_mark(key) or len((key + SUFFIX).encode()) > MAX_KEY:
            return
        try:
            await self._store.head(key + SUFFIX)
        except NotFound:
            return
        raise FileSystemError(errno.EPERM, f"{key}: is protected by {key}{SUFFIX}")

    async def keeps(self, key: str) -> bool:
        """Somebody protected what we left there, and have to remove."""
        try:
            await self.require_free(key, ours=True)
        except FileSystemError as e:
            log.info("%s; it stays", e)
            return True
        return False

    async def guards(self, key: str, *, ours: bool = False, marked: bool = True) -> bool:
        """For a replay, whose change was decided before the protection may have been: as ``keeps``, and also without
        Object Lock, where the mark alone protects (one HEAD). marked: False where the mark goes, too."""
        try:
            await self.require_free(key, ours=ours)
            if marked and not self.real:
                await self._require_unmarked(key)
        except FileSystemError as e:
            log.info("%s; it stays", e)
            return True
        return False

    async def require_movable(self, keys: Iterable[str]) -> None:
        """Of a whole directory: copies have no holds, so neither protected objects nor their marks move."""
        if not self.real:
            return
        names = list(keys)
        for key in names:
            if is_mark(key):
                raise FileSystemError(errno.EPERM, f"{key}: what it protects stays where it is")
        await each(names, self._require_unlocked)
