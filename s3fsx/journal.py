"""What this mount has begun in the bucket and not finished: one sqlite file, fsynced, owned by one mount.

A record is written before the request it speaks of and removed after its effect is known, so that after a crash the
next mount can finish what had returned success and abort the rest. Records are keyed by the write id, which the
object's own metadata carries too (``s3fsx-write``): an object in the bucket can be told to be ours.

States of an upload:

    opening     CreateMultipartUpload is about to be sent; the upload id is not known yet
    open        parts are being sent; nothing has returned success        -> replay aborts it
    settled     a temporary name was closed, every part is in the store   -> replay brings the file back, unpublished
    publishing  CompleteMultipartUpload is about to be sent, for ``path`` -> replay finishes it
    aborting    the file was deleted or failed                            -> replay aborts it
    removing    the same, and its Complete may have had its effect        -> replay aborts it and removes its object
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import trio

from . import safepath
from .errors import ConfigError, S3fsxError
from .objects import UploadedPart

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS uploads (
    write_id TEXT PRIMARY KEY,
    upload_id TEXT NOT NULL,
    state TEXT NOT NULL,
    key TEXT NOT NULL,
    path TEXT NOT NULL,
    size INTEGER NOT NULL,
    parts TEXT NOT NULL,
    created REAL NOT NULL,
    etag TEXT NOT NULL,
    modified REAL NOT NULL
) STRICT
"""

_PUT = """
INSERT OR REPLACE INTO uploads (write_id, upload_id, state, key, path, size, parts, created, etag, modified)
VALUES (?,?,?,?,?,?,?,?,?,?)
"""


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """One unfinished upload. key: what Complete will create. path: the file name it stands for, which differs from
    the key's own path while a temporary name waits for its rename. size: bytes, 0 until settled. etag, modified: of
    the object once it is completed under a key it is not to keep, so that nothing else is ever deleted for it."""

    write_id: str
    upload_id: str
    state: str
    key: str
    path: str
    created: float
    size: int = 0
    parts: tuple[UploadedPart, ...] = ()
    etag: str = ""
    modified: float = 0.0


class JournalInUse(ConfigError):
    """Another mount of this machine holds the lock."""


class JournalError(S3fsxError):
    """The state directory cannot be written; nothing new may be begun."""


class Journal:
    """Blocking inside, asynchronous outside: one worker thread at a time, in order.

    Raises ConfigError from ``open`` (another mount owns the directory, unreadable file), JournalError later.
    """

    def __init__(self, db: sqlite3.Connection, lock_fd: int) -> None:
        self._db = db
        self._lock_fd = lock_fd
        self._turn = trio.CapacityLimiter(1)

    @classmethod
    def open(cls, directory: str) -> Journal:
        """Create or open the journal in ``directory`` (0700) and lock it until ``close``."""
        try:
            safepath.private_directory(directory, "state_dir")
            for name in ("lock", "journal.sqlite"):
                safepath.private_file(os.path.join(directory, name), "state_dir")
            for name in ("journal.sqlite-wal", "journal.sqlite-shm", "journal.sqlite-journal"):
                safepath.own_file(os.path.join(directory, name), "state_dir")
            lock_fd = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as e:
            raise ConfigError(f"state_dir {directory}: {e.strerror}; s3fsx keeps its journal there") from None
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock_fd)
            raise JournalInUse(
                f"{directory} is in use by another s3fsx mount of the same bucket and prefix on this machine; "
                "unmount that one, or give this one its own state_dir"
            ) from None
        path = os.path.join(directory, "journal.sqlite")
        try:
            db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA journal_size_limit=1048576")
            db.execute(_SCHEMA)
            _migrate(db)
        except (sqlite3.Error, OSError) as e:
            os.close(lock_fd)
            raise ConfigError(
                f"the journal {path} cannot be used ({e}); move it away to go on without it (unfinished uploads "
                "then stay in the bucket until they are aborted by hand)"
            ) from None
        return cls(db, lock_fd)

    async def _run(self, action: Callable[[], T]) -> T:
        def work() -> T:
            try:
                return action()
            except sqlite3.Error as e:
                raise JournalError(f"journal: {e}; is the disk of state_dir full or read-only?") from e

        # Not abandoned on cancel: a journal write lasts milliseconds and must not overtake a later one.
        return await trio.to_thread.run_sync(work, limiter=self._turn)

    async def put(self, record: UploadRecord) -> None:
        """Insert or replace; on disk when it returns."""
        parts = json.dumps([(p.number, p.size, p.etag, p.crc32) for p in record.parts])
        row = (
            record.write_id,
            record.upload_id,
            record.state,
            record.key,
            record.path,
            record.size,
            parts,
            record.created,
            record.etag,
            record.modified,
        )
        await self._run(lambda: self._db.execute(_PUT, row))

    async def change(self, record: UploadRecord, **changes: object) -> UploadRecord:
        """The record with some fields replaced, stored."""
        changed = replace(record, **changes)  # type: ignore[arg-type]  # field names are checked by replace itself
        await self.put(changed)
        return changed

    async def remove(self, write_id: str) -> None:
        await self._run(lambda: self._db.execute("DELETE FROM uploads WHERE write_id = ?", (write_id,)))

    async def records(self) -> list[UploadRecord]:
        """All of them, oldest first."""
        rows = await self._run(
            lambda: self._db.execute(
                "SELECT write_id, upload_id, state, key, path, created, size, parts, etag, modified"
                " FROM uploads ORDER BY created"
            ).fetchall()
        )
        return [_record(row) for row in rows]

    def close(self) -> None:
        self._db.close()
        os.close(self._lock_fd)


def _migrate(db: sqlite3.Connection) -> None:
    """A journal of an earlier version gets the columns it lacks."""
    there = {row[1] for row in db.execute("PRAGMA table_info(uploads)")}
    for column, kind in (("etag", "TEXT NOT NULL DEFAULT ''"), ("modified", "REAL NOT NULL DEFAULT 0")):
        if column not in there:
            db.execute(f"ALTER TABLE uploads ADD COLUMN {column} {kind}")


def _record(row: Sequence[Any]) -> UploadRecord:
    write_id, upload_id, state, key, path, created, size, parts, etag, modified = row
    sent = tuple(UploadedPart(*part) for part in json.loads(parts))
    return UploadRecord(write_id, upload_id, state, key, path, created, size, sent, etag, modified)
