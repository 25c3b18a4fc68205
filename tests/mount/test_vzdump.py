"""Backups: the name that appears at the rename, the bytes behind it, and what is left when it goes wrong."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.mount import vzdump
from tests.mount.conftest import MakeMount
from tests.mount.harness import Mount, eventually
from tests.mount.vzdump import COMPRESSORS, DECOMPRESSORS, Job
from tests.s3server import STORES

pytestmark = pytest.mark.mount

SIZE = 24 << 20  # three parts at the default 8 MiB, and something left over
STEM = "vzdump-qemu-100-2026_11_20-13_15_26"
on_both = pytest.mark.parametrize("bucket_on", STORES, indirect=True)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VMA by its first bytes; random, so that no compressor makes one part of it."""
    path = tmp_path_factory.mktemp("image") / "vm.vma"
    path.write_bytes(b"VMA\0" + random.Random(1).randbytes(SIZE + 12345))
    return path


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container's root file system, more or less."""
    root = tmp_path_factory.mktemp("ct")
    (root / "etc").mkdir()
    (root / "etc" / "hostname").write_text("ct\n")
    (root / "blob").write_bytes(random.Random(2).randbytes(SIZE))
    return root


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "qemu-100.log"
    path.write_text("INFO: Starting Backup of VM 100\n")
    return path


