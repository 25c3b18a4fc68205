"""How to reach the store: plain values, already validated by the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit


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
