"""Signature version 4, the server's side. Pure.

By "Authenticating Requests" of the Amazon S3 API reference: the Authorization header, the query of a presigned URL, and
the chunks and trailers of a streamed body. The signature itself is that of ``s3.sign``'s rules; here it is compared, in
constant time. Header values are latin-1 text, so that the bytes that were signed are the bytes that came.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote_from_bytes

from .errors import S3Error

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
EMPTY = hashlib.sha256().hexdigest()
SKEW = 15 * 60  # seconds
LONGEST = 7 * 86400  # seconds that a presigned URL may last

_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_HEX = re.compile(r"[0-9a-f]{64}")
_CREDENTIAL = re.compile(r"(?P<access>[^/\s]+)/(?P<day>[0-9]{8})/(?P<region>[^/\s]*)/(?P<service>[^/\s]*)/aws4_request")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was signed. path: decoded; query: decoded pairs in order; headers: lower-case names."""

    method: str
    path: bytes
    query: Sequence[tuple[bytes, bytes]]
    headers: Sequence[tuple[str, str]]

    def header(self, name: str) -> str | None:
        values = [value for found, value in self.headers if found == name]
        return ",".join(values) if values else None

    def parameter(self, name: str) -> str | None:
        found = [value for key, value in self.query if key == name.encode()]
        return found[0].decode("latin-1") if found else None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of itself, before it is believed."""

    access: str
    day: str
    region: str
    service: str
    signed: tuple[str, ...]
    signature: str
    stamp: str
    payload: str  # x-amz-content-sha256, or UNSIGNED
    presigned: bool
    expires: int = 0  # seconds; of a presigned URL

    @property
    def scope(self) -> str:
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


@dataclass(frozen=True, slots=True)
class Seed:
    """What the signatures of a streamed body begin with."""

    key: bytes = field(repr=False)
    stamp: str
    scope: str
    signature: str


def claim_of(asked: Asked) -> Claim | None:
    """None: the request is anonymous. Raises S3Error for what cannot be read."""
    header = asked.header("authorization")
    algorithm = asked.parameter("X-Amz-Algorithm")
    if header is not None and algorithm is not None:
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed", ArgumentName="Authorization")
    if header is not None:
        return _of_header(asked, header)
    if algorithm is not None:
        return _of_query(asked, algorithm)
    if asked.parameter("AWSAccessKeyId") is not None:
        raise S3Error("InvalidRequest", f"Signature version 2 is not supported. Please use {ALGORITHM}.")
    return None


def _of_header(asked: Asked, header: str) -> Claim | None:
    kind, _, rest = header.strip().partition(" ")
    if kind == "AWS":
        if ":" in rest:
            raise S3Error("InvalidRequest", f"Signature version 2 is not supported. Please use {ALGORITHM}.")
        raise S3Error("InvalidArgument", "AWS authorization header is invalid.", ArgumentName="Authorization")
    if kind.startswith("AWS4-ECDSA"):
        raise S3Error("NotImplemented", "AWS4-ECDSA-P256-SHA256 is not implemented")
    if not kind or not kind.isprintable():
        return None
    if kind != ALGORITHM:
        raise S3Error("InvalidArgument", "Unsupported Authorization Type", ArgumentName="Authorization")
    fields: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        fields[name] = value
    if not {"Credential", "SignedHeaders", "Signature"} <= fields.keys():
        raise S3Error("AuthorizationHeaderMalformed", "The authorization header is malformed; it needs three fields.")
    found = _CREDENTIAL.fullmatch(fields["Credential"])
    if found is None:
        raise S3Error("AuthorizationHeaderMalformed", "The authorization header is malformed; the Credential is wrong.")
    payload = asked.header("x-amz-content-sha256")
    if payload is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    check_payload(payload)
    return Claim(
        access=found["access"],
        day=found["day"],
        region=found["region"],
        service=found["service"],
        signed=tuple(fields["SignedHeaders"].split(";")),
        signature=fields["Signature"],
        stamp=_stamp(asked.header("x-amz-date"), asked.header("date")),
        payload=payload,
        presigned=False,
    )


def check_payload(payload: str) -> None:
    """What x-amz-content-sha256 says. Raises S3Error."""
    if payload not in (UNSIGNED, STREAMING, STREAMING_TRAILER, UNSIGNED_TRAILER) and not _HEX.fullmatch(payload):
        raise S3Error(
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a value of chunked uploads or a valid sha256 value.",
            ArgumentName="x-amz-content-sha256",
            ArgumentValue=payload,
        )


def _stamp(amazon: str | None, date: str | None) -> str:
    given = date if amazon is None else amazon
    if given is not None and _STAMP.fullmatch(given):
        return given
    try:
        when = parsedate_to_datetime(given or "")
        return when.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    except (ValueError, TypeError, IndexError, OverflowError):
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from None


def _of_query(asked: Asked, algorithm: str) -> Claim:
    wrong = functools.partial(S3Error, "AuthorizationQueryParametersError")
    if algorithm != ALGORITHM:
        raise wrong(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    names = ("X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature")
    values = {name: asked.parameter(name) for name in names}
    if None in values.values():
        raise wrong(f"Query-string authentication version 4 requires the {', '.join(names)} parameters.")
    credential, stamp, expires, signed, signature = (value or "" for value in values.values())
    found = _CREDENTIAL.fullmatch(credential)
    if found is None:
        raise wrong("Error parsing the X-Amz-Credential parameter.")
    if not _STAMP.fullmatch(stamp):
        raise wrong("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    if not re.fullmatch(r"-?[0-9]{1,10}", expires):
        raise wrong("X-Amz-Expires should be a number")
    if int(expires) < 0:
        raise wrong("X-Amz-Expires must be non-negative")
    if int(expires) > LONGEST:
        raise wrong(f"X-Amz-Expires must be less than a week (in seconds); that is {LONGEST}")
    return Claim(
        access=found["access"],
        day=found["day"],
        region=found["region"],
        service=found["service"],
        signed=tuple(signed.split(";")),
        signature=signature,
        stamp=stamp,
        payload=asked.parameter("X-Amz-Content-Sha256") or asked.header("x-amz-content-sha256") or UNSIGNED,
        presigned=True,
        expires=int(expires),
    )


def verify(asked: Asked, claim: Claim, secret: str, region: str, now: float) -> Seed:
    """The claim is true for this secret. now: seconds since the epoch. Raises S3Error."""
    malformed = "AuthorizationQueryParametersError" if claim.presigned else "AuthorizationHeaderMalformed"
    if claim.region != region:
        message = f"The authorization header is malformed; the region '{claim.region}' is wrong; expecting '{region}'"
        raise S3Error(malformed, message, Region=region)
    if claim.service != "s3":
        raise S3Error(malformed, f"The authorization header is malformed; incorrect service '{claim.service}'.")
    if claim.day != claim.stamp[:8]:
        raise S3Error(malformed, "The authorization header is malformed; its date is not that of the request.")
    _in_time(claim, now)
    _all_signed(asked, claim)
    key = signing_key(secret, claim.day, claim.region, claim.service)
    text = f"{ALGORITHM}\n{claim.stamp}\n{claim.scope}\n{hashlib.sha256(canonical(asked, claim)).hexdigest()}"
    wanted = hmac.digest(key, text.encode(), "sha256").hex()
    if not hmac.compare_digest(wanted.encode(), claim.signature.encode("utf-8", "replace")):
        raise S3Error(
            "SignatureDoesNotMatch",
            AWSAccessKeyId=claim.access,
            StringToSign=text,
            SignatureProvided=claim.signature,
            CanonicalRequest=canonical(asked, claim).decode("utf-8", "replace"),
        )
    return Seed(key, claim.stamp, claim.scope, wanted)


def _in_time(claim: Claim, now: float) -> None:
    try:
        when = datetime.strptime(claim.stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from None
    if claim.presigned:
        if when > now + SKEW:
            raise S3Error("AccessDenied", "Request is not yet valid")
        if now > when + claim.expires:
            raise S3Error("AccessDenied", "Request has expired", ExpiresSeconds=str(claim.expires))
    elif abs(now - when) > SKEW:
        raise S3Error("RequestTimeTooSkewed", RequestTime=claim.stamp, MaxAllowedSkewMilliseconds=str(SKEW * 1000))


def _all_signed(asked: Asked, claim: Claim) -> None:
    """Else somebody on the way could add to the request."""
    missing = {name for name, _ in asked.headers if name == "host" or name.startswith("x-amz-")} - set(claim.signed)
    if not claim.presigned and "x-amz-date" not in claim.signed and "date" not in claim.signed:
        missing.add("x-amz-date")
    # Its value is in the canonical request in any case.
    missing.discard("x-amz-content-sha256")
    if missing:
        raise S3Error(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            HeadersNotSigned=", ".join(sorted(missing)),
        )


def canonical(asked: Asked, claim: Claim) -> bytes:
    pairs = sorted(
        (_quoted(name), _quoted(value))
        for name, value in asked.query
        if not (claim.presigned and name == b"X-Amz-Signature")
    )
    lines = [
        asked.method,
        quote_from_bytes(asked.path, safe="/~"),
        "&".join(f"{name}={value}" for name, value in pairs),
        *(f"{name}:{_collapsed(asked, name)}" for name in claim.signed),
        "",
        ";".join(claim.signed),
        claim.payload,
    ]
    return "\n".join(lines).encode("latin-1", "replace")


def _quoted(text: bytes) -> str:
    return quote_from_bytes(text, safe="-_.~")


def _collapsed(asked: Asked, name: str) -> str:
    return ",".join(re.sub(" +", " ", value.strip(" \t")) for found, value in asked.headers if found == name)


@functools.lru_cache(maxsize=256)
def signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for step in (day, region, service, "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    return key


def chunk_signature(seed: Seed, previous: str, digest: str) -> str:
    """digest: the SHA-256 of the chunk's data, in hex."""
    text = f"AWS4-HMAC-SHA256-PAYLOAD\n{seed.stamp}\n{seed.scope}\n{previous}\n{EMPTY}\n{digest}"
    return hmac.digest(seed.key, text.encode(), "sha256").hex()


def trailer_signature(seed: Seed, previous: str, trailers: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"{name}:{value}\n" for name, value in trailers)
    digest = hashlib.sha256(lines.encode("latin-1")).hexdigest()
    text = f"AWS4-HMAC-SHA256-TRAILER\n{seed.stamp}\n{seed.scope}\n{previous}\n{digest}"
    return hmac.digest(seed.key, text.encode(), "sha256").hex()


def matches(wanted: str, given: str) -> bool:
    return hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace"))
