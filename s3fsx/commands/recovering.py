"""``s3fsx recover``."""

from __future__ import annotations

import argparse
import sys

from ..configuration import config
from ..errors import S3fsxError, StoreError
from ..service import launch, log
from ..service.daemon import EXIT_OK
from .parsing import Commands, age, price

PRICE = 0.023  # USD per GB and month: Amazon S3 Standard, us-east-1, first 50 TB


def add(commands: Commands) -> None:
    recover = commands.add(
        "recover",
        _recover,
        "show unfinished uploads of SOURCE, whose they are and what they cost; with --apply deal with them",
    )
    recover.add_argument("source", metavar="SOURCE", help="as for mount")
    recover.add_argument(
        "--apply", action="store_true", help="do it: for this machine's journal, or what is chosen here"
    )
    which = recover.add_mutually_exclusive_group()
    which.add_argument("--node", default="", metavar="NODE", help="a node that is gone for good, by id or host name")
    which.add_argument(
        "--older-than", type=age, metavar="AGE", help="uploads that no journal names and that are older, such as 7d"
    )
    recover.add_argument(
        "--price", type=price, default=PRICE, metavar="USD", help=f"of a GB and month ({PRICE}: Amazon S3 Standard)"
    )
    recover.add_argument("--json", action="store_true", help="as JSON")


def _recover(args: argparse.Namespace) -> int:
    settings = config.load(args.source, args.options).settings
    log.setup("info" if args.apply else "warning", foreground=True, debug=args.debug)
    import trio

    from ..service.recovercmd import Wish, recover

    wish = Wish(args.apply, args.node, args.older_than, args.price, args.json)
    try:
        left = trio.run(recover, settings, wish, sys.stdout.write)
    except StoreError as error:
        raise S3fsxError(launch.explain(error, settings)) from error
    if left:
        raise S3fsxError(f"{left} were left as they are; the lines above say why")
    return EXIT_OK
