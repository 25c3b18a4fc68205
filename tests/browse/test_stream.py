"""A stream through an outage; and the rest of what happens between the store and a command, on the fake store."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import trio
from trio.testing import MockClock

from s3fsx.browse import checked, prune, verify
from s3fsx.browse.catalog import backups, first_notes, knowledge
from s3fsx.browse.drill import candidates, drill, pick
from s3fsx.browse.fetch import Fetch
from s3fsx.browse.keep import Keep
from s3fsx.browse.notes import append, appended
from s3fsx.browse.partial import Partial
from s3fsx.browse.place import Place
from s3fsx.browse.stream import Streams
from s3fsx.configuration.settings import Settings
from s3fsx.errors import (
    Changed,
    ConnectionFailed,
    DeadlineExceeded,
    EndpointDown,
    FileSystemError,
    S3fsxError,
    ServerFault,
    Throttled,
)
from s3fsx.layout import Layout
from s3fsx.s3.store import S3Store
from s3fsx.store.checksum import grain_crcs
from s3fsx.store.objects import Capabilities, ObjectInfo, Payload
from s3fsx.store.sums import PartSums, Sums
from s3fsx.store.verified import VerifiedStore
from s3fsx.transfer.memory import Budget
from tests.fakestore import FakeStore

T = TypeVar("T")

MIB = 1 << 20
DATA = random.Random(9).randbytes(30 * MIB)
NAME = "vzdump-qemu-100-2026_11_20-13_15_26.vma.zst"
KEY = f"pve/dump/{NAME}"


async def inline(function: Callable[..., T], *args: object) -> T:
    await trio.lowlevel.checkpoint()
    return function(*args)


def place(store: FakeStore, nursery: trio.Nursery, budget: int = 64 * MIB) -> Place:
    verified = VerifiedStore(store, "pve/", in_thread=inline)
    streams = Streams(verified, Budget(budget), nursery.start_soon, ahead=budget // 2, deadline=60.0)
    settings = Settings(bucket="b", prefix="pve/")
    return Place(settings, cast(S3Store, store), verified, Layout("pve/", {}), streams)


async def copied(where: Place, info: ObjectInfo, start: int = 0) -> bytes:
    out = bytearray()

    async def sink(piece: bytes | memoryview) -> None:
        out.extend(piece)
        await trio.sleep(0.01)

    await where.streams.copy(info, sink, start=start)
    return bytes(out)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore(latency=(0.01, 0.05))


@pytest.mark.parametrize("start", [0, 1, 5 * MIB + 3, 30 * MIB])
async def test_from_anywhere_to_the_end(
    store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock, start: int
) -> None:
    info = store.poke(KEY, DATA)
    where = place(store, nursery)
    assert await copied(where, info, start) == DATA[start:]


async def test_memory_is_the_budgets(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where = place(store, nursery, budget=8 * MIB)
    assert await copied(where, store.poke(KEY, DATA)) == DATA


@pytest.mark.expect_log("going on as soon as there is an answer")
async def test_an_outage_of_minutes(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where, info = place(store, nursery), store.poke(KEY, DATA)

    async def outage() -> None:
        await trio.sleep(0.1)
        store.down = True
        await trio.sleep(300)
        store.down = False

    nursery.start_soon(outage)
    assert await copied(where, info) == DATA
    assert trio.current_time() > 300


@pytest.mark.expect_log("going on as soon as there is an answer")
async def test_an_outage_that_does_not_end(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where, info = place(store, nursery), store.poke(KEY, DATA)
    store.down = True
    with pytest.raises(EndpointDown), trio.fail_after(700):
        await copied(where, info)


async def test_an_object_that_is_replaced_meanwhile(
    store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    where, info = place(store, nursery), store.poke(KEY, DATA)

    async def replace() -> None:
        await trio.sleep(0.15)
        store.poke(KEY, DATA[::-1])

    nursery.start_soon(replace)
    with pytest.raises(Changed):
        await copied(where, info)


async def test_what_was_resumed_without_checksums_is_not_called_verified(
    store: FakeStore, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """On the real clock, as its file is written by threads."""
    where = place(store, nursery)
    info = store.poke(KEY, DATA)
    half = 15 * MIB
    for grains, resumed, verified in ((grain_crcs((DATA[:half],)), 10, True), (b"", 10, False), (b"", 0, False)):
        sums = Sums(KEY, info.etag, [PartSums(half, grains), PartSums(half, grain_crcs((DATA[half:],)))])
        store.objects[KEY].etag = "0-2"
        info = ObjectInfo(KEY, len(DATA), "0-2", info.modified)
        store.poke(where.store.sums._where(KEY, "0-2") or "", Sums(KEY, "0-2", sums.parts).encode())
        where.store.sums._forget(KEY, "0-2")
        target = tmp_path / f"{len(grains)}-{resumed}"
        if resumed:
            partial = Partial(str(target), "b", info)
            partial.begin(None)
            partial.write(DATA[: resumed * MIB])
            partial.sync(resumed * MIB)
            partial.close()
        fetch = Fetch(where.store, where.streams, lambda _: None)
        done = await fetch.to_file(info, str(target), "b", replace=False)
        assert target.read_bytes() == DATA
        assert done.verified == verified
        assert (done.resumed > 0) == (resumed > 0)


# -- verification, and what remembers it


async def verdict(where: Place, name: str = NAME) -> verify.Verdict:
    (backup,) = [b for b in await backups(where.store, where.layout) if b.archive.name == name]
    return await verify.Verifier(where, note=True, progress=lambda _: None).verify(backup)


def with_sums(store: FakeStore, where: Place, data: bytes, sums_of: bytes | None = None) -> ObjectInfo:
    """A large object, and what s3fsx stores beside it."""
    info = store.poke(KEY, data)
    info = ObjectInfo(KEY, len(data), f"{info.etag}-4", info.modified)
    store.objects[KEY].etag = info.etag
    told = data if sums_of is None else sums_of
    sums = Sums(KEY, info.etag, [PartSums(len(told), grain_crcs((told,)))])
    store.poke(where.store.sums._where(KEY, info.etag) or "", sums.encode())
    return info


async def test_what_is_right(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where = place(store, nursery)
    with_sums(store, where, DATA)
    before = await knowledge(store, "pve/")
    assert (await verdict(where)).result == verify.OK
    (backup,) = await backups(where.store, where.layout)
    known = await knowledge(store, "pve/")
    check = known.checks.of(backup.info)
    assert before.checks.of(backup.info) is None
    assert check is not None
    assert check.good
    assert known.written_with_checksums(backup.info)
    assert backup.info.etag == store.objects[KEY].etag, "the backup itself is not touched"


@pytest.mark.expect_log("the CRC-32 is wrong")
async def test_what_is_wrong(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where = place(store, nursery)
    wrong = bytearray(DATA)
    wrong[20 * MIB] ^= 1
    with_sums(store, where, bytes(wrong), sums_of=DATA)
    found = await verdict(where)
    assert found.result == verify.BAD
    assert f"offset {20 * MIB}" in found.why
    # Then it is repaired, and verified again: the record of the damage goes.
    store.objects[KEY].data = DATA
    assert (await verdict(where)).result == verify.OK
    (backup,) = await backups(where.store, where.layout)
    checks = await checked.read_checks(store, "pve/")
    assert [key.rpartition(".")[2] for key in checks.keys[next(iter(checks.keys))]] == ["ok"]
    assert checks.of(backup.info) is not None


@pytest.mark.expect_log("cannot be verified|they do not match their own checksum")
async def test_checksums_that_are_damaged_themselves(
    store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    where = place(store, nursery)
    info = with_sums(store, where, DATA)
    store.poke(where.store.sums._where(KEY, info.etag) or "", b"S3FSXS01" + bytes(100))
    assert (await verdict(where)).result == verify.BAD


async def test_what_cannot_be_known(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where = place(store, nursery)
    info = store.poke(KEY, DATA)  # of another tool: 30 MiB, no checksums
    found = await verdict(where)
    assert (found.result, found.verified) == (verify.UNKNOWN, 0)
    assert store.count("get_range") == 0, "reading it would tell nothing"
    assert (await checked.read_checks(store, "pve/")).known == {}
    # Checksums of some of its parts.
    sums = Sums(KEY, info.etag, [PartSums(10 * MIB, grain_crcs((DATA[: 10 * MIB],))), PartSums(20 * MIB, b"")])
    store.poke(where.store.sums._where(KEY, info.etag) or "", sums.encode())
    found = await verdict(where)
    assert found.result == verify.UNKNOWN
    assert f"{20 * MIB} of its {30 * MIB} bytes" in found.why


async def test_a_backup_that_goes_meanwhile(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where = place(store, nursery)
    with_sums(store, where, DATA)
    (backup,) = await backups(where.store, where.layout)
    store.remove(KEY)
    found = await verify.Verifier(where, note=True, progress=lambda _: None).verify(backup)
    assert (found.result, found.why[:20]) == (verify.FAILED, "replaced or deleted ")


OUTAGES = (
    EndpointDown("the endpoint is down"),
    DeadlineExceeded("GET: not done within 60 s"),
    Throttled("GET: 503 SlowDown"),
    ServerFault("GET: 500"),
    ConnectionFailed("GET: answer cut short"),
)


@pytest.mark.expect_log("going on as soon as there is an answer")
@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: type(error).__name__)
async def test_an_outage_says_nothing_of_a_backup(
    store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock, error: S3fsxError
) -> None:
    """Neither to verify nor to drill, and what was known of it before stays."""
    where = place(store, nursery)
    with_sums(store, where, DATA)
    await verdict(where)
    store.poke(KEY.removesuffix(".zst"), DATA)  # no program reads it, whose time would not be the clock's
    before = store.keys()
    plain, backup = sorted(await backups(where.store, where.layout), key=lambda b: b.info.key)
    store.fail_next("get_range", error, times=100_000)
    verifier = verify.Verifier(where, note=True, progress=lambda _: None)
    if isinstance(error, EndpointDown):
        with pytest.raises(EndpointDown):
            await verifier.verify(backup)
    else:
        found = await verifier.verify(backup)
        assert (found.result, found.answered, found.good) == (verify.UNKNOWN, False, False)
        assert str(error) in found.why
    with pytest.raises(type(error)):
        await drill(where, plain, deadline=7200.0, progress=lambda _: None)
    assert store.keys() == before
    check = (await checked.read_checks(store, "pve/")).of(backup.info)
    assert check is not None
    assert check.good


@pytest.mark.expect_log("that it was checked cannot be noted")
async def test_keys_that_may_only_read(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where = place(store, nursery)
    with_sums(store, where, DATA)
    store.fail_next("put", S3fsxError("403"))
    assert (await verdict(where)).result == verify.OK


async def test_records_of_what_is_gone(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where = place(store, nursery)
    with_sums(store, where, DATA)
    await verdict(where)
    checks = await checked.read_checks(store, "pve/")
    await verify.forget_gone(where, await backups(where.store, where.layout), checks)
    assert (await checked.read_checks(store, "pve/")).known == checks.known
    store.remove(KEY)
    await verify.forget_gone(where, await backups(where.store, where.layout), checks)
    assert (await checked.read_checks(store, "pve/")).known == {}


# -- listing


async def test_the_table(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where = place(store, nursery)
    for name in (
        NAME,
        "vzdump-lxc-7-x.tar",
        "mine.vma",
        f"{NAME}.notes",
        f"{NAME}.protected",
        f"{NAME[:-8]}.log",
        "a.dat",
    ):
        store.poke(f"pve/dump/{name}", b"\xff\nnext" if name.endswith("notes") else b"x")
    store.poke("pve/dump/below/vzdump-qemu-100-2026_11_21-13_15_26.vma", b"not of this directory")
    listed = await backups(where.store, where.layout)
    assert [b.archive.name for b in listed] == ["mine.vma", "vzdump-lxc-7-x.tar", NAME]
    assert listed[2].protected
    assert listed[2].log is not None
    assert await first_notes(store, listed) == {NAME: "\ufffd"}
    assert await backups(where.store, where.layout, 101) == []


# -- pruning


def many(store: FakeStore) -> list[str]:
    names = [f"vzdump-qemu-100-2026_11_{day:02}-22_00_00.vma.zst" for day in range(1, 5)]
    for name in names:
        for end in (name, f"{name}.notes", f"{name[:-8]}.log"):
            store.poke(f"pve/dump/{end}", end.encode())
    return names


async def victims(where: Place) -> list[Any]:
    marked = prune.plan(await backups(where.store, where.layout), Keep(last=1))
    return [item.backup for item in marked if item.mark == "remove"]


async def test_archive_log_notes_in_this_order(
    store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    where, names = place(store, nursery), many(store)
    found = await victims(where)
    assert [b.archive.name for b in found] == names[2::-1]
    store.log.clear()
    assert await prune.Pruner(where).remove(found[0]) == []
    deleted = [key.removeprefix("pve/dump/") for op, key in store.log if op == "delete" and "/dump/" in key]
    assert deleted == [names[2], f"{names[2][:-8]}.log", f"{names[2]}.notes"]


async def test_what_was_protected_or_replaced_since(
    store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    where, names = place(store, nursery), many(store)
    third, second, first = await victims(where)
    store.poke(f"pve/dump/{names[2]}.protected", b"")
    store.poke(f"pve/dump/{names[1]}", b"another")
    store.remove(f"pve/dump/{names[0]}")
    keys = store.keys()
    for backup, why in ((third, "is protected"), (second, "was replaced")):
        with pytest.raises(S3fsxError, match=why):
            await prune.Pruner(where).remove(backup)
    assert store.keys() == keys
    await prune.Pruner(where).remove(first)
    assert f"pve/dump/{names[0]}.notes" not in store.objects, "what it left goes all the same"


@pytest.mark.parametrize("how", ["held", "retained"])
async def test_what_object_lock_keeps(nursery: trio.Nursery, autojump_clock: MockClock, how: str) -> None:
    store = FakeStore(capabilities=Capabilities("crc32", md5_etags=True, object_lock=True))
    where, names = place(store, nursery), many(store)
    setattr(store.objects[f"pve/dump/{names[2]}"], how, True if how == "held" else 1e12)
    third, second, _ = await victims(where)
    with pytest.raises(S3fsxError, match="is protected"):
        await prune.Pruner(where).remove(third)
    store.hold(f"pve/dump/{names[1]}.notes")
    left = await prune.Pruner(where).remove(second)
    assert left == [f"pve/dump/{names[1]}.notes stays: it is held or retained"]
    assert store.hidden == []


# -- notes and drills


def test_a_line_more_and_nothing_less() -> None:
    assert appended(b"", "x") == b"x\n"
    assert appended(b"a\n", "x") == b"a\nx\n"
    assert appended(b"a\xff", "x") == b"a\xff\nx\n"
    drills = b"mine\ns3fsx drill 1: FAILED: y\nhis\ns3fsx drill 2: z"
    assert appended(drills, "s3fsx drill 3", instead="s3fsx drill ") == b"mine\nhis\ns3fsx drill 3\n"


async def test_notes(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where = place(store, nursery)
    store.poke(KEY, b"x")
    (backup,) = await backups(where.store, where.layout)
    await append(where, backup, "one")
    await where.store.put(f"{KEY}.notes", Payload.of(b"mine"), metadata={"mode": "33188"})
    await append(where, backup, "two")
    assert store.data(f"{KEY}.notes") == b"mine\ntwo\n"
    assert (await store.head(f"{KEY}.notes")).metadata == {"mode": "33188"}
    store.poke(f"{KEY}.notes", bytes(70_000))
    with pytest.raises(S3fsxError, match="are enough"):
        await append(where, backup, "three")


async def test_notes_that_are_kept(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    store = FakeStore(capabilities=Capabilities("crc32", md5_etags=True, object_lock=True))
    where = place(store, nursery)
    store.poke(KEY, b"x")
    store.poke(f"{KEY}.notes", b"mine")
    store.hold(f"{KEY}.notes")
    (backup,) = await backups(where.store, where.layout)
    with pytest.raises(FileSystemError, match="legal hold"):
        await append(where, backup, "x")
    assert store.hidden == []


async def test_which_backup_a_drill_takes(store: FakeStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    where, names = place(store, nursery), many(store)
    store.poke("pve/dump/mine.vma", b"x")
    listed = await backups(where.store, where.layout)
    assert [b.archive.name for b in candidates(listed)] == names[::-1]
    assert pick(listed, at_random=False, rng=random.Random(0)).archive.name == names[3]
    seen = {pick(listed, at_random=True, rng=random.Random(i)).archive.name for i in range(50)}
    assert seen == set(names)
    with pytest.raises(S3fsxError, match="no backup"):
        pick([], at_random=True, rng=random.Random(0))
