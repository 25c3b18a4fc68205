"""kill -9 in the middle of the journal's writes: before and after each write and fsync that sqlite makes.

strace is the injector, so that the product needs no hook: it holds each of these calls for a moment and says so, and
the daemon is killed while the one behind the chosen one is held.
"""

from __future__ import annotations

import itertools
import subprocess
import threading

import pytest

from tests.faults.crashing import Node, Program, noise

pytestmark = [pytest.mark.mount, pytest.mark.rgw, pytest.mark.expect_log("is down|be tried again", optional=True)]

HOLD = "20ms"
CALLS = "pwrite64,fdatasync,fsync,ftruncate"
ATTACH_LIMIT = 30.0  # seconds
MOST = 200  # calls of one life; it has about 40

_numbers = itertools.count(1)


class Tracer:
    """strace on a running mount, for the files of its journal. The mount is killed at call number ``at``, from 1 on."""

    def __init__(self, node: Node, at: int) -> None:
        self._node = node
        self._at = at
        self.calls = 0
        journal = node.mount.journal_file
        paths = [part for suffix in ("", "-wal") for part in ("-P", f"{journal}{suffix}")]
        self._strace = subprocess.Popen(
            ["strace", "-f", "-e", f"trace={CALLS}", *paths, "-e", f"inject={CALLS}:delay_enter={HOLD}",
             "-p", str(node.mount.pid)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self._attached = threading.Event()
        self._reader = threading.Thread(target=self._read)

    def _read(self) -> None:
        assert self._strace.stderr is not None
        for line in self._strace.stderr:
            if "attached" in line:
                self._attached.set()
            elif "(" in line:
                self.calls += 1
                if self.calls == self._at:
                    self._node.kill()

    def __enter__(self) -> Tracer:
        self._reader.start()
        assert self._attached.wait(ATTACH_LIMIT), "strace does not attach"
        return self

    def __exit__(self, *_: object) -> None:
        self._strace.kill()  # it waits for ever for a thread that was killed while it was held
        self._reader.join()
        with self._strace:
            pass


def life(program: Program) -> None:
    """Every state of the journal: a backup that is renamed, one that is read back instead, one that is aborted."""
    for name in ("kept", "read", "aborted"):
        program.temporary(f"{name}.tmp", noise(900, next(_numbers)))
    program.rename("kept.tmp", "kept")
    program.read("read.tmp")
    program.unlink("aborted.tmp")


def test_killed_at_every_call_for_the_journal(node: Node) -> None:
    program = node.program()
    for at in range(1, MOST):
        with Tracer(node, at) as tracer:
            try:
                life(program)
            except OSError:
                assert node.killed
        if not node.killed:
            break
        node.survive()
    assert 10 < at < MOST, f"{at} calls, {tracer.calls} seen"
