"""The same random system calls on the mount and on a local file system must give the same answers (after fsx, Apple).

Files stay below one part, where every edit is possible; the store sees whole objects come and go.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import MakeMount

pytestmark = pytest.mark.mount

LARGEST = 2 << 20
OPERATIONS = 250
NAMES = ["a", "b", "c.tmp", "d/e"]
KINDS = [
    "open",
    "create",
    "trunc",
    "append",
    "write",
    "write",
    "write",
    "read",
    "read",
    "ftruncate",
    "truncate",
    "fsync",
    "close",
    "close",
    "rename",
    "unlink",
    "size",
]


def outcome(action: Callable[[], object]) -> object:
    """What a call returned, or the errno it failed with."""
    try:
        return action()
    except OSError as e:
        return e.errno


class Side:
    """One of the two file systems, with at most one descriptor open per name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open_files: dict[str, int] = {}

    def open(self, name: str, flags: int) -> object:
        self.close(name)

        def action() -> bool:
            self.open_files[name] = os.open(self.root / name, flags, 0o644)
            return True

        return outcome(action)

    def close(self, name: str) -> bool:
        fd = self.open_files.pop(name, None)
        if fd is not None:
            os.close(fd)
        return fd is not None

    def on_fd(self, name: str, action: Callable[[int], object]) -> object:
        fd = self.open_files.get(name)
        return None if fd is None else outcome(lambda: action(fd))

    def close_all(self) -> None:
        for name in list(self.open_files):
            self.close(name)

    def everything(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }


def step(rng: random.Random) -> tuple[str, Callable[[Side], object]]:
    """One operation, drawn once and done on both sides."""
    name, other = rng.choice(NAMES), rng.choice(NAMES)
    offset, size = rng.randrange(LARGEST), rng.choice([0, 1, 511, 4096, 70_000, 300_000])
    size = min(size, LARGEST - offset)
    data = rng.randbytes(size)
    kind = rng.choice(KINDS)
    actions: dict[str, Callable[[Side], object]] = {
        "open": lambda side: side.open(name, os.O_RDWR),
        "create": lambda side: side.open(name, os.O_RDWR | os.O_CREAT),
        "trunc": lambda side: side.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC),
        "append": lambda side: side.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND),
        "write": lambda side: side.on_fd(name, lambda fd: os.pwrite(fd, data, offset)),
        "read": lambda side: side.on_fd(name, lambda fd: os.pread(fd, size, offset)),
        "ftruncate": lambda side: side.on_fd(name, lambda fd: os.ftruncate(fd, offset)),
        "truncate": lambda side: outcome(lambda: os.truncate(side.root / name, offset)),
        "fsync": lambda side: side.on_fd(name, os.fsync),
        "close": lambda side: side.close(name),
        "rename": lambda side: (side.close(name), side.close(other), outcome(lambda: rename(side, name, other))),
        "unlink": lambda side: (side.close(name), outcome(lambda: os.unlink(side.root / name))),
        "size": lambda side: outcome(lambda: os.stat(side.root / name).st_size),
    }
    return f"{kind} {name} {other} at {offset}, {size} bytes", actions[kind]


def rename(side: Side, name: str, other: str) -> None:
    os.rename(side.root / name, side.root / other)


@pytest.mark.parametrize("seed", range(3))
def test_like_a_local_file_system(make_mount: MakeMount, tmp_path: Path, seed: int) -> None:
    mount = make_mount(list_ttl="500ms")
    local = tmp_path / "local"
    (local / "d").mkdir(parents=True)
    (mount.path / "snippets" / "d").mkdir()
    ours, theirs = Side(mount.path / "snippets"), Side(local)
    rng = random.Random(seed)
    history: list[str] = []
    try:
        for number in range(OPERATIONS):
            text, action = step(rng)
            history.append(text)
            assert action(ours) == action(theirs), "\n".join(history[-20:])
            if number % 50 == 49:
                ours.close_all()
                theirs.close_all()
                assert ours.everything() == theirs.everything(), "\n".join(history[-50:])
    finally:
        ours.close_all()
        theirs.close_all()
    expected = theirs.everything()
    mount.restart()
    assert ours.everything() == expected
    assert {key.removeprefix("snippets/") for key in mount.view.keys("snippets/") if not key.endswith("/")} == set(
        expected
    )
    assert not mount.view.uploads()
