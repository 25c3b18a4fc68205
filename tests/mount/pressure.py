"""Writers and readers on one mount, all at once, for a while; every byte read is compared.

A program of its own, so that a memory cgroup can hold it; prints JSON:

    python -m tests.mount.pressure DIRECTORY SECONDS WRITERS READERS SEED
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from contrib.soak.content import BLOCK, Content

KEEP = 2  # backups per writer; the store of the tests is in RAM
SIZES = (20 << 20, 72 << 20)
IO = 128 << 10


@dataclass
class Traffic:
    """files: published, with who reads each of them now."""

    directory: Path
    seed: int
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    files: dict[Path, Content] = field(default_factory=dict)
    reading: dict[Path, int] = field(default_factory=dict)
    written: int = 0
    verified: int = 0
    backups: int = 0
    slowest_write: float = 0.0
    errors: list[str] = field(default_factory=list)

    def guarded(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except Exception as e:
            self.errors.append(f"{type(e).__name__}: {e}")
            self.over.set()

    def writer(self, number: int) -> None:
        draw = random.Random(self.seed * 1000 + number)
        mine: list[Path] = []
        made = 0
        while not self.over.is_set():
            content = Content((self.seed << 32) + (number << 16) + made, draw.randint(*SIZES))
            final = self.directory / f"vzdump-qemu-{100 + number}-2026_11_20-{made:02}_00_00.vma.zst"
            if not self.write(final, content):
                return
            made += 1
            mine.append(final)
            with self.lock:
                self.files[final] = content
                self.backups += 1
                old = [path for path in mine[:-KEEP] if not self.reading.get(path)]
                for path in old:
                    del self.files[path]
                    mine.remove(path)
            for path in old:
                path.unlink()

    def write(self, final: Path, content: Content) -> bool:
        """As vzdump does; False when the time was over before it was complete."""
        temporary = final.with_suffix(".dat")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            for index in range(content.blocks):
                block = memoryview(content.block(index))
                for start in range(0, len(block), IO):
                    begin = time.monotonic()
                    done = os.write(fd, block[start : start + IO])
                    self.slowest_write = max(self.slowest_write, time.monotonic() - begin)
                    if done != len(block[start : start + IO]):
                        raise AssertionError(f"{temporary}: {done} bytes taken")
                if self.over.is_set():
                    break
        finally:
            os.close(fd)
        if self.over.is_set():
            temporary.unlink()
            return False
        temporary.rename(final)
        with self.lock:
            self.written += content.size
        return True

    def reader(self, number: int) -> None:
        draw = random.Random(self.seed * 1000 + 500 + number)
        while not self.over.is_set():
            with self.lock:
                path = draw.choice(list(self.files)) if self.files else None
                if path is not None:
                    content = self.files[path]
                    self.reading[path] = self.reading.get(path, 0) + 1
            if path is None:
                time.sleep(0.1)
                continue
            try:
                self.read(path, content)
            finally:
                with self.lock:
                    self.reading[path] -= 1

    def read(self, path: Path, content: Content) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # from the store, not from what another reader left
            for index in range(content.blocks):
                data = os.pread(fd, BLOCK, index * BLOCK)
                if data != content.block(index):
                    raise AssertionError(
                        f"{path}: wrong bytes in block {index} of {content.blocks} ({len(data)} bytes)"
                    )
                with self.lock:
                    self.verified += len(data)
                if self.over.is_set():
                    return
        finally:
            os.close(fd)

    def final_check(self) -> None:
        """Everything that was acknowledged, whole."""
        self.over.clear()
        for path, content in self.files.items():
            self.read(path, content)


def main(directory: str, seconds: str, writers: str, readers: str, seed: str) -> None:
    traffic = Traffic(Path(directory), int(seed))
    roles = [(traffic.writer, n) for n in range(int(writers))] + [(traffic.reader, n) for n in range(int(readers))]
    threads = [threading.Thread(target=traffic.guarded, args=role) for role in roles]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    traffic.over.wait(float(seconds))
    took = time.monotonic() - begin
    traffic.over.set()
    for thread in threads:
        thread.join()
    written, verified = traffic.written, traffic.verified
    if not traffic.errors:
        traffic.guarded(lambda _: traffic.final_check(), 0)
    result = {
        "seconds": round(took, 1),
        "written": written,
        "verified": traffic.verified,
        "write_mb_s": round(written / took / 1e6, 1),
        "read_mb_s": round(verified / took / 1e6, 1),
        "backups": traffic.backups,
        "slowest_write_s": round(traffic.slowest_write, 2),
        "errors": traffic.errors,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
