"""The published object behind a file."""

from __future__ import annotations

import sys

from ..store.objects import ObjectInfo


class Version:
    """The published object behind a file. Mutable on purpose: our own rename or metadata change moves the same bytes
    to another key or ETag, and open readers must follow.

    size: bytes. modified: Unix seconds, the store's clock. metadata: None until a HEAD told it.
    """

    __slots__ = ("etag", "key", "metadata", "modified", "size", "storage_class")

    def __init__(self, info: ObjectInfo) -> None:
        self.key = info.key
        self.size = info.size
        self.update(info)

    def update(self, info: ObjectInfo) -> None:
        self.key = info.key
        self.etag = info.etag
        self.modified = info.modified
        self.storage_class = sys.intern(info.storage_class)  # a copy per object: 6 MB of 100 000
        self.metadata = info.metadata

    @property
    def info(self) -> ObjectInfo:
        return ObjectInfo(self.key, self.size, self.etag, self.modified, self.storage_class, self.metadata)
