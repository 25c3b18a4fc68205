"""The checksums a client may ask for: which, how they are written, and how those of parts make one of the object. Pure.

By "Checking object integrity" of the Amazon S3 user guide. A composite checksum is that of the parts' checksums, with
``-N``; a full-object one is that of all bytes, which CRCs give without reading them again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from . import crc
from .errors import S3Error

COMPOSITE, FULL = "COMPOSITE", "FULL_OBJECT"
PREFIX = "x-amz-checksum-"


class _Crc:
    def __init__(self, update: crc.Update, width: int) -> None:
        self._update = update
        self._bytes = width // 8
        self._crc = 0

    def update(self, data: bytes) -> None:
        self._crc = self._update(data, self._crc)

    def digest(self) -> bytes:
        return self._crc.to_bytes(self._bytes, "big")


class _Hash:
    def __init__(self, name: str) -> None:
        self._hash = hashlib.new(name)

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def digest(self) -> bytes:
        return self._hash.digest()


@dataclass(frozen=True, slots=True)
class Algorithm:
    """size: bytes of a digest. polynomial: None where checksums of parts cannot be combined."""

    name: str
    size: int
    new: Callable[[], _Crc | _Hash]
    polynomial: crc.Polynomial | None

    @property
    def header(self) -> str:
        return PREFIX + self.name.lower()

    @property
    def element(self) -> str:
        return f"Checksum{self.name}"

    def decode(self, text: str) -> bytes:
        """Raises S3Error."""
        try:
            digest = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            digest = b""
        if len(digest) != self.size:
            raise S3Error("InvalidRequest", f"Value for {self.header} header is invalid.")
        return digest


ALGORITHMS: Mapping[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("CRC32", 4, lambda: _Crc(crc.crc32, 32), crc.CRC32),
        Algorithm("CRC32C", 4, lambda: _Crc(crc.crc32c, 32), crc.CRC32C),
        Algorithm("CRC64NVME", 8, lambda: _Crc(crc.crc64nvme, 64), crc.CRC64NVME),
        Algorithm("SHA1", 20, lambda: _Hash("sha1"), None),
        Algorithm("SHA256", 32, lambda: _Hash("sha256"), None),
    )
}
HEADERS = {algorithm.header: algorithm for algorithm in ALGORITHMS.values()}


def encode(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def named(name: str) -> Algorithm:
    """Raises S3Error."""
    try:
        return ALGORITHMS[name.upper()]
    except KeyError:
        raise S3Error("InvalidRequest", "Checksum algorithm provided is unsupported.") from None


@dataclass(frozen=True, slots=True)
class Wanted:
    """By the headers of a request. value: None: it comes in a trailer, or shall only be computed."""

    algorithm: Algorithm
    value: str | None
    trailer: bool = False


def wanted(headers: Mapping[str, str]) -> Wanted | None:
    """Raises S3Error for two at once, or one that does not fit its header."""
    given = [(HEADERS[name], value) for name, value in headers.items() if name in HEADERS]
    trailers = [name.strip().lower() for name in headers.get("x-amz-trailer", "").split(",") if name.strip()]
    announced = [HEADERS[name] for name in trailers if name in HEADERS]
    if len(announced) != len(trailers):
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    if len(given) + len(announced) > 1:
        raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header.")
    asked = headers.get("x-amz-sdk-checksum-algorithm", "")
    if asked:
        algorithm = named(asked)
        if (given and given[0][0] is not algorithm) or (announced and announced[0] is not algorithm):
            raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    if given:
        given[0][0].decode(given[0][1])
        return Wanted(given[0][0], given[0][1])
    if announced:
        return Wanted(announced[0], None, trailer=True)
    return Wanted(named(asked), None) if asked else None


def type_of(algorithm: Algorithm, asked: str) -> str:
    """Of a multipart object: COMPOSITE or FULL_OBJECT. Raises S3Error."""
    asked = asked.upper()
    if not asked:
        return FULL if algorithm.name == "CRC64NVME" else COMPOSITE
    possible = asked in (COMPOSITE, FULL)
    if asked == FULL:
        possible = algorithm.polynomial is not None
    if asked == COMPOSITE:
        possible = algorithm.name != "CRC64NVME"
    if not possible:
        raise S3Error(
            "InvalidRequest",
            f"The {asked} checksum type cannot be used with the {algorithm.name.lower()} checksum algorithm.",
        )
    return asked


def of_parts(algorithm: Algorithm, kind: str, parts: Iterable[tuple[str, int]]) -> str:
    """parts: (checksum, length) in order."""
    values = [(algorithm.decode(text), length) for text, length in parts]
    if kind == COMPOSITE:
        whole = algorithm.new()
        whole.update(b"".join(digest for digest, _ in values))
        return f"{encode(whole.digest())}-{len(values)}"
    assert algorithm.polynomial is not None
    total = 0
    for digest, length in values:
        total = algorithm.polynomial.combine(total, int.from_bytes(digest, "big"), length)
    return encode(total.to_bytes(algorithm.size, "big"))
