"""Reading a backup back, whole, against the checksums that were made when it was written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

from ..errors import Changed, Corrupted, DeadlineExceeded, EndpointDown, NotFound, S3fsxError, Transient
from ..s3 import cold
from ..store.sums import name, needed
from . import checked
from .catalog import Backup
from .place import Place
from .thaw import describe

OK, BAD, UNKNOWN, FAILED = "ok", "bad", "unknown", "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """result: OK, BAD (wrong bytes), UNKNOWN (it has no checksums, is frozen, or the store did not answer), FAILED (the
    store refused to give it, or it is gone). why: in words. verified: bytes that were compared. seconds: how long it
    took. answered: False where nothing is known for want of an answer."""

    name: str
    result: str
    why: str
    size: int
    verified: int
    seconds: float
    answered: bool = True

    @property
    def good(self) -> bool:
        """Whether nothing is to be done about it."""
        return self.answered and self.result in (OK, UNKNOWN)


class Verifier:
    """progress(bytes so far) is called with each piece. note: leave a record in the bucket."""

    def __init__(self, place: Place, *, note: bool, progress: Callable[[int], object]) -> None:
        self._place = place
        self._note = note
        self._progress = progress

    async def verify(self, backup: Backup) -> Verdict:
        """Raises EndpointDown when the store is gone: then nothing can be said of any other either."""
        began = trio.current_time()
        counters = self._place.store.counters
        before, answered = counters.verified, True
        try:
            result, why = await self._read(backup)
        except Corrupted as e:
            result, why = BAD, str(e)
        except EndpointDown:
            raise
        except (DeadlineExceeded, Transient) as e:  # of this one; the store may answer for the next
            result, why, answered = UNKNOWN, f"the store did not answer: {e}", False
        except (Changed, NotFound) as e:
            result, why = FAILED, f"replaced or deleted meanwhile ({e})"
        except S3fsxError as e:
            result, why = FAILED, str(e)
        compared = min(counters.verified - before, backup.info.size)
        if self._note and result in (OK, BAD):
            how = (
                f"s3fsx verify, {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC: {why or 'every byte is right'}"
            )
            await checked.record(self._place.s3, self._place.prefix, backup.info, good=result == OK, how=how)
        seconds = trio.current_time() - began
        return Verdict(backup.archive.name, result, why, backup.info.size, compared, seconds, answered)

    async def _read(self, backup: Backup) -> tuple[str, str]:
        info, store = backup.info, self._place.store
        if info.storage_class in cold.CLASSES:
            state = await cold.look(self._place.s3, info.key)
            if not state.readable:
                return UNKNOWN, f"{describe(state)}: s3fsx thaw --wait first"
        if needed(info) and await store.sums.get(info.key, info.etag, anew=True) is None:
            return UNKNOWN, "no checksums, as it was not written by s3fsx: size and ETag are all there is to compare"
        before, done = store.counters.unverified, 0

        async def sink(piece: bytes | memoryview) -> None:
            nonlocal done
            done += len(piece)
            self._progress(done)

        await self._place.streams.copy(info, sink)
        if unverified := store.counters.unverified - before:
            return UNKNOWN, f"{unverified} of its {info.size} bytes have no checksums that can be compared"
        return OK, ""


async def forget_gone(place: Place, listed: list[Backup], checks: checked.Checks) -> None:
    """Removes the records of versions that are no longer there. checks: read before the backups were listed, and all of
    these."""
    there = {name(backup.info.key, backup.info.etag) for backup in listed}
    await checked.remove(place.s3, [key for stem, keys in checks.keys.items() if stem not in there for key in keys])
