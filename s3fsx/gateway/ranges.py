"""The Range header. Pure. RFC 9110, chapter 14; S3 knows one range of bytes and ignores what it cannot read."""

from __future__ import annotations

import re

from .errors import S3Error

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.IGNORECASE)
_COPY = re.compile(r"bytes=([0-9]+)-([0-9]+)")
_DIGITS = 20


def resolve(header: str, size: int) -> tuple[int, int] | None:
    """(first, length) of ``size`` bytes; None: all of them. Raises S3Error: InvalidRange."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or any(len(number) > _DIGITS for number in found.groups()):
        return None
    first, last = found.groups()
    if first:
        if last and int(last) < int(first):
            return None
        begin, end = int(first), min(int(last), size - 1) if last else size - 1
    elif last:
        begin, end = max(0, size - int(last)), size - 1
    else:
        return None
    if begin > end:
        raise S3Error(
            "InvalidRange",
            headers=(("Content-Range", f"bytes */{size}"),),
            RangeRequested=header,
            ActualObjectSize=str(size),
        )
    return begin, end - begin + 1


def of_copy(header: str, size: int) -> tuple[int, int]:
    """Of x-amz-copy-source-range: both ends are needed and within the source. Raises S3Error."""
    found = _COPY.fullmatch(header)
    if found is None or any(len(number) > _DIGITS for number in found.groups()):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header,
        )
    first, last = map(int, found.groups())
    if last < first or last >= size:
        raise S3Error("InvalidRange", f"Range specified is not valid for source object of size: {size}")
    return first, last - first + 1
