"""The body of a request as the object's bytes: chunks decoded, everything that was said of it compared."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping

import trio

from . import sigv4
from .checksums import HEADERS, Wanted, encode, wanted
from .chunked import Decoder
from .errors import S3Error
from .messages import Body

_INLINE = 16 << 10  # bytes that are hashed in less time than a thread takes to be asked


class Payload:
    """Iterate once; after the last piece everything has been compared, and the digests are known."""

    def __init__(
        self, body: Body, headers: Mapping[str, str], claimed: str, seed: sigv4.Seed | None, *, limit: int
    ) -> None:
        """claimed: x-amz-content-sha256; seed: of signed chunks. limit: bytes of the data. Raises S3Error."""
        sigv4.check_payload(claimed)
        self._body = body
        self._headers = headers
        self._limit = limit
        streaming = claimed.startswith("STREAMING-")
        self._decoder: Decoder | None = None
        self.length: int | None = body.length if not body.chunked else None
        if streaming:
            self.length = _number(headers, "x-amz-decoded-content-length")
            signed = claimed in (sigv4.STREAMING, sigv4.STREAMING_TRAILER)
            if self.length is not None:
                trailer = claimed in (sigv4.STREAMING_TRAILER, sigv4.UNSIGNED_TRAILER)
                self._decoder = Decoder(self.length, seed if signed else None, trailer=trailer)
        self._streaming = streaming
        self._sha256 = None if streaming or claimed == sigv4.UNSIGNED else claimed
        self.wanted: Wanted | None = wanted(headers)
        self._md5_wanted = _content_md5(headers)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha = hashlib.sha256()
        self._checksum = self.wanted.algorithm.new() if self.wanted else None
        self.size = 0
        self.checksum = ""

    @property
    def etag(self) -> str:
        return self._md5.hexdigest()

    @property
    def algorithm(self) -> str:
        return self.wanted.algorithm.name if self.wanted else ""

    def need_length(self) -> None:
        """Raises S3Error: MissingContentLength, NotImplemented, EntityTooLarge."""
        if self.length is None:
            if self._body.chunked and not self._streaming:
                raise S3Error("NotImplemented", Header="Transfer-Encoding")
            raise S3Error("MissingContentLength")
        if self.length > self._limit:
            raise S3Error("EntityTooLarge", ProposedSize=str(self.length), MaxSizeAllowed=str(self._limit))

    def compute(self, algorithm: Wanted) -> None:
        """What an upload was created with, where the request of the part says nothing."""
        if self.wanted is None:
            self.wanted = algorithm
            self._checksum = algorithm.algorithm.new()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._streaming and self._decoder is None:
            raise S3Error("MissingContentLength", "x-amz-decoded-content-length is missing.")
        async for raw in self._body:
            pieces = list(self._decoder.feed(raw)) if self._decoder else [raw]
            piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if not piece:
                continue
            self.size += len(piece)
            if self.size > self._limit:
                raise S3Error("EntityTooLarge", MaxSizeAllowed=str(self._limit))
            if len(piece) <= _INLINE:
                self._hash(piece)
            else:
                await trio.to_thread.run_sync(self._hash, piece)
            yield piece
        self._finish()

    def _hash(self, piece: bytes) -> None:
        self._md5.update(piece)
        if self._sha256 is not None:
            self._sha.update(piece)
        if self._checksum is not None:
            self._checksum.update(piece)

    def _finish(self) -> None:
        trailers = self._decoder.finish() if self._decoder else {}
        if self._sha256 is not None:
            computed = self._sha.hexdigest()
            if not hmac.compare_digest(computed, self._sha256):
                raise S3Error(
                    "XAmzContentSHA256Mismatch",
                    ClientComputedContentSHA256=self._sha256,
                    S3ComputedContentSHA256=computed,
                )
        if self._md5_wanted is not None and self._md5.digest() != self._md5_wanted:
            raise S3Error(
                "BadDigest",
                ExpectedDigest=base64.b64encode(self._md5_wanted).decode(),
                CalculatedDigest=base64.b64encode(self._md5.digest()).decode(),
            )
        if self.wanted is None or self._checksum is None:
            return
        self.checksum = encode(self._checksum.digest())
        given = self.wanted.value
        if self.wanted.trailer:
            given = trailers.get(self.wanted.algorithm.header)
            if given is None:
                raise S3Error("InvalidRequest", f"The trailer {self.wanted.algorithm.header} is missing.")
            self.wanted.algorithm.decode(given)
        if any(name in HEADERS and HEADERS[name] is not self.wanted.algorithm for name in trailers):
            raise S3Error("InvalidRequest", "A trailer is not the one that was announced.")
        if given is not None and given != self.checksum:
            name = self.wanted.algorithm.name
            raise S3Error("BadDigest", f"The {name} you specified did not match the calculated checksum.")

    async def read(self) -> bytes:
        """All of a document. Raises S3Error: MaxMessageLengthExceeded."""
        if self.length is not None and self.length > self._limit:
            raise S3Error("MaxMessageLengthExceeded")
        collected = bytearray()
        try:
            async for piece in self:
                collected += piece
        except S3Error as error:
            if error.code == "EntityTooLarge":
                raise S3Error("MaxMessageLengthExceeded") from None
            raise
        return bytes(collected)


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise S3Error("InvalidArgument", f"{name} is no number", ArgumentName=name)
    return int(text)


def _content_md5(headers: Mapping[str, str]) -> bytes | None:
    text = headers.get("content-md5")
    if text is None:
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 16:
        raise S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.")
    return digest
