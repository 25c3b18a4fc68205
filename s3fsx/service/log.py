"""Where log lines go: a file, the system's log, or stderr. One format: ``2026-11-20T12:00:00 LEVEL module: text``."""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import stat
import sys
import time
from pathlib import Path

SYSLOG = "/dev/log"
_CGROUP = "/proc/self/cgroup"
LIMIT = 16 << 20  # bytes of a log file
# Libraries whose INFO is of no use to an administrator, and whose DEBUG prints request headers with signatures in it.
QUIET = ("botocore", "boto3", "urllib3", "s3transfer")
# What a command says on its way. All else that is worth a WARNING in the log of a mount ends in its result or error.
TOLD = ("s3fsx.browse", "s3fsx.verify")


def one_line(text: str) -> str:
    """Names in a bucket are whatever somebody wrote there: no line breaks, and nothing that a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class LineFormatter(logging.Formatter):
    """Local time with seconds, and the module without ``s3fsx.``. One record is one line, a traceback apart."""

    def __init__(self, *, timestamp: bool = True, traceback: bool = False) -> None:
        super().__init__()
        self.timestamp = timestamp
        self.traceback = traceback

    def format(self, record: logging.LogRecord) -> str:
        text = one_line(record.getMessage())
        module = record.name.removeprefix("s3fsx.")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S ", time.localtime(record.created)) if self.timestamp else ""
        line = f"{stamp}{record.levelname} {module}: {text}"
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            if self.traceback:
                return f"{line}\n{self.formatException(record.exc_info)}"
            line += one_line(f" ({type(error).__name__}: {error!s})")
        return line


class _PlainFormatter(logging.Formatter):
    """For whoever has typed the command: as its errors are."""

    def format(self, record: logging.LogRecord) -> str:
        return f"s3fsx: {one_line(record.getMessage())}"


class BoundedFileHandler(logging.handlers.WatchedFileHandler):
    """Opened again after logrotate has moved the file; without logrotate it moves the file to FILE.1 by itself, so that
    the two never have more than twice LIMIT bytes."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self.stream is None:
            return
        try:
            status = os.fstat(self.stream.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size > LIMIT:
                os.replace(self.baseFilename, f"{self.baseFilename}.1")  # the next line opens a new one
        except (OSError, ValueError):
            return  # a full or read-only disk, a directory that is not ours: the next line tries again


def place(log_file: str, *, daemon: bool) -> str:
    """Where the lines of a mount of this process go, for a person: a file, or the command that shows them. daemon: not
    in the foreground, where they go to stderr, which a unit has in the journal."""
    if log_file:
        return log_file
    if daemon:
        return "journalctl -t s3fsx"
    try:
        unit = re.search(r"/(s3fsx@[^/\n]+\.service)", Path(_CGROUP).read_text())
    except OSError:
        unit = None
    return f"journalctl -u '{unit[1]}'" if unit else "the standard error of s3fsx mount"


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Not the answers that came too late: at an unmount the kernel drops its releases that are under way, and the write
    of an answer to /dev/fuse then fails with ENOENT, which pyfuse3 logs as an error."""
    return not record.getMessage().endswith("fuse_reply_* failed with No such file or directory")


def for_command(*, debug: bool) -> None:
    """Onto stderr, for the user of a command: errors, and warnings of TOLD; with debug everything, as a log."""
    setup("error", foreground=True, debug=debug, plain=not debug)


def setup(
    level: str, log_file: str = "", *, foreground: bool = False, debug: bool = False, plain: bool = False
) -> None:
    """Replaces the root logger's handlers. Raises OSError when log_file cannot be opened.

    In the foreground without log_file lines go to stderr, which systemd puts into the journal. Otherwise without
    log_file they go to ``/dev/log``, and where that is absent they are lost. debug: level debug. Tracebacks go into
    every log, but onto a terminal only with debug. plain: as ``for_command`` says.
    """
    handler: logging.Handler
    timestamp = True
    if log_file:
        handler = BoundedFileHandler(log_file, encoding="utf-8", errors="backslashreplace")
    elif foreground:
        handler = logging.StreamHandler(sys.stderr)
    elif Path(SYSLOG).exists():
        handler = logging.handlers.SysLogHandler(SYSLOG, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
        handler.ident = "s3fsx: "
        timestamp = False  # syslog has its own
    else:
        handler = logging.NullHandler()
    terminal = foreground and not log_file and sys.stderr.isatty()
    line = LineFormatter(timestamp=timestamp, traceback=debug or not terminal)
    handler.setFormatter(_PlainFormatter() if plain else line)
    logging.raiseExceptions = debug  # a full disk must not make every log call print a traceback
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in TOLD:
        logging.getLogger(name).setLevel(logging.WARNING if plain else logging.NOTSET)
    logging.getLogger("pyfuse3").addFilter(_worth_a_line)
    logging.captureWarnings(True)
