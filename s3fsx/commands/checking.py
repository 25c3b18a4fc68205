"""``s3fsx check``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..configuration import config
from ..errors import S3fsxError
from ..service import launch, state
from ..service.daemon import EXIT_OK, keep_private
from .buckets import write_json
from .parsing import Commands

if TYPE_CHECKING:
    from ..configuration.settings import Settings
    from ..service.check import Event


def add(commands: Commands) -> None:
    check = commands.add("check", _check, "try SOURCE: connect, list, write, rename, read, delete; with latencies")
    check.add_argument("source", metavar="SOURCE", help="as for mount")
    check.add_argument("--json", action="store_true", help="as JSON")


def _check(args: argparse.Namespace) -> int:
    keep_private()
    settings = config.load(args.source, args.options).settings
    import trio

    from ..service.check import check_store

    if args.json:
        return _as_json(settings)
    sys.stdout.write(f"{launch.address(settings)}\n")
    sys.stdout.flush()
    trio.run(check_store, settings, lambda event: sys.stdout.write(f"{event}\n"))
    sys.stdout.write("OK\n")
    return EXIT_OK


def _as_json(settings: Settings) -> int:
    """What was found out until it failed, too; then it raises S3fsxError."""
    import trio

    from ..service.check import check_store

    told: list[Event] = []
    failed: S3fsxError | None = None
    try:
        trio.run(check_store, settings, told.append)
    except S3fsxError as error:
        failed = error
    write_json(document(settings, told, failed))
    if failed is not None:
        raise failed
    return EXIT_OK


def document(settings: Settings, told: list[Event], failed: S3fsxError | None) -> dict[str, object]:
    """Pure."""
    from ..service.check import Remark, Step
    from ..store.findings import Finding

    return {
        "source": state.source(settings),
        "endpoint": state.url(settings),
        "ok": failed is None,
        "error": None if failed is None else str(failed),
        "steps": [
            {"name": event.name, "ms": round(event.seconds * 1000, 1)} for event in told if isinstance(event, Step)
        ],
        "remarks": [event.text for event in told if isinstance(event, Remark)],
        "findings": [asdict(event) for event in told if isinstance(event, Finding)],
    }
