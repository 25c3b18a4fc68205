"""Requests to the upstream: a bounded pool of connections, a deadline on every wait, bodies past h11 both ways.

What goes wrong before the answer begins is S3's ServiceUnavailable; after that the answer ends early, and whoever reads
it sees that it did.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
import trio

from ...errors import ConfigError
from ...s3 import sign
from ..errors import S3Error

_RECEIVE = 1 << 18
_HEAD = 64 << 10  # bytes of an answer's head
_EXPECTED = 1 << 20  # bytes of a body from which on the upstream is asked first whether it wants it


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds. answer: for its first byte; long: of copies and completions, which some servers do before it."""

    room: float = 30  # for one of the connections
    connect: float = 10
    silence: float = 60  # in a body
    answer: float = 60
    long: float = 600
    go_on: float = 1  # for 100 Continue, after which the body is sent anyhow
    idle: float = 20  # of a connection between two requests


@dataclass(frozen=True, slots=True)
class Place:
    """Where the upstream is."""

    host: str
    port: int
    secure: bool

    @property
    def header(self) -> str:
        """Host, as it is signed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Place:
        """Raises ConfigError."""
        try:
            split = urlsplit(url)
            port = split.port
        except ValueError:
            raise ConfigError(f"upstream {url!r}: no URL") from None
        if split.username is not None or split.password is not None:
            raise ConfigError("upstream: no keys in the URL; give --upstream-key-file FILE")
        if split.scheme not in ("http", "https") or not split.hostname or split.path.strip("/") or split.query:
            raise ConfigError(f"upstream {url!r}: http://HOST:PORT or https://HOST, without a path")
        secure = split.scheme == "https"
        return cls(split.hostname, port or (443 if secure else 80), secure)


@dataclass(slots=True)
class Ask:
    """path, query: quoted, the query in canonical order. headers: lower-case names, all signed. digest: of the body, in
    hex, or what stands for it. body: whole, or pieces of ``length`` bytes in all, which end in an exception when they
    are wrong: the connection is then cut before its last byte."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] | None = None
    body: bytes | AsyncIterator[bytes | memoryview] = b""
    length: int = 0
    digest: str = sign.EMPTY
    long: bool = False
    begun: bool = False  # pieces have gone, which will not come again

    @property
    def repeatable(self) -> bool:
        return self.method != "POST" and not self.begun


class CutError(ConnectionError):
    """The upstream has ended an answer early, or says nothing more."""


class _Lost(Exception):
    """The connection ended before the answer began."""


class _Line:
    """One connection."""

    def __init__(self, stream: trio.abc.Stream, socket: trio.socket.SocketType) -> None:
        self.stream = stream
        self._socket = socket
        self.since = 0.0

    @property
    def quiet(self) -> bool:
        """Nothing has come that nobody asked for, the end of the connection above all."""
        return not self._socket.is_readable()

    def drop(self) -> None:
        self._socket.close()


class Answer:
    """status, headers: with lower-case names. length: of the body; None: it ends with its last chunk.

    Whoever asked closes it, read or not; the connection is used again when all of it was read.
    """

    def __init__(
        self,
        line: _Line,
        parser: h11.Connection,
        head: h11.Response,
        silence: float,
        done: Callable[[_Line, bool], None],
        *,
        bodiless: bool,
        broken: bool,
    ) -> None:
        self.status = head.status_code
        self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        named = dict(self.headers)
        chunked = "chunked" in named.get("transfer-encoding", "").lower()
        told = named.get("content-length", "")
        self.length: int | None = int(told) if told and not chunked else None
        self._left = 0 if bodiless else (math.inf if self.length is None else self.length)
        self._line = line
        self._parser = parser
        # What h11 has read of a body of known length; a chunked one it reads itself.
        self._buffer = b"" if chunked and not bodiless else parser.trailing_data[0]
        self._silence = silence
        self._done: Callable[[_Line, bool], None] | None = done
        keeps = head.http_version == b"1.1" and named.get("connection", "").lower() != "close"
        self._keeps = keeps and not broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._left:
            with trio.move_on_after(self._silence) as scope:
                data = await (self._chunk() if self.length is None else self._piece(int(self._left)))
            if scope.cancelled_caught:
                raise CutError("the upstream says nothing more")
            if data:
                yield data

    async def _piece(self, left: int) -> bytes:
        if self._buffer:
            data, self._buffer = self._buffer[:left], self._buffer[left:]
        else:
            data = await _receive(self._line, min(left, _RECEIVE))
        if not data:
            raise CutError("the upstream has ended an answer early")
        self._left -= len(data)
        return data

    async def _chunk(self) -> bytes:
        try:
            while (event := self._parser.next_event()) is h11.NEED_DATA:
                self._parser.receive_data(await _receive(self._line, _RECEIVE))
        except h11.RemoteProtocolError:
            raise CutError("the upstream has ended an answer early") from None
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self._left = 0
        return b""

    async def read(self, limit: int) -> bytes:
        """At most so many bytes. Raises CutError."""
        collected = bytearray()
        async for data in self:
            collected += data
            if len(collected) >= limit:
                break
        return bytes(collected[:limit])

    def close(self) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            surplus = self._buffer or (self.length is None and self._parser.trailing_data[0])
            done(self._line, self._keeps and not self._left and not surplus)


