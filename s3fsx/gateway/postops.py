"""PostObject: an upload by an HTML form, whose policy is what was signed."""

from __future__ import annotations

import base64
import hmac
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from urllib.parse import quote, urlsplit, urlunsplit

from . import sigv4
from .accounts import NOT_SIGNED, Accounts, User
from .acl import WRITE
from .call import LARGEST_PUT, Call
from .detailops import tags_of
from .errors import S3Error
from .form import Parser, check_policy, policy_of
from .keynames import MAX_KEY
from .messages import Response
from .model import Object
from .objectops import described, version
from .payload import Payload
from .render import xml_response
from .xml import parse

_HEADERS = ("content-type", "cache-control", "content-disposition", "content-encoding", "expires", "content-md5")

_PREFIXES = tuple(f"x-amz-{n}" for n in ("meta-", "checksum-", "server-side", "object-lock-", "storage", "website"))


class _File:
    """The file of a form as the body of a request."""

    length: int | None = None
    chunked = False

    def __init__(self, parser: Parser, body: AsyncIterator[bytes], first: list[bytes], least: int, most: int) -> None:
        self._parser, self._body, self._first = parser, body, first
        self._least, self._most = least, most
        self.received = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._first:
            yield self._counted(piece)
        async for raw in self._body:
            for piece in self._parser.feed(raw):
                yield self._counted(piece)
        if not self._parser.ended:
            raise S3Error("IncompleteBody")
        if self.received < self._least:
            raise S3Error("EntityTooSmall", ProposedSize=str(self.received), MinSizeAllowed=str(self._least))

    def _counted(self, piece: bytes) -> bytes:
        self.received += len(piece)
        if self.received > self._most:
            raise S3Error("EntityTooLarge", ProposedSize=str(self.received), MaxSizeAllowed=str(self._most))
        return piece


async def post(call: Call, accounts: Callable[[], Accounts] | None, *, sigv2: bool) -> Response:
    """accounts: None: everybody may do all. Raises S3Error."""
    parser = Parser(call.headers.get("content-type", ""))
    body = aiter(call.request.body)
    first: list[bytes] = []
    while not parser.at_file:
        try:
            first += parser.feed(await anext(body))
        except StopAsyncIteration:
            message = "POST requires exactly one file upload per request."
            raise S3Error("InvalidArgument", message, ArgumentName="file") from None
    fields = {**parser.fields, "bucket": call.bucket_name}
    # Before the policy is asked: it speaks of the key as it will be.
    call.key = fields.get("key", "").replace("${filename}", parser.filename)
    if "key" in fields:
        fields["key"] = call.key
    least, most = 0, LARGEST_PUT
    if accounts is not None and call.acl and "policy" not in fields:
        call.user = NOT_SIGNED
    elif accounts is not None:
        call.user = _who(fields, accounts(), call, sigv2)
        least, most = check_policy(policy_of(fields["policy"]), fields, call.now)
    if not call.key:
        message = (
            "Bucket POST must contain a field named 'key'. If it is specified, please check the order of the fields."
        )
        raise S3Error("InvalidArgument", message, ArgumentName="key", ArgumentValue="")
    if len(call.key.encode()) > MAX_KEY:
        raise S3Error("KeyTooLongError")
    call.headers = _headers(fields)
    bucket = await call.bucket(write=True, grant=WRITE)
    wanted = described(call, bucket)
    if tagging := fields.get("tagging"):
        wanted = replace(wanted, tags=tags_of(parse(tagging.encode(), "Tagging"), 10))
    payload = Payload(_File(parser, body, first, least, most), call.headers, sigv4.UNSIGNED, None, limit=LARGEST_PUT)

    def finish(size: int) -> Object:
        kind = "FULL_OBJECT" if payload.checksum else ""
        return replace(
            wanted,
            size=size,
            etag=payload.etag,
            algorithm=payload.algorithm,
            checksum=payload.checksum,
            checksum_type=kind,
        )

    made = await call.backend.put(call.bucket_name, call.key, aiter(payload), finish, lambda _: None)
    headers = [("ETag", f'"{made.etag}"'), *version(bucket, made)]
    return _answer(call, fields, made.etag, headers)


