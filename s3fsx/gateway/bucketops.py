"""Buckets: create, head, delete, where, versioning, object lock, tags; and honest answers for what there is not."""

from __future__ import annotations

from . import acl, attributes, buckets, lifecycle
from .call import Call
from .detailops import tag_nodes, tags_of
from .errors import S3Error
from .messages import Response
from .model import COMPLIANCE, GOVERNANCE, Bucket
from .render import xml_response
from .xml import NAMESPACE, Node, escape, parse

_TAGS = 50


async def check_create(call: Call) -> dict[str, object]:
    """Whether the user may have such a bucket; the settings of it that lists need. Raises S3Error."""
    name = call.bucket_name
    if not buckets.valid(name):
        raise S3Error("InvalidBucketName", BucketName=name)
    body = await call.payload.read()
    attributes.refuse_unknown(call.headers)
    settings = _lists(call)
    _check_location(body, call.region)
    if not call.user.may_create(name):
        raise S3Error("AccessDenied")
    return settings


def again(call: Call, owner: str) -> Response:
    """For a bucket that is there. Raises S3Error."""
    name = call.bucket_name
    if owner != call.user.name:
        raise S3Error("BucketAlreadyExists", BucketName=name)
    if call.region != "us-east-1":  # where Amazon has always answered 200
        raise S3Error("BucketAlreadyOwnedByYou", BucketName=name)
    return Response(200, (("Location", f"/{name}"),))


async def create(call: Call) -> Response:
    name = call.bucket_name
    settings = await check_create(call)
    try:
        there = await call.backend.bucket(name)
    except S3Error as error:
        if error.code != "NoSuchBucket":
            raise
    else:
        answer = again(call, there.owner)
        if call.acl:  # and made the list anew
            await call.backend.configure(name, {"acl": settings.get("acl")})
        return answer
    if call.headers.get("x-amz-bucket-object-lock-enabled", "").lower() == "true":
        settings |= {"versioning": "Enabled", "lock": {"rule": None}}
    await call.backend.create_bucket(Bucket(name, 0, call.user.name, settings))
    return Response(200, (("Location", f"/{name}"),))


def _lists(call: Call) -> dict[str, object]:
    """What the headers say of lists and of who owns objects. Raises S3Error."""
    rule = call.headers.get("x-amz-object-ownership")
    if rule not in (None, acl.ENFORCED, acl.PREFERRED, acl.WRITER):
        raise S3Error("InvalidArgument", "Invalid x-amz-object-ownership header", ArgumentName="x-amz-object-ownership")
    if not call.acl:
        attributes.refuse_lists(call.headers)
        return {}
    settings: dict[str, object] = {} if rule is None else {"ownership": rule}
    grants = acl.of_headers(call.headers, call.user.name, call.user.name, call.known)
    if grants is not None and rule == acl.ENFORCED and acl.public(grants):
        raise S3Error("InvalidBucketAclWithObjectOwnership")
    if grants is not None:
        settings["acl"] = [list(grant) for grant in grants]
    return settings


def _check_location(body: bytes, region: str) -> None:
    if not body:
        return
    tree = parse(body, "CreateBucketConfiguration")
    asked = tree.text("LocationConstraint", "").strip()
    if asked and asked != region and not (region == "us-east-1" and asked == "US"):
        raise S3Error("InvalidLocationConstraint", LocationConstraint=asked)


async def head(call: Call) -> Response:
    await call.bucket(write=False, grant=acl.READ)
    return Response(200, (("x-amz-bucket-region", call.region), ("Content-Type", "application/xml")), length=0)


async def delete(call: Call) -> Response:
    await call.owned()
    await call.backend.delete_bucket(call.bucket_name)
    return Response(204)


async def get_location(call: Call) -> Response:
    await call.bucket(write=False)
    where = "" if call.region == "us-east-1" else escape(call.region)
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<LocationConstraint xmlns="{NAMESPACE}">{where}</LocationConstraint>'
    )
    return Response(200, (("Content-Type", "application/xml"),), body.encode())


async def get_versioning(call: Call) -> Response:
    bucket = await call.bucket(write=False)
    return xml_response("VersioningConfiguration", [("Status", bucket.versioning)] if bucket.versioning else [])


async def put_versioning(call: Call) -> Response:
    bucket = await call.owned()
    tree = parse(await call.payload.read(), "VersioningConfiguration")
    status = tree.text("Status", "")
    if status not in ("Enabled", "Suspended"):
        raise S3Error("MalformedXML")
    if tree.text("MfaDelete", "Disabled") != "Disabled":
        raise S3Error("NotImplemented", "MFA delete is not implemented.")
    if bucket.settings.get("lock") and status != "Enabled":
        message = "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
        raise S3Error("InvalidBucketState", message)
    await call.backend.configure(call.bucket_name, {"versioning": status})
    return Response(200)


