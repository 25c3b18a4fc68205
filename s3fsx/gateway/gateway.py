"""The gateway: who asks, what for, and whether that is allowed; then the operation, and a line in the access log."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from . import aclops, bucketops, corsops, detailops, listops, objectops, postops, sigv2, sigv4, uploadops
from .accounts import NOT_SIGNED, Accounts, User
from .backend import Buckets
from .browsers import refuse_foreign
from .call import LARGEST_PUT, Call
from .checksums import HEADERS
from .errors import S3Error
from .keynames import MAX_KEY
from .messages import Request, Response
from .meter import Meter
from .opnames import name_of
from .payload import Payload
from .render import error_response
from .target import Target, of_host, parse
from .xml import LIMIT

log = logging.getLogger("s3fsx.gateway")

Operation = Callable[[Call], Awaitable[Response]]
Forward = Callable[[Call, str], Awaitable[Response]]
AccessLog = Callable[[Request, str, str, str, Response, float], None]

NOBODY = User("nobody", admin=True)  # with --no-auth
FORM = User("form", read_only=True)  # until the form says who signed its policy

# What selects an operation in the query; all else is a parameter of it.
# fmt: off
_SUBRESOURCES = (
    "accelerate", "acl", "analytics", "attributes", "cors", "delete", "encryption", "intelligent-tiering",
    "inventory", "legal-hold", "lifecycle", "location", "logging", "metadataConfiguration", "metadataTable",
    "metrics", "notification", "object-lock", "ownershipControls", "policy", "policyStatus", "publicAccessBlock",
    "renameObject", "replication", "requestPayment", "restore", "retention", "select", "session", "tagging",
    "torrent", "uploadId", "uploads", "versioning", "versions", "website", "abac",
)
# fmt: on

_BUCKET: dict[tuple[str, str], Operation] = {
    ("PUT", ""): bucketops.create,
    ("HEAD", ""): bucketops.head,
    ("DELETE", ""): bucketops.delete,
    ("GET", "location"): bucketops.get_location,
    ("GET", "versioning"): bucketops.get_versioning,
    ("PUT", "versioning"): bucketops.put_versioning,
    ("GET", "object-lock"): bucketops.get_lock,
    ("PUT", "object-lock"): bucketops.put_lock,
    ("GET", "tagging"): bucketops.get_tagging,
    ("PUT", "tagging"): bucketops.put_tagging,
    ("DELETE", "tagging"): bucketops.delete_tagging,
    ("GET", "lifecycle"): bucketops.get_lifecycle,
    ("PUT", "lifecycle"): bucketops.put_lifecycle,
    ("DELETE", "lifecycle"): bucketops.delete_lifecycle,
    ("GET", "cors"): corsops.get,
    ("PUT", "cors"): corsops.put,
    ("DELETE", "cors"): corsops.delete,
    ("GET", "acl"): aclops.get_of_bucket,
    ("PUT", "acl"): aclops.put_of_bucket,
    ("GET", "ownershipControls"): aclops.get_ownership,
    ("PUT", "ownershipControls"): aclops.put_ownership,
    ("DELETE", "ownershipControls"): aclops.delete_ownership,
    ("GET", "publicAccessBlock"): aclops.get_block,
    ("PUT", "publicAccessBlock"): aclops.put_block,
    ("DELETE", "publicAccessBlock"): aclops.delete_block,
    ("GET", "policyStatus"): aclops.get_policy_status,
    ("GET", "versions"): listops.list_versions,
    ("GET", "uploads"): uploadops.list_uploads,
    ("POST", "delete"): objectops.delete_many,
    **{("GET", name): bucketops.get_absent for name in (*bucketops.ABSENT, *bucketops.EMPTY)},
    ("GET", "requestPayment"): bucketops.get_absent,
    **{("DELETE", name): bucketops.delete_absent for name in ("policy", "website", "encryption", "replication")},
}
_OBJECT: dict[tuple[str, str], Operation] = {
    ("PUT", ""): objectops.put,
    ("GET", ""): objectops.get,
    ("HEAD", ""): objectops.head,
    ("DELETE", ""): objectops.delete,
    ("GET", "tagging"): detailops.get_tagging,
    ("PUT", "tagging"): detailops.put_tagging,
    ("DELETE", "tagging"): detailops.delete_tagging,
    ("GET", "acl"): aclops.get_of_object,
    ("PUT", "acl"): aclops.put_of_object,
    ("GET", "retention"): detailops.get_retention,
    ("PUT", "retention"): detailops.put_retention,
    ("GET", "legal-hold"): detailops.get_legal_hold,
    ("PUT", "legal-hold"): detailops.put_legal_hold,
    ("GET", "attributes"): detailops.get_attributes,
    ("POST", "uploads"): uploadops.create,
    ("GET", "uploadId"): uploadops.list_parts,
    ("POST", "uploadId"): uploadops.complete,
    ("DELETE", "uploadId"): uploadops.abort,
    ("PUT", "uploadId"): uploadops.put_part,
}
_STREAMED = (objectops.put, uploadops.put_part)


class Gateway:
    """accounts: asked at each request, so that a new key works at once. None: whoever comes may do everything.

    place: a Backend, on which the operations are done; or the buckets of a place that requests are passed on to, by
    ``forward``, which is given what selects the operation in the query.
    """

    def __init__(
        self,
        place: Buckets,
        accounts: Callable[[], Accounts] | None,
        region: str,
        domains: Sequence[str] = (),
        access_log: AccessLog | None = None,
        clock: Callable[[], float] = time.time,
        sigv2: bool = False,
        acl: bool = False,
        meter: Meter | None = None,
        forward: Forward | None = None,
    ) -> None:
        self._place = place
        self._forward = forward
        self._accounts = accounts
        self._region = region
        self._domains = [domain.lower() for domain in domains]
        self._access_log = access_log
        self._clock = clock
        self._sigv2 = sigv2
        self._acl = acl
        self._meter = meter

    async def __call__(self, request: Request) -> Response:
        began = time.monotonic()
        user, operation, code, resource = "", "", "", request.target.partition(b"?")[0].decode("latin-1")
        try:
            if request.method == "OPTIONS":
                operation = "Preflight"
                headers = joined(request)
                bucket = parse(request.target, headers.get("host", ""), self._domains).bucket
                response = await corsops.preflight(self._place, bucket, headers)
            else:
                call, operation, run = self._read(request)
                user = call.user.name
                response = await run(call)
        except S3Error as error:
            code = error.code
            response = error_response(error, request.id, resource)
        except Exception:
            log.exception("request %s has failed", request.id)
            code = "InternalError"
            response = error_response(S3Error(code), request.id, resource)
        if any(name == "origin" for name, _ in request.headers) and request.method != "OPTIONS":
            response = await self._across_origins(request, response)
        seconds = time.monotonic() - began
        if self._access_log is not None:
            self._access_log(request, user, operation, self._region, response, seconds)
        if self._meter is not None:
            self._meter.answered(operation, response.status, seconds)
            if code:
                self._meter.failed(code)
        return response

    async def _across_origins(self, request: Request, response: Response) -> Response:
        headers = joined(request)
        try:
            bucket = parse(request.target, headers.get("host", ""), self._domains).bucket
        except S3Error:
            return response
        if not bucket:
            return response
        return await corsops.told(self._place, bucket, request.method, headers, response)

    def _read(self, request: Request) -> tuple[Call, str, Operation]:
        headers = joined(request)
        target = parse(request.target, headers.get("host", ""), self._domains)
        form = is_form(request.method, target, headers)
        if self._accounts is None:
            refuse_foreign(headers, self._domains)
        if form:
            user, claimed, seed = FORM if self._accounts is not None else NOBODY, sigv4.UNSIGNED, None
        else:
            user, claimed, seed = self._who(request, headers, target)
        query = target.query
        if len(target.key.encode()) > MAX_KEY:
            raise S3Error("KeyTooLongError", Size=str(len(target.key.encode())), MaxSizeAllowed=str(MAX_KEY))
        name, operation = ("PostObject", self._post) if form else choose(request.method, target, query, headers)
        sub = "form" if form else subresource(target, query)
        limit = LARGEST_PUT if operation in _STREAMED else LIMIT
        of_body = headers
        if operation is uploadops.complete:  # its checksum is that of the object
            of_body = {name: value for name, value in headers.items() if name not in HEADERS}
        payload = Payload(request.body, of_body, claimed, seed, limit=limit)
        call = Call(
            request,
            target.bucket,
            target.key,
            query,
            headers,
            user,
            payload,
            self._place,
            self._region,
            self._clock(),
            self._acl,
            self._is_user,
        )
        if (forward := self._forward) is not None:
            return call, name, lambda call: forward(call, sub)
        return call, name, operation

    def _who(self, request: Request, headers: dict[str, str], target: Target) -> tuple[User, str, sigv4.Seed | None]:
        """The user, the payload's hash as it was signed, and the seed of signed chunks."""
        if self._accounts is None:
            return NOBODY, headers.get("x-amz-content-sha256", sigv4.UNSIGNED), None
        asked = sigv4.Asked(request.method, target.path, target.pairs, request.headers)
        old = sigv2.claim_of(asked) if self._sigv2 else None
        if old is not None:
            user, secret = self._known(old.access)
            raw = request.target.partition(b"?")[0].decode("latin-1")
            in_host = of_host(headers.get("host", ""), self._domains)
            sigv2.verify(asked, old, f"/{in_host}{raw}" if in_host else raw, secret, self._clock())
            return user, headers.get("x-amz-content-sha256", sigv4.UNSIGNED), None
        claim = sigv4.claim_of(asked)
        if claim is None:
            if self._acl:
                return NOT_SIGNED, headers.get("x-amz-content-sha256", sigv4.UNSIGNED), None
            raise S3Error("AccessDenied")
        user, secret = self._known(claim.access)
        seed = sigv4.verify(asked, claim, secret, self._region, self._clock())
        return user, claim.payload, seed

    async def _post(self, call: Call) -> Response:
        return await postops.post(call, self._accounts, sigv2=self._sigv2)

    def _is_user(self, name: str) -> bool:
        return self._accounts is not None and name in self._accounts().users

    def _known(self, access: str) -> tuple[User, str]:
        found = self._accounts().find(access) if self._accounts is not None else None
        if found is None:
            raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access)
        return found


