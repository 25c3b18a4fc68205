"""Answers that no honest store gives, as faults for the fault proxy, and the places where they are tried.

A ``Says`` answers a request by itself; the store behind the proxy never sees it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from tests.exchange import Exchange, Request

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
WHEN = "2026-11-20T12:00:00.000Z"
ETAG = "0123456789abcdef0123456789abcdef"
MIB = 1 << 20


@dataclass
class Sent:
    """bytes: how many the other side took before it hung up."""

    bytes: int = 0


@dataclass(frozen=True)
class Says:
    """The pieces instead of an answer, as long as they last or somebody listens; then the connection ends."""

    pieces: Callable[[Request], Iterable[bytes]]
    sent: Sent = field(default_factory=Sent)

    def run(self, exchange: Exchange) -> None:
        exchange.drain()
        for piece in self.pieces(exchange.request):
            exchange.say(piece)
            self.sent.bytes += len(piece)
        exchange.hang_up()


def head(status: int = 200, **fields: str) -> bytes:
    """Start line and fields (``_`` for ``-``), in bytes that need not be what HTTP allows."""
    lines = [f"HTTP/1.1 {status} So", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape")


def answer(body: bytes | str = b"", status: int = 200, **fields: str) -> Says:
    """One answer, the same every time."""
    raw = body.encode() if isinstance(body, str) else body
    # It hangs up afterwards, and says so: a connection taken for open would be reset under the next request.
    fields = {"Content_Length": str(len(raw)), "Content_Type": "application/xml", "Connection": "close", **fields}
    return Says(lambda request: [head(status, **fields) + (b"" if request.method == "HEAD" else raw)])


def contents(key: str, size: object = 1, *, etag: str = ETAG, modified: str = WHEN, more: str = "") -> str:
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>{modified}</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass>{more}</Contents>"
    )


def listing(*entries: str, token: str = "", doctype: str = "") -> str:
    cut = "true" if token else "false"
    following = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{doctype}<ListBucketResult {NAMESPACE}>'
        f"<IsTruncated>{cut}</IsTruncated>{''.join(entries)}{following}</ListBucketResult>"
    )


def paged(page: Callable[[int], str]) -> Says:
    """Another answer each time."""
    numbers = itertools.count()

    def pieces(request: Request) -> Iterator[bytes]:
        body = page(next(numbers)).encode()
        yield head(200, Content_Length=str(len(body)), Content_Type="application/xml") + body

    return Says(pieces)


def endless(first: bytes, piece: bytes, pause: float = 0.0, most: int = 200 * MIB) -> Says:
    """``first`` and then ``piece`` again and again. most: bytes after which even we give up, and the test fails."""

    def pieces(request: Request) -> Iterator[bytes]:
        yield first
        for _ in range(most // len(piece)):
            yield piece
            if pause:
                time.sleep(pause)  # the drip itself

    return Says(pieces)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def entities(levels: int = 9) -> str:
    """Billion laughs: each entity is ten of the one before."""
    lines = ['<!ENTITY a0 "laughing and laughing and laughing">']
    lines += [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, levels + 1)]
    return f"<!DOCTYPE x [{''.join(lines)}]>"


# Within what expat's own protection lets through: 8 MiB, or a hundred times the document.
QUADRATIC = f'<!DOCTYPE x [<!ENTITY a "{"a" * 70_000}">]>'
EXTERNAL = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
