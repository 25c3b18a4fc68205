"""What may come back over the wire: how long it may take, how large it may be, what it may not contain.

The libraries below trust the server. http.client limits each byte by the socket's timeout and not the answer, and skips
any number of "100 Continue"; botocore reads an answer to its end, whatever its size, and follows a redirect to another
region; expat expands entities. A store that does such things would hold our threads or fill our memory for ever.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import botocore.awsrequest
import botocore.endpoint
import botocore.exceptions

from .connections import Connection, Connections
from .errors import Redirected, Unusable
from .http import Answer, AnswerIO, Plain, send
from .tls import TlsReuse

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

    def checked(request: Any, **_: Any) -> Any:
        data, request.stream_output = request.stream_output, True  # or the session reads all of it
        answer = session.send(request)
        check_content(answer, data=data, redirects=redirects)
        return answer

    client.meta.events.register("before-send.s3", checked)


def check_content(answer: Any, *, data: bool, redirects: bool) -> None:
    """See ``limit_content``. answer: botocore's, whose body is not read yet; afterwards only that of data is not."""
    if answer.status_code < 200:  # an interim answer, which http.client takes for the final one
        answer.raw.close()
        raise Unusable(f"status {answer.status_code}")
    if answer.status_code // 100 == 3 and not redirects:
        answer.raw.close()
        told = (answer.headers.get(name) for name in (_LOCATION, "location", "x-amz-bucket-region"))
        where = next(filter(None, told), "somewhere else")
        raise Redirected(f"redirected ({answer.status_code}) to {where}, not followed: check endpoint and region")
    if not data or answer.status_code >= 300:
        body = _whole(answer.raw)
        if answer.status_code < 300 and not _DOCUMENT.match(body):  # a portal's page to log in, to anything we ask
            raise Unusable("it is no document of S3")
        answer.raw = _Read(body)


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


class Unfit(Exception):
    """Here requests are botocore's to make; the text says why."""


