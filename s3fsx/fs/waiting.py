"""A temporary name that was closed before a crash is there again, unpublished, and waits for its rename."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..errors import NotFound, UploadGone
from ..local.records import UploadRecord
from ..store.parts import compare_parts, sent_again, up_to
from .attributes import Attributes, from_metadata
from .gone import is_gone
from .listing import Listings
from .tree import Directory, File
from .upload import Transfers, Upload, abort_record, made_by
from .writer import Writer

log = logging.getLogger("s3fsx.waiting")


class Waiting:
    """``new_writer(file)`` makes a writer for a file that comes back unpublished."""

    def __init__(self, listings: Listings, transfers: Transfers, new_writer: Callable[[File], Writer]) -> None:
        self._listings = listings
        self._transfers = transfers
        self._new_writer = new_writer

    async def bring_back(self, record: UploadRecord) -> None:
        """Raises S3fsxError when the store cannot say now whether the parts are there."""
        store, journal = self._transfers.store, self._transfers.journal
        try:
            theirs = await store.list_parts(record.key, record.upload_id)
        except (UploadGone, NotFound):
            published = await made_by(store, self._listings.layout.key(record.path), record.write_id) is not None
            if published or await is_gone(store, record):
                if published:
                    log.info("%s: was published by another node", record.path)
                else:
                    log.warning("%s: its upload was aborted by somebody else; the file is lost", record.path)
                await journal.remove(record.write_id)
                return
            theirs = await store.list_parts(record.key, record.upload_id)
        theirs = tuple(up_to(record.parts, theirs))
        difference = compare_parts(record.parts, theirs)
        if difference and (fuller := sent_again(record.parts, theirs, record.resent)) is not None:
            parts = (*record.parts[:-1], fuller)
            size = sum(part.size for part in parts)
            record = await journal.change(record, parts=parts, size=size, resent=None)
        elif difference:
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
