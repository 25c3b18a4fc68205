"""PutObject, GetObject, HeadObject, DeleteObject, DeleteObjects, CopyObject."""

from __future__ import annotations

import os
from dataclasses import replace

from . import attributes, conditions, encryption, lifecycle, ranges
from .acl import READ, WRITE, chosen
from .call import LARGEST_PUT, Call
from .checksums import FULL, named
from .errors import S3Error
from .locking import default_retention, guard_for, need_lock
from .messages import FileRange, Response
from .model import NULL, Bucket, Object
from .render import http_date, iso, xml_response
from .xml import Node, Tree, parse

_KEYS = 1000  # of a DeleteObjects
_WAITED = 256 << 20  # bytes whose copy a client waits for without white space


async def put(call: Call) -> Response:
    bucket = await call.bucket(write=True, grant=WRITE)
    call.payload.need_length()
    wanted = described(call, bucket)

    def finish(size: int) -> Object:
        payload = call.payload
        return replace(
            wanted,
            size=size,
            etag=payload.etag,
            algorithm=payload.algorithm,
            checksum=payload.checksum,
            checksum_type=FULL if payload.checksum else "",
        )

    made = await call.backend.put(call.bucket_name, call.key, aiter(call.payload), finish, call.condition)
    headers = [("ETag", f'"{made.etag}"'), *attributes.checksum_headers(made), *version(bucket, made)]
    return Response(200, headers + expires(bucket, made))


def described(call: Call, bucket: Bucket) -> Object:
    """What the headers say of an object to be written, with the bucket's own retention."""
    wanted = attributes.of_request(call.key, call.headers, call.now)
    if wanted.mode or wanted.hold:
        if call.granted:
            raise S3Error("AccessDenied")
        need_lock(bucket)
    if not wanted.mode:
        wanted = default_retention(wanted, bucket, call.now)
    if not call.acl:
        attributes.refuse_lists(call.headers)
        return replace(wanted, owner=call.user.name)
    owner, grants = chosen(call.headers, bucket, call.user.name, call.known)
    return replace(wanted, owner=owner, acl=grants)


def expires(bucket: Bucket, found: Object) -> list[tuple[str, str]]:
    """When the bucket's lifecycle is going to delete it."""
    rules = bucket.settings.get("lifecycle")
    told = lifecycle.expiration(rules, found) if rules and found.latest else ""
    return [("x-amz-expiration", told)] if told else []


def version(bucket: Bucket, made: Object) -> list[tuple[str, str]]:
    """Of what was written; a bucket whose versioning is suspended makes none."""
    return [("x-amz-version-id", made.version)] if bucket.versioning == "Enabled" else []


def _marked(found: Object, asked: str) -> S3Error:
    """The error for a marker of a deletion. asked: the version, or ""."""
    headers = (("x-amz-delete-marker", "true"), ("x-amz-version-id", found.version))
    if asked:
        return S3Error("MethodNotAllowed", headers=(*headers, ("Last-Modified", http_date(found.modified))))
    return S3Error("NoSuchKey", headers=headers, Key=found.key)


async def get(call: Call) -> Response:
    bucket = await call.bucket_of_object(write=False)
    opened = await call.found(bucket, call.backend.open(call.bucket_name, call.key, call.version))
    try:
        call.check(bucket, opened.object, READ)
        status, first, length, headers = _chosen(call, bucket, opened.object)
    except BaseException:
        os.close(opened.descriptor)
        raise
    return Response(status, headers, FileRange(opened.descriptor, first, length))


async def head(call: Call) -> Response:
    bucket = await call.bucket_of_object(write=False)
    found = await call.found(bucket, call.backend.head(call.bucket_name, call.key, call.version))
    call.check(bucket, found, READ)
    status, _, length, headers = _chosen(call, bucket, found)
    return Response(status, headers, b"", length)


