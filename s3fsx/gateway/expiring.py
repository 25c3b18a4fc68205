"""What lifecycle rules say is done: twice a day all buckets with rules are walked."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence

import trio

from .backend import Backend
from .errors import S3Error
from .lifecycle import Rule, aborted, doomed
from .model import Bucket, Object, Query

log = logging.getLogger("s3fsx.gateway")

_EVERY = 12 * 3600  # seconds


async def keep_expiring(backend: Backend, clock: Callable[[], float] = time.time) -> None:
    """Runs for ever. What fails is tried again the next time."""
    while True:
        await trio.sleep(_EVERY)
        try:
            await expire(backend, clock())
        except (S3Error, OSError) as error:
            log.warning("lifecycle: %s", error)


async def expire(backend: Backend, now: float) -> int:
    """How many versions and uploads have gone."""
    gone = 0
    for bucket in await backend.buckets():
        rules = bucket.settings.get("lifecycle")
        if rules:
            gone += await _bucket(backend, bucket, rules, now)
    return gone


async def _bucket(backend: Backend, bucket: Bucket, rules: Sequence[Rule], now: float) -> int:
    gone = 0
    query = Query()
    held: list[Object] = []  # versions of a key may go on in the next page
    while True:
        page = await backend.list_versions(bucket.name, query)
        held += page.entries
        groups = [list(versions) for _, versions in itertools.groupby(held, lambda found: found.key)]
        held = groups.pop() if page.next_key and groups else []
        for versions in groups:
            for version in doomed(rules, versions, now):
                gone += await _delete(backend, bucket, version, now)
        if not page.next_key:
            break
        query = Query(after=page.next_key, after_mark=page.next_mark)
    for upload in (await backend.list_uploads(bucket.name, Query(limit=1_000_000))).uploads:
        if aborted(rules, upload.key, upload.initiated, now):
            await backend.abort(bucket.name, upload.id)
            gone += 1
    return gone


async def _delete(backend: Backend, bucket: Bucket, version: Object, now: float) -> int:
    def unchanged(current: Object | None) -> None:
        """What was written meanwhile stays."""
        if current is not None and current.modified != version.modified:
            raise S3Error("PreconditionFailed")

    def guard(found: Object) -> None:
        if found.hold or (found.mode and found.until > now):
            raise S3Error("AccessDenied")

    latest = version.latest and not version.marker
    try:
        await backend.delete(bucket.name, version.key, "" if latest else version.version, unchanged, guard)
    except S3Error as error:
        log.info("lifecycle leaves %s/%s: %s", bucket.name, version.key, error)
        return 0
    return 1
