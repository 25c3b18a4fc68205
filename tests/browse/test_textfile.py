from __future__ import annotations

import os
from pathlib import Path

import pytest

from s3fsx.browse import textfile
from s3fsx.browse.catalog import Backup
from s3fsx.browse.drill import Result
from s3fsx.browse.names import parse
from s3fsx.errors import ConfigError
from s3fsx.store.objects import ObjectInfo


def result(*, good: bool, name: str = "vzdump-qemu-100-2026_11_20-13_15_26.vma.zst") -> Result:
    archive = parse(name)
    assert archive is not None
    backup = Backup(archive, ObjectInfo(f"dump/{name}", 9, "e", 5.0), None, None, protected=False)
    return Result(backup, good, "why", 9, 70, 1.25, verified=good, damaged=not good)


def values(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {line.partition("{")[0].removeprefix("s3fsx_drill_"): line.rpartition(" ")[2] for line in lines}


def test_success_and_then_failure(tmp_path: Path) -> None:
    path = tmp_path / "s3fsx_drill.prom"
    textfile.write(str(path), "s3-backup", result(good=True))
    first = values(path)
    assert (first["success"], first["read_bytes"], first["restored_bytes"]) == ("1", "9", "70")
    assert first["last_success_timestamp_seconds"] == first["last_run_timestamp_seconds"]
    assert path.stat().st_mode & 0o777 == 0o644
    textfile.write(str(path), "s3-backup", result(good=False))
    then = values(path)
    assert then["success"] == "0"
    assert then["last_success_timestamp_seconds"] == first["last_success_timestamp_seconds"]
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("good", [True, False])
def test_a_drill_that_could_not_be_done_says_nothing_of_any_backup(tmp_path: Path, good: bool) -> None:
    """An outage neither makes a good backup a bad one nor ends the alert of a bad one."""
    path = tmp_path / "s3fsx_drill.prom"
    textfile.write(str(path), "s3-backup", None)
    assert values(path) == {"done": "0"}
    textfile.write(str(path), "s3-backup", result(good=good))
    first = values(path)
    assert first["done"] == "1"
    for _ in range(2):
        textfile.write(str(path), "s3-backup", None)
        assert values(path) == first | {"done": "0"}
        assert path.read_text().count("# TYPE ") == len(first)
    textfile.write(str(path), "s3-backup", result(good=good))
    assert values(path)["done"] == "1"


def test_labels_are_escaped_and_each_metric_has_its_type() -> None:
    text = textfile.render('a"b\\c\nd', result(good=True), 1.5, "")
    assert 's3fsx_drill_success{source="a\\"b\\\\c\\nd"} 1\n' in text
    for line in text.splitlines():
        if not line.startswith("#"):
            assert f"# TYPE {line.partition('{')[0]} gauge" in text


def test_what_was_there_is_no_file_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.prom"
    path.write_bytes(b"\xff\x00 s3fsx_drill_last_success_timestamp_seconds{} x")
    textfile.write(str(path), "s", None)
    assert values(path) == {"done": "0"}
    path.write_bytes(b"\xff\x00 s3fsx_drill_last_success_timestamp_seconds{} x")
    textfile.write(str(path), "s", result(good=False))
    assert values(path)["last_success_timestamp_seconds"] == "0"


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        textfile.write(str(tmp_path / "absent" / "x.prom"), "s", result(good=True))
