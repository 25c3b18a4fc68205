"""What is kept on disk does not grow with what was done: the journal and its log, the metadata cache.

Ten thousand uploads: S3FSX_TEST_UPLOADS=10000.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from s3fsx.local.cache import MetadataCache
from s3fsx.local.journal import Journal
from s3fsx.local.records import UploadRecord
from s3fsx.store.objects import ObjectInfo, UploadedPart

UPLOADS = int(os.environ.get("S3FSX_TEST_UPLOADS", "150"))
MIB = 1 << 20


def on_disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@pytest.mark.slow
async def test_the_journal_does_not_grow_with_the_uploads(tmp_path: Path) -> None:
    """A row of a large upload is 60 KiB: 5 of them are open all the time, the others come and go."""
    journal = Journal.open(str(tmp_path))
    parts = tuple(UploadedPart(n, 8 * MIB, f"{n:032x}", n) for n in range(1, 1000))
    sizes = []
    for number in range(UPLOADS):
        record = UploadRecord(f"{number:032x}", "", "opening", "pve/dump/x", "dump/x", 1.7e9)
        await journal.put(record)
        record = await journal.change(record, upload_id="u", state="open")
        record = await journal.change(record, state="publishing", size=1, parts=parts)
        if number >= 5:
            await journal.remove(f"{number - 5:032x}")
        sizes.append(on_disk(tmp_path))
    assert len(await journal.records()) == 5
    journal.close()
    assert max(sizes) < 12 * MIB, max(sizes)  # the rows, and a log that is begun anew every 4 MiB
    assert max(sizes[UPLOADS // 2 :]) <= max(sizes[: UPLOADS // 2]) * 1.1


@pytest.mark.slow
async def test_the_metadata_cache_stays_under_its_size(tmp_path: Path) -> None:
    cache = MetadataCache(str(tmp_path), MIB)
    note = "x" * 2000
    for batch in range(30):
        for number in range(300):  # 18 MiB in all
            key = f"pve/dump/vzdump-qemu-{batch}-{number}.vma.zst"
            cache.put(ObjectInfo(key, 1, f"{number:032x}", 1.7e9, metadata={"mode": "33188", "note": note}))
        await cache.flush()
        assert on_disk(tmp_path) < 2 * MIB + 5 * MIB  # sqlite begins its log anew every 4 MiB
    cache.close()
