"""``s3fsx thaw``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..browse import tables
from ..browse.catalog import Backup, chosen
from ..errors import ConfigError
from ..service.daemon import EXIT_OK, keep_private
from . import buckets
from .parsing import Commands, count

if TYPE_CHECKING:
    from ..browse.place import Place
    from ..s3.cold import Frozen

_TIERS = ("Standard", "Bulk", "Expedited")


def add(commands: Commands) -> None:
    thaw = commands.add(
        "thaw",
        _thaw,
        "ask for backups in a cold storage class (GLACIER, DEEP_ARCHIVE) to be made readable for some days, or see how "
        "far that is: ask again",
        help="make backups in a cold storage class readable",
    )
    thaw.add_argument("backups", metavar="BACKUP", nargs="+", help=buckets.BACKUP_HELP)
    thaw.add_argument(
        "--days", type=count(1, 3650, "days"), default=7, metavar="N", help="for how long they can be read (7)"
    )
    thaw.add_argument(
        "--tier", type=str.capitalize, choices=_TIERS, default=_TIERS[0], help="how fast, and how dear (Standard)"
    )
    thaw.add_argument("--wait", action="store_true", help="until all can be read, which may take days")
    buckets.add_source(thaw)


def _thaw(args: argparse.Namespace) -> int:
    keep_private()
    settings, names = buckets.where_of(args, args.backups)
    if settings.read_only:
        raise ConfigError("read_only is set: thawing is a change, which costs money")

    async def work(place: Place) -> None:
        from ..browse import thaw

        def tell(backup: Backup, state: Frozen) -> None:
            sys.stdout.write(f"{tables.safe(backup.archive.name)}  {thaw.describe(state)}\n")
            sys.stdout.flush()

        listed = await buckets.listed(place)
        frozen = []
        for backup in dict.fromkeys(chosen(name, listed) for name in names):
            state = await thaw.ask(place, backup, args.days, args.tier)
            tell(backup, state)
            if not state.readable:
                frozen.append(backup)
        if args.wait:
            await thaw.wait(place, frozen, tell)

    buckets.run(settings, work)
    return EXIT_OK