def _headers(fields: dict[str, str]) -> dict[str, str]:
    """Those of a PUT that says the same; their text is UTF-8 in a form."""
    named = {"acl": "x-amz-acl"}
    return {
        named.get(name, name): value.encode().decode("latin-1")
        for name, value in fields.items()
        if name in _HEADERS or name in named or name.startswith(_PREFIXES)
    }


def _who(fields: dict[str, str], accounts: Accounts, call: Call, sigv2: bool) -> User:
    """By the signature of the policy. Raises S3Error."""
    if "policy" not in fields:
        raise S3Error("AccessDenied")
    policy = fields["policy"].encode()
    if "awsaccesskeyid" in fields:
        if not sigv2:
            raise S3Error("InvalidRequest", f"Signature version 2 is not supported. Please use {sigv4.ALGORITHM}.")
        access, given = fields["awsaccesskeyid"], _needed(fields, "signature")
        user, secret = _known(accounts, access)
        wanted = base64.b64encode(hmac.digest(secret.encode(), policy, "sha1")).decode()
    else:
        if _needed(fields, "x-amz-algorithm") != sigv4.ALGORITHM:
            raise S3Error("InvalidArgument", f"x-amz-algorithm only supports {sigv4.ALGORITHM}")
        access, _, scope = _needed(fields, "x-amz-credential").partition("/")
        given, stamp = _needed(fields, "x-amz-signature"), _needed(fields, "x-amz-date")
        if scope != f"{stamp[:8]}/{call.region}/s3/aws4_request":
            message = f"The scope of x-amz-credential is wrong; expecting {stamp[:8]}/{call.region}/s3/aws4_request"
            raise S3Error("AuthorizationHeaderMalformed", message, Region=call.region)
        user, secret = _known(accounts, access)
        key = sigv4.signing_key(secret, stamp[:8], call.region, "s3")
        wanted = hmac.digest(key, policy, "sha256").hex()
    if not sigv4.matches(wanted, given):
        raise S3Error("SignatureDoesNotMatch", AWSAccessKeyId=access)
    return user


def _known(accounts: Accounts, access: str) -> tuple[User, str]:
    found = accounts.find(access)
    if found is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access)
    return found


def _needed(fields: dict[str, str], name: str) -> str:
    if not fields.get(name):
        raise S3Error("InvalidArgument", f"Bucket POST must contain a field named '{name}'.", ArgumentName=name)
    return fields[name]


def _answer(call: Call, fields: dict[str, str], etag: str, headers: list[tuple[str, str]]) -> Response:
    scheme = "https" if call.request.secure else "http"
    host = next((value for name, value in call.request.headers if name == "host"), "")
    location = f"{scheme}://{host}/{call.bucket_name}/{quote(call.key)}"
    try:
        split = urlsplit(fields.get("success_action_redirect") or fields.get("redirect") or "")
    except ValueError:  # no URL; what was uploaded is there
        split = urlsplit("")
    if split.scheme in ("http", "https") and split.netloc:
        more = f"bucket={quote(call.bucket_name)}&key={quote(call.key, safe='')}&etag={quote(chr(34) + etag + chr(34))}"
        target = urlunsplit(split._replace(query=f"{split.query}&{more}" if split.query else more))
        return Response(303, [*headers, ("Location", quote(target, safe=":/?&=%#+,;@!$'()*~[]"))])
    headers = [*headers, ("Location", quote(location, safe=":/%"))]
    status = fields.get("success_action_status", "204")
    if status == "201":
        nodes = [("Location", location), ("Bucket", call.bucket_name), ("Key", call.key), ("ETag", f'"{etag}"')]
        answer = xml_response("PostResponse", nodes)
        return replace(answer, status=201, headers=[*answer.headers, *headers])
    return Response(200 if status == "200" else 204, headers)
