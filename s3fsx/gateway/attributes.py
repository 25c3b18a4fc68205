"""An object's attributes in headers: those of a request, and those of an answer. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from . import encryption
from .checksums import ALGORITHMS
from .errors import S3Error
from .model import COMPLIANCE, GOVERNANCE, NULL, Object
from .render import http_date
from .target import BAD_ESCAPE

META = "x-amz-meta-"
DEFAULT_TYPE = "binary/octet-stream"
KEPT = ("cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires")
_OVERRIDES = {f"response-{name}": name for name in KEPT}
_META_LIMIT = 2048  # bytes of names and values
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TAG = re.compile(r"[\w\s+\-=._:/@]*")
_STORAGE_CLASSES = {"STANDARD", "REDUCED_REDUNDANCY"}
# What asks for something that is not done must not be answered as if it were.
_REFUSED = (
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
)
NO_LISTS = "Access control lists are off; 's3fsx gateway serve --acl' switches them on."
_PRIVATE = {"private", "bucket-owner-full-control", "bucket-owner-read"}


def refuse_unknown(headers: Mapping[str, str]) -> None:
    """Raises S3Error: NotImplemented for encryption, redirects; InvalidStorageClass."""
    encryption.refuse(headers)
    for name in _REFUSED:
        if name in headers:
            raise S3Error("NotImplemented", Header=name)
    storage = headers.get("x-amz-storage-class", "STANDARD")
    if storage not in _STORAGE_CLASSES:
        raise S3Error("InvalidStorageClass", StorageClassRequested=storage)


def refuse_lists(headers: Mapping[str, str]) -> None:
    """While lists are off. Raises S3Error for what would grant anything."""
    for name in headers:
        if name.startswith("x-amz-grant-"):
            raise S3Error("NotImplemented", NO_LISTS, Header=name)
    acl = headers.get("x-amz-acl")
    if acl is not None and acl not in _PRIVATE:
        known = {"public-read", "public-read-write", "authenticated-read", "aws-exec-read", "log-delivery-write"}
        if acl not in known:
            raise S3Error("InvalidArgument", ArgumentName="x-amz-acl", ArgumentValue=acl)
        raise S3Error("NotImplemented", NO_LISTS, Header="x-amz-acl")


def of_request(key: str, headers: Mapping[str, str], now: float) -> Object:
    """What a PUT says of the object. Raises S3Error."""
    refuse_unknown(headers)
    kept = {name: headers[name] for name in KEPT if name in headers}
    encoding = [part.strip() for part in kept.get("content-encoding", "").split(",")]
    if "aws-chunked" in encoding:
        left = ",".join(part for part in encoding if part and part != "aws-chunked")
        kept.pop("content-encoding")
        if left:
            kept["content-encoding"] = left
    metadata = {name.removeprefix(META): value for name, value in headers.items() if name.startswith(META)}
    if sum(len(name) + len(value) for name, value in metadata.items()) > _META_LIMIT:
        raise S3Error("MetadataTooLarge", MaxSizeAllowed=str(_META_LIMIT))
    for name, value in (*kept.items(), *metadata.items()):
        # HTTP would not have carried it here, but a form does.
        if not _NAME.fullmatch(name) or _CONTROL.search(value):
            raise S3Error("InvalidArgument", "A header has a character that HTTP cannot carry", ArgumentName=name)
    made = Object(key, 0, "", 0, headers=kept, metadata=metadata)
    if (tagging := headers.get("x-amz-tagging")) is not None:
        made = replace(made, tags=tags_of_header(tagging))
    return with_lock(made, headers, now)


def with_lock(made: Object, headers: Mapping[str, str], now: float) -> Object:
    mode, until = headers.get("x-amz-object-lock-mode"), headers.get("x-amz-object-lock-retain-until-date")
    hold = headers.get("x-amz-object-lock-legal-hold")
    if (mode is None) != (until is None):
        message = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied"
        raise S3Error("InvalidArgument", message)
    if mode is not None and until is not None:
        if mode not in (GOVERNANCE, COMPLIANCE):
            raise S3Error("InvalidArgument", "Unknown wormMode directive", ArgumentValue=mode)
        made = replace(made, mode=mode, until=retain_until(until, now))
    if hold is not None:
        if hold not in ("ON", "OFF"):
            raise S3Error("InvalidArgument", "Legal Hold must be either of 'ON' or 'OFF'", ArgumentValue=hold)
        made = replace(made, hold=hold == "ON")
    return made


def retain_until(text: str, now: float) -> int:
    """Raises S3Error for what is no date or not in the future."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise S3Error("InvalidArgument", "The retain until date must be provided in ISO 8601 format") from None
    seconds = int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    if seconds <= now:
        raise S3Error("InvalidArgument", "The retain until date must be in the future!")
    return seconds


