"""``s3fsx get``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from ..browse import tables
from ..browse.catalog import Backup, chosen
from ..errors import ConfigError, NotFound
from ..service.daemon import EXIT_OK, keep_private
from ..store.objects import ObjectInfo
from . import buckets
from .parsing import Commands

if TYPE_CHECKING:
    from ..browse.fetch import Fetched
    from ..browse.place import Place

_STDOUT = 1


def add(commands: Commands) -> None:
    get = commands.add(
        "get",
        _get,
        "copy a backup or another file out of the bucket, verified; goes on where an earlier attempt ended",
    )
    get.add_argument(
        "backup", metavar="BACKUP|PATH", help=f"{buckets.BACKUP_HELP}; or a path such as template/iso/x.iso"
    )
    get.add_argument(
        "target", metavar="DEST", nargs="?", default=".", help="file or directory (.); - for standard output"
    )
    get.add_argument("--force", action="store_true", help="replace DEST where it exists")
    buckets.add_source(get)


def _get(args: argparse.Namespace) -> int:
    keep_private()
    settings, (name,) = buckets.where_of(args, [args.backup])
    if args.target == "-" and sys.stdout.isatty():
        raise ConfigError("an archive on a terminal is of no use: give DEST, or a pipe")

    async def fetch(place: Place) -> tuple[str, Fetched]:
        from ..browse.fetch import Fetch

        info = await _object(place, name)
        target = "" if args.target == "-" else _target(args.target, info.key, force=args.force)
        progress = buckets.Progress(info.key.rpartition("/")[2], info.size)
        work = Fetch(place.store, place.streams, progress)
        try:
            if not target:
                return info.key.rpartition("/")[2], await work.to_pipe(info, _STDOUT)
            return target, await work.to_file(info, target, settings.bucket, replace=args.force)
        finally:
            progress.end()

    began = time.monotonic()
    target, done = buckets.run(settings, fetch)
    taken = max(time.monotonic() - began, 0.001)
    resumed = f" ({tables.human(done.resumed)} were there)" if done.resumed else ""
    verified = "verified" if done.verified else "NOT verified: it has no checksums, only size and ETag were compared"
    sys.stderr.write(
        f"{tables.safe(target)}: {tables.human(done.size)}{resumed} in {buckets.duration(taken)}, "
        f"{tables.human((done.size - done.resumed) / taken)}/s, {verified}\n"
    )
    return EXIT_OK


async def _object(place: Place, name: str) -> ObjectInfo:
    from ..browse.thaw import require_readable

    if buckets.is_backup(name):
        backup: Backup = chosen(name, await buckets.listed(place))
        await require_readable(place, backup)
        return backup.info
    key = place.layout.key(name.strip("/"))
    try:
        return await place.store.head(key)
    except NotFound:
        raise ConfigError(f"{tables.safe(name)}: not in the bucket; 's3fsx ls' shows what is") from None


def _target(given: str, key: str, *, force: bool) -> str:
    """Raises ConfigError."""
    target = os.path.join(given, key.rpartition("/")[2]) if os.path.isdir(given) else given
    if os.path.isdir(target):
        raise ConfigError(f"{target}: a directory")
    if os.path.lexists(target) and not force:
        raise ConfigError(f"{target}: exists; --force replaces it")
    return target
