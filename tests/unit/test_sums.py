"""Checksums of an object: as bytes and back, whatever comes, and what they say about a range."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.errors import Corrupted
from s3fsx.store import checksum, sums
from s3fsx.store.checksum import grain_crcs
from s3fsx.store.objects import MAX_OBJECT, MAX_PARTS, ObjectInfo
from s3fsx.store.sums import LIMIT, PartSums, Sums, decode, name, needed

GRAIN = 16  # of these tests
ETAG = "d41d8cd98f00b204e9800998ecf8427e-2"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (checksum, sums):
        monkeypatch.setattr(module, "GRAIN", GRAIN)


def body(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def made(sizes: list[int], unknown: set[int]) -> tuple[bytes, Sums]:
    """An object of parts of these sizes; of some the checksums are not known."""
    data, at, parts = body(sum(sizes)), 0, []
    for i, size in enumerate(sizes):
        grains = b"" if i in unknown else grain_crcs([data[at : at + size]])
        parts.append(PartSums(size, grains))
        at += size
    return data, Sums("dump/a", ETAG, parts)


objects = st.builds(made, st.lists(st.integers(1, 100), min_size=1, max_size=8), st.sets(st.integers(0, 8), max_size=3))


@given(st.text(max_size=50), st.from_regex(r"\A[0-9A-Za-z-]{1,64}\Z"), objects)
def test_there_and_back(key: str, etag: str, given_object: tuple[bytes, Sums]) -> None:
    before = given_object[1].moved(key, etag)
    after = decode(before.encode())
    assert (after.key, after.etag, after.size, after.parts) == (key, etag, before.size, before.parts)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_sums(data: bytes) -> None:
    with pytest.raises(Corrupted):
        decode(data)


def sealed(data: bytes) -> bytes:
    """With the checksum that belongs to it: what a bug or an attacker would make."""
    return data + struct.pack(">I", zlib.crc32(data))


@given(objects, st.data())
def test_bytes_that_nearly_are_sums_are_refused_or_consistent(
    given_object: tuple[bytes, Sums], data: st.DataObject
) -> None:
    body = bytearray(given_object[1].encode()[:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        what = data.draw(st.sampled_from(["change", "cut", "add"]))
        if what == "change" and body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
        elif what == "cut":
            del body[data.draw(st.integers(0, len(body))) :]
        else:
            body += data.draw(st.binary(max_size=20))
    try:
        found = decode(sealed(bytes(body)))
    except Corrupted:
        return
    assert found.encode() == sealed(bytes(body))
    assert found.cover(0, found.size) == (0, found.size)


@given(objects, st.data())
def test_one_flipped_bit_is_noticed(given_object: tuple[bytes, Sums], data: st.DataObject) -> None:
    stored = bytearray(given_object[1].encode())
    bit = data.draw(st.integers(0, 8 * len(stored) - 1))
    stored[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Corrupted):
        decode(bytes(stored))


def head(key: int, etag: int, size: int, grain: int, parts: int) -> bytes:
    return struct.pack(">8sIIQII", b"S3FSXS01", key, etag, size, grain, parts)


@pytest.mark.parametrize(
    "hostile",
    [
        head(0xFFFFFFFF, 0xFFFFFFFF, 1, GRAIN, 1),
        head(0, 0, 1 << 63, GRAIN, 1) + struct.pack(">QI", 1 << 62, 0),
        head(0, 0, MAX_OBJECT, GRAIN, 1) + struct.pack(">Q", MAX_OBJECT),  # 5 TiB of grains announced, none there
        head(0, 0, 0, GRAIN, 0),
        head(0, 0, 1, 0, 1) + struct.pack(">QI", 1, 0),
        head(0, 0, 1, GRAIN, MAX_PARTS + 1) + bytes(8 * MAX_PARTS + 8),
        head(0, 0, 2, GRAIN, 2) + struct.pack(">QQI", 2, 0, 0),
        head(0, 2, 1, GRAIN, 1) + b"\xff\xff" + struct.pack(">QI", 1, 0),
    ],
)
def test_lengths_are_believed_in_nothing(hostile: bytes) -> None:
    with pytest.raises(Corrupted):
        decode(sealed(hostile))


def test_an_endless_document_is_not_looked_at() -> None:
    with pytest.raises(Corrupted, match="cannot be right"):
        decode(bytes(LIMIT + 1))


def test_the_largest_object_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (checksum, sums):
        monkeypatch.setattr(module, "GRAIN", 1 << 20)
    each = MAX_OBJECT // MAX_PARTS
    grains = bytes(4 * checksum.grain_count(each))
    largest = Sums("k" * 1024, ETAG, [PartSums(each, grains)] * MAX_PARTS)
    encoded = largest.encode()
    assert 21_000_000 < len(encoded) <= LIMIT
    assert decode(encoded).size == each * MAX_PARTS


def grains_of_parts(parts: Sums) -> list[tuple[int, int, bool]]:
    """(start, end, known) of every grain, the long way."""
    found, at = [], 0
    for part in parts.parts:
        found += [(at + i, at + min(i + GRAIN, part.size), bool(part.grains)) for i in range(0, part.size, GRAIN)]
        at += part.size
    return found


@given(objects, st.data())
def test_a_range_is_widened_to_whole_grains_and_not_more(given_object: tuple[bytes, Sums], data: st.DataObject) -> None:
    whole, known = given_object
    start = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(start + 1, len(whole)))
    touched = [grain for grain in grains_of_parts(known) if grain[0] < end and grain[1] > start]
    first = touched[0][0] if touched[0][2] else start
    last = touched[-1][1] if touched[-1][2] else end
    assert known.cover(start, end) == (first, last)
    found = known.check(first, whole[first:last])
    assert found.wrong is None
    assert found.verified == sum(min(e, last) - max(s, first) for s, e, sure in touched if sure)


@given(objects, st.data())
def test_every_bit_of_a_known_grain_counts(given_object: tuple[bytes, Sums], data: st.DataObject) -> None:
    whole, known = given_object
    start = data.draw(st.integers(0, len(whole) - 1))
    first, last = known.cover(start, data.draw(st.integers(start + 1, len(whole))))
    at = data.draw(st.integers(first, last - 1))
    broken = bytearray(whole[first:last])
    broken[at - first] ^= 1 << data.draw(st.integers(0, 7))
    begin, _, sure = next(grain for grain in grains_of_parts(known) if grain[0] <= at < grain[1])
    assert known.check(first, bytes(broken)).wrong == (begin if sure else None)


@given(objects, st.data())
def test_grains_of_a_part_that_is_copied(given_object: tuple[bytes, Sums], data: st.DataObject) -> None:
    whole, known = given_object
    start = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(1, len(whole) - start))
    expected = grain_crcs([whole[start : start + length]])
    found = known.grains_of(start, length)
    assert found in (b"", expected)
    grains = grains_of_parts(known)
    inside = [g for g in grains if g[0] < start + length and g[1] > start]
    regular = [(start + i, min(start + i + GRAIN, start + length), True) for i in range(0, length, GRAIN)]
    assert (found != b"") == (inside == regular)
    assert known.grains_of(start, len(whole) - start + 1) == b""


def test_names() -> None:
    assert name("dump/a", ETAG) != name("dump/b", ETAG)
    short = name("dump/\udcff" + "é" * 500, ETAG)
    assert short is not None
    assert short.endswith("-" + ETAG)
    assert len(short) == 32 + 1 + len(ETAG)
    for etag in ("", "../x", "a/b", "a" * 65, "é"):
        assert name("dump/a", etag) is None


def test_which_objects_need_sums() -> None:
    md5 = "0" * 32

    def info(size: int, etag: str) -> ObjectInfo:
        return ObjectInfo("k", size, etag, 0.0)

    assert not needed(info(8 << 20, md5))
    assert not needed(info(0, "x-1"))
    assert needed(info((8 << 20) + 1, md5))
    assert needed(info(1, md5 + "-1"))
    assert needed(info(1, "A" * 32))
