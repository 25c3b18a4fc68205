"""The request target: bucket, key, query. Pure.

Path style ``/bucket/key``; host style ``bucket.DOMAIN`` for the domains the gateway was told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from .errors import S3Error

BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Target:
    """path: decoded, as it was signed; pairs: decoded, in order."""

    path: bytes
    pairs: Sequence[tuple[bytes, bytes]]
    bucket: str
    key: str

    @property
    def query(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for name, value in self.pairs:
            found.setdefault(utf8(name), utf8(value))
        return found


def utf8(raw: bytes) -> str:
    """Raises S3Error: InvalidURI."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI") from None


def percent_decoded(raw: bytes) -> bytes:
    return unquote_to_bytes(raw)


def parse(target: bytes, host: str, domains: Sequence[str]) -> Target:
    """Raises S3Error: InvalidURI."""
    if not target.startswith(b"/"):
        scheme, found, rest = target.partition(b"://")
        if not found or scheme.lower() not in (b"http", b"https"):
            raise S3Error("InvalidURI")
        target = b"/" + rest.partition(b"/")[2]
    raw_path, _, raw_query = target.partition(b"?")
    path = percent_decoded(raw_path)
    text = utf8(path)
    pairs = []
    for part in raw_query.split(b"&"):
        if part:
            name, _, value = part.replace(b"+", b" ").partition(b"=")
            pairs.append((percent_decoded(name), percent_decoded(value)))
    bucket = of_host(host, domains)
    if bucket:
        return Target(path, pairs, bucket, text[1:])
    bucket, _, key = text[1:].partition("/")
    return Target(path, pairs, bucket, key)


def of_host(host: str, domains: Sequence[str]) -> str:
    """The bucket in it; "" for path style."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.lower()
    for domain in domains:
        if name.endswith("." + domain):
            return name[: -len(domain) - 1]
    return ""
