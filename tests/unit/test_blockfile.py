"""The file of one version: what comes back is what was stored, or nothing, whatever happened to it on the disk."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from s3fsx.local.blockfile import BlockFile, Damaged
from s3fsx.local.blockformat import RECORD_SIZE, UNIT, Identity, record_at, slot_at
from s3fsx.store.checksum import GRAIN

MIB = 1 << 20
SIZE = 3 * GRAIN + 5 * UNIT + 77
DATA = random.Random(7).randbytes(SIZE)
WHO = Identity("pve/template/iso/a.iso", "0123-4", SIZE)


def grain(index: int) -> memoryview:
    return memoryview(DATA)[index * GRAIN : (index + 1) * GRAIN]


def made(directory: Path, *grains: int) -> BlockFile:
    file = BlockFile(str(directory), WHO)
    assert file.load()
    for index in grains:
        file.store(index, grain(index))
    return file


def loaded(directory: Path, identity: Identity = WHO) -> BlockFile:
    file = BlockFile(str(directory), identity)
    file.load()
    return file


def read(file: BlockFile, start: int, end: int) -> bytes | None:
    spans = file.find(start, end)
    return None if spans is None else bytes(file.read(spans))


@settings(max_examples=30)
@given(bounds=st.lists(st.integers(0, SIZE), min_size=2, max_size=2, unique=True))
def test_any_range_is_read_back(tmp_path_factory: pytest.TempPathFactory, bounds: list[int]) -> None:
    start, end = sorted(bounds)
    directory = tmp_path_factory.mktemp("blocks")
    file = made(directory, 2, 0, 3, 1)
    assert read(file, start, end) == DATA[start:end]
    again = loaded(directory)
    assert read(again, start, end) == DATA[start:end]


def test_what_was_not_stored_is_not_there(tmp_path: Path) -> None:
    file = made(tmp_path)
    assert read(file, 0, 1) is None
    assert list(tmp_path.iterdir()) == []  # nothing is made before there is something to store
    file.store(1, grain(1))
    assert read(file, 0, 1) is None
    assert read(file, 2 * GRAIN - 1, 2 * GRAIN + 1) is None
    assert read(file, GRAIN, 2 * GRAIN) == DATA[GRAIN : 2 * GRAIN]
    assert file.store(1, grain(1)) == 0


def test_it_is_private_and_takes_no_more_than_it_says(tmp_path: Path) -> None:
    file = BlockFile(str(tmp_path), WHO)
    file.load()
    told = sum(file.store(index, grain(index)) for index in (3, 1))
    status = os.stat(file.path)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert 0 < status.st_blocks * 512 <= told


def test_a_small_object_takes_a_few_pages(tmp_path: Path) -> None:
    file = BlockFile(str(tmp_path), Identity("pve/snippets/a", "ab", 10))
    assert file.store(0, memoryview(b"0123456789")) <= 4 * 4096
    assert read(file, 2, 10) == b"23456789"


def test_grains_that_are_whole(tmp_path: Path) -> None:
    file = made(tmp_path)
    assert list(file.grains_in(0, SIZE)) == [0, 1, 2, 3]
    assert list(file.grains_in(1, GRAIN)) == []
    assert list(file.grains_in(GRAIN - 1, GRAIN + 1)) == [1]
    assert list(file.grains_in(3 * GRAIN, SIZE - 3 * GRAIN)) == [3]
    assert list(file.grains_in(3 * GRAIN, SIZE - 3 * GRAIN - 1)) == []


@settings(max_examples=50)
@given(at=st.integers(0, slot_at(4, SIZE) - 1), flip=st.integers(1, 255), length=st.integers(1, 20000))
def test_a_changed_byte_is_a_miss_wherever_it_is(
    tmp_path_factory: pytest.TempPathFactory, at: int, flip: int, length: int
) -> None:
    directory = tmp_path_factory.mktemp("blocks")
    file = made(directory, 0, 1, 2, 3)
    with open(file.path, "r+b") as raw:
        raw.seek(at)
        old = raw.read(length)
        raw.seek(at)
        raw.write(bytes(b ^ flip for b in old))
    for again in (file, loaded(directory)):
        for start in range(0, SIZE, 3 * UNIT):
            end = min(start + 4 * UNIT, SIZE)
            try:
                found = read(again, start, end)
            except Damaged:
                continue
            assert found in (None, DATA[start:end])


@settings(max_examples=30)
@given(length=st.integers(0, slot_at(4, SIZE)))
def test_a_file_that_was_cut_anywhere_can_be_used_on(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    directory = tmp_path_factory.mktemp("blocks")
    path = made(directory, 0, 1, 2, 3).path
    os.truncate(path, length)
    file = loaded(directory)
    for index in range(4):
        end = min((index + 1) * GRAIN, SIZE)
        try:
            found = read(file, index * GRAIN, end)
        except Damaged as damaged:
            file.forget(damaged.grain)
            found = None
        assert found in (None, DATA[index * GRAIN : end])
        file.store(index, grain(index))
        assert read(file, index * GRAIN, end) == DATA[index * GRAIN : end]
    for again in (file, loaded(directory)):
        assert read(again, 0, SIZE) == DATA


def test_a_record_without_its_data_is_noticed_and_its_slot_used_again(tmp_path: Path) -> None:
    """A power cut: the page with the records reached the disk, the data did not."""
    path = made(tmp_path, 0, 1).path
    with open(path, "r+b") as raw:
        raw.seek(slot_at(1, SIZE))
        raw.write(bytes(GRAIN))
    file = loaded(tmp_path)
    assert read(file, 0, 10) == DATA[:10]
    with pytest.raises(Damaged) as damaged:
        read(file, GRAIN, GRAIN + 10)
    file.forget(damaged.value.grain)
    assert read(file, GRAIN, GRAIN + 10) is None
    size = os.path.getsize(path)
    assert file.store(1, grain(1)) == 0
    assert os.path.getsize(path) == size
    assert read(loaded(tmp_path), 0, 2 * GRAIN) == DATA[: 2 * GRAIN]


def test_data_without_its_record_is_not_there(tmp_path: Path) -> None:
    path = made(tmp_path, 0, 1).path
    with open(path, "r+b") as raw:
        raw.seek(record_at(1))
        raw.write(bytes(RECORD_SIZE))
    file = loaded(tmp_path)
    assert read(file, GRAIN, GRAIN + 10) is None
    assert read(file, 0, GRAIN) == DATA[:GRAIN]


@pytest.mark.parametrize("content", [b"", b"S3FSXB01", os.urandom(5000), bytes(3 * MIB)], ids=range(4))
def test_what_is_no_file_of_ours_is_removed(tmp_path: Path, content: bytes) -> None:
    file = BlockFile(str(tmp_path), WHO)
    Path(file.path).write_bytes(content)
    assert not file.load()
    assert not os.path.exists(file.path)
    file.store(0, grain(0))
    assert read(file, 0, 100) == DATA[:100]


def test_the_file_of_another_version_is_not_believed_under_our_name(tmp_path: Path) -> None:
    other = Identity(WHO.key, "other", SIZE)
    os.rename(made(tmp_path, 0).path, BlockFile(str(tmp_path), other).path)
    assert not BlockFile(str(tmp_path), other).load()
    assert len({WHO.name, other.name, Identity(WHO.key, WHO.etag, 1).name, Identity("b", WHO.etag, SIZE).name}) == 4
    assert WHO.group == other.group


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    file = BlockFile(str(tmp_path), WHO)
    os.symlink(target, file.path)
    with pytest.raises(OSError, match="symbolic"):
        file.load()
    assert target.read_bytes() == b"mine"


def test_a_file_that_is_read_by_a_thread_keeps_its_descriptor(tmp_path: Path) -> None:
    """Closed and given to another file, the number would have our bytes written into that one."""
    file = made(tmp_path, 0)
    held = file._file
    assert held is not None
    number = held.number
    del file
    assert os.fstat(number).st_size > 0
    del held
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)
