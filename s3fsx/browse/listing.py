"""One directory of the bucket, as a mount would show it."""

from __future__ import annotations

import errno

from ..errors import FileSystemError, NotFound
from ..layout import Layout
from ..store.objects import ObjectInfo, Store
from .catalog import entries


async def directory(store: Store, layout: Layout, path: str) -> list[tuple[str, ObjectInfo | None]]:
    """Names, each with its object (None: a directory), in order; of a file itself only. Raises FileSystemError ENOENT,
    what ``Layout`` raises for an impossible path, and what the store raises."""
    prefix = layout.directory(path)
    objects, prefixes = await entries(store, prefix)
    found: dict[str, ObjectInfo | None] = {}
    for info in objects:
        entry = layout.entry(path, info.key)
        if entry is not None and not entry[1]:
            found[entry[0]] = info
    for common in prefixes:
        entry = layout.entry(path, common)
        if entry is not None:
            found[entry[0]] = None
    found |= dict.fromkeys(layout.content_children(path))
    if found or objects or layout.is_content(path):
        return sorted(found.items())
    try:
        info = await store.head(layout.key(path))
    except NotFound:
        raise FileSystemError(errno.ENOENT, f"{path}: no such file or directory in the bucket") from None
    return [(path.rpartition("/")[2], info)]
