"""``s3fsx pve``: a bucket as a storage of Proxmox VE."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from ..configuration import config
from ..errors import ConfigError
from ..service.daemon import EXIT_OK, keep_private
from .parsing import Commands, count

if TYPE_CHECKING:
    from ..pve.places import Places


def add(commands: Commands) -> None:
    group = commands.group("pve", "A bucket as a storage of Proxmox VE.")
    setup = group.add(
        "setup",
        _setup,
        "Set up the storage NAME: try the store, write the configuration, mount it, add it to Proxmox. Asks for what "
        "is missing on a terminal. Run again, it makes what is missing; what is different needs --force.",
        help="set up a storage: configuration, mount, pvesm add",
    )
    setup.add_argument("name", metavar="NAME", help="the storage's id")
    setup.add_argument("--provider", default="", help="aws, minio, ceph, wasabi, b2, r2, ... or other")
    setup.add_argument("--endpoint", default="", metavar="URL", help="where the provider does not say it")
    setup.add_argument("--region", default="")
    setup.add_argument("--account", default="", help="part of the endpoint, for Cloudflare R2")
    setup.add_argument("--bucket", default="", help="must exist")
    setup.add_argument("--prefix", default=None, help="keys of this storage start with it")
    keys = setup.add_mutually_exclusive_group()
    keys.add_argument("--keys-file", default="", metavar="FILE", help="access and secret key, mode 0600; -: stdin")
    keys.add_argument("--no-keys", action="store_true", help="use the AWS chain: ~/.aws of root, or a role")
    setup.add_argument("--content", default="", metavar="TYPES", help="backup,iso,vztmpl,snippets,import (backup)")
    setup.add_argument("--prune-backups", default="", metavar="RULES", help="such as keep-last=3,keep-weekly=4")
    setup.add_argument("--mountpoint", default="", metavar="DIR", help="(/mnt/pve/NAME)")
    setup.add_argument("--nodes", default="", metavar="LIST", help="nodes that use it (all)")
    setup.add_argument("--join", action="store_true", help="on a further node of the cluster: mount what is there")
    setup.add_argument("--force", action="store_true", help="replace what is different; take the risks that are named")
    setup.add_argument("--dry-run", action="store_true", help="only say what would be done")

    remove = group.add(
        "remove",
        _remove,
        "Remove the storage NAME from Proxmox and this node, once everything is in the bucket, which stays.",
        help="remove a storage; the bucket stays",
    )
    remove.add_argument("name", metavar="NAME", help="the storage's id")
    remove.add_argument("--leave", action="store_true", help="only this node of the cluster")
    remove.add_argument("--keep-config", action="store_true", help="keep configuration and keys")
    remove.add_argument("--force", action="store_true", help="also while other nodes have it")

    other = group.add(
        "import",
        _import,
        "Show storages of other S3 plugins as storages of s3fsx; with --apply set one up beside the old one.",
        help="take over a storage of another S3 plugin",
    )
    other.add_argument("id", metavar="ID", nargs="?", default="", help="the storage (all of them)")
    other.add_argument("--file", default="", metavar="FILE", help="(/etc/pve/storage.cfg)")
    other.add_argument("--as", dest="name", default="", metavar="NAME", help="of the new storage (ID-s3fsx)")
    other.add_argument("--mountpoint", default="", metavar="DIR", help="(/mnt/pve/NAME)")
    other.add_argument("--apply", action="store_true", help="set it up, as 's3fsx pve setup' does")
    other.add_argument("--force", action="store_true", help="with --apply: as for setup")

    rules = group.add(
        "lifecycle",
        _lifecycle,
        "Let old backups of NAME become cheaper by lifecycle rules of the bucket; protected ones and the newest of "
        "each guest stay readable. Without days, as the rules there say: for a timer, since each run decides anew.",
        help="let old backups become cheaper",
    )
    rules.add_argument("name", metavar="NAME", help="of /etc/s3fsx/NAME.toml")
    rules.add_argument(
        "--transition-days", type=count(1, 36500, "days"), default=0, metavar="N", help="age for --class"
    )
    rules.add_argument("--class", dest="storage_class", default="STANDARD_IA", metavar="CLASS", help="(STANDARD_IA)")
    rules.add_argument(
        "--glacier-days", type=count(1, 36500, "days"), default=0, metavar="N", help="age for --glacier-class"
    )
    rules.add_argument("--glacier-class", default="GLACIER", metavar="CLASS", help="(GLACIER) or DEEP_ARCHIVE")
    rules.add_argument(
        "--keep-warm", type=count(1, 36500), default=3, metavar="N", help="newest backups of each guest (3)"
    )
    rules.add_argument("--remove", action="store_true", help="take the rules away")
    rules.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _places(name: str) -> Places:
    from ..pve.places import Places
    from ..pve.storagecfg import check_name

    return Places.of(check_name(name))


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ConfigError("only root can do this")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _setup(args: argparse.Namespace) -> int:
    _require_root()
    keep_private()
    from ..pve.asking import Terminal
    from ..pve.gathering import Given, gather
    from ..pve.host import Host
    from ..pve.setting_up import set_up

    given = Given(
        provider=args.provider,
        endpoint=args.endpoint,
        region=args.region,
        account=args.account,
        bucket=args.bucket,
        prefix=args.prefix,
        keys_file=args.keys_file,
        no_keys=args.no_keys,
        content=args.content,
        prune=args.prune_backups,
        mountpoint=args.mountpoint,
        nodes=args.nodes,
        options=tuple(args.options),
        join=args.join,
        force=args.force,
        dry=args.dry_run,
    )
    places = _places(args.name)
    wish, notes = gather(given, places, Terminal.here(), os.environ)
    for note in notes:
        _say(f"note                 {note}")
    set_up(wish, places, Host.here(), _say)
    _say("dry run: nothing was changed" if wish.dry else f"OK: {wish.path}")
    return EXIT_OK


def _import(args: argparse.Namespace) -> int:
    keep_private()
    from ..pve import importing
    from ..pve.host import Host
    from ..pve.places import Places
    from ..pve.plan import mount_directory

    places = Places.of("none")
    found = importing.read(args.file or places.storage_cfg, args.id, places.pve_dir)
    if (args.apply or args.name or args.mountpoint) and len(found) > 1:
        raise ConfigError(f"one at a time: name one of {', '.join(one.name for one in found)}")
    for one in found:
        places = _places(args.name or importing.new_name(one))
        if args.apply:
            _require_root()
            path = mount_directory(args.mountpoint or places.mountpoint)
            importing.apply(one, places, path, Host.here(), _say, force=args.force)
        else:
            importing.show(one, places.name, _say)
    return EXIT_OK


def _lifecycle(args: argparse.Namespace) -> int:
    keep_private()
    settings = config.load(args.name, args.options).settings
    from ..pve.cooling import Wish, cool

    wish = Wish(
        args.transition_days,
        args.storage_class,
        args.glacier_days,
        args.glacier_class,
        args.keep_warm,
        args.remove,
        args.dry_run,
    )
    cool(args.name, settings, wish, _say)
    return EXIT_OK


def _remove(args: argparse.Namespace) -> int:
    _require_root()
    from ..pve.host import Host
    from ..pve.removing import Wish, remove

    remove(Wish(args.leave, args.keep_config, args.force), _places(args.name), Host.here(), _say)
    return EXIT_OK
