"""Wrong bytes from the store: never returned, never stored again; and where the checksums of an object go."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import trio

from s3fsx.errors import AccessDenied, Corrupted, DeadlineExceeded, NotFound, ServerFault
from s3fsx.store.checksum import GRAIN
from s3fsx.store.objects import Capabilities, ObjectInfo, Payload
from s3fsx.store.sums import name
from s3fsx.store.sumstore import DIRECTORY, SumStore
from s3fsx.store.verified import VerifiedStore
from tests.domain.conftest import Make
from tests.domain.harness import KIB, MIB, Domain, SmallSchedule, pattern
from tests.fakestore import FakeStore

PATH = "dump/a.iso"
BIG = 17 * MIB + 99  # two parts and a bit

FLIPPED = pytest.mark.expect_log("is not what was stored|fetching them again")


class FlippingStore(FakeStore):
    """flips: of how many of the next answers of "get_range" and "get" one bit is inverted, at a random place, or at
    ``at`` of its length. opaque: keys whose ETag is no MD5, as a HEAD tells."""

    def __init__(self, seed: int = 0, **options: object) -> None:
        super().__init__(seed=seed, **options)  # type: ignore[arg-type]
        self.flips: Counter[str] = Counter()
        self.opaque: set[str] = set()
        self.at: float | None = None
        self.bytes_moved = 0
        self._places = random.Random(seed)

    def _flipped(self, op: str, data: bytes) -> bytes:
        self.bytes_moved += len(data)
        if not self.flips[op] or not data:
            return data
        self.flips[op] -= 1
        at = int((self._places.random() if self.at is None else self.at) * len(data))
        return data[:at] + bytes([data[at] ^ 1 << self._places.randrange(8)]) + data[at + 1 :]

    async def get_range(self, key: str, start: int, length: int, *, etag: str, size: int = 0) -> bytes:
        return self._flipped("get_range", await super().get_range(key, start, length, etag=etag, size=size))

    async def get(self, key: str, *, limit: int) -> bytes:
        return self._flipped("get", await super().get(key, limit=limit))

    async def head(self, key: str) -> ObjectInfo:
        return replace(await super().head(key), opaque_etag=key in self.opaque)


@pytest.fixture
def store() -> FlippingStore:
    return FlippingStore(random.Random("verify").randrange(1 << 30))


@pytest.fixture
async def mount(make: Make, store: FlippingStore) -> Domain:
    return make(store)


def another(make: Make, mount: Domain, **options: object) -> Domain:
    """A mount that has no checksums in memory."""
    return make(mount.store, **options)


def stem(key: str) -> str:
    """What the names of all sums of a key begin with."""
    return (name(key, "0") or "").removesuffix("-0")


FOREVER = 1000


@pytest.mark.parametrize("size", [1, 4 * KIB, MIB + 1, 8 * MIB, BIG], ids=str)
@pytest.mark.parametrize("flips", [1, 2])
@FLIPPED
async def test_a_flip_is_healed_by_fetching_again(
    make: Make, mount: Domain, store: FlippingStore, size: int, flips: int
) -> None:
    data = pattern(size)
    await mount.write(PATH, data)
    reader = another(make, mount)
    store.flips["get_range"] = flips
    assert await reader.read(PATH) == data
    assert store.flips["get_range"] == 0
    counters = reader.verified.counters
    assert (counters.verified, counters.unverified, counters.fatal) == (size, 0, 0)
    assert 1 <= counters.healed <= flips
    await reader.nothing_left()


@pytest.mark.parametrize("size", [1, 8 * MIB, BIG], ids=str)
@FLIPPED
async def test_flips_for_good_are_an_error_and_never_wrong_bytes(
    make: Make, mount: Domain, store: FlippingStore, size: int
) -> None:
    data = pattern(size)
    await mount.write(PATH, data)
    reader = another(make, mount)
    handle = await reader.open(PATH)
    store.flips["get_range"] = FOREVER
    for offset in (0, size // 2, size - 1):
        with pytest.raises(Corrupted) as wrong:
            await reader.files.read(handle, offset, 128 * KIB)
        assert wrong.value.errno == errno.EIO
        assert PATH in str(wrong.value)
    assert reader.verified.counters.fatal >= 1
    store.flips.clear()
    assert await reader.read_all(handle) == data  # an error is not remembered
    await reader.files.release(handle)
    await reader.nothing_left()


@pytest.mark.parametrize("flips", [1, 2])
@FLIPPED
async def test_a_flip_in_the_checksums_themselves_is_healed(
    make: Make, mount: Domain, store: FlippingStore, flips: int
) -> None:
    await mount.write(PATH, pattern(BIG))
    reader = another(make, mount)
    store.flips["get"] = flips
    assert await reader.read(PATH) == pattern(BIG)
    assert (store.flips["get"], reader.verified.counters.verified) == (0, BIG)


@FLIPPED
async def test_checksums_that_are_damaged_for_good_are_an_error_that_says_what_to_do(
    make: Make, mount: Domain, store: FlippingStore
) -> None:
    await mount.write(PATH, pattern(BIG))
    reader = another(make, mount)
    store.flips["get"] = FOREVER
    with pytest.raises(Corrupted, match=r"delete the object pve/\.s3fsx/sums/.* or mount with -o verify_reads=false"):
        await reader.read(PATH)
    assert await another(make, mount, verify_reads=False).read(PATH) == pattern(BIG)
    (stored,) = mount.sums()
    store.remove(stored)
    assert await another(make, mount).read(PATH) == pattern(BIG)


@FLIPPED
async def test_checksums_of_something_else_under_the_name_are_not_believed(
    make: Make, mount: Domain, store: FlippingStore
) -> None:
    await mount.write(PATH, pattern(BIG))
    await mount.write("dump/b.iso", pattern(BIG, 2))
    first, second = mount.sums()
    one, other = store.data(first), store.data(second)
    store.poke(first, other)
    store.poke(second, one)
    with pytest.raises(Corrupted, match=r"checksums: of 'pve/dump/b\.iso'"):
        await another(make, mount).read(PATH)


@pytest.mark.parametrize("size", [3 * MIB, 8 * MIB], ids=str)
@FLIPPED
async def test_a_small_edit_stores_no_flipped_bit(make: Make, mount: Domain, store: FlippingStore, size: int) -> None:
    await mount.write(PATH, pattern(size))
    editor = another(make, mount)
    handle = await editor.open(PATH, os.O_RDWR)
    store.flips["get_range"] = 1
    await editor.files.write(handle, 5, b"edit")
    await editor.close(handle)
    expected = bytearray(pattern(size))
    expected[5:9] = b"edit"
    assert store.flips["get_range"] == 0
    assert store.data(mount.key(PATH)) == expected


@FLIPPED
async def test_an_edit_that_cannot_read_what_is_there_changes_nothing(
    make: Make, mount: Domain, store: FlippingStore
) -> None:
    await mount.write(PATH, pattern(MIB))
    editor = another(make, mount)
    handle = await editor.open(PATH, os.O_RDWR)
    store.flips["get_range"] = FOREVER
    with pytest.raises(Corrupted):
        await editor.files.write(handle, 5, b"edit")
    store.flips.clear()
    await editor.files.release(handle)
    assert store.data(mount.key(PATH)) == pattern(MIB)


@FLIPPED
async def test_what_was_appended_on_the_server_is_verified_too(make: Make, mount: Domain, store: FlippingStore) -> None:
    """The copied part has the checksums of what it is a copy of, though its parts end elsewhere."""
    await mount.write(PATH, pattern(BIG))
    handle = await mount.open(PATH, os.O_WRONLY)
    tail = pattern(9 * MIB, 3)
    await mount.files.write(handle, BIG, tail)
    await mount.close(handle)
    reader = another(make, mount)
    store.flips["get_range"] = 1
    assert await reader.read(PATH) == pattern(BIG) + tail
    counters = reader.verified.counters
    assert (counters.unverified, counters.healed, counters.fatal) == (0, 1, 0)
    assert len(mount.sums()) == 1, "those of the version before are gone"


async def test_objects_of_other_tools_are_no_false_alarm(make: Make, store: FlippingStore) -> None:
    mount = make(store)
    await mount.write(PATH, pattern(BIG))
    store.poke(mount.key(PATH), pattern(BIG, 7))  # replaced behind our back: another ETag
    assert await another(make, mount).read(PATH) == pattern(BIG, 7)
    upload = await store.create_upload(mount.key("dump/foreign"), metadata={})
    key = mount.key("dump/foreign")
    parts = [await store.upload_part(key, upload, n, Payload.of(pattern(5 * MIB, n))) for n in (1, 2)]
    await store.complete_upload(key, upload, parts)
    reader = another(make, mount)
    assert await reader.read("dump/foreign") == pattern(5 * MIB, 1) + pattern(5 * MIB, 2)
    assert reader.verified.counters.unverified == 10 * MIB
    assert sum(1 for op, asked in store.log if op == "get" and stem(key) in asked) == 1


async def test_that_there_are_no_checksums_is_not_believed_for_long(make: Make, mount: Domain) -> None:
    """Another node publishes: its object can be seen before its checksums can."""
    await mount.write(PATH, pattern(BIG))
    (where,) = mount.sums()
    stored = mount.store.data(where)
    mount.store.remove(where)
    reader = another(make, mount)
    assert await reader.read(PATH) == pattern(BIG)
    assert reader.verified.counters.verified == 0
    mount.store.poke(where, stored)
    await trio.sleep(61)
    assert await reader.read(PATH) == pattern(BIG)
    assert reader.verified.counters.verified == BIG


async def test_etags_that_only_look_like_md5_are_not_judged(make: Make, mount: Domain, store: FlippingStore) -> None:
    await mount.write(PATH, pattern(MIB))
    store.objects[mount.key(PATH)].etag = "0" * 32
    store.opaque.add(mount.key(PATH))
    reader = another(make, mount)
    for _ in range(2):
        assert await reader.read(PATH) == pattern(MIB)
    assert (reader.verified.counters.unverified, reader.verified.counters.fatal) == (2 * MIB, 0)


@pytest.mark.parametrize("md5_etags", [False, None])
@pytest.mark.expect_log("is not what was stored", optional=True)
async def test_a_store_whose_etags_are_no_md5(make: Make, md5_etags: bool | None) -> None:
    """None: a read-only mount could not try. What comes twice the same is what is there."""
    store = FlippingStore(capabilities=Capabilities("crc32", md5_etags=md5_etags))
    mount = make(store)
    store.poke(mount.key(PATH), pattern(MIB))
    store.objects[mount.key(PATH)].etag = "0" * 32
    for _ in range(2):
        assert await mount.read(PATH) == pattern(MIB)
    assert (mount.verified.counters.unverified, mount.verified.counters.fatal) == (2 * MIB, 0)


@FLIPPED
async def test_a_read_only_mount_learns_that_etags_are_md5(make: Make) -> None:
    store = FlippingStore(capabilities=Capabilities("crc32", md5_etags=None))
    mount = make(store, read_only=True)
    for i in range(2):
        store.poke(mount.key(f"dump/{i}"), pattern(MIB, i))
    store.flips["get_range"] = 1
    assert await mount.read("dump/0") == pattern(MIB, 0)
    store.at, store.flips["get_range"] = 0.5, FOREVER  # the same bit each time
    store._places = _Same()
    with pytest.raises(Corrupted):
        await mount.read("dump/1")


class _Same(random.Random):
    def randrange(self, *_: int) -> int:  # type: ignore[override]
        return 3


# What is fetched.


async def test_a_random_read_moves_one_grain_and_the_head_little(
    make: Make, mount: Domain, store: FlippingStore
) -> None:
    await mount.write(PATH, pattern(40 * MIB))
    reader = another(make, mount)
    handle = await reader.open(PATH)
    assert bytes(await reader.files.read(handle, 0, 10)) == pattern(40 * MIB)[:10]
    store.bytes_moved = 0
    assert bytes(await reader.files.read(handle, 30 * MIB + 5, 4 * KIB)) == pattern(40 * MIB)[30 * MIB + 5 :][: 4 * KIB]
    assert store.bytes_moved == GRAIN
    await reader.files.release(handle)


async def test_the_first_byte_does_not_wait_for_the_checksums(make: Make, mount: Domain) -> None:
    await mount.write(PATH, pattern(BIG))
    reader = make(mount.store)
    handle = await reader.open(PATH)
    mount.store.latency = (1.0, 1.0)
    started = trio.current_time()
    await reader.files.read(handle, 0, 128 * KIB)
    assert trio.current_time() - started == 1.0
    await reader.idle()
    asked = Counter(op for op, key in mount.store.log if DIRECTORY in key)
    assert asked == {"put": 1, "get": 1}
    await reader.files.release(handle)


async def test_without_memory_a_reader_does_not_fetch_the_same_again_and_again(
    make: Make, mount: Domain, store: FlippingStore
) -> None:
    await mount.write(PATH, pattern(8 * MIB))
    reader = make(store, budget=64 * KIB)
    assert await reader.read(PATH) == pattern(8 * MIB)
    assert mount.calls()["get_range"] == 1


async def test_parts_of_any_size_are_verified(make: Make, store: FlippingStore) -> None:
    """As several writers under memory pressure send them."""
    mount = make(store)
    sizes = [5 * MIB + 1, 6 * MIB - 7, 12_345]
    key, data = mount.key(PATH), pattern(sum(sizes))
    upload = await mount.verified.create_upload(key, metadata={})
    parts, at = [], 0
    for number, size in enumerate(sizes, 1):
        parts.append(await mount.verified.upload_part(key, upload, number, Payload.of(data[at : at + size])))
        at += size
    await mount.verified.complete_upload(key, upload, parts)
    reader = another(make, mount)
    assert await reader.read(PATH) == data
    assert reader.verified.counters.unverified == 0
    assert reader.verified.counters.verified >= len(data)


@pytest.mark.expect_log("the ETag of an upload is")
async def test_checksums_have_the_etag_that_the_store_gives(make: Make, mount: Domain) -> None:
    mount.store.composite_etag = "e" * 32 + "-4"
    await mount.write(PATH, pattern(BIG))
    reader = another(make, mount)
    assert await reader.read(PATH) == pattern(BIG)
    assert reader.verified.counters.unverified == 0


# Where checksums go.


async def test_checksums_follow_renames_and_go_with_the_object(make: Make, mount: Domain) -> None:
    await mount.write(PATH, pattern(BIG))
    (before,) = mount.sums()
    await mount.rename(PATH, "dump/b.iso")
    (after,) = mount.sums()
    assert after != before
    reader = another(make, mount)
    assert await reader.read("dump/b.iso") == pattern(BIG)
    assert reader.verified.counters.verified == BIG
    await reader.unlink("dump/b.iso")
    assert mount.sums() == []
    assert "pve/.s3fsx/" not in "".join(mount.bucket())


async def test_checksums_of_a_renamed_directory_go_with_its_objects(mount: Domain) -> None:
    """But not those of an object that stays: it would be read unverified."""
    await mount.mkdir("a")
    for letter in "xyz":
        await mount.write(f"a/{letter}", pattern(BIG))
    before = mount.sums()
    (stays,) = (key for key in before if stem(mount.key("a/y")) in key)
    mount.store.undeletable[mount.key("a/y")] = AccessDenied("403")
    mount.store.log.clear()
    with pytest.raises(AccessDenied):
        await mount.rename("a", "b")
    assert mount.store.count("delete_many") == 2
    assert set(before) & set(mount.sums()) == {stays}
    assert len(mount.sums()) == 4
    await mount.rename("b", "c")
    assert len(mount.sums()) == 4


async def test_checksums_that_cannot_be_deleted_are_no_failed_rename(mount: Domain) -> None:
    await mount.mkdir("a")
    for letter in "xy":
        await mount.write(f"a/{letter}", pattern(BIG))
    mount.store.undeletable = dict.fromkeys(mount.sums(), AccessDenied("403"))
    await mount.rename("a", "b")
    assert mount.paths() == ["b/x", "b/y"]
    assert len(mount.sums()) == 4
    assert len(await mount.verified.sums.orphans()) == 2


async def test_a_copy_in_parts_is_verified_too(make: Make, schedule: SmallSchedule) -> None:
    """A renamed backup above CopyObject's limit, in small units: 97 KiB of parts of 8 and copies of 16."""
    store = FlippingStore(min_part=4 * KIB)
    mount = make(store, schedule=schedule, budget=256 * KIB)
    data = pattern(97 * KIB + 5)
    await mount.write("dump/a", data)
    await mount.rename("dump/a", "dump/b")
    assert mount.calls()["copy_part"] > 3
    reader = another(make, mount, schedule=schedule)
    assert await reader.read("dump/b") == data
    assert (reader.verified.counters.verified, reader.verified.counters.unverified) == (len(data), 0)
    assert len(mount.sums()) == 1


