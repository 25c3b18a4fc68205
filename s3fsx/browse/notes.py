"""A line more in the notes that Proxmox shows beside a backup."""

from __future__ import annotations

from ..errors import NotFound, S3fsxError
from ..fs.protection import Protection
from ..store.objects import WRITE_ID, ObjectInfo, Payload
from .catalog import Backup
from .place import Place

LIMIT = 64 << 10  # bytes; Proxmox reads a MiB, and nobody looks at as much


def appended(before: bytes, line: str, *, instead: str = "") -> bytes:
    """Pure. What is there stays to the byte, but for lines that begin with ``instead``."""
    if instead:
        lines = before.splitlines(keepends=True)
        before = b"".join(each for each in lines if not each.startswith(instead.encode()))
    gap = b"" if not before or before.endswith(b"\n") else b"\n"
    return before + gap + line.encode() + b"\n"


async def append(place: Place, backup: Backup, line: str, *, instead: str = "") -> None:
    """Read, one line more, written: what another node writes between the two is lost, as with any two who edit notes.
    ``place.learn_object_lock`` has been called. instead: see ``appended``. Raises S3fsxError."""
    store, key = place.store, f"{backup.info.key}.notes"
    there: ObjectInfo | None
    try:
        there = await store.head(key)
    except NotFound:
        there = None
    before = b""
    metadata: dict[str, str] = {}
    if there is not None:
        if there.size > LIMIT:
            raise S3fsxError(f"{key}: {there.size} bytes of notes are enough")
        before = await store.get_range(key, 0, there.size, etag=there.etag, size=there.size)
        metadata = {name: value for name, value in (there.metadata or {}).items() if name != WRITE_ID}
        await Protection(store).require_free(key)
    after = appended(before, line, instead=instead)
    await store.put(key, Payload.of(after), metadata=metadata, only_if_absent=there is None)