def unpacked_sha256(archive: Path, compression: str) -> str:
    """What a restore would read: ``zstd -q -d -c FILE | ...``."""
    digest = hashlib.sha256()
    with subprocess.Popen([*DECOMPRESSORS[compression], str(archive)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while chunk := process.stdout.read(1 << 20):
            digest.update(chunk)
    assert process.returncode == 0
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_archive(path: Path, size: int = SIZE, magic: bytes = b"\x28\xb5\x2f\xfd") -> bytes:
    """Something that starts as zstd does, written and closed."""
    data = magic + random.Random(size).randbytes(size)
    with path.open("wb") as file:
        file.write(data)
    return data


@pytest.mark.parametrize("compression", COMPRESSORS, ids=lambda c: c.lstrip(".") or "none")
@pytest.mark.parametrize("kind", ["vma", "tar"])
def test_backup_is_one_upload_and_no_copy(
    mount: Mount, kind: str, compression: str, image: Path, tree: Path, log: Path
) -> None:
    job = Job(mount.path / "dump", STEM if kind == "vma" else STEM.replace("qemu", "lxc"), kind, compression)
    key = f"dump/{job.target.name}"
    vzdump.prepare(job)
    mark = mount.server.mark(mount.bucket)
    if kind == "vma":
        vzdump.write_vm(job, image)
    else:
        vzdump.write_container(job, tree)
    assert not [k for k in mount.view.keys("dump/") if k.startswith(f"dump/{job.stem}.{kind}") or k.endswith(".dat")]
    vzdump.commit(job)
    asked = mount.server.requests_since(mark, mount.bucket)
    assert (asked["COPY"], asked["COPY PART"]) == (0, 0), asked
    assert (asked["CREATE UPLOAD"], asked["COMPLETE"], asked["ABORT"]) == (1, 1, 0), asked
    put = [r.key for r in mount.server.requests(mark, mount.bucket) if r.kind == "PUT" and "/journal/" not in r.key]
    assert len(put) == 1, "its checksums, and the copy of the journal when it takes more than a second"
    assert mount.view.uploads() == []
    vzdump.finish(job, "nightly\n", log)

    assert mount.view.keys("dump/") == [f"dump/{job.stem}.log", key, f"{key}.notes", f"{key}.protected"]
    assert mount.view.body(f"{key}.notes") == b"nightly\n"
    assert mount.view.body(f"{key}.protected") == b""
    assert file_sha256(job.target) == mount.view.sha256(key)
    if kind == "vma":
        assert unpacked_sha256(job.target, compression) == file_sha256(image)
    else:
        copy = log.parent / "restored"
        copy.mkdir()
        subprocess.run(["tar", "xpf", str(job.target), "-C", str(copy)], check=True, timeout=120)
        assert file_sha256(copy / "blob") == file_sha256(tree / "blob")


@on_both
def test_backup_survives_a_remount(mount: Mount, image: Path, log: Path) -> None:
    job = Job(mount.path / "dump", STEM, "vma", ".zst")
    vzdump.run(job, vzdump.write_vm, image, log)
    mount.restart()
    assert sorted(p.name for p in job.dump.iterdir()) == [
        f"{STEM}.log",
        f"{STEM}.vma.zst",
        f"{STEM}.vma.zst.notes",
        f"{STEM}.vma.zst.protected",
    ]
    mark = mount.server.mark(mount.bucket)
    assert unpacked_sha256(job.target, ".zst") == file_sha256(image)
    asked = [request for request in mount.server.requests(mark, mount.bucket) if ".s3fsx/" in request.key]
    assert [request.kind for request in asked] == ["GET"], "its checksums, once"


def test_memory_and_disk_stay_bounded(make_mount: MakeMount, tmp_path: Path) -> None:
    """512 MiB through a budget of 64: held data must not grow with the file. Python itself takes 60-80 MiB."""
    mount = make_mount(memory_budget="64MiB")
    path = mount.path / f"dump/{STEM}.vma.dat"
    with path.open("wb", buffering=0) as file:
        file.write(b"\x28\xb5\x2f\xfd")
        for _ in range(512):
            file.write(bytes(1 << 20))
    path.rename(mount.path / f"dump/{STEM}.vma.zst")
    assert mount.view.size(f"dump/{STEM}.vma.zst") == (512 << 20) + 4
    assert mount.rss_peak_mib() < 256
    local = (f for f in tmp_path.rglob("*") if mount.path not in f.parents and f.is_file())
    assert sum(f.stat().st_size for f in local) < 10 << 20


@on_both
def test_unlink_before_the_rename_leaves_nothing(mount: Mount) -> None:
    path = mount.path / f"dump/{STEM}.vma.dat"
    write_archive(path)
    path.unlink()
    assert not path.exists()
    eventually(lambda: mount.view.uploads() == [], "the upload is aborted")
    assert mount.view.keys("dump/") == []


def test_unlink_of_an_open_file_leaves_nothing(mount: Mount) -> None:
    path = mount.path / f"dump/{STEM}.vma.dat"
    with path.open("wb") as file:
        file.write(b"\x28\xb5\x2f\xfd" + bytes(SIZE))
        path.unlink()
    assert not path.exists()
    eventually(lambda: mount.view.uploads() == [], "the upload is aborted")
    assert mount.view.keys("dump/") == []


@pytest.mark.parametrize("name", [f"dump/{STEM}.vma.dat", "template/iso/early.iso"])
def test_early_flushes_of_duplicates_do_no_harm(mount: Mount, name: str) -> None:
    """R6: before the first byte, in the middle, and several at the end."""
    data = b"\x28\xb5\x2f\xfd" + random.Random(3).randbytes(SIZE)
    path = mount.path / name
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for _ in range(3):
        os.close(os.dup(fd))
    for start in range(0, len(data), 5_000_000):
        os.write(fd, data[start : start + 5_000_000])
        os.close(os.dup(fd))
    os.close(os.dup(fd))
    os.close(fd)
    final = path.with_suffix(".zst") if path.suffix == ".dat" else path
    path.rename(final)
    assert mount.view.body(str(final.relative_to(mount.path))) == data
    assert mount.view.uploads() == []


def test_a_child_that_outlives_the_parent_writes_on(mount: Mount) -> None:
    """The shell's close is not the last: its children still write to the same open file."""
    path = mount.path / "dump/late.txt"
    subprocess.run(["sh", "-c", f"{{ printf one; (sleep 0.3; printf two); }} > '{path}'"], check=True, timeout=60)
    assert mount.view.body("dump/late.txt") == b"onetwo"


@on_both
def test_read_back_before_the_rename(mount: Mount) -> None:
    """Downloads are checked (qemu-img info, sha256sum) under the temporary name."""
    path = mount.path / f"dump/{STEM}.vma.dat"
    data = write_archive(path)
    assert path.stat().st_size == len(data)
    assert path.read_bytes() == data
    path.rename(mount.path / f"dump/{STEM}.vma.zst")
    assert mount.view.sha256(f"dump/{STEM}.vma.zst") == hashlib.sha256(data).hexdigest()
    assert mount.view.keys("dump/") == [f"dump/{STEM}.vma.zst"]
    assert mount.view.uploads() == []


def test_a_wrong_prediction_still_arrives(mount: Mount) -> None:
    """zstd inside, renamed to a name nobody could foresee: a copy is allowed, a loss is not."""
    path = mount.path / f"dump/{STEM}.vma.dat"
    data = write_archive(path)
    path.rename(mount.path / "dump/moved-by-hand.bin")
    eventually(lambda: mount.view.keys("dump/") == ["dump/moved-by-hand.bin"], "only the new name is there")
    assert mount.view.sha256("dump/moved-by-hand.bin") == hashlib.sha256(data).hexdigest()
    assert mount.view.uploads() == []


def test_an_empty_and_a_small_backup(mount: Mount) -> None:
    for content in (b"", b"\x28\xb5\x2f\xfd small"):
        path = mount.path / f"dump/{STEM}.vma.dat"
        path.write_bytes(content)
        path.rename(mount.path / f"dump/{STEM}.vma.zst")
        assert mount.view.body(f"dump/{STEM}.vma.zst") == content
    assert mount.view.keys("dump/") == [f"dump/{STEM}.vma.zst"]


def test_rename_replaces_an_older_backup(mount: Mount) -> None:
    target = mount.path / f"dump/{STEM}.vma.zst"
    target.write_bytes(b"old")
    path = mount.path / f"dump/{STEM}.vma.dat"
    data = write_archive(path)
    assert mount.view.body(f"dump/{STEM}.vma.zst") == b"old"
    path.rename(target)
    assert mount.view.sha256(f"dump/{STEM}.vma.zst") == hashlib.sha256(data).hexdigest()
    assert target.stat().st_size == len(data)
    assert mount.view.uploads() == []


@on_both
@pytest.mark.expect_log(r".", optional=True)
def test_lost_parts_fail_the_rename(mount: Mount) -> None:
    """R3, R4: somebody (a lifecycle rule) aborts the upload. The archive cannot be there, so rename must say so."""
    path = mount.path / f"dump/{STEM}.vma.dat"
    write_archive(path)
    client = mount.server.client
    uploads = client.list_multipart_uploads(Bucket=mount.bucket)["Uploads"]
    assert len(uploads) == 1
    client.abort_multipart_upload(Bucket=mount.bucket, Key=uploads[0]["Key"], UploadId=uploads[0]["UploadId"])
    with pytest.raises(OSError, match=r"Errno (5|116)"):
        path.rename(mount.path / f"dump/{STEM}.vma.zst")
    assert not (mount.path / f"dump/{STEM}.vma.zst").exists()
    path.unlink(missing_ok=True)  # as vzdump does after a failure
    assert mount.view.keys("dump/") == []


@on_both
@pytest.mark.expect_log(r".", optional=True)
def test_kill9_while_writing_leaves_nothing_half_made(mount: Mount) -> None:
    path = mount.path / f"dump/{STEM}.vma.dat"
    file = path.open("wb", buffering=0)
    try:
        file.write(b"\x28\xb5\x2f\xfd" + bytes(SIZE))
        mount.kill9()
    finally:
        with pytest.raises(OSError, match="Transport endpoint"):
            file.write(b"x")
        with pytest.raises(OSError, match="Transport endpoint"):
            file.close()
    assert mount.view.keys() == []
    mount.start()
    eventually(lambda: mount.view.uploads() == [], "the next mount aborts the upload")
    assert not path.exists()
    assert mount.view.keys() == []


@on_both
@pytest.mark.expect_log(r".", optional=True)
def test_kill9_between_close_and_rename_keeps_what_close_promised(mount: Mount) -> None:
    """Tenet 1: close succeeded, so the bytes are safe, under the only name anybody was told."""
    path = mount.path / f"dump/{STEM}.vma.dat"
    data = write_archive(path)
    mount.kill9()
    mount.start()
    eventually(path.exists, "the file is back under its name")
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(data).digest()
    path.rename(mount.path / f"dump/{STEM}.vma.zst")
    assert mount.view.sha256(f"dump/{STEM}.vma.zst") == hashlib.sha256(data).hexdigest()
    eventually(lambda: mount.view.keys("dump/") == [f"dump/{STEM}.vma.zst"], "the temporary name is gone")
    assert mount.view.uploads() == []


@on_both
@pytest.mark.expect_log(r".", optional=True)
def test_kill9_after_the_rename_changes_nothing(mount: Mount) -> None:
    path = mount.path / f"dump/{STEM}.vma.dat"
    data = write_archive(path)
    path.rename(mount.path / f"dump/{STEM}.vma.zst")
    mount.kill9()
    assert mount.view.sha256(f"dump/{STEM}.vma.zst") == hashlib.sha256(data).hexdigest()
    mount.start()
    assert (mount.path / f"dump/{STEM}.vma.zst").read_bytes() == data
    assert mount.view.uploads() == []


@on_both
def test_umount_publishes_what_was_never_renamed(mount: Mount) -> None:
    """close succeeded: an orderly unmount must not lose it, here or for the next mount."""
    path = mount.path / f"dump/{STEM}.vma.dat"
    data = write_archive(path)
    mount.restart()
    assert path.read_bytes() == data


@on_both
def test_two_backups_at_once(make_mount: MakeMount, image: Path) -> None:
    mount = make_mount()
    jobs = [Job(mount.path / "dump", STEM.replace("100", str(vmid)), "vma", ".zst") for vmid in (101, 102)]
    writers = []
    for job in jobs:
        with job.temporary.open("wb") as out:
            writers.append(subprocess.Popen([*COMPRESSORS[".zst"], "-c", str(image)], stdout=out))
    for job, writer in zip(jobs, writers, strict=True):
        assert writer.wait(240) == 0
        vzdump.commit(job)
        assert unpacked_sha256(job.target, ".zst") == file_sha256(image)
    assert mount.view.uploads() == []