async def test_a_new_version_leaves_no_checksums_of_the_old_one(mount: Domain) -> None:
    await mount.write(PATH, pattern(BIG))
    old = mount.sums()
    await mount.write(PATH, pattern(BIG, 2))
    assert len(mount.sums()) == 1
    assert mount.sums() != old
    await mount.write(PATH, b"small")
    assert mount.sums() == []


async def test_the_checksums_are_there_before_the_object_is(make: Make, mount: Domain) -> None:
    """So that there is no moment, and after a crash no object, whose reads are not verified."""
    mount.store.hang("complete_upload")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.write, PATH, pattern(BIG))
        await trio.sleep(100)
        assert mount.paths() == []
        assert len(mount.sums()) == 1
        assert await mount.verified.sums.orphans() == [], "its upload is there"
        mount.store.release("complete_upload")
    reader = another(make, mount)
    assert await reader.read(PATH) == pattern(BIG)
    assert reader.verified.counters.unverified == 0


async def test_a_store_whose_etags_do_not_add_up_gets_them_under_the_real_one(make: Make) -> None:
    class Inventive(FlippingStore):
        async def complete_upload(self, *args: Any, **options: Any) -> str:
            await super().complete_upload(*args, **options)
            return "of-its-own"

    store = Inventive()
    verified = VerifiedStore(store, "pve/")
    for key in ("pve/a", "pve/b"):
        upload = await verified.create_upload(key, metadata={})
        part = await verified.upload_part(key, upload, 1, Payload.of(pattern(BIG)))
        assert await verified.complete_upload(key, upload, [part]) == "of-its-own"
    assert sorted(store.keys()) == sorted(
        ["pve/a", "pve/b", *(f"pve/{DIRECTORY}{name(key, 'of-its-own')}" for key in ("pve/a", "pve/b"))]
    )
    assert [op for op, _ in store.log].count("put") == 3, "the second time it is known"


