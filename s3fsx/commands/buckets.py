"""What the commands that look into a bucket share: which bucket, the run of their asynchronous part, and progress."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TextIO, TypeVar

from ..browse import names, source, tables
from ..browse.catalog import Backup, backups
from ..browse.source import Where
from ..configuration.settings import Settings
from ..errors import ConfigError, DeadlineExceeded, EndpointDown, S3fsxError, StoreError
from ..service import launch
from .parsing import count

if TYPE_CHECKING:
    from ..browse.place import Place

T = TypeVar("T")

SOURCE_HELP = "s3://BUCKET[/PREFIX], NAME of /etc/s3fsx/NAME.toml, or a directory where s3fsx is mounted"
BACKUP_HELP = (
    "file name, a part of it that no other has, dump/NAME, STORAGE:backup/NAME, or a path in a mount; "
    "SOURCE:NAME chooses the bucket, as --source does"
)
_EVERY = 0.25  # seconds between two looks of the progress


vmid = count(100, 999_999_999)


def add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-s", "--source", default="", metavar="SOURCE", help=f"{SOURCE_HELP}; without: the only one of this machine"
    )


def add_where(parser: argparse.ArgumentParser, metavar: str = "SOURCE") -> None:
    """For commands about a whole bucket: SOURCE is what they are told, --source says the same as it does elsewhere."""
    more = {"SOURCE[:PATH]": ", and a path", "SOURCE[:BACKUP]": ", and a backup"}.get(metavar, "")
    parser.add_argument("where", metavar=metavar, nargs="?", default="", help=SOURCE_HELP + more)
    add_source(parser)


def where(args: argparse.Namespace, text: str = "") -> Where:
    """text, as SOURCE with a path; else --source; else the only one there is. Raises ConfigError."""
    if text and args.source:
        raise ConfigError(f"{text}, and --source {args.source}: only one of them")
    return source.resolve(text or args.source or source.only(args.options), args.options)


def whole(args: argparse.Namespace) -> Settings:
    """For what is about all backups of a bucket. Raises ConfigError where a single one is named."""
    found = where(args, args.where)
    if found.path not in ("", "dump"):
        raise ConfigError(f"{args.where}: this is about all backups of a bucket: leave {found.path} out")
    return found.settings


def where_of(args: argparse.Namespace, texts: list[str]) -> tuple[Settings, list[str]]:
    """Of backups: their common bucket, and the rest of each name. Raises ConfigError."""
    split = [source.split(text) for text in texts]
    places = {place for place, _ in split if place} | ({args.source} if args.source else set())
    if len(places) > 1:
        raise ConfigError(f"of one bucket at a time: {', '.join(sorted(places))}")
    named = next(iter(places), "")
    found = where(args, "" if named == args.source else named)
    # Of a path in a mount the directories are a part of the name.
    inside = f"{found.path}/" if found.path and any(place for place, _ in split) else ""
    return found.settings, [inside + name if place else name for place, name in split]


def is_backup(path: str) -> bool:
    """Of a path: that of a backup, or a name by itself, or a part of one."""
    directory, _, name = path.removeprefix("/").rpartition("/")
    return not directory or (directory in ("dump", "backup") and names.parse(name) is not None)


async def listed(place: Place, number: int | None = None) -> list[Backup]:
    return await backups(place.store, place.layout, number)


def run(settings: Settings, action: Callable[[Place], Awaitable[T]]) -> T:
    """Raises S3fsxError that names the bucket where it is the store's; KeyboardInterrupt and BrokenPipeError as they
    are, and not as the group that a nursery makes of them."""
    import trio

    from ..browse.place import at

    try:
        return trio.run(at, settings, action)
    except (StoreError, EndpointDown, DeadlineExceeded) as error:
        raise S3fsxError(launch.explain(error, settings)) from error
    except BaseExceptionGroup as group:
        for kind in (KeyboardInterrupt, BrokenPipeError):
            if group.subgroup(kind) is not None:
                raise kind from None
        raise


def write_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def write_table(rows: list[list[str]], *, right: tuple[int, ...] = ()) -> None:
    sys.stdout.writelines(f"{line}\n" for line in tables.columns(rows, right=right))


class Progress:
    """A line on a terminal; nothing anywhere else. total: bytes."""

    def __init__(self, what: str, total: int, stream: TextIO | None = None) -> None:
        self._what = tables.safe(what, 40)
        self._total = total
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._began = time.monotonic()
        self._first: int | None = None
        self._next = self._began + _EVERY
        self._width = 0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done  # what was there from an earlier time came at no speed
        if self._shown and now >= self._next:
            self._next = now + _EVERY
            self._draw(describe(self._what, done, self._total, (done - self._first) / (now - self._began)))

    def _draw(self, line: str) -> None:
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)

    def end(self) -> None:
        """Takes the line away."""
        if self._width:
            self._draw("")
            self._stream.write("\r")
            self._stream.flush()
            self._width = 0


def describe(what: str, done: int, total: int, rate: float) -> str:
    """rate: bytes a second."""
    share = f"{100 * done // total:3} %" if total else ""
    left = f"{duration((total - done) / rate)} left" if rate > 0 and total > done else ""
    parts = (what, f"{tables.human(done)} of {tables.human(total)}", share, f"{tables.human(rate)}/s", left)
    return "  ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
