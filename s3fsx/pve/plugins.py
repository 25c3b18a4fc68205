"""Storages of other S3 plugins for Proxmox, as they stand in storage.cfg, as what s3fsx would be told. Pure.

Known are the three code bases of the Perl "S3 plugin" (type s3; underscores: access_key, multipart_chunk_size), ProxS3
(type s3; dashes: access-key, use-ssl) and the plugin of s3fsx itself. No message holds the value of a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..configuration import aliases
from ..configuration.credentials import Credentials
from ..configuration.settings import SCHEMA, Settings
from ..errors import ConfigError
from ..s3.options import is_aws
from . import storagecfg
from .storagecfg import Section, switched_on

KINDS = ("s3", "s3fsx")
PROXS3, PLUGIN, OURS = "ProxS3", "the Perl S3 plugin", "the plugin of s3fsx"

# What each plugin calls something that is no setting of s3fsx, and what becomes of it.
_ELSEWHERE = {
    "shared": "always so",
    "create_bucket": "s3fsx never makes a bucket",
    "format": "there are no disks of guests",
    "preallocation": "there are no disks of guests",
    "bwlimit": "set it in datacenter.cfg or vzdump.conf",
    "max-protected-backups": "pvesm set NAME --max-protected-backups N",
    "retry_delay": "s3fsx chooses it",
    "metadata_encryption": "not there",
    "expiration_days": "deletes backups behind Proxmox' back: use prune-backups",
    "cache-max-age": "s3fsx keeps no backups on the local disk",
    "cache-max-age-days": "s3fsx keeps no backups on the local disk",
    "max_backups": "the older name of prune-backups: keep-last",
    "maxfiles": "the older name of prune-backups: keep-last",
    "path": "the new storage has a directory of its own",
    "is_mountpoint": "always so",
}
_TAKEN = (
    *("endpoint", "s3_port", "use_ssl", "use-ssl", "bucket", "region", "prefix", "content", "prune-backups", "nodes"),
    *("access_key", "secret_key", "session_token", "access-key", "secret-key", "session-token"),
    *("lifecycle_enabled", "transition_days", "glacier_days", "disable"),
)
_AS_SETTING = (
    *("storage_class", "server_side_encryption", "kms_key_id", "multipart_chunk_size", "max_concurrent_uploads"),
    *("max_concurrent_downloads", "connection_timeout", "read_timeout", "max_retries", "path-style", "part-size-mb"),
)
_RETRIES = "retry_count"  # the plugin's other name of max_retries


@dataclass(frozen=True, slots=True)
class Translated:
    """plugin: whose storage it was. settings: of a configuration file, without keys. keys: those in storage.cfg itself.
    remarks: what is left to a person, a line each."""

    name: str
    plugin: str
    settings: Mapping[str, str]
    content: tuple[str, ...]
    prune: str
    nodes: tuple[str, ...]
    keys: Credentials | None = field(repr=False)
    remarks: tuple[str, ...] = ()


def translate(section: Section) -> Translated:
    """Raises ConfigError for a section that no known plugin wrote, or that has no bucket."""
    given = section.properties
    if section.kind not in KINDS:
        raise ConfigError(f"{section.name} is a storage of type {section.kind}, of none of the known S3 plugins")
    if not given.get("bucket"):
        raise ConfigError(f"{section.name}: no bucket in its section of storage.cfg")
    plugin = _plugin(section)
    remarks: list[str] = []
    settings = {"bucket": given["bucket"], **_where(given, plugin, remarks), **_tuning(given, remarks)}
    prefix = given.get("prefix", "proxmox/" if plugin == PLUGIN else "").strip("/")
    if prefix:
        settings["prefix"] = prefix
    if plugin == PLUGIN:
        if "prefix" not in given:
            remarks.append("prefix: left out there, which means proxmox/ to that plugin")
        remarks.append("one of its versions wrote backups under backup/ and not dump/: then add -o layout=dump=backup/")
    for name in given:
        if name in _ELSEWHERE:
            remarks.append(f"{name}: {_ELSEWHERE[name]}")
        elif name not in (*_TAKEN, *_AS_SETTING, _RETRIES):
            remarks.append(f"{name}: not known, left out")
    if switched_on(given.get("lifecycle_enabled", "0")):
        days = [f"--{n.replace('_', '-')} {given[n]}" for n in ("transition_days", "glacier_days") if n in given]
        remarks.append(f"lifecycle: s3fsx pve lifecycle NAME {' '.join(days)}".rstrip())
    if switched_on(given.get("disable", "0")):
        remarks.append("disable: it is disabled there; the new one is not")
    order = [name for name in SCHEMA if name in settings]
    return Translated(
        section.name,
        plugin,
        {name: settings[name] for name in order},
        _content(given, remarks),
        _prune(given, remarks),
        storagecfg.nodes(given.get("nodes", "")),
        _keys(given),
        tuple(remarks),
    )


def _plugin(section: Section) -> str:
    if section.kind == "s3fsx":
        return OURS
    dashed = {
        "access-key",
        "secret-key",
        "use-ssl",
        "path-style",
        "part-size-mb",
        "cache-max-age",
        "cache-max-age-days",
    }
    underscored = {name for name in section.properties if "_" in name}
    return PROXS3 if dashed & set(section.properties) or not underscored else PLUGIN


def _where(given: Mapping[str, str], plugin: str, remarks: list[str]) -> dict[str, str]:
    endpoint, region = given.get("endpoint", ""), given.get("region", "")
    if endpoint and not re.match(r"https?://", endpoint):
        tls = given.get("use-ssl", given.get("use_ssl"))
        if tls is None:
            remarks.append(f"endpoint: {endpoint} says no scheme; https:// is taken")
        scheme = "https" if tls is None or switched_on(tls) else "http"
        port = given.get("s3_port", "")
        endpoint = f"{scheme}://{endpoint}" + (f":{port}" if port and not re.search(r":[0-9]+$", endpoint) else "")
    found: dict[str, str] = {}
    endpoint = str(aliases.read("endpoint", endpoint, "storage.cfg")[1])
    if endpoint and not is_aws(endpoint):
        found["endpoint"] = endpoint
    if region:
        found["region"] = str(aliases.read("region", region, "storage.cfg")[1])
    elif plugin == OURS and not endpoint:
        remarks.append("region: left out there, us-east-1 is taken")
    return found


def _tuning(given: Mapping[str, str], remarks: list[str]) -> dict[str, str]:
    pairs = {name: given[name] for name in _AS_SETTING if name in given}
    if _RETRIES in given:
        pairs["max_retries"] = given[_RETRIES]
    found: dict[str, str] = {}
    for name, raw in pairs.items():
        try:
            key, value = aliases.read(name, raw, "storage.cfg")
        except ConfigError as error:
            remarks.append(f"{str(error).removeprefix('storage.cfg: ')}; left out")
            continue
        found[key] = SCHEMA[key].kind.show(value)
    part = SCHEMA["part_size"].kind.parse(found.get("part_size", "8MiB"))
    if part > Settings().memory_budget // 4:  # config.check wants four parts to fit
        found["memory_budget"] = SCHEMA["memory_budget"].kind.show(4 * part)
        remarks.append(
            f"memory_budget: {found['memory_budget']}, four times the part size; smaller parts need less memory"
        )
    return found


def _content(given: Mapping[str, str], remarks: list[str]) -> tuple[str, ...]:
    wanted = {item for item in re.split(r"[,;\s]+", given.get("content", "backup")) if item}
    if left := sorted(wanted - set(storagecfg.CONTENT)):
        remarks.append(f"content {','.join(left)}: left out; disks of guests do not work on s3fsx")
    return tuple(sorted(wanted & set(storagecfg.CONTENT))) or ("backup",)


def _prune(given: Mapping[str, str], remarks: list[str]) -> str:
    rules = given.get("prune-backups", "")
    if not rules:
        older = given.get("max_backups", given.get("maxfiles", ""))
        rules = f"keep-last={older}" if older.isdigit() and int(older) else ""
    try:
        return storagecfg.prune(rules)
    except ConfigError as error:
        remarks.append(f"{error}; left out")
        return ""


def _keys(given: Mapping[str, str]) -> Credentials | None:
    access = given.get("access_key") or given.get("access-key")
    secret = given.get("secret_key") or given.get("secret-key")
    token = given.get("session_token") or given.get("session-token") or ""
    return Credentials(access, secret, token) if access and secret else None


def command(found: Translated, name: str) -> str:
    """The command that sets the same up, for a person; with a place for the keys, never with them."""
    words = ["s3fsx", "pve", "setup", name]
    words += [] if "endpoint" in found.settings else ["--provider", "aws"]
    for setting in ("endpoint", "region", "bucket", "prefix"):
        words += [f"--{setting}", found.settings[setting]] if setting in found.settings else []
    words += ["--content", ",".join(found.content)]
    words += ["--prune-backups", found.prune] if found.prune else []
    words += ["--nodes", ",".join(found.nodes)] if found.nodes else []
    for setting, value in found.settings.items():
        words += ["-o", f"{setting}={value}"] if setting not in ("endpoint", "region", "bucket", "prefix") else []
    return " ".join([*words, "--keys-file", "FILE"])
