"""Bringing backups back from a cold storage class, and waiting for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from ..errors import NotSupported, Rejected, S3fsxError
from ..s3 import cold
from ..s3.cold import Frozen
from .catalog import Backup
from .place import Place
from .tables import local

WAIT_EVERY = 60.0


def describe(state: Frozen) -> str:
    """In words. Pure."""
    if state.storage_class not in cold.CLASSES:
        return f"{state.storage_class}: can be read"
    if state.until:
        return f"{state.storage_class}: can be read until {local(state.until)}"
    return f"{state.storage_class}: {'is being thawed' if state.asked else 'frozen'}"


async def ask(place: Place, backup: Backup, days: int, tier: str) -> Frozen:
    """Its state after it was asked for, where it has to be. Raises S3fsxError."""
    state = await cold.look(place.s3, backup.info.key)
    if state.readable or state.asked:
        return state
    try:
        await cold.restore(place.s3, backup.info.key, days, tier)
    except (NotSupported, Rejected) as e:
        raise S3fsxError(f"{backup.archive.name}: this store does not thaw: {e}") from None
    return await cold.look(place.s3, backup.info.key)


async def wait(place: Place, backups: Sequence[Backup], tell: Callable[[Backup, Frozen], object]) -> None:
    """Until all of them can be read. Raises S3fsxError where one is not being thawed (any more)."""
    left = list(backups)
    while left:
        still = []
        for backup in left:
            state = await cold.look(place.s3, backup.info.key)
            if state.readable:
                tell(backup, state)
            elif not state.asked:
                raise S3fsxError(f"{backup.archive.name}: {describe(state)}")
            else:
                still.append(backup)
        left = still
        if left:
            await trio.sleep(WAIT_EVERY)


async def require_readable(place: Place, backup: Backup) -> None:
    """Raises S3fsxError with what to do, instead of the store's 403."""
    if backup.info.storage_class in cold.CLASSES:
        state = await cold.look(place.s3, backup.info.key)
        if not state.readable:
            raise S3fsxError(f"{backup.archive.name}: {describe(state)}: s3fsx thaw --wait first")
