"""What only ``s3fsx check`` tries, because it costs more than a mount should: pages of a listing, and parts of unequal
size. Each trial raises where the store would lose or refuse a backup.
"""

from __future__ import annotations

import secrets
import time

import trio

from ..errors import AccessDenied, Corrupted, NotSupported, Rejected, S3fsxError
from ..layout import INTERNAL
from ..store.objects import MIN_PART, WRITE_ID, Payload, Store, UploadInfo

CLEANUP_LIMIT = 15.0  # seconds
STALE = 3600.0  # seconds after which an object of a check or probe is nobody's any more
OBJECTS = 5
PER_PAGE = 2
_PREFIXES = ("check-", "probe-")
_MOST_PAGES = 20


async def sweep(store: Store, prefix: str, *, now: float | None = None) -> int:
    """Removes what checks and probes that were killed have left: objects and unfinished uploads. How many."""
    before = (time.time() if now is None else now) - STALE
    removed = 0
    for name in _PREFIXES:
        place = f"{prefix}{INTERNAL}/{name}"
        page = await store.list_page(place, delimiter="")  # a thousand killed checks; the next one goes on
        for info in page.objects:
            if info.modified < before:
                await store.delete(info.key)
                removed += 1
        for upload in await _uploads(store, place):
            if upload.initiated < before:
                await store.abort_upload(upload.key, upload.upload_id)
                removed += 1
    return removed


async def _uploads(store: Store, place: str) -> tuple[UploadInfo, ...]:
    try:
        return await store.list_uploads(place)
    except (AccessDenied, NotSupported, Rejected):
        return ()  # a mount does without that list, too; the bucket's lifecycle ends what nobody can find


async def pages(store: Store, place: str) -> None:
    """Raises Corrupted when keys are missing, repeated or out of order over the pages of a listing: files would not be
    seen, and Proxmox's prune, which counts them, would delete what is to be kept."""
    keys = [f"{place}/{number}" for number in range(OBJECTS)]
    try:
        for key in keys:
            await store.put(key, Payload.of(b"x"), metadata={})
        told: list[str] = []
        token: str | None = None
        for _ in range(_MOST_PAGES):
            page = await store.list_page(f"{place}/", delimiter="", token=token, limit=PER_PAGE)
            told += [info.key for info in page.objects]
            token = page.next_token
            if token is None:
                break
        if token is not None or told != keys:
            found = ", ".join(key.removeprefix(f"{place}/") for key in told[:20])
            raise Corrupted(
                f"{OBJECTS} objects, 0 to {OBJECTS - 1}, were listed as {found or 'nothing'} over pages of {PER_PAGE}: "
                "files would be missing from listings; s3fsx cannot be used with this store"
            )
    finally:
        await _remove(store, keys)


async def unequal_parts(store: Store, key: str) -> None:
    """Raises Rejected when the store insists on parts of equal size; moves 11 MiB."""
    with_id = {WRITE_ID: secrets.token_hex(16)}
    upload_id = await store.create_upload(key, metadata=with_id)
    done = False
    try:
        parts = [
            await store.upload_part(key, upload_id, number, Payload.of(bytes(size)))
            for number, size in enumerate((MIN_PART, MIN_PART + (1 << 20), 1), 1)
        ]
        await store.complete_upload(key, upload_id, parts)
        done = True
    except (Rejected, NotSupported) as error:
        raise Rejected(
            f"the store refuses parts of unequal size ({error}); set part_profile = uniform, and part_size to a "
            "10 000th of the largest backup at least: otherwise large backups fail at their end"
        ) from None
    finally:
        with trio.move_on_after(CLEANUP_LIMIT) as scope:
            scope.shield = True
            if not done:
                await _abort(store, key, upload_id)
        await _remove(store, [key])


async def last_number(store: Store, key: str, count: int) -> None:
    """Raises Rejected when the store takes no part with the last number that the settings allow."""
    upload_id = await store.create_upload(key, metadata={WRITE_ID: secrets.token_hex(16)})
    try:
        await store.upload_part(key, upload_id, count, Payload.of(b"s3fsx"))
    except (Rejected, NotSupported) as error:
        raise Rejected(
            f"the store refuses part number {count} ({error}); set max_parts to what the provider allows, say 1000: "
            "otherwise large backups fail in their middle"
        ) from None
    finally:
        with trio.move_on_after(CLEANUP_LIMIT) as scope:
            scope.shield = True
            await _abort(store, key, upload_id)


async def _abort(store: Store, key: str, upload_id: str) -> None:
    try:
        await store.abort_upload(key, upload_id)
    except S3fsxError:
        return  # swept by the next check


async def _remove(store: Store, keys: list[str]) -> None:
    with trio.move_on_after(CLEANUP_LIMIT) as scope:
        scope.shield = True
        for key in keys:
            try:
                await store.delete(key)
            except S3fsxError:
                continue  # swept by the next check; the trial's own error says it better
