"""Every failure s3fsx can report, and the one errno each of them means.

    S3fsxError
    ├── ConfigError            bad input, before anything is mounted
    ├── StoreError             the object store said no, or said nothing
    │   ├── NotFound           ENOENT   404, NoSuchKey
    │   ├── BucketMissing      EIO      NoSuchBucket
    │   ├── UploadGone         EIO      NoSuchUpload: aborted or already completed
    │   ├── AccessDenied       EACCES   403 and every rejected credential
    │   ├── ObjectLocked       EPERM    object lock or legal hold
    │   ├── Changed            ESTALE   If-Match failed: another version is there now
    │   ├── Exists             EEXIST   If-None-Match failed: somebody else made it
    │   ├── QuotaExceeded      ENOSPC   507, QuotaExceeded
    │   ├── TooLarge           EFBIG    EntityTooLarge and more than 10 000 parts
    │   ├── NotSupported       EOPNOTSUPP  501, or a call this store lacks
    │   ├── BadRange           EINVAL   416
    │   ├── Rejected           EIO      any other 4xx: repeating it is pointless
    │   ├── Corrupted          EIO      a checksum or size differs from what was written
    │   └── Transient          EIO      worth another attempt
    │       ├── Throttled               503 SlowDown, 429
    │       ├── ServerFault             5xx, 200 with an error document
    │       └── ConnectionFailed        refused, reset, timed out, cut short
    ├── ArchiveDamaged         EIO      a backup is not what vzdump writes, or ends too early
    ├── EndpointDown           EIO      refused at once: the breaker is open
    ├── DeadlineExceeded       EIO      the operation's own time limit passed
    └── FileSystemError        what POSIX says about names and handles (errno given)

Only ``fuse.py`` turns these into an errno for the kernel and only ``cli.py`` turns them into an exit code.
"""

from __future__ import annotations

import errno as _errno


class S3fsxError(Exception):
    """Base of all; ``errno`` is what a program on the mount sees."""

    errno: int = _errno.EIO


class ConfigError(S3fsxError):
    """Input that cannot be used; the message is one line and says what to do."""

    errno = _errno.EINVAL


class StoreError(S3fsxError):
    """The store's answer, or the lack of one."""


class NotFound(StoreError):
    errno = _errno.ENOENT


class BucketMissing(StoreError):
    """NoSuchBucket: not a missing file but a storage that cannot work. No NotFound, which says that something is gone
    for good. (The answer to a HEAD has no code: there it is NotFound.)"""


class UploadGone(StoreError):
    errno = _errno.EIO


class AccessDenied(StoreError):
    errno = _errno.EACCES


class ObjectLocked(StoreError):
    errno = _errno.EPERM


class Changed(StoreError):
    errno = _errno.ESTALE


class Exists(StoreError):
    errno = _errno.EEXIST


class QuotaExceeded(StoreError):
    errno = _errno.ENOSPC


class TooLarge(StoreError):
    errno = _errno.EFBIG


class NotSupported(StoreError):
    errno = _errno.EOPNOTSUPP


class BadRange(StoreError):
    errno = _errno.EINVAL


class Rejected(StoreError):
    errno = _errno.EIO


class Corrupted(StoreError):
    errno = _errno.EIO


class Transient(StoreError):
    """May succeed when repeated. ``retry_after`` is the store's own wish in seconds, None if it had none."""

    errno = _errno.EIO

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Throttled(Transient):
    pass


class ServerFault(Transient):
    pass


class ConnectionFailed(Transient):
    pass


class ArchiveDamaged(S3fsxError):
    errno = _errno.EIO


class EndpointDown(S3fsxError):
    errno = _errno.EIO


class DeadlineExceeded(S3fsxError):
    errno = _errno.EIO


class FileSystemError(S3fsxError):
    """A refusal that POSIX has an errno for.

    ``FileSystemError(errno.ENOTEMPTY, "dump/ has entries")``
    """

    def __init__(self, errno: int, message: str = "") -> None:
        super().__init__(message or _errno.errorcode.get(errno, str(errno)))
        self.errno = errno
