"""``s3fsx pve remove``: the storage, the mount and what they left on this node. The bucket is never touched.

The order is such that it can be called off until everything is known to be in the bucket: Proxmox is told to use the
storage no more, the mount publishes what it has and ends, and only when its journal is empty anything is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ..browse.tables import human
from ..configuration import config
from ..configuration.settings import Settings
from ..errors import ConfigError, S3fsxError
from ..kernel import mountpoint
from ..service.status import read_status, socket_path
from . import files, unfinished
from .host import Host
from .places import Places
from .plan import KIND
from .setting_up import daemon_env, sections
from .storagecfg import Section, switched_on

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Wish:
    """leave: only this node; the storage and what the cluster shares stay. keep_config: so do configuration and keys.
    force: also while other nodes have the storage set up."""

    leave: bool = False
    keep_config: bool = False
    force: bool = False


def remove(wish: Wish, places: Places, host: Host, say: Say) -> None:
    """Raises ConfigError for what is refused, S3fsxError for what failed; what is not in the bucket
    is never removed."""
    section = sections(places).get(places.name)
    if section is not None and section.kind != KIND:
        raise ConfigError(f"{places.name} is a storage of type {section.kind}: pvesm remove {places.name}")
    settings = _settings(places, wish)
    if settings is None and section is None and not os.path.lexists(places.link) and not os.path.lexists(places.toml):
        raise ConfigError(f"{places.name}: no such storage of s3fsx on this node")
    path = (section.properties.get("path", "").rstrip("/") if section else "") or places.mountpoint
    others = [] if wish.leave else _other_nodes(places, host)
    if others and not wish.force:
        raise ConfigError(
            f"{', '.join(others)} still mount it: there, first: s3fsx pve remove {places.name} --leave "
            "(or --force, when they are gone for good)"
        )
    if settings is not None:
        _refuse_undrained(settings, path)
    ours = None if wish.leave else section
    _drain(places, host, settings, ours, say)
    if ours is not None:
        host.pvesm(["remove", places.name])
        say(f"pvesm remove {places.name}")
    _clear(wish, places, host, settings, path, say)


def _settings(places: Places, wish: Wish) -> Settings | None:
    """None where this node has no configuration. Raises ConfigError for one that cannot be used: it says where the
    journal is, and what is not in the bucket yet needs both it and the keys."""
    try:
        return config.load(places.name, env=daemon_env(places)).settings
    except ConfigError as error:
        if wish.keep_config or not os.path.exists(places.link):
            return None
        raise ConfigError(
            f"{error}: without its configuration it cannot be seen what is not in the bucket yet, nothing was changed; "
            "mend it, or leave configuration, keys and journal where they are: --keep-config"
        ) from None


def _other_nodes(places: Places, host: Host) -> list[str]:
    try:
        return [node for node in sorted(os.listdir(places.nodes)) if node != host.node] if places.shared else []
    except OSError:
        return []


def _refuse_undrained(settings: Settings, path: str) -> None:
    """Before anything is changed: a store that is down takes nothing of what waits for it."""
    try:
        document = read_status(socket_path(settings.runtime_dir, path))
    except S3fsxError:
        return  # no daemon; its journal is looked at afterwards
    endpoint, state = document.get("endpoint"), document.get("files")
    down = isinstance(endpoint, dict) and endpoint.get("down")
    waiting = state.get("unpublished_bytes", 0) if isinstance(state, dict) else 0
    if down and waiting:
        raise S3fsxError(
            f"{human(waiting)} are not in the bucket yet, and the store does not answer: nothing was changed; try "
            "again when it does ('s3fsx status' shows it)"
        )


def _drain(places: Places, host: Host, settings: Settings | None, section: Section | None, say: Say) -> None:
    disabled = section is not None and not switched_on(section.properties.get("disable", "0"))
    if disabled:
        host.pvesm(["set", places.name, "--disable", "1"])
        say(f"pvesm set {places.name} --disable 1")
    try:
        was_active = host.is_active(places.unit)
        host.stop(places.unit)
        say(f"systemctl stop {places.unit}: unmounted, everything published")
        try:
            _refuse_unfinished(places, settings)
        except S3fsxError:
            if was_active:
                host.start(places.unit)
            raise
    except BaseException:
        if disabled:
            host.pvesm(["set", places.name, "--delete", "disable"])
            say(f"pvesm set {places.name} --delete disable")
        raise
    host.disable(places.unit)


def _refuse_unfinished(places: Places, settings: Settings | None) -> None:
    left = unfinished.left(settings) if settings is not None else []
    if left:
        raise S3fsxError(
            f"{left[0]}{f', and {len(left) - 1} more' if len(left) > 1 else ''}: nothing was removed; mount it "
            f"once more when the store answers, or see 's3fsx recover {places.name}'"
        )


def _clear(wish: Wish, places: Places, host: Host, settings: Settings | None, path: str, say: Say) -> None:
    if settings is not None:  # first: a mount that has begun meanwhile is refused, and needs all the rest
        for directory in unfinished.remove_directories(settings):
            say(f"removed {directory}")
    gone = [places.drop_in]
    if not wish.keep_config:
        gone.append(places.link)
        gone += [] if wish.leave else [places.toml, places.keys]
    if places.shared:
        gone.append(os.path.join(places.nodes, host.node))
        if not wish.leave:
            gone += [os.path.join(places.nodes, node) for node in _other_nodes(places, host)]
    for file in dict.fromkeys(gone):
        if os.path.lexists(file):
            files.remove(file)
            say(f"removed {file}")
    for directory in (os.path.dirname(places.drop_in), places.nodes if places.shared else ""):
        if directory and os.path.isdir(directory):
            files.remove_directory(directory)
    host.reload()
    if mountpoint.absolute(path) in mountpoint.mounted():
        say(f"{path}: something is still mounted there; left")
    elif os.path.isdir(path):
        say(f"removed {path}" if files.remove_directory(path) else f"{path}: not empty; left")
    bucket = f"s3://{settings.bucket}/{settings.prefix}" if settings is not None else "the bucket"
    say(f"{bucket} is as it was")
