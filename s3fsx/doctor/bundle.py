"""All that was looked at in one file, for somebody who helps. Without secrets."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Mapping

from ..errors import ConfigError


def write(path: str, files: Mapping[str, str]) -> None:
    """A .tar.gz of name -> text, which only this user can read. Raises ConfigError; never replaces a file."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError(f"--bundle {path}: exists; choose another name") from None
    except OSError as error:
        raise ConfigError(f"--bundle {path}: {error.strerror}") from None
    try:
        with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in files.items():
                content = text.encode(errors="replace")
                entry = tarfile.TarInfo(f"s3fsx-doctor/{name}")
                entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
                archive.addfile(entry, io.BytesIO(content))
    except OSError as error:
        os.unlink(path)
        raise ConfigError(f"--bundle {path}: {error.strerror}") from None
