"""The command line: ``s3fsx`` and the helper ``mount.s3fsx`` that mount(8) calls.

Exit codes: 0 fine, 1 trouble (store, mount), 2 bad input. Errors are one line on stderr; --debug adds the traceback.
Nothing here imports boto3, pyfuse3 or the file system before it is needed: the daemon forks first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from . import __version__, config, lastwords, launch, log, mountpoint, report, values
from .daemon import EXIT_INPUT, EXIT_OK, EXIT_TROUBLE, forget_variables, keep_private
from .errors import ConfigError, S3fsxError, StoreError
from .status import mounts, read_status, removed_if_dead, socket_path

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

  /etc/fstab:  pve1  /mnt/pve/s3  s3fsx  _netdev,nofail  0 0

SOURCE is s3://BUCKET[/PREFIX], or NAME for /etc/s3fsx/NAME.toml. Settings come, later ones winning, from
/etc/s3fsx/s3fsx.toml, /etc/s3fsx/NAME.toml, S3FSX_* variables, SOURCE, -o. 's3fsx config show' lists them all.
Keys: access_key and secret_key in a file with mode 0600 or in S3FSX_ACCESS_KEY and S3FSX_SECRET_KEY, or
credentials_file=FILE, or the AWS chain (AWS_* variables, ~/.aws, instance role). Never in -o.
"""
EXIT_INTERRUPTED = 130
PRICE = 0.023  # USD per GB and month: Amazon S3 Standard, us-east-1, first 50 TB


def build_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="log everything, show tracebacks")
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "-o",
        dest="options",
        action="append",
        default=[],
        metavar="KEY=VALUE,...",
        help=r"settings and mount options; a comma in a value is \, ('s3fsx config show' lists all keys)",
    )
    parser = argparse.ArgumentParser(
        prog="s3fsx",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"s3fsx {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=[*parents, common], allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    mount = command("mount", _mount, "mount SOURCE on the directory MOUNTPOINT; returns when it works", options)
    mount.add_argument("source", metavar="SOURCE", help="s3://BUCKET[/PREFIX], or NAME of /etc/s3fsx/NAME.toml")
    mount.add_argument("mountpoint", metavar="MOUNTPOINT", help="an existing directory")
    mount.add_argument("-f", "--foreground", action="store_true", help="stay, and log to stderr (for systemd)")
    mount.add_argument("--log-file", metavar="FILE", help="same as -o log_file=FILE")

    umount = command("umount", _umount, "unmount MOUNTPOINT and wait until everything is in the bucket", options)
    umount.add_argument("mountpoint", metavar="MOUNTPOINT")
    umount.add_argument("-l", "--lazy", action="store_true", help="also when it is busy or its daemon is dead")
    umount.add_argument("--timeout", type=_seconds, default=900.0, metavar="S", help="how long to wait (900)")

    status = command("status", _status, "state of MOUNTPOINT, or of all mounts", options)
    status.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?")
    status.add_argument("--json", action="store_true", help="as JSON: an object with one member per mountpoint")

    check = command("check", _check, "try SOURCE: connect, list, write, rename, read, delete; with latencies", options)
    check.add_argument("source", metavar="SOURCE", help="as for mount")

    recover = command(
        "recover",
        _recover,
        "show unfinished uploads of SOURCE, whose they are and what they cost; with --apply deal with them",
        options,
    )
    recover.add_argument("source", metavar="SOURCE", help="as for mount")
    recover.add_argument(
        "--apply", action="store_true", help="do it: for this machine's journal, or what is chosen here"
    )
    which = recover.add_mutually_exclusive_group()
    which.add_argument("--node", default="", metavar="NODE", help="a node that is gone for good, by id or host name")
    which.add_argument(
        "--older-than", type=_age, metavar="AGE", help="uploads that no journal names and that are older, such as 7d"
    )
    recover.add_argument(
        "--price", type=_price, default=PRICE, metavar="USD", help=f"of a GB and month ({PRICE}: Amazon S3 Standard)"
    )
    recover.add_argument("--json", action="store_true", help="as JSON")

    settings = commands.add_parser("config", help="show settings", description="Show settings.")
    show = settings.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "show",
        help="every setting, its value and where that came from",
        description="Every setting, its value and where that came from; secrets are masked.",
        parents=[options, common],
        allow_abbrev=False,
    )
    show.add_argument(
        "source", metavar="SOURCE", nargs="?", help="as for mount; without: what all mounts have in common"
    )
    show.set_defaults(run=_config_show)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    args = build_parser().parse_args(arguments)
    return _guarded(args.run, args)


