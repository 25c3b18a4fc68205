"""``s3fsx status``."""

from __future__ import annotations

import argparse
import json
import sys

from .. import config, mountpoint, report
from ..daemon import EXIT_OK, EXIT_TROUBLE
from ..errors import ConfigError, S3fsxError
from ..status import mounts, read_status, removed_if_dead, socket_path
from .parsing import Commands


def add(commands: Commands) -> None:
    status = commands.add("status", _status, "state of MOUNTPOINT, or of all mounts")
    status.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?")
    status.add_argument("--json", action="store_true", help="as JSON: an object with one member per mountpoint")


def _status(args: argparse.Namespace) -> int:
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
    documents: dict[str, dict[str, object]] = {}
    code = EXIT_OK
    for path in wanted:
        try:
            documents[path] = read_status(socket_path(runtime_dir, path))
        except S3fsxError as error:
            documents[path] = {"error": str(error)}
            code = EXIT_TROUBLE
    if args.json:
        sys.stdout.write(json.dumps(documents, indent=2) + "\n")
    else:
        for path, document in documents.items():
            sys.stdout.writelines(f"{line}\n" for line in (path, *report.status_lines(document, indent=2)))
        if not documents:
            sys.stdout.write("no s3fsx mounts\n")
    return code
