"""The keys below a directory in the order of their UTF-8, from any place on.

One level of the tree is one sorted list; a seek goes up as far as it must and finds its place by bisection. The list of
a directory is kept while the directory has not changed, for the pages that follow.
"""

from __future__ import annotations

import bisect
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from ..keynames import ASIDE, INTERNAL, LONGER, MAX_KEY, directory_fragment, file_fragment, to_path
from . import files

_KEPT = 200_000  # names
# A directory's time has the grain of the kernel's tick (4 to 10 ms): one that changed just now may change unseen.
_SETTLED = 100_000_000  # ns
_READINGS = 3  # at most, of a directory that changes while it is read

Level = list[bytes]  # fragments; those of directories end with "/"


class Listings:
    """Sorted directories, the most recently used; for all threads."""

    def __init__(self, limit: int = _KEPT) -> None:
        self._limit = limit
        self._kept: OrderedDict[bytes, tuple[tuple[int, int], Level]] = OrderedDict()
        self._count = 0
        self._lock = threading.Lock()

    def level(self, root: bytes, path: bytes, before: bytes) -> Level:
        """before: the key of the directory. Empty when there is no such directory."""
        try:
            status = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        stamp = (status.st_ino, status.st_mtime_ns)
        with self._lock:
            found = self._kept.get(path)
            if found is not None and found[0] == stamp:
                self._kept.move_to_end(path)
                return found[1]
        settled = time.time_ns() - status.st_mtime_ns > _SETTLED
        found_now, whole = self._read(root, path, before)
        for _ in range(_READINGS - 1):
            # A file that was replaced or moved aside meanwhile may have been at neither of its two places.
            try:
                status = os.stat(path, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                break
            last, stamp = stamp, (status.st_ino, status.st_mtime_ns)
            if settled and last == stamp:
                break
            settled = False
            found_now |= self._read(root, path, before)[0]
        level = sorted(found_now)
        if settled and whole:
            self._keep(path, stamp, level)
        return level

    def _read(self, root: bytes, path: bytes, before: bytes) -> tuple[set[bytes], bool]:
        fragments: Level = []
        whole = True
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name.endswith(LONGER):  # its names are of this level, and its time is not ours
                            whole = False
                        fragments += self._of_directory(root, path, entry.name, before)
                    elif entry.is_file(follow_symlinks=False):
                        fragment = file_fragment(entry.name)
                        if fragment is not None and _stands(root, path, entry.name, before + fragment):
                            fragments.append(fragment)
        except (FileNotFoundError, NotADirectoryError):
            pass
        return set(fragments), whole

    def _of_directory(self, root: bytes, path: bytes, name: bytes, before: bytes) -> Iterator[bytes]:
        if path == root and name == INTERNAL:
            return
        fragment = directory_fragment(name)
        if fragment is None:
            return
        if name.endswith(LONGER):
            for rest in self._read(root, os.path.join(path, name), before + fragment)[0]:
                yield fragment + rest
        elif _stands(root, path, name, before + fragment + b"x"):
            yield fragment

    def _keep(self, path: bytes, stamp: tuple[int, int], level: Level) -> None:
        with self._lock:
            old = self._kept.pop(path, None)
            self._count += len(level) + 1 - (len(old[1]) + 1 if old else 0)
            self._kept[path] = (stamp, level)
            while self._count > self._limit and len(self._kept) > 1:
                _, (_, dropped) = self._kept.popitem(last=False)
                self._count -= len(dropped) + 1


def _stands(root: bytes, path: bytes, name: bytes, key: bytes) -> bool:
    """Whether a key's file, or a directory on its way, is where the key says. Names without ``%`` always are, for
    their directories were looked at before."""
    if b"%" not in name and len(name) <= 240 and b"%" not in path[len(root) :]:
        return True
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    at = os.path.join(path, name)[len(root) + 1 :].removesuffix(ASIDE)
    return b"/".join(to_path(key)).startswith(at)


@dataclass(slots=True)
class _Open:
    key: bytes
    fragments: Level
    at: int


class Walk:
    """Iterator over keys with a prefix."""

    def __init__(self, root: bytes, listings: Listings, prefix: bytes = b"") -> None:
        self._root = root
        self._listings = listings
        self._prefix = prefix
        self._start = prefix
        self._stack: list[_Open] = []
        directory = prefix[: prefix.rfind(b"/") + 1]
        # A key is not longer, but a path of one might be longer than the kernel takes.
        if len(prefix) <= MAX_KEY and files.directories(root, to_path(directory[:-1]) if directory else ()):
            self._stack.append(self._opened(directory))

    def _opened(self, directory: bytes) -> _Open:
        path = self._root
        if directory:
            path = os.path.join(path, *to_path(directory[:-1]))
        opened = _Open(directory, self._listings.level(self._root, path, directory), 0)
        self._skip(opened)
        return opened

    def _skip(self, level: _Open) -> None:
        """To the first entry that may hold ``_start`` or what is behind it."""
        if self._start <= level.key:
            return
        if not self._start.startswith(level.key):
            if self._start > level.key:
                level.at = len(level.fragments)
            return
        wanted = self._start[len(level.key) :]
        at = bisect.bisect_left(level.fragments, wanted)
        slash = wanted.find(b"/")
        if slash >= 0:  # the directory it is in stands before it
            at = min(at, bisect.bisect_left(level.fragments, wanted[: slash + 1]))
        level.at = max(level.at, at)

    def seek(self, key: bytes) -> None:
        if key <= self._start:
            return
        self._start = key
        for level in self._stack:
            self._skip(level)

    def __iter__(self) -> Walk:
        return self

    def __next__(self) -> bytes:
        while self._stack:
            level = self._stack[-1]
            if level.at >= len(level.fragments):
                self._stack.pop()
                continue
            fragment = level.fragments[level.at]
            level.at += 1
            key = level.key + fragment
            if not key.startswith(self._prefix):
                if self._prefix.startswith(key) and fragment.endswith(b"/"):
                    self._stack.append(self._opened(key))
                elif key > self._prefix:
                    level.at = len(level.fragments)
                continue
            if fragment.endswith(b"/"):
                if key >= self._start or self._start.startswith(key):
                    self._stack.append(self._opened(key))
            elif key >= self._start:
                try:
                    key.decode()
                except UnicodeDecodeError:
                    continue
                return key
        raise StopIteration
