"""kill -9 at every request of a backup's life, before and after its effect, and at random; then the next mount.

The oracle: what had returned success is intact, nothing else is half visible, nothing has two names, no upload of ours
is left. More random
kills: S3FSX_TEST_KILLS=500.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.checklogs import LogWatch
from tests.exchange import Exchange
from tests.faultproxy import FaultProxy, Rule
from tests.mount.harness import Mount
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.rgw, pytest.mark.expect_log("is down|be tried again", optional=True)]

KILLS = int(os.environ.get("S3FSX_TEST_KILLS", "25"))
BACKUP = b"\x28\xb5\x2f\xfd" + random.Random(5).randbytes((17 << 20) + 99)  # two full parts and a bit
SMALL = b"notes\n"


@dataclass(frozen=True)
class Kill:
    """The power cut when a request arrives, or when its answer has."""

    mount: Mount
    effect: bool

    def run(self, exchange: Exchange) -> None:
        if self.effect:
            exchange.forward()
            exchange.swallow()
        os.kill(self.mount.pid, signal.SIGKILL)
        exchange.hang_up()


@dataclass
class Promises:
    """stored: what a call returned success for, by name. renamed: the other name it may have by now. possible: what
    may be there as well, whole or not at all."""

    stored: dict[str, bytes] = field(default_factory=dict)
    possible: dict[str, bytes] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)


def life(dump: Path, number: int, promises: Promises) -> None:
    """A backup, its notes, a published file renamed, an aborted backup. Ends with OSError when the mount is killed."""
    name = f"vzdump-qemu-{number}-2026_11_20-13_15_26.vma"
    temporary, final = f"{name}.dat", f"{name}.zst"
    write(dump / temporary, BACKUP)
    promises.stored[temporary] = BACKUP
    promises.possible[final] = BACKUP
    promises.renamed[temporary] = final
    (dump / temporary).rename(dump / final)
    del promises.stored[temporary]
    promises.stored[final] = BACKUP
    promises.gone.add(temporary)
    notes, renamed = f"{final}.notes", f"{final}.log"
    promises.possible[notes] = SMALL
    write(dump / notes, SMALL)
    promises.stored[notes] = SMALL
    promises.possible[renamed] = SMALL
    promises.renamed[notes] = renamed
    (dump / notes).rename(dump / renamed)  # a published object: copied on the server
    del promises.stored[notes]
    promises.stored[renamed] = SMALL
    failed = f"vzdump-lxc-{number}-2026_11_20-13_15_26.tar.dat"
    promises.possible[failed] = BACKUP
    write(dump / failed, BACKUP)
    (dump / failed).unlink()
    del promises.possible[failed]
    promises.gone.add(failed)


def write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for start in range(0, len(data), 1 << 20):
            os.write(fd, data[start : start + (1 << 20)])
    finally:
        os.close(fd)


def check(mount: Mount, promises: Promises) -> None:
    """After the restart."""
    dump = mount.path / "dump"
    for name in list(promises.stored):
        if not (dump / name).exists():
            promises.stored[promises.renamed[name]] = promises.stored.pop(name)
    for name, data in promises.stored.items():
        assert (dump / name).read_bytes() == data, name
    for name in promises.gone:
        assert not (dump / name).exists(), name
    for old, new in promises.renamed.items():
        assert not ((dump / old).exists() and (dump / new).exists()), f"{old} under both names"
    for name, data in promises.possible.items():
        if (dump / name).exists():
            assert (dump / name).read_bytes() == data, name
    mount.umount()
    for name, data in promises.stored.items():
        assert mount.view.body(f"dump/{name}") == data, name
    assert not mount.view.uploads()


def killed(mount: Mount, number: int) -> Promises:
    promises = Promises()
    with contextlib.suppress(OSError):
        life(mount.path / "dump", number, promises)
    return promises


@pytest.fixture(scope="module")
def node(rgw: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mount, FaultProxy]]:
    home = tmp_path_factory.mktemp("crash") / "node"
    with FaultProxy(rgw.endpoint) as proxy:
        mount = Mount(rgw, rgw.make_bucket("crash"), "", home, LogWatch(), {"endpoint": proxy.endpoint})
        with mount:
            yield mount, proxy
            if mount.process is None:
                mount.start()


@pytest.fixture
def crashing(node: tuple[Mount, FaultProxy], log_watch: LogWatch) -> Iterator[tuple[Mount, FaultProxy]]:
    mount, proxy = node
    log_watch.follow(mount.log_file)
    if mount.process is None:
        mount.start()
    yield mount, proxy
    proxy.clear()


def again(mount: Mount) -> None:
    mount.kill9()
    mount.start()


_numbers = iter(range(100, 100_000))

POINTS = [
    ("CREATE UPLOAD", 0),
    ("PUT PART", 0),
    ("PUT PART", 2),
    ("LIST PARTS", 0),
    ("COMPLETE", 0),
    ("HEAD", 0),
    ("PUT", 0),
    ("COPY", 0),
    ("DELETE", 0),
    ("ABORT", 0),
]


@pytest.mark.parametrize("effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("kind", "skip"), POINTS)
def test_killed_at_a_request(crashing: tuple[Mount, FaultProxy], kind: str, skip: int, effect: bool) -> None:
    mount, proxy = crashing
    number = next(_numbers)
    proxy.add(Rule(Kill(mount, effect), {kind}, skip=skip, times=1))
    promises = killed(mount, number)
    assert proxy.injected["Kill"] >= 1
    proxy.injected.clear()
    proxy.clear()
    again(mount)
    check(mount, promises)


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_any_moment(crashing: tuple[Mount, FaultProxy], seed: int) -> None:
    mount, _ = crashing
    number = next(_numbers)
    delay = random.Random(seed).uniform(0.0, 0.8)
    done = threading.Event()
    killer = threading.Thread(target=kill_after, args=(mount.pid, delay, done.wait))
    killer.start()
    promises = killed(mount, number)
    done.set()
    killer.join()
    again(mount)
    check(mount, promises)


def kill_after(pid: int, seconds: float, done: Callable[[float], bool]) -> None:
    end = time.monotonic() + seconds
    done(max(0.0, end - time.monotonic()))
    os.kill(pid, signal.SIGKILL)
