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
        self._trash = os.path.join(self.internal, b"trash")  # and what is not yet a bucket; emptied at the start
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
        shutil.rmtree(self._trash, ignore_errors=True)
        for bucket in self.buckets():
            temporary = os.path.join(self._path(bucket.name), INTERNAL, b"tmp")
            with contextlib.suppress(FileNotFoundError), os.scandir(temporary) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):  # an upload that was aborted
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        files.remove(entry.path)

    def release(self) -> None:
        if self._owner >= 0:
            os.close(self._owner)
            self._owner = -1

    def _path(self, name: str) -> bytes:
        return os.path.join(self._root, name.encode())

    def _settings_path(self, name: str) -> bytes:
        return os.path.join(self._path(name), INTERNAL, b"bucket.json")

    def names(self) -> list[str]:
        return sorted(name for name in map(os.fsdecode, os.listdir(self._root)) if self._is_bucket(name))

    def _is_bucket(self, name: str) -> bool:
        return valid(name) and os.path.isdir(self._path(name))

    def buckets(self) -> list[Bucket]:
        found = []
        for name in self.names():
            with contextlib.suppress(S3Error):  # gone meanwhile, or damaged, which fsck tells
                found.append(self.bucket(name))
        return found

    def bucket(self, name: str) -> Bucket:
        """Raises S3Error: NoSuchBucket; InternalError when what is known of it cannot be read."""
        path = self._path(name)
        if not self._is_bucket(name):
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
        except (ValueError, KeyError, TypeError):
            raise S3Error("InternalError", f"The file bucket.json of the bucket {name} is damaged.") from None
        self._read[name] = (stamp, bucket)
        return bucket

    def create(self, bucket: Bucket) -> None:
        with self._lock:
            if os.path.lexists(self._path(bucket.name)):
                raise S3Error("BucketAlreadyExists", BucketName=bucket.name)
            new = files.temporary(self._trash)
            try:
                files.make_directory(new, self._root)
                self._save(Bucket(bucket.name, self._clock.next(), bucket.owner, bucket.settings), new)
                os.rename(new, self._path(bucket.name))
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            files.sync_directory(self._root)

    def _save(self, bucket: Bucket, path: bytes) -> None:
        document = {"created": bucket.created, "owner": bucket.owner, "settings": dict(bucket.settings)}
        internal = os.path.join(path, INTERNAL)
        files.make_directory(internal, path)
        files.replace(os.path.join(internal, b"bucket.json"), json.dumps(document, indent=1).encode())

    def configure(self, name: str, settings: Mapping[str, Any]) -> None:
        with self._lock:
            bucket = self.bucket(name)
            merged = {**bucket.settings, **settings}
            kept = {key: value for key, value in merged.items() if value is not None}
            self._save(Bucket(name, bucket.created, bucket.owner, kept), self._path(name))

    def delete(self, name: str) -> None:
        """Raises S3Error: BucketNotEmpty also for files that are no objects."""
        with self._lock:
            space, _ = self.space(name)
            with space.lock:
                if not space.empty() or not _remove_empty(space.path):
                    raise S3Error("BucketNotEmpty", BucketName=name)
                files.make_directory(self._trash)
                gone = files.temporary(self._trash)
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
    internal = os.path.join(path, INTERNAL)
    empty = []
    for entry in files.below(path):
        if entry.path != internal and not entry.path.startswith(internal + b"/"):
            if not entry.is_dir(follow_symlinks=False):
                return False
            empty.append(entry.path)
    for directory in reversed(empty):
        os.rmdir(directory)
    return True
