"""From unpublished to published: what follows for a file once its writer's object is in the bucket; its attributes."""

from __future__ import annotations

import errno
import logging
import time
from dataclasses import replace

from ..errors import FileSystemError, S3fsxError
from ..store.objects import MAX_COPY
from .attributes import to_metadata
from .listing import Listings
from .tree import File
from .upload import Transfers
from .version import Version

log = logging.getLogger("s3fsx.publisher")


class Publisher:
    """Keeps a file's version, attributes and writer in step."""

    def __init__(self, listings: Listings, transfers: Transfers) -> None:
        self._listings = listings
        self._store = transfers.store

    async def publish(self, file: File) -> None:
        """The object is verified in the bucket under the file's own name when this returns; cheap when it is clean."""
        await self._listings.settled_place(file.parent)
        writer = file.writer
        if writer is None:
            return
        if writer.dirty and not file.explicit:
            file.attrs = replace(file.attrs, mtime_ns=time.time_ns())
        await writer.publish()
        await self.adopt(file)

    async def adopt(self, file: File) -> None:
        """The writer has published: its object is the file's version now."""
        writer = file.writer
        if writer is None:
            return
        if writer.base is not None and file.version is not writer.base:
            wanted = file.attrs
            file.version = writer.base
            file.created = False
            self._listings.learned(file, writer.base.info)
            if file.parent is not None:
                self._listings.published(file.parent, file.name)
            if file.explicit:
                file.attrs = wanted
                await self.store_attributes(file)
        if not file.writers and not writer.dirty:
            self.finished(file)

    def finished(self, file: File) -> None:
        """The writer has nothing unpublished and no handle: its memory goes back."""
        if file.writer is not None:
            file.writer.release_memory()
            file.writer = None

    async def ask_attributes(self, file: File) -> None:
        """``attrs`` are those of the published object afterwards, also where a listing has left them to be guessed.
        Raises what the store raised, ESTALE for another version."""
        version = file.version
        if version is not None and not file.exact:
            await self._ask(file, version)
            if file.version is version and not file.exact:
                self._listings.describe(file)

    async def _ask(self, file: File, version: Version) -> None:
        if version.metadata is None:
            info = await self._store.head(version.key)
            if info.etag != version.etag:
                raise FileSystemError(errno.ESTALE, f"{file.path}: was replaced elsewhere")
            version.update(info)

    async def store_attributes(self, file: File) -> None:
        """Make the published object's metadata agree with ``attrs``, by a copy onto itself. Above 5 GiB, where that
        would be a multipart copy, they stay in memory only. After a failure ``attrs`` are those of the object again."""
        await self._listings.settled_place(file.parent)
        file.explicit = False
        version = file.version
        if version is None:
            return
        try:
            await self._store_attributes(file, version)
        except S3fsxError:
            self._listings.describe(file)
            raise

    async def _store_attributes(self, file: File, version: Version) -> None:
        wanted = file.attrs
        await self._ask(file, version)
        old = dict(version.metadata or {})
        new = {**old, **to_metadata(wanted)}
        file.exact = True
        if new == old:
            return
        if version.size > MAX_COPY:
            log.info("%s: larger than 5 GiB, its new mode and times last until it is listed anew", file.path)
            return
        names = () if file.parent is None else ((file.parent, file.name),)
        with self._listings.changing(*names):  # a copy has another time, of a multipart object another ETag, too
            info = await self._store.copy(version.key, version.key, etag=version.etag, metadata=new)
            self._listings.learned(file, info)
        file.attrs = wanted
