"""The three formats of a credentials file. Pure; no message quotes the file, which is full of secrets.

TOML      access_key = "…", secret_key = "…", session_token = "…" (or their aliases)
s3fs      KEY:SECRET on a line of its own, or BUCKET:KEY:SECRET for one bucket
AWS       [profile] with aws_access_key_id, aws_secret_access_key, aws_session_token
"""

from __future__ import annotations

import configparser
import tomllib
from dataclasses import dataclass, field

from ..errors import ConfigError
from . import aliases

_NAMES = ("access_key", "secret_key", "session_token")


@dataclass(frozen=True)
class Credentials:
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def parse(text: str, origin: str, *, bucket: str = "", profile: str = "") -> Credentials:
    """The keys in ``text``; bucket and profile choose among several. Raises ConfigError."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and line[0] not in "#;"]
    if not lines:
        raise ConfigError(f"{origin}: no keys in it")
    if lines[0].startswith("["):
        return _aws(text, origin, profile or "default")
    if profile:
        raise ConfigError(f"{origin}: profile = {profile!r} needs a file with a [{profile}] section")
    if "=" in lines[0].partition(":")[0]:
        return _toml(text, origin)
    return _s3fs(lines, origin, bucket)


def _toml(text: str, origin: str) -> Credentials:
    try:
        pairs = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise ConfigError(f'{origin}: not TOML; use access_key = "…" and secret_key = "…"') from None
    return _made(pairs, origin)


def _aws(text: str, origin: str, profile: str) -> Credentials:
    parser = configparser.RawConfigParser(default_section="\0", strict=True)
    try:
        parser.read_string(text)
    except configparser.Error:
        raise ConfigError(f"{origin}: not an AWS credentials file") from None
    if not parser.has_section(profile):
        raise ConfigError(f"{origin}: no section [{profile[:60]}]")
    return _made({name: value for name, value in parser.items(profile) if _is_key(name)}, origin)


def _s3fs(lines: list[str], origin: str, bucket: str) -> Credentials:
    general: list[str] = []
    for line in lines:
        fields = line.split(":", 2)
        if len(fields) == 3 and fields[0] == bucket:
            return _made(dict(zip(_NAMES, fields[1:], strict=False)), origin)
        if len(fields) == 2:
            general = general or fields
    if not general:
        raise ConfigError(f"{origin}: no line KEY:SECRET or {bucket or 'BUCKET'}:KEY:SECRET")
    return _made(dict(zip(_NAMES, general, strict=False)), origin)


def _made(pairs: dict[str, object] | dict[str, str], origin: str) -> Credentials:
    found: dict[str, str] = {}
    for name, raw in pairs.items():
        if not _is_key(name):
            raise ConfigError(f"{origin}: {name[:60]} does not belong into a credentials file; use {', '.join(_NAMES)}")
        target, value = aliases.read(name, raw, origin)
        found[target] = value
    if not found.get("access_key") or not found.get("secret_key"):
        raise ConfigError(f"{origin}: access_key and secret_key are both needed")
    return Credentials(**found)


def _is_key(name: str) -> bool:
    return aliases.target(name) in _NAMES
