"""Bits flipped on the way from a real store, over plain http: never a wrong byte read, never one stored.

The places are random and the same in each run. More of them: S3FSX_TEST_FLIPS=200.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3fsx.service.status import read_status, socket_path
from tests.checklogs import LogWatch
from tests.faultkinds import Flip
from tests.faultproxy import FaultProxy, Rule
from tests.faults.place import OBJECT, Place
from tests.mount.harness import Mount, eventually
from tests.s3server import S3Server

pytestmark = [
    pytest.mark.mount,
    pytest.mark.rgw,
    pytest.mark.expect_log(
        "is not what was stored|fetching them again|wrong bytes came|cannot be verified|is down", optional=True
    ),
]

FLIPS = int(os.environ.get("S3FSX_TEST_FLIPS", "12"))
SMALL = random.Random(21).randbytes((3 << 20) + 77)  # one piece: its ETag is its MD5
LARGE = b"\x28\xb5\x2f\xfd" + random.Random(22).randbytes((17 << 20) + 99)  # three parts
QUICK: dict[str, object] = {"list_ttl": "0.1s", "attr_ttl": "0.1s"}  # the deadlines are the default ones
OURS = r"^dump/"
SUMS = r"^\.s3fsx/sums/"


@pytest.fixture(scope="module")
def written(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Two mounts of one bucket: what the first one writes is read by the second, which has no checksum in memory and
    whose store is behind the proxy. ``Place.mount`` is the second."""
    bucket = s3.make_bucket("flips")
    root = tmp_path_factory.mktemp("flips")
    with (
        FaultProxy(s3.endpoint, seed=7) as proxy,
        Mount(s3, bucket, "", root / "writer", LogWatch(), QUICK) as writer,
        Mount(s3, bucket, "", root / "reader", LogWatch(), {**QUICK, "endpoint": proxy.endpoint}) as reader,
    ):
        (writer.path / "dump/small.iso").write_bytes(SMALL)
        temporary = writer.path / "dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.dat"
        temporary.write_bytes(LARGE)
        temporary.rename(temporary.with_suffix(".zst"))
        yield Place(reader, proxy)


@pytest.fixture
def place(written: Place, log_watch: LogWatch) -> Iterator[Place]:
    log_watch.follow(written.mount.log_file)
    written.proxy.injected.clear()
    yield written
    written.proxy.clear()


NAMES = {"dump/small.iso": SMALL, "dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.zst": LARGE}


def forget(place: Place) -> None:
    """Neither the kernel nor the mount has anything of the files any more."""
    place.mount.restart()


@pytest.mark.parametrize("name", NAMES)
def test_one_answer_in_two_is_flipped_and_every_byte_is_right(place: Place, name: str) -> None:
    """Three times in a row happens to one block in eight: then it is EIO, and read again it is there."""
    failed = 0
    for _ in range(FLIPS):
        drop_caches(place)
        with place.proxy.fault(Rule(Flip("answer"), {"GET"}, probability=0.5)):
            data, outcome = place.read(name)
        assert data == NAMES[name][: len(data)]
        assert outcome.errno in ("", "EIO")
        failed += outcome.error is not None
    assert place.proxy.injected["Flip"] >= FLIPS // 3
    assert failed < FLIPS
    drop_caches(place)
    assert place.read(name)[0] == NAMES[name]


def drop_caches(place: Place) -> None:
    """The kernel's pages of this file system; what the mount has read ahead goes with the last close."""
    for name in NAMES:
        with (place.mount.path / name).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("times", [1, 2])
def test_a_flip_that_passes_is_not_noticed(place: Place, name: str, times: int) -> None:
    drop_caches(place)
    with place.proxy.fault(Rule(Flip("answer"), {"GET"}, OURS, times=times)):
        data, outcome = place.read(name)
    assert place.proxy.injected["Flip"] == times
    assert outcome.error is None
    assert data == NAMES[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [None, 0.0, 0.7], ids=["random", "first byte", "always the same"])
