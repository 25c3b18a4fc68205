"""From files, environment, SOURCE and -o to one checked Settings; every value knows where it came from.

Later layers win: defaults, DIR/s3fsx.toml, DIR/NAME.toml, S3FSX_* variables, SOURCE s3://bucket/prefix, -o. DIR is
/etc/s3fsx, or $S3FSX_CONFIG_DIR. Everything outside comes in through ``env`` and ``read_file``.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..layout import Layout
from ..s3.options import BUCKET_RULE, S3Options, is_aws, is_bucket_name
from . import aliases, credentials, mountopts
from .configfile import ConfigFile, FileReader, Unreadable, read_file
from .schema import Setting
from .settings import AWS_STORAGE_CLASSES, SCHEMA, Settings
from .values import is_local, show_size

log = logging.getLogger("s3fsx.config")

CONFIG_DIR = "/etc/s3fsx"
COMMON = "s3fsx"
_OLDEST = "us-east-1"  # Amazon's region that has buckets with old names
ENV_PREFIX = "S3FSX_"
# For s3fsx itself: where things are (pve/places.py); S3FSX_TEST_*: for its test suite.
_NOT_SETTINGS = ("S3FSX_CONFIG_DIR", "S3FSX_PVE_DIR", "S3FSX_UNIT_DIR", "S3FSX_TEST_")
_KEYS = ("access_key", "secret_key", "session_token")


@dataclass(frozen=True)
class Effective:
    """A value and the layer it came from ("default", a path, a variable, "SOURCE", "-o")."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Config:
    """settings, and for each of them (in the order of SCHEMA) the effective value with its origin."""

    settings: Settings
    effective: Mapping[str, Effective]


@dataclass(frozen=True)
class _Given:
    value: Any
    origin: str
    rank: int


def load(
    source: str | None,
    options: Sequence[str] = (),
    *,
    env: Mapping[str, str] = os.environ,
    read_file: FileReader = read_file,
) -> Config:
    """The configuration of SOURCE. None (for ``config show``) leaves out NAME.toml and needs no bucket.

    Raises ConfigError, one line that names layer, key, value and what is allowed.
    """
    given: dict[str, _Given] = {}
    directory = env.get("S3FSX_CONFIG_DIR") or CONFIG_DIR
    layers = [_toml(os.path.join(directory, COMMON + ".toml"), read_file, missing_ok=True)]
    where: dict[str, object] = {}
    if source is not None:
        if source.startswith("s3://"):
            where = _address(source)
        else:
            layers.append(_named(source, directory, read_file))
    layers += [_environment(env), [(name, value, "SOURCE") for name, value in where.items()]]
    for rank, layer in enumerate(layers):
        _merge(given, layer, rank)
    for name, value, origin in _options(options):  # one by one: among options the last one wins, as in mount(8)
        _merge(given, [(name, value, origin)], len(layers))
    _choose_credentials(given, read_file)
    settings = Settings(**{name: item.value for name, item in given.items()})
    effective = {
        name: Effective(getattr(settings, name), given[name].origin if name in given else "default") for name in SCHEMA
    }
    check(settings, {name: item.origin for name, item in effective.items()}, need_bucket=source is not None)
    _check_ca_file(settings, effective["ca_file"].origin, read_file)
    if not settings.access_key:
        _check_aws_files(env, read_file)
    return Config(settings, effective)


def runtime_dir(
    options: Sequence[str] = (), *, env: Mapping[str, str] = os.environ, read_file: FileReader = read_file
) -> str:
    """Where the status sockets are. Nothing else that is wrong with files or environment matters to who asks for this.

    Raises ConfigError for a bad -o or a bad value.
    """
    given: dict[str, _Given] = {}
    common = os.path.join(env.get("S3FSX_CONFIG_DIR") or CONFIG_DIR, COMMON + ".toml")
    try:
        layers = [_toml(common, read_file, missing_ok=True)]
    except ConfigError as error:
        log.debug("%s; left out", error)
        layers = []
    layers += [_environment(env)]
    for rank, layer in enumerate(layers):
        _merge(given, [item for item in layer if aliases.target(item[0]) == "runtime_dir"], rank)
    for name, value, origin in _options(options):
        _merge(given, [(name, value, origin)], len(layers))
    return str(given["runtime_dir"].value) if "runtime_dir" in given else Settings().runtime_dir


_Layer = list[tuple[str, object, str]]


