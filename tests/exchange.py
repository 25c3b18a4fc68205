"""One request and its answer on their way through the fault proxy, step by step, over blocking sockets.

Bodies stream in pieces of 64 KiB. An answer without Content-Length (a chunked listing) is read whole and passed on
with one, so that every body has a length and "half of it" a meaning.
"""

from __future__ import annotations

import random
import select
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn
from urllib.parse import parse_qs, unquote, urlsplit

PIECE = 64 << 10
MOST_HEAD = 256 << 10  # bytes
MOST_CHUNKED = 16 << 20  # bytes; listings, never objects
_NO_LINGER = struct.pack("ii", 1, 0)


class Hangup(Exception):
    """The client's connection is over."""


class Wire:
    """A socket that is read through a buffer. ``gate`` is called around every use and may block (a black hole)."""

    def __init__(self, sock: socket.socket, gate: Callable[[], None] = lambda: None) -> None:
        self.sock = sock
        self._gate = gate
        self._buffer = b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def some(self, most: int) -> bytes:
        """1 to ``most`` bytes, b"" at the end."""
        if not self._buffer:
            self._gate()
            self._buffer = self.sock.recv(PIECE)
            self._gate()
        data, self._buffer = self._buffer[:most], self._buffer[most:]
        return data

    def until(self, mark: bytes, most: int) -> bytes:
        """Up to and with ``mark``; b"" when the other side has ended before it."""
        found = b""
        while mark not in found:
            data = self.some(most)
            if not data or len(found) > most:
                return b""
            found += data
        end = found.index(mark) + len(mark)
        self._buffer = found[end:] + self._buffer
        return found[:end]

    def pieces(self, length: int) -> Iterator[bytes]:
        while length:
            data = self.some(min(length, PIECE))
            if not data:
                raise Hangup
            length -= len(data)
            yield data

    def chunked(self) -> bytes:
        body = b""
        while size := int(self.until(b"\r\n", 100).split(b";")[0], 16):
            body += b"".join(self.pieces(size))
            self.until(b"\r\n", 2)
            assert len(body) < MOST_CHUNKED
        self.until(b"\r\n", 2)
        return body

    def send(self, data: bytes) -> None:
        self._gate()
        self.sock.sendall(data)

    def idle_and_open(self) -> bool:
        """No end and no left-over bytes: it may carry another request."""
        return not self._buffer and not _readable(self.sock, 0)

    def reset(self) -> None:
        """RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.sock.close()


@dataclass(frozen=True)
class Head:
    """Start line and header fields, in the order and case they came in: they are signed."""

    start: str
    fields: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, wire: Wire) -> Head | None:
        """None when the other side has ended."""
        text = wire.until(b"\r\n\r\n", MOST_HEAD).decode("latin-1")
        if not text:
            return None
        start, *lines = text[:-4].split("\r\n")
        return cls(start, tuple((n, v.strip()) for n, _, v in (line.partition(":") for line in lines)))

    def get(self, name: str) -> str:
        return next((value for n, value in self.fields if n.lower() == name.lower()), "")

    def without(self, *names: str) -> Head:
        return replace(self, fields=tuple((n, v) for n, v in self.fields if n.lower() not in names))

    def with_length(self, length: int) -> Head:
        bare = self.without("content-length", "transfer-encoding")
        return replace(bare, fields=(*bare.fields, ("Content-Length", str(length))))

    @property
    def length(self) -> int:
        return int(self.get("content-length") or 0)

    def encode(self) -> bytes:
        return "\r\n".join((self.start, *(f"{n}: {v}" for n, v in self.fields), "", "")).encode("latin-1")


def kind_of(method: str, key: str, query: Mapping[str, object], *, copies: bool) -> str:
    """The operation, as ``s3server.KINDS`` names it."""
    if not key:
        if method == "POST" and "delete" in query:
            return "DELETE MANY"
        return {"GET": "LIST UPLOADS" if "uploads" in query else "LIST"}.get(method, f"{method} BUCKET")
    if "uploads" in query:
        return "CREATE UPLOAD"
    if "partNumber" in query and method == "PUT":
        return "COPY PART" if copies else "PUT PART"
    if "uploadId" in query:
        return {"POST": "COMPLETE", "DELETE": "ABORT", "GET": "LIST PARTS"}[method]
    return "COPY" if method == "PUT" and copies else method


@dataclass(frozen=True)
class Request:
    head: Head
    method: str
    bucket: str
    key: str
    kind: str

    @classmethod
    def of(cls, head: Head) -> Request:
        method, target, _ = head.start.split(" ")
        parts = urlsplit(target)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        return cls(head, method, bucket, key, kind_of(method, key, query, copies=bool(head.get("x-amz-copy-source"))))


class Exchange:
    """What a fault has to work with. A fault calls some of these in turn, or none.

    wait: blocks until the fault's rule is removed. connect: a connection to the store, kept from one request to the
    next by the proxy.
    """

    def __init__(
        self,
        request: Request,
        client: Wire,
        connect: Callable[[], Wire],
        rng: random.Random,
        wait: Callable[[], None],
    ) -> None:
        self.request = request
        self.rng = rng
        self.wait = wait
        self._client = client
        self._connect = connect
        self._store: Wire | None = None
        self._unread = request.head.length

    # -- the request

    def drain(self) -> None:
        """Read the request's body and throw it away."""
        for data in self._client.pieces(self._unread):
            self._unread -= len(data)

    def forward(self, *, share: float = 1.0, flip: int | None = None, without: tuple[str, ...] = ()) -> None:
        """Send the request on: the first ``share`` of its body, with one bit of byte ``flip`` inverted; without some
        headers, which a store that looks at signatures refuses."""
        self._store = self._connect()
        self._store.send(self.request.head.without("expect", *without).encode())
        self._relay(self._client, self._store, int(self._unread * share), flip)
        self._unread -= int(self._unread * share)

    # -- the answer

    def answer(self) -> Head:
        """The store's answer up to its body."""
        assert self._store is not None
        while True:
            head = Head.read(self._store)
            if head is None:
                raise Hangup
            if not head.start.split(" ")[1].startswith("1"):
                return head

    def swallow(self) -> None:
        """Read the store's answer and tell nobody."""
        head, body = self._framed(self.answer())
        assert self._store is not None
        if body is None:
            for _ in self._store.pieces(self._length(head)):
                pass

    def pass_on(self, *, share: float = 1.0, flip: float | None = None, adapt: bool = False) -> None:
        """Read the store's answer and send it to the client: the first ``share`` of its body, with one bit inverted in
        the byte at ``flip`` of its length; ``adapt``: with the Content-Length of what is sent."""
        assert self._store is not None
        head, body = self._framed(self.answer())
        whole = self._length(head)
        length = int(whole * share)
        self._client.send((head.with_length(length) if adapt and whole else head).encode())
        position = None if flip is None or not whole else int(flip * whole)
        if body is None:
            self._relay(self._store, self._client, length, position)
            for _ in self._store.pieces(whole - length):
                pass
        else:
            self._client.send(_flipped(body, position)[:length])

    def pass_edited(self, edit: Callable[[Head, bytes], tuple[Head, bytes]]) -> None:
        """Read the store's answer, and send what ``edit`` makes of it, with its length."""
        assert self._store is not None
        head, body = self._framed(self.answer())
        if body is None:
            body = b"".join(self._store.pieces(self._length(head)))
        length = head.length
        head, body = edit(head, body)
        silent = self.request.method == "HEAD"  # its length is that of the object
        self._client.send(head.with_length(length if silent else len(body)).encode() + body)

    def _framed(self, head: Head) -> tuple[Head, bytes | None]:
        """With a length; the body where it had to be read for that."""
        assert self._store is not None
        if head.get("transfer-encoding").lower() != "chunked" or self.request.method == "HEAD":
            return head, None
        body = self._store.chunked()
        return head.with_length(len(body)), body

    def _length(self, head: Head) -> int:
        status = head.start.split(" ")[1]
        return 0 if self.request.method == "HEAD" or status in ("204", "304") else head.length

    def reply(self, status: int, code: str, message: str, **headers: str) -> None:
        """An answer of our own: an S3 error document, without a body to a HEAD."""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        fields = {"Content-Type": "application/xml", "Content-Length": str(len(body)), **headers}
        head = Head(f"HTTP/1.1 {status} {code}", tuple(fields.items())).encode()
        self._client.send(head if self.request.method == "HEAD" else head + body)

    def say(self, data: bytes) -> None:
        """These bytes, whatever they are."""
        self._client.send(data)

    # -- the end

    def hang_up(self) -> NoReturn:
        """FIN."""
        raise Hangup

    def reset(self) -> NoReturn:
        self._client.reset()
        raise Hangup

    def _relay(self, source: Wire, target: Wire, length: int, flip: int | None) -> None:
        done = 0
        for data in source.pieces(length):
            target.send(_flipped(data, None if flip is None else flip - done))
            done += len(data)


def _readable(sock: socket.socket, seconds: float) -> bool:
    """Not select(2), which knows no descriptor above 1023."""
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(1000 * seconds))


def _flipped(data: bytes, position: int | None) -> bytes:
    if position is None or not 0 <= position < len(data):
        return data
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
