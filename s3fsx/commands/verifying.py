"""``s3fsx verify``."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..browse import tables
from ..browse.catalog import Backup, chosen
from ..browse.checked import Checks, read_checks
from ..configuration.settings import Settings
from ..errors import ConfigError
from ..service.daemon import EXIT_OK, EXIT_TROUBLE, keep_private
from . import buckets
from .parsing import Commands, age

if TYPE_CHECKING:
    from ..browse.place import Place
    from ..browse.verify import Verdict


def add(commands: Commands) -> None:
    verify = commands.add(
        "verify",
        _verify,
        "read backups back, whole, and compare every byte with the checksums made when they were written; exit code 1 "
        "when anything is wrong",
        help="read backups back and compare them with their checksums",
    )
    verify.add_argument(
        "backups", metavar="BACKUP", nargs="*", help=f"{buckets.BACKUP_HELP}; with --all: SOURCE, which bucket"
    )
    verify.add_argument("--all", action="store_true", help="every backup of the bucket")
    verify.add_argument("--vmid", type=buckets.vmid, metavar="N", help="with --all: of this guest only")
    verify.add_argument(
        "--since", type=age, metavar="AGE", help="leave out what was verified, and found right, within AGE, such as 30d"
    )
    verify.add_argument("--no-record", action="store_true", help="leave no record in the bucket of what was verified")
    verify.add_argument("--json", action="store_true", help="as JSON")
    buckets.add_source(verify)


def _verify(args: argparse.Namespace) -> int:
    keep_private()
    if not args.backups and not args.all:
        raise ConfigError("name backups, or give --all")
    if args.all and len(args.backups) > 1:
        raise ConfigError("--all is every backup: beside it only SOURCE")
    if args.vmid is not None and not args.all:
        raise ConfigError("--vmid goes with --all")
    settings, names = _which(args)
    note = not args.no_record and not settings.read_only

    skipped = 0

    async def work(place: Place) -> list[Verdict]:
        nonlocal skipped
        from ..browse.verify import Verifier, forget_gone

        checks = await read_checks(place.s3, place.prefix)
        listed = await buckets.listed(place, args.vmid)
        if args.all and args.vmid is None and note:
            await forget_gone(place, listed, checks)
        chosen_ones = listed if args.all else list(dict.fromkeys(chosen(name, listed) for name in names))
        verdicts = []
        due = _due(chosen_ones, checks, args.since)
        skipped = len(chosen_ones) - len(due)
        for backup in due:
            progress = buckets.Progress(backup.archive.name, backup.info.size)
            try:
                verdict = await Verifier(place, note=note, progress=progress).verify(backup)
            finally:
                progress.end()
            verdicts.append(verdict)
            if not args.json:
                sys.stdout.write(_line(verdict) + "\n")
                sys.stdout.flush()
        return verdicts

    verdicts = buckets.run(settings, work)
    if args.json:
        buckets.write_json([asdict(verdict) for verdict in verdicts])
    else:
        left_out = f"{_backups(skipped)} left out, found right within --since" if skipped else ""
        said = [text for text in (_summary(verdicts) if args.all else "", left_out) if text]
        sys.stdout.write(f"{'; '.join(said)}\n" if said else "")
    return EXIT_OK if all(verdict.good for verdict in verdicts) else EXIT_TROUBLE


def _which(args: argparse.Namespace) -> tuple[Settings, list[str]]:
    """The bucket, and the backups that were named."""
    if not args.all:
        return buckets.where_of(args, args.backups)
    found = buckets.where(args, *args.backups)
    if found.path:
        raise ConfigError(f"{args.backups[0]}: --all is every backup of the bucket: leave {found.path} out, or --all")
    return found.settings, []


def _due(listed: list[Backup], checks: Checks, since: float | None) -> list[Backup]:
    if since is None:
        return listed
    latest = time.time() - since
    return [
        backup
        for backup in listed
        if (check := checks.of(backup.info)) is None or not check.good or check.when < latest
    ]


def _line(verdict: Verdict) -> str:
    name, why = tables.safe(verdict.name), tables.safe(verdict.why)
    if verdict.result == "ok":
        rate = f"{tables.human(verdict.size / max(verdict.seconds, 0.001))}/s"
        return f"ok       {name}  {tables.human(verdict.size)} in {buckets.duration(verdict.seconds)}, {rate}"
    return f"{verdict.result:7}  {name}  {why}"


def _summary(verdicts: list[Verdict]) -> str:
    counts = {word: sum(v.result == word for v in verdicts) for word in ("ok", "bad", "failed", "unknown")}
    size = tables.human(sum(verdict.verified for verdict in verdicts))
    return f"{_backups(len(verdicts))}, {size} verified: " + ", ".join(f"{n} {word}" for word, n in counts.items())


def _backups(count: int) -> str:
    return "1 backup" if count == 1 else f"{count} backups"
