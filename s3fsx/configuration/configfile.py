"""Reading a configuration or credentials file, and whether others could have read or written it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from .. import safepath
from ..errors import ConfigError

MAX_SIZE = 1 << 20  # a mistaken path (a disk image, /dev/zero) must not fill the memory


@dataclass(frozen=True)
class ConfigFile:
    """exposed: why it must hold no secrets, "" when it may. foreign: why somebody else may have written it."""

    path: str
    text: str = field(repr=False)
    exposed: str = ""
    foreign: str = ""

    def require_private(self) -> None:
        """Raises ConfigError, which names the command that helps."""
        if self.exposed:
            raise ConfigError(self.exposed)
        self.require_own()

    def require_own(self) -> None:
        """Raises ConfigError: who can write it decides which files the daemon writes, and to whom it sends what."""
        if self.foreign:
            raise ConfigError(self.foreign)


class Unreadable(ConfigError):
    """There, or in a directory, that this user may not read."""


FileReader = Callable[[str], ConfigFile]


def read_file(path: str) -> ConfigFile:
    """The file at path. Raises FileNotFoundError, Unreadable, and ConfigError for all else that is wrong with it."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except PermissionError:
        raise Unreadable(f"{path}: this user may not read it") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path}: not a regular file")
        if status.st_size > MAX_SIZE:
            raise ConfigError(f"{path}: larger than 1 MiB, so no configuration")
        content = os.read(descriptor, MAX_SIZE)
    finally:
        os.close(descriptor)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    return ConfigFile(path, text, _exposure(path, status), _foreign(path, status))


def _exposure(path: str, status: os.stat_result) -> str:
    if status.st_mode & 0o077:
        return f"{path}: holds keys but has mode {stat.S_IMODE(status.st_mode):04o}: chmod 600 {path}"
    return ""


def _foreign(path: str, status: os.stat_result) -> str:
    if status.st_uid not in (0, os.geteuid()):
        return f"{path}: belongs to uid {status.st_uid}: chown root {path}"
    if status.st_mode & 0o022:
        return f"{path}: others can write it (mode {stat.S_IMODE(status.st_mode):04o}): chmod go-w {path}"
    why = safepath.fault(os.path.dirname(os.path.abspath(path)))
    return f"{path}: not safe, {why}" if why else ""
