"""What stands beside an object's data: tags, retention, legal hold, ACL, attributes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from . import attributes
from .acl import READ
from .call import Call
from .checksums import ALGORITHMS
from .errors import S3Error
from .locking import bypasses, check_change, need_lock
from .messages import Response
from .model import COMPLIANCE, GOVERNANCE, Bucket, Object
from .render import http_date, xml_response
from .xml import Node, Tree, parse


async def _found(call: Call) -> tuple[Bucket, Object]:
    bucket = await call.bucket(write=False)
    found = await call.backend.head(call.bucket_name, call.key, call.version)
    _no_marker(call, found)
    return bucket, found


def _no_marker(call: Call, found: Object) -> None:
    if found.marker:
        raise S3Error("MethodNotAllowed" if call.version else "NoSuchKey", headers=(("x-amz-delete-marker", "true"),))


def _version(bucket: Bucket, found: Object) -> tuple[tuple[str, str], ...]:
    return (("x-amz-version-id", found.version),) if bucket.versioning else ()


async def _update(call: Call, change: Callable[[Object], Object]) -> tuple[Bucket, Object]:
    bucket = await call.bucket(write=True)

    def checked(old: Object) -> Object:
        if old.marker:
            raise S3Error("MethodNotAllowed", headers=(("x-amz-delete-marker", "true"),))
        return change(old)

    return bucket, await call.backend.update(call.bucket_name, call.key, call.version, checked)


def tag_nodes(tags: tuple[tuple[str, str], ...]) -> list[Node]:
    return [("TagSet", [("Tag", [("Key", name), ("Value", value)]) for name, value in tags])]


def tags_of(tree: Tree, limit: int) -> tuple[tuple[str, str], ...]:
    tree.only("TagSet")
    tag_set = tree.one("TagSet")
    if tag_set is None:
        raise S3Error("MalformedXML")
    tag_set.only("Tag")
    return attributes.checked_tags([(tag.text("Key"), tag.text("Value")) for tag in tag_set.all("Tag")], limit)


async def get_tagging(call: Call) -> Response:
    bucket, found = await _found(call)
    return xml_response("Tagging", tag_nodes(found.tags), _version(bucket, found))


async def put_tagging(call: Call) -> Response:
    tags = tags_of(parse(await call.payload.read(), "Tagging"), 10)
    bucket, found = await _update(call, lambda old: replace(old, tags=tags))
    return Response(200, _version(bucket, found))


async def delete_tagging(call: Call) -> Response:
    bucket, found = await _update(call, lambda old: replace(old, tags=()))
    return Response(204, _version(bucket, found))


async def get_retention(call: Call) -> Response:
    bucket, found = await _found(call)
    need_lock(bucket)
    if not found.mode:
        raise S3Error("NoSuchObjectLockConfiguration")
    until = datetime.fromtimestamp(found.until, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return xml_response("Retention", [("Mode", found.mode), ("RetainUntilDate", until)])


async def put_retention(call: Call) -> Response:
    need_lock(await call.bucket(write=True))
    tree = parse(await call.payload.read(), "Retention")
    tree.only("Mode", "RetainUntilDate")
    mode, text = tree.text("Mode", ""), tree.text("RetainUntilDate", "")
    if not mode and not text:
        until = 0
    else:
        if mode not in (GOVERNANCE, COMPLIANCE) or not text:
            raise S3Error("MalformedXML")
        until = attributes.retain_until(text, call.now)

    def change(old: Object) -> Object:
        check_change(old, mode, until, bypass=bypasses(call), now=call.now)
        return replace(old, mode=mode, until=until)

    bucket, found = await _update(call, change)
    return Response(200, _version(bucket, found))


async def get_legal_hold(call: Call) -> Response:
    bucket, found = await _found(call)
    need_lock(bucket)
    return xml_response("LegalHold", [("Status", "ON" if found.hold else "OFF")])


async def put_legal_hold(call: Call) -> Response:
    need_lock(await call.bucket(write=True))
    status = parse(await call.payload.read(), "LegalHold").text("Status")
    if status not in ("ON", "OFF"):
        raise S3Error("MalformedXML")
    bucket, found = await _update(call, lambda old: replace(old, hold=status == "ON"))
    return Response(200, _version(bucket, found))


_ATTRIBUTES = {"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"}


async def get_attributes(call: Call) -> Response:
    asked = {name.strip() for name in call.headers.get("x-amz-object-attributes", "").split(",")}
    if not asked <= _ATTRIBUTES:
        raise S3Error("InvalidArgument", "Invalid attribute name specified.")
    bucket = await call.bucket_of_object(write=False)
    found = await call.found(bucket, call.backend.head(call.bucket_name, call.key, call.version))
    call.check(bucket, found, READ)
    _no_marker(call, found)
    nodes: list[Node] = []
    if "ETag" in asked:
        nodes.append(("ETag", found.etag))
    if "Checksum" in asked and found.checksum:
        checksum: list[Node] = [(ALGORITHMS[found.algorithm].element, found.checksum)]
        nodes.append(("Checksum", [*checksum, ("ChecksumType", found.checksum_type)]))
    if "ObjectParts" in asked and found.parts:
        nodes.append(("ObjectParts", _parts(call, found)))
    if "StorageClass" in asked:
        nodes.append(("StorageClass", "STANDARD"))
    if "ObjectSize" in asked:
        nodes.append(("ObjectSize", str(found.size)))
    headers = (("Last-Modified", http_date(found.modified)), *_version(bucket, found))
    return xml_response("GetObjectAttributesResponse", nodes, headers)


def _parts(call: Call, found: Object) -> list[Node]:
    try:
        limit = min(1000, int(call.headers.get("x-amz-max-parts", "1000")))
        marker = int(call.headers.get("x-amz-part-number-marker", "0"))
        if limit < 0 or marker < 0:
            raise ValueError
    except ValueError:
        raise S3Error("InvalidArgument", "x-amz-max-parts and x-amz-part-number-marker are integers") from None
    rest = [part for part in found.parts if part.number > marker]
    told = rest[:limit]
    nodes: list[Node] = [
        ("PartsCount", str(len(found.parts))),
        ("PartNumberMarker", str(marker)),
        ("NextPartNumberMarker", str(told[-1].number if told else 0)),
        ("MaxParts", str(limit)),
        ("IsTruncated", "true" if len(rest) > len(told) else "false"),
    ]
    for part in told:
        fields: list[Node] = [("PartNumber", str(part.number)), ("Size", str(part.size))]
        if part.checksum and found.algorithm:
            fields.append((ALGORITHMS[found.algorithm].element, part.checksum))
        nodes.append(("Part", fields))
    return nodes
