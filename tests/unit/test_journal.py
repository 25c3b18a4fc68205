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
from s3fsx.local.journal import Journal, JournalError
from s3fsx.local.records import Intent, Piece, UploadRecord
from s3fsx.store.objects import UploadedPart

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


async def test_a_part_that_is_sent_again_is_remembered(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path))
    record = replace(RECORD, state="settled", parts=PARTS, resent=replace(PARTS[0], number=2, etag=""))
    await journal.put(record)
    assert await journal.records() == [record]
    journal.close()


async def test_a_journal_of_the_second_version_keeps_its_node(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path))
    await journal.put(RECORD)
    node = journal.node
    journal.close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as old:
        old.execute("ALTER TABLE uploads DROP COLUMN resent")
        old.execute("PRAGMA user_version=2")
    old.close()
    journal = Journal.open(str(tmp_path))
    assert (journal.node, journal.new, await journal.records()) == (node, False, [RECORD])
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


INTENT = Intent("i1", "copying", "dump/ä", 5.0, (Piece("k", "e", 3, 1.5, "w", "t"), Piece("k2", "e2", 0, 2.5)))


async def test_intents_survive_a_restart(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path))
    assert journal.new
    await journal.intend(replace(INTENT, intent_id="i2", created=9.0))
    await journal.intend(INTENT)
    changed = replace(INTENT, phase="deleting")
    await journal.intend(changed)
    await journal.fulfilled("i2")
    node = journal.node
    journal.close()
    journal = Journal.open(str(tmp_path))
    assert (journal.new, journal.node) == (False, node)
    assert await journal.intents() == [changed]
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,), "FULL again after a removal without fsync"
    journal.close()


async def test_a_running_mounts_journal_can_be_looked_at(tmp_path: Path) -> None:
    assert Journal.look(str(tmp_path / "none")) is None
    journal = Journal.open(str(tmp_path))
    await journal.put(RECORD)
    await journal.intend(INTENT)
    look = Journal.look(str(tmp_path))
    assert look is not None
    assert (await look.records(), await look.intents(), look.node) == ([RECORD], [INTENT], journal.node)
    with pytest.raises(JournalError, match="readonly"):
        await look.put(RECORD)
    look.close()
    await journal.remove(RECORD.write_id)
    journal.close()


V1 = """
CREATE TABLE uploads (write_id TEXT PRIMARY KEY, upload_id TEXT NOT NULL, state TEXT NOT NULL, key TEXT NOT NULL,
path TEXT NOT NULL, size INTEGER NOT NULL, parts TEXT NOT NULL, created REAL NOT NULL) STRICT
"""


async def test_a_journal_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "journal.sqlite") as old:
        old.execute(V1)
        old.execute("INSERT INTO uploads VALUES ('w1','u1','open','pve/dump/ä b.zst','dump/ä b.dat',0,'[]',1234.5)")
    old.close()
    with pytest.raises(ConfigError, match=r"journal .* older version of s3fsx: mount once with this version[^.]*$"):
        Journal.look(str(tmp_path))
    journal = Journal.open(str(tmp_path))
    assert await journal.records() == [RECORD]
    await journal.intend(INTENT)
    assert not journal.new
    assert len(journal.node) == 32
    journal.close()


def damaged(path: Path, how: str) -> None:
    journal = Journal.open(str(path.parent))
    for i in range(200):
        trio.run(journal.put, replace(RECORD, write_id=f"w{i}", parts=PARTS * 20))
    journal.close()
    if how == "random":
        path.write_bytes(os.urandom(20_000))
    elif how == "random after the header":
        path.write_bytes(path.read_bytes()[:100] + os.urandom(20_000))
    elif how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "truncated to a stump":
        os.truncate(path, 50)
    else:
        with sqlite3.connect(path) as database:
            if how == "of another program":
                path.unlink()
                database = sqlite3.connect(path)
                database.execute("CREATE TABLE notes (text)")
            elif how == "with other columns":
                database.execute("ALTER TABLE uploads DROP COLUMN size")
            elif how == "of a newer version":
                database.execute("PRAGMA user_version=99")
            else:
                database.execute("UPDATE uploads SET parts = '[[1'")
            database.commit()
        database.close()


@pytest.mark.parametrize(
    "how",
    [
        "random",
        "random after the header",
        "truncated",
        "truncated to a stump",
        "of another program",
        "with other columns",
        "of a newer version",
        "with a record that makes no sense",
    ],
)
def test_a_damaged_journal_is_named_and_kept(tmp_path: Path, how: str) -> None:
    path = tmp_path / "journal.sqlite"
    damaged(path, how)
    before = path.read_bytes()
    for attempt in (Journal.open, Journal.look):
        said = r"journal\.sqlite cannot be used .* It is kept\..*s3fsx recover"
        with pytest.raises(ConfigError, match=said) as error:
            attempt(str(tmp_path))
        assert "\n" not in str(error.value)
    assert path.read_bytes() == before


async def test_an_empty_file_counts_as_a_new_journal(tmp_path: Path) -> None:
    """Killed while it was made, or lost: a mount with a new journal looks for its copy in the bucket."""
    (tmp_path / "journal.sqlite").touch()
    journal = Journal.open(str(tmp_path))
    assert journal.new
    journal.close()
