"""A daemon has as many descriptors and threads after thousands of operations as before, errors, faults and abandoned
reads included; and what memory cannot admit leaves nothing behind.

More rounds of some 100 operations: S3FSX_TEST_ROUNDS=100.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import sqlite3
import subprocess
import sys

import pytest

from s3fsx.s3.lanes import COPY_THREADS, METADATA_THREADS, PUBLISH_THREADS
from s3fsx.service.status import read_status, socket_path
from tests.faultkinds import SERVER_ERROR, CutShort, Fault, Reset
from tests.faultproxy import FaultProxy, Rule
from tests.mount import harness
from tests.mount.conftest import MakeMount
from tests.mount.harness import Mount, eventually
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.rgw]

ROUNDS = int(os.environ.get("S3FSX_TEST_ROUNDS", "4"))
WARM = 2  # rounds until every client, thread and connection has been made
# Every lane full, the probe, the loop, journal, cache and pyfuse3's; trio keeps a thread for 10 s after its last work.
THREADS = METADATA_THREADS + COPY_THREADS + PUBLISH_THREADS + 4 + 8 + 8
FAULTS: list[Fault] = [SERVER_ERROR, Reset("request"), Reset("answer"), Reset("answer body"), CutShort(honest=True)]
BIG = random.Random(8).randbytes(18 << 20)


def descriptors(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.pid}/fd"))


def threads(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.pid}/task"))


def work(mount: Mount, number: int) -> int:
    """One round; how many operations succeeded. A fault may come out of any of them."""
    dump, done = mount.path / "dump", 0
    with contextlib.suppress(OSError):
        (dump / "big").write_bytes(BIG)
        done += 1
    for n in range(12):
        path = dump / f"{number}-{n}.tmp"
        with contextlib.suppress(OSError):
            path.write_bytes(b"x" * n)
            path.rename(path.with_suffix(".log"))
            path.with_suffix(".log").unlink()
            done += 3
        with contextlib.suppress(OSError):
            os.stat(dump / f"{number}-{n}.nothing")
    for n in range(8):  # abandoned: what was fetched ahead is cancelled
        with contextlib.suppress(OSError), (dump / "big").open("rb", buffering=0) as file:
            file.seek(n << 17)
            for _ in range(6):
                file.read(256 << 10)
            done += 1
    readers = [
        subprocess.Popen(["cat", str(dump / "big")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    for reader in readers:  # killed in the middle, or not
        with contextlib.suppress(subprocess.TimeoutExpired):
            reader.wait(0.3)
        reader.kill()
        reader.wait()
    with contextlib.suppress(OSError):
        done += len(os.listdir(dump))
    return done


@pytest.mark.slow
@pytest.mark.expect_log(r"", optional=True)
def test_descriptors_and_threads_are_constant(
    make_mount: MakeMount, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "WATCHDOG", 120 + 120 * ROUNDS)
    with FaultProxy(s3.endpoint, seed=4) as proxy:
        mount = make_mount(endpoint=proxy.endpoint, list_ttl="1s", attr_ttl="1s", read_timeout="5s")
        seen: list[tuple[int, int]] = []
        for number in range(ROUNDS):
            with proxy.fault(*(Rule(fault, probability=0.03) for fault in FAULTS)):
                done = work(mount, number)
            assert done > 10
            seen.append((descriptors(mount), threads(mount)))
        sys.stdout.write(f"descriptors and threads after each round: {seen}\n")
        assert proxy.injected.total() > ROUNDS, proxy.injected
        warm = max(fds for fds, _ in seen[:WARM])
        assert max(fds for fds, _ in seen[WARM:]) <= warm + 8, seen
        assert max(count for _, count in seen) <= THREADS, seen
        eventually(lambda: threads(mount) < 10, "idle threads end", 60)
        document = read_status(socket_path(str(mount.options["runtime_dir"]), str(mount.path)))
        assert len(json.dumps(document)) < 16384
        eventually(lambda: descriptors(mount) < 64, "no socket is left open by what was given up", 30)
        proxy.clear()
        mount.umount()
        mount.start()
        eventually(lambda: mount.view.uploads() == [], "the next mount aborts what could not be aborted", 60)


@pytest.mark.expect_log("memory_budget of 64 MiB is used up")
def test_a_writer_too_many_is_refused_at_once_and_leaves_nothing(make_mount: MakeMount) -> None:
    """64 MiB are ten reservations of 6 MiB, whatever the ten hold at the moment."""
    mount = make_mount(memory_budget="64MiB")
    dump = mount.path / "dump"
    mount.view.put("dump/old", b"old")
    flags = os.O_WRONLY | os.O_CREAT
    opened = [os.open(dump / f"{n}.vma.dat", flags) for n in range(10)]
    try:
        for fd in opened:
            assert os.write(fd, b"\x28\xb5\x2f\xfd" + bytes(5 << 20))
        for name in ("new", "old"):
            with pytest.raises(OSError, match="Cannot allocate memory") as refused:
                os.open(dump / name, flags)
            assert refused.value.errno == errno.ENOMEM
        assert not (dump / "new").exists()
        assert (dump / "old").read_bytes() == b"old"
        assert mount.view.keys("dump/") == ["dump/old"]
        (journal,) = (mount.path.parent / "state").glob("*/journal.sqlite")
        with contextlib.closing(sqlite3.connect(journal)) as database:
            paths = {path for (path,) in database.execute("SELECT path FROM uploads")}
        assert paths <= {f"dump/{n}.vma.dat" for n in range(10)}
    finally:
        for n, fd in enumerate(opened):
            os.close(fd)
            (dump / f"{n}.vma.dat").unlink()
    (dump / "new").write_bytes(b"new")
    assert mount.view.keys("dump/") == ["dump/new", "dump/old"]
    assert mount.view.uploads() == []
