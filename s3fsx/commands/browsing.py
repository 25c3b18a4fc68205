"""``s3fsx ls``, ``s3fsx backups`` and ``s3fsx show``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..browse import tables
from ..browse.catalog import Backup, Knowledge, backups, chosen, first_notes, knowledge
from ..browse.listing import directory
from ..service.daemon import EXIT_OK, keep_private
from ..store.objects import ObjectInfo
from . import buckets
from .parsing import Commands

if TYPE_CHECKING:
    from ..browse.place import Place

_NOTES_SHOWN = 40


def add(commands: Commands) -> None:
    ls = commands.add("ls", _ls, "what is in a directory of the bucket, with or without a mount")
    buckets.add_where(ls, "SOURCE[:PATH]")
    ls.add_argument("-l", dest="long", action="store_true", help="with size, time and storage class")
    ls.add_argument("--json", action="store_true", help="as JSON")

    listing = commands.add("backups", _backups, "the backups of a bucket: guest, time, size, notes, protection, checks")
    buckets.add_where(listing)
    listing.add_argument("--vmid", type=buckets.vmid, metavar="N", help="of this guest only")
    listing.add_argument("--json", action="store_true", help="as JSON")

    show = commands.add("show", _show, "the guest's configuration in a backup; fetches only the head of the archive")
    show.add_argument("backup", metavar="BACKUP", help=buckets.BACKUP_HELP)
    show.add_argument("--all", action="store_true", help="every configuration file in it, each after its name")
    buckets.add_source(show)


def _ls(args: argparse.Namespace) -> int:
    keep_private()
    found = buckets.where(args, args.where)
    entries = buckets.run(found.settings, lambda place: directory(place.store, place.layout, found.path))
    if args.json:
        buckets.write_json([_entry(name, info) for name, info in entries])
    elif args.long:
        buckets.write_table([_long(name, info) for name, info in entries], right=(0,))
    else:
        sys.stdout.writelines(f"{tables.safe(name)}{'/' if info is None else ''}\n" for name, info in entries)
    return EXIT_OK


def _long(name: str, info: ObjectInfo | None) -> list[str]:
    if info is None:
        return ["-", "", "", f"{tables.safe(name)}/"]
    return [tables.human(info.size), tables.local(info.modified), info.storage_class, tables.safe(name)]


def _entry(name: str, info: ObjectInfo | None) -> dict[str, object]:
    if info is None:
        return {"name": name, "type": "directory"}
    return {"name": name, "type": "file", **_object(info)}


def _object(info: ObjectInfo) -> dict[str, object]:
    return {
        "key": info.key,
        "size": info.size,
        "modified": info.modified,
        "etag": info.etag,
        "storage_class": info.storage_class,
    }


def _backups(args: argparse.Namespace) -> int:
    keep_private()
    settings = buckets.whole(args)

    async def look(place: Place) -> tuple[list[Backup], Knowledge, dict[str, str]]:
        listed = await backups(place.store, place.layout, args.vmid)
        # Past the verification: a line of text for people, thousands of them.
        return listed, await knowledge(place.s3, place.prefix), await first_notes(place.s3, listed)

    listed, known, notes = buckets.run(settings, look)
    if args.json:
        buckets.write_json([_document(backup, known, notes.get(backup.archive.name)) for backup in listed])
        return EXIT_OK
    if not listed:
        which = "" if args.vmid is None else f" of guest {args.vmid}"
        sys.stderr.write(f"no backups{which} in s3://{settings.bucket}/{tables.safe(settings.prefix)}\n")
        return EXIT_OK
    rows = [["GUEST", "TIME", "SIZE", "PROTECTED", "VERIFIED", "CLASS", "BACKUP", "NOTES"]]
    rows += [_row(backup, known, notes.get(backup.archive.name, "")) for backup in listed]
    buckets.write_table(rows, right=(2,))
    return EXIT_OK


def _row(backup: Backup, known: Knowledge, notes: str) -> list[str]:
    return [
        backup.archive.guest,
        tables.local(backup.when),
        tables.human(backup.info.size),
        "yes" if backup.protected else "",
        _verified(backup.info, known),
        backup.info.storage_class,
        tables.safe(backup.archive.name),
        tables.safe(notes, _NOTES_SHOWN),
    ]


def _verified(info: ObjectInfo, known: Knowledge) -> str:
    check = known.checks.of(info)
    if check is not None:
        return f"{'' if check.good else 'BAD '}{tables.day(check.when)}"
    if known.written_with_checksums(info):
        return "at writing"
    return "never" if known.has_checksums(info) else "no checksums"


def _document(backup: Backup, known: Knowledge, notes: str | None) -> dict[str, object]:
    check = known.checks.of(backup.info)
    return {
        "name": backup.archive.name,
        "guest": backup.archive.guest,
        "type": backup.archive.kind or None,
        "vmid": backup.archive.vmid,
        "time": backup.when,
        "format": backup.archive.format,
        "compression": backup.archive.compression or None,
        "notes": notes,
        "protected": backup.protected,
        "checksums": known.has_checksums(backup.info),
        "verified": None if check is None else {"time": check.when, "good": check.good},
        **_object(backup.info),
    }


def _show(args: argparse.Namespace) -> int:
    keep_private()
    settings, (name,) = buckets.where_of(args, [args.backup])

    async def look(place: Place) -> tuple[tuple[str, bytes], ...]:
        from ..browse.guestconfig import configuration
        from ..browse.thaw import require_readable

        backup = chosen(name, await buckets.listed(place))
        await require_readable(place, backup)
        return await configuration(place.streams, backup)

    files = buckets.run(settings, look)
    for title, content in files if args.all else files[:1]:
        if args.all:
            sys.stdout.write(f"# {tables.safe(title)}\n")
        lines = content.decode(errors="replace").rstrip("\n").split("\n")
        sys.stdout.writelines(f"{tables.safe(line)}\n" for line in lines)
    return EXIT_OK
