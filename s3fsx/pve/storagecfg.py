"""Proxmox' storage.cfg, as far as s3fsx reads it: sections, storage ids, content types, prune rules. Pure.

The file is only read. What changes in it is changed by pvesm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError

CONTENT = ("backup", "import", "iso", "snippets", "vztmpl")
_DISKS = ("images", "rootdir")
_KEEP = ("keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly")
# pve-common, JSONSchema.pm: pve-storage-id; and what a configuration of ours may be called.
_ID = r"[A-Za-z][A-Za-z0-9_.-]{0,98}[A-Za-z0-9]"
_NODE = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_COMMON = "s3fsx"  # /etc/s3fsx/s3fsx.toml is what all mounts have in common


@dataclass(frozen=True, slots=True)
class Section:
    """One storage. properties: as text; one without a value is "1", as a switch."""

    kind: str
    name: str
    properties: Mapping[str, str]


def parse(text: str) -> tuple[Section, ...]:
    """The sections in their order (pve-common, SectionConfig.pm). What is no section and no property is passed over, as
    Proxmox does after a warning; a property of no section, too."""
    sections: list[Section] = []
    properties: dict[str, str] | None = None
    for line in text.splitlines():
        if header := re.fullmatch(r"(\S+):\s*(\S+)\s*", line):
            properties = {}
            sections.append(Section(header[1], header[2], properties))
        elif not line.strip():
            properties = None
        elif properties is not None and (pair := re.fullmatch(r"\s+(\S+)(?:\s+(.*\S))?\s*", line)):
            properties[pair[1]] = pair[2] if pair[2] is not None else "1"
    return tuple(sections)


def check_name(name: str) -> str:
    """A storage id that is also the NAME of a configuration. Raises ConfigError."""
    if not re.fullmatch(_ID, name) or name.lower() == _COMMON:
        raise ConfigError(
            f"{name[:60]!r}: a storage is named with a letter first, then letters, digits, dots, dashes and "
            f"underscores, 2 to 100 in all, and not {_COMMON}"
        )
    return name


def content(text: str) -> tuple[str, ...]:
    """Content types, sorted. Raises ConfigError; disks of guests are refused with the reason."""
    found = tuple(sorted({item for item in re.split(r"[,;\s]+", text.strip()) if item}))
    if disks := [item for item in found if item in _DISKS]:
        raise ConfigError(
            f"content {','.join(disks)}: disks of guests do not work on s3fsx (random writes into large files fail); "
            f"use {','.join(CONTENT)}"
        )
    if not found or (unknown := [item for item in found if item not in CONTENT]):
        raise ConfigError(f"content {','.join(unknown) if found else '(empty)'}: use some of {','.join(CONTENT)}")
    return found


def prune(text: str) -> str:
    """Prune rules as Proxmox writes them, "" for none. Raises ConfigError."""
    if not text.strip():
        return ""
    found: dict[str, str] = {}
    for item in text.replace(" ", "").split(","):
        name, equals, number = item.partition("=")
        if not equals or name not in (*_KEEP, "keep-all") or not re.fullmatch(r"[0-9]{1,6}", number):
            raise ConfigError(f"prune-backups {item[:40]!r}: use {', '.join(f'{k}=N' for k in _KEEP)}, or keep-all=1")
        if name in found:
            raise ConfigError(f"prune-backups: {name} is there twice")
        found[name] = number
    if "keep-all" in found and (len(found) > 1 or found["keep-all"] != "1"):
        raise ConfigError("prune-backups: keep-all=1 stands alone")
    if "keep-all" not in found and not any(int(number) for number in found.values()):
        raise ConfigError("prune-backups: keeps nothing; every backup would go")
    return ",".join(f"{name}={found[name]}" for name in ("keep-all", *_KEEP) if name in found)


def nodes(text: str) -> tuple[str, ...]:
    """Names of nodes, sorted; none for all. Raises ConfigError."""
    found = tuple(sorted({item for item in re.split(r"[,;\s]+", text.strip()) if item}))
    if bad := [item for item in found if not re.fullmatch(_NODE, item)]:
        raise ConfigError(f"node {bad[0][:60]!r}: letters, digits and dashes only")
    return found


def switched_on(value: str) -> bool:
    """pve-common, JSONSchema.pm: parse_boolean."""
    return value.strip().lower() in ("1", "on", "yes", "true")
