"""Two nodes, one bucket: two mounts with homes of their own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.checklogs import LogWatch
from tests.mount.harness import Mount, eventually
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.expect_log(r"", optional=True)]

TTL = {"list_ttl": "1s", "attr_ttl": "1s"}
MIB = 1 << 20
STAMP = 64  # bytes that say which version they belong to


@dataclass(frozen=True)
class Nodes:
    one: Mount
    two: Mount


@pytest.fixture(scope="module")
def pair(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    bucket, home = s3.make_bucket("nodes"), tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        one, two = (stack.enter_context(Mount(s3, bucket, "", home / n, LogWatch(), TTL)) for n in ("one", "two"))
        yield Nodes(one, two)


@pytest.fixture
def nodes(pair: Nodes, log_watch: LogWatch) -> Iterator[Nodes]:
    """With an empty bucket."""
    for node in (pair.one, pair.two):
        log_watch.follow(node.log_file)
        for directory in ("dump", "snippets", "template/iso"):
            eventually(lambda path=node.path / directory: os.listdir(path) == [], "empty")  # type: ignore[misc]
    yield pair
    view = pair.one.view
    for key in view.keys(""):
        view.delete(key)


def version(name: str, size: int) -> bytes:
    """Every 64 bytes of it say whose they are."""
    return name.encode().ljust(STAMP, b".") * (size // STAMP)


def outcome(call: Callable[[], object]) -> int:
    """0, or the errno."""
    try:
        call()
    except OSError as e:
        return e.errno or -1
    return 0


def holds(path: Path, data: bytes) -> bool:
    """What is read there, now; an error is a no."""
    return outcome(path.read_bytes) == 0 and path.read_bytes() == data


def at_once(*calls: Callable[[], object]) -> list[int]:
    """Their outcomes, begun at the same moment."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> int:
        barrier.wait(30)
        return outcome(call)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def opened(path: Path, data: bytes, flags: int = os.O_CREAT | os.O_EXCL) -> int:
    """A descriptor with data written and nothing published."""
    fd = os.open(path, os.O_WRONLY | flags, 0o644)
    for start in range(0, len(data), MIB):
        os.write(fd, data[start : start + MIB])
    return fd


def test_each_sees_what_the_other_did(nodes: Nodes) -> None:
    one, two = nodes.one.path / "dump", nodes.two.path / "dump"
    assert os.listdir(two) == []
    (one / "a").write_bytes(b"first")
    eventually(lambda: os.listdir(two) == ["a"], "a new name is seen")
    assert (two / "a").read_bytes() == b"first"
    with (two / "a").open("ab") as file:
        file.write(b" second")
    eventually(lambda: (one / "a").stat().st_size == 12, "the new size is seen")
    assert (one / "a").read_bytes() == b"first second"
    (one / "a").rename(one / "b")
    eventually(lambda: os.listdir(two) == ["b"], "the other name is seen")
    (two / "b").unlink()
    eventually(lambda: os.listdir(one) == [], "the deletion is seen")
    for number in range(20):
        (nodes.one if number % 2 else nodes.two).path.joinpath(f"dump/{number:02}").touch()
    names = [f"{number:02}" for number in range(20)]
    eventually(lambda: sorted(os.listdir(one)) == sorted(os.listdir(two)) == names, "both list the same")


READER = """
import os, sys, time
path, stamp, end = sys.argv[1], int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
read = stale = mixed = 0
while time.monotonic() < end:
    try:
        with open(path, "rb", buffering=0) as file:
            data = b"".join(iter(lambda: file.read(1 << 20), b""))
    except OSError:
        stale += 1
        continue
    first = data[:stamp]
    mixed += data != first * (len(data) // stamp)
    read += 1
print(read, stale, mixed)
"""


def test_a_reader_never_gets_a_mix_of_versions(nodes: Nodes) -> None:
    """One node replaces a backup again and again, the other one reads it all the while, with two programs."""
    target = nodes.one.path / "dump/r.vma.zst"
    target.write_bytes(version("0", 12 * MIB))
    there = nodes.two.path / "dump/r.vma.zst"
    eventually(there.exists, "the other node sees it")
    command = [sys.executable, "-c", READER, str(there), str(STAMP), "8"]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    end, number = time.monotonic() + 7, 0
    while time.monotonic() < end:
        number += 1
        scratch = target.with_name(f"r.{number}")
        scratch.write_bytes(version(str(number), (10 + number % 4) * MIB))
        scratch.rename(target)
    counts = [tuple(map(int, reader.communicate(timeout=120)[0].split())) for reader in readers]
    sys.stdout.write(f"{number} versions, (read whole, refused, mixed) {counts}\n")
    assert number > 1
    assert all(read > 0 and mixed == 0 for read, _, mixed in counts)
    last = version(str(number), (10 + number % 4) * MIB)
    eventually(partial(holds, there, last), "the last version is seen")


