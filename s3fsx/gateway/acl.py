"""Access control lists: who is granted what, in headers, in XML, and asked by a request. Pure.

By "Access control list (ACL) overview" of the Amazon S3 user guide. A grantee is the name of a user or the URI of a
group; only a URI has a slash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from .errors import S3Error
from .model import Bucket, Object
from .xml import Node, Tree, grantee, group_grantee

Grant = tuple[str, str]  # grantee, permission
Grants = tuple[Grant, ...]
READ, WRITE, READ_ACP, WRITE_ACP, FULL = "READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL"
_GROUPS = "http://acs.amazonaws.com/groups/global/"
ALL, AUTHENTICATED = f"{_GROUPS}AllUsers", f"{_GROUPS}AuthenticatedUsers"
ANONYMOUS = "65a011a29cdf8ec533ec3d1ccaae921c"  # Amazon's id of whoever has not signed
ENFORCED, PREFERRED, WRITER = "BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"
_MOST = 100  # grants
HEADER = "x-amz-grant-"
_HEADERS = {"read": READ, "write": WRITE, "read-acp": READ_ACP, "write-acp": WRITE_ACP, "full-control": FULL}
_PART = re.compile(r'\s*(id|uri|emailaddress)\s*=\s*(?:"([^"]*)"|([^",\s]+))\s*', re.IGNORECASE)
_CANNED: Mapping[str, Sequence[Grant]] = {
    "private": (),
    "public-read": ((ALL, READ),),
    "public-read-write": ((ALL, READ), (ALL, WRITE)),
    "authenticated-read": ((AUTHENTICATED, READ),),
}
Known = Callable[[str], bool]  # whether there is such a user


def canned(name: str, owner: str, bucket_owner: str) -> Grants:
    """Raises S3Error."""
    mine = (owner, FULL)
    if name in _CANNED:
        return (mine, *_CANNED[name])
    if name in ("bucket-owner-read", "bucket-owner-full-control"):
        more = (bucket_owner, READ if name == "bucket-owner-read" else FULL)
        return (mine,) if bucket_owner == owner else (mine, more)
    if name in ("aws-exec-read", "log-delivery-write"):
        raise S3Error("NotImplemented", Header="x-amz-acl")
    raise S3Error("InvalidArgument", ArgumentName="x-amz-acl", ArgumentValue=name)


def of_headers(headers: Mapping[str, str], owner: str, bucket_owner: str, known: Known) -> Grants | None:
    """None: they say nothing. Raises S3Error."""
    named = headers.get("x-amz-acl")
    given = [(permission, headers[HEADER + name]) for name, permission in _HEADERS.items() if HEADER + name in headers]
    if named is not None:
        if given:
            raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
        return canned(named, owner, bucket_owner)
    if not given:
        return None
    grants = []
    for permission, text in given:
        for part in text.split(","):
            found = _PART.fullmatch(part)
            if found is None:
                raise S3Error("InvalidArgument", "Argument format not recognized", ArgumentValue=part)
            kind, value = found[1].lower(), found[2] if found[2] is not None else found[3]
            grants.append((_checked(kind, value, known), permission))
    return tuple(grants)


def of_document(tree: Tree, owner: str, known: Known) -> Grants:
    """Raises S3Error."""
    told = tree.one("Owner")
    if told is not None and told.text("ID", owner) != owner:
        raise S3Error("AccessDenied")
    listed = tree.one("AccessControlList")
    if listed is None:
        raise S3Error("MalformedACLError")
    grants = []
    for element in listed.all("Grant"):
        who, permission = element.one("Grantee"), element.text("Permission")
        if who is None or permission not in (*_HEADERS.values(),):
            raise S3Error("MalformedACLError")
        kind = next((name for name in ("ID", "URI", "EmailAddress") if who.one(name) is not None), "ID")
        grants.append((_checked(kind.lower(), who.text(kind), known), permission))
    if len(grants) > _MOST:
        raise S3Error("MalformedACLError")
    return tuple(grants)


def _checked(kind: str, value: str, known: Known) -> str:
    if kind == "emailaddress":  # users here have none
        raise S3Error("UnresolvableGrantByEmailAddress")
    if kind == "uri":
        if value not in (ALL, AUTHENTICATED):
            raise S3Error("InvalidArgument", "Invalid group uri", ArgumentName="uri", ArgumentValue=value)
    elif "/" in value or not known(value):
        raise S3Error("InvalidArgument", "Invalid id", ArgumentName="CanonicalUser/ID", ArgumentValue=value)
    return value


def nodes(owner: str, grants: Grants) -> list[Node]:
    """Of an AccessControlPolicy."""
    listed: list[Node] = [
        ("Grant", [group_grantee(who) if "/" in who else grantee(who), ("Permission", permission)])
        for who, permission in grants
    ]
    return [("Owner", [("ID", owner), ("DisplayName", owner)]), ("AccessControlList", listed)]


def of_bucket(bucket: Bucket) -> Grants:
    stored = bucket.settings.get("acl")
    return ((bucket.owner, FULL),) if stored is None else tuple((who, permission) for who, permission in stored)


def of_object(found: Object, bucket: Bucket) -> Grants:
    if found.acl is None or ownership(bucket) == ENFORCED:
        return ((found.owner or bucket.owner, FULL),)
    return found.acl


def ownership(bucket: Bucket) -> str:
    return str(bucket.settings.get("ownership", WRITER))


def public(grants: Grants) -> bool:
    return any(who in (ALL, AUTHENTICATED) for who, _ in grants)


def blocks(bucket: Bucket, what: str) -> bool:
    return bool((bucket.settings.get("public_access_block") or {}).get(what))


def permits(bucket: Bucket, grants: Grants, user: str, permission: str) -> bool:
    """Whether the list of the bucket or of an object of it gives the user so much."""
    if ownership(bucket) == ENFORCED:
        return False
    mine = set() if user == ANONYMOUS else {user}  # what somebody unknown has written is not everybody's
    if not blocks(bucket, "IgnorePublicAcls"):
        mine |= {ALL} if user == ANONYMOUS else {ALL, AUTHENTICATED}
    return any(who in mine and given in (permission, FULL) for who, given in grants)


def check_public(bucket: Bucket, grants: Grants) -> None:
    """Raises S3Error where the bucket lets no list be public."""
    if public(grants) and blocks(bucket, "BlockPublicAcls"):
        raise S3Error("AccessDenied", "The bucket's public access block forbids public access control lists.")


def chosen(headers: Mapping[str, str], bucket: Bucket, owner: str, known: Known) -> tuple[str, Grants | None]:
    """(owner, list) of an object to be written. Raises S3Error."""
    rule = ownership(bucket)
    if rule == ENFORCED:
        refuse(headers)
        return bucket.owner, None
    if rule == PREFERRED and headers.get("x-amz-acl") == "bucket-owner-full-control":
        return bucket.owner, None
    grants = of_headers(headers, owner, bucket.owner, known)
    if grants is not None:
        check_public(bucket, grants)
    return owner, grants


def refuse(headers: Mapping[str, str]) -> None:
    """Where lists have no meaning. Raises S3Error: AccessControlListNotSupported."""
    granting = any(name.startswith(HEADER) for name in headers)
    if granting or headers.get("x-amz-acl", "bucket-owner-full-control") != "bucket-owner-full-control":
        raise S3Error("AccessControlListNotSupported")
