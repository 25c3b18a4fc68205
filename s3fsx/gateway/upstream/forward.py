"""What the gateway does with a request when another S3 keeps the objects: it passes it on, where the user may ask it.

Nothing is translated but who asks. So ranges, conditions, versions, uploads, locks are what the upstream makes of them,
conditions are evaluated there with the change, and what it lacks it says itself. Here are kept: users, the owners of
buckets, the verification of bodies, and the answers about the upstream's own key, which is no business of a client.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import trio

from ...s3 import sign
from .. import attributes, bucketops, buckets, listops
from ..backend import Buckets
from ..call import Call
from ..errors import S3Error
from ..messages import Response, Stream
from ..model import Bucket
from ..sigv4 import UNSIGNED_TRAILER
from ..xml import Node, Tree, document, parse
from . import passing
from .client import Answer, Ask, Client, CutError, unavailable
from .owners import Owners

log = logging.getLogger("s3fsx.gateway")

_READ, _WRITE, _OWN = "read", "write", "own"
_OF_BUCKET = {
    **{("GET", sub): _READ for sub in ("", "versioning", "object-lock", "tagging", "lifecycle", "acl", "versions")},
    **{("GET", sub): _READ for sub in ("uploads", *bucketops.ABSENT, *bucketops.EMPTY)},
    **{("GET", sub): _READ for sub in ("requestPayment", "ownershipControls", "cors", "publicAccessBlock")},
    ("POST", "delete"): _WRITE,
    **{("PUT", sub): _OWN for sub in ("versioning", "object-lock", "tagging", "lifecycle", "acl")},
    **{("DELETE", sub): _OWN for sub in ("", "tagging", "lifecycle")},
}
_OF_OBJECT = {
    **{("GET", sub): _READ for sub in ("", "tagging", "acl", "retention", "legal-hold", "attributes", "uploadId")},
    ("HEAD", ""): _READ,
    **{("PUT", sub): _WRITE for sub in ("", "tagging", "acl", "retention", "legal-hold", "uploadId")},
    **{("DELETE", sub): _WRITE for sub in ("", "tagging", "uploadId")},
    **{("POST", sub): _WRITE for sub in ("uploads", "uploadId")},
}
# What tells a region: the gateway's is another one than the upstream's.
_REGIONAL = {("HEAD", ""): bucketops.head, ("GET", "location"): bucketops.get_location}
# Of the upstream's answers: about the gateway's key and its clock, not about the client's.
_OURS = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "InvalidToken", "ExpiredToken"),
    *("AuthorizationHeaderMalformed", "InvalidSecurity", "AccountProblem", "NotSignedUp", "RequestExpired"),
}
_ERROR = 64 << 10  # bytes of an error's document that are read
_LIST = 8 << 20  # of a ListBuckets
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Forward(Buckets):
    """region: of the upstream. trailers: it takes checksums in trailers."""

    def __init__(self, client: Client, owners: Owners, region: str, *, trailers: bool) -> None:
        self._client = client
        self._owners = owners
        self._region = region
        self._trailers = trailers
        self._creating = trio.Lock()

    def claim(self) -> None:
        """As of ``Owners``."""
        self._owners.claim()

    def release(self) -> None:
        self._owners.release()

    async def keep_connected(self) -> None:
        """Asks once, so that a wrong key or address is told at once; it may become right without a new start. Closes
        the connections when it is cancelled."""
        try:
            try:
                await self.buckets()
            except S3Error as error:
                log.warning("the upstream was asked for its buckets: %s", error)
            await trio.sleep_forever()
        finally:
            self._client.close()

    async def bucket(self, name: str) -> Bucket:
        """Whether there is one the upstream says itself, when it is asked for what is in it."""
        if not buckets.valid(name):
            raise S3Error("NoSuchBucket", BucketName=name)
        return Bucket(name, 0, self._owners.of(name))

    async def buckets(self) -> Sequence[Bucket]:
        found: list[Bucket] = []
        token = ""
        while True:
            query = sign.query_string({"continuation-token": token}) if token else ""
            tree = await self._document(Ask("GET", "/", query), "ListAllMyBucketsResult")
            listed = tree.one("Buckets")
            for element in listed.all("Bucket") if listed is not None else ():
                name = element.text("Name")
                found.append(Bucket(name, _nanoseconds(element.text("CreationDate", "")), self._owners.of(name)))
            token = tree.text("ContinuationToken", "")
            if not token:
                return sorted(found, key=lambda bucket: bucket.name)

    async def _document(self, ask: Ask, root: str) -> Tree:
        answer = await self._client.ask(ask)
        try:
            body = await answer.read(_LIST)
        except CutError as error:
            raise unavailable(str(error)) from None
        finally:
            answer.close()
        if answer.status != 200:
            raise _refused(answer.status, _code(body))
        try:
            return parse(body, root)
        except S3Error:
            raise unavailable("its answer is no document of S3") from None

    async def __call__(self, call: Call, sub: str) -> Response:
        """sub: what selects the operation in the query. Raises S3Error."""
        if not call.bucket_name:
            return await listops.list_buckets(call)
        if not call.key and not sub and call.method == "PUT":
            return await self._create(call)
        if not call.key and (call.method, sub) in _REGIONAL:
            await self._head_bucket(await call.bucket(write=False))
            return await _REGIONAL[call.method, sub](call)
        needed = (_OF_OBJECT if call.key else _OF_BUCKET).get((call.method, sub))
        if needed is None:
            raise S3Error("NotImplemented", "This operation does not go through this gateway.")
        await (call.owned() if needed == _OWN else call.bucket(write=needed == _WRITE))
        if needed != _READ:
            passing.refuse(call.headers)
        if sub == "acl" and needed != _READ and "x-amz-acl" not in call.headers:  # that one is private, or refused
            raise S3Error("NotImplemented", attributes.NO_LISTS)
        response = await self._pass(call, sub)
        if not call.key and not sub and call.method == "DELETE" and response.status == 204:
            await trio.to_thread.run_sync(self._owners.remove, call.bucket_name)
        return response

    async def _create(self, call: Call) -> Response:
        await bucketops.check_create(call)
        async with self._creating:
            owner = self._owners.of(call.bucket_name)
            if await self._exists(Bucket(call.bucket_name, 0, owner)):
                return bucketops.again(call, owner)
            configuration: list[Node] = [("LocationConstraint", self._region)]
            body = document("CreateBucketConfiguration", configuration) if self._region != "us-east-1" else b""
            lock = "x-amz-bucket-object-lock-enabled"
            headers = {lock: call.headers[lock]} if lock in call.headers else {}
            digest = hashlib.sha256(body).hexdigest()
            ask = Ask("PUT", f"/{call.bucket_name}", "", headers, body, len(body), digest)
            response = await self._answered(await self._client.ask(ask), "PUT")
            if response.status != 200:
                return response
            _dispose(response)
            await trio.to_thread.run_sync(self._owners.add, call.bucket_name, call.user.name)
        return Response(200, (("Location", f"/{call.bucket_name}"),))

    async def _exists(self, bucket: Bucket) -> bool:
        try:
            await self._head_bucket(bucket)
        except S3Error as error:
            if error.code == "NoSuchBucket":
                return False
            if error.code != "AccessDenied":  # somebody else's
                raise
        return True

    async def _head_bucket(self, bucket: Bucket) -> None:
        """Raises S3Error: NoSuchBucket, AccessDenied, ServiceUnavailable."""
        answer = await self._client.ask(Ask("HEAD", f"/{bucket.name}"))
        answer.close()
        if answer.status != 200:
            codes = {404: "NoSuchBucket", 403: "AccessDenied", 301: "AccessDenied"}
            raise _refused(answer.status, codes.get(answer.status, ""))

    async def _pass(self, call: Call, sub: str) -> Response:
        copied = "x-amz-copy-source" in call.headers and call.method == "PUT" and sub in ("", "uploadId")
        source = await call.source() if copied else None
        headers = passing.headers_of(call.headers, source)
        if sub == "acl" and call.method == "PUT":
            headers["x-amz-acl"] = "private"
        path, query = passing.path_of(call.bucket_name, call.key), passing.query_of(sub, call.query)
        ask = Ask(call.method, path, query, headers)
        ask.long = source is not None or (call.method, sub) == ("POST", "uploadId")
        if call.key and call.method == "PUT" and sub in ("", "uploadId") and source is None:
            call.payload.need_length()
            await self._with_payload(ask, headers, call)
        elif call.method in ("PUT", "POST"):
            body = await call.payload.read()
            ask.body, ask.length, ask.digest = body, len(body), hashlib.sha256(body).hexdigest()
            if body:  # DeleteObjects and object lock must have it, and nothing minds it
                headers["content-md5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
                headers.setdefault("content-type", "application/xml")
        return await self._answered(await self._client.ask(ask), call.method)

    async def _with_payload(self, ask: Ask, headers: dict[str, str], call: Call) -> None:
        """A small body is compared with all that was said of it before it goes on; of a large one the last piece is."""
        payload = call.payload
        pieces = aiter(payload)
        first = await anext(pieces, b"")
        second = await anext(pieces, None) if first else None
        claimed = call.headers.get("x-amz-content-sha256", "")
        ask.digest = claimed if _SHA256.fullmatch(claimed) else sign.UNSIGNED
        ask.length = payload.length or 0
        by_header = payload.wanted is not None and payload.wanted.algorithm.header in headers
        if second is None:
            ask.body = first
            if payload.wanted is not None and payload.checksum:
                headers[payload.wanted.algorithm.header] = payload.checksum
        elif payload.wanted is not None and self._trailers and not by_header:
            framed = passing.Framed(ask.length, payload.wanted.algorithm)
            headers["x-amz-decoded-content-length"] = str(ask.length)
            headers["x-amz-trailer"] = payload.wanted.algorithm.header
            headers["content-encoding"] = ",".join(filter(None, ("aws-chunked", headers.get("content-encoding", ""))))
            ask.digest, ask.length = UNSIGNED_TRAILER, framed.length
            ask.body = _framed(_late(first, second, pieces), framed, call)
        else:
            ask.body = _late(first, second, pieces)

    async def _answered(self, answer: Answer, method: str) -> Response:
        if answer.status >= 300 and answer.status != 304:
            try:
                return await self._failed(answer, method)
            finally:
                answer.close()
        headers = passing.answer_headers(answer.headers)
        if method == "HEAD" or answer.status in (204, 304):
            answer.close()
            return Response(answer.status, headers, length=answer.length or 0)
        return Response(answer.status, headers, Stream(aiter(answer), answer.length, answer.close))

    @staticmethod
    async def _failed(answer: Answer, method: str) -> Response:
        headers = passing.answer_headers(answer.headers)
        if method == "HEAD":
            if answer.status < 400:
                raise _refused(answer.status, "")
            return Response(answer.status, headers)
        try:
            body = await answer.read(_ERROR)
        except CutError as error:
            raise unavailable(str(error)) from None
        code = _code(body)
        if not code or code in _OURS or answer.status < 400:
            raise _refused(answer.status, code)
        return Response(answer.status, headers, body)


def _dispose(response: Response) -> None:
    if isinstance(response.body, Stream):
        response.body.close()


async def _late(first: bytes, second: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """One piece behind: the last one comes when all has been compared."""
    yield first
    held = second
    async for piece in rest:
        yield held
        held = piece
    yield held


async def _framed(
    pieces: AsyncIterator[bytes], framed: passing.Framed, call: Call
) -> AsyncIterator[bytes | memoryview]:
    async for piece in pieces:
        for data in framed.feed(piece):
            yield data
    yield framed.end(call.payload.checksum)


def _code(body: bytes) -> str:
    """ "": no document of S3."""
    try:
        return parse(body, "Error").text("Code", "")
    except S3Error:
        return ""


def _refused(status: int, code: str) -> S3Error:
    """Of what no client can do anything about; also of errors where the gateway itself has asked."""
    if code in ("NoSuchBucket", "AccessDenied", "SlowDown"):
        return S3Error(code)
    log.warning("the upstream refuses the gateway's requests: status %d %s", status, code)
    return unavailable(f"it refuses the gateway's requests with status {status} {code}".rstrip())


def _nanoseconds(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return 0
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()) * 10**9
