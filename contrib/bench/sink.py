"""The least S3 server that boto3 can talk to: ``python -m contrib.bench.sink ADDRESS OBJECT_SIZE``.

Bodies of PUT are thrown away and those of GET are zeros, without the bytes ever entering this process (splice(2),
sendfile(2)). What a client reaches here is what the client can, with next to no store beside it. It checks nothing.
Prints its port, ends with its standard input.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import sys
import threading
from collections.abc import Mapping

PIPE = 1 << 20
ZEROS = 64 << 20
HEAD_LIMIT = 64 << 10
ETAG = '"00000000000000000000000000000000"'


class Connection:
    """One client, request after request until it hangs up."""

    def __init__(self, sock: socket.socket, zeros: int, nothing: int, size: int) -> None:
        self._sock = sock
        self._zeros = zeros
        self._nothing = nothing
        self._size = size
        self._received = b""

    def serve(self) -> None:
        out, into = os.pipe()
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, PIPE)
        with self._sock, contextlib.suppress(OSError):
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while head := self._head():
                self._answer(*parse(head), out, into)
        os.close(out)
        os.close(into)

    def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._received:
            got = self._sock.recv(HEAD_LIMIT)
            if not got or len(self._received) > HEAD_LIMIT:
                return b""
            self._received += got
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head

    def _answer(self, method: str, target: str, headers: Mapping[str, str], out: int, into: int) -> None:
        length = int(headers.get("content-length", 0))
        if headers.get("expect", "").lower() == "100-continue" and not self._received:
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._throw_away(length, out, into)
        if method == "GET" and "?" not in target:
            self._send_zeros(headers.get("range", ""))
        elif method == "HEAD":
            self._send(200, b"", f"Content-Length: {self._size}\r\nAccept-Ranges: bytes\r\n")
        elif method == "POST":
            kind = "CompleteMultipartUploadResult" if "uploadId=" in target else "InitiateMultipartUploadResult"
            inside = f"<Bucket>b</Bucket><Key>k</Key><UploadId>1</UploadId><ETag>{ETAG}</ETag>"
            self._send_body(200, f"<{kind}>{inside}</{kind}>".encode())
        else:
            self._send_body(204 if method == "DELETE" else 200, b"")

    def _throw_away(self, length: int, out: int, into: int) -> None:
        length -= len(self._received[:length])
        self._received = b""  # no pipelining: what came with the head belongs to its body
        while length:
            taken = os.splice(self._sock.fileno(), into, min(length, PIPE))
            if not taken:
                raise ConnectionError("ended within a body")
            length -= taken
            while taken:
                taken -= os.splice(out, self._nothing, taken)

    def _send_zeros(self, wanted: str) -> None:
        start, stop = byte_range(wanted, self._size)
        span = f"Content-Range: bytes {start}-{stop - 1}/{self._size}\r\n" if wanted else ""
        self._send(206 if wanted else 200, b"", f"Content-Length: {stop - start}\r\n{span}")
        left = stop - start
        while left:
            left -= os.sendfile(self._sock.fileno(), self._zeros, 0, min(left, ZEROS))

    def _send_body(self, status: int, body: bytes) -> None:
        self._send(status, body, f"Content-Length: {len(body)}\r\n")

    def _send(self, status: int, body: bytes, more: str) -> None:
        head = f"HTTP/1.1 {status} OK\r\nETag: {ETAG}\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n{more}\r\n"
        self._sock.sendall(head.encode() + body)


def parse(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, target, headers with lower-case names."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    fields = (line.partition(":") for line in lines)
    return method, target, {name.strip().lower(): value.strip() for name, _, value in fields}


def byte_range(wanted: str, size: int) -> tuple[int, int]:
    """Start and end (exclusive) of a Range header; of everything when there is none."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    if not found:
        return 0, size
    return int(found[1]), min(size, int(found[2]) + 1) if found[2] else size


def accept(listener: socket.socket, zeros: int, nothing: int, size: int) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=Connection(sock, zeros, nothing, size).serve, daemon=True).start()


def main(address: str, size: str) -> None:
    zeros = os.memfd_create("zeros")
    os.ftruncate(zeros, ZEROS)
    nothing = os.open(os.devnull, os.O_WRONLY)
    listener = socket.create_server((address, 0), backlog=128)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=accept, args=(listener, zeros, nothing, int(size)), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
