"""From the answers of S3, as botocore's dictionaries, to our values; pure.

Nothing is believed because a store says it: what is out of range, of the wrong form or was not asked for is Unusable,
which like the KeyError of an answer that lacks what it must have becomes a ServerFault in ``s3``.
"""

from __future__ import annotations

import hashlib
import re
import time
import urllib.parse
from collections.abc import Callable, Collection, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from ..errors import BadRange, Changed, ConnectionFailed, NotFound, NotSupported, ServerFault, StoreError, TooLarge
from ..store.objects import MAX_PART, MAX_PARTS, ListPage, ObjectInfo, UploadedPart, UploadInfo
from .body import crc32_of_header
from .errors import Unusable, from_answer

# More than any store has (Amazon: 5 TiB), and sums of a million of them still fit into what the kernel is told.
MAX_SIZE = 1 << 60
# Amazon allows 2 KiB of metadata, in 8 KiB of header fields.
MAX_METADATA = 8 << 10

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)$")
_ETAG = re.compile(r"[!#-~]{0,1024}")  # RFC 9110, 8.8.3, and no reason to be longer
_UPLOAD_ID = re.compile(r"[!-~]{1,1024}")
_CLASS = re.compile(r"[!-~]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{32}")
# Amazon, Ceph RGW, MinIO, Wasabi and Backblaze send the first with every answer. Not x-amz-cf-id nor x-amzn-trace-id:
# those are of Amazon's proxies.
_SIGNS = ("x-amz-request-id", "x-amz-id-2")


def bare_etag(etag: str) -> str:
    bare = etag.removeprefix("W/").strip('"')
    if not _ETAG.fullmatch(bare):
        raise Unusable(f"{_cut(etag)} as an ETag")
    return bare


def signed(answer: Mapping[str, Any]) -> bool:
    """Whether its headers say that it comes from S3, and not from a proxy on the way."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return any(sign in headers for sign in _SIGNS)


def written(answer: Mapping[str, Any]) -> str:
    """The ETag of what was sent. A proxy's page to log in has none, or one of another form."""
    etag = bare_etag(answer.get("ETag", ""))
    if not etag or not (signed(answer) or _DIGEST.fullmatch(etag)):
        raise Unusable("it has no ETag, so it is none of S3")
    return etag


def part_written(answer: Mapping[str, Any]) -> str:
    """The same of a part. Cloudflare R2 answers without a body and without a sign of S3, with an ETag that is no digest
    (s3cmd#1273); should that be another server behind Cloudflare, no upload will be completed there."""
    etag = bare_etag(answer.get("ETag", ""))
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return etag if etag and "cf-ray" in headers and headers.get("content-length") == "0" else written(answer)


def copied(answer: Mapping[str, Any]) -> None:
    if not answer.get("CopyObjectResult", {}).get("ETag"):
        raise Unusable("it is no result of a copy")


def completed(answer: Mapping[str, Any]) -> str:
    """The ETag of the object ("": the store does not say)."""
    etag = bare_etag(answer.get("ETag", ""))
    if not etag and not answer.get("Location"):
        raise Unusable("it is no result of an upload")
    return etag


def removed(answer: Mapping[str, Any]) -> None:
    if answer.get("ResponseMetadata", {}).get("HTTPStatusCode") != 204 and not signed(answer):
        raise Unusable("neither 204 nor from S3")


def deleted(answer: Mapping[str, Any], *, what: str, keys: Collection[str]) -> dict[str, StoreError]:
    """Of an answer to DeleteObjects: the errors of those that are still there. Raises NotSupported for one that does
    not say of exactly the keys that were asked for what became of them."""
    gone = {str(entry.get("Key")) for entry in answer.get("Deleted", ())}
    said = {str(entry.get("Key")): entry for entry in answer.get("Errors", ())}
    if gone & said.keys() or gone | said.keys() != set(keys):
        raise NotSupported(f"{what}: the answer names {len(gone)} deleted and {len(said)} others, but not these")
    errors = {
        key: from_answer(f"DELETE {key}", 200, str(entry.get("Code", "")), str(entry.get("Message", "")))
        for key, entry in said.items()
    }
    return {key: error for key, error in errors.items() if not isinstance(error, NotFound)}


def opaque(answer: Mapping[str, Any]) -> bool:
    """Encrypted so that the ETag is no MD5."""
    return str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer


def upload_id(given: object) -> str:
    if not isinstance(given, str) or not _UPLOAD_ID.fullmatch(given):
        raise Unusable(f"{_cut(given)} as an upload id")
    return given


def _number(given: object, least: int, most: int, what: str) -> int:
    if not isinstance(given, int) or not least <= given <= most:
        raise Unusable(f"{what} {_cut(given)}")
    return given


def _class(given: str | None) -> str:
    """What is shown to people only."""
    return "STANDARD" if not given else given if _CLASS.fullmatch(given) else "UNKNOWN"


def _listed(answer: Mapping[str, Any]) -> None:
    """A page of something else (a login, nothing at all) has no entries either, and is no empty directory."""
    if "IsTruncated" not in answer:
        raise Unusable("it is no list")


