"""An outage with default settings: after 60 s nobody waits in D state, and Proxmox knew all the while.

A task in D state cannot be killed, and whoever needs what it holds joins it: this is how one hung storage takes a
node down.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faultkinds import Stall
from tests.faultproxy import FaultProxy, Rule
from tests.mount.conftest import MakeMount
from tests.mount.harness import eventually
from tests.mount.tasks import Actors, proxmox_status
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.expect_log(r"", optional=True)]

OUTAGE = 60.0
KILL_AT = 5.0
NOTICED = 20.0  # seconds until Proxmox sees it: SILENT_AFTER + PROBE_LIMIT + 1 are 11; a busy machine
BACKUP = b"\x28\xb5\x2f\xfd" + random.Random(6).randbytes(18 << 20)
ZSTD = b"\x28\xb5\x2f\xfd"

WRITE = "fd = os.open(args[0], os.O_WRONLY | os.O_CREAT); os.write(fd, b'\\x28\\xb5\\x2f\\xfd' + bytes(20 << 20))"
ACTORS = {
    "buffered reader": ("fd = os.open(args[0], os.O_RDONLY); os.read(fd, 4096)", "while os.read(fd, 1 << 20): pass"),
    "direct reader": (
        "fd = os.open(args[0], os.O_RDONLY | os.O_DIRECT); m = mmap.mmap(-1, 1 << 20); os.readv(fd, [m])",
        "while os.readv(fd, [m]): pass",
    ),
    "writer": (WRITE, "for _ in range(400): os.write(fd, bytes(1 << 20))"),
    "closing": (WRITE, "os.write(fd, bytes(5 << 20)); os.close(fd)"),
    "syncing": (WRITE, "os.write(fd, bytes(5 << 20)); os.fsync(fd)"),
    "listing": ("os.listdir(args[1])", "time.sleep(6); os.listdir(args[1])"),
    "unknown name": ("", "time.sleep(6); os.path.exists(args[1] + '/never-heard-of-' + str(os.getpid()))"),
    "creating": ("", "time.sleep(2); os.close(os.open(args[0], os.O_WRONLY | os.O_CREAT))"),
    "making a directory": ("", "time.sleep(3); os.mkdir(args[0])"),
}


@contextmanager
def stopped(server: S3Server) -> Iterator[None]:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def place(name: str, dump: Path, number: int) -> Path:
    if "reader" in name:
        return dump / f"stored-{name.split()[0]}-{number}.vma.zst"
    return dump / f"vzdump-qemu-{number}-2026_11_20-13_15_26.vma.dat"


def test_no_task_is_in_d_state_60_s_into_an_outage(make_mount: MakeMount, s3: S3Server) -> None:
    with FaultProxy(s3.endpoint) as proxy, Actors() as actors:
        mount = make_mount(endpoint=proxy.endpoint)
        dump = mount.path / "dump"
        settled = dump / "vzdump-qemu-1-2026_11_20-13_15_26.vma.dat"
        everybody = list(enumerate([*ACTORS.items(), *ACTORS.items()], 100))
        for number, (name, _) in everybody:
            if "reader" in name:
                mount.view.put(f"dump/{place(name, dump, number).name}", bytes(64 << 20))
        for number, (name, (first, second)) in everybody:
            path = place(name, dump, number)
            killed = " (to be killed)" if number >= 100 + len(ACTORS) else ""
            actors.start(name + killed, first, second, path, dump)
        for name in ("renaming", "renaming (to be killed)"):
            path = settled if name == "renaming" else settled.with_name(settled.name.replace("-1-", "-2-"))
            path.write_bytes(BACKUP)
            actors.start(name, "", "os.rename(args[0], args[1])", path, path.with_suffix(".zst"))
        actors.ready()
        proxy.add(Rule(Stall(), {"COMPLETE"}))
        for name in ("renaming", "renaming (to be killed)"):
            stdin = actors.running[name].stdin
            assert stdin is not None
            stdin.write("\n")
            stdin.flush()
        eventually(lambda: proxy.injected["Stall"] >= 1, "a rename is in the middle of its Complete")
        assert proxmox_status(mount.path)[0]
        with stopped(s3):
            begin = time.monotonic()
            watched = actors.count()
            actors.go()
            worst, noticed, killed_at = 0.0, None, None
            while (now := time.monotonic() - begin) < OUTAGE:
                active, took = proxmox_status(mount.path)
                worst = max(worst, took)
                if not active and noticed is None:
                    noticed = now
                for directory in (mount.path, dump, mount.path / "template/iso"):
                    before = time.monotonic()
                    directory.stat()
                    worst = max(worst, time.monotonic() - before)
                if killed_at is None and now >= KILL_AT:
                    killed_at = now
                    for name, process in actors.running.items():
                        if "killed" in name:
                            process.kill()
                time.sleep(0.5)
            stuck = actors.uninterruptible()
            for name, number in (("writer", len(ACTORS) + 102), ("syncing", len(ACTORS) + 104)):
                before = time.monotonic()
                with contextlib.suppress(OSError):  # it may be gone with its writer
                    place(name, dump, number).unlink()  # as vzdump does after it has killed the compressor
                assert time.monotonic() - before < 20
        recovering = time.monotonic()
        proxy.clear()
        eventually(lambda: proxmox_status(mount.path)[0], "Proxmox sees it active again", 10)
        recovery = time.monotonic() - recovering
        sys.stdout.write(  # for docs/RELIABILITY.md: pytest -rP shows it
            f"{watched} tasks, worst df or stat {worst:.3f} s, noticed {noticed} s, active again {recovery:.1f} s\n"
        )
        assert stuck == {}, mount.output()
        assert worst < 5.0  # promised are 100 ms: this is for a machine that is busy with others
        assert noticed is not None
        assert noticed < NOTICED
