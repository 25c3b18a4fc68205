"""All buckets of a directory. Everything here blocks, and runs in threads."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Mapping
from typing import Any

from ..buckets import valid
from ..errors import S3Error
from ..keynames import INTERNAL
from ..model import Bucket
from . import files
from .space import Space
from .uploads import Uploads
from .walk import Listings


class Shelf:
    """root: of the directories that are buckets."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self.internal = os.path.join(root, INTERNAL)
        self._clock = files.Clock()
        self._listings = Listings()
        self._lock = threading.Lock()
        self._spaces: dict[str, tuple[Space, Uploads]] = {}
        self._owner = -1
        self._read: dict[str, tuple[tuple[int, int], Bucket]] = {}  # by the time of its file

    def claim(self) -> None:
        """For this process alone; throws away what was under way when the last one ended. Raises OSError, and
        BlockingIOError while another one serves it."""
        files.make_directory(self.internal)
        self._owner = os.open(os.path.join(self.internal, b"lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(os.path.join(self.internal, b"trash"), ignore_errors=True)
        for bucket in self.buckets():
            temporary = os.path.join(self._path(bucket.name), INTERNAL, b"tmp")
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(temporary):
                    files.remove(os.path.join(temporary, name))

    def release(self) -> None:
        if self._owner >= 0:
            os.close(self._owner)
            self._owner = -1

    def _path(self, name: str) -> bytes:
        return os.path.join(self._root, name.encode())

    def _settings_path(self, name: str) -> bytes:
        return os.path.join(self._path(name), INTERNAL, b"bucket.json")

    def buckets(self) -> list[Bucket]:
        found = []
        for name in map(os.fsdecode, os.listdir(self._root)):
            with contextlib.suppress(S3Error):
                found.append(self.bucket(name))
        return sorted(found, key=lambda bucket: bucket.name)

    def bucket(self, name: str) -> Bucket:
        """Raises S3Error: NoSuchBucket."""
        path = self._path(name)
        if not valid(name) or not os.path.isdir(path):
            raise S3Error("NoSuchBucket", BucketName=name)
        try:
            status = os.stat(self._settings_path(name))
            stamp = (status.st_ino, status.st_mtime_ns)
            known = self._read.get(name)
            if known is not None and known[0] == stamp:
                return known[1]
            with open(self._settings_path(name), "rb") as file:
                document = json.load(file)
            bucket = Bucket(name, int(document["created"]), str(document["owner"]), document.get("settings", {}))
        except FileNotFoundError:  # made by hand
            return Bucket(name, os.stat(path).st_mtime_ns, "")
        self._read[name] = (stamp, bucket)
        return bucket

    def create(self, bucket: Bucket) -> None:
        with self._lock:
            try:
                os.mkdir(self._path(bucket.name), 0o700)
            except FileExistsError:
                raise S3Error("BucketAlreadyExists", BucketName=bucket.name) from None
            files.make_directory(os.path.join(self._path(bucket.name), INTERNAL))
            self._save(Bucket(bucket.name, self._clock.next(), bucket.owner, bucket.settings))
            files.sync_directory(self._root)

    def _save(self, bucket: Bucket) -> None:
        document = {"created": bucket.created, "owner": bucket.owner, "settings": dict(bucket.settings)}
        path = self._settings_path(bucket.name)
        files.make_directory(os.path.dirname(path))
        files.replace(path, json.dumps(document, indent=1).encode())

    def configure(self, name: str, settings: Mapping[str, Any]) -> None:
        with self._lock:
            bucket = self.bucket(name)
            merged = {**bucket.settings, **settings}
            kept = {key: value for key, value in merged.items() if value is not None}
            self._save(Bucket(name, bucket.created, bucket.owner, kept))

    def delete(self, name: str) -> None:
        """Raises S3Error: BucketNotEmpty also for files that are no objects."""
        with self._lock:
            space, _ = self.space(name)
            with space.lock:
                if not space.empty() or not _remove_empty(space.path):
                    raise S3Error("BucketNotEmpty", BucketName=name)
                trash = os.path.join(self.internal, b"trash")
                files.make_directory(trash)
                gone = files.temporary(trash)
                os.rename(space.path, gone)
                del self._spaces[name]
            files.sync_directory(self._root)
        shutil.rmtree(gone, ignore_errors=True)

    def space(self, name: str) -> tuple[Space, Uploads]:
        """Raises S3Error: NoSuchBucket."""
        found = self._spaces.get(name)
        if found is None or not os.path.isdir(found[0].temporary):
            self.bucket(name)
            space = Space(self._path(name), self._clock, self._listings)
            found = self._spaces.setdefault(name, (space, Uploads(space)))
            if not os.path.isdir(found[0].temporary):
                found = self._spaces[name] = (space, Uploads(space))
        return found


def _remove_empty(path: bytes) -> bool:
    """Directories that hold nothing, as a crash may leave them; False where there is a file."""
    with os.scandir(path) as found:
        entries = [entry for entry in found if entry.name != INTERNAL]
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False) or not _remove_empty(entry.path):
            return False
        os.rmdir(entry.path)
    return True
