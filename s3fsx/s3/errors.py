"""What an answer of the store, or the lack of one, means: pure tables without botocore.

Codes come from Amazon's "Error responses" list and from what Ceph RGW and MinIO really send; where a
code is unknown (or absent, as in every HEAD) the HTTP status decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import (
    AccessDenied,
    BadRange,
    BucketMissing,
    Changed,
    ConfigError,
    ConnectionFailed,
    Corrupted,
    NotFound,
    NotSupported,
    ObjectLocked,
    QuotaExceeded,
    Rejected,
    S3fsxError,
    ServerFault,
    StoreError,
    Throttled,
    TooLarge,
    Transient,
    UploadGone,
)

MAX_MESSAGE = 400

_CODES: dict[str, type[StoreError]] = {
    "NoSuchKey": NotFound,
    "NoSuchVersion": NotFound,
    "NoSuchBucket": BucketMissing,
    "NoSuchUpload": UploadGone,
    "AccessDenied": AccessDenied,
    "AccountProblem": AccessDenied,
    "AllAccessDisabled": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "ExpiredToken": AccessDenied,
    "InvalidToken": AccessDenied,
    "RequestTimeTooSkewed": AccessDenied,
    "UserSuspended": AccessDenied,
    "ObjectLocked": ObjectLocked,
    "PreconditionFailed": Changed,
    "QuotaExceeded": QuotaExceeded,
    "XMinioStorageFull": QuotaExceeded,
    "XMinioAdminBucketQuotaExceeded": QuotaExceeded,
    "InsufficientCapacity": QuotaExceeded,
    "EntityTooLarge": TooLarge,
    "MaxSizeExceeded": TooLarge,
    "InvalidRange": BadRange,
    "NotImplemented": NotSupported,
    "XNotImplemented": NotSupported,
    "MethodNotAllowed": NotSupported,
    "SlowDown": Throttled,
    "SlowDownRead": Throttled,
    "SlowDownWrite": Throttled,
    "ServiceUnavailable": Throttled,
    "Busy": Throttled,
    "Throttling": Throttled,
    "ThrottlingException": Throttled,
    "RequestLimitExceeded": Throttled,
    "TooManyRequests": Throttled,
    "InternalError": ServerFault,
    "RequestTimeout": ConnectionFailed,
    "IncompleteBody": ConnectionFailed,
    "OperationAborted": Transient,
    "ConditionalRequestConflict": Transient,
    "BadDigest": Corrupted,
    "XAmzContentSHA256Mismatch": Corrupted,
    "XAmzContentChecksumMismatch": Corrupted,
    "InvalidDigest": Corrupted,
}
_STATUS: dict[int, type[StoreError]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    405: NotSupported,
    408: ConnectionFailed,
    412: Changed,
    413: TooLarge,
    416: BadRange,
    429: Throttled,
    501: NotSupported,
    503: Throttled,
    507: QuotaExceeded,
}
_HINTS = {
    "InvalidAccessKeyId": "the store does not know this access key",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the store's",
    "InvalidObjectState": "it is in a cold storage class: s3fsx thaw brings it back",
    "PermanentRedirect": "the bucket lives at another endpoint or region",
    "TemporaryRedirect": "the bucket lives at another endpoint or region",
    "AuthorizationHeaderMalformed": "the region is probably wrong",
}
_LOCKED = re.compile(r"object[ -]?lock|\bWORM\b|legal hold|retention", re.IGNORECASE)

_OBJECT = re.compile(r"<(?:[^<>]|<locals>)* object at 0x[0-9a-f]+>:?\s*")  # urllib3 puts these into its texts
_WHERE = re.compile(r"\w+\(host='([^']*)', port=(\w+)\)")
_NESTED = re.compile(
    r"""^\('[^']*', \w+\((?:\d+, )?(["'])(.*)\1,?\)\)$"""
)  # ('Connection aborted.', Error(104, 'why'))
_NO_NEWS = re.compile(r"Failed to establish a new connection: |\[Errno -?\d+\] ")
# What plain HTTP gets from a port that speaks TLS: a close, a reset, or an answer of nginx or of Go.
_TLS_PORT = re.compile(r"closed connection without response|reset by peer|HTTPS (port|server)", re.IGNORECASE)


class Unusable(ValueError):
    """An answer that no honest store gives; the text says what is wrong with it. Comes out as ServerFault."""


class Unproven(NotFound):
    """A 404 to a HEAD, which has no body, without a sign that it comes from S3: a proxy says that, too."""


class Redirected(Exception):
    """To another host or region. Comes out as Rejected."""


# Exception classes by name, the most special first, and what to say before their text.
_FAILURES: tuple[tuple[str, type[S3fsxError], str], ...] = (
    ("NoCredentialsError", AccessDenied, "no credentials found: set access_key and secret_key, or credentials_file"),
    ("PartialCredentialsError", AccessDenied, "incomplete credentials"),
    ("CredentialRetrievalError", AccessDenied, "credentials cannot be fetched"),
    ("TokenRetrievalError", AccessDenied, "credentials cannot be fetched"),
    ("Redirected", Rejected, ""),
    ("Unusable", ServerFault, "unusable answer"),
    ("ProfileNotFound", ConfigError, ""),
    ("InvalidProxiesConfigError", ConfigError, "proxy"),
    ("InvalidRegionError", ConfigError, ""),
    ("InvalidEndpointConfigurationError", ConfigError, ""),
    ("ParamValidationError", Rejected, "not a valid request"),
    ("InvalidBucketNameError", ConfigError, ""),
    ("FlexibleChecksumError", Corrupted, "the answer's checksum is wrong"),
    ("ProxyConnectionError", ConnectionFailed, "the proxy cannot be reached"),
    ("SSLError", ConnectionFailed, "TLS"),
    ("CertificateError", ConnectionFailed, "TLS"),  # urllib3 1.26's of a wrong host name
    (
        "NewConnectionError",
        ConnectionFailed,
        "cannot connect",
    ),  # urllib3's, some versions of which have it below the next
    ("ConnectTimeoutError", ConnectionFailed, "no connection in time"),
    ("ReadTimeoutError", ConnectionFailed, "no answer in time"),
    ("EndpointConnectionError", ConnectionFailed, "cannot connect"),
    ("ConnectionClosedError", ConnectionFailed, "connection lost"),
    ("IncompleteReadError", ConnectionFailed, "answer cut short"),
    ("ResponseStreamingError", ConnectionFailed, "answer cut short"),
    ("HTTPClientError", ConnectionFailed, ""),
    ("ResponseParserError", ServerFault, "unreadable answer"),
    ("UnicodeError", Rejected, "not a valid name"),
    ("HTTPError", ConnectionFailed, ""),  # urllib3's base
    ("HTTPException", ConnectionFailed, ""),
    ("TimeoutError", ConnectionFailed, "no answer in time"),
    ("OSError", ConnectionFailed, ""),
)
_FAILED_FOR_GOOD = (
    ("certificate has expired", "the store's certificate has expired: renew it there (verify_tls=false to ignore)"),
    ("hostname mismatch", "the store's certificate is for another host name: use the name in it as endpoint"),
    ("ip address mismatch", "the store's certificate is for another host name: use the name in it as endpoint"),
    ("doesn't match", "the store's certificate is for another host name: use the name in it as endpoint"),
    ("certificate verify failed", "the store's certificate is not trusted: check ca_file (verify_tls=false to ignore)"),
    ("certificate_verify_failed", "the store's certificate is not trusted: check ca_file (verify_tls=false to ignore)"),
    ("wrong_version_number", "the endpoint does not speak TLS: should it be http://?"),
    ("wrong version number", "the endpoint does not speak TLS: should it be http://?"),
)


def one_line(text: str) -> str:
    """Printable, one line, bounded."""
    text = text.strip()
    if text.isprintable() and len(text) <= MAX_MESSAGE:
        return text
    flat = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)
    return flat if len(flat) <= MAX_MESSAGE else flat[: MAX_MESSAGE - 1] + "…"


def from_answer(what: str, status: int, code: str, message: str = "", retry_after: float | None = None) -> StoreError:
    """The error for an answer that is not a success. A 2xx status here is an error document with a good status."""
    kind = _CODES.get(code)
    if kind is None:
        default = ServerFault if status >= 500 or status < 300 else Rejected
        kind = _STATUS.get(status, default)
    if kind is AccessDenied and _LOCKED.search(message):
        kind = ObjectLocked
    said = ": ".join(part for part in (_HINTS.get(code, ""), message) if part)
    head = f"{status} {code}" if code and code != str(status) else str(status)
    text = one_line(f"{what}: {head}: {said}" if said else f"{what}: {head}")
    if issubclass(kind, Transient):
        return kind(text, retry_after=retry_after)
    return kind(text)


def no_document(what: str) -> ServerFault:
    """A 404 whose body is no error document of S3: a proxy that is just being reloaded says that, of any object."""
    return ServerFault(one_line(f"{what}: 404 from something that is not S3 (a proxy? the wrong endpoint?)"))


def from_failure(what: str, kinds: Sequence[str], reason: str) -> S3fsxError:
    """The error for a request without a usable answer.

    kinds: the exception's class names, its own first, then its bases'. reason: its text.
    """
    reason = _WHERE.sub(r"\1:\2", _OBJECT.sub("", reason))
    reason = _NESTED.sub(r"\2", reason)
    if "NoCredentialsError" in kinds:
        reason = ""  # "Unable to locate credentials"
    elif "ProxyConnectionError" in kinds:
        reason = _NO_NEWS.sub("", reason)
    for name, kind, lead in _FAILURES:
        if name not in kinds:
            continue
        if name in ("SSLError", "CertificateError"):
            for sign, advice in _FAILED_FOR_GOOD:
                if sign in reason.lower():
                    return Rejected(one_line(f"{what}: {advice}"))
        return kind(one_line(": ".join(part for part in (what, lead, reason) if part)))
    return ServerFault(one_line(f"{what}: unusable answer: {kinds[0]}: {reason}"))


def may_want_tls(endpoint: str, reason: str) -> bool:
    """Whether this failure looks like http:// to a port for https://."""
    return endpoint.startswith("http://") and _TLS_PORT.search(reason) is not None


def seconds_to_wait(header: str | None) -> float | None:
    """Retry-After in seconds; the form with a date is not worth a clock comparison."""
    return float(header) if header and re.fullmatch(r"\s*[0-9]{1,9}\s*", header) else None
