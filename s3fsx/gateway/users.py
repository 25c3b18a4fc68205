"""The file of users beside the buckets, mode 0600. SigV4 needs the secrets as they are, so they cannot be hashed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator

from ..errors import ConfigError
from .accounts import Accounts, dump, of_lines, parse
from .directory import files
from .keynames import INTERNAL


def path_of(root: str) -> str:
    return os.path.join(root, INTERNAL.decode(), "users.json")


def read_private(path: str) -> str:
    """Raises ConfigError for a file that others may read or have made, or that is not there."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            mode = status.st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{path}: no file")
            if status.st_uid not in (0, os.geteuid()):
                raise ConfigError(f"{path}: belongs to uid {status.st_uid}; run: chown {os.geteuid()} {path}")
            if mode & 0o077:
                raise ConfigError(f"{path}: others may read it; run: chmod 600 {path}")
            return file.read(1 << 20).decode()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: no text") from None


def load(root: str) -> Accounts:
    """None yet: no users. Raises ConfigError."""
    path = path_of(root)
    return parse(read_private(path), path) if os.path.exists(path) else Accounts()


@contextlib.contextmanager
def alone(root: str) -> Iterator[None]:
    """Of all that read the file to write it again, one at a time: two would keep the change of one."""
    directory = os.path.dirname(path_of(root))
    files.make_directory(directory.encode())
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def save(root: str, accounts: Accounts) -> None:
    path = path_of(root)
    files.make_directory(os.path.dirname(path).encode())
    files.replace(path.encode(), dump(accounts).encode())


class Current:
    """Users of the file and keys of an access key file, read again when one has changed."""

    def __init__(self, root: str, key_file: str, warn: Callable[[str], None]) -> None:
        self._root = root
        self._key_file = key_file
        self._warn = warn
        self._stamps = self._look()
        self._accounts = self._read()

    def _look(self) -> list[tuple[int, int, int]]:
        stamps = []
        for path in (path_of(self._root), self._key_file):
            try:
                status = os.stat(path)
                stamps.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                stamps.append((0, 0, 0))
        return stamps

    def _read(self) -> Accounts:
        found = load(self._root)
        if self._key_file:
            found = found.merged(of_lines(read_private(self._key_file), self._key_file))
        return found

    def __call__(self) -> Accounts:
        stamps = self._look()
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._accounts = self._read()
            except (ConfigError, OSError) as error:
                self._warn(f"the users stay as they were: {error}")
        return self._accounts
