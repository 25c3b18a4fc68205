from __future__ import annotations

import bz2
import gzip
import io
import tarfile

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s3fsx.fs.tempnames import HEAD_BYTES, is_temporary, needs_head, predict
from s3fsx.layout import check_name

VM = "vzdump-qemu-100-2026_11_20-13_15_26"
CT = "vzdump-lxc-101-2026_11_20-13_15_26"
ZSTD = b"\x28\xb5\x2f\xfd\x04\x58"
LZOP = b"\x89LZO\x00\r\n\x1a\n"
VMA = b"VMA\0\0\0\0\1"


def tar_head(name: str, form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()[:HEAD_BYTES]


@pytest.mark.parametrize(
    ("name", "head", "final"),
    [
        (f"{VM}.vma.dat", ZSTD, f"{VM}.vma.zst"),
        (f"{VM}.vma.dat", b"\x5a\x2a\x4d\x18\0\0", f"{VM}.vma.zst"),
        (f"{VM}.vma.dat", gzip.compress(b"x"), f"{VM}.vma.gz"),
        (f"{VM}.vma.dat", LZOP, f"{VM}.vma.lzo"),
        (f"{VM}.vma.dat", bz2.compress(b"x"), f"{VM}.vma.bz2"),
        (f"{CT}.tar.dat", ZSTD, f"{CT}.tar.zst"),
        (f"{CT}.tar.dat", gzip.compress(b"x"), f"{CT}.tar.gz"),
        (f"{CT}.tar.dat", LZOP, f"{CT}.tar.lzo"),
        (f"{VM}.dat", VMA, f"{VM}.vma"),
        (f"{CT}.dat", tar_head("./etc/vzdump/pct.conf", tarfile.GNU_FORMAT), f"{CT}.tar"),
        (f"{CT}.dat", tar_head("./" + "d" * 200, tarfile.GNU_FORMAT), f"{CT}.tar"),
        (f"{CT}.dat", tar_head("./" + "d" * 200, tarfile.PAX_FORMAT), f"{CT}.tar"),
        ("debian-13.iso.tmp_dwnl.4711", b"", "debian-13.iso"),
        ("debian-13.iso.tmp_dcom.4711", b"anything", "debian-13.iso"),
        ("alpine.tar.tmp.4711", b"", "alpine.tar"),
        (f"{VM}.vma.zst.notes.tmp.4711", b"", f"{VM}.vma.zst.notes"),
        ("x.tmp", b"", "x"),
        ("x.tmp.a8Kd93", b"", "x"),
        ("x.tmp-4711", b"", "x"),
        ("x.tmp.tmp.1", b"", "x.tmp"),
    ],
)
def test_predicted(name: str, head: bytes, final: str) -> None:
    assert is_temporary(name)
    assert predict(name, head) == final


@pytest.mark.parametrize(
    ("name", "head", "final"),
    [
        (f"{VM}.vma.dat", b"", f"{VM}.vma.zst"),
        (f"{VM}.vma.dat", ZSTD[:3], f"{VM}.vma.zst"),
        (f"{VM}.vma.dat", VMA, f"{VM}.vma.zst"),
        (f"{CT}.tar.dat", b"\x4f\x2a\x4d\x18", f"{CT}.tar.zst"),
        ("X.vma.dat", bytes(512), "X.vma.zst"),
        (f"{VM}.dat", ZSTD, f"{VM}.vma"),
        (f"{VM}.dat", b"VMA", f"{VM}.vma"),
        (f"{CT}.dat", bytes(512), f"{CT}.tar"),
        (f"{CT}.dat", tar_head("a", tarfile.GNU_FORMAT)[:261], f"{CT}.tar"),
    ],
)
def test_guessed_where_the_bytes_say_nothing(name: str, head: bytes, final: str) -> None:
    assert needs_head(name)
    assert predict(name, head) == final


def test_temporary_but_not_predictable() -> None:
    assert is_temporary("vzdump-x.dat")
    assert predict("vzdump-x.dat", bytes(512)) is None


@pytest.mark.parametrize(
    "name",
    [
        f"{VM}.vma.zst",
        f"{VM}.vma",
        f"{VM}.log",
        f"{VM}.vma.zst.notes",
        f"{VM}.vma.zst.protected",
        "data.dat",
        "vm-100-disk-0.qcow2",
        "disk.tmp.qcow2",
        "notes.tmp.md",
        "x.tmpl",
        "x.tmp.",
        "xtmp",
        ".tmp",
        ".tmp.12",
        "..tmp",
        "...tmp",
        "",
    ],
)
@pytest.mark.parametrize("head", [b"", ZSTD, VMA])
def test_ordinary(name: str, head: bytes) -> None:
    assert not is_temporary(name)
    assert predict(name, head) is None


def test_only_vzdump_names_need_the_head() -> None:
    assert needs_head(f"{VM}.vma.dat")
    assert not needs_head("debian.iso.tmp_dwnl.1")
    assert not needs_head("data.dat")


@given(
    st.text(st.sampled_from("ab.-_ü"), min_size=1, max_size=30),
    st.sampled_from([".tmp", ".tmp_dwnl.1", ".tmp_dcom.99", ".tmp.123456", ".tmp-abc"]),
    st.binary(max_size=8),
)
def test_a_download_name_gives_back_its_stem(stem: str, tail: str, head: bytes) -> None:
    assume(stem not in (".", ".."))
    assert predict(stem + tail, head) == stem


@given(
    st.one_of(
        st.text(max_size=60),
        st.text(st.sampled_from(".tmpda-_1vzu"), max_size=20).map(lambda s: "vzdump-" + s + ".dat"),
        st.text(st.sampled_from(".tmp1_-"), max_size=20),
    ),
    st.one_of(st.binary(max_size=600), st.sampled_from([ZSTD, LZOP, VMA, b"\x1f\x8b\x08"])),
)
def test_a_prediction_is_always_a_usable_other_name(name: str, head: bytes) -> None:
    assume("/" not in name and "\0" not in name and not any("\ud800" <= c <= "\udfff" for c in name))
    final = predict(name, head)
    if final is not None:
        assert is_temporary(name)
        assert final != name
        assert len(final) <= len(name)
        if len(name.encode()) <= 255:
            check_name(final)
