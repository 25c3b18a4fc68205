"""What S3 knows of a file, as JSON in a file of its own.

Its name is made of the key and the time of the file in nanoseconds, which the gateway sets and never sets twice. So it
is written and on disk before the file gets its name, and the one rename of the file replaces both at once. A file that
was copied with its times (rsync -a, cp -a) keeps it; one that somebody has written by hand has none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from . import files


def digest(key: bytes) -> bytes:
    return hashlib.sha256(key).hexdigest()[:40].encode()


class Records:
    def __init__(self, root: bytes) -> None:
        self._root = root

    def path(self, key: bytes, time: int) -> bytes:
        name = digest(key)
        return os.path.join(self._root, name[:2], b"%s.%d" % (name, time))

    def save(self, key: bytes, time: int, document: dict[str, Any]) -> None:
        """On disk when this returns."""
        path = self.path(key, time)
        files.make_directory(os.path.dirname(path), os.path.dirname(self._root))
        text = json.dumps(document, ensure_ascii=True, separators=(",", ":"))
        files.replace(path, text.encode())

    def load(self, key: bytes, time: int) -> dict[str, Any] | None:
        """None: there is none, or it was cut short before its file got its name."""
        try:
            with open(self.path(key, time), "rb") as file:
                document = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def all(self) -> Iterator[bytes]:
        """The paths of all of them, and of what a crash has left of new ones."""
        if os.path.isdir(self._root):
            for entry in files.below(self._root):
                if entry.is_file(follow_symlinks=False):
                    yield entry.path

    def drop(self, key: bytes, time: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(key, time))