async def test_an_upload_that_fails_keeps_the_checksums_of_the_same_bytes(make: Make, mount: Domain) -> None:
    await mount.write(PATH, pattern(BIG))
    mount.store.fail_next("complete_upload", ServerFault("500"))
    with pytest.raises(ServerFault):
        await mount.write(PATH, pattern(BIG))
    await mount.idle()
    assert await mount.store.list_uploads("") == ()
    reader = another(make, mount)
    assert await reader.read(PATH) == pattern(BIG)
    assert reader.verified.counters.unverified == 0


async def test_an_upload_that_fails_leaves_no_checksums(mount: Domain) -> None:
    handle = await mount.create("dump/x.iso")
    await mount.fill(handle, pattern(BIG))
    mount.store.fail_next("complete_upload", ServerFault("500"))
    with pytest.raises(ServerFault):
        await mount.close(handle)
    await mount.files.release(handle)
    await mount.idle()
    assert mount.sums() == []


@pytest.mark.expect_log("without checksums")
async def test_checksums_that_cannot_be_stored_are_no_failed_publication(make: Make, mount: Domain) -> None:
    mount.store.fail_next("put", ServerFault("500"))
    await mount.write(PATH, pattern(BIG))
    assert mount.sums() == []
    reader = another(make, mount)
    assert await reader.read(PATH) == pattern(BIG)
    assert reader.verified.counters.unverified == BIG


