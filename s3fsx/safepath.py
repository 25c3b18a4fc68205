"""Whether somebody else on this machine could have put something there: paths that a root daemon may trust.

A directory is safe when it and all above it belong to root or to this user and nobody else can write to them, or only
where the sticky bit keeps others from replacing what is ours (/tmp). Symbolic links on the way may be root's or ours.
All messages are one line and name the command that helps.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from .errors import ConfigError

_FILE = 0o600
_DIRECTORY = 0o700


def _ours(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid())


def _above(path: str) -> Iterator[str]:
    """The path, and every directory it is in, up to the root."""
    while True:
        yield path
        if path == os.path.dirname(path):
            return
        path = os.path.dirname(path)


def fault(path: str) -> str:
    """What makes an existing directory unsafe; "" when nothing does. Raises OSError."""
    absolute = os.path.abspath(path)
    for place in {*_above(absolute), *_above(os.path.realpath(absolute))}:
        status = os.lstat(place)
        if not _ours(status):
            return f"{place} belongs to uid {status.st_uid}: chown root {place}"
        open_to_others = status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)
        if open_to_others and not status.st_mode & stat.S_ISVTX:
            return f"others can write to {place}: chmod go-w {place}"
    return ""


def private_directory(path: str, what: str) -> None:
    """``path`` is a directory of ours with mode 0700; made, with all above it, where it is missing.

    what: the setting, for the message. Raises ConfigError for what others could have put there, OSError.
    """
    path = os.path.abspath(path)
    missing = [place for place in _above(path) if not os.path.lexists(place)]
    try:
        if why := fault(os.path.dirname(missing[-1]) if missing else path):
            raise ConfigError(f"{what} {path}: not safe, {why}, or use another {what}")
    except FileNotFoundError:
        raise ConfigError(f"{what} {path}: a symbolic link to nothing: rm {path}") from None
    for place in reversed(missing):
        os.mkdir(place, _DIRECTORY)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ConfigError(f"{what} {path}: a symbolic link or no directory: rm {path}") from None
        raise
    try:
        status = os.fstat(descriptor)
        if status.st_mode & stat.S_ISVTX and status.st_mode & 0o022:
            raise ConfigError(f"{what} {path}: a directory for everybody; name one below it")
        if stat.S_IMODE(status.st_mode) != _DIRECTORY:
            os.fchmod(descriptor, _DIRECTORY)
    finally:
        os.close(descriptor)


def own_file(path: str, what: str) -> None:
    """``path`` is absent, or a file that is ours alone, under this one name. Raises ConfigError, OSError."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no file"
        raise ConfigError(f"{what} {path}: {kind}: rm {path}")
    if status.st_nlink > 1:
        raise ConfigError(f"{what} {path}: has {status.st_nlink} names (hard links): rm {path}")
    if not _ours(status):
        raise ConfigError(f"{what} {path}: belongs to uid {status.st_uid}: rm {path}")


def private_file(path: str, what: str) -> None:
    """As ``own_file``, and there afterwards, with mode 0600 whatever the umask. Raises ConfigError, OSError."""
    own_file(path, what)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, _FILE)
    try:
        os.fchmod(descriptor, _FILE)
    finally:
        os.close(descriptor)


def log_file(path: str) -> None:
    """Root appends to it what others named. Raises ConfigError where somebody else chose the file; OSError."""
    directory = os.path.dirname(os.path.abspath(path))
    if why := fault(directory):
        raise ConfigError(f"log_file {path}: not safe, {why}, or log elsewhere")
    if os.path.islink(path) and not _sticky(directory):
        return  # root's own link, as fault() has looked at who can make one there
    if os.path.lexists(path) and not stat.S_ISCHR(os.lstat(path).st_mode):  # /dev/null
        own_file(path, "log_file")


def _sticky(directory: str) -> bool:
    mode = os.stat(directory).st_mode
    return bool(mode & stat.S_ISVTX and mode & 0o022)
