"""What an earlier run left in the journal: finish what had returned success, abort the rest."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from ..errors import Exists, NotFound, S3fsxError, UploadGone
from ..layout import Layout
from ..local.records import UploadRecord
from ..store.objects import WRITE_ID, ObjectInfo
from .changes import Changes
from .copies import copy_object
from .gone import is_gone, unfinished
from .upload import Transfers, Upload, UploadJournal, abort_lost, abort_record, made_by, remove_stray
from .version import Version

log = logging.getLogger("s3fsx.recover")


class Recovery:
    """settled(record): what becomes of a file that was closed and waits for its rename; it stays in the journal unless
    that takes it out. changes: renames and deletions; None for the copy of a dead node's journal, which
    has none: then nothing of anybody else is replaced."""

    def __init__(
        self,
        journal: UploadJournal,
        layout: Layout,
        transfers: Transfers,
        settled: Callable[[UploadRecord], Awaitable[None]],
        changes: Changes | None,
    ) -> None:
        self._journal = journal
        self._layout = layout
        self._transfers = transfers
        self._store = transfers.store
        self._settled = settled
        self._changes = changes

    async def run(self) -> None:
        """Raises nothing: a record that cannot be dealt with now stays for the next time, with a line in the log."""
        for record in await self._journal.records():
            try:
                await self._replay(record)
            except S3fsxError as e:
                log.warning("%s: left in the journal (%s)", record.path, e)
                if self._is_stray(record):
                    self._transfers.strays[record.key] = record
        if self._changes is not None:  # after the uploads: a copy of more than 5 GiB is one
            await self._changes.replay()

    async def _replay(self, record: UploadRecord) -> None:
        if record.state == "opening":
            await abort_lost(self._transfers, record)
            await self._journal.remove(record.write_id)
        elif record.state == "settled":
            await self._settled(record)
        elif record.state == "publishing":
            await self.finish(record)
        else:
            log.info("%s: aborting its unfinished upload", record.path)
            await abort_record(self._transfers, record, stray=self._is_stray(record))

    def _is_stray(self, record: UploadRecord) -> bool:
        """Its object, should there be one, is not to stay under its key."""
        return record.state == "removing" or self._wanted(record) != record.key

    def _wanted(self, record: UploadRecord) -> str:
        return self._layout.key(record.path)

    async def _there(self, key: str) -> ObjectInfo | None:
        try:
            return await self._store.head(key)
        except NotFound:
            return None

    async def _replaceable(self, record: UploadRecord, other: ObjectInfo) -> bool:
        """other is under our key: it may have been made, or protected, after the crash. Only what was there before our
        upload began was to be replaced (both times are the store's). Else the content waits as a temporary name of
        that name, for a rename that somebody decides on. Raises Exists where nobody may."""
        began = await unfinished(self._store, record)
        if began is None:
            log.warning("%s: its upload is gone, and somebody else's object is there", record.path)
            await self._journal.remove(record.write_id)
            return False
        if self._changes is None:
            raise Exists(f"{record.key} is there already, made by somebody else")
        if self._wanted(record) == record.key:
            if other.modified < began.initiated and not await self._transfers.protection.guards(record.key):
                return True
            path = f"{record.path}.tmp.{record.write_id[:8]}"
            log.warning("%s: was made or protected by others since; ours waits as %s", record.path, path)
            record = await self._journal.change(record, state="settled", path=path)
        await self._settled(record)
        return False

    async def _require_copyable(self, path: str, wanted: str, ours: ObjectInfo) -> None:
        """What has the name of a file that is published late is older than our object, and not protected."""
        there = await self._there(wanted)
        if there is None:
            return
        if self._changes is None or there.modified >= ours.modified or await self._transfers.protection.guards(wanted):
            raise Exists(f"{path} was made or protected by others since; its content is there as {ours.key}")

    async def finish(self, record: UploadRecord) -> None:
        """Complete was about to be sent, or was sent. Roll forward; then the object gets the name it was meant for."""
        upload = Upload(self._transfers, record, {part.number: part for part in record.parts})
        wanted = self._wanted(record)
        if wanted != record.key and await made_by(self._store, wanted, record.write_id) is not None:
            await abort_record(self._transfers, record, stray=True)  # copied already, only the source was left
            return
        info = await self._there(record.key)
        if info is None or (info.metadata or {}).get(WRITE_ID) != record.write_id:
            if info is not None and not await self._replaceable(record, info):
                return
            only_if_absent = info is None and self._store.capabilities.conditional_complete
            try:
                await self._store.complete_upload(
                    record.key, record.upload_id, list(record.parts), only_if_absent=only_if_absent
                )
            except (UploadGone, NotFound):
                if not await is_gone(self._store, record):
                    raise
                log.warning("%s: its upload is gone, nothing was published", record.path)
                await self._journal.remove(record.write_id)
                return
            info = await upload.confirm()
        if wanted != record.key:
            await self._require_copyable(record.path, wanted, info)
            await copy_object(self._transfers, Version(info), wanted, record.path)
            await remove_stray(self._transfers, record)
        await self._journal.remove(record.write_id)
        log.info("%s: finished publishing %d bytes", record.path, record.size)
