"""What setting up a storage comes down to: files with their text, and the arguments of pvesm. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..configuration.settings import Settings
from ..errors import ConfigError
from ..s3.options import is_aws
from .storagecfg import Section, content, nodes, prune, switched_on

KIND = "dir"


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage as Proxmox knows it. prune: "" for Proxmox' default, which keeps everything. nodes: none for all."""

    name: str
    path: str
    content: tuple[str, ...] = ("backup",)
    prune: str = ""
    nodes: tuple[str, ...] = ()

    def _properties(self) -> dict[str, str]:
        # is_mountpoint: without it Proxmox makes the directory and fills the root disk when nothing is mounted there.
        # shared: every node sees what another wrote.
        given = {"is_mountpoint": "yes", "shared": "1", "content": ",".join(self.content)}
        given |= {"prune-backups": self.prune} if self.prune else {}
        return given | ({"nodes": ",".join(self.nodes)} if self.nodes else {})

    def add(self) -> list[str]:
        """The arguments of pvesm for a storage that is not there."""
        return ["add", KIND, self.name, "--path", self.path, *_flags(self._properties())]

    def differs(self, there: Section) -> dict[str, str]:
        """What has to be set so that ``there`` becomes this: property -> value. Raises ConfigError where pvesm cannot:
        a storage of another type or directory."""
        if there.kind != KIND:
            raise ConfigError(
                f"{self.name} is a storage of type {there.kind} already: choose another name, or pvesm remove "
                f"{self.name}"
            )
        path = there.properties.get("path", "")
        if path.rstrip("/") != self.path:
            raise ConfigError(
                f"the storage {self.name} has the path {path}, not {self.path}, and a path cannot be changed: "
                f"use --mountpoint {path}, another name, or pvesm remove {self.name}"
            )
        return {k: v for k, v in self._properties().items() if not _same(k, v, there.properties.get(k))}

    def change(self, properties: Mapping[str, str]) -> list[str]:
        """The arguments of pvesm that set what ``differs`` found."""
        return ["set", self.name, *_flags(properties)]


def _flags(properties: Mapping[str, str]) -> list[str]:
    return [word for name, value in properties.items() for word in (f"--{name}", value)]


def _same(name: str, wanted: str, there: str | None) -> bool:
    if there is None:
        return False
    if name in ("is_mountpoint", "shared"):
        return switched_on(there) == switched_on(wanted)
    if name in ("content", "nodes"):
        return set(there.split(",")) == set(wanted.split(","))
    try:
        return prune(there) == wanted
    except ConfigError:
        return False


def existing(section: Section) -> Storage:
    """What is in storage.cfg, for a second run that leaves something out. Raises ConfigError."""
    given = section.properties
    return Storage(
        section.name,
        given.get("path", "").rstrip("/"),
        content(given.get("content", "backup")),
        prune(given.get("prune-backups", "")),
        nodes(given.get("nodes", "")),
    )


def toml(settings: Mapping[str, str], *comments: str) -> str:
    """A configuration file; every value as a string, which each setting reads."""
    lines = [f"# {comment}" for comment in comments]
    return "\n".join([*lines, *(f"{name} = {quoted(value)}" for name, value in settings.items())]) + "\n"


def quoted(text: str) -> str:
    """A basic string of TOML: JSON's escapes are among TOML's, but for DEL, which JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def mount_directory(path: str) -> str:
    """A directory that Proxmox takes as path of a storage (DirPlugin.pm: check_config). Raises ConfigError."""
    clean = path.rstrip("/")
    if not re.fullmatch(r"/[-/a-zA-Z0-9_.]+", clean) or any(part in ("", ".", "..") for part in clean.split("/")[1:]):
        raise ConfigError(
            f"mountpoint {path[:80]!r}: an absolute path of letters, digits, dots, dashes and underscores"
        )
    return clean


def overlap(one: Settings, other: Settings) -> bool:
    """Whether two mounts see the same keys: Proxmox would show, and prune, the backups of both in both."""
    store = [(s.endpoint.lower() or "aws", s.bucket) for s in (one, other)]
    if is_aws(one.endpoint) and is_aws(other.endpoint):
        store = [("aws", s.bucket) for s in (one, other)]
    if store[0] != store[1]:
        return False
    return one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)


def risks(settings: Settings) -> list[str]:
    """What loses data or the use of it, though each setting by itself is right. One line each."""
    found = []
    if settings.storage_class in ("GLACIER", "DEEP_ARCHIVE"):
        found.append(
            f"storage_class {settings.storage_class}: notes, protection marks and backups could not be read back until "
            "they are restored by hand, for hours; leave it out and let 's3fsx pve lifecycle' move old backups"
        )
    if not settings.verify_tls:
        found.append("verify_tls = false: whoever is on the way gets and changes the backups; use ca_file")
    if settings.read_only:
        found.append("read_only is set: no backup can be written")
    return found


def drop_in(path: str) -> str:
    """The unit's mount point, where it is not /mnt/pve/NAME."""
    return f"# Written by s3fsx pve setup.\n[Service]\nEnvironment=MOUNTPOINT={path}\n"
