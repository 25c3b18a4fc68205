"""From the answers of S3, as botocore's dictionaries, to our values; pure.

Where an answer lacks what it must have, the KeyError becomes a ServerFault in ``s3``.
"""

from __future__ import annotations

import hashlib
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from .errors import BadRange, Changed, ConnectionFailed, NotSupported, ServerFault, TooLarge
from .objects import ListPage, ObjectInfo, UploadedPart, UploadInfo
from .s3body import crc32_of_header

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$")


def bare_etag(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')


def composite_etag(parts: Sequence[UploadedPart]) -> str:
    """The ETag S3 gives the object made of these parts ("" where a part's ETag is no MD5)."""
    try:
        digests = b"".join(bytes.fromhex(part.etag) for part in parts)
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def decoder(answer: Mapping[str, Any]) -> Callable[[str], str]:
    """For the names in a listing: asked for with encoding-type=url, not every store does it and says so.

    "+" is a space to Amazon and MinIO; the others write %20 and %2B, so that decoding both is right for all.
    A name that is not UTF-8 comes out with surrogates, which no file name of ours has.
    """
    if answer.get("EncodingType") != "url":
        return str
    return lambda name: urllib.parse.unquote_plus(name, errors="surrogateescape")


def answered_at(answer: Mapping[str, Any]) -> float:
    """Unix seconds by the store's clock, which is what its Last-Modified will say (within a second)."""
    try:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return time.time()


def head(key: str, answer: Mapping[str, Any]) -> ObjectInfo:
    modified = answer.get("LastModified")
    return ObjectInfo(
        key,
        answer["ContentLength"],
        bare_etag(answer.get("ETag", "")),
        modified.timestamp() if modified else 0.0,
        answer.get("StorageClass") or "STANDARD",
        {name.lower(): value for name, value in answer.get("Metadata", {}).items()},
        str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer,
    )


def has_object_lock(answer: Mapping[str, Any]) -> bool:
    return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")


def page(answer: Mapping[str, Any]) -> ListPage:
    decode = decoder(answer)
    token = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
    if answer.get("IsTruncated") and not token:
        raise ServerFault("LIST: a truncated page without a token for the next")
    objects = tuple(
        ObjectInfo(
            decode(entry["Key"]),
            entry["Size"],
            bare_etag(entry.get("ETag", "")),
            entry["LastModified"].timestamp(),
            entry.get("StorageClass") or "STANDARD",
        )
        for entry in answer.get("Contents", ())
    )
    prefixes = tuple(decode(entry["Prefix"]) for entry in answer.get("CommonPrefixes", ()))
    return ListPage(objects, prefixes, token)


def parts(answer: Mapping[str, Any]) -> tuple[list[UploadedPart], bool]:
    """One page of ListParts, and whether another one follows."""
    found = [_part(entry, entry["PartNumber"], entry["Size"]) for entry in answer.get("Parts", ())]
    return found, bool(found and answer.get("IsTruncated"))


def copied_part(answer: Mapping[str, Any], *, number: int, length: int) -> UploadedPart:
    return _part(answer["CopyPartResult"], number, length)


def _part(entry: Mapping[str, Any], number: int, size: int) -> UploadedPart:
    return UploadedPart(number, size, bare_etag(entry["ETag"]), crc32_of_header(entry.get("ChecksumCRC32")))


def uploads(answer: Mapping[str, Any]) -> tuple[list[UploadInfo], dict[str, str]]:
    """One page of ListMultipartUploads, and the parameters of the next (empty: the last)."""
    found = [
        UploadInfo(entry["Key"], entry["UploadId"], entry["Initiated"].timestamp())
        for entry in answer.get("Uploads", ())
    ]
    if not answer.get("IsTruncated"):
        return found, {}
    return found, {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer.get("NextUploadIdMarker", "")}


def check_size(answer: Mapping[str, Any], what: str, limit: int) -> None:
    """Raises TooLarge."""
    if answer["ContentLength"] > limit:
        raise TooLarge(f"{what}: {answer['ContentLength']} bytes, of at most {limit}")


def check_range(answer: Mapping[str, Any], what: str, start: int, length: int, etag: str) -> None:
    """Before a byte of the body is read: is this the range of the version that was asked for?

    Raises Changed, BadRange (the object ends earlier), NotSupported (Range is ignored), ConnectionFailed.
    """
    found = bare_etag(answer.get("ETag", ""))
    if etag and found and found != etag:
        raise Changed(f"{what}: the answer has version {found} instead of {etag}")
    size = answer.get("ContentLength")
    match = _CONTENT_RANGE.match(answer.get("ContentRange", ""))
    if match is None:
        if start == 0 and size == length:
            return  # the whole object, with or without Range
        raise NotSupported(f"{what}: the store ignores Range")
    first, last = int(match[1]), int(match[2])
    if first != start or last >= start + length:
        raise ServerFault(f"{what}: bytes {first}-{last} instead of {start}-{start + length - 1}")
    if last < start + length - 1:
        raise BadRange(f"{what}: {length} bytes from {start} go beyond the end at {last + 1}")
    if size is not None and size != length:
        raise ConnectionFailed(f"{what}: {size} bytes announced, {length} asked")
