"""Where the file of a key is, and how it gets there and away.

A key ``a`` is the file ``a``. When ``a/b`` needs a directory of that name the file becomes ``a%~``; it stays there
from then on. So there is at most one file of a key: ``a`` unless that is a directory or ``a%~`` exists. Whoever changes
names holds ``lock``; readers do not, and look again when they missed a rename.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Sequence

from ..keynames import ASIDE, to_path
from . import files


class Names:
    """Of the keys below a directory. lock: of all that changes names there."""

    def __init__(self, root: bytes, lock: threading.RLock | None = None) -> None:
        self.root = root
        self.lock = lock or threading.RLock()

    def find(self, key: bytes) -> bytes | None:
        components = to_path(key)
        if not files.directories(self.root, components[:-1]):
            return None
        path = os.path.join(self.root, *components)
        for candidate in (path, path + ASIDE, path):
            if files.kind(candidate) == stat.S_IFREG:
                return candidate
        return None

    def place(self, new: bytes, key: bytes) -> Sequence[bytes]:
        """Renames the file ``new``; returns the directories that have changed. Raises FileNotFoundError without it."""
        components = to_path(key)
        path = os.path.join(self.root, *components)
        with self.lock:
            changed = self._make_parents(components[:-1])
            kind = files.kind(path)
            if kind == stat.S_IFDIR or (kind != stat.S_IFREG and files.kind(path + ASIDE) == stat.S_IFREG):
                path += ASIDE
            os.rename(new, path)
        return [*changed, os.path.dirname(path)]

    def _make_parents(self, components: Sequence[bytes]) -> list[bytes]:
        changed = []
        directory = self.root
        for component in components:
            above, directory = directory, os.path.join(directory, component)
            kind = files.kind(directory)
            if kind == stat.S_IFDIR:
                continue
            if kind == stat.S_IFREG:
                os.rename(directory, directory + ASIDE)
            elif kind is not None:
                os.unlink(directory)  # a link, which is no object
            os.mkdir(directory, 0o700)
            changed.append(above)
        return changed

    def remove(self, key: bytes, into: bytes | None = None) -> Sequence[bytes]:
        """Takes the file away, or renames it to ``into``, and the directories that have become empty; returns those
        that have changed and are still there."""
        with self.lock:
            path = self.find(key)
            if path is None:
                return []
            if into is None:
                os.unlink(path)
            else:
                os.rename(path, into)
            return [self._prune(os.path.dirname(path))]

    def _prune(self, directory: bytes) -> bytes:
        with contextlib.suppress(OSError):
            while directory != self.root:
                os.rmdir(directory)
                directory = os.path.dirname(directory)
        return directory
