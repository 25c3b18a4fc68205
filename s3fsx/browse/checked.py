"""When a backup was last read back, and how that ended: a small object for each version, beside the checksums.

``<prefix>.s3fsx/checked/<as its checksums are called>.ok`` or ``.bad``: the name says all that a listing of backups
shows, and Last-Modified when, so that it takes no request for each. The content is for people: a line of JSON.
The backup itself is never touched.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import S3fsxError
from ..fs.pages import Pages
from ..store.objects import ObjectInfo, Payload, Store
from ..store.sums import name

log = logging.getLogger("s3fsx.browse")

DIRECTORY = ".s3fsx/checked/"
_OK, _BAD = ".ok", ".bad"


@dataclass(frozen=True, slots=True)
class Check:
    """when: Unix seconds, by the store's clock."""

    when: float
    good: bool


@dataclass(frozen=True, slots=True)
class Checks:
    """known: the latest of each version, by the name of its checksums. keys: of all records, by the same."""

    known: dict[str, Check]
    keys: dict[str, tuple[str, ...]]

    def of(self, info: ObjectInfo) -> Check | None:
        return self.known.get(name(info.key, info.etag) or "")


async def read_checks(store: Store, prefix: str) -> Checks:
    """Raises what the store raises."""
    known: dict[str, Check] = {}
    keys: dict[str, tuple[str, ...]] = {}
    pages = Pages(store, prefix + DIRECTORY, delimiter="")
    while (page := await pages.next()) is not None:
        for info in page.objects:
            stem, dot, kind = info.key.rpartition("/")[2].rpartition(".")
            if dot + kind not in (_OK, _BAD):
                continue
            keys[stem] = (*keys.get(stem, ()), info.key)
            check = Check(info.modified, dot + kind == _OK)
            before = known.get(stem)
            # Of two in one second the bad one counts.
            if before is None or (check.when, not check.good) > (before.when, not before.good):
                known[stem] = check
    return Checks(known, keys)


async def record(store: Store, prefix: str, info: ObjectInfo, *, good: bool, how: str) -> None:
    """Raises nothing: the check itself is what counts. how: for people."""
    stem = name(info.key, info.etag)
    if stem is None:
        return
    where = prefix + DIRECTORY + stem
    text = json.dumps({"key": info.key, "etag": info.etag, "size": info.size, "good": good, "how": how}) + "\n"
    try:
        await store.put(where + (_OK if good else _BAD), Payload.of(text.encode()), metadata={})
        await store.delete(where + (_BAD if good else _OK))
    except S3fsxError as e:
        log.warning("%s: that it was checked cannot be noted in the bucket: %s", info.key, e)


async def forget(store: Store, prefix: str, info: ObjectInfo) -> None:
    """The version is gone. Raises nothing."""
    stem = name(info.key, info.etag)
    if stem is not None:
        await remove(store, [prefix + DIRECTORY + stem + kind for kind in (_OK, _BAD)])


async def remove(store: Store, keys: Iterable[str]) -> None:
    """Raises nothing: a record that stays does no harm, and the next check of all removes it."""
    for key in keys:
        try:
            await store.delete(key)
        except S3fsxError as e:
            log.info("%s: stays: %s", key, e)