def tags_of_header(text: str) -> tuple[tuple[str, str], ...]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=50, errors="strict")
        names = [name for name, _ in pairs]
        if BAD_ESCAPE.search(text) or not all(names) or len(set(names)) != len(names):
            raise ValueError
    except ValueError:
        message = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters."
        raise S3Error("InvalidArgument", message, ArgumentName="x-amz-tagging") from None
    return checked_tags(pairs)


def checked_tags(pairs: Sequence[tuple[str, str]], limit: int = 10) -> tuple[tuple[str, str], ...]:
    """Raises S3Error."""
    if len(pairs) > limit:
        raise S3Error("InvalidTag", f"Object tags cannot be greater than {limit}")
    if len({name for name, _ in pairs}) != len(pairs):
        raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key")
    for name, value in pairs:
        if not 1 <= len(name) <= 128 or not _TAG.fullmatch(name) or name.startswith("aws:"):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=name)
        if len(value) > 256 or not _TAG.fullmatch(value):
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", TagKey=name)
    return tuple(sorted(pairs))


def of_answer(found: Object, versioned: bool, *, checksum: bool) -> list[tuple[str, str]]:
    """Of GET and HEAD, but Content-Length and -Range."""
    headers = [
        ("Last-Modified", http_date(found.modified)),
        ("ETag", f'"{found.etag}"'),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", found.headers.get("content-type", DEFAULT_TYPE)),
    ]
    headers += [(_title(name), value) for name, value in found.headers.items() if name != "content-type"]
    headers += [(f"{META}{name}", value) for name, value in found.metadata.items()]
    if versioned:
        headers.append(("x-amz-version-id", found.version or NULL))
    if found.tags:
        headers.append(("x-amz-tagging-count", str(len(found.tags))))
    if found.mode:
        headers.append(("x-amz-object-lock-mode", found.mode))
        until = datetime.fromtimestamp(found.until, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        headers.append(("x-amz-object-lock-retain-until-date", until))
    if found.hold:
        headers.append(("x-amz-object-lock-legal-hold", "ON"))
    if checksum:
        headers += checksum_headers(found)
    return headers


def checksum_headers(found: Object) -> list[tuple[str, str]]:
    if not found.checksum:
        return []
    return [
        (ALGORITHMS[found.algorithm].header, found.checksum),
        ("x-amz-checksum-type", found.checksum_type),
    ]


def overridden(headers: list[tuple[str, str]], query: Mapping[str, str]) -> list[tuple[str, str]]:
    """By response-content-type and its like."""
    changes = {_OVERRIDES[name]: value for name, value in query.items() if name in _OVERRIDES}
    if not changes:
        return headers
    if any(ord(c) < 32 or ord(c) == 127 for value in changes.values() for c in value):
        raise S3Error("InvalidArgument", "A response- parameter has a control character")
    kept = [(name, value) for name, value in headers if name.lower() not in changes]
    return kept + [(_title(name), value.encode().decode("latin-1")) for name, value in changes.items()]


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))
