"""The configuration of a guest, out of the head of its backup: no more is fetched than it takes to get there."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ..errors import ArchiveDamaged, S3fsxError
from .catalog import Backup
from .filters import Source, through
from .stream import Enough, Sink, Streams
from .tarwalk import TarWalk
from .vma import VmaWalk
from .walking import Walk

_MOST = 64 << 20  # decompressed bytes: the header of a VMA is the first thing, and so is vzdump's file in a tar
_DEADLINE = 120.0


def walk_of(backup: Backup) -> Walk:
    return VmaWalk() if backup.archive.format == "vma" else TarWalk()


async def configuration(streams: Streams, backup: Backup) -> tuple[tuple[str, bytes], ...]:
    """Names and contents of its configuration files. Raises ArchiveDamaged, S3fsxError."""
    walk = walk_of(backup)
    try:
        with trio.fail_after(_DEADLINE):
            await through(backup.archive.compression, _source(streams, backup), _until_there(walk))
    except trio.TooSlowError:
        raise S3fsxError(f"{backup.archive.name}: its head was not there within {_DEADLINE:.0f} s") from None
    except ArchiveDamaged as e:
        raise ArchiveDamaged(f"{backup.archive.name}: {e}") from None
    if walk.files is None:
        raise ArchiveDamaged(f"{backup.archive.name}: there is no configuration in it")
    return walk.files


def _source(streams: Streams, backup: Backup) -> Source:
    async def source(sink: Sink) -> None:
        await streams.copy(backup.info, sink)

    return source


def _until_there(walk: Walk) -> Callable[[bytes | memoryview], None]:
    came = 0

    def take(data: bytes | memoryview) -> None:
        nonlocal came
        came += len(data)
        walk.feed(data)
        if walk.files is not None:
            raise Enough
        if came > _MOST:
            raise ArchiveDamaged(f"there is no configuration in its first {_MOST >> 20} MiB")

    return take
