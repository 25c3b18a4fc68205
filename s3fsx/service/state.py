"""The state directory of a mount: which one it is, how its journal is opened, and who has it."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from ..configuration.settings import Settings
from ..errors import ConfigError, S3fsxError
from ..kernel.mountpoint import is_mounted
from ..local.journal import Journal, JournalInUse
from .status import read_status, sockets

_LOCK_TRIES, _LOCK_PAUSE = 20, 0.5
_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_DISK_SQLITE = (10, 13)  # SQLITE_IOERR, SQLITE_FULL


def identity(settings: Settings) -> str:
    """Names the state and cache directories of a mount: the same for the same bucket and prefix."""
    text = "\n".join((settings.endpoint, settings.bucket, settings.prefix))
    return f"{settings.bucket}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def state_directory(settings: Settings) -> str:
    return os.path.join(settings.state_dir, identity(settings))


def has_state(settings: Settings) -> bool:
    """Whether this machine has had a mount of it."""
    return os.path.exists(state_directory(settings))


@contextmanager
def full_disk_is_trouble() -> Iterator[None]:
    """A path that cannot be used is bad input, which is not tried again; a full or failing disk may be better later."""
    try:
        yield
    except ConfigError as e:
        reason = e.__context__
        sqlite = getattr(reason, "sqlite_errorcode", 0) & 0xFF  # the low byte of an extended code
        if getattr(reason, "errno", None) in _DISK_ERRNOS or sqlite in _DISK_SQLITE:
            raise S3fsxError(str(e)) from None
        raise


async def open_journal(settings: Settings, directory: str) -> Journal:
    """A mount that was just unmounted may still be publishing: its lock is waited for, not long, and not at all for one
    that still serves its directory.

    Raises S3fsxError, not ConfigError, when it is held: the one who holds it will end.
    """
    try:
        return Journal.open(directory)
    except JournalInUse:
        who = await trio.to_thread.run_sync(holder, settings)
    if who is not None and who.mounted:
        raise _told(who, directory)
    for _ in range(_LOCK_TRIES):
        try:
            return Journal.open(directory)
        except JournalInUse:
            await trio.sleep(_LOCK_PAUSE)
    try:
        return Journal.open(directory)
    except JournalInUse:
        error = await trio.to_thread.run_sync(in_use, settings, directory)
        raise error from None


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has the journal. mounted: it still serves ``path``."""

    pid: int
    path: str
    source: str
    mounted: bool

    def __str__(self) -> str:
        if self.mounted:
            return f"pid {self.pid} serves {self.source} on {self.path}"
        return (
            f"pid {self.pid} is still publishing what was written to {self.path}, or a program still uses it "
            f"('s3fsx status {self.path}' shows more)"
        )


def holder(settings: Settings) -> Holder | None:
    """Who has this bucket and prefix, by the status sockets; None when none of them says so. Blocks."""
    try:
        found = sockets(settings.runtime_dir)
    except S3fsxError:
        return None
    for socket in found:
        try:
            document = read_status(socket)
        except S3fsxError:
            continue
        endpoint = document.get("endpoint")
        where = endpoint.get("url") if isinstance(endpoint, dict) else None
        if (document.get("source"), where) != (source(settings), url(settings)):
            continue
        pid, path = document.get("pid"), str(document.get("mountpoint"))
        mounted = is_mounted(path, settings.bucket, settings.prefix)
        return Holder(pid if isinstance(pid, int) else 0, path, source(settings), mounted)
    return None


def in_use(settings: Settings, directory: str) -> S3fsxError:
    """For JournalInUse: not ConfigError, as who holds it will end. Blocks."""
    return _told(holder(settings), directory)


def _told(who: Holder | None, directory: str) -> S3fsxError:
    if who is None:
        return S3fsxError(f"{directory} is in use by an s3fsx that shows no status; wait for its end")
    if who.mounted:
        return S3fsxError(f"{who}: unmount that, or give this mount its own state_dir")
    return S3fsxError(f"{who}: mount again when it has ended")


def source(settings: Settings) -> str:
    return f"s3://{settings.bucket}/{settings.prefix}"


def url(settings: Settings) -> str:
    return settings.endpoint or "Amazon S3"