class Shared:
    """The connections of all clients of one store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, tuple[Connections, Any]] = {}  # by URL; with the TLS context they have in common

    def of(self, session: Any, url: str) -> Connections:
        """Of the session of the client that asks first. Raises AttributeError, KeyError and TypeError where it is of
        another botocore."""
        known = session._manager.connection_pool_kw
        with self._lock:
            if url in self._made:
                connections, known["ssl_context"] = self._made[url]
                return connections
            pool = session._manager.connection_from_url(url)
            session._setup_ssl_cert(pool, url, session._verify)
            _ = pool._new_conn, pool._validate_conn

            def connect() -> Any:
                made = pool._new_conn()
                try:
                    pool._validate_conn(made)  # connects where it is TLS
                    if made.sock is None:
                        made.connect()
                except BaseException:
                    made.close()
                    raise
                return made

            context = known.get("ssl_context")
            tls = TlsReuse(context) if url.startswith("https:") else None
            connections = Connections(connect, tls)
            self._made[url] = connections, context
            return connections


class Wire:
    """A client's requests that are made without it, and its own reading of every answer that is not plain: what such
    an answer means is decided in one place.

    seconds(method), redirects: as for the limits above. interrupted: see Answer.read. Raises Unfit, where there is a
    proxy or botocore is another.
    """

    def __init__(
        self,
        client: Any,
        url: str,
        seconds: Callable[[str], float],
        shared: Shared,
        interrupted: Callable[[], None],
        *,
        redirects: bool,
    ) -> None:
        self._client = client
        self._url = url
        self._seconds = seconds
        self._interrupted = interrupted
        self.redirects = redirects
        try:
            session = client._endpoint.http_session
            if session._proxy_config.proxy_url_for(url):
                raise Unfit("there is a proxy")
            self._sending, self._silence = client.meta.config.connect_timeout, client.meta.config.read_timeout
            self._parse = client._response_parser.parse
            self.connections = shared.of(session, url)
        except (AttributeError, KeyError, TypeError) as error:
            raise Unfit(f"this version of botocore or urllib3 is another one: {error}") from None

    def ask(self, method: str, head: bytes, blocks: Iterable[bytes | memoryview]) -> Exchange:
        """Sends a request on an idle connection, or a new one, and reads the head of its answer. As with botocore an
        idle one that the store has closed is found out before, and if it closes just then, the request has failed."""
        connection = self.connections.take()
        exchange = Exchange(self.connections, connection, self._interrupted)
        try:
            connection.sock.settimeout(self._sending)
            send(connection.sock, head, blocks)
            exchange.answer = Answer(connection.sock, self._seconds(method), self._silence)
            exchange.plain = exchange.answer.head()
            if exchange.plain is None and not exchange.answer.came:
                self.connections.unanswered()
            self.connections.answered(connection)
        except BaseException as error:
            if isinstance(error, OSError):
                self.connections.unanswered()
            exchange.end(reuse=False)
            raise
        return exchange

    def connect(self) -> None:
        """An idle connection for the next request, which saves it a round trip, with TLS two or three."""
        self.connections.give(self.connections.take(), reuse=True)

    def in_full(
        self, exchange: Exchange, method: str, operation: str, parse: Callable[[bytes], dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """What botocore's client would return for this answer, or raise. The body of data is not read yet. parse: the
        document of a success, instead of botocore, unless it raises ValueError."""
        try:
            model = self._client.meta.service_model.operation_model(operation)
            answer = exchange.for_botocore(method, self._url)
            check_content(answer, data=model.has_streaming_output, redirects=self.redirects)
            if parse and answer.status_code == 200:
                with contextlib.suppress(ValueError):
                    meta = {"HTTPStatusCode": 200, "HTTPHeaders": answer.headers}
                    return parse(answer.content) | {"ResponseMetadata": meta}
            said = botocore.endpoint.convert_to_response_dict(answer, model)
            parsed: dict[str, Any] = self._parse(said, model.output_shape)
        except BaseException:
            exchange.end(reuse=False)
            raise
        if answer.status_code >= 300:
            raise botocore.exceptions.ClientError(parsed, operation)
        return parsed


class Exchange:
    """A request that was sent, and its answer. ``end`` gives the connection back; what is read to its end has ended.

    plain: the head, None where http.client has to read it.
    """

    def __init__(
        self,
        connections: Connections | None,
        connection: Connection | None,
        interrupted: Callable[[], None] = lambda: None,
    ) -> None:
        self._connections = connections
        self._connection = connection
        self._interrupted = interrupted
        self.answer: Answer
        self.plain: Plain | None = None

    def read(self, length: int) -> bytes:
        """The body, of a plain answer."""
        try:
            data = self.answer.read(length, self._interrupted)
        except BaseException:
            self.end(reuse=False)
            raise
        self.end(reuse=len(data) == length and not self.answer.came and self.plain is not None and self.plain.reusable)
        return data

    def end(self, *, reuse: bool) -> None:
        """reuse: the answer was read to its end, and the other side goes on. Harmless when repeated."""
        connection, self._connection = self._connection, None
        if connection is not None and self._connections is not None:
            self._connections.give(connection, reuse=reuse)

    def for_botocore(self, method: str, url: str) -> Any:
        """The answer as botocore's session would give it."""
        self.answer.unread_head()
        # Declared as a socket; nothing but its makefile is asked for.
        response = http.client.HTTPResponse(_Begun(self.answer), method=method)  # type: ignore[arg-type]
        response.begin()
        headers: dict[str, str] = {}
        for name, value in response.getheaders():
            name = name.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return botocore.awsrequest.AWSResponse(url, response.status, headers, _Raw(self, response))


class _Begun:
    """Of a socket, what http.client wants of it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(AnswerIO(self._answer))


class _Raw:
    """The body of an answer as botocore reads it."""

    def __init__(self, exchange: Exchange, response: http.client.HTTPResponse) -> None:
        self._exchange = exchange
        self._response = response

    def read(self, amount: int | None = None) -> bytes:
        try:
            data = self._response.read(amount)
        except BaseException:
            self.close()
            raise
        if self._response.isclosed():
            self._exchange.end(reuse=not self._response.will_close)
        return data

    def stream(self, size: int | None = None) -> Iterator[bytes]:
        while block := self.read(size):
            yield block

    def close(self) -> None:
        self._exchange.end(reuse=False)
