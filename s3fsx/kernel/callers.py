"""Whose write, close or fsync waits for S3, and whether that program has been killed meanwhile.

A killed program stays in D state until its request is answered, and in a write or fsync it holds its file, so that the
unlink that follows hangs too, with the directory in its hands. The kernel does tell a FUSE daemon of such a signal, but
libfuse keeps that from pyfuse3; so /proc is asked, only while something has waited for long.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from ..errors import S3fsxError

LONG = 10.0  # seconds a call has waited before anybody looks; an ordinary one ends sooner
_EVERY = 5.0
_KILLED = 1 << (signal.SIGKILL - 1)
_EXITING = 4  # PF_EXITING of linux/sched.h
_PENDING = re.compile(r"^SigPnd:\s*([0-9a-f]+)$", re.MULTILINE)
_FLAGS = re.compile(r"^flags:\s*([0-7]+)$", re.MULTILINE)
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Killed:
    """A thread that is to end by a signal and is stuck in the kernel: SIGKILL is pending, or it is closing its files on
    its way out. files: what its process has open for writing: a reader that hangs says nothing about who writes."""

    tid: int
    pid: int
    files: frozenset[str]


@dataclass(eq=False, slots=True)
class _Call:
    """path: of the file, in the mount. opener: who opened it, a thread id."""

    path: str
    opener: int
    since: float
    scope: trio.CancelScope


def killed(proc: Path = Path("/proc")) -> list[Killed]:
    """Every such thread of the machine, as far as this user may see. Blocks for milliseconds."""
    found: list[Killed] = []
    for process in _numbered(proc):
        for thread in _numbered(process / "task"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if _is_killed(
                    (thread / "status").read_text(errors="replace"), (thread / "stat").read_text(errors="replace")
                ):
                    found.append(Killed(int(thread.name), int(process.name), _open_files(process)))
    return found


def _numbered(directory: Path) -> list[Path]:
    """Of processes or threads; none where the process has ended meanwhile."""
    try:
        return [directory / name for name in os.listdir(directory) if name.isdigit()]
    except OSError:
        return []


def _is_killed(status: str, stat: str) -> bool:
    pending = _PENDING.search(status)
    if pending is not None and int(pending[1], 16) & _KILLED:
        return True
    # proc(5): the state is field 3, flags are 9, exit_code is 52, whose low 7 bits are the signal. The threads of
    # a program that ends by itself have none, although they end by a SIGKILL, too.
    fields = stat.rpartition(") ")[2].split()
    return fields[0] not in "ZX" and bool(int(fields[6]) & _EXITING) and bool(int(fields[49]) & 0x7F)


def _open_files(process: Path) -> frozenset[str]:
    names: set[str] = set()
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                flags = _FLAGS.search((process / "fdinfo" / link.name).read_text(errors="replace"))
                if flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY:
                    names.add(os.readlink(link).removesuffix(_DELETED))
    return frozenset(names)


class Callers:
    """The calls that wait, and the watch that ends those nobody waits for any more."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self._calls: set[_Call] = set()

    @contextmanager
    def waits(self, path: str, opener: int) -> Iterator[None]:
        """Around a call. Raises S3fsxError when its caller was killed."""
        call = _Call(path, opener, trio.current_time(), trio.CancelScope())
        self._calls.add(call)
        try:
            with call.scope:
                yield
        finally:
            self._calls.discard(call)
        if call.scope.cancelled_caught:
            raise S3fsxError(f"{path}: its program was killed while it waited for S3")

    async def watch(self) -> None:
        """Runs for ever."""
        while True:
            await trio.sleep(_EVERY)
            if self._long():
                dead = await trio.to_thread.run_sync(killed)
                for call in self._long():
                    if any(self._made_by(call, thread) for thread in dead):
                        call.scope.cancel()

    def _long(self) -> list[_Call]:
        now = trio.current_time()
        return [call for call in self._calls if now - call.since >= LONG]

    def _made_by(self, call: _Call, thread: Killed) -> bool:
        """In a close(2), or at the end of a process, the descriptor is gone from the table already; then who opened the
        file must do."""
        return call.opener in (thread.tid, thread.pid) or f"{self._mountpoint}/{call.path}" in thread.files
