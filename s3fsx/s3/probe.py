"""What a store really does, found out at mount by a dozen small requests.

A checksum is worth something only where the store looks at it, so the probe sends a wrong one and wants to
see it refused (Ceph RGW 16 takes any x-amz-checksum-crc32, moto takes anything).
"""

from __future__ import annotations

import uuid
from dataclasses import replace

import trio

from ..errors import AccessDenied, Changed, Corrupted, Exists, NotFound, NotSupported, Rejected, S3fsxError
from ..store.objects import WRITE_ID, Capabilities, Payload, UploadedPart
from .body import md5
from .store import S3Store

CLEANUP_LIMIT = 10.0  # seconds; what an outage leaves behind has its name to be found by
_REFUSED = (NotSupported, Rejected)
_UNVERIFIED = "parts are not verified: the store checks no checksum, and the ETag of a part is no MD5"
_BODY = Payload.of(b"s3fsx probe")


async def probe(store: S3Store, prefix: str, *, multipart: bool = True) -> Capabilities:
    """Finds out, sets ``store.capabilities`` and returns them; about a dozen requests.

    Without ``multipart``, half a dozen: part_copy is assumed (a store without it says so when it is asked for it), and
    conditional_complete is what conditional_put is (a store that ignores the condition loses nothing it had).

    Uses objects below ``<prefix>.s3fsx/probe-`` and removes them, whatever happens. Raises what a store that
    cannot be written to raises (AccessDenied, BucketMissing, QuotaExceeded, EndpointDown, ...); the
    capabilities are then as before.
    """
    before = store.capabilities
    key = f"{prefix}.s3fsx/probe-{uuid.uuid4().hex}"
    try:
        found = await _integrity(store, key)
        if found.integrity == "etag":
            found = await _part_etags(store, key, found)
        found = replace(found, conditional_put=await _conditional_put(store, key))
        if multipart:
            found = await _multipart(store, key, found)
        else:
            found = replace(found, conditional_complete=found.conditional_put)
        found = await _object_lock(store, found)
    except BaseException as error:
        store.capabilities = before
        if isinstance(error, AccessDenied):
            raise AccessDenied(
                f"these keys may not write below {prefix or 'the top of the bucket'}: use -o ro (read_only = true) to "
                f"mount it read-only ({error})"
            ) from None
        raise
    finally:
        await _clean(store, key)
    store.capabilities = found
    return found


async def _integrity(store: S3Store, key: str) -> Capabilities:
    """Leaves the object ``key`` behind, written in the mode that was chosen."""
    for mode in ("crc32", "sha256"):
        if not await store.refuses_wrong(mode, key):
            continue
        try:
            return await _put(store, key, Capabilities(mode))
        except (Corrupted, *_REFUSED):
            continue  # it refuses everything of this kind, not only what is wrong
    if store.options.sse != "aws:kms":
        try:
            return await _put(store, key, Capabilities("etag"))
        except Corrupted:
            pass  # the bucket encrypts by itself
    return await _put(store, key, Capabilities("sha256", notes=(_UNVERIFIED,)))


async def _part_etags(store: S3Store, key: str, found: Capabilities) -> Capabilities:
    """Where only ETags tell what came: that of a part need not be an MD5 where that of an object is (Cloudflare R2, by
    its engineers in s3cmd#1273), and then every part of every backup would be taken for damaged."""
    upload_id = await store.create_upload(key, metadata={WRITE_ID: uuid.uuid4().hex})
    try:
        await store.upload_part(key, upload_id, 1, _BODY)
    except Corrupted:
        found = replace(found, integrity="sha256", notes=(*found.notes, _UNVERIFIED))
    finally:
        with trio.move_on_after(CLEANUP_LIMIT) as scope:
            scope.shield = True
            await store.abort_upload(key, upload_id)
    store.capabilities = found
    return found


async def _put(store: S3Store, key: str, found: Capabilities) -> Capabilities:
    store.capabilities = found
    made = await store.put(key, _BODY, metadata={})
    store.capabilities = replace(found, md5_etags=made.etag == md5(_BODY))
    return store.capabilities


async def _conditional_put(store: S3Store, key: str) -> bool:
    store.capabilities = replace(store.capabilities, conditional_put=True)
    try:
        await store.put(key, _BODY, metadata={WRITE_ID: uuid.uuid4().hex}, only_if_absent=True)
    except Exists:
        return True
    except (Changed, *_REFUSED):
        return False
    return False


async def _multipart(store: S3Store, key: str, found: Capabilities) -> Capabilities:
    """One upload onto the existing object: made of a copied part, published on a condition that does not hold."""
    store.capabilities = replace(found, conditional_complete=True)
    upload_id = await store.create_upload(key, metadata={WRITE_ID: uuid.uuid4().hex})
    try:
        part_copy, part = await _first_part(store, key, upload_id)
        try:
            await store.complete_upload(key, upload_id, [part], only_if_absent=True)
            conditional = False
        except Exists:
            conditional = True
        except _REFUSED:
            conditional = False
    finally:
        with trio.move_on_after(CLEANUP_LIMIT) as scope:
            scope.shield = True
            await store.abort_upload(key, upload_id)
    return replace(found, part_copy=part_copy, conditional_complete=conditional)


async def _object_lock(store: S3Store, found: Capabilities) -> Capabilities:
    try:
        return replace(found, object_lock=await store.has_object_lock())
    except AccessDenied as error:
        note = (
            "these keys may not ask whether the bucket has Object Lock (s3:GetBucketObjectLockConfiguration): the "
            f".protected files of Proxmox set no legal hold ({error})"
        )
    except _REFUSED as error:
        note = (
            f"the store does not say whether the bucket has Object Lock: .protected files set no legal hold ({error})"
        )
    return replace(found, notes=(*found.notes, note))


async def _first_part(store: S3Store, key: str, upload_id: str) -> tuple[bool, UploadedPart]:
    try:
        return True, await store.copy_part(key, upload_id, 1, key, 0, _BODY.size, etag="")
    except (NotFound, *_REFUSED):
        return False, await store.upload_part(key, upload_id, 1, _BODY)


async def _clean(store: S3Store, key: str) -> None:
    with trio.move_on_after(CLEANUP_LIMIT) as scope:
        scope.shield = True
        try:
            await store.delete(key)
        except S3fsxError:
            return  # the probe's own error, if any, says it better
