"""How to reach the store: plain values, already validated by the configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

BUCKET_RULE = "a name of 3 to 63 lower-case letters, digits, dots and dashes, at both ends a letter or digit"
_NEVER = r"(?!.*\.\.)(?![0-9.]*$)"  # the second: what looks like an IP address
_BUCKET = rf"{_NEVER}[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9]"
# Amazon's first region had these until 2018, and what was made then is there; Ceph has a setting that allows them.
OLD_BUCKET = rf"{_NEVER}[A-Za-z0-9_][A-Za-z0-9._-]{{1,253}}[A-Za-z0-9_]"


def is_bucket_name(name: str) -> bool:
    """Whether every store takes it: BUCKET_RULE."""
    return re.fullmatch(_BUCKET, name) is not None


@dataclass(frozen=True, slots=True)
class S3Options:
    """Times are seconds. Secrets stay out of ``repr`` and therefore out of logs.

    endpoint: URL, "" for Amazon's own of the region.
    access_key, secret_key: None for the AWS credential chain (environment, profile, instance role).
    addressing: "path", "virtual", or "auto" (path with an endpoint of one's own, else virtual).
    ca_file: PEM bundle instead of the system's. proxy: URL, "" for the environment's.
    sse: "", "AES256" or "aws:kms"; sse_kms_key_id: "" for the bucket's default key.
    connect_timeout: also the limit for sending one block of a body (BLOCK in ``body``), see there.
    attempts: per call, where the call is not one that goes on until its deadline (parts and publishing).
    """

    bucket: str
    endpoint: str = ""
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    addressing: str = "auto"
    ca_file: str | None = None
    verify_tls: bool = True
    proxy: str = field(default="", repr=False)
    storage_class: str = ""
    sse: str = ""
    sse_kms_key_id: str = ""
    max_uploads: int = 16
    max_downloads: int = 8
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    attempts: int = 5
    metadata_deadline: float = 10.0
    read_deadline: float = 60.0
    write_deadline: float = 120.0


def is_aws(endpoint: str) -> bool:
    """Amazon itself, as opposed to a compatible store."""
    host = urlsplit(endpoint).hostname or ""
    return not endpoint or host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
