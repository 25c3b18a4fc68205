"""Becoming a daemon that reports whether it works: double fork, a pipe back, and a process that leaves no core file.

The order matters: ``daemonise`` runs before any thread, trio or boto3 exists, because a fork takes over only the
calling thread and all locks as they are. The parent waits on the pipe and ends with what the child says.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

OK = "ok"
EXIT_OK, EXIT_TROUBLE, EXIT_INPUT = 0, 1, 2
_PR_SET_DUMPABLE = 4  # linux/prctl.h


class Readiness:
    """Tells the waiting parent, once, how the start ended. Later calls do nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @property
    def told(self) -> bool:
        return self._descriptor is None

    def ready(self) -> None:
        self._tell(f"{EXIT_OK} {OK}")

    def failed(self, message: str, code: int = EXIT_TROUBLE) -> None:
        self._tell(f"{code} {message}")

    def _tell(self, text: str) -> None:
        if self._descriptor is None:
            return
        try:
            # 4096 bytes (PIPE_BUF) into an empty pipe never block.
            os.write(self._descriptor, text.replace("\n", " ").encode(errors="backslashreplace")[:4096])
        except BrokenPipeError:
            pass  # the parent was killed; the mount is as good without it
        finally:
            os.close(self._descriptor)
            self._descriptor = None


def daemonise(child: Callable[[Readiness], int], *, timeout: float, log: str) -> int:
    """Runs ``child(readiness)`` in a daemon; returns, in the parent, the exit code once it reported.

    The parent prints a failure's line on stderr. A daemon that ends without a word, or says nothing for ``timeout``
    seconds, is a failure, too; a silent one is killed. log: where its log is, for a person.
    """
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    first = os.fork()
    if first == 0:
        os.close(read_end)
        _become_daemon(child, write_end)
    os.close(write_end)
    os.waitpid(first, 0)
    code, message = _await_report(read_end, timeout, log)
    if code != EXIT_OK:
        sys.stderr.write(f"s3fsx: {message or f'no answer from the daemon within {timeout:.0f} s'}\n")
    return code


def _become_daemon(child: Callable[[Readiness], int], write_end: int) -> NoReturn:
    code = EXIT_TROUBLE
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        os.write(write_end, f"{os.getpid()}\n".encode())
        os.chdir("/")
        redirect(os.devnull, 0, 1)  # not yet 2: what libfuse and fusermount say about a failing mount is for the user
        code = child(Readiness(write_end))
    finally:
        # Never back into the caller's stack, which belongs to the parent's program.
        os._exit(code)


def _await_report(read_end: int, timeout: float, log: str) -> tuple[int, str | None]:
    """(exit code, message) of the daemon; message None: silence, and the daemon has been killed."""
    deadline = time.monotonic() + timeout
    received = b""
    try:
        while select.select([read_end], [], [], max(0.0, deadline - time.monotonic()))[0]:
            chunk = os.read(read_end, 8192)
            if not chunk:
                break
            received += chunk
        else:
            _stop(received, signal.SIGKILL)
            return EXIT_TROUBLE, None
    except KeyboardInterrupt:
        _stop(received, signal.SIGTERM)
        raise
    finally:
        os.close(read_end)
    _, _, report = received.decode(errors="replace").partition("\n")
    code, _, message = report.partition(" ")
    if not code.isdigit():
        return EXIT_TROUBLE, f"the daemon ended without a word; its log: {log}"
    return int(code), message


def _stop(received: bytes, number: signal.Signals) -> None:
    """Signals the daemon, whose pid is the first line it sent."""
    pid, newline, _ = received.partition(b"\n")
    if newline:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), number)


def redirect(path: str, *descriptors: int) -> None:
    """Points descriptors at a file (created, appended to) or device. Raises OSError."""
    opened = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOCTTY, 0o640)
    for descriptor in descriptors:
        os.dup2(opened, descriptor)
    if opened not in descriptors:
        os.close(opened)


def keep_private() -> None:
    """No core file and no ptrace by the same user: the memory of this process holds keys and other people's data. And
    no file that others may read, whoever makes it."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def forget_variables(names: Iterable[str]) -> None:
    """Not for child processes, and not in /proc/PID/environ, which shows the memory that the kernel filled at exec."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    libc.strlen.argtypes, libc.strlen.restype = [ctypes.c_void_p], ctypes.c_size_t
    for name in names:
        if address := libc.getenv(os.fsencode(name)):
            ctypes.memset(address, 0, libc.strlen(address))
        os.environ.pop(name, None)


def notify_systemd(state: str, env: Mapping[str, str] = os.environ) -> bool:
    """Sends e.g. READY=1 to the service manager (sd_notify(3)). False where none listens."""
    address = env.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            channel.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError:
        return False
    return True
