"""``s3fsx check``."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from .. import config, launch, log
from ..daemon import EXIT_OK, keep_private
from ..errors import S3fsxError
from .parsing import Commands


def add(commands: Commands) -> None:
    check = commands.add("check", _check, "try SOURCE: connect, list, write, rename, read, delete; with latencies")
    check.add_argument("source", metavar="SOURCE", help="as for mount")


def _check(args: argparse.Namespace) -> int:
    keep_private()
    settings = config.load(args.source, args.options).settings
    log.setup("error", foreground=True, debug=args.debug)
    import trio

    from ..check import check
    from ..endpoint import Endpoint
    from ..probe import probe
    from ..s3 import S3Store

    async def run() -> None:
        async with S3Store(config.to_s3_options(settings), Endpoint(patience=settings.outage_patience)) as store:
            probing = partial(probe, store, settings.prefix)
            await check(store, settings.prefix, probe=probing, write=sys.stdout.write, read_only=settings.read_only)

    sys.stdout.write(f"{launch.address(settings)}\n")
    sys.stdout.flush()
    try:
        trio.run(run)
    except S3fsxError as error:
        raise S3fsxError(launch.explain(error, settings)) from error
    sys.stdout.write("OK\n")
    return EXIT_OK
