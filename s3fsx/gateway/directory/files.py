"""Files that are there after a crash, and the times that tell one version of a file from another."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

_numbers = itertools.count()
_SLICE = 64 << 20  # bytes of one copy_file_range, so that a thread looks up now and then
FULL = (errno.ENOSPC, errno.EDQUOT)


class Clock:
    """Nanoseconds since the epoch, never the same twice: the time of a file is the name of its metadata."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._ahead = 0  # of files from the future, which must not take the others there

    def next(self, above: int = 0) -> int:
        with self._lock:
            self._last = max(time.time_ns(), self._last + 1)
            if above < self._last:
                return self._last
            self._ahead = max(self._ahead, above) + 1
            return self._ahead


def kind(path: bytes) -> int | None:
    """S_IFREG and its like; None: there is nothing. Of a link itself."""
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None


def directories(root: bytes, components: Sequence[bytes]) -> bool:
    """Whether all of them are directories, one in the other: a symbolic link would lead out of the bucket."""
    path = root
    for component in components:
        path = os.path.join(path, component)
        if kind(path) != stat.S_IFDIR:
            return False
    return True


def below(path: bytes) -> Iterator[os.DirEntry[bytes]]:
    """All that is in a directory, at any depth, each directory before what is in it. os.walk recurses in Python 3.11,
    and a key may have 1024 directories."""
    waiting = [path]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                yield entry


def temporary(directory: bytes) -> bytes:
    """A name nobody else has."""
    return os.path.join(directory, b"%d.%d.%s" % (os.getpid(), next(_numbers), os.urandom(6).hex().encode()))


def create(path: bytes) -> int:
    """A new file, open for writing and reading."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(path: bytes) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directories(paths: Iterable[bytes]) -> None:
    """Those that have gone meanwhile have nothing to keep."""
    for path in dict.fromkeys(paths):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            sync_directory(path)


def make_directory(path: bytes, within: bytes = b"") -> None:
    """With all above it; what was made is on disk. within: a directory that is not made. Raises FileNotFoundError
    without it: a bucket that was deleted meanwhile must not come back."""
    missing = []
    while path != within and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for made in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(made, 0o700)
        sync_directory(os.path.dirname(made))


def replace(path: bytes, data: bytes, mode: int = 0o600) -> None:
    """A small file, whole or not at all."""
    directory = os.path.dirname(path)
    new = temporary(directory) + b".tmp"
    descriptor = create(new)
    try:
        try:
            os.fchmod(descriptor, mode)
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(new, path)
    except BaseException:
        remove(new)
        raise
    sync_directory(directory)


def remove(path: bytes) -> bool:
    """Whether it was there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def copy_range(source: int, first: int, length: int, target: int) -> None:
    """To the end of ``target``, by the kernel, which shares blocks where the file system can. Raises OSError; EIO when
    the source is shorter."""
    at = os.lseek(target, 0, os.SEEK_END)
    while length:
        try:
            done = os.copy_file_range(source, target, min(length, _SLICE), first, at)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            data = os.pread(source, min(length, 1 << 20), first)
            done = len(data)
            while data:
                written = os.pwrite(target, data, at + done - len(data))
                data = data[written:]
        if not done:
            raise OSError(errno.EIO, "the source is shorter than it was")
        first, at, length = first + done, at + done, length - done
