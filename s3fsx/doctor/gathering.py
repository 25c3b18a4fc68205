"""Looks at this machine. Blocks, never for long: no mount is looked into, and every program has a limit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from .. import __version__
from ..browse import source
from ..configuration import config
from ..configuration.settings import Settings
from ..errors import ConfigError, S3fsxError
from ..kernel import mountpoint, tuning
from ..local.journal import Journal
from ..pve.places import PVE_DIR, Places
from ..pve.setting_up import sections
from ..pve.storagecfg import Section
from ..service.launch import address
from ..service.state import state_directory, url
from ..service.status import read_status, socket_path
from .facts import Disk, Machine, Storage, Subject, Unit

_PROGRAM_LIMIT = 5.0
_STATUS_LIMIT = 2.0
_LOG_TAIL = 64 << 10
_LOG_LINES = 20
_SILENT = "its file system does not answer"
_LOUD = re.compile(r"(?:^|\s)(WARNING|ERROR|CRITICAL) ")


@dataclass(frozen=True, slots=True)
class Looked:
    """settings: None where they cannot be used."""

    subject: Subject
    settings: Settings | None


def machine() -> Machine:
    versions = {"s3fsx": __version__, "Python": platform.python_version(), "Linux": platform.release()}
    for name in ("pyfuse3", "trio", "boto3", "diskcache"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    fuse = ""
    try:
        os.close(os.open(mountpoint.DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        fuse = error.strerror or str(error)
    return Machine(versions, os.geteuid() == 0, fuse)


def storages(notes: list[str]) -> dict[str, Section]:
    """The storages of Proxmox on this host, none where it is not one."""
    try:
        return sections(Places.of("doctor"))
    except ConfigError as error:
        notes.append(str(error))
        return {}


def look(target: str, options: Sequence[str], notes: list[str]) -> list[Looked]:
    """target: NAME, a directory, s3://..., "" for all that is configured or mounted. Raises ConfigError where there is
    nothing of the kind, S3fsxError where Proxmox' own files, or what is above the directory, do not answer."""
    pve_dir = os.environ.get("S3FSX_PVE_DIR") or PVE_DIR
    if not mountpoint.answers(pve_dir):
        raise S3fsxError(f"{pve_dir}: {_SILENT}: systemctl restart pve-cluster; s3fsx status does not need it")
    known = storages(notes)
    mounts = {path: entry for path, entry in mountpoint.table().items() if entry.kind == mountpoint.FSTYPE}
    names = source.configured()
    if target.startswith("s3://"):
        return [_looked("", target, _path_of(config.load(target, options).settings, mounts), known, options)]
    if target.startswith(("/", "./", "../")) or target in (".", ".."):
        if not mountpoint.answers(above := os.path.dirname(os.path.abspath(target))):
            raise ConfigError(f"{above}: {_SILENT}")
        path = mountpoint.absolute(target)
        named = [name for name in names if _of_path(name, path, mounts, known, options)]
        if not named and path not in mounts:
            raise ConfigError(f"{path}: no s3fsx mount, and no configuration names it")
        return [_looked(name, name, path, known, options) for name in named] or [_looked("", "", path, known, options)]
    if target:
        return [_looked(target, target, _mountpoint(target, mounts, known, options), known, options)]
    found = [_looked(name, name, _mountpoint(name, mounts, known, options), known, options) for name in names]
    there = {item.subject.path for item in found if item.subject.mounted}
    return found + [_looked("", "", path, known, options) for path in sorted(mounts.keys() - there)]


def _settings(text: str, options: Sequence[str]) -> tuple[Settings | None, str]:
    try:
        return config.load(text, options).settings, ""
    except ConfigError as error:
        return None, str(error)


def _path_of(settings: Settings | None, mounts: Mapping[str, mountpoint.Entry]) -> str:
    if settings is None:
        return ""
    wanted = mountpoint.source_name(settings.bucket, settings.prefix)
    return next((path for path, entry in sorted(mounts.items()) if entry.source == wanted), "")


def _mountpoint(
    name: str, mounts: Mapping[str, mountpoint.Entry], known: Mapping[str, Section], options: Sequence[str]
) -> str:
    """Where it is mounted, else where it should be, as far as anything says so."""
    settings, _ = _settings(name, options)
    places = Places.of(name)
    if path := _path_of(settings, mounts):
        return path
    if name in known and known[name].properties.get("path"):
        return known[name].properties["path"].rstrip("/")
    try:
        drop_in = re.search(r"^Environment=MOUNTPOINT=(\S+)$", Path(places.drop_in).read_text(), re.MULTILINE)
    except OSError:
        drop_in = None
    if drop_in:
        return drop_in[1]
    if places.mountpoint in mounts:
        return places.mountpoint
    return places.mountpoint if mountpoint.answers(places.mountpoint) and os.path.isdir(places.mountpoint) else ""


def _of_path(
    name: str,
    path: str,
    mounts: Mapping[str, mountpoint.Entry],
    known: Mapping[str, Section],
    options: Sequence[str],
) -> bool:
    return _mountpoint(name, mounts, known, options) == path


