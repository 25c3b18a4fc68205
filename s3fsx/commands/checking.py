"""``s3fsx check``."""

from __future__ import annotations

import argparse
import sys

from ..configuration import config
from ..service import launch, log
from ..service.daemon import EXIT_OK, keep_private
from .parsing import Commands


def add(commands: Commands) -> None:
    check = commands.add("check", _check, "try SOURCE: connect, list, write, rename, read, delete; with latencies")
    check.add_argument("source", metavar="SOURCE", help="as for mount")


def _check(args: argparse.Namespace) -> int:
    keep_private()
    settings = config.load(args.source, args.options).settings
    log.setup("error", foreground=True, debug=args.debug)
    import trio

    from ..s3.check import check_store

    sys.stdout.write(f"{launch.address(settings)}\n")
    sys.stdout.flush()
    trio.run(check_store, settings, sys.stdout.write)
    sys.stdout.write("OK\n")
    return EXIT_OK
