"""One HTTP/1.1 request and its answer on a connected socket, as far as the answer is plain.

http.client and urllib3 take 0.6 ms of CPU for an answer of twelve headers; this takes 0.05, and reads a body into one
piece of memory with as few system calls as there are arrivals. It understands what S3 says when all is well. What is
not plain (an interim answer, chunks, an odd header, no length) it leaves to http.client, with the bytes that came.
"""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# The most of a head that is read here; honest ones have 1 KiB, and 8 more of metadata.
MAX_HEAD = 32 << 10
# A body up to this goes with the head in one system call and one packet.
_SMALL = 16 << 10
_PIECE = 16 << 10
# What is left of a body that nobody wants any more, and is read all the same: a new connection takes two round trips or
# three, and about as long as a MiB to come up to speed.
REST = 1 << 20

_END = re.compile(rb"\r?\n\r?\n")  # http.client takes any of these
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3})(?: [^\r\n]*)?$")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)$")
_LENGTH = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Plain:
    """The head of a plain answer. headers: lower-case names. length: of its body, None without one (but of HEAD)."""

    status: int
    headers: Mapping[str, str]
    length: int | None

    @property
    def reusable(self) -> bool:
        """Whether the connection is good for another request."""
        return "connection" not in self.headers or self.headers["connection"].lower() == "keep-alive"


def parse_head(head: bytes) -> Plain | None:
    """None: not plain. head: without the empty line at its end."""
    first, *lines = head.split(b"\r\n")
    said = _STATUS.match(first)
    if said is None or not 200 <= (status := int(said[1])) < 600 or len(lines) > 100:
        return None
    headers: dict[str, str] = {}
    for line in lines:
        match = _FIELD.match(line)
        if match is None:
            return None
        name = match[1].decode().lower()
        if name in headers:
            return None
        headers[name] = match[2].decode("iso-8859-1").rstrip(" \t")
    if "transfer-encoding" in headers:
        return None
    told = headers.get("content-length")
    if told is None:
        return Plain(status, headers, None)
    return Plain(status, headers, int(told)) if _LENGTH.fullmatch(told) else None


def head_of(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Of a request. Raises UnicodeError and ValueError for what must not stand in it."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"{method} {target} HTTP/1.1\r\n{lines}\r\n"
    if head.count("\n") != len(headers) + 2 or head.count("\r") != len(headers) + 2 or "\0" in head:
        raise ValueError("a line break in a header")
    return head.encode("ascii")


def send(sock: socket.socket, head: bytes, blocks: Iterable[bytes | memoryview]) -> None:
    """Each block within the socket's timeout. Of a connection that the other side closes in the middle there may be an
    answer all the same, so that is no error here."""
    try:
        for block in blocks:
            if head and len(block) <= _SMALL:
                block, head = head + block, b""
            elif head:
                sock.sendall(head)
                head = b""
            sock.sendall(block)
        if head:
            sock.sendall(head)
    except (BrokenPipeError, ConnectionResetError):
        return


class Answer:
    """What comes after a request. Ends ``seconds`` from now, however busy the other side is; no byte may be waited for
    longer than ``silence`` seconds. Raises TimeoutError.
    """

    def __init__(self, sock: socket.socket, seconds: float, silence: float | None) -> None:
        self._sock = sock
        self._seconds = seconds
        self._silence = silence
        self._end = time.monotonic() + seconds
        self._head = b""
        self.came = b""  # and is not used yet

    def head(self) -> Plain | None:
        """None: not plain, and is still to be read."""
        came = b""
        while (end := _END.search(came)) is None:
            piece = self._limited(lambda: self._sock.recv(_PIECE))
            came += piece
            if not piece or len(came) > MAX_HEAD:
                self.came = came
                return None
        self._head, self.came = came[: end.end()], came[end.end() :]
        plain = parse_head(came[: end.start()])
        if plain is None:
            self.unread_head()
        return plain

    def unread_head(self) -> None:
        """It and nothing behind it was read."""
        self._head, self.came = b"", self._head + self.came

    def readinto(self, buffer: Any) -> int:
        """At least a byte, 0 at the end."""
        if self.came:
            view = memoryview(buffer).cast("B")
            size = min(len(view), len(self.came))
            view[:size], self.came = self.came[:size], self.came[size:]
            return size
        return int(self._limited(lambda: self._sock.recv_into(buffer)))

    def read(self, length: int, interrupted: Callable[[], None] = lambda: None) -> bytes:
        """``length`` bytes, or fewer where the connection ended before. interrupted: called as they come, while there
        is more than REST left; raises to give them up."""
        # Fills the memory of its result in place, as a bytearray of ours would be; but that is filled with zeros first,
        # one of five passes over the memory of what is read. A buffer of one byte: nothing behind ``length`` is taken.
        return io.BufferedReader(AnswerIO(self, length - REST, interrupted), 1).read(length)

    def _limited(self, receive: Callable[[], Any]) -> Any:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the answer did not end within {self._seconds:g} s")
        limit = left if self._silence is None else min(left, self._silence)
        if self._sock.gettimeout() != limit:
            self._sock.settimeout(limit)
        return receive()


class AnswerIO(io.RawIOBase):
    """An Answer as http.client reads it. interrupted: called before each of the first ``least`` bytes or more."""

    def __init__(self, answer: Answer, least: int = 0, interrupted: Callable[[], None] = lambda: None) -> None:
        self._answer = answer
        self._left = least
        self._interrupted = interrupted

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left > 0:
            self._interrupted()
        count = self._answer.readinto(buffer)
        self._left -= count
        return count
