"""The ways in which a store can be away, with default settings: a black hole, a closed port, now here and now gone."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.checklogs import LogWatch
from tests.faultproxy import BACKLOG, FaultProxy
from tests.mount.harness import Mount, eventually
from tests.mount.tasks import proxmox_status
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.expect_log(r"", optional=True)]

NOTICED = 20.0  # seconds: SILENT_AFTER + PROBE_LIMIT + 1 are 11; a busy machine
BACK = 10.0  # seconds after which the storage must be active again
CONTENT = ("dump", "images", "template/iso", "template/cache", "snippets", "import", "private")


class Port(FaultProxy):
    @contextlib.contextmanager
    def refused(self) -> Iterator[None]:
        """The port is closed: connections are refused, those that are open are reset."""
        address = self._listener.getsockname()
        with self._lock:
            for sock in (self._listener, *self._sockets):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        try:
            yield
        finally:
            self._listener = socket.create_server(address, backlog=BACKLOG)
            self._run(self._accept)


@pytest.fixture(scope="module")
def behind(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mount, Port]]:
    port = Port(s3.endpoint)
    with port:
        home = tmp_path_factory.mktemp("kinds") / "node"
        with Mount(s3, s3.make_bucket("kinds"), "", home, LogWatch(), {"endpoint": port.endpoint}) as mount:
            yield mount, port


def ask(path: Path) -> subprocess.Popen[bytes]:
    """Somebody wants something of the store."""
    return subprocess.Popen(["ls", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


KINDS: dict[str, Callable[[Port], AbstractContextManager[None]]] = {
    "black hole": lambda port: port.black_hole(),
    "refused": lambda port: port.refused(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_proxmox_sees_it_and_nobody_waits(behind: tuple[Mount, Port], kind: str) -> None:
    mount, port = behind
    known = mount.path / "snippets/known"
    known.write_bytes(b"x")
    os.listdir(mount.path / "snippets")
    assert proxmox_status(mount.path)[0]
    worst, begin = 0.0, time.monotonic()
    with KINDS[kind](port), ask(mount.path / "dump") as asking:
        while proxmox_status(mount.path)[0]:
            assert time.monotonic() - begin < NOTICED
            time.sleep(0.2)
        noticed = time.monotonic() - begin
        while time.monotonic() - begin < noticed + 3:
            before = time.monotonic()
            assert known.stat().st_size == 1  # its listing has expired meanwhile; it is known all the same
            for directory in CONTENT:
                (mount.path / directory).stat()
            worst = max(worst, time.monotonic() - before, proxmox_status(mount.path)[1])
            time.sleep(0.2)
        asking.wait(30)
    begin = time.monotonic()
    eventually(lambda: proxmox_status(mount.path)[0], "Proxmox sees it active again", BACK)
    print_figures(kind, noticed, worst, time.monotonic() - begin)
    assert worst < 5.0  # promised are 100 ms: this is for a machine that is busy with others
    assert known.read_bytes() == b"x"
    eventually(lambda: "dump" in os.listdir(mount.path), "listing works again")


def print_figures(kind: str, noticed: float, worst: float, back: float) -> None:
    os.write(1, f"{kind}: noticed {noticed:.1f} s, worst df or stat {worst:.3f} s, back {back:.1f} s\n".encode())


def test_a_backup_while_the_store_flaps(behind: tuple[Mount, Port]) -> None:
    """Up 3 s, down 3 s: each part gets through in the end, and so do close and a rename that is repeated."""
    mount, port = behind
    body = b"\x28\xb5\x2f\xfd" + bytes(40 << 20)
    temporary = mount.path / "dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.dat"
    over = threading.Event()

    def flap() -> None:
        while not over.is_set():
            with port.black_hole():
                over.wait(3)
            over.wait(3)

    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o644)
    flapping = threading.Thread(target=flap)
    flapping.start()
    try:
        for start in range(0, len(body), 1 << 20):
            os.write(fd, body[start : start + (1 << 20)])
        os.close(fd)
        eventually(lambda: renamed(temporary), "the rename succeeds", 120)
    finally:
        over.set()
        flapping.join()
    assert mount.view.body("dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.zst") == body
    eventually(lambda: proxmox_status(mount.path)[0], "Proxmox sees it active", BACK)
    assert mount.view.uploads() == []


def renamed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.rename(path.with_suffix(".zst"))
        return True
    return False
