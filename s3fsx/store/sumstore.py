"""Where the checksums of objects are kept: as small objects beside them, and in memory for those that are being read.

An object that has none was written by another tool (or by an s3fsx that died in between): that is remembered too,
though not for long, because another node may be about to store them.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from ..errors import AccessDenied, Corrupted, NotFound, S3fsxError, TooLarge
from .objects import ObjectInfo, Payload, Store
from .sums import LIMIT, Sums, decode, name, stem

log = logging.getLogger("s3fsx.verify")

ATTEMPTS = 3
DIRECTORY = ".s3fsx/sums/"

_MEMORY = 16 << 20  # bytes, but for one entry that is larger by itself: those of 4 TB
_MISSING = 60.0  # seconds
_SAVE = 60.0  # seconds the publication of an object may be held up for its sums: parts of others are in the queue
_NEWEST = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """sums: None when there are none. until: trio's clock."""

    sums: Sums | None
    until: float

    @property
    def weight(self) -> int:
        return self.sums.weight if self.sums is not None else 400


class _Loading:
    """A request under way that several readers wait for."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: S3fsxError | None = None


class SumStore:
    """store: the one that holds the objects, too. prefix: of the mount.

    _entries: least recently used first. _newest: the ETag of the version whose sums this mount last wrote or read, by
    key: they go when the object is replaced.
    """

    def __init__(self, store: Store, prefix: str, *, memory: int = _MEMORY) -> None:
        self._store = store
        self._prefix = prefix
        self._memory = memory
        self._held = 0
        self._entries: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._loading: dict[tuple[str, str], _Loading] = {}
        self._newest: OrderedDict[str, str] = OrderedDict()
        self._denied = False

    def _where(self, key: str, etag: str) -> str | None:
        short = name(key, etag)
        return None if short is None else self._prefix + DIRECTORY + short

    # -- reading

    def known(self, key: str, etag: str) -> Entry | None:
        """What is in memory."""
        entry = self._entries.get((key, etag))
        if entry is None or entry.until < trio.current_time():
            return None
        self._entries.move_to_end((key, etag))
        return entry

    async def get(self, key: str, etag: str, *, anew: bool = False) -> Sums | None:
        """The sums, None where there are none. anew: whatever is in memory.

        Raises Corrupted when what is stored is not what was; whatever the store raises.
        """
        if anew:
            self._forget(key, etag)
        while (entry := self.known(key, etag)) is None:
            loading = self._loading.get((key, etag))
            if loading is None:
                return await self._load(key, etag)
            await loading.done.wait()
            if loading.error is not None:
                raise loading.error
        return entry.sums

    async def _load(self, key: str, etag: str) -> Sums | None:
        loading = self._loading[key, etag] = _Loading()
        try:
            sums = await self._fetch(key, etag)
            self._remember(key, etag, sums)
            return sums
        except S3fsxError as e:
            loading.error = e
            raise
        finally:
            del self._loading[key, etag]
            loading.done.set()  # cancelled: one of those who wait goes on

    async def _fetch(self, key: str, etag: str) -> Sums | None:
        where = self._where(key, etag)
        if where is None:
            return None
        for attempt in range(1, ATTEMPTS + 1):
            try:
                sums = decode(await self._store.get(where, limit=LIMIT))
                if (sums.key, sums.etag) == (key, etag):
                    return sums
                why = f"checksums: of {sums.key!r}"
            except NotFound:
                return None
            except AccessDenied as e:
                if not self._denied:
                    log.warning("checksums cannot be read, so that large objects are read unverified: %s", e)
                self._denied = True
                return None
            except (Corrupted, TooLarge) as e:
                why = str(e)
            if attempt == 1:
                log.warning("%s: %s; fetching them again", where, why)
        raise Corrupted(
            f"{key}: cannot be verified, its {why}; to read it all the same, delete the object {where} or mount with "
            "-o verify_reads=false"
        )

    def _remember(self, key: str, etag: str, sums: Sums | None) -> None:
        self._forget(key, etag)
        entry = Entry(sums, float("inf") if sums is not None else trio.current_time() + _MISSING)
        self._entries[key, etag] = entry
        self._held += entry.weight
        while self._held > self._memory and len(self._entries) > 1:
            self._forget(*next(iter(self._entries)))
        if sums is not None:
            self._newest[key] = etag
            self._newest.move_to_end(key)
            if len(self._newest) > _NEWEST:
                self._newest.popitem(last=False)

    def _forget(self, key: str, etag: str) -> None:
        entry = self._entries.pop((key, etag), None)
        if entry is not None:
            self._held -= entry.weight

    # -- writing

    async def put(self, sums: Sums) -> None:
        """Of an object that has just been published. Raises nothing: the object is whole without them, too."""
        if self._where(sums.key, sums.etag) is None:
            return
        await self.published(sums, await self.store(sums))

    async def store(self, sums: Sums) -> str:
        """Also of an object that is about to be published. Why they were not stored, "" when they were."""
        where = self._where(sums.key, sums.etag)
        if where is None:
            return "its ETag can be no name"
        with trio.move_on_after(_SAVE):
            try:
                await self._store.put(where, Payload.of(sums.encode()), metadata={})
                return ""
            except S3fsxError as e:
                return str(e)
        return f"they were not stored within {_SAVE:.0f} s"

    async def published(self, sums: Sums, why: str) -> None:
        """Their object is there: those of the one before go. why: what ``store`` said."""
        if why:
            log.warning("%s: in the bucket, whole, but without checksums: reads are not verified (%s)", sums.key, why)
        await self.replaced(sums.key, sums.etag)
        if not why:
            self._remember(sums.key, sums.etag, sums)

    async def replaced(self, key: str, etag: str) -> None:
        """``key`` has a new version: the sums of one that this mount knew go."""
        old = self._newest.get(key)
        if old is not None and old != etag:
            await self.drop((key, old))

    async def drop(self, *versions: tuple[str, str]) -> None:
        """These (key, ETag) are gone. Raises nothing: what stays is found by ``orphans``."""
        doomed = [where for key, etag in versions if (where := self._dropped(key, etag)) is not None]
        try:
            if len(doomed) == 1:
                await self._store.delete(doomed[0])
            elif doomed:
                for where, error in (await self._store.delete_many(dict.fromkeys(doomed))).items():
                    log.info("%s: the checksums of a deleted object stay: %s", where, error)
        except S3fsxError as e:
            log.info("%s: the checksums of a deleted object stay: %s", ", ".join(doomed[:3]), e)

    def _dropped(self, key: str, etag: str) -> str | None:
        """Out of memory. Where they are in the bucket, None where they are not."""
        entry = self.known(key, etag)
        self._forget(key, etag)
        if self._newest.get(key) == etag:
            del self._newest[key]
        return None if entry is not None and entry.sums is None else self._where(key, etag)

    async def orphans(self) -> list[str]:
        """Keys of sums whose object is not there (any more); lists everything below the prefix. The sums are listed
        first, then the uploads that are to become their objects, then the objects: one that is published meanwhile is
        in one of the two."""
        left = {info.key.rpartition("/")[2]: info.key async for info in self._all(self._prefix + DIRECTORY)}
        unfinished = {stem(upload.key) for upload in await self._store.list_uploads(self._prefix)}
        async for info in self._all(self._prefix):
            left.pop(name(info.key, info.etag) or "", None)
        return sorted(where for short, where in left.items() if short.partition("-")[0] not in unfinished)

    async def _all(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        token: str | None = None
        while True:
            page = await self._store.list_page(prefix, delimiter="", token=token)
            for info in page.objects:
                yield info
            token = page.next_token
            if token is None:
                return
