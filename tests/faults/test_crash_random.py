"""kill -9 at any moment under three programs at once; then the next mount, and the oracle.

One start per kill. More of them: S3FSX_TEST_KILLS=2000. A failure names its seed; what the programs do and when they
are killed comes from it, how far they had come by then does not.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable

import pytest

from tests.faults.crashing import PART, Node, Program, noise

pytestmark = [pytest.mark.mount, pytest.mark.rgw, pytest.mark.expect_log("is down|be tried again", optional=True)]

KILLS = int(os.environ.get("S3FSX_TEST_KILLS", "200"))
LONGEST = 0.7  # seconds of a life

Life = Callable[[Program, random.Random], None]
_numbers = itertools.count(1000)


def content(rng: random.Random, *sizes: int) -> bytes:
    return noise(rng.choice(sizes), next(_numbers))


def vzdump(program: Program, rng: random.Random) -> None:
    """Backups with their logs; the one before goes, some are aborted, some replace another, some are read back."""
    name = f"vzdump-qemu-{next(_numbers)}-2026_11_20-13_15_26.vma"
    temporary, final = f"{name}.dat", f"{name}.zst"
    if rng.random() < 0.2:
        program.write(final, content(rng, 700))
    program.temporary(temporary, content(rng, 3000, 3000, PART, PART + 999))
    if rng.random() < 0.2:
        program.unlink(temporary)
        return
    if rng.random() < 0.1:
        program.read(temporary)
    program.rename(temporary, final)
    program.write(f"{name}.log", content(rng, 700))
    program.read(final)
    for old in program.ledger.names():
        if not old.startswith(name):
            program.unlink(old)


def notes(program: Program, rng: random.Random) -> None:
    """Notes written anew, protection set and lifted, files and directories renamed."""
    files = program.ledger.names()
    program.temporary("notes.tmp", content(rng, 200))
    program.rename("notes.tmp", "notes")
    if "x.protected" in files:
        program.unlink("x.protected")
    else:
        program.touch("x.protected")
    old, new = ("one", "two") if any(n.startswith("one/") for n in files) else ("two", "one")
    for name in files:
        if name.startswith(f"{new}/"):  # killed in the middle of a directory's rename: both are there
            program.unlink(name)
    program.write(f"{old}/{rng.choice('abc')}", content(rng, 500))
    program.rename_directory(old, new)
    program.rename("notes", "renamed")


def rewrite(program: Program, rng: random.Random) -> None:
    """Files that exist: written anew, appended to, replaced by another, deleted."""
    name, other = rng.sample(["r1", "r2", "r3"], 2)
    if not program.ledger.content(name):
        program.write(name, content(rng, 4000, PART + 50))
    choice = rng.random()
    if choice < 0.3:
        program.write(name, content(rng, 100, 5000, PART + 1))
    elif choice < 0.6:
        program.append(name, content(rng, 1, 3000))
    elif choice < 0.8:
        program.rename(name, other)
    else:
        program.unlink(name)


class Lives:
    """The programs, each in a thread, until the mount is gone."""

    def __init__(self, node: Node, seed: int) -> None:
        self._node = node
        self._errors: list[BaseException] = []
        for name in ("one", "two"):
            (node.mount.path / "dump" / name).mkdir(exist_ok=True)
        lives = (vzdump, notes, rewrite)
        while len(node.ledgers) < len(lives):
            node.program()
        self._threads = [
            threading.Thread(
                target=self._live,
                args=(life, Program(node.mount.path / "dump", ledger), random.Random(f"{seed} {life.__name__}")),
            )
            for life, ledger in zip(lives, node.ledgers, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def _live(self, life: Life, program: Program, rng: random.Random) -> None:
        try:
            while not self._errors:
                life(program, rng)
        except OSError as e:
            if not self._node.killed:
                self._errors.append(e)
        except BaseException as e:
            self._errors.append(e)

    def end(self) -> None:
        """After the kill."""
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a call in a dead mount does not return"
        if self._errors:
            raise self._errors[0]


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_any_moment(lasting: Node, seed: int) -> None:
    moment = random.Random(seed).uniform(0.0, LONGEST)
    print(f"seed {seed}: killed after {moment:.3f} s")  # noqa: T201  # shown with a failure
    lives = Lives(lasting, seed)
    time.sleep(moment)
    lasting.kill()
    lives.end()
    lasting.survive()