async def get_lock(call: Call) -> Response:
    bucket = await call.bucket(write=False)
    lock = bucket.settings.get("lock")
    if not lock:
        raise S3Error("ObjectLockConfigurationNotFoundError", BucketName=bucket.name)
    nodes: list[Node] = [("ObjectLockEnabled", "Enabled")]
    if rule := lock.get("rule"):
        period: Node = ("Days", str(rule["days"])) if rule.get("days") else ("Years", str(rule["years"]))
        nodes.append(("Rule", [("DefaultRetention", [("Mode", rule["mode"]), period])]))
    return xml_response("ObjectLockConfiguration", nodes)


async def put_lock(call: Call) -> Response:
    bucket = await call.owned()
    tree = parse(await call.payload.read(), "ObjectLockConfiguration")
    if tree.text("ObjectLockEnabled", "") != "Enabled":
        raise S3Error("MalformedXML")
    if bucket.versioning != "Enabled":
        raise S3Error("InvalidBucketState", "Versioning must be 'Enabled' on the bucket to apply Object Lock.")
    rule = None
    if (element := tree.one("Rule")) is not None:
        retention = element.one("DefaultRetention")
        if retention is None:
            raise S3Error("MalformedXML")
        retention.only("Mode", "Days", "Years")
        mode, days, years = retention.text("Mode"), retention.text("Days", ""), retention.text("Years", "")
        if mode not in (GOVERNANCE, COMPLIANCE) or bool(days) == bool(years):
            raise S3Error("MalformedXML")
        try:
            number = int(days or years)
        except ValueError:
            raise S3Error("MalformedXML") from None
        if not 0 < number <= (36500 if days else 100):
            raise S3Error("InvalidRetentionPeriod")
        rule = {"mode": mode, "days" if days else "years": number}
    await call.backend.configure(call.bucket_name, {"lock": {"rule": rule}})
    return Response(200)


async def get_tagging(call: Call) -> Response:
    bucket = await call.bucket(write=False)
    tags = bucket.settings.get("tags")
    if not tags:
        raise S3Error("NoSuchTagSet", BucketName=bucket.name)
    return xml_response("Tagging", tag_nodes(tuple((name, value) for name, value in tags)))


async def put_tagging(call: Call) -> Response:
    await call.owned()
    tags = tags_of(parse(await call.payload.read(), "Tagging"), _TAGS)
    await call.backend.configure(call.bucket_name, {"tags": [list(pair) for pair in tags] or None})
    return Response(204)


async def delete_tagging(call: Call) -> Response:
    await call.owned()
    await call.backend.configure(call.bucket_name, {"tags": None})
    return Response(204)


async def get_lifecycle(call: Call) -> Response:
    bucket = await call.bucket(write=False)
    rules = bucket.settings.get("lifecycle")
    if not rules:
        raise S3Error("NoSuchLifecycleConfiguration", BucketName=bucket.name)
    return xml_response("LifecycleConfiguration", lifecycle.nodes(rules))


async def put_lifecycle(call: Call) -> Response:
    await call.owned()
    rules = lifecycle.parse_rules(parse(await call.payload.read(), "LifecycleConfiguration"))
    await call.backend.configure(call.bucket_name, {"lifecycle": rules})
    return Response(200)


async def delete_lifecycle(call: Call) -> Response:
    await call.owned()
    await call.backend.configure(call.bucket_name, {"lifecycle": None})
    return Response(204)


# What there is not: the answer of a bucket that has none of it.
ABSENT = {
    "policy": "NoSuchBucketPolicy",
    "website": "NoSuchWebsiteConfiguration",
    "encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "replication": "ReplicationConfigurationNotFoundError",
}
EMPTY = {
    "notification": "NotificationConfiguration",
    "logging": "BucketLoggingStatus",
    "accelerate": "AccelerateConfiguration",
}


async def get_absent(call: Call) -> Response:
    bucket = await call.bucket(write=False)
    for name, code in ABSENT.items():
        if name in call.query:
            raise S3Error(code, BucketName=bucket.name)
    for name, root in EMPTY.items():
        if name in call.query:
            return xml_response(root, [])
    return xml_response("RequestPaymentConfiguration", [("Payer", "BucketOwner")])


async def delete_absent(call: Call) -> Response:
    """Deleting what was never there is done."""
    await call.owned()
    return Response(204)
