"""All versions of a key: the file at its place, and those that are no longer current.

Versions that are not current, and markers of deletions, are files ``versions/<hash>/<time>``; the newest time is the
latest version, wherever it is. So each change has one rename or unlink that makes it true, and what a crash leaves of a
change that was not acknowledged reads as before or as after. ``noncurrent`` has an empty file for each key that has
such a directory, because hashes have no order that a listing could follow.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, replace

from ..model import NULL, Object
from . import files
from .names import Names
from .records import Records, digest

TRIES = 100  # of a reader between two renames


@dataclass(frozen=True, slots=True)
class Entry:
    """path: of its file, also of a marker's, which is empty. current: it stands at the key's place."""

    object: Object
    path: bytes
    current: bool


class Versions:
    def __init__(self, root: bytes, names: Names, noncurrent: Names, records: Records) -> None:
        self._root = root
        self._names = names
        self._noncurrent = noncurrent
        self._records = records

    def directory(self, key: bytes) -> bytes:
        name = digest(key)
        return os.path.join(self._root, name[:2], name)

    def path(self, key: bytes, time: int) -> bytes:
        return os.path.join(self.directory(key), b"%d" % time)

    def any(self, key: bytes) -> bool:
        return os.path.isdir(self.directory(key))

    def describe(self, key: bytes, status: os.stat_result) -> Object | None:
        """By its record; None without one."""
        document = self._records.load(key, status.st_mtime_ns)
        if document is None:
            return None
        try:
            return Object.from_json({**document, "modified": status.st_mtime_ns}, status.st_size)
        except (KeyError, TypeError, ValueError):
            return None

    def current(self, key: bytes) -> Entry | None:
        """The file at the key's place."""
        for _ in range(TRIES):
            path = self._names.find(key)
            if path is None:
                return None
            try:
                status = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if not stat.S_ISREG(status.st_mode):  # it was moved aside just now
                continue
            found = self.describe(key, status)
            if found is None and unchanged(path, status):
                found = by_hand(key, status)
            if found is not None:
                return Entry(found, path, True)
        return None

    def stack(self, key: bytes) -> list[Entry]:
        """Newest first. Called with the lock of the names, or the current one may be missed."""
        entries = []
        current = self.current(key)
        if current is not None:
            entries.append(current)
        directory = self.directory(key)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(directory):
                path = os.path.join(directory, name)
                with contextlib.suppress(FileNotFoundError):
                    status = os.lstat(path)
                    if not name.isdigit() or not stat.S_ISREG(status.st_mode):
                        continue
                    found = self.describe(key, status)
                    if found is None or (current is not None and found.modified == current.object.modified):
                        continue  # a change that did not come to its end
                    entries.append(Entry(found, path, False))
        entries.sort(key=lambda entry: -entry.object.modified)
        return [replace(e, object=e.object.with_latest(i == 0)) for i, e in enumerate(entries)]

    def prepare(self, key: bytes) -> bytes:
        """The directory for versions that are not current; on disk."""
        directory = self.directory(key)
        if not os.path.isdir(directory):
            files.make_directory(directory, os.path.dirname(self._root))
        if self._noncurrent.find(key) is None:
            new = files.temporary(self._root)
            os.close(files.create(new))
            files.sync_directories(self._noncurrent.place(new, key))
        return directory

    def keep(self, key: bytes, entry: Entry) -> None:
        """A second name for the current file, before another one takes its place."""
        directory = self.prepare(key)
        with contextlib.suppress(FileExistsError):
            os.link(entry.path, self.path(key, entry.object.modified))
        files.sync_directory(directory)

    def tidy(self, key: bytes) -> None:
        """Takes the directory away when nothing is in it."""
        try:
            os.rmdir(self.directory(key))
        except OSError:
            return
        self._noncurrent.remove(key)


def unchanged(path: bytes, status: os.stat_result) -> bool:
    """So the record has not gone because the file was replaced."""
    try:
        now = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (now.st_ino, now.st_mtime_ns, now.st_size) == (status.st_ino, status.st_mtime_ns, status.st_size)


def by_hand(key: bytes, status: os.stat_result) -> Object:
    """A file that somebody has put there: its ETag changes with it, and says by its dash that it is no MD5."""
    mark = digest(b"%d %d %d" % (status.st_ino, status.st_size, status.st_mtime_ns))[:32].decode()
    return Object(key.decode(), status.st_size, f"{mark}-0", status.st_mtime_ns, NULL)
