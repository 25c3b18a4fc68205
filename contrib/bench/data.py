"""What is stored: a backup that is really zstd-compressed, of bytes that zstd cannot make smaller."""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNIT = 512 << 20
IO = 128 << 10  # what zstd writes and reads per call
SAMPLE = 64  # bytes compared of each IO
BACKUP = "dump/vzdump-qemu-100-2026_01_01-00_00_00.vma.zst"  # what the jobs read
ISO = "template/iso/bench.iso"


@dataclass(frozen=True)
class Data:
    """``count`` times the same zstd frames, which are one zstd stream: memory for one of them (in tmpfs) is enough for
    a backup of any size. path: of the unit. plain_sha256: of the decompressed whole."""

    path: Path
    unit: mmap.mmap
    count: int
    plain_sha256: str

    @property
    def size(self) -> int:
        return len(self.unit) * self.count

    @classmethod
    def of(cls, path: Path, count: int, plain_sha256: str = "") -> Data:
        with path.open("rb") as file:
            return cls(path, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), count, plain_sha256)

    def blocks(self, size: int) -> Iterator[memoryview]:
        """The first size bytes, in pieces of at most IO."""
        with memoryview(self.unit) as view:
            done = 0
            while done < size:
                at = done % len(view)
                piece = view[at : min(at + IO, len(view), at + size - done)]
                done += len(piece)
                yield piece

    def piece(self, start: int, length: int) -> bytes:
        """A copy, shorter at the end; read and not mapped, so that it is in nobody's resident memory twice."""
        length = min(length, self.size - start)
        with self.path.open("rb", buffering=0) as file:
            first = os.pread(file.fileno(), length, start % len(self.unit))
        return first if len(first) == length else first + self.piece(start + len(first), length - len(first))

    def agrees(self, offset: int, got: memoryview) -> bool:
        """Whether what was read at offset begins as it should. All bytes would cost the reader's CPU as much as the
        reading."""
        at = offset % len(self.unit)
        wanted = self.unit[at : at + min(SAMPLE, len(got))]
        return wanted == got[: len(wanted)]


def make(directory: Path, size: int) -> Data:
    """At least size bytes. Raises CalledProcessError when zstd fails, FileNotFoundError when there is none."""
    unit = min(size, UNIT)
    count = -(-size // unit)
    plain = os.urandom(unit)
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(plain)
    path = directory / "backup.zst"
    with path.open("wb") as file:
        subprocess.run(["zstd", "-q", "-1"], input=plain, stdout=file, check=True)
    return Data.of(path, count, digest.hexdigest())


def write(path: Path, data: Data, size: int) -> None:
    """The first size bytes, as one program writes a file; returns after the close."""
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_to(target, data, size)
    finally:
        os.close(target)


def write_to(target: int, data: Data, size: int) -> None:
    for piece in data.blocks(size):
        sent = 0
        while sent < len(piece):
            sent += os.write(target, piece[sent:])


def read(path: Path, data: Data | None, start: int, stop: int) -> None:
    """The bytes from start to stop, in order. Raises ValueError when they are too few or, given data, others."""
    with path.open("rb", buffering=0) as file:
        read_from(file.fileno(), data, start, stop)


def read_from(source: int, data: Data | None, start: int, stop: int) -> None:
    with memoryview(bytearray(IO)) as buffer:
        done = start
        while done < stop:
            with buffer[: min(IO, stop - done)] as piece:
                got = os.preadv(source, [piece], done)
                if not got:
                    raise ValueError(f"the file ends at {done} and not at {stop}")
                if data and not data.agrees(done, piece[:got]):
                    raise ValueError(f"read at {done}: not what was written")
            done += got
