"""``s3fsx status``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ..configuration import config
from ..errors import ConfigError, S3fsxError
from ..kernel import mountpoint
from ..service import health, statusview
from ..service.daemon import EXIT_OK, EXIT_TROUBLE
from ..service.status import mounts, read_status, removed_if_dead, socket_path
from .parsing import Commands

# Seconds for the answer of a daemon, which needs neither the store nor a disk for it.
LIMIT = 0.8
_WATCH = 2.0
_AT_ONCE = 16

Documents = Mapping[str, Mapping[str, Any]]


def add(commands: Commands) -> None:
    status = commands.add(
        "status", _status, "state of MOUNTPOINT, or of all mounts; exit code 1 when one is in trouble"
    )
    status.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?", help="the directory of one mount (all of them)")
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON: an object with one member per mountpoint")
    form.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=_WATCH,
        metavar="SECONDS",
        help=f"show it again and again, every {_WATCH:g} seconds or as often as given",
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} are no seconds; MOUNTPOINT stands before --watch") from None
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text[:60]!r}: it takes 0.1 to 86400 seconds")
    return value


def documents(args: argparse.Namespace) -> Documents:
    """The state of args.mountpoint, or of all mounts, by mountpoint: {"error": why} of a daemon that does not answer.
    Takes a second, whatever the daemons do. Raises ConfigError where nothing is mounted."""
    runtime_dir = config.runtime_dir(args.options)
    sockets = mounts(runtime_dir)
    # After the sockets: a daemon mounts first, so that one that is about to listen is here.
    every = mountpoint.mounted()
    here = {path for path, kind in every.items() if kind == mountpoint.FSTYPE}
    sockets = {path: socket for path, socket in sockets.items() if path in every or not removed_if_dead(socket)}
    if args.mountpoint is not None:
        wanted = [mountpoint.absolute(args.mountpoint)]
        if wanted[0] not in sockets and wanted[0] not in here:
            raise ConfigError(f"{wanted[0]}: no s3fsx mount")
    else:
        wanted = sorted({*sockets, *here})
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return dict(zip(wanted, threads.map(partial(_document, runtime_dir), wanted), strict=True))


def _document(runtime_dir: str, path: str) -> Mapping[str, Any]:
    try:
        return read_status(socket_path(runtime_dir, path), LIMIT)
    except S3fsxError as error:
        return {"error": str(error)}


def _status(args: argparse.Namespace) -> int:
    if args.watch is not None:
        return _watch(args)
    found = documents(args)
    if args.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        colour = _colour()
        sys.stdout.writelines(f"{statusview.coloured(line) if colour else line[1]}\n" for line in _lines(found, {}))
    return _code(found)


def _code(found: Documents) -> int:
    return EXIT_TROUBLE if any(any(health.troubles(document)) for document in found.values()) else EXIT_OK


def _colour() -> bool:
    """https://no-color.org"""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _lines(found: Documents, before: Documents) -> list[statusview.Line]:
    if not found:
        return [("", "no s3fsx mounts")]
    return [line for path, document in found.items() for line in statusview.lines(path, document, before.get(path))]


def _watch(args: argparse.Namespace) -> int:
    """Until interrupted; the exit code is that of the last look."""
    before: Documents = {}
    code = EXIT_OK
    terminal = sys.stdout.isatty()
    try:
        while True:
            found = documents(args)
            code = _code(found)
            if terminal:
                size = shutil.get_terminal_size()
                shown = statusview.screen(_lines(found, before), size.columns, size.lines, colour=_colour())
                sys.stdout.write(shown)
            else:
                sys.stdout.writelines(f"{text}\n" for _, text in (*_lines(found, before), ("", "")))
            sys.stdout.flush()
            before = found
            time.sleep(args.watch)
    except KeyboardInterrupt:
        return code
