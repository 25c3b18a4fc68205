"""The body of ``Content-Encoding: aws-chunked``: chunks with or without signatures, and trailers. Pure.

By "Transferring Payload in Multiple Chunks" and "Including Trailing Headers" of the Amazon S3 API reference. A chunk's
data is given out before its signature has been compared, so that a chunk may have any size; whoever writes it must not
commit before ``finish`` has returned.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from . import sigv4
from .errors import S3Error

_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})\s*(?:;\s*chunk-signature=([0-9a-f]{64}))?")
_LONGEST_LINE = 1024
_TRAILERS = 16 << 10  # bytes
SIGNATURE = "x-amz-trailer-signature"


class Decoder:
    """seed: None for unsigned chunks. trailers: those are to come."""

    def __init__(self, length: int, seed: sigv4.Seed | None, *, trailer: bool) -> None:
        self._length = length  # of the data, by x-amz-decoded-content-length
        self._seed = seed
        self._with_trailer = trailer
        self._buffer = bytearray()
        self._left = 0  # bytes of the chunk under way
        self._state = "line"  # data, after, trailer, end
        self._received = 0
        self._previous = seed.signature if seed else ""
        self._given = ""
        self._digest = hashlib.sha256()
        self._trailer_bytes = 0
        self.trailers: dict[str, str] = {}

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces of the object's data. Raises S3Error."""
        at = 0
        while at < len(data):
            if self._state == "data":
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._received += len(piece)
                if self._received > self._length:
                    raise S3Error("IncompleteBody", "The body is longer than x-amz-decoded-content-length.")
                if self._seed is not None:
                    self._digest.update(piece)
                if not self._left:
                    self._state = "after"
                yield piece
                continue
            if self._state == "end":
                raise S3Error("IncompleteBody", "There is something behind the last chunk.")
            end = data.find(b"\n", at)
            self._buffer += data[at : end + 1] if end >= 0 else data[at:]
            at = end + 1 if end >= 0 else len(data)
            if len(self._buffer) > _LONGEST_LINE:
                raise S3Error("InvalidRequest", "A line of the chunked body is too long.")
            if end >= 0:
                line = bytes(self._buffer)
                self._buffer.clear()
                self._take(line.removesuffix(b"\n").removesuffix(b"\r"))

    def _take(self, line: bytes) -> None:
        if self._state == "after":
            if line:
                raise S3Error("IncompleteBody", "A chunk is longer than it says.")
            self._chunk_ends()
            self._state = "line"
        elif self._state == "trailer":
            self._trailer(line)
        elif self._state == "final":
            if line:
                raise S3Error("IncompleteBody", "There is something behind the last chunk.")
            self._state = "end"
        else:
            self._begin(line)

    def _begin(self, line: bytes) -> None:
        found = _LINE.fullmatch(line)
        if found is None or (self._seed is not None and found[2] is None):
            raise S3Error("InvalidRequest", "A chunk of the body does not begin with its size and signature.")
        self._left = int(found[1], 16)
        self._given = (found[2] or b"").decode()
        self._digest = hashlib.sha256()
        if self._left:
            self._state = "data"
            return
        self._chunk_ends()
        self._state = "trailer" if self._with_trailer else "final"

    def _chunk_ends(self) -> None:
        if self._seed is None:
            return
        wanted = sigv4.chunk_signature(self._seed, self._previous, self._digest.hexdigest())
        if not sigv4.matches(wanted, self._given):
            raise S3Error("SignatureDoesNotMatch")
        self._previous = wanted

    def _trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _TRAILERS:
            raise S3Error("InvalidRequest", "The trailers are too long.")
        if not line:
            # Some clients send an empty line before the trailers, and one after.
            if self.trailers or self._seed is None:
                self._state = "end"
            return
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise S3Error("InvalidRequest", "A trailer has no colon.")
        self.trailers[name.strip().lower()] = value.strip()

    def finish(self) -> dict[str, str]:
        """The trailers, after the last byte has come. Raises S3Error when something is missing or wrong."""
        if self._state == "final" and not self._buffer:
            self._state = "end"  # the last CRLF is left out by some
        if self._state == "trailer" and not self._buffer:
            self._state = "end"
        if self._state != "end" or self._received != self._length:
            raise S3Error("IncompleteBody")
        given = self.trailers.pop(SIGNATURE, None)
        if self._seed is not None and self._with_trailer:
            wanted = sigv4.trailer_signature(self._seed, self._previous, self.trailers.items())
            if given is None or not sigv4.matches(wanted, given):
                raise S3Error("SignatureDoesNotMatch")
        return self.trailers
