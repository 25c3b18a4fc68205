"""A request and its answer, between the HTTP server and what answers. Pure but for the bytes that a body brings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Headers = Sequence[tuple[str, str]]


class Body(Protocol):
    """What comes after the head. length: by Content-Length; None: chunked, or there is none (see ``chunked``)."""

    length: int | None
    chunked: bool
    received: int

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Pieces of up to 1 MiB. Raises S3Error: RequestTimeout, IncompleteBody."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """target: as in the request line; headers: lower-case names, latin-1 values, in their order."""

    id: str
    method: str
    target: bytes
    headers: Headers
    body: Body
    peer: str
    secure: bool


@dataclass(frozen=True, slots=True)
class FileRange:
    """Of an answer. The server closes the descriptor."""

    descriptor: int
    first: int
    length: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Of an answer: bytes that come from elsewhere, an exception when they end early. length: None: not known before.
    The server calls close, whatever has come."""

    pieces: AsyncIterator[bytes]
    length: int | None
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Response:
    """later: what takes long: its bytes come after white space that keeps the client waiting, with status 200.

    length: of a HEAD's body, which is not sent; -1: that of the body.
    """

    status: int
    headers: Headers = ()
    body: bytes | FileRange | Stream = b""
    length: int = -1
    later: Callable[[], Awaitable[bytes]] | None = field(default=None, repr=False)


class Answers(Protocol):
    def __call__(self, request: Request) -> Awaitable[Response]: ...
