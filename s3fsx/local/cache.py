"""What HEAD said, kept on disk: the metadata of one version of one object (mode, owner, mtime).

An entry is keyed by key, ETag and modification time as a fresh listing tells them, so it is never trusted alone: it
spares the HEAD, not the LIST, and an object changed elsewhere simply misses. Values are raw bytes; what diskcache
would have to unpickle is refused, because whoever can write the directory could run code that way.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

import diskcache
import trio

from .. import safepath
from ..errors import ConfigError
from ..store.objects import ObjectInfo

log = logging.getLogger("s3fsx.cache")

_BACKLOG = 4096
_FLUSH_EVERY = 1.0
_MOST_VALUE = 64 << 10  # 8 KiB of metadata (s3.answers.MAX_METADATA) as JSON; above it is nothing of ours


class _RawDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no type information
    """Text keys and bytes values only, all in the database: a poisoned one may name any file, which diskcache would
    read, and delete when it evicts the row."""

    def store(self, value: object, read: bool, key: object = diskcache.UNKNOWN) -> Any:
        if read or not isinstance(value, bytes):
            raise TypeError("only bytes are cached")
        return super().store(value, read, key=key)

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> Any:
        if mode != diskcache.core.MODE_RAW or filename is not None:
            raise KeyError("not a raw value")
        return super().fetch(mode, filename, value, read)

    def remove(self, file_path: str) -> None:
        return


def _key(info: ObjectInfo) -> str:
    return f"{info.key}\n{info.etag}\n{int(info.modified)}"


def _decode(raw: object) -> dict[str, str] | None:
    """The stored metadata, or None for anything that is not what ``put`` stored."""
    try:
        value = json.loads(raw) if isinstance(raw, bytes) and len(raw) <= _MOST_VALUE else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        return None
    return value


def _database(directory: str) -> list[str]:
    return [os.path.join(directory, name) for name in os.listdir(directory) if name.startswith("cache.db")]


def _opened(directory: str, size: int) -> Any:
    for name in _database(directory):
        safepath.own_file(name, "cache_dir")
    safepath.private_file(os.path.join(directory, "cache.db"), "cache_dir")
    # The least that diskcache puts into a file of its own is more than any value has.
    return diskcache.Cache(directory, size_limit=size, disk=_RawDisk, timeout=1, disk_min_file_size=_MOST_VALUE + 1)


class MetadataCache:
    """``size`` bytes at most (diskcache evicts the least recently stored). Errors of the disk cost a miss, no more.
    hits, misses, evictions: entries."""

    def __init__(self, directory: str, size: int) -> None:
        try:
            safepath.private_directory(directory, "cache_dir")
            try:
                self._disk = _opened(directory, size)
            except sqlite3.OperationalError:  # the disk, or another process
                raise
            except sqlite3.DatabaseError as e:
                log.info("cache_dir %s: begun anew (%s)", directory, e)
                for name in _database(directory):
                    os.unlink(name)
                self._disk = _opened(directory, size)
        except (OSError, sqlite3.Error, diskcache.Timeout) as e:
            raise ConfigError(f"cache_dir {directory} cannot be used ({e})") from None
        self._waiting: dict[str, bytes] = {}
        self._turn = trio.CapacityLimiter(1)
        self.limit = size
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.bytes = 0  # as of the latest write

    async def get_many(self, infos: Iterable[ObjectInfo]) -> dict[str, Mapping[str, str]]:
        """Metadata by object key, for those that are known. One thread hop for all."""
        wanted = {_key(info): info.key for info in infos}
        found: dict[str, Mapping[str, str]] = {}
        for cache_key in list(wanted):
            raw = self._waiting.get(cache_key)
            if raw is not None and (value := _decode(raw)) is not None:
                found[wanted.pop(cache_key)] = value

        def read() -> None:
            for cache_key, key in wanted.items():
                try:
                    value = _decode(self._disk.get(cache_key))
                except (OSError, sqlite3.Error, diskcache.Timeout, KeyError, ValueError):
                    continue
                if value is not None:
                    found[key] = value

        if wanted:
            await trio.to_thread.run_sync(read, limiter=self._turn)
        self.hits += len(found)
        self.misses += len(wanted) - sum(1 for key in wanted.values() if key in found)
        return found

    def put(self, info: ObjectInfo) -> None:
        """Remember info.metadata; written by ``run`` within a second. Dropped when the backlog is full."""
        if info.metadata is not None and len(self._waiting) < _BACKLOG:
            value = json.dumps(dict(info.metadata)).encode()
            if len(value) <= _MOST_VALUE:
                self._waiting[_key(info)] = value

    async def flush(self) -> None:
        batch = dict(self._waiting)

        def write() -> None:
            try:
                with self._disk.transact():
                    expected = len(self._disk) + sum(key not in self._disk for key in batch)
                    for key, value in batch.items():
                        self._disk.set(key, value)
                    self.evictions += max(0, expected - len(self._disk))
                self.bytes = self._disk.volume()
            except (OSError, sqlite3.Error, diskcache.Timeout):
                return

        if batch:
            await trio.to_thread.run_sync(write, limiter=self._turn)
            for key, value in batch.items():
                if self._waiting.get(key) is value:
                    del self._waiting[key]

    async def run(self) -> None:
        """Background task: write what was put, once a second."""
        while True:
            await trio.sleep(_FLUSH_EVERY)
            await self.flush()

    def close(self) -> None:
        self._disk.close()