@pytest.mark.expect_log("without checksums.*within 60 s")
async def test_a_store_that_never_takes_the_checksums_holds_up_no_publication(mount: Domain) -> None:
    mount.store.hang("put")
    started = trio.current_time()
    await mount.write(PATH, pattern(BIG))
    assert trio.current_time() - started == pytest.approx(60)
    mount.store.release("put")


@pytest.mark.expect_log("checksums cannot be read")
async def test_keys_that_may_not_read_the_checksums_still_read(make: Make, mount: Domain) -> None:
    await mount.write(PATH, pattern(BIG))
    mount.store.fail_next("get", AccessDenied("403"), times=3)
    reader = another(make, mount)
    assert await reader.read(PATH) == pattern(BIG)


async def test_an_error_in_place_of_the_checksums_is_an_error(make: Make, mount: Domain) -> None:
    """What could be verified is not returned unverified."""
    await mount.write(PATH, pattern(BIG))
    mount.store.fail_next("get", ServerFault("500"))
    reader = another(make, mount)
    with pytest.raises(ServerFault):
        await reader.read(PATH)
    assert await reader.read(PATH) == pattern(BIG)


async def test_who_closes_while_the_checksums_are_on_their_way_takes_them_from_nobody(
    make: Make, mount: Domain
) -> None:
    await mount.write(PATH, pattern(BIG))
    reader = another(make, mount)
    mount.store.latency = (1.0, 1.0)
    first, second = await reader.open(PATH), await reader.open(PATH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.files.read, first, 0, 10)
        await trio.sleep(0.5)
        nursery.start_soon(reader.files.read, second, 9 * MIB, 10)
        await trio.sleep(0.1)
        await reader.files.release(first)
        nursery.cancel_scope.deadline = trio.current_time() + 30
    assert reader.verified.counters.verified >= GRAIN
    await reader.files.release(second)
    await reader.nothing_left()


