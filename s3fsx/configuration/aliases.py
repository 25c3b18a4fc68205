"""Names and values as people type them: aliases, spelling, and one error line per mistake. Pure.

Dashes count as underscores and case does not. ``ALIASES`` are the names under which admins of s3fs, mountpoint-s3, the
Proxmox S3 plugins and the AWS tools know a setting; a name that means something else elsewhere (s3fs' ``endpoint`` is a
region) is not among them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from . import values
from .settings import SCHEMA
from .values import MIB


@dataclass(frozen=True)
class Alias:
    """Another name of a setting. ``convert`` turns its raw value into one of the setting's; None: the same."""

    target: str
    known_from: str
    convert: Callable[[object], object] | None = None
    note: str = ""


def _mebibytes(raw: object) -> object:
    return values.size(0, plain_unit=MIB).parse(raw)


def _retries(raw: object) -> object:
    return values.integer(0, 19).parse(raw) + 1


def _path_style(raw: object) -> object:
    return "path" if values.flag().parse(raw) else "virtual"


def _inverted(raw: object) -> object:
    return not values.flag().parse(raw)


def _use_sse(raw: object) -> object:
    if str(raw).lower() in ("true", "1", ""):
        return "AES256"
    raise ValueError("use sse=AES256, or sse=aws:kms with sse_kms_key_id")


ALIASES: Mapping[str, Alias] = {
    "access_key_id": Alias("access_key", "AWS"),
    "aws_access_key_id": Alias("access_key", "AWS"),
    "secret_access_key": Alias("secret_key", "AWS"),
    "aws_secret_access_key": Alias("secret_key", "AWS"),
    "aws_session_token": Alias("session_token", "AWS"),
    "aws_profile": Alias("profile", "AWS"),
    "ca_bundle": Alias("ca_file", "AWS"),
    "endpoint_url": Alias("endpoint", "AWS, mountpoint-s3"),
    "force_path_style": Alias("addressing", "mountpoint-s3, rclone", _path_style, "true = path, false = virtual"),
    "path_style": Alias("addressing", "ProxS3", _path_style, "true = path, false = virtual"),
    "use_path_request_style": Alias("addressing", "s3fs", _path_style, "true = path, false = virtual"),
    "url": Alias("endpoint", "s3fs"),
    "passwd_file": Alias("credentials_file", "s3fs"),
    "no_check_certificate": Alias("verify_tls", "s3fs", _inverted, "inverted"),
    "verify_ssl": Alias("verify_tls", "AWS"),
    "use_sse": Alias("sse", "s3fs", _use_sse, "without a value or 1 = AES256"),
    "multipart_size": Alias("part_size", "s3fs", _mebibytes, "a plain number is MiB"),
    "multipart_chunk_size": Alias("part_size", "S3 plugin", _mebibytes, "a plain number is MiB"),
    "part_size_mb": Alias("part_size", "ProxS3", _mebibytes, "a plain number is MiB"),
    "parallel_count": Alias("max_uploads", "s3fs"),
    "max_concurrent_uploads": Alias("max_uploads", "S3 plugin"),
    "max_concurrent_downloads": Alias("max_downloads", "S3 plugin"),
    "connection_timeout": Alias("connect_timeout", "S3 plugin"),
    "readwrite_timeout": Alias("read_timeout", "s3fs"),
    "max_retries": Alias("attempts", "S3 plugin", _retries, "attempts is one more"),
    "retries": Alias("attempts", "s3fs", _retries, "attempts is one more"),
    "server_side_encryption": Alias("sse", "S3 plugin"),
    "kms_key_id": Alias("sse_kms_key_id", "S3 plugin"),
    "mp_umask": Alias("umask", "s3fs"),
    "stat_cache_expire": Alias("attr_ttl", "s3fs"),
    "logfile": Alias("log_file", "s3fs"),
}


def canonical(name: str) -> str:
    """The spelling of a key: case and dashes do not count."""
    return name.strip().lower().replace("-", "_")


def target(name: str) -> str:
    """The setting that ``name`` means; a name that means none comes back in canonical spelling."""
    key = canonical(name)
    alias = ALIASES.get(key)
    return alias.target if alias else key


def read(name: str, raw: object, origin: str) -> tuple[str, Any]:
    """The setting that ``name`` (possibly an alias) means and its parsed value.

    Raises ConfigError, in one line with origin, key, value and what is allowed; a secret's value is not in it.
    """
    key = canonical(name)
    alias = ALIASES.get(key)
    row = SCHEMA.get(alias.target if alias else key)
    if row is None:
        raise ConfigError(f"{origin}: unknown setting {name[:60]!r}{nearest(key)}")
    try:
        converted = alias.convert(raw) if alias and alias.convert else raw
        return row.name, row.kind.parse(converted)
    except ValueError as error:
        if row.name in ("proxy", "endpoint") and isinstance(raw, str):
            raw = values.without_userinfo(raw)
        shown = "(hidden)" if row.secret else quoted(raw)
        raise ConfigError(f"{origin}: {name[:60]} = {shown}: {error}") from None


def nearest(key: str) -> str:
    """``; did you mean 'part_size'?``, or a pointer to the list when nothing is near."""
    near = difflib.get_close_matches(key, [*SCHEMA, *ALIASES], n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else "; 's3fsx config show' lists all settings"


def quoted(raw: object) -> str:
    """A raw value for a message: one line, at most 80 characters."""
    shown = str(raw)
    shown = repr(shown) if isinstance(raw, str) else shown.replace("\n", " ")
    return shown if len(shown) <= 80 else shown[:77] + "..."
