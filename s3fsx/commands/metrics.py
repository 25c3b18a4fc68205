"""``s3fsx metrics``."""

from __future__ import annotations

import argparse
import sys

from ..metrics import catalogue, exposition
from ..service.daemon import EXIT_OK, EXIT_TROUBLE
from .parsing import Commands
from .state import documents


def add(commands: Commands) -> None:
    text = "metrics of MOUNTPOINT, or of all mounts, in Prometheus' text format"
    metrics = commands.add("metrics", _metrics, text)
    metrics.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?", help="the directory of one mount (all of them)")


def _metrics(args: argparse.Namespace) -> int:
    found = documents(args)
    failed = {path: document["error"] for path, document in found.items() if "error" in document}
    told = [catalogue.families(document) for path, document in found.items() if path not in failed]
    sys.stdout.write(exposition.render(exposition.merged(told)))
    sys.stderr.writelines(f"s3fsx: {path}: {why}\n" for path, why in failed.items())
    return EXIT_TROUBLE if failed else EXIT_OK
