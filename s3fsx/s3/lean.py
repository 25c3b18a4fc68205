"""The requests there are many of, made without botocore's model: one costs 0.4 ms of CPU instead of 3.4.

boto3 stays what decides: whose credentials, which host, path or host style, which region. It is asked once, by a
request that it signs and does not send; and it reads every answer that is not a plain success, so that an error is the
same error. Where the situation is not a usual one (``Unfit``) all requests stay with it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from .body import BLOCK
from .http import Plain, head_of
from .params import Params
from .sign import ALGORITHM, EMPTY, UNSIGNED, Keys, authorization, query_string, quoted_key
from .wire import Exchange, Unfit, Wire
from .xml import listing, next_token

# Parameters of botocore, and the header or query parameter each becomes.
_REQUEST_HEADERS = {
    "Range": "range",
    "IfMatch": "if-match",
    "IfNoneMatch": "if-none-match",
    "ChecksumCRC32": "x-amz-checksum-crc32",
    "StorageClass": "x-amz-storage-class",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
}
_QUERY = {"UploadId": "uploadId", "PartNumber": "partNumber"}
_LIST_QUERY = {
    "Prefix": "prefix",
    "MaxKeys": "max-keys",
    "EncodingType": "encoding-type",
    "Delimiter": "delimiter",
    "ContinuationToken": "continuation-token",
}
_OTHERS = {"Bucket", "Key", "Body", "Metadata"}
_ANSWER_HEADERS = {
    "etag": "ETag",
    "content-range": "ContentRange",
    "x-amz-storage-class": "StorageClass",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-customer-algorithm": "SSECustomerAlgorithm",
}
_METADATA = "x-amz-meta-"
# Status and whether the body is said to be empty, by method.
_SUCCESS = {
    "GET": {(200, False), (200, True), (206, False)},
    "HEAD": {(200, False), (200, True)},
    "PUT": {(200, True)},
    "DELETE": {(204, False), (204, True), (200, True)},
}
_AUTHORIZATION = re.compile(rf"{ALGORITHM} Credential=[^,]*/[0-9]{{8}}/([^/,]+)/s3/aws4_request,")
_TEXT = re.compile(r"[!-~]+(?: [!-~]+)*")  # ASCII without blanks at its ends, or two together
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")

log = logging.getLogger("s3fsx.s3lean")


@dataclass(frozen=True, slots=True)
class Place:
    """Where boto3 sends requests for objects of one bucket. root: the path before the key, with its "/" """

    scheme: str
    host: str
    root: str
    region: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.root}"

    @property
    def bucket_path(self) -> str:
        return self.root.rstrip("/") or "/"


def learn(sent_to: str, authorization: str, key: str) -> Place:
    """From the URL and header of a request that boto3 has signed, for an object of this key. Raises Unfit."""
    url = urlsplit(sent_to)
    said = _AUTHORIZATION.match(authorization)
    if said is None or url.query:
        raise Unfit("requests are signed in another way")
    if not url.hostname or not url.path.endswith("/" + key):
        raise Unfit("the bucket is of another kind")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    if url.port and url.port != {"http": 80, "https": 443}[url.scheme]:
        host += f":{url.port}"
    return Place(url.scheme, host, url.path.removesuffix(key), said[1])


class _Stopped(Exception):
    """Before it was sent."""


def signed_by_boto3(client: Any, bucket: str, key: str) -> tuple[str, str]:
    """URL and Authorization of a request for an object, which is not sent. (A URL signed for others to use is no help:
    of most regions of Amazon it names another host.) Raises Unfit, and what boto3 raises."""
    mine = threading.get_ident()

    def stop(request: Any, operation_name: str, **_: Any) -> None:
        if threading.get_ident() == mine:
            raise _Stopped(request.url, request.headers.get("Authorization", ""))

    client.meta.events.register_last("request-created.s3", stop)  # which is where it is signed
    try:
        client.head_object(Bucket=bucket, Key=key)
    except _Stopped as stopped:
        return stopped.args[0], stopped.args[1]
    finally:
        client.meta.events.unregister("request-created.s3", stop)
    raise Unfit("boto3 cannot be asked where it sends requests")


class LeanClient:
    """A boto3 client whose ``get_object``, ``head_object``, ``put_object``, ``upload_part``, ``delete_object`` and
    ``list_objects_v2`` are made here. They take and return what boto3's do, as far as anybody here asks for it.

    credentials: boto3's, None where it has found none. wire(url): raises Unfit. sign_payload: else it goes unsigned.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        credentials: Callable[[], Any],
        wire: Callable[[str], Wire],
        *,
        sign_payload: bool,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._credentials = credentials
        self._make_wire = wire
        self._sign_payload = sign_payload
        self._agent = str(client.meta.config.user_agent)
        self._learning = threading.Lock()
        self._lean: tuple[Place, Wire] | None = None
        self._unfit = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def connect(self) -> None:
        """An idle connection for the next request, if there is none. Raises what connecting raises."""
        lean = self._learnt()
        if lean is not None:
            lean[1].connect()

    def close(self) -> None:
        """Idle connections, those that it shares, too."""
        self._client.close()
        if self._lean is not None:
            self._lean[1].connections.close()

    def get_object(self, **params: Any) -> Params:
        return self._do("get_object", "GetObject", "GET", params)

    def head_object(self, **params: Any) -> Params:
        return self._do("head_object", "HeadObject", "HEAD", params)

    def put_object(self, **params: Any) -> Params:
        return self._do("put_object", "PutObject", "PUT", params)

    def upload_part(self, **params: Any) -> Params:
        return self._do("upload_part", "UploadPart", "PUT", params)

    def delete_object(self, **params: Any) -> Params:
        return self._do("delete_object", "DeleteObject", "DELETE", params)

    def list_objects_v2(self, *, early: Callable[[str], object] | None = None, **params: Any) -> Params:
        """early: is told the token of the next page before this one is parsed, which takes as long as asking for it."""
        lean, keys = self._learnt(), self._keys()
        if lean is None or keys is None or params.keys() - _LIST_QUERY.keys() != {"Bucket"}:
            return self._by_boto3("list_objects_v2", params)
        place, wire = lean
        query = {_LIST_QUERY[name]: str(value) for name, value in params.items() if name in _LIST_QUERY}
        exchange = self._ask(place, wire, keys, "GET", place.bucket_path, query | {"list-type": "2"}, {}, b"")
        if exchange.plain is not None and self._moved(exchange.plain, place, wire):
            exchange.end(reuse=False)
            return self._by_boto3("list_objects_v2", params)
        return wire.in_full(exchange, "GET", "ListObjectsV2", partial(_listing, early) if early else listing)

    def _do(self, name: str, operation: str, method: str, params: Params) -> Params:
        lean, keys = self._learnt(), self._keys()
        headers = _request_headers(params, self._bucket)
        if lean is None or keys is None or headers is None:
            return self._by_boto3(name, params)
        place, wire = lean
        body = params.get("Body", b"")
        query = {_QUERY[name]: str(value) for name, value in params.items() if name in _QUERY}
        path = place.root + quoted_key(params["Key"])
        exchange = self._ask(place, wire, keys, method, path, query, headers, body)
        answer = _plain_answer(method, exchange)
        if answer is not None:
            return answer
        if exchange.plain is not None and self._moved(exchange.plain, place, wire):
            exchange.end(reuse=False)
            if not isinstance(body, bytes):
                body.seek(0)
            return self._by_boto3(name, params)
        return wire.in_full(exchange, method, operation)

    def _ask(
        self,
        place: Place,
        wire: Wire,
        keys: Keys,
        method: str,
        path: str,
        parameters: dict[str, str],
        headers: dict[str, str],
        body: Any,
    ) -> Exchange:
        query = query_string(parameters)
        headers |= {
            "host": place.host,
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "x-amz-content-sha256": _sha256(body) if self._sign_payload else UNSIGNED,
        }
        if keys.token:
            headers["x-amz-security-token"] = keys.token
        headers["authorization"] = authorization(keys, place.region, method, path, query, headers)
        headers |= {"user-agent": self._agent, "accept-encoding": "identity"}
        if method in ("PUT", "DELETE"):
            headers["content-length"] = str(len(body))
        head = head_of(method, f"{path}?{query}" if query else path, headers)
        return wire.ask(method, head, _blocks(body))

    def _by_boto3(self, name: str, params: Params) -> Params:
        answer: Params = getattr(self._client, name)(**params)
        return answer

    def _learnt(self) -> tuple[Place, Wire] | None:
        with self._learning:
            if self._lean is None and not self._unfit:
                try:
                    if ":" in self._bucket or self._bucket.endswith("--x-s3"):
                        raise Unfit("the bucket is of another kind")  # an access point, a directory bucket
                    if self._client.meta.config.signature_version != "s3v4":
                        raise Unfit("requests are signed in another way")
                    place = learn(*signed_by_boto3(self._client, self._bucket, "k"), "k")
                    self._lean = place, self._make_wire(place.url)
                except Unfit as error:
                    self._give_up(str(error))
                except Exception as error:  # without credentials, for example: its own request says it better
                    log.debug("not learnt yet where requests go: %s", type(error).__name__)
            return self._lean

    def _give_up(self, why: str) -> None:
        if not self._unfit:
            log.info("all requests are made by boto3, which takes more CPU: %s", why)
        self._unfit, self._lean = True, None

    def _keys(self) -> Keys | None:
        found = self._credentials()
        if found is None:
            return None
        frozen = found.get_frozen_credentials()  # fetches new ones when they expire
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)

    def _moved(self, plain: Plain, place: Place, wire: Wire) -> bool:
        """Amazon says that the bucket is elsewhere; boto3 looks for it."""
        region = plain.headers.get("x-amz-bucket-region", place.region)
        if plain.status not in (301, 302, 307) and (plain.status != 400 or region == place.region):
            return False
        if not wire.redirects:
            return False
        self._give_up(f"the bucket is in region {region}")
        return True


