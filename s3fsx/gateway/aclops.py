"""Access control lists of buckets and objects, who owns what is written, and what blocks public access."""

from __future__ import annotations

from dataclasses import replace

from . import acl, attributes
from .call import Call
from .errors import S3Error
from .messages import Response
from .model import Bucket, Object
from .render import xml_response
from .xml import Node, parse

_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


async def get_of_bucket(call: Call) -> Response:
    bucket = await call.bucket(write=False, grant=acl.READ_ACP)
    return xml_response("AccessControlPolicy", acl.nodes(bucket.owner or "nobody", acl.of_bucket(bucket)))


async def put_of_bucket(call: Call) -> Response:
    bucket = await call.owned(grant=acl.WRITE_ACP)
    body = await call.payload.read()
    if not call.acl:
        _off(call)
        return Response(200)
    grants = _asked(call, body, bucket, bucket.owner)
    await call.backend.configure(call.bucket_name, {"acl": [list(grant) for grant in grants]})
    return Response(200)


async def get_of_object(call: Call) -> Response:
    bucket = await call.bucket_of_object(write=False)
    found = await call.found(bucket, call.backend.head(call.bucket_name, call.key, call.version))
    call.check(bucket, found, acl.READ_ACP)
    _no_marker(call, found)
    owner = found.owner or bucket.owner or "nobody"
    headers = (("x-amz-version-id", found.version),) if bucket.versioning else ()
    return xml_response("AccessControlPolicy", acl.nodes(owner, acl.of_object(found, bucket)), headers)


async def put_of_object(call: Call) -> Response:
    bucket = await call.bucket_of_object(write=True)
    body = await call.payload.read()
    if not call.acl:
        _off(call)

    def change(old: Object) -> Object:
        call.check(bucket, old, acl.WRITE_ACP)
        _no_marker(call, old)
        return replace(old, acl=_asked(call, body, bucket, old.owner or bucket.owner)) if call.acl else old

    await call.found(bucket, call.backend.update(call.bucket_name, call.key, call.version, change))
    return Response(200)


def _no_marker(call: Call, found: Object) -> None:
    if found.marker:
        raise S3Error("MethodNotAllowed" if call.version else "NoSuchKey", headers=(("x-amz-delete-marker", "true"),))


def _off(call: Call) -> None:
    """Only what is so anyhow: private. Raises S3Error."""
    attributes.refuse_lists(call.headers)
    if "x-amz-acl" not in call.headers:
        raise S3Error("NotImplemented", attributes.NO_LISTS)


def _asked(call: Call, body: bytes, bucket: Bucket, owner: str) -> acl.Grants:
    """By headers or document. Raises S3Error."""
    if acl.ownership(bucket) == acl.ENFORCED:
        raise S3Error("AccessControlListNotSupported")
    grants = acl.of_headers(call.headers, owner, bucket.owner, call.known)
    if grants is not None and body:
        raise S3Error("UnexpectedContent")
    if grants is None:
        if not body:
            raise S3Error("MissingSecurityHeader")
        grants = acl.of_document(parse(body, "AccessControlPolicy"), owner, call.known)
    acl.check_public(bucket, grants)
    return grants


async def get_ownership(call: Call) -> Response:
    bucket = await call.bucket(write=False)
    rule = acl.ENFORCED
    if call.acl:
        if "ownership" not in bucket.settings:
            raise S3Error("OwnershipControlsNotFoundError", BucketName=bucket.name)
        rule = acl.ownership(bucket)
    return xml_response("OwnershipControls", [("Rule", [("ObjectOwnership", rule)])])


async def put_ownership(call: Call) -> Response:
    bucket = await call.owned()
    rule = parse(await call.payload.read(), "OwnershipControls").one("Rule")
    value = "" if rule is None else rule.text("ObjectOwnership")
    if value not in (acl.ENFORCED, acl.PREFERRED, acl.WRITER):
        raise S3Error("MalformedXML")
    if not call.acl and value != acl.ENFORCED:
        raise S3Error("NotImplemented", attributes.NO_LISTS)
    if value == acl.ENFORCED and any(who != bucket.owner for who, _ in acl.of_bucket(bucket)):
        raise S3Error("InvalidBucketAclWithObjectOwnership")
    await call.backend.configure(call.bucket_name, {"ownership": value})
    return Response(200)


async def delete_ownership(call: Call) -> Response:
    await call.owned()
    await call.backend.configure(call.bucket_name, {"ownership": None})
    return Response(204)


async def get_block(call: Call) -> Response:
    bucket = await call.bucket(write=False)
    stored = bucket.settings.get("public_access_block")
    if stored is None:
        raise S3Error("NoSuchPublicAccessBlockConfiguration", BucketName=bucket.name)
    told: list[Node] = [(name, "true" if stored.get(name) else "false") for name in _BLOCKS]
    return xml_response("PublicAccessBlockConfiguration", told)


async def put_block(call: Call) -> Response:
    """It only takes away: what a list would grant. There are no policies to be blocked."""
    await call.owned()
    tree = parse(await call.payload.read(), "PublicAccessBlockConfiguration")
    tree.only(*_BLOCKS)
    values = {name: tree.text(name, "false").strip().lower() for name in _BLOCKS}
    if not set(values.values()) <= {"true", "false"}:
        raise S3Error("MalformedXML")
    stored = {name: value == "true" for name, value in values.items()}
    await call.backend.configure(call.bucket_name, {"public_access_block": stored})
    return Response(200)


async def delete_block(call: Call) -> Response:
    await call.owned()
    await call.backend.configure(call.bucket_name, {"public_access_block": None})
    return Response(204)


async def get_policy_status(call: Call) -> Response:
    """Whether anything of it is public; by its list, as there are no policies."""
    bucket = await call.bucket(write=False)
    open_ = call.acl and acl.public(acl.of_bucket(bucket)) and not acl.blocks(bucket, "IgnorePublicAcls")
    is_public = open_ and acl.ownership(bucket) != acl.ENFORCED
    return xml_response("PolicyStatus", [("IsPublic", "true" if is_public else "false")])
