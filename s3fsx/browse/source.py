"""Where backups are: from what a person types to settings and a path. Looks at mountinfo, never into a mount."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..configuration import config
from ..configuration.settings import Settings
from ..errors import ConfigError, S3fsxError
from ..kernel import mountpoint
from ..service.status import read_status, socket_path

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_STORAGES = "/mnt/pve"  # where Proxmox mounts them


@dataclass(frozen=True, slots=True)
class Where:
    """path: below the mount or prefix, "" for all of it."""

    settings: Settings
    path: str


def resolve(text: str, options: Sequence[str] = ()) -> Where:
    """``s3://BUCKET[/PREFIX][:PATH]``, ``NAME[:PATH]``, or a path at or below a mount of s3fsx.

    Raises ConfigError in one line.
    """
    if _is_path(text):
        return _mounted(text, options)
    scheme = "s3://" if text.startswith("s3://") else ""
    source, _, path = text.removeprefix(scheme).partition(":")
    path = "/".join(part for part in path.split("/") if part not in ("", "."))
    if ".." in path.split("/"):
        raise ConfigError(f"{text}: no .. in PATH, which begins at the top of {source}")
    if not scheme and not os.path.exists(_file(source)) and source in _mounted_storages():
        return Where(_mounted(os.path.join(_STORAGES, source), options).settings, path)
    return Where(config.load(scheme + source, options).settings, path)


def split(text: str) -> tuple[str, str]:
    """SOURCE and the rest of what names a backup: ``STORAGE:backup/NAME``, ``s3://BUCKET/PREFIX:NAME``, a path in a
    mount; SOURCE is "" where it is only a name."""
    if _is_path(text):
        directory, _, name = text.rpartition("/")
        return (directory, name) if _mount_of(text) else ("", text)
    scheme = "s3://" if text.startswith("s3://") else ""
    source, colon, name = text.removeprefix(scheme).partition(":")
    return (scheme + source, name) if colon else ("", text)


def _is_path(text: str) -> bool:
    """Of a file system: what begins like one, and what has a directory in it and is in a mount from here."""
    if text.startswith(("/", "./", "../")) or text in (".", ".."):
        return True
    return "/" in text and ":" not in text and _mount_of(text) != ""


def only(options: Sequence[str] = ()) -> str:
    """The SOURCE of who names none: the only mount, or the only file of settings. Raises ConfigError with those there
    are."""
    mounts = sorted(path for path, entry in mountpoint.table().items() if entry.kind == mountpoint.FSTYPE)
    names = configured()
    if not mounts and not names and any("bucket=" in option for option in options):
        raise ConfigError("give the bucket as --source s3://BUCKET[/PREFIX]")
    if len(mounts) == 1:
        return mounts[0]
    if not mounts and len(names) == 1:
        return names[0]
    there = mounts or names
    raise ConfigError(
        f"which bucket? --source one of {', '.join(there)}" if there else "which bucket? --source s3://BUCKET[/PREFIX]"
    )


def _directory() -> str:
    return os.environ.get("S3FSX_CONFIG_DIR") or config.CONFIG_DIR


def _file(name: str) -> str:
    return os.path.join(_directory(), name + ".toml")


def configured() -> list[str]:
    """The NAMEs that have a file of settings; none where this user may not look."""
    try:
        files = os.listdir(_directory())
    except OSError:
        return []
    names = {file.removesuffix(".toml") for file in files if file.endswith(".toml")} - {config.COMMON}
    return sorted(name for name in names if _NAME.fullmatch(name))


def _mounted_storages() -> list[str]:
    return [
        path.rpartition("/")[2]
        for path, entry in mountpoint.table().items()
        if entry.kind == mountpoint.FSTYPE and path.rpartition("/")[0] == _STORAGES
    ]


def _mount_of(path: str) -> str:
    """The mount point of s3fsx at or above path, "" where there is none. By its name alone: a mount may hang."""
    whole, here = mountpoint.absolute(path), mountpoint.table()
    while whole not in here and whole != "/":
        whole = os.path.dirname(whole)
    return whole if whole in here and here[whole].kind == mountpoint.FSTYPE else ""


def _mounted(path: str, options: Sequence[str]) -> Where:
    directory = _mount_of(path)
    if not directory:
        raise ConfigError(f"{path}: not in a mount of s3fsx; SOURCE is s3://BUCKET[/PREFIX], NAME, or such a path")
    below = os.path.relpath(mountpoint.absolute(path), directory)
    source = mountpoint.table()[directory].source
    for name in [os.path.basename(directory), *configured()]:
        try:
            settings = config.load(name, options).settings
        except ConfigError:
            continue  # of another mount, or not for this user
        if mountpoint.source_name(settings.bucket, settings.prefix) == source:
            return Where(settings, "" if below == "." else below)
    return Where(_served(directory, source, options), "" if below == "." else below)


def _served(directory: str, source: str, options: Sequence[str]) -> Settings:
    """Of a mount that has no file of settings: its daemon knows bucket, prefix and endpoint. Keys and the rest come
    from the environment and ``-o``, as for a mount."""
    try:
        document = read_status(socket_path(config.runtime_dir(options), directory))
        told, state = str(document["source"]), document["endpoint"]
        endpoint = str(state["url"]) if isinstance(state, dict) else ""
    except (S3fsxError, KeyError) as e:
        raise ConfigError(
            f"{directory}: {source} is mounted there, with settings that are in no file of {_directory()} "
            f"({e}): give SOURCE and -o instead"
        ) from None
    given = [] if any("endpoint=" in option for option in options) else _as_option(endpoint)
    return config.load(told, [*given, *options]).settings


def _as_option(endpoint: str) -> list[str]:
    return [f"endpoint={endpoint}"] if endpoint.startswith(("http://", "https://")) else []
