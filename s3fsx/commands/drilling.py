"""``s3fsx drill``."""

from __future__ import annotations

import argparse
import random
import sys
from typing import TYPE_CHECKING

from ..browse import tables
from ..browse.catalog import chosen
from ..errors import ConfigError, S3fsxError
from ..service.daemon import EXIT_OK, EXIT_TROUBLE, keep_private
from . import buckets
from .parsing import Commands, age

if TYPE_CHECKING:
    from ..browse.drill import Result
    from ..browse.place import Place

_DEADLINE = 86400.0


def add(commands: Commands) -> None:
    drill = commands.add(
        "drill",
        _drill,
        "restore a backup as a stream, to nowhere: all of it is read, decompressed and walked through to its end; exit "
        "code 1 when it could not be restored",
        help="restore a backup as a stream, to see that it can be",
    )
    buckets.add_where(drill, "SOURCE[:BACKUP]")
    which = drill.add_mutually_exclusive_group()
    which.add_argument("--newest", action="store_true", help="the newest backup (default)")
    which.add_argument("--random", action="store_true", help="any backup")
    drill.add_argument("--vmid", type=buckets.vmid, metavar="N", help="of this guest")
    drill.add_argument("--textfile", default="", metavar="FILE", help="write metrics for node_exporter: DIR/NAME.prom")
    drill.add_argument("--no-notes", action="store_true", help="write no line into the notes of the backup")
    drill.add_argument("--timeout", type=age, default=_DEADLINE, metavar="TIME", help="for all of it (1d)")
    drill.add_argument("--json", action="store_true", help="as JSON")


def _drill(args: argparse.Namespace) -> int:
    keep_private()
    from ..browse import textfile

    found = buckets.where(args, args.where)
    if found.path and (args.random or args.newest or args.vmid is not None):
        raise ConfigError(f"{args.where} names a backup: --newest, --random and --vmid choose one")
    if args.textfile:
        textfile.require_writable(args.textfile)  # a drill takes hours
    source = args.where or f"s3://{found.settings.bucket}/{found.settings.prefix}"
    try:
        result = buckets.run(found.settings, lambda place: _run(place, args, found.path))
    except S3fsxError:
        if args.textfile:
            textfile.write(args.textfile, source, None)
        raise
    _tell(args, result)
    sys.stdout.flush()
    if args.textfile:
        textfile.write(args.textfile, source, result)
    return EXIT_OK if result.good else EXIT_TROUBLE


async def _run(place: Place, args: argparse.Namespace, name: str) -> Result:
    """name: of the backup, "" where one is to be chosen."""
    from ..browse import drill, notes
    from ..browse.thaw import require_readable

    listed = await buckets.listed(place, args.vmid)
    if name:
        backup = chosen(name, listed)
        await require_readable(place, backup)
    else:
        backup = drill.pick(listed, at_random=args.random, rng=random.SystemRandom())
    progress = buckets.Progress(backup.archive.name, backup.info.size)
    try:
        result = await drill.drill(place, backup, deadline=args.timeout, progress=progress)
    finally:
        progress.end()
    if place.settings.read_only:
        return result
    await drill.note(place, result)
    if not args.no_notes:
        try:
            await place.learn_object_lock()
            await notes.append(place, backup, result.line, instead=drill.NOTE)
        except S3fsxError as e:
            sys.stderr.write(f"s3fsx: no line in the notes: {tables.safe(str(e))}\n")
    return result


def _tell(args: argparse.Namespace, result: Result) -> None:
    archive = result.backup.archive
    if args.json:
        buckets.write_json(
            {
                "name": archive.name,
                "guest": archive.guest,
                "good": result.good,
                "what": result.what,
                "read": result.read,
                "restored": result.restored,
                "seconds": round(result.seconds, 3),
                "verified": result.verified,
            }
        )
        return
    name, what = tables.safe(archive.name), tables.safe(result.what)
    if not result.good:
        sys.stdout.write(f"FAILED   {name}  {what}\n")
        return
    verified = "every byte verified" if result.verified else "it has no checksums to compare with"
    sys.stdout.write(
        f"ok       {name}  {tables.human(result.read)} became {tables.human(result.restored)} in "
        f"{buckets.duration(result.seconds)}: {what}; {verified}\n"
    )
