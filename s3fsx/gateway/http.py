"""HTTP/1.1 for the gateway: h11 reads and writes the heads, bodies go past it.

Measured against Starlette on Hypercorn's trio worker, in pairs on two busy cores, 256 MiB and 100 bytes: GET 1.1 to 1.3
CPU-s/GiB there and 0.8 here, 0.2 to 0.3 with sendfile; PUT 6.4 to 7.4 and 2.9 to 3.3; a small request 1.2 ms and 0.24.
Every wait has a deadline; a connection holds at most one MiB of a body.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import time
from email.utils import formatdate
from http import HTTPStatus

import h11
import trio

from .connection import PIECE, RECEIVE, Connection, HttpBody, Limits
from .errors import S3Error
from .messages import Answers, FileRange, Request, Response, Stream
from .meter import Meter
from .render import error_response

log = logging.getLogger("s3fsx.gateway")

_DRAINED = 1 << 20  # bytes of a body that nobody wanted, for which a connection is kept
_LINGER, _SILENT = 10, 2  # seconds for which what comes is thrown away, so that the answer arrives
_PEER = {errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH}
_ids = itertools.count(1)


class Server:
    """answers: what a request is answered with; its exceptions are S3's InternalError."""

    def __init__(self, answers: Answers, limits: Limits | None = None, meter: Meter | None = None) -> None:
        self._answers = answers
        self._meter = meter or Meter("")
        self._limits = limits or Limits()
        self._room = trio.CapacityLimiter(self._limits.connections)
        self._idle: set[trio.CancelScope] = set()
        self._asked_nothing: dict[trio.CancelScope, None] = {}  # who waits for a head; the longest one first
        self._stopping = False
        self.stopped = trio.Event()

    async def serve(
        self,
        listeners: list[trio.abc.Listener[trio.abc.HalfCloseableStream]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Until ``stop``; then what is under way has ``grace`` seconds."""
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                self._accepting = accepting.cancel_scope
                for listener in listeners:
                    accepting.start_soon(self._accept, listener, connections)
                task_status.started()
            for scope in list(self._idle):
                scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + self._limits.grace
        self.stopped.set()

    def stop(self) -> None:
        self._stopping = True
        self._accepting.cancel()

    async def _accept(
        self, listener: trio.abc.Listener[trio.abc.HalfCloseableStream], connections: trio.Nursery
    ) -> None:
        """One connection more than there is room for: it takes the place of who has asked nothing for the longest time,
        so that peers without a key keep nobody out. While all are at work the kernel keeps the rest."""
        failing = False
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:  # no descriptors, no memory
                    if not failing:
                        log.warning("cannot accept connections: %s", error.strerror or error)
                    failing = True
                    await trio.sleep(0.1)
                    continue
                failing = False
                if not self._room.available_tokens and self._asked_nothing:
                    next(iter(self._asked_nothing)).cancel()
                try:
                    await self._room.acquire_on_behalf_of(stream)
                except trio.Cancelled:
                    await trio.aclose_forcefully(stream)
                    raise
                connections.start_soon(self._connected, stream)

    async def _connected(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._meter.accepted += 1
        self._meter.open += 1
        try:
            await self._converse(stream)
        except Exception as error:
            if not _gone(error):
                log.exception("a connection has failed")
        finally:
            self._meter.open -= 1
            self._room.release_on_behalf_of(stream)
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.HalfCloseableStream) -> None:
        socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        peer = _peer(stream)
        connection = Connection(stream, socket)
        limit = self._limits.head
        while True:
            parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)
            try:
                head = await self._head(connection, parser, limit)
            except (h11.RemoteProtocolError, ValueError) as error:  # ValueError: a length of 5000 digits, in old h11
                large = isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431
                code = "RequestHeaderSectionTooLarge" if large else "InvalidRequest"
                await self._refuse(stream, parser, S3Error(code, "The request is not valid HTTP/1.1."))
                return
            if head is None:
                return
            if sum(len(name) + len(value) for name, value in head.headers) + len(head.target) > self._limits.head_bytes:
                await self._refuse(stream, parser, S3Error("RequestHeaderSectionTooLarge"))
                return
            if _ambiguous(head):
                await self._refuse(stream, parser, S3Error("InvalidRequest", "The request is not valid HTTP/1.1."))
                return
            self._meter.in_flight += 1
            try:
                reusable = await self._exchange(connection, parser, head, peer)
            finally:
                self._meter.in_flight -= 1
            if not reusable or self._stopping:
                return
            if self._room.statistics().tasks_waiting and not connection.buffer:
                return
            limit = self._limits.idle

    async def _head(self, connection: Connection, parser: h11.Connection, limit: float) -> h11.Request | None:
        """None: the client has closed, or was too slow."""
        with trio.move_on_after(limit) as scope:
            self._idle.add(scope)
            self._asked_nothing[scope] = None
            try:
                while True:
                    event = parser.next_event()
                    if event is h11.NEED_DATA:
                        data = await connection.receive()
                        if data:
                            self._idle.discard(scope)
                            scope.deadline = min(scope.deadline, trio.current_time() + self._limits.head)
                        parser.receive_data(data)
                    elif isinstance(event, h11.Request):
                        connection.buffer = parser.trailing_data[0]
                        return event
                    else:
                        return None
            finally:
                self._idle.discard(scope)
                del self._asked_nothing[scope]
        return None

    async def _exchange(self, connection: Connection, parser: h11.Connection, head: h11.Request, peer: str) -> bool:
        """Whether the connection can be used again."""
        body = HttpBody(connection, parser, self._limits, head)
        if body.chunked:
            connection.buffer = b""  # h11 has it
        request = Request(
            f"{next(_ids):016X}",
            head.method.decode("ascii"),
            head.target,
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers],
            body,
            peer,
            connection.socket is None,
        )
        try:
            response = await self._answers(request)
        except Exception:
            log.exception("request %s has failed", request.id)
            response = error_response(S3Error("InternalError"), request.id)
        reusable = _persistent(head) and not self._stopping
        if not body.ended and not body.waiting and reusable:
            reusable = await self._drain(body)
        reusable = reusable and body.ended
        self._meter.received += body.received
        try:
            await self._send(connection, parser, head, request, response, reusable)
        finally:
            if isinstance(response.body, FileRange):
                os.close(response.body.descriptor)
            elif isinstance(response.body, Stream):
                response.body.close()
        if not reusable:
            await self._close(connection)
        return reusable

    @staticmethod
    async def _drain(body: HttpBody) -> bool:
        if body.length is not None and body.length - body.received > _DRAINED:
            return False
        try:
            with trio.move_on_after(2):
                async for _ in body:
                    if body.received > 2 * _DRAINED:
                        return False
        except (S3Error, RuntimeError):
            return False
        return body.ended

    async def _send(
        self,
        connection: Connection,
        parser: h11.Connection,
        head: h11.Request,
        request: Request,
        response: Response,
        reusable: bool,
    ) -> None:
        stream = connection.stream
        headers = [
            *response.headers,
            ("x-amz-request-id", request.id),
            ("x-amz-id-2", request.id),
            ("Server", "s3fsx"),
            ("Date", formatdate(time.time(), usegmt=True)),
        ]
        if not reusable:
            headers.append(("Connection", "close"))
        if response.later is not None:
            await self._send_later(stream, parser, headers, response, request.id)
            return
        length = len(response.body) if isinstance(response.body, bytes) else response.body.length
        if response.length >= 0:
            length = response.length
        if length is None:
            headers.append(("Transfer-Encoding", "chunked"))
        elif response.status not in (204, 304):
            headers.append(("Content-Length", str(length)))
        data = parser.send(_head_of(response.status, headers))
        assert data is not None
        if head.method == b"HEAD":
            await self._send_all(stream, data)
        elif isinstance(response.body, bytes):
            await self._send_all(stream, data + response.body)
        elif isinstance(response.body, Stream):
            await self._send_all(stream, data)
            await self._send_stream(stream, parser, response.body)
        else:
            await self._send_all(stream, data)
            try:
                await self._send_file(connection, response.body)
            except OSError as error:
                if error.errno not in _PEER:
                    log.warning("request %s could not be sent: %s", request.id, error.strerror or error)
                raise

    async def _send_later(
        self,
        stream: trio.abc.SendStream,
        parser: h11.Connection,
        headers: list[tuple[str, str]],
        response: Response,
        id: str,
    ) -> None:
        """The status is told before the outcome is known, as S3 does it; an error then stands in the body."""
        assert response.later is not None
        later = response.later
        outcome: list[bytes] = []

        async def run() -> None:
            try:
                outcome.append(await later())
            except S3Error as error:
                self._meter.failed(error.code)
                failed = error_response(error, id)
                assert isinstance(failed.body, bytes)
                outcome.append(failed.body)
            except Exception:
                log.exception("request %s has failed", id)
                self._meter.failed("InternalError")
                failed = error_response(S3Error("InternalError"), id)
                assert isinstance(failed.body, bytes)
                outcome.append(failed.body)
            done.set()

        done = trio.Event()
        headers.append(("Transfer-Encoding", "chunked"))
        first = parser.send(_head_of(response.status, headers))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await self._send_all(stream, first or b"")
            while not done.is_set():
                with trio.move_on_after(self._limits.patience):
                    await done.wait()
                if not done.is_set():
                    await self._send_all(stream, parser.send(h11.Data(data=b" ")) or b"")
        end = (parser.send(h11.Data(data=outcome[0])) or b"") + (parser.send(h11.EndOfMessage()) or b"")
        await self._send_all(stream, end)

    async def _send_all(self, stream: trio.abc.SendStream, data: bytes | memoryview) -> None:
        with trio.fail_after(self._limits.silence + len(data) / self._limits.slowest):
            await stream.send_all(data)
        self._meter.sent += len(data)

    async def _send_stream(self, stream: trio.abc.SendStream, parser: h11.Connection, body: Stream) -> None:
        async for piece in body.pieces:
            data = piece if body.length is not None else parser.send(h11.Data(data=piece)) or b""
            await self._send_all(stream, data)
        if body.length is None:
            await self._send_all(stream, parser.send(h11.EndOfMessage()) or b"")

    async def _send_file(self, connection: Connection, file: FileRange) -> None:
        at, end = file.first, file.first + file.length
        socket = connection.socket
        while at < end:
            if socket is None:
                data = await trio.to_thread.run_sync(os.pread, file.descriptor, min(PIECE, end - at), at)
                await self._send_all(connection.stream, data)
                done = len(data)
            else:
                done = await trio.to_thread.run_sync(_sendfile, socket.fileno(), file.descriptor, at, end - at)
                if done < 0:
                    with trio.fail_after(self._limits.silence):
                        await trio.lowlevel.wait_writable(socket)
                    continue
                self._meter.sent += done
            if not done:
                raise OSError("a file has become shorter while it was sent")
            at += done

    async def _refuse(self, stream: trio.abc.HalfCloseableStream, parser: h11.Connection, error: S3Error) -> None:
        response = error_response(error, f"{next(_ids):016X}")
        self._meter.answered("", response.status, 0)
        self._meter.failed(error.code)
        assert isinstance(response.body, bytes)
        headers = [*response.headers, ("Connection", "close"), ("Content-Length", str(len(response.body)))]
        data = parser.send(_head_of(response.status, headers))
        await self._send_all(stream, (data or b"") + response.body)
        await self._close(Connection(stream, None))

    @staticmethod
    async def _close(connection: Connection) -> None:
        """So that the answer arrives: closing with unread bytes in the socket would reset the connection."""
        with trio.move_on_after(_LINGER):
            if not isinstance(connection.stream, trio.SocketStream):
                await connection.stream.aclose()
                return
            await connection.stream.send_eof()
            data = b"?"
            while data:
                data = b""
                with trio.move_on_after(_SILENT):
                    data = await connection.receive(RECEIVE)


def _gone(error: BaseException) -> bool:
    """Whether it says no more than that the client has closed, or reads nothing."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_gone, error.exceptions))
    return isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError | trio.TooSlowError | OSError)


def _sendfile(socket: int, file: int, at: int, count: int) -> int:
    """-1: there is no room in the socket."""
    try:
        return os.sendfile(socket, file, at, min(count, 4 * PIECE))
    except BlockingIOError:
        return -1


def _head_of(status: int, headers: list[tuple[str, str]]) -> h11.Response:
    """With a reason: botocore waits for 100 Continue, and does not see a status without one."""
    encoded = [(name.encode("latin-1"), value.strip(" \t").encode("latin-1", "replace")) for name, value in headers]
    return h11.Response(status_code=status, headers=encoded, reason=HTTPStatus(status).phrase.encode())


def _ambiguous(head: h11.Request) -> bool:
    """What a proxy before this server might take for something else: two lengths, or no HTTP/1."""
    names = {name for name, _ in head.headers}
    if head.http_version not in (b"1.0", b"1.1"):
        return True
    return b"transfer-encoding" in names and (b"content-length" in names or head.http_version == b"1.0")


def _persistent(head: h11.Request) -> bool:
    connection = b",".join(value for name, value in head.headers if name == b"connection").lower()
    return head.http_version == b"1.1" and b"close" not in connection


def _peer(stream: trio.abc.HalfCloseableStream) -> str:
    inner = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    try:
        name = inner.socket.getpeername() if isinstance(inner, trio.SocketStream) else ""
    except OSError:
        return ""
    return str(name[0]) if isinstance(name, tuple) else "unix"
