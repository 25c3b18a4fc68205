"""Signature version 2, for old clients where it is switched on. Pure.

By "Signing and authenticating REST requests" of the Amazon S3 user guide. It signs neither the body nor all
of the query.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from .errors import S3Error
from .sigv4 import SKEW, Asked

# Of the query these are signed, in this order.
# fmt: off
_SIGNED = (
    "accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "encryption", "inventory",
    "legal-hold", "lifecycle", "location", "logging", "metrics", "notification", "object-lock", "partNumber",
    "policy", "policyStatus", "publicAccessBlock", "replication", "requestPayment", "response-cache-control",
    "response-content-disposition", "response-content-encoding", "response-content-language",
    "response-content-type", "response-expires", "restore", "retention", "select", "tagging", "torrent",
    "uploadId", "uploads", "versionId", "versioning", "versions", "website",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Claim:
    """date: as signed; expires: seconds since the epoch of a presigned URL, else None."""

    access: str
    signature: str
    date: str
    expires: int | None


def claim_of(asked: Asked) -> Claim | None:
    """None: the request is not signed so. Raises S3Error."""
    header = asked.header("authorization")
    if header is not None and header.startswith("AWS "):
        access, colon, signature = header[4:].strip().rpartition(":")
        if not colon:
            raise S3Error("InvalidArgument", "AWS authorization header is invalid.", ArgumentName="Authorization")
        amazon = asked.header("x-amz-date")
        date = "" if amazon is not None else asked.header("date") or ""
        _when(amazon or date)
        return Claim(access, signature, date, None)
    access = asked.parameter("AWSAccessKeyId") or ""
    if header is not None or not access:
        return None
    given, expires = asked.parameter("Signature"), asked.parameter("Expires")
    if given is None or expires is None or not expires.isascii() or not expires.isdigit() or len(expires) > 12:
        raise S3Error("AccessDenied", "Query-string authentication requires the Signature, Expires parameters")
    return Claim(access, given, expires, int(expires))


def _when(text: str) -> float:
    try:
        seconds = parsedate_to_datetime(text).timestamp()
        if seconds < 0:
            raise ValueError
        return seconds
    except (ValueError, TypeError, IndexError, OverflowError):
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from None


def verify(asked: Asked, claim: Claim, raw_path: str, secret: str, now: float) -> None:
    """raw_path: as in the request line; with the bucket before it where that stood in the host. Raises S3Error."""
    if claim.expires is not None:
        if now > claim.expires:
            raise S3Error("AccessDenied", "Request has expired", Expires=str(claim.expires))
    elif abs(now - _when(claim.date or asked.header("x-amz-date") or "")) > SKEW:
        raise S3Error("RequestTimeTooSkewed", MaxAllowedSkewMilliseconds=str(SKEW * 1000))
    # botocore signs a bucket with a slash behind it, also where none is in the request line.
    texts = [_text(asked, claim, path) for path in (raw_path, f"{raw_path}/")[: 1 + (raw_path.count("/") == 1)]]
    given = claim.signature.encode("utf-8", "replace")
    wanted = [hmac.digest(secret.encode(), text.encode("latin-1", "replace"), "sha1") for text in texts]
    if not any(hmac.compare_digest(base64.b64encode(digest), given) for digest in wanted):
        raise S3Error("SignatureDoesNotMatch", AWSAccessKeyId=claim.access, StringToSign=texts[0])


def _text(asked: Asked, claim: Claim, raw_path: str) -> str:
    amazon: dict[str, list[str]] = {}
    for name, value in asked.headers:
        if name.startswith("x-amz-"):
            amazon.setdefault(name, []).append(" ".join(value.split()))
    lines = [asked.method, asked.header("content-md5") or "", asked.header("content-type") or "", claim.date]
    lines += [f"{name}:{','.join(values)}" for name, values in sorted(amazon.items())]
    return "\n".join([*lines, _resource(asked, raw_path)])


def _resource(asked: Asked, raw_path: str) -> str:
    pairs: dict[str, str] = {}
    for name, value in asked.query:  # the first one, as it is the one that is obeyed
        pairs.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    signed = [f"{name}={pairs[name]}" if pairs[name] else name for name in _SIGNED if name in pairs]
    return f"{raw_path}?{'&'.join(signed)}" if signed else raw_path
