"""Files that are there as a whole or not at all, and that can be put back as they were.

The same calls work in pmxcfs: a file made with mode 0600, written, renamed; never a chmod, which it refuses.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConfigError

Undo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Text:
    """What a path shall hold. link: it shall be a symbolic link to ``content``."""

    path: str
    content: str
    link: bool = False

    def is_there(self) -> bool:
        try:
            if self.link or os.path.islink(self.path):
                return self.link and os.readlink(self.path) == self.content
            with open(self.path, encoding="utf-8") as file:
                return file.read() == self.content
        except (OSError, UnicodeDecodeError):
            return False

    def put(self) -> Undo:
        """Makes it so; what is returned puts back what was there. Raises OSError."""
        before = _before(self.path)
        made = make_directories(os.path.dirname(self.path))
        try:
            self._write()
        except BaseException:
            made()
            raise

        def undo() -> None:
            if before is None:
                remove(self.path)
                made()
            else:
                before._write()

        return undo

    def _write(self) -> None:
        temporary = f"{self.path}.tmp.{secrets.token_hex(4)}"
        try:
            if self.link:
                os.symlink(self.content, temporary)
            else:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with open(descriptor, "w", encoding="utf-8") as file:
                    file.write(self.content)
                    file.flush()
                    with contextlib.suppress(OSError):  # pmxcfs has stored it by then, and may not know fsync
                        os.fsync(descriptor)
            os.rename(temporary, self.path)
        except BaseException:
            remove(temporary)
            raise


def _before(path: str) -> Text | None:
    try:
        if os.path.islink(path):
            return Text(path, os.readlink(path), link=True)
        with open(path, encoding="utf-8") as file:
            return Text(path, file.read())
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file: move it away") from None


def make_directories(path: str, mode: int = 0o700) -> Undo:
    """As mkdir -p; what is returned removes those that were made, as far as they are empty. Raises OSError."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for place in reversed(missing):
        os.mkdir(place, mode)

    def undo() -> None:
        for place in missing:
            with contextlib.suppress(OSError):
                os.rmdir(place)

    return undo


def remove(path: str) -> None:
    """The file or link, if it is there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_directory(path: str) -> bool:
    """An empty directory; whether it is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
