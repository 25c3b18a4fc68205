"""A mount whose store is behind the fault proxy, and the two things Proxmox does with it, under the law.

Write: either write, close and rename succeed and the bucket holds exactly those bytes under the final name, or one of
them fails and, once vzdump has removed its file, the bucket holds nothing of it. Read: the right bytes or an error.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.faultproxy import FaultProxy
from tests.mount.harness import Mount, eventually
from tests.s3server import S3View

T = TypeVar("T")

LIMITS: dict[str, object] = {
    "attempts": 4,
    "connect_timeout": "1s",
    "read_timeout": "1s",
    "metadata_deadline": "2s",
    "read_deadline": "2s",
    "write_deadline": "3s",
    "publish_deadline": "5s",
    "list_ttl": "0.1s",
    "attr_ttl": "0.1s",
}
DEADLINE = 10.0  # seconds; the longest of the above, twice: the kernel may ask again for what it read ahead
BODY = b"\x28\xb5\x2f\xfd" + random.Random(3).randbytes((24 << 20) + 12_345)  # zstd; three parts and a bit
SHORT = BODY[: 9 << 20]
OBJECT = random.Random(4).randbytes(20 << 20)

_numbers = itertools.count()


@dataclass(frozen=True)
class Outcome:
    """What the programs of Proxmox saw. slowest: seconds of the longest system call."""

    error: OSError | None
    slowest: float

    @property
    def errno(self) -> str:
        return "" if self.error is None else errno.errorcode[self.error.errno or 0]


class Place:
    """view: the bucket, past the proxy."""

    def __init__(self, mount: Mount, proxy: FaultProxy) -> None:
        self.mount = mount
        self.proxy = proxy
        self.view: S3View = mount.view

    def backup(self, body: bytes = BODY) -> tuple[str, Outcome]:
        """vzdump: write D.vma.dat, close it, rename it to D.vma.zst; unlink it where that failed. (name, outcome)"""
        name = f"vzdump-qemu-{next(_numbers)}-2026_11_20-13_15_26.vma.zst"
        target = self.mount.path / "dump" / name
        temporary = target.with_suffix(".dat")
        slowest = 0.0

        def timed(call: Callable[[], T]) -> T:
            nonlocal slowest
            begin = time.monotonic()
            try:
                return call()
            finally:
                slowest = max(slowest, time.monotonic() - begin)

        failed = None
        try:
            fd = timed(lambda: os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644))
            try:
                for start in range(0, len(body), 1 << 20):
                    piece = body[start : start + (1 << 20)]
                    assert timed(lambda data=piece: os.write(fd, data)) == len(piece)  # type: ignore[misc]
            except OSError as e:
                failed = e
            try:
                timed(lambda: os.close(fd))
            except OSError as e:
                failed = failed or e
            if failed is None:
                timed(lambda: os.rename(temporary, target))
        except OSError as e:
            failed = e
        if failed is not None:
            # vzdump only warns when that fails, too: close, the next mount and time clean up
            with contextlib.suppress(OSError):
                timed(lambda: os.unlink(temporary))
        return name, Outcome(failed, slowest)

    def check_stored(self, name: str) -> None:
        assert self.view.body(f"dump/{name}") == BODY
        assert self.view.uploads() == []
        self.view.delete(f"dump/{name}")

    def check_nothing_left(self, name: str) -> None:
        eventually(lambda: self.view.uploads() == [], "no upload is left", 5)
        stem = name.partition(".")[0]
        eventually(lambda: self.view.keys(f"dump/{stem}") == [], "nothing is published", 5)

    def works_again(self) -> None:
        """With the fault gone, and without a remount."""
        eventually(lambda: os.statvfs(self.mount.path).f_blocks > 0, "the storage is active again", 10)
        name, outcome = self.backup(SHORT)
        assert outcome.error is None
        assert self.view.body(f"dump/{name}") == SHORT
        self.view.delete(f"dump/{name}")

    def read(self, key: str) -> tuple[bytes, Outcome]:
        """All there is of a file up to its end or an error, as a restore reads it."""
        data, slowest, failed = b"", 0.0, None
        begin = time.monotonic()
        try:
            fd = os.open(self.mount.path / key, os.O_RDONLY)
        except OSError as e:
            return b"", Outcome(e, time.monotonic() - begin)
        try:
            while True:
                begin = time.monotonic()
                try:
                    piece = os.read(fd, 1 << 20)
                finally:
                    slowest = max(slowest, time.monotonic() - begin)
                if not piece:
                    break
                data += piece
        except OSError as e:
            failed = e
        finally:
            os.close(fd)
        return data, Outcome(failed, slowest)
