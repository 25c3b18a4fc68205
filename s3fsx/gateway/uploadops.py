"""Multipart uploads: create, part, copied part, parts, uploads, complete, abort."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from . import conditions, encryption, ranges
from .acl import ANONYMOUS, READ, WRITE
from .call import LARGEST_PUT, Call
from .checksums import ALGORITHMS, FULL, HEADERS, PREFIX, Wanted, named, of_parts, type_of
from .errors import S3Error
from .listops import encoder, owner
from .messages import Response
from .model import Object, Part, Query, Upload
from .objectops import described, expires, version
from .render import iso, xml_response
from .xml import Node, Tree, parse

_SMALLEST = 5 << 20  # bytes, of every part but the last
_MOST = 10_000  # parts
_WAITED = 256 << 20


async def create(call: Call) -> Response:
    bucket = await call.bucket(write=True, grant=WRITE)
    if call.user.name == ANONYMOUS:
        raise S3Error("AccessDenied", "Anonymous users cannot initiate multipart uploads. Please authenticate.")
    attributes = described(call, bucket)
    algorithm = call.headers.get("x-amz-checksum-algorithm", "")
    kind = call.headers.get("x-amz-checksum-type", "")
    extra = []
    if algorithm:
        attributes = replace(attributes, algorithm=named(algorithm).name)
        attributes = replace(attributes, checksum_type=type_of(ALGORITHMS[attributes.algorithm], kind))
        extra = [
            ("x-amz-checksum-algorithm", attributes.algorithm),
            ("x-amz-checksum-type", attributes.checksum_type),
        ]
    elif kind:
        raise S3Error(
            "InvalidRequest", "The x-amz-checksum-type header can only be used with x-amz-checksum-algorithm."
        )
    await call.payload.read()
    upload = await call.backend.create_upload(call.bucket_name, attributes)
    nodes: list[Node] = [("Bucket", call.bucket_name), ("Key", call.key), ("UploadId", upload.id)]
    return xml_response("InitiateMultipartUploadResult", nodes, tuple(extra))


def _number(call: Call) -> int:
    text = call.query["partNumber"]
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= _MOST:
        message = f"Part number must be an integer between 1 and {_MOST}, inclusive"
        raise S3Error("InvalidArgument", message, ArgumentName="partNumber", ArgumentValue=text)
    return int(text)


async def _upload(call: Call) -> Upload:
    upload = await call.backend.upload(call.bucket_name, call.key, call.query["uploadId"])
    if call.granted and upload.attributes.owner != call.user.name:
        raise S3Error("AccessDenied")
    return upload


async def put_part(call: Call) -> Response:
    await call.bucket(write=True, grant=WRITE)
    encryption.refuse(call.headers)
    number = _number(call)
    call.payload.need_length()
    upload = await _upload(call)
    algorithm = upload.attributes.algorithm
    if algorithm:
        if call.payload.wanted is not None and call.payload.algorithm != algorithm:
            message = (
                f"Checksum Type mismatch occurred, expected checksum Type: {algorithm.lower()}, "
                f"actual checksum Type: {call.payload.algorithm.lower()}"
            )
            raise S3Error("InvalidRequest", message)
        call.payload.compute(Wanted(ALGORITHMS[algorithm], None))

    def finish(size: int) -> Part:
        return Part(number, size, call.payload.etag, 0, call.payload.checksum)

    part = await call.backend.put_part(call.bucket_name, upload.id, aiter(call.payload), finish)
    headers = [("ETag", f'"{part.etag}"')]
    if part.checksum:
        headers.append((f"{PREFIX}{call.payload.algorithm.lower()}", part.checksum))
    return Response(200, headers)


async def copy_part(call: Call) -> Response:
    await call.bucket(write=True, grant=WRITE)
    encryption.refuse(call.headers)
    number = _number(call)
    upload = await _upload(call)
    source = await call.source()
    found = await call.source_found(call.backend.head(source.bucket, source.key, source.version))
    if found.marker:
        raise S3Error("NoSuchKey", Key=source.key)
    conditions.check_copy(call.headers, found.etag, found.modified // 10**9)
    first, length = 0, found.size
    if (header := call.headers.get("x-amz-copy-source-range")) is not None:
        first, length = ranges.of_copy(header, found.size)
    if length > LARGEST_PUT:
        raise S3Error("InvalidRequest", "The specified copy source is larger than the maximum allowable size.")
    chosen = replace(source, version=source.version or found.version, first=first, length=length)
    algorithm = upload.attributes.algorithm

    async def run() -> list[Node]:
        part = await call.backend.copy_part(chosen, call.bucket_name, upload.id, number, algorithm)
        nodes: list[Node] = [("LastModified", iso(part.modified)), ("ETag", f'"{part.etag}"')]
        if part.checksum:
            nodes.append((ALGORITHMS[algorithm].element, part.checksum))
        return nodes

    if length > _WAITED:

        async def later() -> bytes:
            return _bytes(xml_response("CopyPartResult", await run()))

        return Response(200, (("Content-Type", "application/xml"),), later=later)
    return xml_response("CopyPartResult", await run())


def _bytes(response: Response) -> bytes:
    assert isinstance(response.body, bytes)
    return response.body


async def complete(call: Call) -> Response:
    bucket = await call.bucket(write=True, grant=WRITE)
    given = {name: value for name, value in call.headers.items() if name in HEADERS}
    if len(given) > 1:
        raise S3Error(
            "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    asked = _asked(parse(await call.payload.read(), "CompleteMultipartUpload"))
    try:
        upload = await _upload(call)
    except S3Error as error:
        return _completed(call, await _made_before(call, error))
    numbers = [number for number, _, _ in asked]

    def finish(parts: Sequence[Part]) -> Object:
        return _assembled(call, upload, asked, parts, given)

    async def run() -> Object:
        try:
            return await call.backend.complete(call.bucket_name, upload.id, numbers, finish, call.condition)
        except S3Error as error:
            return await _made_before(call, error)

    there = {part.number: part for part in await call.backend.parts(call.bucket_name, upload.id)}
    # What is wrong with the request is said before the white space begins.
    _assembled(call, upload, asked, [there[number] for number in numbers if number in there], given)
    size = sum(there[number].size for number in numbers)
    if size > _WAITED and not bucket.versioning and not {"if-match", "if-none-match"} & call.headers.keys():

        async def later() -> bytes:
            return _bytes(_completed(call, await run()))

        return Response(200, (("Content-Type", "application/xml"),), later=later)
    made = await run()
    answer = _completed(call, made)
    return replace(answer, headers=[*answer.headers, *version(bucket, made), *expires(bucket, made)])


async def _made_before(call: Call, error: S3Error) -> Object:
    """The answer to the first Complete may have been lost, or it is under way: the object knows its upload."""
    if error.code != "NoSuchUpload":
        raise error
    try:
        found = await call.backend.head(call.bucket_name, call.key)
    except S3Error:
        raise error from None
    if found.upload != call.query["uploadId"]:
        raise error
    return found


def _completed(call: Call, made: Object) -> Response:
    host = call.headers.get("host", "")
    scheme = "https" if call.request.secure else "http"
    nodes: list[Node] = [
        ("Location", f"{scheme}://{host}/{call.bucket_name}/{call.key}"),
        ("Bucket", call.bucket_name),
        ("Key", call.key),
        ("ETag", f'"{made.etag}"'),
    ]
    if made.checksum:
        nodes += [(ALGORITHMS[made.algorithm].element, made.checksum), ("ChecksumType", made.checksum_type)]
    return xml_response("CompleteMultipartUploadResult", nodes)


Asked = tuple[int, str, dict[str, str]]  # number, ETag, checksums by algorithm


def _asked(tree: Tree) -> list[Asked]:
    asked: list[Asked] = []
    if sum(1 for _ in tree.all("Part")) > _MOST:  # a document has room for 50 000, which would take seconds
        raise S3Error("MalformedXML")
    for part in tree.all("Part"):
        text = part.text("PartNumber").strip()
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise S3Error("MalformedXML")
        checksums = {name: part.text(a.element, "") for name, a in ALGORITHMS.items() if part.text(a.element, "")}
        asked.append((int(text), part.text("ETag").strip().strip('"'), checksums))
    if not asked:
        raise S3Error("MalformedXML")
    if any(not 1 <= number <= _MOST for number, _, _ in asked):
        raise S3Error("InvalidArgument", f"Part number must be an integer between 1 and {_MOST}, inclusive")
    if any(a[0] >= b[0] for a, b in pairwise(asked)):
        raise S3Error("InvalidPartOrder")
    return asked


def _assembled(
    call: Call, upload: Upload, asked: Sequence[Asked], parts: Sequence[Part], given: dict[str, str]
) -> Object:
    """The object that these parts make. Raises S3Error: InvalidPart, EntityTooSmall, BadDigest."""
    by_number = {part.number: part for part in parts}
    algorithm = upload.attributes.algorithm
    chosen = []
    for number, etag, checksums in asked:
        part = by_number.get(number)
        fits = part is not None and part.etag == etag
        if part is not None and algorithm and checksums.get(algorithm, part.checksum) != part.checksum:
            fits = False
        if part is None or not fits:
            raise S3Error("InvalidPart", UploadId=upload.id, PartNumber=str(number), ETag=etag)
        chosen.append(part)
    for part in chosen[:-1]:
        if part.size < _SMALLEST:
            raise S3Error(
                "EntityTooSmall",
                ProposedSize=str(part.size),
                MinSizeAllowed=str(_SMALLEST),
                PartNumber=str(part.number),
                ETag=part.etag,
            )
    size = sum(part.size for part in chosen)
    told = call.headers.get("x-amz-mp-object-size")
    if told is not None and told != str(size):
        raise S3Error("InvalidRequest", f"The provided 'x-amz-mp-object-size' header does not match the size: {size}.")
    digest = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in chosen), usedforsecurity=False).hexdigest()
    made = replace(upload.attributes, size=size, etag=f"{digest}-{len(chosen)}", parts=tuple(chosen))
    mode = call.headers.get("x-amz-checksum-type", "").upper()
    if mode and mode != upload.attributes.checksum_type:
        message = f"The upload was created using the {upload.attributes.checksum_type or 'null'} checksum mode. "
        raise S3Error("InvalidRequest", f"{message}The complete request must use the same checksum mode.")
    if algorithm:
        kind = upload.attributes.checksum_type
        value = of_parts(ALGORITHMS[algorithm], kind, ((part.checksum, part.size) for part in chosen))
        made = replace(made, checksum=value)
        expected = given.get(ALGORITHMS[algorithm].header)
        if expected is not None and expected.partition("-")[0] != value.partition("-")[0]:
            raise S3Error("BadDigest", f"The {algorithm.lower()} you specified did not match the calculated checksum.")
    elif given:
        # The parts' checksums may still make it, when all have one of this kind.
        header = next(iter(given))
        made = _checked_by(made, header, given[header], chosen)
    return made


def _checked_by(made: Object, header: str, value: str, parts: Sequence[Part]) -> Object:
    algorithm = HEADERS[header]
    kind = FULL if algorithm.polynomial is not None and "-" not in value else "COMPOSITE"
    try:
        found = of_parts(algorithm, kind, ((part.checksum, part.size) for part in parts))
    except S3Error:
        raise S3Error(
            "InvalidRequest", f"The upload was created without the checksum algorithm {algorithm.name}."
        ) from None
    if found != value:
        raise S3Error("BadDigest", f"The {algorithm.name.lower()} you specified did not match the calculated checksum.")
    return replace(made, algorithm=algorithm.name, checksum=found, checksum_type=kind)


async def abort(call: Call) -> Response:
    await call.bucket(write=True, grant=WRITE)
    upload = await _upload(call)
    await call.backend.abort(call.bucket_name, upload.id)
    return Response(204)


async def list_parts(call: Call) -> Response:
    await call.bucket(write=False, grant=WRITE)
    upload = await _upload(call)
    encode, encoding = encoder(call)
    limit = call.number("max-parts", 1000)
    marker = call.number("part-number-marker", 0, _MOST)
    parts = [p for p in await call.backend.parts(call.bucket_name, upload.id) if p.number > marker]
    told = parts[:limit]
    nodes: list[Node] = [
        ("Bucket", call.bucket_name),
        ("Key", encode(call.key)),
        ("UploadId", upload.id),
        ("Initiator", owner(upload.attributes.owner)),
        ("Owner", owner(upload.attributes.owner)),
        ("StorageClass", "STANDARD"),
        ("PartNumberMarker", str(marker)),
        ("NextPartNumberMarker", str(told[-1].number if told else 0)),
        ("MaxParts", str(limit)),
        *encoding,
        ("IsTruncated", "true" if len(parts) > len(told) and limit else "false"),
    ]
    algorithm = upload.attributes.algorithm
    if algorithm:
        nodes += [("ChecksumAlgorithm", algorithm), ("ChecksumType", upload.attributes.checksum_type)]
    for part in told:
        fields: list[Node] = [
            ("PartNumber", str(part.number)),
            ("LastModified", iso(part.modified)),
            ("ETag", f'"{part.etag}"'),
            ("Size", str(part.size)),
        ]
        if algorithm and part.checksum:
            fields.append((ALGORITHMS[algorithm].element, part.checksum))
        nodes.append(("Part", fields))
    return xml_response("ListPartsResult", nodes)


async def list_uploads(call: Call) -> Response:
    await call.bucket(write=False, grant=READ)
    encode, encoding = encoder(call)
    limit = call.number("max-uploads", 1000)
    prefix, delimiter = call.query.get("prefix", ""), call.query.get("delimiter", "")
    marker, mark = call.query.get("key-marker", ""), call.query.get("upload-id-marker", "")
    query = Query(prefix, delimiter, marker, mark if marker else "", limit)
    page = await call.backend.list_uploads(call.bucket_name, query)
    nodes: list[Node] = [
        ("Bucket", call.bucket_name),
        ("KeyMarker", encode(marker)),
        ("UploadIdMarker", mark),
        ("NextKeyMarker", encode(page.next_key)),
        ("NextUploadIdMarker", page.next_mark),
        ("Prefix", encode(prefix)),
        *([("Delimiter", encode(delimiter))] if delimiter else []),
        ("MaxUploads", str(limit)),
        *encoding,
        ("IsTruncated", "true" if page.next_key else "false"),
    ]
    for upload in page.uploads:
        fields: list[Node] = [
            ("Key", encode(upload.key)),
            ("UploadId", upload.id),
            ("Initiator", owner(upload.attributes.owner)),
            ("Owner", owner(upload.attributes.owner)),
            ("StorageClass", "STANDARD"),
            ("Initiated", iso(upload.initiated)),
        ]
        if upload.attributes.algorithm:
            fields.append(("ChecksumAlgorithm", upload.attributes.algorithm))
            fields.append(("ChecksumType", upload.attributes.checksum_type))
        nodes.append(("Upload", fields))
    nodes += [("CommonPrefixes", [("Prefix", encode(p))]) for p in page.prefixes]
    return xml_response("ListMultipartUploadsResult", nodes)
