"""What an earlier run of this mount left in the journal: finish what had returned success, abort the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .attributes import Attributes, from_metadata
from .errors import NotFound, S3fsxError, UploadGone
from .journal import Journal, UploadRecord
from .listing import Listings
from .parts import compare_parts
from .tree import Directory, File
from .upload import Transfers, Upload, abort_lost, abort_record, copy_object, made_by, remove_stray, up_to
from .version import Version
from .writer import Writer

log = logging.getLogger("s3fsx.recover")


class Recovery:
    """``new_writer(file)`` makes a writer for a file that comes back unpublished."""

    def __init__(
        self, journal: Journal, listings: Listings, transfers: Transfers, new_writer: Callable[[File], Writer]
    ) -> None:
        self._journal = journal
        self._listings = listings
        self._transfers = transfers
        self._store = transfers.store
        self._new_writer = new_writer

    async def run(self) -> None:
        """Raises nothing: a record that cannot be dealt with now stays for the next mount, with a line in the log."""
        for record in await self._journal.records():
            try:
                await self._replay(record)
            except S3fsxError as e:
                log.warning("%s: left in the journal (%s)", record.path, e)
                if self._is_stray(record):
                    self._transfers.strays[record.key] = record

    async def _replay(self, record: UploadRecord) -> None:
        if record.state == "opening":
            await abort_lost(self._transfers, record)
            await self._journal.remove(record.write_id)
        elif record.state == "settled":
            await self._bring_back(record)
        elif record.state == "publishing":
            await self._finish(record)
        else:
            log.info("%s: aborting its unfinished upload", record.path)
            await abort_record(self._transfers, record, stray=self._is_stray(record))

    def _is_stray(self, record: UploadRecord) -> bool:
        """Its object, should there be one, is not to stay under its key."""
        return record.state == "removing" or self._wanted(record) != record.key

    def _wanted(self, record: UploadRecord) -> str:
        return self._listings.layout.key(record.path)

    async def _bring_back(self, record: UploadRecord) -> None:
        """A temporary name was closed: it is there again, unpublished, waiting for its rename."""
        try:
            theirs = await self._store.list_parts(record.key, record.upload_id)
        except (UploadGone, NotFound):
            log.warning("%s: its upload was aborted by somebody else; the file is lost", record.path)
            await self._journal.remove(record.write_id)
            return
        if difference := compare_parts(record.parts, up_to(record.parts, theirs)):
            log.warning("%s: its parts are not what was written (%s); the file is lost", record.path, difference)
            await abort_record(self._transfers, record, stray=False)
            return
        parent, name = self._parent_of(record.path)
        # What was published under that name before stays its version: the rename or deletion to come removes it.
        file = await self._listings.lookup(parent, name)
        if not isinstance(file, File):
            attrs: Attributes = from_metadata(None, record.created, self._listings.policy.defaults)
            file = self._listings.tree.add_file(parent, name, attrs)
            file.created = file.exact = True
        upload = Upload(self._transfers, record, {part.number: part for part in record.parts})
        file.writer = self._new_writer(file)
        file.writer.restore(upload)
        self._listings.changed(parent, name)
        log.info("%s: %d bytes, closed before the restart, wait for their rename again", record.path, record.size)

    def _parent_of(self, path: str) -> tuple[Directory, str]:
        *names, last = path.split("/")
        directory = self._listings.tree.root
        for name in names:
            child = directory.children.get(name)
            if not isinstance(child, Directory):
                child = self._listings.tree.add_directory(directory, name, self._listings.directory_attrs())
            directory = child
        return directory, last

    async def _finish(self, record: UploadRecord) -> None:
        """Complete was about to be sent, or was sent. Roll forward; then the object gets the name it was meant for."""
        upload = Upload(self._transfers, record, {part.number: part for part in record.parts})
        wanted = self._wanted(record)
        if wanted != record.key and await made_by(self._store, wanted, record.write_id) is not None:
            await abort_record(self._transfers, record, stray=True)  # copied already, only the source was left
            return
        info = await made_by(self._store, record.key, record.write_id)
        if info is None and wanted != record.key and await upload.taken():
            await self._bring_back(record)  # somebody else has the predicted name: it is not ours to replace
            return
        if info is None:
            try:
                await self._store.complete_upload(record.key, record.upload_id, list(record.parts))
            except (UploadGone, NotFound):
                log.warning("%s: its upload is gone, nothing was published", record.path)
                await self._journal.remove(record.write_id)
                return
            info = await upload.confirm()
        if wanted != record.key:
            await copy_object(self._transfers, Version(info), wanted, record.path)
            await remove_stray(self._store, record)
        await self._journal.remove(record.write_id)
        log.info("%s: finished publishing %d bytes", record.path, record.size)
