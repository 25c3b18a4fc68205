"""What lifecycle rules say is done: twice a day all buckets with rules are walked."""

from __future__ import annotations

import contextlib
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

_FIRST, _EVERY = 600, 12 * 3600  # seconds; a gateway that is started anew each morning expires, too


async def keep_expiring(backend: Backend, clock: Callable[[], float] = time.time) -> None:
    """Runs for ever. What fails is tried again the next time."""
    await trio.sleep(_FIRST)
    while True:
        try:
            await expire(backend, clock())
        except (S3Error, OSError) as error:
            log.warning("lifecycle: %s", error)
        await trio.sleep(_EVERY)


async def expire(backend: Backend, now: float) -> int:
    """How many versions and uploads have gone."""
    gone = 0
    for bucket in await backend.buckets():
        rules = bucket.settings.get("lifecycle")
        if rules:
            try:
                gone += await _bucket(backend, bucket, rules, now)
            except (S3Error, OSError) as error:  # the others are none the worse
                log.warning("lifecycle of %s: %s", bucket.name, error)
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
            with contextlib.suppress(S3Error):  # completed meanwhile
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
        log.info("lifecycle leaves %s/%r: %s", bucket.name, version.key, error)
        return 0
    return 1
