"""What may come back over the wire: how long it may take, how large it may be, what it may not contain.

The libraries below trust the server. http.client limits each byte by the socket's timeout and not the answer, and skips
any number of "100 Continue"; botocore reads an answer to its end, whatever its size, and follows a redirect to another
region; expat expands entities. A store that does such things would hold our threads or fill our memory for ever.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import time
from collections.abc import Callable
from typing import Any

import botocore.awsrequest

from .s3errors import Redirected, Unusable

# Bytes of one answer that is not an object's data. The largest honest one is a listing of 1000 keys of 1024 bytes, each
# percent-encoded to 3072: 3.5 MiB.
MOST = 8 << 20
# An honest listing has up to 30 000 tags; ten times their bytes is what the parsed elements take.
MOST_TAGS = 200_000
_PIECE = 64 << 10
_LOCATION = "x-s3fsx-location"
# Of an answer of S3: nothing, or XML. Blanks come before and after the declaration while a copy takes its time.
_DOCUMENT = re.compile(rb"\s*(?:<\?xml[^>]*\?>\s*)?(?:<(?!html\b)[a-z]|$)", re.IGNORECASE)


class _Timed(io.RawIOBase):
    """A socket's reader that ends ``seconds`` from now, however busy the other side is. Raises TimeoutError."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, seconds: float) -> None:
        self._raw = raw
        self._sock = sock
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the answer did not end within {self._seconds:g} s")
        silence = self._sock.gettimeout()
        if silence is not None and silence <= left:
            return self._raw.readinto(buffer)
        self._sock.settimeout(left)
        try:
            return self._raw.readinto(buffer)
        finally:
            self._sock.settimeout(silence)  # urllib3 keeps the connection, and sends the next request with it

    def close(self) -> None:
        self._raw.close()
        super().close()


def limit_time(client: Any, seconds: Callable[[str], float]) -> None:
    """Every answer to the client ends within ``seconds(method)``, counted from the end of its request."""

    class Answer(http.client.HTTPResponse):
        def __init__(
            self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
        ) -> None:
            super().__init__(sock, debuglevel, method, url)
            raw: Any = self.fp.detach()
            self.fp = io.BufferedReader(_Timed(raw, sock, seconds(method or "")))

        def begin(self) -> None:
            super().begin()
            if where := self.headers["location"]:  # urllib3 would act on it before anybody else is asked
                del self.headers["location"]
                self.headers[_LOCATION] = where

    class Connection(botocore.awsrequest.AWSHTTPConnection):  # type: ignore[misc]  # botocore has no type information
        response_class = Answer

    class TlsConnection(botocore.awsrequest.AWSHTTPSConnection):  # type: ignore[misc]
        response_class = Answer

    class Pool(botocore.awsrequest.AWSHTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = Connection

    class TlsPool(botocore.awsrequest.AWSHTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = TlsConnection

    client._endpoint.http_session._pool_classes_by_scheme.update(http=Pool, https=TlsPool)


def limit_content(client: Any, *, redirects: bool) -> None:
    """Every answer but an object's data is at most MOST bytes and no document with a type (which S3 never sends, and
    which alone can define entities); with a good status it is XML and not HTML. redirects: botocore may look for the
    region of the bucket."""
    session = client._endpoint.http_session

    def send(request: Any, **_: Any) -> Any:
        data, request.stream_output = request.stream_output, True  # or the session reads all of it
        answer = session.send(request)
        if answer.status_code < 200:  # an interim answer, which http.client takes for the final one
            answer.raw.close()
            raise Unusable(f"status {answer.status_code}")
        if answer.status_code // 100 == 3 and not redirects:
            answer.raw.close()
            where = answer.headers.get(_LOCATION) or answer.headers.get("x-amz-bucket-region") or "somewhere else"
            raise Redirected(f"redirected ({answer.status_code}) to {where}, not followed: check endpoint and region")
        if not data or answer.status_code >= 300:
            body = _whole(answer.raw)
            if answer.status_code < 300 and not _DOCUMENT.match(body):  # a portal's page to log in, to anything we ask
                raise Unusable("it is no document of S3")
            answer.raw = _Read(body)
        return answer

    client.meta.events.register("before-send.s3", send)


class _Read:
    """A body that is here already, as botocore's AWSResponse wants it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> list[bytes]:
        return [self._body]


def _whole(raw: Any) -> bytes:
    """The body of an answer. Raises Unusable for one that must not come to the parser."""
    body = bytearray()
    for piece in raw.stream(_PIECE):
        body += piece
        if len(body) > MOST:
            raw.close()
            raise Unusable(f"more than {MOST >> 20} MiB")
    if b"\0" in body:  # UTF-16, in which the next test would find nothing: expat obeys a byte order mark
        raise Unusable("binary data")
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise Unusable("a document type definition in it")
    if body.count(b"<") > MOST_TAGS:
        raise Unusable(f"more than {MOST_TAGS} tags in it")
    return bytes(body)
