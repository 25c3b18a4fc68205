"""``s3fsx pve setup``: from what was asked for to a storage that Proxmox shows; all of it or nothing.

A second run converges: what is as it should be is left alone, what is missing is made, what is different is refused
unless it is forced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from ..configuration import config
from ..configuration.configfile import ConfigFile, FileReader, read_file
from ..configuration.credentials import Credentials
from ..configuration.settings import Settings
from ..errors import ConfigError, S3fsxError
from ..kernel import mountpoint
from ..service import launch
from ..service.check import check_store
from . import lifecycle, plan, unfinished
from .asking import as_text
from .bucketrules import BucketRules, seen
from .files import Text, make_directories
from .host import Host, wait_mounted
from .places import Places
from .plan import Storage
from .steps import Steps
from .storagecfg import Section, parse

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Wish:
    """settings: of the configuration file, without keys. keys: None leaves the file with keys as it is, or does without
    one. storage: None on a node that joins, where the cluster has it already."""

    settings: Mapping[str, str]
    keys: Credentials | None = field(repr=False)
    storage: Storage | None
    path: str
    join: bool = False
    force: bool = False
    dry: bool = False


def sections(places: Places) -> dict[str, Section]:
    """What storage.cfg has, by name. Raises ConfigError when it cannot be read."""
    try:
        with open(places.storage_cfg, encoding="utf-8") as file:
            return {section.name: section for section in parse(file.read())}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{places.storage_cfg}: {error}") from None


def set_up(wish: Wish, places: Places, host: Host, say: Say) -> None:
    """Raises ConfigError for what is refused, S3fsxError for what failed; then everything is as it was before."""
    files = _files(wish, places)
    settings = _load(places, files)
    section = sections(places).get(places.name)
    changes = wish.storage.differs(section) if wish.storage is not None and section is not None else {}
    before = _before(places)
    if wish.join and section is None:
        raise ConfigError(f"--join: the cluster has no storage {places.name} yet: s3fsx pve setup {places.name} first")
    _refuse_difference(wish, files, changes)
    _refuse_risks(wish, settings, places)
    _look_at_directory(wish, settings)
    if not host.knows(places.unit):
        raise ConfigError(
            f"the unit {places.unit} is not installed: cp contrib/systemd/s3fsx@.service /etc/systemd/system/ (the "
            "Debian package has it)"
        )
    say(launch.address(settings))
    if wish.dry:
        say("dry run: the store is not asked, nothing is changed")
    else:
        trio.run(check_store, settings, lambda event: say(str(event)))
        _look_at_rules(wish, settings, places, say)
    with Steps(say, dry=wish.dry) as steps:
        changed = [file for file in files if not file.is_there()]
        unit = _Unit(places, host, active=host.is_active(places.unit))
        if changed:
            steps.afterwards(f"restart {places.unit}", unit.as_before)
        if any(file.path == places.drop_in for file in changed):
            steps.afterwards("systemctl daemon-reload", host.reload)
        for file in files:
            if file not in changed:
                steps.already(file.path)
                continue
            steps.do(f"link {file.path} -> {file.content}" if file.link else f"write {file.path}", file.put)
            if wish.dry and file.path == places.toml:
                for line in file.content.splitlines():
                    say(f"    {line}")
        _mount(wish, settings, before, unit, steps, changed=bool(changed))
        if wish.storage is None:
            return
        if section is None:
            steps.do(f"pvesm {' '.join(wish.storage.add())}", partial(_add, host, wish.storage))
        elif changes:
            undo = {name: section.properties[name] for name in changes if name in section.properties}
            steps.do(
                f"pvesm {' '.join(wish.storage.change(changes))}", partial(_change, host, wish.storage, changes, undo)
            )
        else:
            steps.already(f"storage {places.name}")


def _files(wish: Wish, places: Places) -> list[Text]:
    """In the order in which they are written; the configuration first where it is shared, last where it is not."""
    files = []
    settings = dict(wish.settings)
    if not wish.join:
        keys = as_text(wish.keys) if wish.keys is not None else None
        if keys is not None or os.path.exists(places.keys):
            settings["credentials_file"] = places.keys
        text = plan.toml(settings, f"The S3 storage {places.name}: written by s3fsx pve setup; may be edited.")
        files.append(Text(places.toml, text))
        if keys is not None:
            files.insert(0 if not places.shared else 1, Text(places.keys, keys))
    if places.shared:
        files.append(Text(places.link, places.toml, link=True))
    if wish.path != places.mountpoint:
        files.append(Text(places.drop_in, plan.drop_in(wish.path)))
    return files


def _load(places: Places, files: list[Text]) -> Settings:
    """The settings that a mount would have once the files are there. Raises ConfigError."""
    planned = {file.path: file.content for file in files if not file.link}
    try:
        planned[places.link] = planned[places.toml] if places.toml in planned else read_file(places.toml).text
    except FileNotFoundError:
        raise ConfigError(f"{places.toml}: no such file; the first node is set up without --join") from None
    return config.load(places.name, env=daemon_env(places), read_file=_overlay(planned)).settings


def daemon_env(places: Places) -> dict[str, str]:
    """The environment of the unit: nothing of whoever calls."""
    return {"S3FSX_CONFIG_DIR": places.config_dir, "HOME": "/root"}


def _overlay(planned: Mapping[str, str]) -> FileReader:
    def read(path: str) -> ConfigFile:
        return ConfigFile(path, planned[path]) if path in planned else read_file(path)

    return read


def _before(places: Places) -> Settings | None:
    """The settings of the configuration that is there, if there is one that works."""
    try:
        return config.load(places.name, env=daemon_env(places)).settings
    except (ConfigError, OSError):
        return None


def _refuse_difference(wish: Wish, files: list[Text], changes: Mapping[str, str]) -> None:
    if wish.force:
        return
    for file in files:
        if os.path.lexists(file.path) and not file.is_there():
            raise ConfigError(f"{file.path} is there and says something else; --force replaces it")
    if changes:
        what = ", ".join(f"{name} {value}" for name, value in changes.items())
        raise ConfigError(f"the storage is there with other settings than {what}; --force changes them")


def _refuse_risks(wish: Wish, settings: Settings, places: Places) -> None:
    """What would lose data."""
    found = plan.risks(settings)
    for name in _others(places):
        try:
            other = config.load(name, env=daemon_env(places)).settings
        except (ConfigError, OSError):
            continue  # a mount of it would fail as well
        if plan.overlap(settings, other):
            found.append(
                f"{places.config_dir}/{name}.toml is for the same keys, s3://{other.bucket}/{other.prefix}: each would "
                "list and prune the backups of the other; use another prefix"
            )
    _refuse(wish, found)


def _refuse(wish: Wish, found: list[str]) -> None:
    if found and not wish.force:
        raise ConfigError(f"{found[0]} (--force does it all the same)")


def _others(places: Places) -> list[str]:
    try:
        names = sorted(os.listdir(places.config_dir))
    except OSError:
        return []
    found = [name.removesuffix(".toml") for name in names if name.endswith(".toml")]
    return [name for name in found if name not in (places.name, config.COMMON)]


def _look_at_directory(wish: Wish, settings: Settings) -> None:
    path = mountpoint.absolute(wish.path)
    if mountpoint.is_mounted(path, settings.bucket, settings.prefix):
        return
    entry = mountpoint.table().get(path)
    if entry is not None:
        if entry.kind != mountpoint.FSTYPE:
            raise ConfigError(f"{path}: a {entry.kind} is mounted there: unmount it, or use another --mountpoint")
        if not wish.force:
            raise ConfigError(f"{path}: {entry.source} is mounted there; --force replaces it by this one")
        return
    try:
        left = os.listdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if left:
        raise ConfigError(
            f"{path}: not empty ({left[0]!r} and so on), and the mount would hide what is there: move it away"
        )


def _look_at_rules(wish: Wish, settings: Settings, places: Places, say: Say) -> None:
    rules, why = seen(BucketRules(settings))
    if why:
        say(f"lifecycle            {why}: whether a rule deletes backups is not known")
        return
    say(f"lifecycle            {len(rules)} rules")
    found = [*lifecycle.deleting(rules, settings.prefix), *lifecycle.freezing(rules, settings.prefix, places.name)]
    for line in found:
        say(f"note                 {line}")
    _refuse(wish, found)


@dataclass(slots=True)
class _Unit:
    """The unit of the storage. active: it ran when we came. restarted: with what was changed."""

    places: Places
    host: Host
    active: bool
    restarted: bool = False

    def start(self) -> Callable[[], None]:
        try:
            self.host.start(self.places.unit)
        except BaseException:
            self.host.stop(self.places.unit)  # it would be tried again every 5 s
            raise
        return lambda: self.host.stop(self.places.unit)

    def enable(self) -> Callable[[], None]:
        self.host.enable(self.places.unit)
        return lambda: self.host.disable(self.places.unit)

    def restart(self, before: Settings | None, after: Settings) -> None:
        self.restarted = True
        self.host.restart(self.places.unit)
        if before is None or unfinished.identity(before) == unfinished.identity(after):
            return
        if left := unfinished.left(before):
            raise S3fsxError(
                f"{left[0]}: with another bucket, prefix or endpoint nothing would finish it; try again when the store "
                "answers"
            )

    def as_before(self) -> None:
        if self.restarted:
            self.host.restart(self.places.unit)


def _mount(
    wish: Wish, settings: Settings, before: Settings | None, unit: _Unit, steps: Steps, *, changed: bool
) -> None:
    places, host = unit.places, unit.host
    if not os.path.isdir(wish.path):
        steps.do(f"make {wish.path}", partial(make_directories, wish.path, 0o755))
    if changed and wish.path != places.mountpoint:
        steps.do("systemctl daemon-reload", host.reload)
    if not host.is_enabled(places.unit):
        steps.do(f"systemctl enable {places.unit}", unit.enable)
    if not unit.active:
        steps.do(f"systemctl start {places.unit}", unit.start)
    elif changed:
        steps.do(f"systemctl restart {places.unit}", partial(unit.restart, before, settings))
    else:
        steps.already(places.unit)
    if places.shared:
        marker = Text(os.path.join(places.nodes, host.node), "")
        if not marker.is_there():
            steps.do(f"write {marker.path}", marker.put)
    if not steps.dry:
        wait_mounted(wish.path, settings.bucket, settings.prefix)


def _add(host: Host, storage: Storage) -> Callable[[], None]:
    host.pvesm(storage.add())
    return lambda: host.pvesm(["remove", storage.name])


def _change(host: Host, storage: Storage, changes: Mapping[str, str], undo: Mapping[str, str]) -> Callable[[], None]:
    host.pvesm(storage.change(changes))
    return lambda: host.pvesm(storage.change(undo))