def _chosen(call: Call, bucket: Bucket, found: Object) -> tuple[int, int, int, list[tuple[str, str]]]:
    """(status, first, length, headers) of GET and HEAD."""
    if found.marker:
        raise _marked(found, call.version)
    modified = found.modified // 10**9
    try:
        conditions.check_read(call.headers, found.etag, modified)
    except S3Error as error:
        if error.code == "NotModified":
            kept = [h for h in attributes.of_answer(found, bool(bucket.versioning), checksum=False) if h[0] in _KEPT]
            raise S3Error("NotModified", headers=tuple(kept)) from None
        raise
    part = call.query.get("partNumber")
    encryption.refuse_read(call.headers)
    whole = attributes.of_answer(found, bool(bucket.versioning), checksum=False) + expires(bucket, found)
    wants_checksum = call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
    headers = attributes.overridden(whole, call.query)
    if part is not None:
        if "range" in call.headers:
            raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
        first, length, checksum = _of_part(found, part)
        if found.parts:
            headers.append(("x-amz-mp-parts-count", str(len(found.parts))))
        if wants_checksum and checksum:
            headers += attributes.checksum_headers(replace(found, checksum=checksum))
        if length < found.size:
            headers.append(("Content-Range", f"bytes {first}-{first + length - 1}/{found.size}"))
        return 206, first, length, headers
    span = None
    if "range" in call.headers and conditions.range_holds(call.headers.get("if-range"), found.etag, modified):
        span = ranges.resolve(call.headers["range"], found.size)
    if span is None:
        if wants_checksum:
            headers += attributes.checksum_headers(found)
        return 200, 0, found.size, headers
    first, length = span
    if wants_checksum and length == found.size:
        headers += attributes.checksum_headers(found)
    headers.append(("Content-Range", f"bytes {first}-{first + length - 1}/{found.size}"))
    return 206, first, length, headers


_KEPT = ("ETag", "Last-Modified", "Cache-Control", "Expires", "x-amz-version-id")


def _of_part(found: Object, text: str) -> tuple[int, int, str]:
    """First byte, length, checksum."""
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= 10_000:
        message = "Part number must be an integer between 1 and 10000, inclusive"
        raise S3Error("InvalidArgument", message, ArgumentName="partNumber", ArgumentValue=text)
    if not found.parts:
        if int(text) > 1:
            raise S3Error("InvalidPartNumber", ActualPartCount="1", PartNumberRequested=text)
        return 0, found.size, found.checksum
    first = 0
    for position, part in enumerate(found.parts, start=1):
        if position == int(text):
            return first, part.size, part.checksum
        first += part.size
    raise S3Error("InvalidPartNumber", ActualPartCount=str(len(found.parts)), PartNumberRequested=text)


async def delete(call: Call) -> Response:
    bucket = await call.bucket(write=True, grant=WRITE)
    if call.version and call.granted:
        raise S3Error("AccessDenied")
    guard = guard_for(call)

    def condition(current: Object | None) -> None:
        conditions.check_delete(call.headers, current)

    gone = await call.backend.delete(call.bucket_name, call.key, call.version, condition, guard)
    headers = []
    if gone.version and (bucket.versioning or call.version):
        headers.append(("x-amz-version-id", gone.version))
    if gone.marker:
        headers.append(("x-amz-delete-marker", "true"))
    return Response(204, headers)


async def delete_many(call: Call) -> Response:
    await call.bucket(write=True, grant=WRITE)
    tree = parse(await call.payload.read(), "Delete")
    quiet = tree.text("Quiet", "false").strip().lower() == "true"
    objects = list(tree.all("Object"))
    if not 1 <= len(objects) <= _KEYS:
        raise S3Error("MalformedXML")
    asked = [(o.text("Key"), o.text("VersionId", ""), _conditions(o)) for o in objects]
    guard = guard_for(call)
    answers: list[Node] = []
    for key, wanted, headers in asked:
        named_: list[Node] = [("Key", key)]
        if wanted:
            named_.append(("VersionId", wanted))
        try:
            check_key(key)
            if wanted and call.granted:
                raise S3Error("AccessDenied")

            def condition(current: Object | None, headers: dict[str, str] = headers) -> None:
                conditions.check_delete(headers, current)

            gone = await call.backend.delete(call.bucket_name, key, wanted, condition, guard)
        except S3Error as error:
            answers.append(("Error", [*named_, ("Code", error.code), ("Message", error.message)]))
            continue
        if gone.marker:
            named_ += [("DeleteMarker", "true"), ("DeleteMarkerVersionId", gone.version)]
        if not quiet:
            answers.append(("Deleted", named_))
    return xml_response("DeleteResult", answers)


