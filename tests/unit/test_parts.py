from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.configuration.settings import Settings
from s3fsx.errors import ConfigError, TooLarge
from s3fsx.service.mount import schedule as schedule_of
from s3fsx.store.objects import MAX_OBJECT, MAX_PART, MAX_PARTS, MIN_PART, UploadedPart
from s3fsx.store.parts import PartSchedule, compare_parts, composite_etag, copy_ranges, sent_again

MIB = 1 << 20
sizes = st.integers(MIN_PART, MAX_PART)


def test_eight_mib_reach_five_tib() -> None:
    schedule = PartSchedule(8 * MIB, MAX_PART)
    total = sum(schedule.size(n) for n in range(1, MAX_PARTS + 1))
    assert total == 721_000 * 8 * MIB
    assert total >= MAX_OBJECT == schedule.capacity()


def test_growth_steps() -> None:
    schedule = PartSchedule(8 * MIB, MAX_PART)
    steps = {1: 1, 1000: 1, 1001: 2, 3000: 2, 3001: 4, 5000: 4, 5001: 8, 5501: 16, 6001: 32, 6251: 64, 6500: 64}
    assert {n: schedule.size(n) // (8 * MIB) for n in steps} == steps
    assert schedule.size(6501) == schedule.size(10_000) == 192 * 8 * MIB


@given(sizes, sizes, st.booleans(), st.one_of(st.just(MAX_PARTS), st.integers(1, MAX_PARTS)))
def test_sizes_never_shrink_and_stay_within_the_limits(one: int, other: int, uniform: bool, count: int) -> None:
    first, largest = sorted((one, other))
    schedule = PartSchedule(first, largest, uniform, count)
    seen = [schedule.size(n) for n in range(1, count + 1)]
    assert seen == sorted(seen)
    assert seen[0] == first or count < 10  # the first step has a tenth of the numbers
    assert seen[-1] <= largest
    assert schedule.capacity() == min(MAX_OBJECT, sum(seen))
    if uniform:
        assert set(seen) == {first}


def test_a_store_of_a_thousand_parts() -> None:
    """Scaleway: a tenth of the numbers, at the same places; one more is refused here and not by the store."""
    few, many = PartSchedule(64 * MIB, 256 * MIB, count=1000), PartSchedule(64 * MIB, 256 * MIB)
    assert [few.size(n) for n in range(1, 1001)] == [many.size(10 * n) for n in range(1, 1001)]
    assert few.capacity() == many.capacity() // 10 == 211_200 * MIB  # 206 GiB
    assert PartSchedule(64 * MIB, 64 * MIB, uniform=True, count=1000).capacity() == 64_000 * MIB
    with pytest.raises(TooLarge, match="parts 1 to 1000"):
        few.size(1001)
    with pytest.raises(ConfigError):
        PartSchedule(8 * MIB, 8 * MIB, count=MAX_PARTS + 1)


def test_a_generous_budget_does_not_exceed_what_s3_takes() -> None:
    assert PartSchedule(1 << 30, 64 << 30).size(MAX_PARTS) == MAX_PART


@pytest.mark.parametrize("number", [0, -1, MAX_PARTS + 1])
@pytest.mark.parametrize("uniform", [False, True])
def test_there_is_no_such_part(number: int, uniform: bool) -> None:
    with pytest.raises(TooLarge):
        PartSchedule(8 * MIB, 64 * MIB, uniform).size(number)


@pytest.mark.parametrize(("first", "largest"), [(MIN_PART - 1, MAX_PART), (MAX_PART + 1, 2 * MAX_PART), (8, 7)])
def test_contradictions_are_refused(first: int, largest: int) -> None:
    with pytest.raises(ConfigError):
        PartSchedule(first, largest)
    with pytest.raises(ConfigError):
        PartSchedule(16 * MIB, 8 * MIB)


@given(st.integers(0, MAX_OBJECT))
def test_uniform_parts_for_a_capacity(capacity: int) -> None:
    schedule = PartSchedule.uniform_for(capacity, MAX_PART)
    assert schedule.uniform
    assert schedule.capacity() >= capacity
    assert schedule.first == MIN_PART or (schedule.first - MIB) * MAX_PARTS < capacity


@pytest.mark.parametrize(("capacity", "largest"), [(MAX_OBJECT + 1, MAX_PART), (100 << 30, 10 * MIB), (1, MIB)])
def test_uniform_parts_that_cannot_be(capacity: int, largest: int) -> None:
    with pytest.raises(TooLarge):
        PartSchedule.uniform_for(capacity, largest)


def check_ranges(start: int, length: int, piece: int) -> None:
    ranges = copy_ranges(start, length, piece)
    position = start
    for at, size in ranges:
        assert at == position
        position += size
    assert position == start + length
    assert len(ranges) <= MAX_PARTS
    assert all(size <= MAX_PART for _, size in ranges)
    if length >= MIN_PART:
        assert all(size >= MIN_PART for _, size in ranges)
    else:
        assert len(ranges) == (length > 0)
    assert len({size for _, size in ranges[:-1]}) <= 1
    assert all(size % MIB == 0 for _, size in ranges[:-1])
    assert all(size <= ranges[0][1] for _, size in ranges)
    wanted = max(min(max(piece, MIN_PART), MAX_PART), -(-length // MAX_PARTS))
    # Only small pieces, of which few sizes leave a last one that is large enough, become much larger than wanted.
    assert all(size < max(2 * wanted, wanted + 32 * MIB) for _, size in ranges)


@given(st.integers(0, 1 << 40), st.one_of(st.integers(0, 1 << 26), st.integers(0, MAX_OBJECT)), st.integers(0, 1 << 34))
def test_copy_ranges_cover_exactly_within_the_limits(start: int, length: int, piece: int) -> None:
    check_ranges(start, length, piece)


@given(st.integers(1, 20_000), st.integers(-3, 3), sizes)
def test_copy_ranges_near_multiples(count: int, off: int, piece: int) -> None:
    check_ranges(0, min(max(0, count * piece + off), MAX_OBJECT), piece)


@pytest.mark.parametrize(
    "length", [1, MIN_PART - 1, MIN_PART, MIN_PART + 1, 2 * MIN_PART - 1, MIN_PART * MAX_PARTS - 1]
)
def test_copy_ranges_at_the_smallest_piece(length: int) -> None:
    check_ranges(7, length, MIN_PART)


def test_copy_of_more_than_an_object() -> None:
    with pytest.raises(TooLarge):
        copy_ranges(0, MAX_OBJECT + 1, MAX_PART)


def test_composite_etag() -> None:
    parts = [b"a" * 10, b"b" * 5]
    digests = [hashlib.md5(p).digest() for p in parts]
    expected = hashlib.md5(b"".join(digests)).hexdigest() + "-2"
    assert composite_etag(d.hex() for d in digests) == expected
    # AWS's answer for one part that is empty: MD5 of the MD5 of nothing.
    assert composite_etag(["d41d8cd98f00b204e9800998ecf8427e"]) == "59adb24ef3cdbe0297f05b395827453f-1"


@pytest.mark.parametrize("etag", ["", "abc", "g" * 32, "0" * 31, "0" * 33, "0" * 32 + "-1", "٠" * 32, "0" * 32 + "\n"])
def test_composite_etag_unknown(etag: str) -> None:
    assert composite_etag(["0" * 32, etag]) is None
    assert composite_etag([]) is None


def part(number: int, size: int = 8, etag: str = "e") -> UploadedPart:
    return UploadedPart(number, size, etag, crc32=1)


def test_parts_that_match_in_any_order() -> None:
    ours = [part(2), part(1), part(3)]
    assert compare_parts(ours, [replace(p, crc32=None) for p in reversed(ours)]) is None
    assert compare_parts([], []) is None


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        ([part(1)], "2 parts were sent, 1 are stored"),
        ([part(1), part(2), part(3)], "2 parts were sent, 3 are stored"),
        ([part(1), part(3)], "part 2 was sent but is not stored"),
        ([part(0), part(1), part(2)], "part 0 was stored but not sent"),
        ([part(1), part(2, size=7)], "part 2: 8 bytes were sent, 7 are stored"),
        ([part(1, etag="f"), part(2)], "part 1: its ETag was 'e' when sent, 'f' is stored"),
        ([part(1), part(1)], "part 1 was stored but not sent"),
    ],
)
def test_parts_that_differ(theirs: list[UploadedPart], says: str) -> None:
    assert compare_parts([part(1), part(2)], theirs) == says


OLD, FULLER = UploadedPart(2, 5, "e2", 7), UploadedPart(2, 9, "e3")
FIRST = UploadedPart(1, 8, "e1", 1)
ANNOUNCED = UploadedPart(2, 9, "", 77, b"grains")


def test_a_part_that_was_sent_again_is_the_announced_one() -> None:
    def again(theirs: tuple[UploadedPart, ...], announced: UploadedPart | None = ANNOUNCED) -> UploadedPart | None:
        return sent_again((FIRST, OLD), theirs, announced)

    assert again((FIRST, FULLER)) == replace(ANNOUNCED, etag="e3")
    assert again((FIRST, replace(FULLER, crc32=77))) == replace(ANNOUNCED, etag="e3")
    assert again((FIRST, replace(FULLER, crc32=78))) is None
    assert again((FIRST, replace(FULLER, size=10))) is None
    assert again((FIRST, replace(FULLER, number=3))) is None
    assert again((replace(FIRST, etag="x"), FULLER)) is None
    assert again((FIRST,)) is None
    assert again(()) is None
    assert again((FIRST, FULLER), None) is None
    assert sent_again((OLD,), (), ANNOUNCED) is None


def test_the_sizes_in_the_manual_are_those_of_the_schedule() -> None:
    text = (Path(__file__).parents[2] / "docs" / "TRANSFERS.md").read_text()
    unit = {"MiB": 1 << 20, "GiB": 1 << 30}
    rows = re.findall(r"^\| (\d+) (MiB|GiB) \| ([\d.]+) (MiB|GiB) \| (\d+) GiB \|$", text, re.MULTILINE)
    assert len(rows) == 7
    for budget, budget_unit, part, part_unit, largest in rows:
        cut = schedule_of(Settings(memory_budget=int(budget) * unit[budget_unit]))
        assert cut.size(MAX_PARTS) == float(part) * unit[part_unit]
        assert cut.capacity() >> 30 == int(largest)
    steps = re.findall(r"^\| ([\d ]+) to ([\d ]+) \| ([\d.]+) (MiB|GiB) \|", text, re.MULTILINE)
    growing = PartSchedule(8 << 20, MAX_PART)
    for first, last, size, size_unit in steps:
        assert growing.size(int(first.replace(" ", ""))) == float(size) * unit[size_unit]
        assert growing.size(int(last.replace(" ", ""))) == float(size) * unit[size_unit]
    assert int(steps[-1][1].replace(" ", "")) == MAX_PARTS
