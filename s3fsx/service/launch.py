"""Running a mount: in the foreground or as a daemon, until it is unmounted or a signal asks it to end."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

import trio

from .. import safepath
from ..configuration.settings import Settings
from ..errors import BucketMissing, ConfigError, DeadlineExceeded, EndpointDown, S3fsxError, StoreError
from ..s3.errors import may_want_tls
from ..s3.options import BUCKET_RULE, is_bucket_name
from . import daemon, log
from .daemon import EXIT_INPUT, EXIT_OK, EXIT_TROUBLE, Readiness

logger = logging.getLogger("s3fsx.launch")

# A mount needs a handful of requests (a listing, the probe), each within its own deadline.
MIN_START, START_REQUESTS = 60.0, 12


class Run(Protocol):
    """``mount.run``: mounts, calls ready once the kernel's mount answers, returns after the unmount.

    Cancelled, it unmounts in an orderly way. Raises S3fsxError with a one-line message.
    """

    def __call__(self, settings: Settings, mountpoint: str, *, ready: Callable[[], None]) -> Awaitable[None]: ...


def start_limit(settings: Settings) -> float:
    """Seconds after which a mount that has not reported is given up."""
    return max(MIN_START, START_REQUESTS * settings.metadata_deadline)


def foreground(run: Run, settings: Settings, mountpoint: str, *, debug: bool = False) -> int:
    """Runs the mount in this process. Returns the exit code; a failure is one line on stderr as well as in the log."""

    def failed(message: str, code: int) -> None:
        sys.stderr.write(f"s3fsx: {message}\n")
        sys.stderr.flush()

    return _run(run, settings, mountpoint, ready=_told_systemd, failed=failed, foreground=True, debug=debug)


def background(run: Callable[[], Run], settings: Settings, mountpoint: str, *, debug: bool = False) -> int:
    """Runs the mount as a daemon. Returns the exit code once it works or has failed; a failure is printed on stderr.

    ``run`` is a factory, so that boto3 and pyfuse3 are imported after the fork.
    """

    def child(readiness: Readiness) -> int:
        def ready() -> None:
            daemon.redirect(settings.log_file or os.devnull, 2)
            readiness.ready()

        try:
            return _run(
                run(), settings, mountpoint, ready=ready, failed=readiness.failed, foreground=False, debug=debug
            )
        except BaseException as error:
            readiness.failed(describe(error))
            raise

    return daemon.daemonise(child, timeout=start_limit(settings), log=log.place(settings.log_file, daemon=True))


def _told_systemd() -> None:
    daemon.notify_systemd("READY=1")


def _run(
    run: Run,
    settings: Settings,
    mountpoint: str,
    *,
    ready: Callable[[], None],
    failed: Callable[[str, int], None],
    foreground: bool,
    debug: bool,
) -> int:
    try:
        if settings.log_file:
            safepath.log_file(settings.log_file)
        log.setup(settings.log_level, settings.log_file, foreground=foreground, debug=debug)
    except OSError as error:
        failed(f"log_file {settings.log_file}: {error.strerror}", EXIT_INPUT)
        return EXIT_INPUT
    except ConfigError as error:
        failed(str(error), EXIT_INPUT)
        return EXIT_INPUT
    for caution in cautions(settings):
        logger.warning("%s", caution)
    log_uncaught()
    answered = False

    def is_ready() -> None:
        nonlocal answered
        answered = True
        logger.info("mounted on %s", mountpoint)
        ready()

    try:
        trio.run(_until_signal, run, settings, mountpoint, is_ready)
    except BaseException as error:
        known = expected(error)
        code = EXIT_INPUT if isinstance(known, ConfigError) else EXIT_TROUBLE
        store = isinstance(known, StoreError | EndpointDown | DeadlineExceeded)
        message = explain(known, settings) if known and store else describe(error)
        if settings.log_file or not foreground or known is None or debug:  # else failed() is the log as well
            logger.error("%s", message, exc_info=None if known and not debug else error)
        failed(message, code)
        return code
    if not answered:
        failed("ended by a signal before it was mounted", EXIT_TROUBLE)
        return EXIT_TROUBLE
    logger.info("unmounted %s", mountpoint)
    return EXIT_OK


async def _until_signal(run: Run, settings: Settings, mountpoint: str, ready: Callable[[], None]) -> None:
    error: BaseException | None = None
    asked = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        # Until the end of it all: the second SIGTERM of an impatient administrator must not be the default, death.
        await nursery.start(_cancel_on_signal, asked)
        try:
            with asked:
                await run(settings, mountpoint, ready=ready)
        except Exception as raised:  # kept out of the nursery, which would wrap it into a group
            error = raised
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error


async def _cancel_on_signal(scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                continue  # the terminal that a foreground mount was started from has gone; a mount outlives it
            again = " goes on" if scope.cancel_called else ""
            logger.info("%s: unmounting%s", signal.Signals(number).name, again)
            daemon.notify_systemd("STOPPING=1")
            scope.cancel()


def cautions(settings: Settings) -> list[str]:
    """What the settings give away, said once per mount. Nothing for a store on this machine."""
    parts = urlsplit(settings.endpoint)
    if parts.scheme == "https" or not settings.endpoint:
        if settings.verify_tls:
            return []
        return ["verify_tls = false: whoever is on the way can be the store, read everything and change everything"]
    if parts.hostname == "localhost" or (parts.hostname or "").startswith(("127.", "::1")):
        return []
    return [
        f"{settings.endpoint}: not https: keys are not sent, but data can be read on the way, and changed on its way "
        "from the store"
    ]


def address(settings: Settings) -> str:
    """Which bucket, and where."""
    return f"s3://{settings.bucket}/{settings.prefix} at {settings.endpoint or 'Amazon S3 ' + settings.region}"


def explain(error: S3fsxError, settings: Settings) -> str:
    """One line about a store that cannot be used: which, why, and what to look at."""
    text = f"{address(settings)}: {describe(error)}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BucketMissing):
            where = settings.endpoint or f"Amazon S3 {settings.region}"
            if not is_bucket_name(settings.bucket):
                return f"bucket '{settings.bucket}' does not exist at {where}, which may want {BUCKET_RULE}"
            return f"bucket '{settings.bucket}' does not exist at {where}: create it, or check bucket and endpoint"
        cause = cause.__cause__
    if settings.bucket and urlsplit(settings.endpoint).path.strip("/") == settings.bucket:
        return f"{text} (the endpoint ends in the name of the bucket: leave that out)"
    return f"{text} (should the endpoint be https://?)" if may_want_tls(settings.endpoint, text) else text


def expected(error: BaseException) -> S3fsxError | None:
    """The S3fsxError in error, which may be a group that a nursery made; None: a bug."""
    if isinstance(error, S3fsxError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [known for inner in error.exceptions if (known := expected(inner)) is not None]
        return found[0] if found else None
    return None


def describe(error: BaseException) -> str:
    """One line for a person."""
    known = expected(error)
    if known is not None:
        return " ".join(str(known).split()) or type(known).__name__
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"cannot write{f' {error.filename}' if error.filename else ''}: {error.strerror}"
    return f"unexpected {type(error).__name__}{': ' if text else ''}{text} (a bug; --debug shows where)"


def log_uncaught() -> None:
    """What Python would print on stderr, of threads and destructors, goes into the log."""

    def thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            logger.error("uncaught in thread %s", args.thread and args.thread.name, exc_info=args.exc_value)

    def unraisable(args: Any) -> None:
        logger.error("ignored in %r", args.object, exc_info=args.exc_value)

    threading.excepthook = thread
    sys.unraisablehook = unraisable
