"""ListBuckets, ListObjects V1 and V2, ListObjectVersions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from urllib.parse import quote

from .acl import ANONYMOUS, READ
from .call import Call
from .errors import S3Error
from .messages import Response
from .model import Object, Page, Query
from .render import iso, xml_response
from .xml import Node

MOST = 1000


async def list_buckets(call: Call) -> Response:
    if call.user.name == ANONYMOUS:
        raise S3Error("AccessDenied")
    limit = call.number("max-buckets", 10_000, 10_000)
    prefix, token = call.query.get("prefix", ""), call.query.get("continuation-token", "")
    visible = [b for b in await call.place.buckets() if call.user.may_read(b.name, b.owner)]
    after = token_key(token) if token else ""
    chosen = [b for b in visible if b.name.startswith(prefix) and b.name > after]
    nodes: list[Node] = []
    for bucket in chosen[:limit]:
        fields: list[Node] = [("Name", bucket.name), ("CreationDate", iso(bucket.created))]
        if "max-buckets" in call.query:
            fields.append(("BucketRegion", call.region))
        nodes.append(("Bucket", fields))
    children: list[Node] = [("Owner", owner(call.user.name)), ("Buckets", nodes)]
    if len(chosen) > limit:
        children.append(("ContinuationToken", key_token(chosen[limit - 1].name)))
    if prefix:
        children.append(("Prefix", prefix))
    return xml_response("ListAllMyBucketsResult", children)


def owner(name: str) -> list[Node]:
    return [("ID", name or "nobody"), ("DisplayName", name or "nobody")]


def key_token(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def token_key(token: str) -> str:
    """Raises S3Error."""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise S3Error(
            "InvalidArgument", "The continuation token provided is incorrect", ArgumentName="continuation-token"
        ) from None


def encoder(call: Call) -> tuple[Callable[[str], str], list[Node]]:
    """By encoding-type. Raises S3Error."""
    kind = call.query.get("encoding-type", "")
    if kind not in ("", "url"):
        raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request", ArgumentName="encoding-type")
    if kind:
        return lambda text: quote(text, safe="/"), [("EncodingType", "url")]
    return lambda text: text, []


async def _page(call: Call, query: Query) -> Page:
    await call.bucket(write=False, grant=READ)
    if not query.limit:
        return Page()
    return await call.backend.list(call.bucket_name, query)


def _contents(found: Object, encode: Callable[[str], str], with_owner: bool) -> Node:
    fields: list[Node] = [
        ("Key", encode(found.key)),
        ("LastModified", iso(found.modified)),
        ("ETag", f'"{found.etag}"'),
        ("Size", str(found.size)),
        ("StorageClass", "STANDARD"),
    ]
    if found.checksum:
        fields += [("ChecksumAlgorithm", found.algorithm), ("ChecksumType", found.checksum_type)]
    if with_owner:
        fields.append(("Owner", owner(found.owner)))
    return "Contents", fields


def _prefixes(page_prefixes: tuple[str, ...], encode: Callable[[str], str]) -> list[Node]:
    return [("CommonPrefixes", [("Prefix", encode(prefix))]) for prefix in page_prefixes]


async def list_v1(call: Call) -> Response:
    encode, encoding = encoder(call)
    limit = call.number("max-keys", MOST)
    prefix, delimiter = call.query.get("prefix", ""), call.query.get("delimiter", "")
    marker = call.query.get("marker", "")
    page = await _page(call, Query(prefix, delimiter, marker, "", limit))
    children: list[Node] = [
        ("Name", call.bucket_name),
        ("Prefix", encode(prefix)),
        ("Marker", encode(marker)),
        ("MaxKeys", str(limit)),
    ]
    if delimiter:
        children.append(("Delimiter", encode(delimiter)))
        if page.next_key:
            children.append(("NextMarker", encode(page.next_key)))
    children += [*encoding, ("IsTruncated", _truth(page.next_key))]
    children += [_contents(found, encode, with_owner=True) for found in page.entries]
    return xml_response("ListBucketResult", children + _prefixes(page.prefixes, encode))


async def list_v2(call: Call) -> Response:
    encode, encoding = encoder(call)
    limit = call.number("max-keys", MOST)
    prefix, delimiter = call.query.get("prefix", ""), call.query.get("delimiter", "")
    start, token = call.query.get("start-after", ""), call.query.get("continuation-token")
    after = token_key(token) if token else start
    page = await _page(call, Query(prefix, delimiter, after, "", limit))
    children: list[Node] = [("Name", call.bucket_name), ("Prefix", encode(prefix)), ("MaxKeys", str(limit))]
    if delimiter:
        children.append(("Delimiter", encode(delimiter)))
    if token is not None:
        children.append(("ContinuationToken", token))
    if start:
        children.append(("StartAfter", encode(start)))
    children.append(("KeyCount", str(len(page.entries) + len(page.prefixes))))
    if page.next_key:
        children.append(("NextContinuationToken", key_token(page.next_key)))
    children += [*encoding, ("IsTruncated", _truth(page.next_key))]
    with_owner = call.query.get("fetch-owner", "").lower() == "true"
    children += [_contents(found, encode, with_owner) for found in page.entries]
    return xml_response("ListBucketResult", children + _prefixes(page.prefixes, encode))


async def list_versions(call: Call) -> Response:
    encode, encoding = encoder(call)
    limit = call.number("max-keys", MOST)
    prefix, delimiter = call.query.get("prefix", ""), call.query.get("delimiter", "")
    marker, mark = call.query.get("key-marker", ""), call.query.get("version-id-marker", "")
    if mark and not marker:
        raise S3Error("InvalidArgument", "A version-id marker cannot be specified without a key marker.")
    await call.bucket(write=False, grant=READ)
    page = Page()
    if limit:
        page = await call.backend.list_versions(call.bucket_name, Query(prefix, delimiter, marker, mark, limit))
    children: list[Node] = [
        ("Name", call.bucket_name),
        ("Prefix", encode(prefix)),
        ("KeyMarker", encode(marker)),
        ("VersionIdMarker", mark),
        ("MaxKeys", str(limit)),
    ]
    if delimiter:
        children.append(("Delimiter", encode(delimiter)))
    if page.next_key:
        children.append(("NextKeyMarker", encode(page.next_key)))
        if page.next_mark:
            children.append(("NextVersionIdMarker", page.next_mark))
    children += [*encoding, ("IsTruncated", _truth(page.next_key))]
    children += [_version(found, encode) for found in page.entries]
    return xml_response("ListVersionsResult", children + _prefixes(page.prefixes, encode))


def _version(found: Object, encode: Callable[[str], str]) -> Node:
    common: list[Node] = [
        ("Key", encode(found.key)),
        ("VersionId", found.version),
        ("IsLatest", _truth(found.latest)),
        ("LastModified", iso(found.modified)),
        ("Owner", owner(found.owner)),
    ]
    if found.marker:
        return "DeleteMarker", common
    return "Version", [*common, ("ETag", f'"{found.etag}"'), ("Size", str(found.size)), ("StorageClass", "STANDARD")]


def _truth(value: object) -> str:
    return "true" if value else "false"
