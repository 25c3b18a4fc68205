"""The journal on a real disk: what was put is there after the process is gone."""

from __future__ import annotations

import os
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from s3fsx.errors import ConfigError
from s3fsx.journal import Journal, JournalError
from s3fsx.objects import UploadedPart
from s3fsx.records import UploadRecord

RECORD = UploadRecord("w1", "u1", "open", "pve/dump/ä b.zst", "dump/ä b.dat", 1234.5)
PARTS = (UploadedPart(1, 8 << 20, "e1", 0xFFFFFFFF, bytes(range(32))), UploadedPart(2, 5, "e2", None))


async def test_records_survive_a_restart_oldest_first(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "state"))
    newer = replace(RECORD, write_id="w2", created=2000.0)
    await journal.put(newer)
    await journal.put(RECORD)
    changed = await journal.change(RECORD, state="settled", size=9, parts=PARTS)
    assert changed == replace(RECORD, state="settled", size=9, parts=PARTS)
    journal.close()
    journal = Journal.open(str(tmp_path / "state"))
    assert await journal.records() == [changed, newer]
    await journal.remove("w1")
    await journal.remove("w1")  # harmless
    assert await journal.records() == [newer]
    journal.close()


async def test_what_was_put_is_on_disk_when_put_returns(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path))
    await journal.put(RECORD)
    with sqlite3.connect(tmp_path / "journal.sqlite") as other:
        assert other.execute("SELECT write_id, state FROM uploads").fetchall() == [("w1", "open")]
    other.close()
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: fsync at each commit
    journal.close()


async def test_changes_are_applied_in_order(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path))
    async with trio.open_nursery() as nursery:
        for i in range(20):
            nursery.start_soon(journal.put, replace(RECORD, write_id=f"w{i}", created=float(i)))
    assert [r.write_id for r in await journal.records()] == [f"w{i}" for i in range(20)]
    journal.close()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    directory.mkdir(mode=0o755)
    Journal.open(str(directory)).close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "journal.sqlite").stat().st_mode) == 0o600


def test_two_mounts_cannot_share_it(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path))
    with pytest.raises(ConfigError, match="in use by another s3fsx mount"):
        Journal.open(str(tmp_path))
    journal.close()
    Journal.open(str(tmp_path)).close()


def test_a_file_that_is_no_journal_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"something else entirely " * 100)
    with pytest.raises(ConfigError, match=r"journal\.sqlite cannot be used"):
        Journal.open(str(tmp_path))
    assert (tmp_path / "journal.sqlite").read_bytes().startswith(b"something else")
    (tmp_path / "journal.sqlite").unlink()
    Journal.open(str(tmp_path)).close()  # the lock was given back


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="state_dir"):
        Journal.open(str(tmp_path / "file" / "state"))


async def test_a_failing_disk_is_an_error_of_the_file_system(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path))
    journal._db.execute("PRAGMA query_only=ON")  # as a read-only or full disk answers
    with pytest.raises(JournalError, match="journal: "):
        await journal.put(RECORD)
    assert await journal.records() == []
    journal.close()


def test_a_killed_process_leaves_what_it_put(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:  # no cleanup of any kind
        try:
            journal = Journal.open(str(tmp_path))
            trio.run(journal.put, replace(RECORD, write_id="w9"))
        finally:
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    journal = Journal.open(str(tmp_path))
    assert [r.write_id for r in trio.run(journal.records)] == ["w9"]
    journal.close()


async def test_parts_of_an_earlier_version_have_no_checksums_of_grains(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path))
    await journal.put(replace(RECORD, parts=PARTS))
    journal.close()
    database = sqlite3.connect(tmp_path / "journal.sqlite")
    database.execute("UPDATE uploads SET parts = '[[1, 5, \"e\", 7]]'")
    database.commit()
    database.close()
    journal = Journal.open(str(tmp_path))
    (record,) = await journal.records()
    assert record.parts == (UploadedPart(1, 5, "e", 7),)
    journal.close()