def _toml(path: str, read: FileReader, *, missing_ok: bool = False) -> _Layer:
    try:
        file = read(path)
    except FileNotFoundError:
        if missing_ok:
            return []
        raise
    except Unreadable as error:
        if not missing_ok:
            raise
        log.debug("%s; left out", error)  # root's, and of no concern to a user who mounts his own
        return []
    file.require_own()
    try:
        pairs = tomllib.loads(file.text)
    except tomllib.TOMLDecodeError as error:
        # Only where: what tomllib says can quote the line, which may hold a secret.
        place = re.search(r"\(at .*\)$", str(error))
        raise ConfigError(f"{path}: not valid TOML {place[0] if place else ''}".rstrip()) from None
    _require_private(file, pairs)
    return [(name, value, path) for name, value in pairs.items()]


def _require_private(file: ConfigFile, pairs: Mapping[str, object]) -> None:
    for name, value in pairs.items():
        row = SCHEMA.get(aliases.target(name))
        if row is not None and (row.secret or _has_userinfo(row, value)):
            file.require_private()


def _has_userinfo(row: Setting, value: object) -> bool:
    return row.name == "proxy" and isinstance(value, str) and "@" in value


def _named(source: str, directory: str, read: FileReader) -> _Layer:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", source) or source == COMMON:
        raise ConfigError(f"{source[:80]!r}: SOURCE is s3://BUCKET[/PREFIX] or the NAME of {directory}/NAME.toml")
    path = os.path.join(directory, source + ".toml")
    try:
        return _toml(path, read)
    except FileNotFoundError:
        hint = "leave out .toml" if source.endswith(".toml") else "SOURCE is its NAME, or s3://BUCKET[/PREFIX]"
        raise ConfigError(f"{path}: no such file; {hint}") from None
    except Unreadable as error:
        raise ConfigError(f"{error}; S3FSX_CONFIG_DIR names another directory") from None


def _address(source: str) -> dict[str, object]:
    bucket, slash, prefix = source.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"{source[:80]!r}: no bucket; SOURCE is s3://BUCKET[/PREFIX]")
    return {"bucket": bucket, "prefix": prefix} if slash and prefix.strip("/") else {"bucket": bucket}


def _environment(env: Mapping[str, str]) -> _Layer:
    return [
        (name.removeprefix(ENV_PREFIX).lower(), value, name)
        for name, value in sorted(env.items())
        if name.startswith(ENV_PREFIX) and not name.startswith(_NOT_SETTINGS)
    ]


def _options(options: Sequence[str]) -> _Layer:
    pairs = mountopts.parse(options)
    for name, value in pairs:
        row = SCHEMA.get(aliases.target(name))
        if row is not None and (row.secret or _has_userinfo(row, value)):
            raise ConfigError(
                f"-o: {name[:60]} is refused, as every user can read a command line; put it into "
                f"{CONFIG_DIR}/NAME.toml with mode 0600, or into {ENV_PREFIX}{row.name.upper()}"
            )
    return [(name, value, "-o") for name, value in pairs]


def _merge(given: dict[str, _Given], layer: _Layer, rank: int) -> None:
    spelled: dict[str, str] = {}
    for name, raw, origin in layer:
        key, value = aliases.read(name, raw, origin)
        if key in spelled and given[key].value != value:
            raise ConfigError(f"{origin}: {spelled[key]} and {name} both set {key}, differently; keep one")
        spelled[key] = name
        given[key] = _Given(value, origin, rank)


def _choose_credentials(given: dict[str, _Given], read: FileReader) -> None:
    """Keys, or the file with the keys: the later layer wins, as with any other setting."""
    file = given.get("credentials_file")
    if file is None or not file.value:
        return
    keys = [given[name] for name in _KEYS if name in given and given[name].value]
    if any(key.rank == file.rank for key in keys):
        raise ConfigError(f"{file.origin}: access_key or secret_key beside credentials_file; keep one")
    if any(key.rank > file.rank for key in keys):
        del given["credentials_file"]
        return
    try:
        content = read(file.value)
    except FileNotFoundError:
        raise ConfigError(f"{file.origin}: credentials_file = {file.value}: no such file") from None
    content.require_private()
    bucket, profile = (given[name].value if name in given else "" for name in ("bucket", "profile"))
    found = credentials.parse(content.text, file.value, bucket=bucket, profile=profile)
    for name in _KEYS:
        given[name] = _Given(getattr(found, name), file.value, file.rank)


def _check_aws_files(env: Mapping[str, str], read: FileReader) -> None:
    """The files botocore takes keys from obey the same rule as ours. The AWS tools make them with mode 0600."""
    if env.get("AWS_ACCESS_KEY_ID"):
        return
    for variable, name in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")):
        path = env.get(variable) or (os.path.join(env["HOME"], ".aws", name) if env.get("HOME") else "")
        try:
            file = read(os.path.expanduser(path)) if path else None
        except (FileNotFoundError, ConfigError):
            continue  # botocore has its own words for it, should it matter
        if file is not None and re.search(r"aws_(secret_access_key|session_token)", file.text):
            file.require_private()