def test_both_make_the_same_small_file(nodes: Nodes) -> None:
    """A PUT with If-None-Match is atomic on the store: exactly one wins."""
    for round_ in range(5):
        name = f"snippets/s{round_}"
        one = opened(nodes.one.path / name, b"one" * 100)
        two = opened(nodes.two.path / name, b"two" * 100)
        results = at_once(partial(os.close, one), partial(os.close, two))
        assert sorted(results) == [0, errno.EEXIST]
        winner = (b"one", b"two")[results.index(0)] * 100
        assert nodes.one.view.body(name) == winner
        for node in (nodes.one, nodes.two):
            eventually(partial(holds, node.path / name, winner), "both see the winner's")


def test_both_make_the_same_large_file(nodes: Nodes) -> None:
    """RGW 16 ignores If-None-Match of CompleteMultipartUpload: the last one wins, whole, and nothing is left over. The
    other may be told that its object is not there any more."""
    name = "template/iso/large.iso"
    one, two = version("one", 20 * MIB), version("two", 20 * MIB)
    fds = [opened(nodes.one.path / name, one), opened(nodes.two.path / name, two)]
    results = at_once(*(partial(os.close, fd) for fd in fds))
    assert 0 in results
    assert set(results) <= {0, errno.EEXIST, errno.ESTALE}
    assert nodes.one.view.body(name) in (one, two)
    eventually(lambda: nodes.one.view.uploads() == [], "no upload is left")


@pytest.mark.parametrize("size", [1000, 9 * MIB], ids=["small", "large"])
def test_both_append(nodes: Nodes, size: int) -> None:
    """The second to publish finds another version than it began with: ESTALE, and the first one's stays."""
    name = "snippets/log"
    (nodes.one.path / name).write_bytes(bytes(size))
    eventually((nodes.two.path / name).exists, "the other node sees it")
    one = opened(nodes.one.path / name, b"one", os.O_APPEND)
    two = opened(nodes.two.path / name, b"two", os.O_APPEND)
    os.close(one)
    assert outcome(lambda: os.close(two)) == errno.ESTALE
    assert nodes.one.view.body(name) == bytes(size) + b"one"
    eventually(lambda: (nodes.two.path / name).stat().st_size == size + 3, "the loser sees the winner's")
    eventually(lambda: nodes.one.view.uploads() == [], "no upload is left")


def test_both_rename_the_same_file(nodes: Nodes) -> None:
    """At worst both succeed, and there are two copies: never none."""
    data = version("x", MIB)
    (nodes.one.path / "dump/x").write_bytes(data)
    eventually((nodes.two.path / "dump/x").exists, "the other node sees it")
    results = at_once(
        lambda: (nodes.one.path / "dump/x").rename(nodes.one.path / "dump/one"),
        lambda: (nodes.two.path / "dump/x").rename(nodes.two.path / "dump/two"),
    )
    assert 0 in results
    assert set(results) <= {0, errno.ENOENT, errno.ESTALE}
    names = [name for name, result in zip(("one", "two"), results, strict=True) if result == 0]
    there = nodes.one.view.keys("dump/")
    assert set(there) >= {f"dump/{name}" for name in names}
    assert "dump/x" not in there
    assert all(nodes.one.view.body(key) == data for key in there)


def test_one_deletes_what_the_other_replaces(nodes: Nodes) -> None:
    path, new = "dump/y", version("new", MIB)
    for _ in range(3):
        (nodes.one.path / path).write_bytes(version("old", MIB))
        eventually((nodes.two.path / path).exists, "the other node sees it")
        fd = opened(nodes.one.path / path, new, os.O_TRUNC)
        results = at_once(partial(os.close, fd), (nodes.two.path / path).unlink)
        assert set(results) <= {0, errno.ENOENT, errno.ESTALE}
        there = nodes.one.view.keys("dump/")
        assert there == [] or (there == [path] and nodes.one.view.body(path) == new)
        names = [key.removeprefix("dump/") for key in there]
        for node in (nodes.one, nodes.two):
            dump = node.path / "dump"
            eventually(lambda d=dump, n=names: os.listdir(d) == n, "both see the outcome")  # type: ignore[misc]


def test_a_recovery_spares_what_the_other_node_made_meanwhile(nodes: Nodes) -> None:
    """A node dies between close and rename; its backup's final name is taken by the other one; it comes back."""
    temporary = "dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.dat"
    final = temporary.replace(".dat", ".zst")
    ours, theirs = b"\x28\xb5\x2f\xfd" + version("ours", 17 * MIB), version("theirs", 9 * MIB)
    (nodes.one.path / temporary).write_bytes(ours)
    nodes.one.kill9()
    (nodes.two.path / final).write_bytes(theirs)
    nodes.one.start()
    assert (nodes.one.path / temporary).stat().st_size == len(ours)
    assert (nodes.one.path / final).read_bytes() == theirs
    (nodes.one.path / temporary).unlink()
    assert nodes.one.view.body(final) == theirs
    eventually(lambda: nodes.one.view.uploads() == [], "no upload is left")
