"""A temporary name that is written to again after its close, or after its publication: what a crash leaves of it."""

from __future__ import annotations

from hashlib import md5

import pytest

from tests.domain.harness import SMALL_PART, Domain
from tests.domain.test_recovery import DAT, DATA, FINAL


async def settled_and_written_to(mount: Domain, more: int) -> None:
    handle = await mount.create(DAT)
    await mount.fill(handle, DATA[: SMALL_PART + 100])
    await mount.files.fsync(handle)
    await mount.fill(handle, DATA[SMALL_PART + 100 : SMALL_PART + 100 + more], offset=SMALL_PART + 100)
    await mount.idle()


async def test_what_was_closed_is_back_when_nothing_more_was_sent(small: Domain) -> None:
    await settled_and_written_to(small, 50)
    after = await small.restarted()
    assert await after.read(DAT) == DATA[: SMALL_PART + 100]


async def test_what_was_closed_is_back_when_its_last_part_was_sent_again(small: Domain) -> None:
    await settled_and_written_to(small, 2 * SMALL_PART)
    after = await small.restarted()
    assert (await after.read(DAT)).startswith(DATA[: SMALL_PART + 100])


async def test_each_close_may_be_followed_by_more(small: Domain) -> None:
    handle = await small.create(DAT)
    for start, end in ((0, SMALL_PART + 100), (SMALL_PART + 100, SMALL_PART + 300)):
        await small.fill(handle, DATA[start:end], offset=start)
        await small.files.fsync(handle)
    (record,) = await small.journal.records()
    assert record.resent is None, "settled anew, with the part as it is now"
    await small.fill(handle, DATA[SMALL_PART + 300 :], offset=SMALL_PART + 300)
    await small.idle()
    (record,) = await small.journal.records()
    assert record.resent is not None
    after = await small.restarted()
    whole = await after.read(DAT)
    assert len(whole) > SMALL_PART + 300
    assert DATA.startswith(whole)


LAST = DATA[3 * SMALL_PART :]
WRONG = [b"garbage", bytes(8192), LAST[:-1] + b"!"]


@pytest.mark.expect_log("the file is lost")
@pytest.mark.parametrize("bad", WRONG)
async def test_a_last_part_that_nobody_sent_is_not_taken_for_one_sent_again(small: Domain, bad: bytes) -> None:
    await small.write(DAT, DATA)
    (upload,) = small.store.uploads.values()
    upload.parts[max(upload.parts)] = (bad, md5(bad).hexdigest())
    after = await small.restarted()
    assert await after.names("dump") == []
    await after.nothing_left()


@pytest.mark.expect_log("the file is lost")
@pytest.mark.parametrize("bad", [b"garbage", bytes(8193), LAST])  # the same size is told apart by a listed CRC only
async def test_nor_one_that_is_not_the_announced(small: Domain, bad: bytes) -> None:
    await settled_and_written_to(small, 2 * SMALL_PART)
    (record,) = await small.journal.records()
    assert record.resent is not None
    (upload,) = small.store.uploads.values()
    upload.parts[record.resent.number] = (bad, md5(bad).hexdigest())
    after = await small.restarted()
    assert await after.names("dump") == []


async def published_and_rewritten(mount: Domain) -> Domain:
    """After the crash that follows the close: the old object under the temporary name, the new content waits."""
    await mount.write(DAT, DATA[:100])
    await mount.files.publish_waiting(-1.0)
    await mount.write(DAT, DATA)
    assert mount.stored(DAT) == DATA[:100]
    after = await mount.restarted()
    assert after.stored(DAT) == DATA[:100]
    assert (await after.file(DAT)).size == len(DATA)
    return after


async def test_the_rename_of_what_came_back_removes_the_object_of_the_old_name(small: Domain) -> None:
    after = await published_and_rewritten(small)
    await after.rename(DAT, FINAL)
    assert after.paths() == [FINAL]
    assert after.stored(FINAL) == DATA
    await after.nothing_left()


async def test_the_deletion_of_what_came_back_removes_the_object_of_that_name(small: Domain) -> None:
    after = await published_and_rewritten(small)
    await after.unlink(DAT)
    assert after.paths() == []
    await after.nothing_left()


async def test_what_came_back_over_an_object_is_read(small: Domain) -> None:
    after = await published_and_rewritten(small)
    assert await after.read(DAT) == DATA
    assert after.stored(DAT) == DATA
    await after.nothing_left()
