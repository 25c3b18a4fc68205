"""What vzdump does to a directory storage, call by call (PVE/VZDump.pm and PVE/VZDump/QemuServer.pm of Proxmox VE 9).

Same names, same order, same programs; the descriptor is duplicated and closed early as the forks of the original do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

COMPRESSORS: dict[str, tuple[str, ...]] = {
    "": (),
    ".gz": ("pigz", "-p", "1"),
    ".lzo": ("lzop",),
    ".zst": ("zstd", "--threads=1", "-q"),
}
DECOMPRESSORS: dict[str, tuple[str, ...]] = {
    "": ("cat",),
    ".gz": ("zcat",),
    ".lzo": ("lzop", "-d", "-c"),
    ".zst": ("zstd", "-q", "-d", "-c"),
}
CHUNK = 128 << 10  # QEMU's pipe to the compressor


@dataclass(frozen=True)
class Job:
    """One backup. stem: ``vzdump-qemu-100-2026_11_20-13_15_26``; kind: vma (VM) or tar (container)."""

    dump: Path
    stem: str
    kind: str
    compression: str

    @property
    def target(self) -> Path:
        return self.dump / f"{self.stem}.{self.kind}{self.compression}"

    @property
    def temporary(self) -> Path:
        """The target with its last extension replaced (VZDump.pm:1013)."""
        return self.target.with_suffix(".dat")

    @property
    def scratch(self) -> Path:
        return self.dump / f"{self.stem}.tmp"


def prepare(job: Job) -> None:
    """Steps 2-5: nothing stale, df, the scratch directory with the guest's configuration."""
    job.temporary.unlink(missing_ok=True)
    subprocess.run(["df", "-P", "-T", "-B", "1", str(job.dump)], check=True, capture_output=True, timeout=60)
    shutil.rmtree(job.scratch, ignore_errors=True)
    job.scratch.mkdir()
    assert job.scratch.is_dir()
    (job.dump / f"{job.stem}.log").unlink(missing_ok=True)
    (job.scratch / "qemu-server.conf").write_text("memory: 2048\n")


def write_vm(job: Job, image: Path) -> None:
    """Steps 6-9 of a VM: we open and keep the file, the compressor gets a duplicate, QEMU feeds it.

    Uncompressed, QEMU writes to the descriptor itself, in unaligned pieces.
    """
    fd = os.open(job.temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        subprocess.run(["true"], pass_fds=[fd], check=True, timeout=60)  # any other child: a flush with 0 bytes written
        if not job.compression:
            with image.open("rb") as source:
                size = 12 << 10
                while piece := source.read(size + 512):
                    assert os.write(fd, piece) == len(piece)
                    size = min(size * 2, 3 << 20)
            return
        with subprocess.Popen(COMPRESSORS[job.compression], stdin=subprocess.PIPE, stdout=fd) as compressor:
            assert compressor.stdin is not None
            with image.open("rb") as source:
                feed = compressor.stdin
                feed.write(source.read(CHUNK))
                os.close(os.dup(fd))  # vzdump forks again in mid-stream
                while piece := source.read(CHUNK):
                    feed.write(piece)
                feed.close()
            assert compressor.wait(240) == 0
    finally:
        os.close(fd)


def write_container(job: Job, tree: Path) -> None:
    """Steps 6-9 of a container: bash opens, dup2s, closes (a flush with nothing written), tar is in the pipe."""
    compressor = " ".join(COMPRESSORS[job.compression])
    pipe = f"tar cpf - -C '{tree}' . " + (f"| {compressor} " if compressor else "") + f"> '{job.temporary}'"
    subprocess.run(["bash", "-c", f"set -o pipefail; {pipe}"], check=True, timeout=240)


def commit(job: Job) -> None:
    """Steps 10 and 11: the rename, and the size for the log."""
    job.temporary.rename(job.target)
    assert job.target.stat().st_size > 0


def finish(job: Job, notes: str, log: Path) -> None:
    """Steps 12-16: notes, mark as protected, clean up, copy the log."""
    temporary = Path(f"{job.target}.notes.tmp.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, notes.encode())
    os.close(fd)
    temporary.rename(f"{job.target}.notes")
    protect(job.target)
    assert not job.temporary.is_file()
    shutil.rmtree(job.scratch)
    subprocess.run(["cp", str(log), str(job.dump / f"{job.stem}.log")], check=True, timeout=60)


def protect(archive: Path) -> None:
    """Dir.pm:209 exactly: open for reading with O_CREAT, write nothing, ignore what close says."""
    script = "use Fcntl; sysopen(my $fh, $ARGV[0], O_RDONLY|O_CREAT, 0644) or die $!; close($fh);"
    subprocess.run(["perl", "-e", script, f"{archive}.protected"], check=True, timeout=60)


def run(job: Job, write: Callable[[Job, Path], None], source: Path, log: Path) -> None:
    prepare(job)
    write(job, source)
    commit(job)
    finish(job, "nightly\n", log)
