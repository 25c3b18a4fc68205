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

HOLD = "8ms"
EVERY = 2
CALLS = "pwrite64,fdatasync,fsync,ftruncate"
ATTACH_LIMIT = 30.0  # seconds

_numbers = itertools.count(1)


class Tracer:
    """strace on a running mount, for the files of its journal. The mount is killed at call number ``at``, from 1 on; 0:
    never."""

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
    for name in program.ledger.names():  # a name that is taken is not predicted, and then nothing waits
        program.unlink(name)
    for name in ("kept", "read", "aborted"):
        program.temporary(f"{name}.tmp", noise(900, next(_numbers)))
    program.rename("kept.tmp", "kept")
    program.read("read.tmp")
    program.unlink("aborted.tmp")


def test_killed_at_calls_for_the_journal(node: Node) -> None:
    """Every second one: a write of the journal takes five, so that each of the five kinds is hit in turn.

    Lives differ in length by some calls: it ends with the third that is over before its moment comes.
    """
    program = node.program()
    with Tracer(node, 0) as whole:
        life(program)
    kills = missed = 0
    for at in range(1, whole.calls + 1, EVERY):
        with Tracer(node, at) as tracer:
            try:
                life(program)
            except OSError:
                assert node.killed
        if node.killed:
            kills += 1
            node.survive()
        else:
            missed += 1
            print(f"call {at}: {tracer.calls} seen")  # noqa: T201  # shown with a failure
        if missed == 3:
            break
    assert kills >= 10, f"{kills} kills, {whole.calls} calls in a whole life"