def joined(request: Request) -> dict[str, str]:
    """Headers by name, values of the same name joined by commas."""
    headers: dict[str, str] = {}
    for name, value in request.headers:
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def is_form(method: str, target: Target, headers: Mapping[str, str]) -> bool:
    """An upload by an HTML form, which has its signature in a field."""
    kind = headers.get("content-type", "").lower()
    return method == "POST" and bool(target.bucket) and not target.key and kind.startswith("multipart/form-data")


def subresource(target: Target, query: Mapping[str, str]) -> str:
    """What selects the operation; "": the object or bucket itself."""
    chosen = [name for name in _SUBRESOURCES if name in query]
    if target.key and "uploadId" in chosen:
        return "uploadId"
    return chosen[0] if chosen else ""


def choose(method: str, target: Target, query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, Operation]:
    """The operation and its name. Raises S3Error: MethodNotAllowed, NotImplemented."""
    if not target.bucket:
        if method == "GET":
            return "ListBuckets", listops.list_buckets
        raise S3Error("MethodNotAllowed", Method=method, ResourceType="SERVICE")
    sub = subresource(target, query)
    table = _OBJECT if target.key else _BUCKET
    if not target.key and method == "GET" and not sub:
        v2 = query.get("list-type") == "2"
        return ("ListObjectsV2", listops.list_v2) if v2 else ("ListObjects", listops.list_v1)
    if target.key and method == "PUT" and sub == "uploadId" and "partNumber" not in query:
        raise S3Error("InvalidArgument", "This operation needs a partNumber", ArgumentName="partNumber")
    if target.key and method == "PUT" and "x-amz-copy-source" in headers:
        if sub == "uploadId":
            return "UploadPartCopy", uploadops.copy_part
        if not sub:
            return "CopyObject", objectops.copy
    found = table.get((method, sub))
    if found is not None:
        return name_of(method, bool(target.key), sub), found
    if not sub and method not in ("POST", "PUT", "GET", "HEAD", "DELETE"):
        raise S3Error("MethodNotAllowed", Method=method)
    if sub or method == "POST":
        raise S3Error("NotImplemented", "This operation is not implemented.")
    raise S3Error("MethodNotAllowed", Method=method)
