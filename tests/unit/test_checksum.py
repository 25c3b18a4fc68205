"""CRC-32s of grains, and of wholes from those of their pieces."""

from __future__ import annotations

import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.store import checksum
from s3fsx.store.checksum import crc32_combine, crc32_of_grains, crc32_of_parts, crc_at, grain_count, grain_crcs
from s3fsx.store.objects import MAX_PART, MAX_PARTS

MIB = 1 << 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum, "GRAIN", 100)


@given(st.lists(st.binary(max_size=350), max_size=8))
def test_grains_do_not_depend_on_how_the_bytes_are_cut(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    grains = grain_crcs([memoryview(chunk) for chunk in chunks])
    assert len(grains) == 4 * grain_count(len(whole))
    expected = [zlib.crc32(whole[at : at + 100]) for at in range(0, len(whole), 100)]
    assert [crc_at(grains, i) for i in range(len(expected))] == expected
    assert crc32_of_grains(grains, len(whole)) == zlib.crc32(whole)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_crc_of_two(a: bytes, b: bytes) -> None:
    assert crc32_combine(zlib.crc32(a), zlib.crc32(b), len(b)) == zlib.crc32(a + b)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_crc_of_many(chunks: list[bytes]) -> None:
    assert crc32_of_parts((zlib.crc32(c), len(c)) for c in chunks) == zlib.crc32(b"".join(chunks))


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, MAX_PART), st.integers(0, MAX_PART))
def test_crc_of_large_parts_is_associative(a: int, b: int, first: int, second: int) -> None:
    zeros = crc32_combine(0, b, first)
    left = crc32_combine(crc32_combine(a, b, first), b, second)
    right = crc32_combine(a, crc32_combine(b, b, second), first + second)
    assert left == right
    assert zeros == b


def test_crc_over_64_mib() -> None:
    a, b = b"\x55" * 1000, bytes(64 * MIB)
    assert crc32_combine(zlib.crc32(a), zlib.crc32(b), len(b)) == zlib.crc32(b, zlib.crc32(a))


def test_crc_of_ten_thousand_parts_is_quick_enough_for_the_event_loop() -> None:
    parts = [(n * 2654435761 & 0xFFFFFFFF, (8 if n < 5000 else 64) * MIB) for n in range(MAX_PARTS)]
    begun = time.process_time()
    crc32_of_parts(parts)
    assert time.process_time() - begun < 1.0  # measured: 0.05 s