def _listing(early: Callable[[str], object], body: bytes) -> Params:
    token = next_token(body)
    if token:
        early(token)
    return listing(body)


class _Body:
    """Of a plain answer, as botocore's StreamingBody."""

    def __init__(self, exchange: Exchange, length: int) -> None:
        self._exchange = exchange
        self._length = length

    def read(self, _: int | None = None) -> bytes:
        """All of it, however much was asked for."""
        return self._exchange.read(self._length)

    def close(self) -> None:
        self._exchange.end(reuse=False)


def _request_headers(params: Params, bucket: str) -> dict[str, str] | None:
    """None where botocore knows better what the parameters mean."""
    if params["Bucket"] != bucket or not params["Key"]:
        return None
    headers = {}
    for name, value in params.items():
        if name in _REQUEST_HEADERS:
            headers[_REQUEST_HEADERS[name]] = value
        elif name == "Metadata":
            headers |= {_METADATA + key.lower(): text for key, text in value.items()}
        elif name not in _QUERY and name not in _OTHERS:
            return None
    fit = all(isinstance(value, str) and _TEXT.fullmatch(value) for value in headers.values())
    return headers if fit and all(map(_TOKEN.fullmatch, headers)) else None


def _plain_answer(method: str, exchange: Exchange) -> Params | None:
    """As botocore would return it; None for an answer that is not a plain success."""
    plain = exchange.plain
    if plain is None or (plain.status, plain.length == 0) not in _SUCCESS[method]:
        return None
    headers = plain.headers
    answer: Params = {name: headers[header] for header, name in _ANSWER_HEADERS.items() if header in headers}
    answer["ResponseMetadata"] = {"HTTPStatusCode": plain.status, "HTTPHeaders": headers}
    if method in ("GET", "HEAD"):
        if plain.length is None:
            return None
        answer["ContentLength"] = plain.length
    if method == "GET":
        answer["Body"] = _Body(exchange, plain.length or 0)
        return answer
    if method == "HEAD":
        answer["Metadata"] = {n.removeprefix(_METADATA): v for n, v in headers.items() if n.startswith(_METADATA)}
        if "last-modified" in headers:
            try:
                answer["LastModified"] = parsedate_to_datetime(headers["last-modified"])
            except (ValueError, TypeError, OverflowError):
                return None
    exchange.end(reuse=plain.reusable and not exchange.answer.came)
    return answer


def _sha256(body: Any) -> str:
    """Leaves it at its beginning."""
    if not body:
        return EMPTY
    digest = hashlib.sha256()
    for block in _blocks(body):
        digest.update(block)
    if not isinstance(body, bytes):
        body.seek(0)
    return digest.hexdigest()


def _blocks(body: Any) -> Iterator[bytes | memoryview]:
    if isinstance(body, bytes):
        yield body
        return
    while block := body.read(BLOCK):
        yield block
