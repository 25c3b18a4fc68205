"""One bucket on disk: its objects. Everything here blocks, and runs in threads."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from ..errors import S3Error
from ..keynames import INTERNAL
from ..model import NULL, Deleted, Object, Page, Query
from ..paging import Cut, Keys, cut
from . import files
from .names import Names
from .records import Records
from .versions import TRIES, Entry, Versions, by_hand, unchanged
from .walk import Listings, Walk

Condition = Callable[[Object | None], None]


class Space:
    """path: of the bucket. Any FileNotFoundError of a file to be made means that the bucket has gone."""

    def __init__(self, path: bytes, clock: files.Clock, listings: Listings) -> None:
        self.path = path
        self.internal = os.path.join(path, INTERNAL)
        self.temporary = os.path.join(self.internal, b"tmp")
        self.lock = threading.RLock()
        self.clock = clock
        self.names = Names(path, self.lock)
        self._noncurrent = Names(os.path.join(self.internal, b"noncurrent"), self.lock)
        self.records = Records(os.path.join(self.internal, b"records"))
        versions = os.path.join(self.internal, b"versions")
        self.versions = Versions(versions, self.names, self._noncurrent, self.records)
        self._listings = listings
        for needed in (self.temporary, versions, self._noncurrent.root):
            if not os.path.isdir(needed):
                files.make_directory(needed, path)

    def new_file(self) -> tuple[bytes, int]:
        path = files.temporary(self.temporary)
        return path, files.create(path)

    # Reading.

    def head(self, key: bytes, version: str = "", versioning: str = "") -> Object:
        """Raises S3Error: NoSuchKey, NoSuchVersion."""
        descriptor, found = self.open(key, version, versioning)
        os.close(descriptor)
        return found

    def open(self, key: bytes, version: str = "", versioning: str = "") -> tuple[int, Object]:
        """A descriptor and what is in it; of a marker an empty file. Raises S3Error."""
        if versioning or (version and version != NULL):
            with self.lock:
                entry = self._choose(self.versions.stack(key), version)
                return os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), entry.object
        for _ in range(TRIES):
            path = self.names.find(key)
            if path is None:
                raise S3Error("NoSuchKey", Key=key.decode())
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                status = os.fstat(descriptor)
                found = None
                if stat.S_ISREG(status.st_mode):  # else it was moved aside just now, and a directory made
                    found = self.versions.describe(key, status)
                    if found is None and unchanged(path, status):
                        found = by_hand(key, status)
            except BaseException:
                os.close(descriptor)
                raise
            if found is not None:
                return descriptor, found
            os.close(descriptor)
        raise S3Error("SlowDown")

    @staticmethod
    def _choose(stack: list[Entry], version: str) -> Entry:
        if not version:
            if not stack:
                raise S3Error("NoSuchKey")
            return stack[0]
        for entry in stack:
            if entry.object.version == version:
                return entry
        raise S3Error("NoSuchVersion", VersionId=version)

    # Writing.

    def commit(self, new: bytes, descriptor: int, made: Object, condition: Condition, versioning: str) -> Object:
        """The file ``new`` becomes the key's, and is on disk. descriptor: of it. Raises S3Error of the condition."""
        key = made.key.encode()
        version = secrets.token_hex(16) if versioning == "Enabled" else NULL
        above = 0
        while True:
            time = self.clock.next(above)
            made = replace(made, modified=time, version=version)
            os.utime(descriptor, ns=(time, time))
            if os.fstat(descriptor).st_mtime_ns != time:
                raise OSError(0, "the file system does not keep times to the nanosecond")
            os.fsync(descriptor)
            self.records.save(key, time, made.to_json())
            try:
                with self.lock:
                    stack = self.versions.stack(key)
                    top = stack[0].object if stack else None
                    condition(None if top is None or top.marker else top)
                    if top is None or top.modified < time:
                        changed, dropped = self._put(new, key, stack, versioning)
                        break
                    above = top.modified
            except BaseException:
                self.records.drop(key, time)
                raise
            self.records.drop(key, time)
        files.sync_directories(changed)
        for old in dropped:
            self.records.drop(key, old)
        return made

    def _put(self, new: bytes, key: bytes, stack: list[Entry], versioning: str) -> tuple[list[bytes], list[int]]:
        current = next((entry for entry in stack if entry.current), None)
        keep = current is not None and (versioning == "Enabled" or (versioning and current.object.version != NULL))
        if current is not None and keep:
            self.versions.keep(key, current)
        changed = list(self.names.place(new, key))
        dropped = [current.object.modified] if current is not None and not keep else []
        if versioning != "Enabled":
            for entry in stack:
                if not entry.current and entry.object.version == NULL:
                    os.unlink(entry.path)
                    dropped.append(entry.object.modified)
            self.versions.tidy(key)
        return changed, dropped

    def delete(
        self, key: bytes, version: str, versioning: str, condition: Condition, guard: Callable[[Object], None]
    ) -> Deleted:
        """guard: raises S3Error for a version that must stay. What is not there is deleted, too, as S3 has it."""
        changed: list[bytes] = []
        with self.lock:
            stack = self.versions.stack(key)
            if version:
                entry = next((entry for entry in stack if entry.object.version == version), None)
                condition(None if entry is None or entry.object.marker else entry.object)
                if entry is not None:
                    guard(entry.object)
                    changed += self._delete_version(key, stack, entry)
                deleted = Deleted(version, entry is not None and entry.object.marker)
            else:
                deleted = self._delete_latest(key, stack, versioning, condition, guard, changed)
        files.sync_directories(changed)
        return deleted

    def _delete_latest(
        self,
        key: bytes,
        stack: list[Entry],
        versioning: str,
        condition: Condition,
        guard: Callable[[Object], None],
        changed: list[bytes],
    ) -> Deleted:
        top = stack[0].object if stack else None
        condition(None if top is None or top.marker else top)
        if versioning:
            return Deleted(self._mark(key, stack, versioning).version, marker=True)
        for entry in stack:
            if entry.object.version == NULL:
                guard(entry.object)
                changed += self._delete_version(key, stack, entry)
        return Deleted()

    def _delete_version(self, key: bytes, stack: list[Entry], entry: Entry) -> list[bytes]:
        rest = [other for other in stack if other is not entry]
        following = rest[0] if rest and entry.object.latest else None
        changed: list[bytes] = []
        if following is not None and not following.object.marker and not following.current:
            changed += self.names.place(following.path, key)
            changed.append(os.path.dirname(following.path))
            if not entry.current:  # a marker was on top
                os.unlink(entry.path)
        elif entry.current:
            changed += self.names.remove(key)
        else:
            os.unlink(entry.path)
            changed.append(os.path.dirname(entry.path))
        self.records.drop(key, entry.object.modified)
        with contextlib.suppress(FileNotFoundError):  # left of a crash: a second name of what was current
            os.unlink(self.versions.path(key, entry.object.modified))
        self.versions.tidy(key)
        return changed

    def _mark(self, key: bytes, stack: list[Entry], versioning: str) -> Object:
        """A marker of deletion on top of the stack."""
        version = secrets.token_hex(16) if versioning == "Enabled" else NULL
        time = self.clock.next(stack[0].object.modified if stack else 0)
        marker = Object(key.decode(), 0, "", time, version, marker=True)
        self.records.save(key, time, marker.to_json())
        directory = self.versions.prepare(key)
        new, descriptor = self.new_file()
        os.close(descriptor)
        os.utime(new, ns=(time, time))
        os.rename(new, self.versions.path(key, time))
        files.sync_directory(directory)
        for entry in stack:
            if version == NULL and entry.object.version == NULL:
                if entry.current:
                    files.sync_directories(self.names.remove(key))
                else:
                    os.unlink(entry.path)
                self.records.drop(key, entry.object.modified)
            elif entry.current:
                files.sync_directories(self.names.remove(key, self.versions.path(key, entry.object.modified)))
                files.sync_directory(directory)
        return marker

    def update(self, key: bytes, version: str, change: Callable[[Object], Object]) -> Object:
        """Of what stands beside the data: tags, retention. Raises S3Error."""
        with self.lock:
            entry = self._choose(self.versions.stack(key), version)
            changed = change(entry.object)
            self.records.save(key, changed.modified, changed.to_json())
            return changed

    def touch(self, key: bytes, change: Callable[[Object], Object], condition: Condition) -> Object | None:
        """The same data with other attributes and a new time, without a copy: its new record is on disk before the
        one change of its time makes it true. None: not possible for this file (versions share it)."""
        with self.lock:
            entry = self.versions.current(key)
            if entry is None or self.versions.any(key):
                return None
            descriptor = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_nlink > 1:
                    return None
                condition(entry.object)
                time = self.clock.next(entry.object.modified)
                changed = replace(change(entry.object), modified=time)
                self.records.save(key, time, changed.to_json())
                os.utime(descriptor, ns=(time, time))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self.records.drop(key, entry.object.modified)
            return changed

    # Listing.

    def walk(self, prefix: bytes) -> Walk:
        return Walk(self.path, self._listings, prefix)

    def list(self, query: Query, versioning: str) -> Page:
        keys = self.walk(query.prefix.encode())
        if query.after:
            keys.seek(query.after.encode() + b"\0")

        def of_key(key: bytes) -> Iterator[tuple[Object, str]]:
            found = self._listed(key, versioning)
            if found is not None:
                yield found, ""

        return _page(query, cut(keys, of_key, *_of(query)))

    def _listed(self, key: bytes, versioning: str) -> Object | None:
        if versioning and self.versions.any(key):
            with self.lock:
                stack = self.versions.stack(key)
            return stack[0].object if stack and not stack[0].object.marker else None
        entry = self.versions.current(key)
        return None if entry is None else entry.object

    def list_versions(self, query: Query) -> Page:
        after = query.after.encode()
        keys = _Both(self.walk(query.prefix.encode()), Walk(self._noncurrent.root, Listings(0), query.prefix.encode()))
        if after:
            keys.seek(after if query.after_mark else after + b"\0")

        def of_key(key: bytes) -> Iterator[tuple[Object, str]]:
            with self.lock:
                stack = self.versions.stack(key)
            # A version that has gone meanwhile tells nothing of its place: all of the key are told again.
            told = key == after and any(entry.object.version == query.after_mark for entry in stack)
            for entry in stack:
                if not told:
                    yield entry.object, entry.object.version
                told = told and entry.object.version != query.after_mark

        return _page(query, cut(keys, of_key, *_of(query)))

    def all_keys(self) -> Keys:
        """Also those that have only versions that are not current."""
        return _Both(self.walk(b""), Walk(self._noncurrent.root, Listings(0)))

    def empty(self) -> bool:
        return next(self.all_keys(), None) is None


class _Both:
    """Two walks as one, in order, without what is in both twice."""

    def __iter__(self) -> _Both:
        return self

    def __init__(self, *walks: Walk) -> None:
        self._walks = walks
        self._next = [next(walk, None) for walk in walks]

    def __next__(self) -> bytes:
        found = [key for key in self._next if key is not None]
        if not found:
            raise StopIteration
        first = min(found)
        self._next = [
            next(walk, None) if key == first else key for walk, key in zip(self._walks, self._next, strict=True)
        ]
        return first

    def seek(self, key: bytes) -> None:
        for walk in self._walks:
            walk.seek(key)
        self._next = [
            next(walk, None) if found is not None and found < key else found
            for walk, found in zip(self._walks, self._next, strict=True)
        ]


def _of(query: Query) -> tuple[bytes, bytes, bytes, int]:
    return query.prefix.encode(), query.delimiter.encode(), query.after.encode(), query.limit


def _page(query: Query, found: Cut[Object]) -> Page:
    return Page(
        tuple(found.entries),
        tuple(prefix.decode("utf-8", "replace") for prefix in found.prefixes),
        found.next_key.decode("utf-8", "replace"),
        found.next_mark,
    )
