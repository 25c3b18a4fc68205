"""When a backup was last read back, and how that ended: a small object for each version, beside the checksums.

``<prefix>.s3fsx/checked/<as its checksums are called>.ok`` or ``.bad``: the name says all that a listing of backups
shows, and Last-Modified when, so that it takes no request for each. ``.broken`` is what a drill could not restore: that
every byte is what was written says nothing against it, so only a drill that succeeds takes it back. The content is for
people: a line of JSON.
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
_OK, _BAD, _BROKEN = ".ok", ".bad", ".broken"


@dataclass(frozen=True, slots=True)
class Check:
    """when: Unix seconds, by the store's clock."""

    when: float
    good: bool


@dataclass(frozen=True, slots=True)
class Checks:
    """known: the latest of each version, or that it is broken, by the name of its checksums. keys: of all records, by
    the same."""

    known: dict[str, Check]
    keys: dict[str, tuple[str, ...]]

    def of(self, info: ObjectInfo) -> Check | None:
        return self.known.get(name(info.key, info.etag) or "")


async def read_checks(store: Store, prefix: str) -> Checks:
    """Raises what the store raises."""
    known: dict[str, Check] = {}
    broken: dict[str, Check] = {}
    keys: dict[str, tuple[str, ...]] = {}
    pages = Pages(store, prefix + DIRECTORY, delimiter="")
    while (page := await pages.next()) is not None:
        for info in page.objects:
            stem, dot, kind = info.key.rpartition("/")[2].rpartition(".")
            if dot + kind not in (_OK, _BAD, _BROKEN):
                continue
            keys[stem] = (*keys.get(stem, ()), info.key)
            if dot + kind == _BROKEN:
                broken[stem] = Check(info.modified, False)
                continue
            check = Check(info.modified, dot + kind == _OK)
            before = known.get(stem)
            # Of two in one second the bad one counts.
            if before is None or (check.when, not check.good) > (before.when, not before.good):
                known[stem] = check
    return Checks(known | broken, keys)


async def record(store: Store, prefix: str, info: ObjectInfo, *, good: bool, how: str) -> None:
    """That its bytes were compared. Raises nothing: the check itself is what counts. how: for people."""
    kinds = (_OK, _BAD) if good else (_BAD, _OK)
    await _record(store, prefix, info, *kinds, good=good, how=how)


async def record_drill(store: Store, prefix: str, info: ObjectInfo, *, good: bool, verified: bool, how: str) -> None:
    """verified: every byte was compared, too. Raises nothing."""
    if not good:
        await _record(store, prefix, info, _BROKEN, "", good=False, how=how)
        return
    if verified:
        await record(store, prefix, info, good=True, how=how)
    if (stem := name(info.key, info.etag)) is not None:
        await remove(store, [prefix + DIRECTORY + stem + _BROKEN])


async def _record(
    store: Store, prefix: str, info: ObjectInfo, kind: str, instead: str, *, good: bool, how: str
) -> None:
    stem = name(info.key, info.etag)
    if stem is None:
        return
    where = prefix + DIRECTORY + stem
    text = json.dumps({"key": info.key, "etag": info.etag, "size": info.size, "good": good, "how": how}) + "\n"
    try:
        await store.put(where + kind, Payload.of(text.encode()), metadata={})
        if instead:
            await store.delete(where + instead)
    except S3fsxError as e:
        log.warning("%s: that it was checked cannot be noted in the bucket: %s", info.key, e)


async def forget(store: Store, prefix: str, info: ObjectInfo) -> None:
    """The version is gone. Raises nothing."""
    stem = name(info.key, info.etag)
    if stem is not None:
        await remove(store, [prefix + DIRECTORY + stem + kind for kind in (_OK, _BAD, _BROKEN)])


async def remove(store: Store, keys: Iterable[str]) -> None:
    """Raises nothing: a record that stays does no harm, and the next check of all removes it."""
    for key in keys:
        try:
            await store.delete(key)
        except S3fsxError as e:
            log.info("%s: stays: %s", key, e)
