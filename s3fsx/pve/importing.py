"""``s3fsx pve import``: storages of other S3 plugins, shown as storages of s3fsx, or set up beside the old ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace

from ..configuration import credentials
from ..configuration.configfile import MAX_SIZE
from ..configuration.credentials import Credentials
from ..errors import ConfigError
from . import plan, plugins, storagecfg
from .host import Host
from .places import Places
from .plan import Storage
from .plugins import PROXS3, Translated
from .setting_up import Wish, set_up

Say = Callable[[str], object]


def read(file: str, name: str, pve_dir: str) -> tuple[Translated, ...]:
    """The storages of S3 plugins in a storage.cfg; name: only this one, "" for all. Raises ConfigError."""
    try:
        with open(file, encoding="utf-8") as source:
            sections = storagecfg.parse(source.read(MAX_SIZE))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    if name:
        chosen = [section for section in sections if section.name == name]
        if not chosen:
            raise ConfigError(f"{file}: no storage {name[:60]!r} in it")
    else:
        chosen = [section for section in sections if section.kind in plugins.KINDS]
        if not chosen:
            raise ConfigError(f"{file}: no storage of an S3 plugin in it (types {', '.join(plugins.KINDS)})")
    found = [plugins.translate(section) for section in chosen]
    return tuple(replace(one, keys=one.keys or _kept_elsewhere(one, pve_dir)) for one in found)


def _kept_elsewhere(found: Translated, pve_dir: str) -> Credentials | None:
    """Where plugins put keys that are not in storage.cfg."""
    if found.plugin == PROXS3:
        path = os.path.join(pve_dir, "priv", "proxs3", f"{found.name}.json")
    else:
        path = os.path.join(pve_dir, "priv", "storage", f"{found.name}.s3fsx")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_SIZE)
    except OSError:
        return None
    if found.plugin != PROXS3:
        return credentials.parse(text, path, bucket=found.settings["bucket"])
    try:
        pairs = json.loads(text)
        return Credentials(str(pairs["access_key"]), str(pairs["secret_key"]))
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: not the keys of {PROXS3}") from None


def new_name(found: Translated) -> str:
    """Beside the old storage, whose id is taken as long as it is there."""
    return f"{found.name}-s3fsx"


def show(found: Translated, name: str, say: Say) -> None:
    """For a person; keys are never shown."""
    say(f"{found.name}: of {found.plugin}, as s3fsx storage {name}")
    for line in plan.toml(found.settings).splitlines():
        say(f"  {line}")
    say(f"  keys: {'found' if found.keys is not None else 'not found; give them with --keys-file'}")
    for remark in found.remarks:
        say(f"  note: {remark}")
    say(f"  {plugins.command(found, name)}")


def apply(found: Translated, places: Places, path: str, host: Host, say: Say, *, force: bool) -> None:
    """Sets it up beside the old one, which is left as it is. Raises as ``set_up``."""
    storage = Storage(places.name, path, found.content, found.prune, found.nodes)
    if found.keys is None:
        raise ConfigError(f"{found.name}: its keys were not found: use 's3fsx pve setup' with --keys-file")
    set_up(Wish(found.settings, found.keys, storage, path, force=force), places, host, say)
    say(
        f"{found.name} is as it was: when its backups are seen in {places.name}: pvesm set {found.name} --disable 1, "
        "so that only one of them prunes"
    )
