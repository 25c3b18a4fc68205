"""One connection, and the body of a request on it: at most one MiB of it in memory, a deadline on every wait."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

import h11
import trio

from .errors import S3Error

PIECE = 1 << 20
RECEIVE = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes, connections."""

    head_bytes: int = 32 << 10
    head: float = 30
    idle: float = 120  # between two requests
    silence: float = 60  # of a client in a body
    slowest: int = 1024  # bytes a second over the whole body, after ``silence``
    connections: int = 512
    grace: float = 30  # to end what is under way
    patience: float = 10  # after which white space keeps a client waiting


class Connection:
    """One stream. ``buffer`` is what came and was not read yet."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, socket: trio.socket.SocketType | None) -> None:
        self.stream = stream
        self.socket = socket  # None with TLS: sendfile and recv_into are of no use there
        self.buffer = b""

    async def receive(self, limit: int = RECEIVE) -> bytes:
        if self.buffer:
            data, self.buffer = self.buffer[:limit], self.buffer[limit:]
            return data
        try:
            return bytes(await self.stream.receive_some(limit))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""


class HttpBody:
    """chunked: by Transfer-Encoding, which h11 reads."""

    def __init__(self, connection: Connection, parser: h11.Connection, limits: Limits, head: h11.Request) -> None:
        headers = dict(head.headers)
        self.chunked = b"transfer-encoding" in headers
        length = headers.get(b"content-length")
        self.length = int(length) if length is not None and not self.chunked else None
        self._left = self.length or 0
        self._connection = connection
        self._parser = parser
        self._limits = limits
        self._expects = headers.get(b"expect", b"").lower() == b"100-continue"
        self._began = math.inf
        self.received = 0
        self.ended = not self.chunked and not self._left
        self.waiting = self._expects and not self.ended  # the client may have sent nothing yet

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.ended:
            return
        if self.waiting:
            self.waiting = False
            await self._connection.stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._began = trio.current_time()
        while not self.ended:
            piece = await (self._chunk() if self.chunked else self._piece())
            if piece:
                yield piece

    def _deadline(self) -> float:
        now = trio.current_time()
        allowed = self._limits.silence + self.received / self._limits.slowest
        return min(now + self._limits.silence, self._began + allowed)

    async def _receive(self, limit: int) -> bytes:
        with trio.CancelScope(deadline=self._deadline()):
            data = await self._connection.receive(limit)
            if not data:
                raise S3Error("IncompleteBody")
            self.received += len(data)
            return data
        raise S3Error("RequestTimeout")

    async def _piece(self) -> bytes:
        size = min(self._left, PIECE)
        piece = bytearray(size)
        view, at = memoryview(piece), 0
        while at < size:
            if self._connection.socket is not None and not self._connection.buffer:
                with trio.CancelScope(deadline=self._deadline()) as scope:
                    try:
                        done = await self._connection.socket.recv_into(view[at:])
                    except OSError:
                        done = 0
                if scope.cancelled_caught:
                    raise S3Error("RequestTimeout")
                if not done:
                    raise S3Error("IncompleteBody")
                self.received += done
                at += done
            else:
                data = await self._receive(size - at)
                view[at : at + len(data)] = data
                at += len(data)
        self._left -= size
        self.ended = not self._left
        view.release()
        return piece  # type: ignore[return-value]  # bytes-like; a copy of it would cost 0.1 CPU-s/GiB

    async def _chunk(self) -> bytes:
        collected = bytearray()
        while len(collected) < PIECE:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError:
                raise S3Error("IncompleteBody") from None
            if event is h11.NEED_DATA:
                self._parser.receive_data(await self._receive(RECEIVE))
            elif isinstance(event, h11.Data):
                collected += event.data
            else:
                self.ended = True
                self._connection.buffer = self._parser.trailing_data[0]
                break
        return bytes(collected)
