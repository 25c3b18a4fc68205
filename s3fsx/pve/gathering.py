"""From flags, answers, and what is there already, to what shall be set up."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..configuration import aliases, mountopts
from ..configuration.configfile import read_file
from ..configuration.settings import SCHEMA, show
from ..errors import ConfigError
from . import asking, plan, presets, storagecfg
from .asking import Terminal
from .places import Places
from .plan import Storage
from .presets import Preset
from .setting_up import Wish, sections
from .storagecfg import Section

_KEYS = ("access_key", "secret_key", "session_token", "credentials_file")


@dataclass(frozen=True, slots=True)
class Given:
    """The flags; "" (prefix: None) for those that were left out. options: of -o."""

    provider: str = ""
    endpoint: str = ""
    region: str = ""
    account: str = ""
    bucket: str = ""
    prefix: str | None = None
    keys_file: str = ""
    no_keys: bool = False
    content: str = ""
    prune: str = ""
    mountpoint: str = ""
    nodes: str = ""
    options: tuple[str, ...] = ()
    join: bool = False
    force: bool = False
    dry: bool = False


def gather(given: Given, places: Places, terminal: Terminal, env: Mapping[str, str]) -> tuple[Wish, tuple[str, ...]]:
    """What shall be, and what to know about the provider. Raises ConfigError."""
    section = sections(places).get(places.name)
    path = plan.mount_directory(given.mountpoint or _path(section) or places.mountpoint)
    if given.join:
        return _join(given, places, path), ()
    before = _there(places)
    settings, notes = _settings(given, before, terminal)
    keys = None
    if given.keys_file or not (given.no_keys or os.path.exists(places.keys)):
        keys = asking.keys(given.keys_file, env, terminal, bucket=settings["bucket"])
        if keys is None:
            raise ConfigError(
                "no keys: --keys-file FILE (- for standard input), S3FSX_ACCESS_KEY and S3FSX_SECRET_KEY, or --no-keys "
                "for the AWS chain"
            )
    if section is None and terminal.interactive:
        given = replace(
            given,
            content=given.content
            or terminal.ask("content types", "--content TYPES", "backup", check=storagecfg.content),
            prune=given.prune
            or terminal.ask_for_some(
                "prune rules, such as keep-last=3,keep-weekly=4 (keep all)",
                "--prune-backups RULES",
                check=storagecfg.prune,
            ),
        )
    return Wish(settings, keys, _storage(given, places.name, path, section), path, False, given.force, given.dry), notes


def _path(section: Section | None) -> str:
    return section.properties.get("path", "") if section is not None and section.kind == plan.KIND else ""


def _join(given: Given, places: Places, path: str) -> Wish:
    if not places.shared:
        raise ConfigError(f"--join: there is no {places.pve_dir}/priv: this is no node of a Proxmox cluster")
    meant_for_the_first = (given.provider, given.endpoint, given.region, given.bucket, given.prefix, given.keys_file)
    if any(meant_for_the_first) or given.options or given.content or given.prune or given.nodes:
        raise ConfigError("--join takes everything from what the first node has written; leave out the other flags")
    return Wish({}, None, None, path, True, given.force, given.dry)


def _there(places: Places) -> dict[str, str]:
    """The settings of the configuration that is there, without keys; a second run keeps what it does not name. One that
    was written by hand, on this node only, counts, too."""
    try:
        file = read_file(places.toml if os.path.exists(places.toml) else places.link)
    except FileNotFoundError:
        return {}
    file.require_own()
    try:
        pairs = tomllib.loads(file.text)
    except tomllib.TOMLDecodeError:
        raise ConfigError(f"{file.path}: not valid TOML: mend it, or move it away") from None
    read = [aliases.read(name, raw, file.path) for name, raw in pairs.items()]
    if secret := [name for name, _ in read if SCHEMA[name].secret]:
        raise ConfigError(f"{file.path}: {secret[0]} is in it: move the keys into another file, and use --keys-file")
    return {name: SCHEMA[name].kind.show(value) for name, value in read if name not in _KEYS}


def _settings(given: Given, before: Mapping[str, str], terminal: Terminal) -> tuple[dict[str, str], tuple[str, ...]]:
    preset = _preset(given, before, terminal)
    settings = dict(before)
    if given.provider or given.endpoint or given.region or not before:
        settings |= preset.settings if not before or given.provider else {}
        settings |= _where(given, preset, before, terminal)
    settings["bucket"] = (
        given.bucket or settings.get("bucket") or terminal.ask("bucket", "--bucket NAME", check=_check("bucket"))
    )
    if given.prefix is not None:
        settings["prefix"] = given.prefix
    elif not before and terminal.interactive:
        settings["prefix"] = terminal.ask("prefix of the keys", "--prefix PREFIX", "pve/", check=_check("prefix"))
    settings |= _options(given.options)
    read = {name: aliases.read(name, value, _flag(name))[1] for name, value in settings.items()}
    order = [name for name in SCHEMA if name in read]
    return {name: SCHEMA[name].kind.show(read[name]) for name in order if show(name, read[name])}, preset.notes


def _check(name: str) -> Callable[[str], object]:
    return lambda answer: aliases.read(name, answer, "that answer")


def _flag(name: str) -> str:
    return f"--{name}" if name in ("endpoint", "region", "bucket", "prefix") else "-o"


def _preset(given: Given, before: Mapping[str, str], terminal: Terminal) -> Preset:
    if given.provider:
        return presets.find(given.provider)
    if given.endpoint:
        return presets.of_endpoint(given.endpoint)
    if before:
        return presets.of_endpoint(before.get("endpoint", ""))
    known = ", ".join((*presets.PRESETS, presets.OTHER.name))
    return presets.find(terminal.ask(f"provider ({known})", "--provider NAME, or --endpoint URL", check=presets.find))


def _where(given: Given, preset: Preset, before: Mapping[str, str], terminal: Terminal) -> dict[str, str]:
    region = given.region or before.get("region", "") or preset.region
    if not region or (terminal.interactive and not given.region and not before):
        some = f", such as {', '.join(preset.regions)}" if preset.regions else ""
        region = terminal.ask(f"region{some}", "--region NAME", region)
    account = given.account
    if preset.needs_account and not account and not given.endpoint and terminal.interactive:
        account = terminal.ask("account", "--account ID")
    endpoint = given.endpoint
    if not endpoint and preset.endpoint is None:
        endpoint = before.get("endpoint", "") or terminal.ask(
            f"endpoint of {preset.title}", "--endpoint URL", check=_check("endpoint")
        )
    return {"endpoint": endpoint or presets.endpoint_of(preset, region, account), "region": region}


def _options(options: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, raw in mountopts.parse(options):
        key, value = aliases.read(name, raw, "-o")
        if SCHEMA[key].secret or key in _KEYS or "@" in str(value):
            raise ConfigError(f"-o: {key} is refused, as every user can read a command line; use --keys-file")
        found[key] = SCHEMA[key].kind.show(value)
    return found


def _storage(given: Given, name: str, path: str, section: Section | None) -> Storage:
    there = plan.existing(section) if section is not None and section.kind == plan.KIND else Storage(name, path)
    return Storage(
        name,
        path,
        storagecfg.content(given.content) if given.content else there.content,
        storagecfg.prune(given.prune) or there.prune,
        storagecfg.nodes(given.nodes) or there.nodes,
    )
