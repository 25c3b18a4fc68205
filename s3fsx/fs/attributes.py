"""Mode, owner and mtime of a file, as object metadata that s3fs and rclone understand too.

Read: s3fs (``mode`` a decimal st_mode such as 33188; ``uid``, ``gid`` decimal; ``mtime`` seconds with nanoseconds
after the point; s3fs-fuse src/metaheader.cpp), rclone (``mtime`` seconds with nine decimals; with ``--metadata``
also ``mode`` in octal such as 100644 or 644; rclone backend/s3), geesefs (as s3fs) and goofys (nothing).
Written: s3fs's form. Anything else in these fields, from whomever, counts as absent.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass

# setuid and setgid are neither read nor written: whoever may write to the bucket would become root on the node.
KEPT_BITS = 0o1777

_NUMBER = re.compile(r"[0-9]{1,12}")
_SECONDS = re.compile(r"([0-9]{1,12})(?:\.([0-9]{0,20}))?")
_MAX_ID = 0xFFFF_FFFE  # 0xFFFFFFFF is -1, "leave as it is", for chown(2)
_MAX_SECONDS = 1 << 33  # the year 2242; in nanoseconds it fits into 63 bits
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Attributes:
    """mode: permission bits within KEPT_BITS, without the file type; mtime_ns: nanoseconds since 1970."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a file or directory without (usable) metadata has."""

    file_mode: int
    dir_mode: int
    uid: int
    gid: int


def from_metadata(
    metadata: Mapping[str, str] | None, modified: float, defaults: Defaults, *, directory: bool = False
) -> Attributes:
    """The attributes of an object (a directory's marker with ``directory``); never raises.

    metadata: lower-case names without ``x-amz-meta-``; None when it is not known.
    modified: the object's Last-Modified in Unix seconds, used where the metadata has no mtime.
    """
    values = metadata or {}
    mode = _mode(values.get("mode"), stat.S_IFDIR if directory else stat.S_IFREG)
    uid = _id(values.get("uid"))
    gid = _id(values.get("gid"))
    mtime_ns = _mtime(values.get("mtime"))
    if mode is None:
        mode = defaults.dir_mode if directory else defaults.file_mode
    return Attributes(
        mode=mode & KEPT_BITS,
        uid=defaults.uid if uid is None else uid,
        gid=defaults.gid if gid is None else gid,
        mtime_ns=_from_modified(modified) if mtime_ns is None else mtime_ns,
    )


def to_metadata(attributes: Attributes, *, directory: bool = False) -> dict[str, str]:
    """The metadata to store; ``from_metadata`` gives the same attributes back, to the nanosecond.

    An mtime before 1970 or after 2242 is not written (Last-Modified stands in for it).
    """
    kind = stat.S_IFDIR if directory else stat.S_IFREG
    values = {
        "mode": str(kind | attributes.mode & KEPT_BITS),
        "uid": str(attributes.uid),
        "gid": str(attributes.gid),
    }
    seconds, nanoseconds = divmod(attributes.mtime_ns, _SECOND)
    if 0 <= seconds < _MAX_SECONDS:
        # s3fs reads the digits after the point as a count of nanoseconds, rclone as decimals: nine are both.
        values["mtime"] = f"{seconds}.{nanoseconds:09d}"
    return values


def _mode(text: str | None, kind: int) -> int | None:
    """Decimal and octal cannot be confused: as decimal, a type of ``kind`` means 32768-36863 or 16384-20479, and
    no octal st_mode (100000-107777, 40000-47777) or bare permission (0-7777) looks like such a number."""
    if text is None or not _NUMBER.fullmatch(text):
        return None
    decimal = int(text)
    if decimal <= 0xFFFF and stat.S_IFMT(decimal) == kind:
        return stat.S_IMODE(decimal)
    if "8" in text or "9" in text:
        return None
    octal = int(text, 8)
    return stat.S_IMODE(octal) if octal <= 0xFFFF and stat.S_IFMT(octal) in (0, kind) else None


def _id(text: str | None) -> int | None:
    if text is None or not _NUMBER.fullmatch(text):
        return None
    value = int(text)
    return value if value <= _MAX_ID else None


def _mtime(text: str | None) -> int | None:
    match = _SECONDS.fullmatch(text) if text else None
    if match is None:
        return None
    seconds = int(match[1])
    return seconds * _SECOND + int((match[2] or "")[:9].ljust(9, "0")) if seconds < _MAX_SECONDS else None


def _from_modified(modified: float) -> int:
    """Last-Modified has a second's resolution in headers and a millisecond's in listings."""
    if not math.isfinite(modified) or not 0 <= modified < _MAX_SECONDS:
        return 0
    return round(modified * 1000) * 1_000_000
