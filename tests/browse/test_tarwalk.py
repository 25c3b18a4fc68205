from __future__ import annotations

import io
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.browse.tarwalk import TarWalk
from s3fsx.errors import ArchiveDamaged
from tests.browse.archives import PCT_CONF, container


def walked(data: bytes, step: int = 1 << 16) -> TarWalk:
    walk = TarWalk()
    for at in range(0, len(data), step):
        walk.feed(memoryview(data)[at : at + step])
    walk.finish()
    return walk


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_whole_archive(form: int) -> None:
    walk = walked(container(form=form))
    assert walk.files == (("pct.conf", PCT_CONF),)
    summary = walk.finish()
    assert (summary.count, summary.size) == (6, len(PCT_CONF) + 5 + 4 + (1 << 20))


@given(st.lists(st.integers(1, 5000), max_size=30), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_however_the_bytes_come(steps: list[int], form: int) -> None:
    data, walk, at = container(3000, form=form), TarWalk(), 0
    while at < len(data):
        step = steps.pop(0) if steps else len(data)
        walk.feed(data[at : at + step])
        at += step
    assert walk.files == (("pct.conf", PCT_CONF),)
    assert walk.finish().count == 6


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_of_the_real_tar_with_sparse_files_links_and_attributes(tmp_path: Path, form: str) -> None:
    """As vzdump calls it, but for --acls."""
    root = tmp_path / "root"
    (root / "etc/vzdump").mkdir(parents=True)
    (root / "etc/vzdump/pct.conf").write_bytes(PCT_CONF)
    with (root / "sparse").open("wb") as file:
        for hole in range(1, 40):
            file.seek(hole << 20)
            file.write(b"data")
    (root / "hard").hardlink_to(root / "sparse")
    (root / "soft").symlink_to("/etc/passwd")
    (root / ("n" * 200)).write_bytes(b"x")
    command = ["tar", "cpf", "-", "--sparse", "--numeric-owner", f"--format={form}", "--xattrs", "-C", str(root)]
    made = subprocess.run([*command, "./etc/vzdump/pct.conf", "."], stdout=subprocess.PIPE, check=True, timeout=60)
    walk = walked(made.stdout)
    assert walk.files == (("pct.conf", PCT_CONF),)
    listed = subprocess.run(["tar", "-tf", "-"], input=made.stdout, stdout=subprocess.PIPE, check=True, timeout=60)
    assert walk.finish().count == len(listed.stdout.splitlines())


def test_a_member_of_more_than_8_gib() -> None:
    """Its size is in base 256 or in a pax header."""
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        member = tarfile.TarInfo("./large")
        member.size = 9 << 30
        head, walk = member.tobuf(form), TarWalk()
        walk.feed(head)
        zeros = bytes(64 << 20)
        for _ in range((9 << 30) // len(zeros)):
            walk.feed(zeros)
        walk.feed(bytes(1024))
        assert walk.finish().size == 9 << 30


@pytest.mark.parametrize("cut", [0, 100, 512, 513, 4096, -1024 - 9216, -20000])
def test_cut_short(cut: int) -> None:
    with pytest.raises(ArchiveDamaged, match=r"cut short|too short"):
        walked(container()[:cut])


@given(st.integers(0, 155))
def test_every_byte_of_a_header_counts(byte: int) -> None:
    data = bytearray(container(0))
    at = data.index(b"./etc/hostname") + byte
    data[at] = (data[at] + 1) % 256
    with pytest.raises(ArchiveDamaged):
        walked(bytes(data))


def header(kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo("x")
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_headers_that_would_fill_the_memory(kind: bytes) -> None:
    walk = TarWalk()
    with pytest.raises(ArchiveDamaged, match="cannot be right"):
        walk.feed(header(kind, 4 << 30))


def test_a_configuration_that_would_fill_the_memory() -> None:
    member = tarfile.TarInfo("./etc/vzdump/pct.conf")
    member.size = 4 << 30
    with pytest.raises(ArchiveDamaged, match="cannot be right"):
        TarWalk().feed(member.tobuf(tarfile.GNU_FORMAT))


def test_memory_is_bounded() -> None:
    data = container(8 << 20)
    tracemalloc.start()
    try:
        walked(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_what_is_behind_the_end() -> None:
    data = container(0)
    walked(data + bytes(100_000))
    with pytest.raises(ArchiveDamaged, match="behind its end"):
        walked(data + bytes(3 << 20))


@given(st.binary(min_size=1, max_size=2000))
def test_noise_is_no_archive(data: bytes) -> None:
    with pytest.raises(ArchiveDamaged):
        walked(b"x" + data)


@given(st.binary(max_size=600))
def test_a_pax_header_of_noise(records: bytes) -> None:
    whole = header(b"x", len(records)) + records + bytes(-len(records) % 512) + header(b"0", 0) + bytes(1024)
    try:
        walked(whole)
    except ArchiveDamaged:
        return


def test_pythons_reader_agrees() -> None:
    data = container()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert walked(data).finish().count == len(tar.getmembers())
