"""``s3fsx config show``."""

from __future__ import annotations

import argparse
import sys

from ..configuration import config
from ..service import report
from ..service.daemon import EXIT_OK
from .parsing import Commands


def add(commands: Commands) -> None:
    show = commands.group("config", "Show settings.").add(
        "show",
        _config_show,
        "Every setting, its value and where that came from; secrets are masked.",
        help="every setting, its value and where that came from",
    )
    show.add_argument(
        "source", metavar="SOURCE", nargs="?", help="as for mount; without: what all mounts have in common"
    )


def _config_show(args: argparse.Namespace) -> int:
    effective = config.load(args.source, args.options).effective
    sys.stdout.writelines(f"{line}\n" for line in report.config_lines(effective))
    return EXIT_OK
