from __future__ import annotations

import random
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.browse.vma import VmaWalk, header_size, parse_header
from s3fsx.errors import ArchiveDamaged
from tests.browse.archives import CLUSTER, QEMU_CONF, UUID, VmaWriter, disk, extent, sealed, vma

SMALL = VmaWriter({"drive-scsi0": disk(5 * CLUSTER), "drive-scsi1": disk(CLUSTER + 4096, 2)})


def walked(data: bytes, step: int = 1 << 16) -> VmaWalk:
    walk = VmaWalk()
    for at in range(0, len(data), step):
        walk.feed(memoryview(data)[at : at + step])
    walk.finish()
    return walk


def test_a_whole_archive() -> None:
    walk = walked(vma())
    assert walk.files == (("qemu-server.conf", QEMU_CONF),)
    summary = walk.finish()
    assert (summary.count, summary.size) == (2, (1 << 20) + 131072)
    assert summary.what == "disks: drive-scsi0, drive-efidisk0"


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=20))
def test_however_the_bytes_come(steps: list[int]) -> None:
    data, walk, at = SMALL.archive(), VmaWalk(), 0
    while at < len(data):
        step = steps.pop(0) if steps else len(data)
        walk.feed(data[at : at + step])
        at += step
    assert walk.finish().size == 6 * CLUSTER + 4096


def test_the_order_of_clusters_is_free_but_each_comes_once() -> None:
    clusters = SMALL.clusters()
    random.Random(3).shuffle(clusters)
    walked(SMALL.archive(clusters))
    with pytest.raises(ArchiveDamaged, match=r"a second time"):
        walked(SMALL.archive([*clusters, clusters[0]]))
    with pytest.raises(ArchiveDamaged, match=r"1 clusters of drive-scsi. are missing"):
        walked(SMALL.archive(clusters[1:]))


def test_the_state_of_a_machine_comes_in_order() -> None:
    writer = VmaWriter({"drive-scsi0": disk(CLUSTER), "vmstate": disk(3 * CLUSTER)})
    clusters = writer.clusters()
    walked(writer.archive(clusters[1:] + clusters[:1]))
    with pytest.raises(ArchiveDamaged, match="out of order"):
        walked(writer.archive(clusters[::-1]))


@pytest.mark.parametrize("cut", [0, 10, 59, 60, 12287, 12288, 12800, -1, -4096, -65536])
def test_cut_short(cut: int) -> None:
    data = SMALL.archive()
    with pytest.raises(ArchiveDamaged, match=r"cut short|too short|are missing"):
        walked(data[:cut])


@pytest.mark.parametrize("byte", [5, 8, 24, 40, 50, 2044, 3068, 4128, 12300, 12800, 12900 - 512])
def test_every_bit_of_a_header_counts(byte: int) -> None:
    data = bytearray(SMALL.archive())
    data[byte] ^= 4
    with pytest.raises(ArchiveDamaged):
        walked(bytes(data))


@pytest.mark.parametrize("field", range(0, 512, 7))
def test_every_byte_of_an_extents_header_counts(field: int) -> None:
    data = bytearray(SMALL.archive())
    data[len(SMALL.header()) + field] ^= 1
    with pytest.raises(ArchiveDamaged, match="extent 0"):
        walked(bytes(data))


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"header size": 0xFFFFFFFF}, "a header of 4294967295 bytes"),
        ({"header size": 12288}, "a header of 12288 bytes"),
        ({"version": 2}, "version 2"),
        ({"blob offset": 0}, "outside"),
        ({"blob size": 0xFFFFFFFF}, "outside"),
        ({"size drive-scsi0": 1 << 63}, "more than 64 TiB"),
    ],
)
def test_a_hostile_header(told: dict[str, int], why: str) -> None:
    data = VmaWriter(SMALL.disks, told=told).archive()
    with pytest.raises(ArchiveDamaged, match=why):
        walked(data)


@pytest.mark.parametrize("pointer", [1 << 31, 0xFFFF])
def test_pointers_out_of_the_header(pointer: int) -> None:
    head = bytearray(SMALL.header())
    struct.pack_into(">I", head, 2044, pointer)
    with pytest.raises(ArchiveDamaged, match=r"leads out of|does not end"):
        parse_header(sealed(bytes(head), 32))


def test_a_foreign_extent_and_wrong_counts() -> None:
    head, clusters = SMALL.header(), SMALL.clusters()
    with pytest.raises(ArchiveDamaged, match="of another archive"):
        walked(head + extent(clusters, uuid=UUID[::-1]))
    with pytest.raises(ArchiveDamaged, match="blocks, of which its list has"):
        walked(head + extent(clusters, blocks=1))
    with pytest.raises(ArchiveDamaged, match="device 9, which is not there"):
        walked(head + extent([(9, 0, bytes(CLUSTER))]))
    with pytest.raises(ArchiveDamaged, match="beyond the end"):
        walked(head + extent([(1, 77, bytes(CLUSTER))]))


def test_memory_is_bounded() -> None:
    """Neither a header that claims 4 GiB nor the data of an archive is kept."""
    data = vma(8 << 20)
    tracemalloc.start()
    try:
        walked(data)
        hostile = VmaWalk()
        with pytest.raises(ArchiveDamaged):
            hostile.feed(VmaWriter(SMALL.disks, told={"header size": 0xFFFFFFFF}).header())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@given(st.binary(max_size=300))
def test_noise_is_no_archive(data: bytes) -> None:
    with pytest.raises(ArchiveDamaged):
        walked(data)
    with pytest.raises(ArchiveDamaged):
        walked(SMALL.header() + data + b"x")


def test_the_size_of_the_header() -> None:
    head = SMALL.header()
    assert header_size(head[:60]) == len(head)
    with pytest.raises(ArchiveDamaged, match="not a VMA"):
        header_size(bytes(60))
