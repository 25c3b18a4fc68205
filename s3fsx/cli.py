"""The command line: ``s3fsx`` and the helper ``mount.s3fsx`` that mount(8) calls.

Exit codes: 0 fine, 1 trouble (store, mount), 2 bad input. Errors are one line on stderr; --debug adds the traceback.
Nothing here imports boto3, pyfuse3 or the file system before it is needed: the daemon forks first.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from . import __version__
from .commands import (
    browsing,
    checking,
    configuration,
    doctoring,
    drilling,
    fetching,
    gateway,
    metrics,
    mounting,
    pruning,
    pve,
    recovering,
    state,
    thawing,
    verifying,
)
from .commands.parsing import Commands, Parser
from .errors import ConfigError
from .service import launch, log
from .service.daemon import EXIT_INPUT, EXIT_TROUBLE

DESCRIPTION = (
    "An S3 bucket as a directory, made for Proxmox VE: success means the bytes are in the bucket and verified."
)
EXAMPLES = """\
examples:
  s3fsx check s3://backups/pve1 -o endpoint=https://s3.example.com
  s3fsx mount s3://backups/pve1 /mnt/pve/s3 -o endpoint=https://s3.example.com,credentials_file=/etc/s3fsx/keys
  s3fsx mount pve1 /mnt/pve/s3          # all settings from /etc/s3fsx/pve1.toml
  s3fsx status
  s3fsx umount /mnt/pve/s3
  s3fsx recover pve1                    # what is unfinished in the bucket; changes nothing without --apply

  s3fsx backups pve1                    # guest, time, size, notes, protected, verified; works without a mount, too
  s3fsx get pve1:vzdump-qemu-100-2026_11_20-13_15_26.vma.zst /var/tmp

  /etc/fstab:  pve1  /mnt/pve/s3  s3fsx  _netdev,nofail  0 0

SOURCE is s3://BUCKET[/PREFIX], or NAME for /etc/s3fsx/NAME.toml. Settings come, later ones winning, from
/etc/s3fsx/s3fsx.toml, /etc/s3fsx/NAME.toml, S3FSX_* variables, SOURCE, -o. 's3fsx config show' lists them all.
Keys: access_key and secret_key in a file with mode 0600 or in S3FSX_ACCESS_KEY and S3FSX_SECRET_KEY, or
credentials_file=FILE, or the AWS chain (AWS_* variables, ~/.aws, instance role). Never in -o.
"""
EXIT_INTERRUPTED = 130
COMMANDS = (
    mounting,
    state,
    metrics,
    checking,
    doctoring,
    recovering,
    browsing,
    fetching,
    verifying,
    pruning,
    thawing,
    drilling,
    configuration,
    pve,
    gateway,
)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="s3fsx",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"s3fsx {__version__}")
    commands = Commands(parser)
    for module in COMMANDS:
        module.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    _open_standard_streams()
    args = build_parser().parse_args(arguments)
    return _guarded(args.run, args)


def mount_helper(arguments: Sequence[str] | None = None) -> int:
    """``mount.s3fsx``, as mount(8) calls it."""
    _open_standard_streams()
    args = mounting.helper_parser().parse_args(arguments)
    return _guarded(args.run, args)


def _silence_stdout() -> None:
    """What is left in its buffer and cannot be written would make Python complain again at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_standard_streams() -> None:
    """Of a caller that closed them: what is opened next must not become descriptor 1, and print has to go somewhere."""
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # as they are; for mount, umount, fusermount3
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """run(args), with every exception as one line and an exit code."""
    log.for_command(debug=args.debug)  # until the command sets up its own
    try:
        code = run(args)
        sys.stdout.flush()  # a full disk is found here, and not when Python ends
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()  # whose reader (head, less) has gone
        return EXIT_TROUBLE
    except Exception as error:
        _silence_stdout()
        if args.debug:
            traceback.print_exc()
        sys.stderr.write(f"s3fsx: {launch.describe(error)}\n")
        return EXIT_INPUT if isinstance(launch.expected(error), ConfigError) else EXIT_TROUBLE
