"""What this mount has begun in the bucket and not finished: one sqlite file, fsynced, owned by one mount.

A record is written before the request it speaks of and removed after its effect is known, so that after a crash the
next mount can finish what had returned success and abort the rest (``records`` has the states).
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import astuple, replace
from typing import Any, TypeVar
from urllib.parse import quote

import trio

from .. import safepath
from ..errors import ConfigError, S3fsxError
from ..store.objects import UploadedPart
from ..transfer.threads import in_thread
from .records import Intent, Piece, UploadRecord

T = TypeVar("T")

_VERSION = 3  # PRAGMA user_version; 0 is that of 0.1.0, which had uploads only; 2 had no ``resent``
_SCHEMA = (
    """
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
    modified REAL NOT NULL,
    resent TEXT NOT NULL
) STRICT
""",
    """
CREATE TABLE IF NOT EXISTS intents (
    intent_id TEXT PRIMARY KEY,
    phase TEXT NOT NULL,
    path TEXT NOT NULL,
    created REAL NOT NULL,
    pieces TEXT NOT NULL
) STRICT
""",
    """
CREATE TABLE IF NOT EXISTS node (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT
""",
)

FILE = "journal.sqlite"
_DISK = (8, 10, 13, 14)  # SQLITE_READONLY, _IOERR, _FULL, _CANTOPEN: says nothing about what is in the file
_UPLOADS = "write_id, upload_id, state, key, path, created, size, parts, etag, modified, resent"
_INTENTS = "intent_id, phase, path, created, pieces"


class _Older(ValueError):
    """The file has the format of an earlier version, and may not be written to."""


class JournalInUse(ConfigError):
    """Another mount of this machine holds the lock."""


class JournalError(S3fsxError):
    """The state directory cannot be written; nothing new may be begun."""


class Journal:
    """Blocking inside, asynchronous outside: one worker thread at a time, in order.

    node: a random id, made with the file: who else reads the bucket knows this journal by it. new: the file was made
    by this ``open``. changes: how often a record of an upload was written or removed.

    Raises ConfigError from ``open`` (another mount owns the directory, unreadable file), JournalError later.
    """

    def __init__(self, db: sqlite3.Connection, lock_fd: int) -> None:
        self._db = db
        self._lock_fd = lock_fd
        self._turn = trio.CapacityLimiter(1)
        self._moved = trio.Event()
        self.changes = 0
        self.unfinished: set[str] = set()  # write ids of uploads, as put, removed or read here
        self.new, self.node = _prepare(db)

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
            raise ConfigError(f"state_dir {directory}: {e.strerror}; s3fsx keeps its journal there") from e
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock_fd)
            raise JournalInUse(
                f"{directory} is in use by another s3fsx mount of the same bucket and prefix on this machine; "
                "unmount that one, or give this one its own state_dir"
            ) from None
        path = os.path.join(directory, FILE)
        try:
            db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
            try:
                journal = cls(db, lock_fd)  # first: it refuses what is not ours, and that must stay as it is
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                db.execute("PRAGMA journal_size_limit=1048576")
                return journal
            except BaseException:
                db.close()
                raise
        except (sqlite3.Error, OSError, ValueError) as e:
            os.close(lock_fd)
            raise _unusable(path, e) from e

    @classmethod
    def look(cls, directory: str) -> Journal | None:
        """To read the journal of a mount that may be running: without its lock, never written to. None: there is none.

        Raises ConfigError when it cannot be read.
        """
        path = os.path.join(directory, FILE)
        if not os.path.exists(path):
            return None
        try:
            db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, check_same_thread=False, timeout=5)
            try:
                db.execute("PRAGMA query_only=ON")
                return cls(db, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except BaseException:
                db.close()
                raise
        except _Older:
            raise ConfigError(
                f"the journal {path} is of an older version of s3fsx: mount once with this version, which brings it up "
                "to date"
            ) from None
        except (sqlite3.Error, OSError, ValueError) as e:
            raise _unusable(path, e) from e

    async def _run(self, action: Callable[[], T]) -> T:
        def work() -> T:
            try:
                return action()
            except sqlite3.Error as e:
                raise JournalError(f"journal: {e}; is the disk of state_dir full or read-only?") from e

        # Not abandoned on cancel: a journal write lasts milliseconds and must not overtake a later one.
        result: T = await in_thread(work, limiter=self._turn, abandon=False)
        return result

    def _uploads_changed(self) -> None:
        self.changes += 1
        self._moved.set()
        self._moved = trio.Event()

    async def wait_changed(self, since: int) -> None:
        """Until ``changes`` is no longer ``since``."""
        while self.changes == since:
            await self._moved.wait()

    # -- uploads

    async def put(self, record: UploadRecord) -> None:
        """Insert or replace; on disk when it returns."""
        row = (
            record.write_id,
            record.upload_id,
            record.state,
            record.key,
            record.path,
            record.created,
            record.size,
            json.dumps([_values(part) for part in record.parts]),
            record.etag,
            record.modified,
            "" if record.resent is None else json.dumps(_values(record.resent)),
        )
        await self._run(lambda: self._db.execute(_insert("uploads", _UPLOADS), row))
        self.unfinished.add(record.write_id)
        self._uploads_changed()

    async def change(self, record: UploadRecord, **changes: Any) -> UploadRecord:
        """The record with some fields replaced, stored."""
        changed = replace(record, **changes)
        await self.put(changed)
        return changed

    async def remove(self, write_id: str) -> None:
        await self._run(lambda: self._db.execute("DELETE FROM uploads WHERE write_id = ?", (write_id,)))
        self.unfinished.discard(write_id)
        self._uploads_changed()

    async def records(self) -> list[UploadRecord]:
        """All of them, oldest first."""
        found = await self._run(lambda: _uploads(self._db))
        self.unfinished |= {record.write_id for record in found}
        return found

    # -- changes of names

    async def intend(self, intent: Intent) -> None:
        """Insert or replace; on disk when it returns."""
        pieces = json.dumps([astuple(piece) for piece in intent.pieces])
        row = (intent.intent_id, intent.phase, intent.path, intent.created, pieces)
        await self._run(lambda: self._db.execute(_insert("intents", _INTENTS), row))

    async def fulfilled(self, intent_id: str) -> None:
        """Forget an intent. Not fsynced, so that a rename waits for the disk once: a power cut may bring it back, and
        replay then finds that nothing of it is left to do."""

        def action() -> None:
            self._db.execute("PRAGMA synchronous=NORMAL")
            try:
                self._db.execute("DELETE FROM intents WHERE intent_id = ?", (intent_id,))
            finally:
                self._db.execute("PRAGMA synchronous=FULL")

        await self._run(action)

    async def intents(self) -> list[Intent]:
        """All of them, oldest first."""
        return await self._run(lambda: _intents(self._db))

    # -- the copy in the bucket

    async def copied(self) -> bool:
        """Whether there may be one: what ``set_copied`` said last."""
        found = await self._run(
            lambda: self._db.execute("SELECT value FROM node WHERE name = 'copied'").fetchone(),
        )
        return found is not None and found[0] == "yes"

    async def set_copied(self, there: bool) -> None:
        row = ("copied", "yes" if there else "no")
        await self._run(lambda: self._db.execute("INSERT OR REPLACE INTO node VALUES (?,?)", row))

    def close(self) -> None:
        self._db.close()
        os.close(self._lock_fd)


def _insert(table: str, columns: str) -> str:
    marks = ",".join("?" * len(columns.split(",")))
    return f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})"


def _unusable(path: str, error: Exception) -> ConfigError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte of an extended code
    if isinstance(error, OSError) or code in _DISK:
        return ConfigError(f"state_dir {os.path.dirname(path)}: {error}; s3fsx keeps its journal there")
    return ConfigError(
        f"the journal {path} cannot be used ({error}). It is kept. To go on without it move it away, mount, and let "
        "'s3fsx recover SOURCE' show which unfinished uploads in the bucket may be its own"
    )


def _prepare(db: sqlite3.Connection) -> tuple[bool, str]:
    """Make or check the tables: (the journal is new, its node id). Raises sqlite3.Error or ValueError for what is
    damaged or not ours."""
    (problem,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise ValueError(problem)
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise ValueError("a newer version of s3fsx wrote it")
    if tables and "uploads" not in tables:
        raise ValueError("it is the database of something else")
    if version < _VERSION and db.execute("PRAGMA query_only").fetchone()[0]:
        raise _Older
    if version < _VERSION:
        _migrate(db, "uploads" in tables)
    try:
        _uploads(db)
        _intents(db)
        (node,) = db.execute("SELECT value FROM node WHERE name = 'id'").fetchone()
    except (TypeError, IndexError) as e:
        raise ValueError(f"a record in it makes no sense: {e}") from e
    return not tables, node


def _migrate(db: sqlite3.Connection, older: bool) -> None:
    """The tables of a new journal, and what one of an earlier version lacks; all or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if older:
            there = {row[1] for row in db.execute("PRAGMA table_info(uploads)")}
            text, real = "TEXT NOT NULL DEFAULT ''", "REAL NOT NULL DEFAULT 0"
            for column, kind in (("etag", text), ("modified", real), ("resent", text)):
                if column not in there:
                    db.execute(f"ALTER TABLE uploads ADD COLUMN {column} {kind}")
        for statement in _SCHEMA:
            db.execute(statement)
        db.execute("INSERT OR IGNORE INTO node VALUES ('id', ?)", (uuid.uuid4().hex,))
        db.execute(f"PRAGMA user_version={_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _uploads(db: sqlite3.Connection) -> list[UploadRecord]:
    rows = db.execute(f"SELECT {_UPLOADS} FROM uploads ORDER BY created").fetchall()
    return [_upload(*row) for row in rows]


def _upload(
    write_id: str,
    upload_id: str,
    state: str,
    key: str,
    path: str,
    created: float,
    size: int,
    parts: str,
    etag: str,
    modified: float,
    resent: str,
) -> UploadRecord:
    sent = tuple(_part(*part) for part in json.loads(parts))
    again = _part(*json.loads(resent)) if resent else None
    return UploadRecord(write_id, upload_id, state, key, path, created, size, sent, etag, modified, again)


def _values(part: UploadedPart) -> tuple[int, int, str, int | None, str]:
    return part.number, part.size, part.etag, part.crc32, part.grains.hex()


def _part(number: int, size: int, etag: str, crc32: int | None, grains: str = "") -> UploadedPart:
    """A journal of an earlier version has no grains."""
    return UploadedPart(number, size, etag, crc32, bytes.fromhex(grains))


def _intents(db: sqlite3.Connection) -> list[Intent]:
    rows = db.execute(f"SELECT {_INTENTS} FROM intents ORDER BY created").fetchall()
    return [Intent(i, phase, path, created, _pieces(pieces)) for i, phase, path, created, pieces in rows]


def _pieces(text: str) -> tuple[Piece, ...]:
    return tuple(Piece(*piece) for piece in json.loads(text))