_CONDITIONS = {
    "ETag": "if-match",
    "LastModifiedTime": "x-amz-if-match-last-modified-time",
    "Size": "x-amz-if-match-size",
}


def _conditions(element: Tree) -> dict[str, str]:
    """Of one object of a DeleteObjects, as the headers of a DELETE."""
    given = {header: element.text(name, "") for name, header in _CONDITIONS.items()}
    return {header: value for header, value in given.items() if value}


def check_key(key: str) -> None:
    """Raises S3Error."""
    if not key:
        raise S3Error("MalformedXML")
    if len(key.encode()) > 1024:
        raise S3Error("KeyTooLongError", Size=str(len(key.encode())), MaxSizeAllowed="1024")


async def copy(call: Call) -> Response:
    bucket = await call.bucket(write=True, grant=WRITE)
    source = await call.source()
    found = await call.source_found(call.backend.head(source.bucket, source.key, source.version))
    if found.marker:
        if source.version:
            raise S3Error(
                "InvalidRequest", "The source of a copy request may not specifically refer to a delete marker"
            )
        raise S3Error("NoSuchKey", Key=source.key)
    conditions.check_copy(call.headers, found.etag, found.modified // 10**9)
    if found.size > LARGEST_PUT:
        message = (
            f"The specified copy source is larger than the maximum allowable size for a copy source: {LARGEST_PUT}"
        )
        raise S3Error("InvalidRequest", message)
    new_metadata = _directive(call, "x-amz-metadata-directive")
    new_tags = _directive(call, "x-amz-tagging-directive")
    if call.source_granted and found.tags and not new_tags:
        raise S3Error("AccessDenied")
    itself = (source.bucket, source.key) == (call.bucket_name, call.key)
    if itself and not new_metadata and not source.version and "x-amz-storage-class" not in call.headers:
        message = (
            "This copy request is illegal because it is trying to copy an object to itself without changing the "
            "object's metadata, storage class, website redirect location or encryption attributes."
        )
        raise S3Error("InvalidRequest", message)
    wanted = described(call, bucket)
    algorithm = call.headers.get("x-amz-checksum-algorithm", "")
    algorithm = named(algorithm).name if algorithm else ""

    def change(old: Object) -> Object:
        call.check_source(old)
        conditions.check_copy(call.headers, old.etag, old.modified // 10**9)
        return replace(
            wanted,
            size=old.size,
            etag=old.etag,
            algorithm=old.algorithm,
            checksum=old.checksum,
            checksum_type=old.checksum_type,
            parts=old.parts,
            headers=wanted.headers if new_metadata else old.headers,
            metadata=wanted.metadata if new_metadata else old.metadata,
            tags=wanted.tags if new_tags else old.tags,
        )

    # The version that was looked at, also when another one comes meanwhile.
    pinned = replace(source, version=found.version) if found.version != NULL and not source.version else source

    async def run() -> Object:
        return await call.backend.copy(pinned, call.bucket_name, call.key, change, call.condition, algorithm)

    origin = [("x-amz-copy-source-version-id", found.version)] if found.version != NULL or source.version else []
    if found.size > _WAITED and not bucket.versioning and not itself:

        async def later() -> bytes:
            body = xml_response("CopyObjectResult", _copied(await run())).body
            assert isinstance(body, bytes)
            return body

        return Response(200, [*origin, ("Content-Type", "application/xml")], later=later)
    made = await run()
    answer = xml_response("CopyObjectResult", _copied(made))
    return replace(answer, headers=[*answer.headers, *origin, *version(bucket, made), *expires(bucket, made)])


def _copied(made: Object) -> list[Node]:
    nodes: list[Node] = [("LastModified", iso(made.modified)), ("ETag", f'"{made.etag}"')]
    if made.checksum:
        nodes += [(named(made.algorithm).element, made.checksum), ("ChecksumType", made.checksum_type)]
    return nodes


def _directive(call: Call, name: str) -> bool:
    """Whether it is REPLACE."""
    value = call.headers.get(name, "COPY")
    if value not in ("COPY", "REPLACE"):
        raise S3Error("InvalidArgument", f"Unknown {name}", ArgumentName=name, ArgumentValue=value)
    return value == "REPLACE"
