"""A file that is being fetched: DEST.part, and beside it what it is a part of. Blocks: for worker threads.

What is in DEST.part after a crash may be less, or other, than what was written last. So a fetch goes on where the bytes
are proved by the object's checksums; without checksums where they had been synced.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from ..errors import ConfigError, S3fsxError
from ..store.objects import ObjectInfo
from ..store.sums import Sums

_CHECK = 8 << 20
_WRITE_OUT = 16 << 20
SYNC_EVERY = 256 << 20


@dataclass(frozen=True, slots=True)
class _Record:
    """synced: bytes that a power cut leaves."""

    bucket: str
    key: str
    etag: str
    size: int
    synced: int


class Partial:
    """The open file. Raises ConfigError where it cannot be made or another s3fsx has it, S3fsxError for a disk that
    fails."""

    def __init__(self, target: str, bucket: str, info: ObjectInfo) -> None:
        self.path = f"{target}.part"
        self._target = target
        self._record = f"{self.path}.json"
        self._written = 0
        self._of = (bucket, info.key, info.etag, info.size)
        with _told(self.path, ConfigError):
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise ConfigError(f"{self.path}: another s3fsx get is writing it") from None

    def begin(self, sums: Sums | None) -> int:
        """Where to go on; the file is cut there. 0: from the beginning."""
        with _told(self.path):
            known = self._known()
            start = 0 if known is None else self._proved(sums, known.synced)
            self._require_room(self._of[3] - start)
            os.ftruncate(self._fd, start)
            self._note(start)
            os.lseek(self._fd, start, os.SEEK_SET)
            return start

    def _known(self) -> _Record | None:
        try:
            with open(self._record, encoding="utf-8") as file:
                record = _Record(**json.loads(file.read(1 << 16)))
        except (OSError, ValueError, TypeError):
            return None
        return record if (record.bucket, record.key, record.etag, record.size) == self._of else None

    def _proved(self, sums: Sums | None, synced: int) -> int:
        length = min(os.fstat(self._fd).st_size, self._of[3])
        if sums is None or sums.size != self._of[3]:
            return min(length, synced if isinstance(synced, int) and synced > 0 else 0)
        at = 0
        while at < length:
            end = sums.cover(at, min(at + _CHECK, sums.size))[1]
            data = os.pread(self._fd, end - at, at) if end <= length else b""
            if len(data) < end - at:
                break
            found = sums.check(at, data)
            if found.wrong is not None:
                return found.wrong
            if found.verified < len(data) and end > synced:
                break
            at = end
        return at

    def _require_room(self, needed: int) -> None:
        room = os.statvfs(os.path.dirname(self.path) or ".")
        have = room.f_bavail * room.f_frsize + os.fstat(self._fd).st_blocks * 512
        if needed > have:
            if not os.fstat(self._fd).st_size:
                os.unlink(self.path)  # nothing to go on with
            raise S3fsxError(f"{self.path}: {needed >> 20} MiB are to come, and {have >> 20} MiB are free")

    def write(self, data: bytes | memoryview) -> None:
        with _told(self.path):
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            self._written += len(data)
            if self._written >= _WRITE_OUT:
                # The disk begins now, and not at the next sync, which waits for it.
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
                self._written = 0

    def sync(self, length: int) -> None:
        """The first ``length`` bytes are there after a power cut, too."""
        with _told(self.path):
            os.fdatasync(self._fd)
            self._note(length)

    def _note(self, synced: int) -> None:
        temporary = f"{self._record}.new"
        text = json.dumps(asdict(_Record(*self._of, synced))).encode()
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, text)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, self._record)

    def finish(self, modified: float, *, replace: bool) -> None:
        """It is complete: on the disk, under its own name. replace: also over a file that has the name by now."""
        with _told(self._target):
            os.utime(self._fd, (modified, modified))
            os.fsync(self._fd)
            if replace:
                os.rename(self.path, self._target)
            else:
                self._place()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._record)
            directory = os.open(os.path.dirname(self._target) or ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _place(self) -> None:
        """Where nothing is: link(2) refuses to replace, rename(2) does not."""
        try:
            os.link(self.path, self._target)
        except PermissionError:  # a file system without hard links
            if os.path.lexists(self._target):
                raise FileExistsError(errno.EEXIST, "File exists") from None
            os.rename(self.path, self._target)
        else:
            os.unlink(self.path)

    def close(self) -> None:
        """Leaves the file for the next time."""
        os.close(self._fd)


@contextlib.contextmanager
def _told(path: str, kind: Callable[[str], S3fsxError] = S3fsxError) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise ConfigError(f"{path}: a symbolic link, which is not followed") from None
        raise kind(f"{path}: {e.strerror}") from None
