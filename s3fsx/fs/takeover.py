"""The uploads of a node that is gone for good, by the copy of its journal in the bucket."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..errors import S3fsxError, UploadGone
from ..layout import Layout
from ..local.nodecopy import CopiedUpload, NodeCopy, copied, difference, record_of, to_json
from ..local.records import UploadRecord
from ..store.objects import Payload, Store, UploadedPart
from .gone import is_gone
from .protection import Protection
from .recover import Recovery
from .upload import Transfers, made_by

log = logging.getLogger("s3fsx.recover")


class CopyJournal:
    """A dead node's journal. Every change is written into its copy before it is relied on, so that a takeover that is
    cut short can be made again. kept: what is not to be touched, and stays in the copy."""

    def __init__(self, store: Store, copy: NodeCopy) -> None:
        self._store = store
        self._copy = copy
        self.kept = {upload.write_id: upload for upload in copy.uploads}
        self._records: dict[str, UploadRecord] = {}

    def take(self, upload: CopiedUpload, parts: tuple[UploadedPart, ...]) -> None:
        """From now on it is ours to deal with. parts: what the store has, verified."""
        del self.kept[upload.write_id]
        self._records[upload.write_id] = record_of(upload, parts)

    async def put(self, record: UploadRecord) -> None:
        self._records[record.write_id] = record
        await self._save()

    async def change(self, record: UploadRecord, **changes: Any) -> UploadRecord:
        changed = replace(record, **changes)
        await self.put(changed)
        return changed

    async def remove(self, write_id: str) -> None:
        self._records.pop(write_id, None)
        self.kept.pop(write_id, None)
        await self._save()

    async def records(self) -> list[UploadRecord]:
        return list(self._records.values())

    async def _save(self) -> None:
        """A record that has no upload id yet (a copy in parts that is about to begin) is not for others to see."""
        uploads = (*self.kept.values(), *(copied(r) for r in self._records.values() if r.upload_id))
        if uploads:
            body = to_json(replace(self._copy, uploads=uploads))
            await self._store.put(self._copy.key, Payload.of(body), metadata={})
        else:
            await self._store.delete(self._copy.key)


class Takeover:
    """``spawn`` starts a background task that may end with the command."""

    def __init__(self, store: Store, layout: Layout, copy: NodeCopy, spawn: Callable[..., Any]) -> None:
        self._store = store
        self._layout = layout
        self._copy = copy
        self._journal = CopyJournal(store, copy)
        transfers = Transfers(store, self._journal, spawn, Protection(store))
        self._recovery = Recovery(self._journal, layout, transfers, self._publish, None)

    async def run(self) -> int:
        """Publish what had been closed, abort the rest, remove the copy. How many uploads had to be left, each with a
        line in the log; they stay in the copy. Raises S3fsxError when the copy itself cannot be written."""
        for upload in self._copy.uploads:
            try:
                await self._take(upload)
            except S3fsxError as e:
                log.warning("%s: left (%s)", upload.path, e)
        await self._recovery.run()
        left = len(self._journal.kept) + len(await self._journal.records())
        if not self._copy.uploads:
            await self._store.delete(self._copy.key)
        return left

    async def _take(self, upload: CopiedUpload) -> None:
        if upload.state not in ("settled", "publishing"):
            self._journal.take(upload, ())
            return
        try:
            parts = await self._store.list_parts(upload.key, upload.upload_id)
        except UploadGone:
            if upload.state == "publishing" and await self._made(upload):
                self._journal.take(upload, ())  # completed: what is left to do follows from the object
                return
            if await self._made(upload):
                log.info("%s: was published by its own node", upload.path)
            elif not await is_gone(self._store, record_of(upload, ())):
                raise
            else:
                log.warning("%s: its upload was aborted by somebody else; the file is lost", upload.path)
            await self._journal.remove(upload.write_id)
            return
        if wrong := difference(upload, parts):
            log.warning("%s: left: its parts are not what the node wrote (%s)", upload.path, wrong)
            return
        self._journal.take(upload, parts)

    async def _made(self, upload: CopiedUpload) -> bool:
        keys = (upload.key, self._layout.key(upload.path))
        return any([await made_by(self._store, key, upload.write_id) is not None for key in keys])

    async def _publish(self, record: UploadRecord) -> None:
        """Under its own name: nobody will rename it any more. Nothing of anybody else is replaced by that."""
        for key in {record.key, self._layout.key(record.path)}:
            page = await self._store.list_page(key, limit=1)
            if any(info.key == key for info in page.objects):
                log.warning("%s: left: %s is there already, made by somebody else", record.path, key)
                return
        await self._recovery.finish(await self._journal.change(record, state="publishing"))
