"""``s3fsx prune``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from ..browse import tables
from ..browse.keep import REMOVE, Keep
from ..errors import ConfigError, S3fsxError
from ..service.daemon import EXIT_OK, EXIT_TROUBLE, keep_private
from . import buckets
from .parsing import Commands, count

if TYPE_CHECKING:
    from ..browse.place import Place
    from ..browse.prune import Marked

_PERIODS = [field.name for field in fields(Keep)]


def add(commands: Commands) -> None:
    prune = commands.add(
        "prune",
        _prune,
        "delete the backups that the rules do not keep, as Proxmox does: guest by guest, protected and renamed ones "
        "stay and do not count; asks first",
        help="delete the backups that the keep rules do not keep",
    )
    buckets.add_where(prune)
    prune.add_argument("--vmid", type=buckets.vmid, metavar="N", help="of this guest only")
    for name in _PERIODS:
        what = "the latest N" if name == "last" else f"the latest of each of N {name} periods"
        prune.add_argument(f"--keep-{name}", type=count(0, 1_000_000), default=0, metavar="N", help=what)
    prune.add_argument("-n", "--dry-run", action="store_true", help="only show what would be deleted")
    prune.add_argument("-y", "--yes", action="store_true", help="do not ask")
    prune.add_argument("--json", action="store_true", help="what becomes of each, as JSON")


def _prune(args: argparse.Namespace) -> int:
    keep_private()
    rules = Keep(**{name: getattr(args, f"keep_{name}") for name in _PERIODS})
    if not rules:
        raise ConfigError("without a --keep-... above 0 everything is kept: say what to keep, such as --keep-last 7")
    asks = not args.dry_run and not args.yes
    if asks and (args.json or not (sys.stdin.isatty() and sys.stdout.isatty())):
        raise ConfigError("nobody can be asked: give --dry-run to see what would be deleted, --yes to delete it")
    settings = buckets.whole(args)
    if settings.read_only and not args.dry_run:
        raise ConfigError("read_only is set: only --dry-run")

    async def look(place: Place) -> list[Marked]:
        from ..browse.prune import plan

        return plan(await buckets.listed(place, args.vmid), rules)

    marked = buckets.run(settings, look)
    victims = [item for item in marked if item.mark == REMOVE]
    _tell(args, marked, victims)
    if args.dry_run or not victims:
        return EXIT_OK
    if asks and not _agreed(f"Delete {_amount(victims)}? [y/N] "):
        sys.stdout.write("nothing deleted\n")
        return EXIT_OK
    failed = buckets.run(settings, lambda place: _remove(place, victims, tell=not args.json))
    return EXIT_TROUBLE if failed else EXIT_OK


def _tell(args: argparse.Namespace, marked: list[Marked], victims: list[Marked]) -> None:
    if args.json:
        rows = [(item.backup, item.mark) for item in marked]
        buckets.write_json(
            [
                {"name": b.archive.name, "guest": b.archive.guest, "time": b.when, "size": b.info.size, "mark": mark}
                for b, mark in rows
            ]
        )
        return
    table = [["BACKUP", "GUEST", "SIZE", "MARK"]]
    for item in marked:
        archive = item.backup.archive
        table.append([tables.safe(archive.name), archive.guest, tables.human(item.backup.info.size), item.mark])
    buckets.write_table(table, right=(2,))
    sys.stdout.write(f"to be deleted: {_amount(victims)}\n")
    sys.stdout.flush()


def _amount(victims: list[Marked]) -> str:
    size = tables.human(sum(item.backup.info.size for item in victims))
    return f"{len(victims)} backup{'' if len(victims) == 1 else 's'}, {size}"


def _agreed(question: str) -> bool:
    sys.stdout.write(question)
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _remove(place: Place, victims: list[Marked], *, tell: bool) -> int:
    """How many could not be removed."""
    from ..browse.prune import Pruner

    await place.learn_object_lock()
    pruner, failed = Pruner(place), 0
    for item in victims:
        name = tables.safe(item.backup.archive.name)
        try:
            left = await pruner.remove(item.backup)
        except S3fsxError as e:
            failed += 1
            sys.stderr.write(f"s3fsx: {name}: not deleted: {tables.safe(str(e))}\n")
            continue
        if tell:
            sys.stdout.write(f"deleted {name}\n")
            sys.stdout.flush()
        sys.stderr.writelines(f"s3fsx: {tables.safe(why)}\n" for why in left)
    return failed