def test_flips_for_good_are_eio_and_no_wrong_byte(place: Place, name: str, at: float | None) -> None:
    drop_caches(place)
    with place.proxy.fault(Rule(Flip("answer", at), {"GET"}, OURS)):
        data, outcome = place.read(name)
    assert outcome.errno == "EIO"
    assert (data, len(data) < len(NAMES[name])) == (NAMES[name][: len(data)], True)
    eventually(lambda: place.read(name)[0] == NAMES[name], "reading works again", 10)


def test_flips_in_the_checksums_themselves(place: Place) -> None:
    name = list(NAMES)[1]
    forget(place)
    with place.proxy.fault(Rule(Flip("answer"), {"GET"}, SUMS, times=1)):
        data, outcome = place.read(name)
    assert (place.proxy.injected["Flip"], outcome.error, data) == (1, None, LARGE)
    forget(place)
    with place.proxy.fault(Rule(Flip("answer"), {"GET"}, SUMS)):
        data, outcome = place.read(name)
    assert outcome.errno == "EIO"
    assert data == LARGE[: len(data)]
    eventually(lambda: place.read(name)[0] == LARGE, "reading works again", 10)


@pytest.mark.parametrize("times", [1, None], ids=["once", "for good"])
def test_a_small_edit_and_an_append_store_no_flipped_bit(place: Place, times: int | None) -> None:
    for name, edit in (("edited", 1000), ("appended", len(SMALL))):
        place.view.put(f"dump/{name}", SMALL)
        path = place.mount.path / "dump" / name
        eventually(path.exists, "the listing's TTL has passed")
        expected = bytearray(SMALL)
        expected[edit : edit + 4] = b"edit"
        failed = None
        with place.proxy.fault(Rule(Flip("answer"), {"GET"}, OURS, times=times)):
            try:
                with path.open("r+b", buffering=0) as file:
                    os.pwrite(file.fileno(), b"edit", edit)
            except OSError as e:
                failed = e
            assert place.proxy.injected
        place.proxy.injected.clear()
        assert (failed is None) == (times == 1)
        assert place.view.body(f"dump/{name}") == (expected if times == 1 else SMALL)
        place.view.delete(f"dump/{name}")


def test_an_append_to_a_large_file_is_verified_from_its_first_byte(place: Place) -> None:
    """Copied on the server: the checksums of the copied part are those of what it is a copy of."""
    path = place.mount.path / "dump/grows.iso"
    path.write_bytes(LARGE)
    with path.open("ab") as file:
        file.write(SMALL)
    forget(place)
    with place.proxy.fault(Rule(Flip("answer"), {"GET"}, OURS, times=2)):
        data, outcome = place.read("dump/grows.iso")
    assert (place.proxy.injected["Flip"], outcome.error, data) == (2, None, LARGE + SMALL)
    assert len([key for key in place.view.internal_keys() if key.startswith(".s3fsx/sums/")]) == 2
    path.unlink()
    assert len([key for key in place.view.internal_keys() if key.startswith(".s3fsx/sums/")]) == 1


def test_a_restore_through_zstd(place: Place, tmp_path: Path) -> None:
    """The archive as Proxmox unpacks it, while one answer in ten has a flipped bit."""
    image = tmp_path / "image"
    image.write_bytes(OBJECT)
    target = place.mount.path / "dump/vzdump-qemu-2-2026_11_20-13_15_26.vma.zst"
    with target.with_suffix(".dat").open("wb") as out:
        subprocess.run(["zstd", "-q", "-c", str(image)], stdout=out, check=True, timeout=60)
    target.with_suffix(".dat").rename(target)
    forget(place)
    with place.proxy.fault(Rule(Flip("answer"), {"GET"}, skip=1, times=2)):
        done = subprocess.run(["zstd", "-dc", str(target)], capture_output=True, check=True, timeout=60)
    assert place.proxy.injected["Flip"] == 2
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(OBJECT).digest()
    target.unlink()


def test_status_tells_what_was_verified(place: Place) -> None:
    drop_caches(place)
    for name, data in NAMES.items():
        assert place.read(name)[0] == data
    home = place.mount.path.parent
    reads = read_status(socket_path(str(home / "run"), str(place.mount.path)))["reads"]
    assert isinstance(reads, dict)
    assert reads["verified"] > 0
    assert set(reads) == {"verified", "unverified", "healed", "fatal"}