async def test_after_a_crash_a_settled_backup_is_still_verified(make: Make, mount: Domain) -> None:
    data = b"\x28\xb5\x2f\xfd" + pattern(BIG)
    await mount.write("dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.dat", data)
    after = await mount.restarted()
    final = "dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.zst"
    await after.rename("dump/vzdump-qemu-1-2026_11_20-13_15_26.vma.dat", final)
    reader = another(make, mount)
    assert await reader.read(final) == data
    assert reader.verified.counters.verified == len(data)


async def test_orphans_are_the_checksums_whose_object_is_gone(mount: Domain) -> None:
    for i in range(3):
        await mount.write(f"dump/{i}.iso", pattern(BIG, i))
    (stays,) = [key for key in mount.sums() if stem(mount.key("dump/0.iso")) in key]
    mount.store.remove(mount.key("dump/1.iso"))
    mount.store.poke(mount.key("dump/2.iso"), b"other")
    orphans = await mount.verified.sums.orphans()
    assert orphans == sorted(set(mount.sums()) - {stays})
    assert len(orphans) == 2


async def test_what_is_remembered_is_bounded(mount: Domain) -> None:
    sums = SumStore(mount.store, "pve/", memory=10_000)
    for i in range(100):
        assert await sums.get(f"k{i}", "0" * 32 + "-1") is None
    assert len(sums._entries) <= 25
    assert sums.known("k99", "0" * 32 + "-1") is not None
    with pytest.raises(NotFound):
        await mount.store.get("nothing", limit=1)


async def test_a_close_that_is_given_up_while_checksums_are_stored_is_final(make: Make, mount: Domain) -> None:
    """They are stored in a nursery beside Complete, out of which a cancellation comes as a group."""
    handle = await mount.create(PATH)
    await mount.fill(handle, pattern(BIG))
    mount.store.hang("complete_upload")
    with trio.move_on_after(10):
        await mount.files.flush(handle)
    mount.store.release("complete_upload")
    with pytest.raises(DeadlineExceeded, match="given up half way"):
        await mount.files.flush(handle)
    await mount.files.release(handle)