def _looked(name: str, text: str, path: str, known: Mapping[str, Section], options: Sequence[str]) -> Looked:
    settings, refused = _settings(text, options) if text else (None, "")
    entry = mountpoint.table().get(path)
    mounted = entry is not None and entry.kind == mountpoint.FSTYPE
    subject = Subject(name, refused, path=path, mounted=mounted)
    storage = next((s for s in known.values() if path and s.properties.get("path", "").rstrip("/") == path), None)
    if storage is not None:
        subject = replace(subject, storage=Storage(storage.name, storage.kind, storage.properties))
    if name:
        subject = replace(subject, unit=unit(f"s3fsx@{name}.service"))
    if settings is not None:
        subject = replace(
            subject, address=address(settings), read_only=settings.read_only, disks=tuple(_disks(settings))
        )
    if mounted and entry is not None:
        dead = mountpoint.is_dead(path)
        runtime_dir = config.runtime_dir(options) if settings is None else settings.runtime_dir
        status = {} if dead else _status(path, runtime_dir)
        if name and settings is not None and _of_another(status, settings):
            return _looked_unmounted(subject, settings)
        subject = replace(
            subject,
            address=subject.address or entry.source,
            dead=dead,
            status=status,
            tuning=_tuning(entry.device) if not dead and os.geteuid() == 0 else {},
        )
    else:
        subject = replace(subject, beneath=_beneath(path), unfinished=_unfinished(settings))
    return Looked(replace(subject, log=_log(settings, subject)), settings)


def _of_another(status: Mapping[str, Any], settings: Settings) -> bool:
    """Whether the mount of this bucket and prefix goes to another store: mountinfo does not say which."""
    endpoint = status.get("endpoint")
    return isinstance(endpoint, dict) and endpoint.get("url") not in (None, url(settings))


def _looked_unmounted(subject: Subject, settings: Settings) -> Looked:
    subject = replace(subject, path="", mounted=False, storage=None, unfinished=_unfinished(settings))
    return Looked(replace(subject, log=_log(settings, subject)), settings)


def _status(path: str, runtime_dir: str) -> Mapping[str, Any]:
    try:
        return read_status(socket_path(runtime_dir, path), _STATUS_LIMIT)
    except S3fsxError as error:
        return {"error": str(error)}


def _tuning(device: str) -> dict[str, tuple[int, int]]:
    _, _, minor = device.partition(":")
    wanted = {
        "read_ahead_kb": (f"/sys/class/bdi/{device}/read_ahead_kb", tuning.READ_AHEAD_KB),
        "max_background": (f"/sys/fs/fuse/connections/{minor}/max_background", tuning.MAX_BACKGROUND),
    }
    found = {}
    for name, (file, least) in wanted.items():
        try:
            found[name] = (int(Path(file).read_text()), least)
        except (OSError, ValueError):
            continue  # fusectl is not mounted, or a container hides it
    return found


def _beneath(path: str) -> int:
    """Of a directory where nothing of ours is mounted."""
    try:
        there = path and path not in mountpoint.mounted() and mountpoint.answers(path)
        return len(os.listdir(path)) if there else 0
    except OSError:
        return 0


def _unfinished(settings: Settings | None) -> tuple[str, ...]:
    """Paths in the journal, which is not locked for it."""
    if settings is None or not mountpoint.answers(settings.state_dir):
        return ()
    try:
        return trio.run(_in_journal, state_directory(settings))
    except S3fsxError:
        return ()  # the mount will say it


async def _in_journal(directory: str) -> tuple[str, ...]:
    journal = await trio.to_thread.run_sync(Journal.look, directory)
    if journal is None:
        return ()
    try:
        records, intents = await journal.records(), await journal.intents()
        return (*(record.path for record in records), *(intent.path for intent in intents))
    finally:
        journal.close()


def _disks(settings: Settings) -> list[Disk]:
    seen: dict[int, Disk] = {}
    for path in (settings.state_dir, settings.cache_dir):
        if not mountpoint.answers(path):
            seen[-len(seen) - 1] = Disk(path, 0, "", _SILENT)
            continue
        there = path
        while not os.path.isdir(there) and there != "/":
            there = os.path.dirname(there) or "/"
        try:
            device, space = os.stat(there).st_dev, os.statvfs(there)
        except OSError as error:
            seen[-len(seen) - 1] = Disk(path, 0, "", error.strerror or str(error))
            continue
        trouble = "on a file system that is mounted read-only" if space.f_flag & os.ST_RDONLY else ""
        if not trouble and not os.access(there, os.W_OK | os.X_OK):
            trouble = f"no right to write into {there}"
        if path == settings.state_dir or device not in seen:
            seen.setdefault(device, Disk(path, space.f_bavail * space.f_frsize, _kind_of(there), trouble))
    return list(seen.values())


def _kind_of(path: str) -> str:
    here, path = mountpoint.mounted(), os.path.realpath(path)
    while path not in here and path != "/":
        path = os.path.dirname(path)
    return here.get(path, "")


def program(*command: str) -> str | None:
    """What it says; None where it is not there, failed or took too long."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_PROGRAM_LIMIT
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def unit(name: str) -> Unit | None:
    said = program("systemctl", "show", "-p", "LoadState,ActiveState,UnitFileState", name)
    found = dict(line.split("=", 1) for line in (said or "").splitlines() if "=" in line)
    if found.get("LoadState") != "loaded":
        return None
    return Unit(name, found.get("ActiveState", ""), found.get("UnitFileState", ""))


def _log(settings: Settings | None, subject: Subject) -> tuple[str, ...]:
    text = ""
    if settings is not None and settings.log_file:
        try:
            if not mountpoint.answers(settings.log_file):
                return ()
            with open(settings.log_file, "rb", opener=_without_waiting) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
                text = file.read(_LOG_TAIL).decode(errors="replace")
        except OSError:
            text = ""
    elif subject.unit is not None:
        text = program("journalctl", "-u", subject.unit.name, "-n", "200", "-o", "cat", "--no-pager") or ""
    return tuple(line for line in text.splitlines() if _LOUD.search(line))[-_LOG_LINES:]


def _without_waiting(path: str, flags: int) -> int:
    """For a pipe, which has nobody at its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def mounts() -> str:
    """A line for each mount of FUSE."""
    table = mountpoint.table().items()
    return "".join(f"{path} {entry.kind} {entry.source}\n" for path, entry in table if entry.kind.startswith("fuse"))
