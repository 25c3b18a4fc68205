"""What vzdump calls its archives, and what Proxmox reads out of such a name (PVE::Storage::archive_info). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from ..errors import ConfigError

# PVE::Storage, BACKUP_EXT_RE_2.
_ARCHIVE = re.compile(r"(?P<stem>[^/]+)\.(?P<ext>tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst|bz2))?)")
_GUEST = re.compile(r"vzdump-(lxc|openvz|qemu)-.+")
_VMID = re.compile(r"vzdump-(?:lxc|openvz|qemu)-([1-9][0-9]{2,8})-.*")
_STANDARD = re.compile(
    r"vzdump-(?:lxc|openvz|qemu)-[1-9][0-9]{2,8}-([0-9]{4})_([0-9]{2})_([0-9]{2})-([0-9]{2})_([0-9]{2})_([0-9]{2})"
)
_KINDS = {"qemu": "vm", "lxc": "ct", "openvz": "ct"}
_SHOWN = 5  # candidates of an ambiguous name


@dataclass(frozen=True, slots=True)
class Archive:
    """kind: "qemu", "lxc", "openvz", or "" for a name that is none of vzdump's. when: Unix seconds, of the local time
    in the name; None where the name is not of the standard form (Proxmox calls it renamed, and prunes it never).
    format: "vma" or "tar". compression: "", "gz", "lzo", "zst" or "bz2"."""

    name: str
    kind: str
    vmid: int | None
    when: float | None
    format: str
    compression: str

    @property
    def guest(self) -> str:
        """ "vm/100", "ct/101", "?" where the name does not tell."""
        return f"{_KINDS[self.kind]}/{self.vmid}" if self.kind and self.vmid is not None else "?"

    @property
    def log(self) -> str:
        """The name of vzdump's log of it; "" where the name is not of the standard form."""
        return f"{self._stem}.log" if self.when is not None else ""

    @property
    def notes(self) -> str:
        return f"{self.name}.notes"

    @property
    def protected(self) -> str:
        return f"{self.name}.protected"

    @property
    def _stem(self) -> str:
        match = _ARCHIVE.fullmatch(self.name)
        return match["stem"] if match else self.name


def parse(name: str) -> Archive | None:
    """None for what Proxmox does not list as a backup."""
    match = _ARCHIVE.fullmatch(name)
    if match is None:
        return None
    extension, _, compression = match["ext"].partition(".")
    if extension == "tgz":
        extension, compression = "tar", "gz"
    guest, vmid = _GUEST.fullmatch(match["stem"]), _VMID.fullmatch(match["stem"])
    return Archive(
        name,
        guest[1] if guest else "",
        int(vmid[1]) if vmid else None,
        _local_time(match["stem"]),
        extension,
        compression,
    )


def _local_time(stem: str) -> float | None:
    match = _STANDARD.fullmatch(stem)
    if match is None:
        return None
    try:
        year, month, day, hour, minute, second = map(int, match.groups())
        return datetime(year, month, day, hour, minute, second).timestamp()
    except (ValueError, OverflowError):
        return None  # the 30th of February


def choose(text: str, names: list[str]) -> str:
    """The one of ``names`` that a person means: the whole name, with or without its directory (``dump/`` of the mount,
    ``backup/`` of a volume id), or a part that only one has. Raises ConfigError, with the candidates."""
    wanted = text.removeprefix("/").removeprefix("dump/").removeprefix("backup/")
    if wanted in names:
        return wanted
    found = sorted(name for name in names if wanted and wanted in name)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"{text[:200]!r}: no such backup; 's3fsx backups' lists them")
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ConfigError(f"{text[:200]!r}: which one? {', '.join(found[:_SHOWN])}{more}")
