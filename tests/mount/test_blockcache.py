"""The block cache of a real mount: the second pass of random reads asks the store for nothing."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3fsx.service.status import read_status, socket_path
from tests.model import pattern
from tests.mount.conftest import MakeMount
from tests.mount.harness import Mount, detach, eventually
from tests.mount.test_state_dir import fill, run

pytestmark = [pytest.mark.mount, pytest.mark.rgw]

KIB, MIB = 1 << 10, 1 << 20
ISO = "template/iso/a.iso"
DATA = pattern(12 * MIB + 12345, 3)


def numbers(mount: Mount) -> dict[str, Any]:
    document = read_status(socket_path(str(mount.options["runtime_dir"]), str(mount.path)))
    found = document["block_cache"]
    assert isinstance(found, dict)
    return found


def read_at_random(mount: Mount, seed: int, path: str = ISO, data: bytes = DATA) -> None:
    """Each MiB at least once; compared. What the kernel has of it is dropped first."""
    places = random.Random(seed)
    offsets = [at + places.randrange(MIB) for at in range(0, len(data), MIB)]
    offsets += [places.randrange(len(data)) for _ in range(100)]
    places.shuffle(offsets)
    number = os.open(mount.path / path, os.O_RDONLY)
    try:
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        for offset in offsets:
            size = places.choice([1, 4 * KIB, 64 * KIB, MIB])
            assert os.pread(number, size, offset) == data[offset : offset + size], offset
    finally:
        os.close(number)


def warm(mount: Mount) -> None:
    """All of the ISO is on the disk afterwards."""
    for seed in range(3):
        read_at_random(mount, seed)
    eventually(lambda: numbers(mount)["used"] >= len(DATA), "the ISO is stored")


def gets(mount: Mount, seed: int) -> int:
    mark = mount.server.mark(mount.bucket)
    read_at_random(mount, seed)
    return mount.server.requests_since(mark, mount.bucket)["GET"]


def blocks_of(mount: Mount) -> list[Path]:
    return [p for p in Path(str(mount.options["cache_dir"])).glob("*/blocks/*") if p.name != "lock"]


def test_the_second_pass_makes_no_get_and_survives_kill_9(mount: Mount) -> None:
    mount.view.put(ISO, DATA)
    warm(mount)
    assert gets(mount, 10) == 0
    mount.restart()
    assert gets(mount, 11) == 0
    mount.kill9()
    mount.start()
    assert gets(mount, 12) == 0
    assert numbers(mount)["damaged"] == 0
    assert {p.stat().st_mode & 0o777 for p in blocks_of(mount)} == {0o600}
    mount.view.put(ISO, DATA[::-1])
    mount.restart()
    read_at_random(mount, 13, data=DATA[::-1])


def test_killed_while_it_stores(mount: Mount) -> None:
    mount.view.put(ISO, DATA)
    for seed in range(3):
        places = random.Random(seed)
        number = os.open(mount.path / ISO, os.O_RDONLY)
        for _ in range(places.randrange(1, 12)):
            offset = places.randrange(len(DATA))
            assert os.pread(number, 4 * KIB, offset) == DATA[offset : offset + 4 * KIB]
        mount.kill9()
        with contextlib.suppress(OSError):  # the file system behind it is gone
            os.close(number)
        mount.start()
        read_at_random(mount, seed)
    warm(mount)
    assert gets(mount, 9) == 0


def test_a_backup_leaves_nothing_on_the_disk(mount: Mount) -> None:
    name = "dump/vzdump-qemu-100-2026_01_01-00_00_00.vma"
    mount.view.put(name, DATA)
    read_at_random(mount, 1, path=name)
    read_at_random(mount, 2, path=name)
    assert blocks_of(mount) == []
    assert numbers(mount)["used"] == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """16 MiB of memory as a disk of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", path)
    yield path
    detach(path)


def test_a_disk_that_is_small_and_then_full(disk: Path, make_mount: MakeMount) -> None:
    mount = make_mount(cache_dir=disk / "cache", block_cache_reserve=0)
    for i in range(3):
        mount.view.put(f"template/iso/{i}.iso", pattern(12 * MIB, i))
    for i in range(3):
        read_at_random(mount, i, path=f"template/iso/{i}.iso", data=pattern(12 * MIB, i))
        read_at_random(mount, i + 5, path=f"template/iso/{i}.iso", data=pattern(12 * MIB, i))
        status = os.statvfs(disk)
        assert status.f_bavail >= status.f_blocks // 10 - 256  # 1 MiB: the metadata cache takes some, too
    assert numbers(mount)["evicted"] > 0
    ballast = fill(disk)
    for i in range(3):
        read_at_random(mount, i, path=f"template/iso/{i}.iso", data=pattern(12 * MIB, i))
    assert numbers(mount)["off"] == ""
    ballast.unlink()

    def stores_again() -> bool:
        read_at_random(mount, 1, path="template/iso/1.iso", data=pattern(12 * MIB, 1))
        return bool(numbers(mount)["used"])

    eventually(stores_again, "it stores again", 60)


def test_the_default_reserve_leaves_a_small_disk_alone(disk: Path, make_mount: MakeMount) -> None:
    mount = make_mount(cache_dir=disk / "cache")
    mount.view.put(ISO, DATA)
    read_at_random(mount, 1)
    read_at_random(mount, 2)
    assert blocks_of(mount) == []
