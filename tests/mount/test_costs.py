"""What docs/COSTS.md says, counted by the store."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from tests.mount.conftest import MakeMount
from tests.mount.harness import Mount
from tests.s3server import Request

KIND = "vzdump-qemu-100-2026_11_20-13_15_26"
CONTENT = ("dump", "images", "import", "private", "snippets", "template/cache", "template/iso")
MIB = 1 << 20


def asked(requests: list[Request], of_s3fsx: bool = False) -> dict[str, int]:
    counts: dict[str, int] = {}
    for request in requests:
        if of_s3fsx or ".s3fsx/journal" not in request.key:
            counts[request.kind] = counts.get(request.kind, 0) + 1
    return counts


def poll(mount: Mount) -> None:
    """What pvestatd does every ten seconds."""
    for name in CONTENT:
        os.stat(mount.path / name)
    assert os.statvfs(mount.path).f_blocks > 0


def test_an_idle_mount_asks_at_most_once_a_minute(mount: Mount) -> None:
    """The hour is simulated in domain/test_costs; here the kernel takes part."""
    poll(mount)
    mark = mount.server.mark(mount.bucket)
    for _ in range(12):
        poll(mount)
        time.sleep(1)
    assert sum(asked(mount.server.requests(mark, mount.bucket), True).values()) <= 1


def test_a_backup_its_list_and_its_end(mount: Mount) -> None:
    dump = mount.path / "dump"
    mark = mount.server.mark(mount.bucket)
    with (dump / f"{KIND}.vma.dat").open("wb", buffering=0) as file:
        file.write(b"\x28\xb5\x2f\xfd" + bytes(20 * MIB))
    (dump / f"{KIND}.vma.dat").rename(dump / f"{KIND}.vma.zst")
    counts = asked(mount.server.requests(mark, mount.bucket))
    assert counts.pop("PUT PART") == 3
    assert counts.pop("LIST") <= 3
    assert counts == {"CREATE UPLOAD": 1, "LIST PARTS": 1, "COMPLETE": 1, "PUT": 1, "HEAD": 1}

    time.sleep(6)  # the listing is out of date
    mark = mount.server.mark(mount.bucket)
    names = os.listdir(dump)
    for name in names:
        os.stat(dump / name)
        for suffix in (".notes", ".protected"):
            with pytest.raises(FileNotFoundError):
                os.stat(dump / (name + suffix))
    assert asked(mount.server.requests(mark, mount.bucket)) == {"LIST": 1}

    mark = mount.server.mark(mount.bucket)
    (dump / f"{KIND}.vma.zst").unlink()
    assert asked(mount.server.requests(mark, mount.bucket)) == {"DELETE": 2}  # its checksums, too


def test_a_mount_and_an_unmount(mount: Mount) -> None:
    mount.umount()
    mark = mount.server.mark(mount.bucket)
    mount.start()
    assert sum(asked(mount.server.requests(mark, mount.bucket), True).values()) <= 20
    mark = mount.server.mark(mount.bucket)
    mount.umount()
    mount_end = asked(mount.server.requests(mark, mount.bucket), True)
    assert sum(mount_end.values()) <= 1
    mount.start()


def test_a_walk_costs_a_list_for_each_directory(make_mount: MakeMount) -> None:
    """Most of them are listed ahead of find."""
    mount = make_mount(list_ttl="2m", attr_ttl="2m")
    for number in range(40):
        for name in ("a", "b"):
            mount.view.put(f"tree/{number:02}/{name}", b"x")
    mark = mount.server.mark(mount.bucket)
    found = subprocess.run(["find", mount.path / "tree"], check=True, capture_output=True, timeout=60).stdout
    assert len(found.splitlines()) == 1 + 3 * 40
    listed = [r for r in mount.server.requests(mark, mount.bucket) if r.kind == "LIST"]
    assert 41 <= len(listed) <= 43  # the root, and perhaps the look of an idle mount
    mark = mount.server.mark(mount.bucket)
    (mount.path / "tree").rename(mount.path / "moved")
    counts = asked(mount.server.requests(mark, mount.bucket))
    assert counts["COPY"] == 80
    assert mount.view.keys("tree/") == []
    assert len(mount.view.keys("moved/")) == 80
