"""What a fetch that was interrupted goes on from."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from s3fsx.browse.partial import Partial
from s3fsx.errors import ConfigError, S3fsxError
from s3fsx.store.checksum import grain_crcs
from s3fsx.store.objects import ObjectInfo
from s3fsx.store.sums import PartSums, Sums

MIB = 1 << 20
DATA = random.Random(6).randbytes(20 * MIB + 77)
INFO = ObjectInfo("pve/dump/x.vma", len(DATA), "abc-3", 1_763_000_000.0)


def sums(*sizes: int) -> Sums:
    at, parts = 0, []
    for size in sizes:
        parts.append(PartSums(size, grain_crcs((DATA[at : at + size],))))
        at += size
    assert at == len(DATA)
    return Sums(INFO.key, INFO.etag, parts)


EVEN = sums(8 * MIB, 8 * MIB, 4 * MIB + 77)
UNEVEN = sums(5 * MIB + 1234, 9 * MIB + 1, 6 * MIB + 77 - 1235)


def opened(target: Path, info: ObjectInfo = INFO) -> Partial:
    return Partial(str(target), "bucket", info)


def interrupted(target: Path, length: int, *, synced: int = 0) -> None:
    partial = opened(target)
    assert partial.begin(None) == 0
    partial.write(DATA[:length])
    if synced:
        partial.sync(synced)
    partial.close()


def resumed(target: Path, checks: Sums | None, info: ObjectInfo = INFO) -> int:
    partial = opened(target, info)
    try:
        return partial.begin(checks)
    finally:
        partial.close()


@pytest.mark.parametrize("checks", [EVEN, UNEVEN])
def test_all_that_its_checksums_prove(tmp_path: Path, checks: Sums) -> None:
    target = tmp_path / "x"
    interrupted(target, 17 * MIB + 5)
    start = resumed(target, checks)
    assert 8 * MIB <= start <= 17 * MIB + 5
    assert (tmp_path / "x.part").read_bytes() == DATA[:start]


def test_not_what_a_power_cut_has_left_as_zeros(tmp_path: Path) -> None:
    target = tmp_path / "x"
    interrupted(target, 16 * MIB)
    with (tmp_path / "x.part").open("r+b") as file:
        file.seek(9 * MIB)
        file.write(bytes(3 * MIB))
    assert resumed(target, EVEN) == 9 * MIB


def test_without_checksums_what_was_synced(tmp_path: Path) -> None:
    target = tmp_path / "x"
    interrupted(target, 16 * MIB, synced=10 * MIB)
    assert resumed(target, None) == 10 * MIB
    assert (tmp_path / "x.part").stat().st_size == 10 * MIB


@pytest.mark.parametrize(
    "other",
    [
        ObjectInfo(INFO.key, INFO.size, "other-3", 0.0),
        ObjectInfo(INFO.key, INFO.size + 1, INFO.etag, 0.0),
        ObjectInfo("pve/dump/y.vma", INFO.size, INFO.etag, 0.0),
    ],
)
def test_another_version_begins_anew(tmp_path: Path, other: ObjectInfo) -> None:
    target = tmp_path / "x"
    interrupted(target, 16 * MIB, synced=16 * MIB)
    assert resumed(target, None, other) == 0
    assert (tmp_path / "x.part").stat().st_size == 0


@pytest.mark.parametrize("record", ["", "{}", "[]", "nonsense", '{"bucket": 1}', json.dumps({"synced": "x"})])
def test_a_record_that_is_none(tmp_path: Path, record: str) -> None:
    target = tmp_path / "x"
    interrupted(target, MIB, synced=MIB)
    (tmp_path / "x.part.json").write_text(record)
    assert resumed(target, None) == 0


def test_the_end(tmp_path: Path) -> None:
    target = tmp_path / "x"
    partial = opened(target)
    partial.begin(None)
    partial.write(DATA)
    partial.finish(INFO.modified, replace=False)
    partial.close()
    assert target.read_bytes() == DATA
    assert target.stat().st_mtime == INFO.modified
    assert os.listdir(tmp_path) == ["x"]


def test_a_name_that_was_taken_meanwhile(tmp_path: Path) -> None:
    target = tmp_path / "x"
    partial = opened(target)
    partial.begin(None)
    target.write_text("theirs")
    with pytest.raises(S3fsxError, match="File exists"):
        partial.finish(0.0, replace=False)
    assert target.read_text() == "theirs"
    partial.finish(0.0, replace=True)
    assert target.read_bytes() == b""
    partial.close()


def test_two_at_once(tmp_path: Path) -> None:
    partial = opened(tmp_path / "x")
    with pytest.raises(ConfigError, match="another s3fsx get"):
        opened(tmp_path / "x")
    partial.close()
    opened(tmp_path / "x").close()


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="symbolic link"):
        opened(tmp_path / "x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_disk_without_room(tmp_path: Path) -> None:
    large = ObjectInfo(INFO.key, 1 << 60, INFO.etag, 0.0)
    partial = opened(tmp_path / "x", large)
    with pytest.raises(S3fsxError, match="MiB are free"):
        partial.begin(None)
    partial.close()
    assert list(tmp_path.iterdir()) == [], "an empty file is nothing to go on with"


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        opened(tmp_path / "absent" / "x")