def _below(prefix: str, key: str) -> str:
    """What was not asked for would be copied and deleted with what was."""
    if not key.startswith(prefix):
        raise Unusable(f"{_cut(key)} is not below {prefix!r}")
    return key


def _cut(value: object) -> str:
    return repr(value)[:80]


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
    metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
    if sum(len(name) + len(value) for name, value in metadata.items()) > MAX_METADATA:
        raise Unusable(f"more than {MAX_METADATA >> 10} KiB of metadata")
    if not answer.get("ETag") and not signed(answer):
        raise Unusable("it has no ETag, so it is none of S3")
    return ObjectInfo(
        key,
        _number(answer["ContentLength"], 0, MAX_SIZE, "Content-Length"),
        bare_etag(answer.get("ETag", "")),
        modified.timestamp() if modified else 0.0,
        _class(answer.get("StorageClass")),
        metadata,
        opaque(answer),
    )


def has_object_lock(answer: Mapping[str, Any]) -> bool:
    return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")


def page(answer: Mapping[str, Any], prefix: str = "") -> ListPage:
    """Every key and common prefix begins with ``prefix``."""
    _listed(answer)
    decode = decoder(answer)
    token = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
    if answer.get("IsTruncated") and not token:
        raise ServerFault("LIST: a truncated page without a token for the next")
    objects = tuple(
        ObjectInfo(
            _below(prefix, decode(entry["Key"])),
            _number(entry["Size"], 0, MAX_SIZE, "Size"),
            bare_etag(entry.get("ETag", "")),
            entry["LastModified"].timestamp(),
            _class(entry.get("StorageClass")),
        )
        for entry in answer.get("Contents", ())
    )
    prefixes = tuple(_below(prefix, decode(entry["Prefix"])) for entry in answer.get("CommonPrefixes", ()))
    return ListPage(objects, prefixes, token)


def parts(answer: Mapping[str, Any], after: int = 0) -> tuple[list[UploadedPart], bool]:
    """One page of ListParts, and whether another one follows. Its numbers are above ``after`` and rise, so that no list
    of parts is endless."""
    _listed(answer)
    found: list[UploadedPart] = []
    for entry in answer.get("Parts", ()):
        after = _number(entry["PartNumber"], after + 1, MAX_PARTS, "PartNumber")
        found.append(_part(entry, after, _number(entry["Size"], 0, MAX_PART, "Size")))
    return found, bool(found and answer.get("IsTruncated"))


def copied_part(answer: Mapping[str, Any], *, number: int, length: int) -> UploadedPart:
    return _part(answer["CopyPartResult"], number, length)


def _part(entry: Mapping[str, Any], number: int, size: int) -> UploadedPart:
    return UploadedPart(number, size, bare_etag(entry["ETag"]), crc32_of_header(entry.get("ChecksumCRC32")))


def uploads(answer: Mapping[str, Any], prefix: str = "") -> tuple[list[UploadInfo], dict[str, str]]:
    """One page of ListMultipartUploads, and the parameters of the next (empty: the last)."""
    _listed(answer)
    found = [
        UploadInfo(_below(prefix, entry["Key"]), upload_id(entry["UploadId"]), entry["Initiated"].timestamp())
        for entry in answer.get("Uploads", ())
    ]
    if not answer.get("IsTruncated"):
        return found, {}
    return found, {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer.get("NextUploadIdMarker", "")}


def check_size(answer: Mapping[str, Any], what: str, limit: int) -> None:
    """Raises TooLarge."""
    if not answer.get("ETag"):
        raise Unusable("it has no ETag, so it is none of S3")
    if answer["ContentLength"] > limit:
        raise TooLarge(f"{what}: {answer['ContentLength']} bytes, of at most {limit}")


def check_range(answer: Mapping[str, Any], what: str, start: int, length: int, etag: str) -> None:
    """Before a byte of the body is read: is this the range of the version that was asked for?

    Raises Changed, BadRange (the object ends earlier), NotSupported (Range is ignored), ConnectionFailed.
    """
    found = bare_etag(answer.get("ETag", ""))
    if not found:
        raise Unusable("it has no ETag, so it is none of S3")
    if etag and found != etag:
        raise Changed(f"{what}: the answer has version {found} instead of {etag}")
    size = answer.get("ContentLength")
    told = answer.get("ContentRange", "")
    if not told:
        if start == 0 and size == length:
            return  # the whole object
        raise NotSupported(f"{what}: the store ignores Range")
    match = _CONTENT_RANGE.match(told)
    if match is None:
        raise Unusable(f"{_cut(told)} as a Content-Range")
    first, last = int(match[1]), int(match[2])
    if first != start or last >= start + length:
        raise ServerFault(f"{what}: bytes {first}-{last} instead of {start}-{start + length - 1}")
    if last < start + length - 1:
        raise BadRange(f"{what}: {length} bytes from {start} go beyond the end at {last + 1}")
    if size is not None and size != length:
        raise ConnectionFailed(f"{what}: {size} bytes announced, {length} asked")