class Client:
    """For one key and one region."""

    def __init__(
        self,
        place: Place,
        keys: sign.Keys,
        region: str,
        context: ssl.SSLContext | None,
        *,
        waits: Waits | None = None,
        most: int = 64,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._place = place
        self._keys = keys
        self._region = region
        self._context = context
        self._waits = waits or Waits()
        self._room = trio.Semaphore(most)
        self._idle: list[_Line] = []
        self._clock = clock

    async def ask(self, ask: Ask) -> Answer:
        """Raises S3Error: ServiceUnavailable, SlowDown, and what the pieces of the body raise."""
        with trio.move_on_after(self._waits.room) as scope:
            await self._room.acquire()
        if scope.cancelled_caught:
            raise S3Error("SlowDown", headers=(("Retry-After", "5"),))
        try:
            return await self._attempt(ask)
        except BaseException:
            self._room.release()
            raise

    async def _attempt(self, ask: Ask) -> Answer:
        while True:
            line = self._waiting()
            fresh = line is None
            line = line or await self._connect()
            try:
                return await self._exchange(line, ask)
            except _Lost as error:
                line.drop()
                if fresh or not ask.repeatable:
                    raise unavailable(str(error)) from None
            except BaseException:
                line.drop()
                raise

    def _waiting(self) -> _Line | None:
        """A connection of before; those that have ended meanwhile are dropped."""
        now = trio.current_time()
        while self._idle:
            line = self._idle.pop()
            if line.quiet and now - line.since < self._waits.idle:
                return line
            line.drop()
        return None

    async def _connect(self) -> _Line:
        with trio.move_on_after(self._waits.connect):
            try:
                tcp = await trio.open_tcp_stream(self._place.host, self._place.port)
            except OSError:
                raise unavailable("no connection to it") from None
            if self._context is None:
                return _Line(tcp, tcp.socket)
            tls = trio.SSLStream(tcp, self._context, server_hostname=self._place.host, https_compatible=True)
            try:
                await tls.do_handshake()
            except (trio.BrokenResourceError, OSError) as error:
                tcp.socket.close()
                raise unavailable(f"TLS: {error.__cause__ or error}") from None
            except BaseException:
                tcp.socket.close()
                raise
            return _Line(tls, tcp.socket)
        raise unavailable("no connection to it in time")

    def close(self) -> None:
        """The connections that wait for a request."""
        while self._idle:
            self._idle.pop().drop()

    def _release(self, line: _Line, usable: bool) -> None:
        self._room.release()
        if usable:
            line.since = trio.current_time()
            self._idle.append(line)
        else:
            line.drop()

    def _head(self, ask: Ask) -> h11.Request:
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        signed = {**(ask.headers or {}), "host": self._place.header, "x-amz-date": when}
        signed["x-amz-content-sha256"] = ask.digest
        if self._keys.token:
            signed["x-amz-security-token"] = self._keys.token
        headers = [(name.encode(), value.encode()) for name, value in signed.items()]
        authorization = sign.authorization(self._keys, self._region, ask.method, ask.path, ask.query, signed)
        headers.append((b"authorization", authorization.encode()))
        if ask.length or ask.method in ("PUT", "POST"):
            headers.append((b"content-length", b"%d" % ask.length))
        if ask.length >= _EXPECTED:
            headers.append((b"expect", b"100-continue"))
        return h11.Request(method=ask.method, target=ask.path + ("?" + ask.query if ask.query else ""), headers=headers)

    async def _exchange(self, line: _Line, ask: Ask) -> Answer:
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
        data = parser.send(self._head(ask)) or b""
        head = None
        sent = await self._send(line, data)
        if sent and ask.length >= _EXPECTED:
            head = await self._response(line, parser, self._waits.go_on, early=True)
        delivered = sent and head is None and await self._send_body(line, ask)
        if head is None:
            head = await self._response(line, parser, self._waits.long if ask.long else self._waits.answer)
        assert head is not None
        bodiless = ask.method == "HEAD" or head.status_code in (204, 304)
        return Answer(line, parser, head, self._waits.silence, self._release, bodiless=bodiless, broken=not delivered)

    async def _send_body(self, line: _Line, ask: Ask) -> bool:
        """False: the upstream reads no more; it may have said why."""
        if isinstance(ask.body, bytes | bytearray):
            return not ask.body or await self._send(line, ask.body)
        ask.begun = True
        async for piece in ask.body:
            if not await self._send(line, piece):
                return False
        return True

    async def _send(self, line: _Line, data: bytes | memoryview) -> bool:
        with trio.move_on_after(self._waits.silence) as scope:
            try:
                await line.stream.send_all(data)
            except trio.BrokenResourceError:
                return False
        if scope.cancelled_caught:
            raise unavailable("it reads nothing")
        return True

    async def _response(
        self, line: _Line, parser: h11.Connection, limit: float, *, early: bool = False
    ) -> h11.Response | None:
        """early: None at 100 Continue, and when the limit has passed."""
        with trio.move_on_after(limit):
            try:
                while True:
                    event = parser.next_event()
                    if event is h11.NEED_DATA:
                        parser.receive_data(await _receive(line, _RECEIVE))
                    elif isinstance(event, h11.Response):
                        return event
                    elif early and isinstance(event, h11.InformationalResponse) and event.status_code == 100:
                        return None
                    elif not isinstance(event, h11.InformationalResponse):
                        raise _Lost("it has closed the connection")
            except h11.RemoteProtocolError:
                raise _Lost("it has closed the connection, or speaks no HTTP") from None
        if early:
            return None
        raise unavailable(f"no answer in {limit:g} s")


def unavailable(reason: str) -> S3Error:
    message = f"The store behind this gateway is not available: {reason}"
    return S3Error("ServiceUnavailable", message, headers=(("Retry-After", "5"),))


async def _receive(line: _Line, limit: int) -> bytes:
    """b"" at the end, however it came."""
    try:
        return bytes(await line.stream.receive_some(limit))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""