def secret_variables(env: Mapping[str, str]) -> list[str]:
    """The variables of ours that hold secrets, by name. (AWS_* are not ours: botocore reads them, and later.)"""
    names = [name for name in env if name.startswith(ENV_PREFIX)]
    rows = {name: SCHEMA.get(aliases.target(name.removeprefix(ENV_PREFIX).lower())) for name in names}
    return [name for name, row in rows.items() if row is not None and (row.secret or row.name == "proxy")]


def check(settings: Settings, origins: Mapping[str, str], *, need_bucket: bool = True) -> None:
    """What no single value shows. Raises ConfigError."""

    def refuse(name: str, why: str) -> None:
        raise ConfigError(f"{origins[name]}: {name}: {why}")

    s = settings
    if need_bucket and not s.bucket:
        raise ConfigError('no bucket: use SOURCE s3://BUCKET, or bucket = "…" in the configuration file')
    if is_aws(s.endpoint) and s.region != _OLDEST and s.bucket and not is_bucket_name(s.bucket):
        refuse("bucket", f"{s.bucket} cannot be one: Amazon's in {s.region} have {BUCKET_RULE}")
    if bool(s.access_key) != bool(s.secret_key):
        have, lack = ("access_key", "secret_key") if s.access_key else ("secret_key", "access_key")
        refuse(have, f"{lack} is missing")
    if s.session_token and not s.access_key:
        refuse("session_token", "access_key and secret_key are missing")
    if s.sse_kms_key_id and s.sse != "aws:kms":
        refuse("sse_kms_key_id", "needs sse = aws:kms")
    if is_aws(s.endpoint) and s.storage_class and s.storage_class not in AWS_STORAGE_CLASSES:
        refuse("storage_class", f"{s.storage_class} is none of Amazon's: {', '.join(AWS_STORAGE_CLASSES)}")
    if s.part_size > s.memory_budget // 4:
        refuse(
            "part_size",
            f"{show_size(s.part_size)} is more than a quarter of memory_budget {show_size(s.memory_budget)}",
        )
    if (
        s.read_ahead > s.memory_budget // 2 and origins["read_ahead"] != "default"
    ):  # the default is cut to what there is
        refuse(
            "read_ahead", f"{show_size(s.read_ahead)} is more than half of memory_budget {show_size(s.memory_budget)}"
        )
    if s.metrics_listen and not s.metrics_public and not is_local(s.metrics_listen):
        refuse("metrics_listen", f"{s.metrics_listen} is for other machines, too: set metrics_public, or use 127.0.0.1")
    try:
        Layout(s.prefix, s.layout)
    except ConfigError as error:
        name = "layout" if str(error).startswith("layout") else "prefix"
        raise ConfigError(f"{origins[name]}: {error}") from None


def _check_ca_file(settings: Settings, origin: str, read: FileReader) -> None:
    if not settings.ca_file or not settings.verify_tls:
        return
    where = f"{origin}: ca_file = {settings.ca_file}"
    try:
        # Parsed as OpenSSL will parse it, which ignores whatever stands between the certificates.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=read(settings.ca_file).text)
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file") from None
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"{where}: no certificate in PEM form in it") from None
    except ConfigError as error:
        raise ConfigError(f"{origin}: ca_file: {error}") from None


def to_s3_options(settings: Settings) -> S3Options:
    """What the store needs to know; empty keys become None, which means the AWS credential chain."""
    return S3Options(
        bucket=settings.bucket,
        endpoint=settings.endpoint,
        region=settings.region,
        access_key=settings.access_key or None,
        secret_key=settings.secret_key or None,
        session_token=settings.session_token or None,
        # The profile of a credentials_file has done its work; botocore would look for it in ~/.aws.
        profile=None if settings.credentials_file else settings.profile or None,
        addressing=addressing(settings),
        ca_file=settings.ca_file or None,
        verify_tls=settings.verify_tls,
        proxy=settings.proxy,
        storage_class=settings.storage_class,
        sse=settings.sse,
        sse_kms_key_id=settings.sse_kms_key_id,
        max_uploads=settings.max_uploads,
        max_downloads=settings.max_downloads,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        attempts=settings.attempts,
        metadata_deadline=settings.metadata_deadline,
        read_deadline=settings.read_deadline,
        write_deadline=settings.write_deadline,
    )


def addressing(settings: Settings) -> str:
    """ "path" or "virtual": what auto means for this endpoint and bucket.

    A dot in the bucket name breaks the wildcard certificate of virtual-host addresses.
    """
    if settings.addressing != "auto":
        return settings.addressing
    return "virtual" if is_aws(settings.endpoint) and "." not in settings.bucket else "path"
