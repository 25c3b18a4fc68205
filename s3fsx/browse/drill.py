"""A fire drill: a backup is restored, but for the disk it would go to. What a restore would read is read, decompressed
by the program that would do it, and walked through to its end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from ..errors import ArchiveDamaged, Corrupted, S3fsxError
from ..s3.cold import CLASSES
from ..store.sums import needed
from . import checked
from .catalog import Backup
from .filters import through
from .guestconfig import walk_of
from .place import Place
from .stream import Sink
from .tables import human, safe
from .walking import Summary

NOTE = "s3fsx drill "  # how its line in the notes begins
_LINE = 160  # characters


@dataclass(frozen=True, slots=True)
class Result:
    """good: it can be restored. what: what is in it, or why not. read, restored: bytes of the archive and what they
    became. verified: every byte was also compared with its checksum. damaged: the archive itself is at fault (and not
    the way to it)."""

    backup: Backup
    good: bool
    what: str
    read: int
    restored: int
    seconds: float
    verified: bool
    damaged: bool

    @property
    def line(self) -> str:
        """For the notes, short."""
        stamp = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        if not self.good:
            return safe(f"{NOTE}{stamp} UTC: FAILED: {self.what}", _LINE)
        return safe(f"{NOTE}{stamp} UTC: restored to the end, {human(self.restored)}, {self.what}", _LINE)


def candidates(listed: Sequence[Backup]) -> list[Backup]:
    """What a drill can choose from: of vzdump's names, readable at once, at least a byte. Pure."""
    return [
        backup
        for backup in listed
        if backup.archive.when is not None and backup.info.storage_class not in CLASSES and backup.info.size
    ]


def pick(listed: Sequence[Backup], *, at_random: bool, rng: random.Random) -> Backup:
    """at_random: any of them; else the newest. Raises S3fsxError where there is none."""
    found = candidates(listed)
    if not found:
        raise S3fsxError("there is no backup that could be restored now")
    return rng.choice(found) if at_random else max(found, key=lambda backup: backup.when)


async def drill(place: Place, backup: Backup, *, deadline: float, progress: Callable[[int], object]) -> Result:
    """Raises S3fsxError where nothing can be said of the backup: the store does not answer, a program is missing.
    deadline: seconds for all of it. progress(bytes read so far)."""
    walk = walk_of(backup)
    began, read, restored = trio.current_time(), 0, 0
    before = place.store.counters.unverified
    summary, why = Summary("", 0, 0), ""

    async def source(sink: Sink) -> None:
        async def counted(piece: bytes | memoryview) -> None:
            nonlocal read
            await sink(piece)
            read += len(piece)
            progress(read)

        await place.streams.copy(backup.info, counted)

    def take(data: bytes | memoryview) -> None:
        nonlocal restored
        restored += len(data)
        walk.feed(data)

    try:
        with trio.fail_after(deadline):
            await through(backup.archive.compression, source, take)
        summary = walk.finish()
        if walk.files is None:
            raise ArchiveDamaged("there is no configuration of a guest in it")
    except (ArchiveDamaged, Corrupted) as e:
        why = str(e)
    except trio.TooSlowError:
        raise S3fsxError(f"{backup.archive.name}: not at its end after {deadline:.0f} s") from None
    return Result(
        backup,
        not why,
        why or summary.what,
        read,
        restored,
        trio.current_time() - began,
        not why and place.store.counters.unverified == before and _has_checksums(place, backup),
        bool(why),
    )


def _has_checksums(place: Place, backup: Backup) -> bool:
    known = place.store.sums.known(backup.info.key, backup.info.etag)
    return not needed(backup.info) or (known is not None and known.sums is not None)


async def note(place: Place, result: Result) -> None:
    """In the record of checks. Raises nothing."""
    await checked.record_drill(
        place.s3, place.prefix, result.backup.info, good=result.good, verified=result.verified, how=result.line
    )
