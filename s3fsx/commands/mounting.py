"""``s3fsx mount``, ``mount.s3fsx`` and ``s3fsx umount``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace

from ..configuration import config
from ..errors import ConfigError, S3fsxError
from ..kernel import mountpoint
from ..service import lastwords, launch
from ..service.daemon import EXIT_OK, EXIT_TROUBLE, forget_variables, keep_private
from ..service.status import read_status, socket_path
from .parsing import Commands, Parser, seconds

_LEAST = 2.0  # seconds for umount(8): of a mount that is well it takes some milliseconds


def add(commands: Commands) -> None:
    mount = commands.add("mount", _mount, "mount SOURCE on the directory MOUNTPOINT; returns when it works")
    mount.add_argument("source", metavar="SOURCE", help="s3://BUCKET[/PREFIX], or NAME of /etc/s3fsx/NAME.toml")
    mount.add_argument("mountpoint", metavar="MOUNTPOINT", help="an existing directory")
    mount.add_argument("-f", "--foreground", action="store_true", help="stay, and log to stderr (for systemd)")
    mount.add_argument("--log-file", metavar="FILE", help="same as -o log_file=FILE")

    umount = commands.add("umount", _umount, "unmount MOUNTPOINT and wait until everything is in the bucket")
    umount.add_argument("mountpoint", metavar="MOUNTPOINT", help="the directory of the mount")
    umount.add_argument("-l", "--lazy", action="store_true", help="also when it is busy or its daemon is dead")
    umount.add_argument("--timeout", type=seconds, default=900.0, metavar="S", help="how long to wait (900)")


def helper_parser() -> argparse.ArgumentParser:
    """``mount.s3fsx SOURCE DIR [-sfnv] [-N NS] [-t TYPE] [-o OPTIONS]``, as mount(8) calls it."""
    parser = Parser(prog="mount.s3fsx", description="Helper for: mount -t s3fsx SOURCE DIR -o ...")
    parser.add_argument("source", metavar="SOURCE", help="s3://BUCKET[/PREFIX], or NAME of /etc/s3fsx/NAME.toml")
    parser.add_argument("mountpoint", metavar="DIR", help="an existing directory")
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="OPTIONS")
    parser.add_argument("-f", dest="fake", action="store_true", help="only check the input")
    parser.add_argument("-v", dest="debug", action="store_true", help="log everything, show tracebacks")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="accepted, means nothing here")
    parser.add_argument("-n", dest="no_mtab", action="store_true", help="accepted, means nothing here")
    parser.add_argument("-N", dest="namespace", help="not supported")
    parser.add_argument("-t", dest="type", help="accepted, means nothing here")
    parser.set_defaults(run=_mount, foreground=False, log_file=None, helper=True)
    return parser


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
    if hidden := mountpoint.would_hide(path):
        sys.stderr.write(f"s3fsx: {path}: not empty: {hidden!r}, and what else lies there, is hidden by the mount\n")
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
    from ..service.mount import run

    return run


def _umount(args: argparse.Namespace) -> int:
    path = mountpoint.absolute(args.mountpoint)
    socket = socket_path(config.runtime_dir(args.options), path)
    pidfd = mountpoint.daemon_of(socket)
    end = time.monotonic() + args.timeout
    try:
        limit = min(mountpoint.COMMAND_LIMIT, max(args.timeout, _LEAST))
        mountpoint.unmount(path, lazy=args.lazy or mountpoint.is_dead(path), limit=limit)
        left = max(0.0, end - time.monotonic())
        if pidfd is not None and not args.lazy and not mountpoint.wait_for_end(pidfd, left):
            raise S3fsxError(
                f"{path}: unmounted, but after {args.timeout:.0f} s its daemon is not done with the bucket, and goes "
                f"on; its log: {_log_of(socket)}"
            )
    finally:
        if pidfd is not None:
            os.close(pidfd)
    words = lastwords.read(socket) if pidfd is not None and not args.lazy else lastwords.LastWords()
    sys.stderr.writelines(f"s3fsx: {path}: unmounted; {line}\n" for line in (*words.published, *words.left))
    return EXIT_TROUBLE if words.left else EXIT_OK


def _log_of(socket: str) -> str:
    try:
        return str(read_status(socket).get("log", "journalctl -t s3fsx"))
    except S3fsxError:
        return "journalctl -t s3fsx, or -u s3fsx@NAME"
