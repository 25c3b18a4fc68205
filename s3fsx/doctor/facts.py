"""What a doctor has looked at. Pure: gathered elsewhere, judged by ``rules``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FAULT, WARNING, NOTE = "FAULT", "warning", "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """severity: FAULT (it does not work, or something will be lost), WARNING or NOTE. where: NAME, a directory, "" for
    the machine. what: one line. fix: what to do, best a command; "" where what says it."""

    severity: str
    where: str
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """versions: of what matters, "" for what is not there. fuse: "" when /dev/fuse can be opened, else why not."""

    versions: Mapping[str, str]
    root: bool
    fuse: str


@dataclass(frozen=True, slots=True)
class Disk:
    """Where a directory of s3fsx lies. free: bytes for this user. kind: of the file system. trouble: "" or why it can
    not be used."""

    path: str
    free: int
    kind: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Store:
    """How it answered to one listing. seconds: how long that took. error: "" or the line that a mount would give. kind:
    the class of that error. skew: seconds its clock is ahead."""

    seconds: float
    error: str = ""
    kind: str = ""
    skew: float | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """Of systemd. state: as ``systemctl is-active`` says. enabled: as ``is-enabled``."""

    name: str
    state: str
    enabled: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A section of storage.cfg that lies on the mount point."""

    name: str
    kind: str
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Subject:
    """One storage: configured, mounted, or both.

    name: NAME of its configuration, "" for a mount without. config_error: "" or why that cannot be used. address: which
    bucket, and where. path: its mount point, "" where none is known. dead: its daemon has ended. status: the daemon's
    document, or {"error": why}. beneath: how many entries are in the directory while nothing is mounted there.
    unfinished: what the journal has while nothing is mounted. tuning: name -> (value, what it should at least be).
    log: its last warnings and errors.
    """

    name: str
    config_error: str = ""
    address: str = ""
    read_only: bool = False
    path: str = ""
    mounted: bool = False
    dead: bool = False
    status: Mapping[str, Any] = field(default_factory=dict)
    store: Store | None = None
    disks: tuple[Disk, ...] = ()
    beneath: int = 0
    unfinished: tuple[str, ...] = ()
    unit: Unit | None = None
    storage: Storage | None = None
    tuning: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    log: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.name or self.path or self.address


@dataclass(frozen=True, slots=True)
class Facts:
    machine: Machine
    subjects: tuple[Subject, ...]
    notes: tuple[str, ...] = ()
