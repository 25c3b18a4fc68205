"""kill -9 at every request of what a mount does, before and after its effect; then the next mount, and the oracle.

The kills between requests are in test_crash_journal.py and test_crash_random.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.faults.crashing import PART, Node, Program, noise

pytestmark = [pytest.mark.mount, pytest.mark.rgw, pytest.mark.expect_log("is down|be tried again", optional=True)]

_numbers = itertools.count(100)
LARGE = 2 * PART + 12_345  # two full parts and a bit


def vzdump_name() -> str:
    return f"vzdump-qemu-{next(_numbers)}-2026_11_20-13_15_26.vma"


@dataclass
class Scene:
    """What each case works with: the last file it made, and contents that differ."""

    program: Program
    name: str = ""

    def content(self, size: int = 5000) -> bytes:
        return noise(size, next(_numbers))

    # Before the case: these succeed.

    def nothing(self) -> None:
        self.name = vzdump_name()

    def closed(self) -> None:
        """A backup that waits for its rename."""
        self.nothing()
        self.program.temporary(f"{self.name}.dat", self.content(LARGE))

    def small(self) -> None:
        self.name = f"file{next(_numbers)}"
        self.program.write(self.name, self.content())

    def two(self) -> None:
        self.small()
        self.program.write(f"{self.name}.other", self.content())

    def large(self) -> None:
        self.name = f"file{next(_numbers)}"
        self.program.write(self.name, self.content(PART + 7))

    def taken(self) -> None:
        """A backup whose name exists already: nothing is predicted, it is published before its rename."""
        self.nothing()
        self.program.write(f"{self.name}.zst", self.content())
        self.program.temporary(f"{self.name}.dat", self.content(LARGE))

    def directory(self) -> None:
        self.name = f"dir{next(_numbers)}"
        (self.program.dump / self.name).mkdir()
        for i in range(4):
            self.program.write(f"{self.name}/{i}", self.content())

    def read_only(self) -> None:
        self.closed()

    # The case: it is killed in the middle.

    def backup(self) -> None:
        self.program.temporary(f"{self.name}.dat", self.content(LARGE))
        self.commit()

    def commit(self) -> None:
        self.program.rename(f"{self.name}.dat", f"{self.name}.zst")

    def rename_backup_otherwise(self) -> None:
        self.program.rename(f"{self.name}.dat", f"{self.name}.zst.other")

    def read_back(self) -> None:
        self.program.read(f"{self.name}.dat")

    def abort(self) -> None:
        self.program.unlink(f"{self.name}.dat")

    def rename(self) -> None:
        self.program.rename(self.name, f"{self.name}.new")

    def replace(self) -> None:
        self.program.rename(self.name, f"{self.name}.other")

    def rename_directory(self) -> None:
        self.program.rename_directory(self.name, f"{self.name}.new")

    def delete(self) -> None:
        self.program.unlink(self.name)

    def rewrite_small(self) -> None:
        self.program.write(self.name, self.content())

    def rewrite_large(self) -> None:
        self.program.write(self.name, self.content(LARGE))

    def append(self) -> None:
        self.program.append(self.name, self.content())

    def protect(self) -> None:
        self.program.touch(f"{self.name}.zst.protected")

    def notes(self) -> None:
        self.program.temporary(f"{self.name}.zst.notes.tmp", self.content(300))
        self.program.rename(f"{self.name}.zst.notes.tmp", f"{self.name}.zst.notes")


Step = Callable[[Scene], None]


@dataclass(frozen=True)
class Point:
    """The kill comes at the request ``kind`` (after ``skip`` of them) of ``act``."""

    before: Step
    act: Step
    kind: str
    skip: int = 0

    def __str__(self) -> str:
        return f"{self.act.__name__}-{self.kind}-{self.skip}".replace(" ", "_")


def points(before: Step, act: Step, *kinds: str | tuple[str, int]) -> list[Point]:
    return [Point(before, act, *((k, 0) if isinstance(k, str) else k)) for k in kinds]


POINTS = [
    *points(Scene.nothing, Scene.backup, "CREATE UPLOAD", *(("PUT PART", k) for k in range(3))),
    *points(Scene.closed, Scene.commit, "LIST PARTS", "COMPLETE", "HEAD"),
    *points(Scene.closed, Scene.rename_backup_otherwise, "COMPLETE", "COPY", "DELETE", ("COPY", 1), ("DELETE", 1)),
    *points(Scene.closed, Scene.read_back, "COMPLETE", "COPY", "DELETE"),
    *points(Scene.closed, Scene.abort, "ABORT"),
    *points(Scene.taken, Scene.commit, "COPY", "DELETE"),
    *points(Scene.small, Scene.rename, "COPY", "DELETE"),
    *points(Scene.two, Scene.replace, "COPY", "DELETE"),
    *points(Scene.directory, Scene.rename_directory, ("COPY", 2), ("DELETE", 0), ("DELETE", 2)),
    *points(Scene.small, Scene.delete, "DELETE"),
    *points(Scene.small, Scene.rewrite_small, "PUT"),
    *points(Scene.large, Scene.rewrite_large, "CREATE UPLOAD", ("PUT PART", 1), "COMPLETE", "HEAD"),
    *points(Scene.large, Scene.append, "CREATE UPLOAD", "COPY PART", "PUT PART", "COMPLETE"),
    *points(Scene.small, Scene.append, "PUT"),
    *points(Scene.nothing, Scene.protect, "PUT"),
    *points(Scene.nothing, Scene.notes, "CREATE UPLOAD", "PUT PART", "COMPLETE"),
]
EFFECT = pytest.mark.parametrize("effect", [False, True], ids=["before", "after"])


@EFFECT
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed_at_a_request(node: Node, point: Point, effect: bool) -> None:
    scene = Scene(node.program())
    point.before(scene)
    with node.dying(point.kind, skip=point.skip, effect=effect):
        point.act(scene)
    node.survive()


def test_killed_between_close_and_rename(node: Node) -> None:
    Scene(node.program()).closed()
    node.kill()
    node.survive()


@EFFECT
@pytest.mark.parametrize("kind", ["LIST PARTS", "COMPLETE", "HEAD", "COPY", "DELETE"])
def test_killed_while_the_unmount_publishes_what_waits(node: Node, kind: str, effect: bool) -> None:
    Scene(node.program()).closed()
    with node.dying(kind, effect=effect):
        node.mount.umount_under_fire()
    node.mount.start()
    node.check()


REPLAYS = [
    Point(Scene.nothing, Scene.backup, "CREATE UPLOAD"),
    Point(Scene.nothing, Scene.backup, "PUT PART", 1),
    Point(Scene.closed, Scene.commit, "COMPLETE"),
    Point(Scene.closed, Scene.rename_backup_otherwise, "COMPLETE"),
    Point(Scene.closed, Scene.abort, "ABORT"),
    Point(Scene.directory, Scene.rename_directory, "DELETE", 1),
]


@EFFECT
@pytest.mark.parametrize("point", REPLAYS, ids=str)
def test_the_next_mounts_are_killed_in_their_replay(node: Node, point: Point, effect: bool) -> None:
    """The first at its first request, the second at its second, and so on until one comes through."""
    scene = Scene(node.program())
    point.before(scene)
    with node.dying(point.kind, skip=point.skip, effect=True):
        point.act(scene)
    node.fall()
    deaths = 0
    while node.killed_in_replay(deaths, effect=effect):
        deaths += 1
    assert deaths >= (0 if point.act is Scene.rename_directory else 1)
    node.check()