def mount_helper(arguments: Sequence[str] | None = None) -> int:
    """``mount.s3fsx SOURCE DIR [-sfnv] [-N NS] [-t TYPE] [-o OPTIONS]``, as mount(8) calls it."""
    parser = argparse.ArgumentParser(prog="mount.s3fsx", description="Helper for: mount -t s3fsx SOURCE DIR -o ...")
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("mountpoint", metavar="DIR")
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="OPTIONS")
    parser.add_argument("-f", dest="fake", action="store_true", help="only check the input")
    parser.add_argument("-v", dest="debug", action="store_true", help="log everything, show tracebacks")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="accepted, means nothing here")
    parser.add_argument("-n", dest="no_mtab", action="store_true", help="accepted, means nothing here")
    parser.add_argument("-N", dest="namespace", help="not supported")
    parser.add_argument("-t", dest="type", help="accepted, means nothing here")
    args = parser.parse_args(arguments)
    args.foreground, args.log_file, args.helper = False, None, True
    return _guarded(_mount, args)


def _guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """run(args), with every exception as one line and an exit code."""
    if args.debug:
        log.setup("debug", foreground=True, debug=True)  # until the command sets up its own
    try:
        return run(args)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; Python must not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_TROUBLE
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        sys.stderr.write(f"s3fsx: {launch.describe(error)}\n")
        return EXIT_INPUT if isinstance(launch.expected(error), ConfigError) else EXIT_TROUBLE


def _mount(args: argparse.Namespace) -> int:
    if getattr(args, "namespace", None):
        raise ConfigError("-N is not supported: enter the namespace first, with nsenter")
    keep_private()
    settings = config.load(args.source, args.options).settings
    forget_variables(config.secret_variables(os.environ))
    if args.log_file:
        settings = replace(settings, log_file=os.path.abspath(args.log_file))
    if not getattr(args, "fake", False) and mountpoint.clear_dead(args.mountpoint):
        sys.stderr.write(f"s3fsx: {args.mountpoint}: unmounted what an s3fsx that was killed had left there\n")
    if getattr(args, "helper", False) and mountpoint.is_mounted(args.mountpoint, settings.bucket, settings.prefix):
        # mount -a, which knows a mounted line only by SOURCE and type, and mountinfo has others for ours.
        return _is_served(settings.runtime_dir, args.mountpoint)
    path = mountpoint.prepare(args.mountpoint)
    socket_path(settings.runtime_dir, path)  # refuses a path that is too long
    if getattr(args, "fake", False):
        return EXIT_OK
    if args.foreground:
        return launch.foreground(_run_mount(), settings, path, debug=args.debug)
    code = launch.background(_run_mount, settings, path, debug=args.debug)
    if code != EXIT_OK and path in mountpoint.mounted():
        mountpoint.unmount(path, lazy=True)  # a daemon that had to be killed half way
    return code


def _is_served(runtime_dir: str, directory: str) -> int:
    path = mountpoint.absolute(directory)
    pidfd = mountpoint.daemon_of(socket_path(runtime_dir, path))
    if pidfd is None:
        raise S3fsxError(f"{path}: mounted, but no daemon answers: s3fsx umount --lazy {path}, then mount again")
    os.close(pidfd)
    return EXIT_OK


def _run_mount() -> launch.Run:
    from .mount import run

    return run


def _umount(args: argparse.Namespace) -> int:
    path = mountpoint.absolute(args.mountpoint)
    socket = socket_path(config.runtime_dir(args.options), path)
    pidfd = mountpoint.daemon_of(socket)
    try:
        mountpoint.unmount(path, lazy=args.lazy or mountpoint.is_dead(path))
        if pidfd is not None and not args.lazy and not mountpoint.wait_for_end(pidfd, args.timeout):
            raise S3fsxError(
                f"{path}: unmounted, but after {args.timeout:.0f} s its daemon is not done with the bucket; see its log"
            )
    finally:
        if pidfd is not None:
            os.close(pidfd)
    left = lastwords.read(socket) if pidfd is not None and not args.lazy else []
    sys.stderr.writelines(f"s3fsx: {path}: unmounted; {line}\n" for line in left)
    return EXIT_TROUBLE if left else EXIT_OK


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


def _check(args: argparse.Namespace) -> int:
    keep_private()
    settings = config.load(args.source, args.options).settings
    log.setup("error", foreground=True, debug=args.debug)
    import trio

    from .check import check
    from .endpoint import Endpoint
    from .probe import probe
    from .s3 import S3Store

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


def _recover(args: argparse.Namespace) -> int:
    settings = config.load(args.source, args.options).settings
    log.setup("info" if args.apply else "warning", foreground=True, debug=args.debug)
    import trio

    from .recovercmd import Wish, recover

    wish = Wish(args.apply, args.node, args.older_than, args.price, args.json)
    try:
        left = trio.run(recover, settings, wish, sys.stdout.write)
    except StoreError as error:
        raise S3fsxError(launch.explain(error, settings)) from error
    if left:
        raise S3fsxError(f"{left} were left as they are; the lines above say why")
    return EXIT_OK


def _config_show(args: argparse.Namespace) -> int:
    effective = config.load(args.source, args.options).effective
    sys.stdout.writelines(f"{line}\n" for line in report.config_lines(effective))
    return EXIT_OK


def _age(text: str) -> float:
    try:
        return float(values.duration(0, 36500 * 86400).parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _price(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError("0 to 1000 USD")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError("0 to 86400 seconds")
    return value
