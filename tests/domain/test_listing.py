"""What is in a directory, when it was asked, and how often."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from s3fsx.errors import AccessDenied, EndpointDown, FileSystemError, NotFound, ServerFault
from s3fsx.fs.tree import Directory, File
from s3fsx.s3.lanes import METADATA_THREADS
from s3fsx.store.objects import ObjectInfo
from tests.domain.conftest import Make
from tests.domain.harness import DEFAULTS, KIB, SMALL_PART, Domain, SmallSchedule, pattern
from tests.fakestore import FakeStore


def fill(mount: Domain, count: int, directory: str = "dump") -> list[str]:
    names = [f"vzdump-qemu-{i:05}-2026_11_20-13_15_26.vma.zst" for i in range(count)]
    for name in names:
        mount.store.poke(mount.key(f"{directory}/{name}"), b"x")
    return names


# -- seals


async def test_a_listing_answers_hits_and_misses_without_another_request(mount: Domain) -> None:
    names = fill(mount, 100)
    assert await mount.names("dump") == names
    for name in names:
        assert isinstance(await mount.lookup(f"dump/{name}"), File)
        assert await mount.lookup(f"dump/{name}.notes") is None
        assert await mount.lookup(f"dump/{name}.protected") is None
    assert mount.calls() == {"list_page": 1}


async def test_a_lookup_alone_seals_a_small_directory(mount: Domain) -> None:
    names = fill(mount, 100)
    for name in names:
        await mount.lookup(f"dump/{name}.notes")
    assert mount.calls() == {"list_page": 1}


async def test_ten_thousand_backups_and_their_probes_cost_ten_lists(make: Make) -> None:
    mount = make(FakeStore(latency=(0.05, 0.05)))
    names = fill(mount, 10_000)
    assert await mount.names("dump") == names
    for name in names:
        await mount.lookup(f"dump/{name}")
        await mount.lookup(f"dump/{name}.notes")
        await mount.lookup(f"dump/{name}.protected")
    assert mount.calls() == {"list_page": 10}


async def test_names_of_a_large_directory_are_asked_one_by_one(mount: Domain) -> None:
    names = fill(mount, 5000)
    assert isinstance(await mount.lookup(f"dump/{names[4321]}"), File)
    assert mount.calls() == {"list_page": 1, "head": 1}  # one page showed that it is large
    assert await mount.lookup("dump/nothing") is None
    assert mount.calls() == {"list_page": 2, "head": 2}
    mount.store.poke(mount.key("dump/sub/x"), b"")
    assert isinstance(await mount.lookup("dump/sub"), Directory)
    mount.store.remove(mount.key(f"dump/{names[4321]}"))
    await trio.sleep(5.1)
    assert await mount.lookup(f"dump/{names[4321]}") is None
    assert len(await mount.names("dump")) == 5000


async def test_a_name_that_was_asked_for_is_believed_as_long_as_a_listing(mount: Domain) -> None:
    """One open is a lookup, a getattr and the open itself, which asked three times."""
    names = fill(mount, 3000)
    for _ in range(5):
        await mount.lookup(f"dump/{names[0]}")
        await mount.lookup(f"dump/{names[0]}.notes")
    assert mount.calls() == {"list_page": 2, "head": 2}
    mount.store.remove(mount.key(f"dump/{names[0]}"))
    mount.store.poke(mount.key(f"dump/{names[0]}.notes"), b"n")
    await trio.sleep(5.1)
    assert await mount.lookup(f"dump/{names[0]}") is None
    assert isinstance(await mount.lookup(f"dump/{names[0]}.notes"), File)


async def test_what_we_changed_in_a_large_directory_is_not_asked_for(mount: Domain) -> None:
    names = fill(mount, 3000)
    await mount.unlink(f"dump/{names[1]}")
    await mount.write("dump/new", b"1")
    await mount.rename("dump/new", "dump/newer")
    before = mount.calls()
    assert await mount.lookup(f"dump/{names[1]}") is None
    assert await mount.lookup("dump/new") is None
    assert isinstance(await mount.lookup("dump/newer"), File)
    assert mount.calls() == before


async def test_a_change_that_failed_is_asked_for(mount: Domain) -> None:
    names = fill(mount, 3000)
    await mount.lookup(f"dump/{names[1]}")
    mount.store.fail_next("delete", ServerFault("500"))
    with pytest.raises(ServerFault):
        await mount.unlink(f"dump/{names[1]}")
    mount.store.remove(mount.key(f"dump/{names[1]}"))  # it had its effect
    await trio.sleep(0.1)
    assert await mount.lookup(f"dump/{names[1]}") is None


async def test_single_names_cost_no_more_than_twice_the_listing(make: Make) -> None:
    """A scan that began after the listing was out of date: 3000 backups, the questions of a prune."""
    mount = make(FakeStore(latency=(0.05, 0.05)))
    names = fill(mount, 3000)
    for name in names:
        await mount.lookup(f"dump/{name}")
        await mount.lookup(f"dump/{name}.protected")
    calls = mount.calls()
    assert calls["head"] <= 20
    assert calls["list_page"] <= 20


async def test_a_few_names_are_no_reason_to_list(mount: Domain) -> None:
    names = fill(mount, 5000)
    for name in names[:19]:
        await mount.lookup(f"dump/{name}")
    assert mount.calls() == {"list_page": 1, "head": 19}


async def test_a_404_of_a_name_that_is_still_listed_is_no_deletion(mount: Domain) -> None:
    """Whoever then appended to it would begin a new file, and replace what is there."""
    names = fill(mount, 5000)
    path = f"dump/{names[1]}"
    before = await mount.lookup(path)
    assert isinstance(before, File)
    await trio.sleep(6)
    mount.store.fail_next("head", NotFound("404 NoSuchKey"))
    with pytest.raises(ServerFault, match="and it is listed"):
        await mount.lookup(path)
    assert await mount.lookup(path) is before
    await trio.sleep(6)
    mount.store.remove(mount.key(path))
    assert await mount.lookup(path) is None


async def test_a_directory_of_unknown_size_is_not_listed_to_its_end_for_a_few_names(make: Make) -> None:
    """What may be spent grows with what was asked for."""
    mount = make(FakeStore(latency=(0.01, 0.01)))
    names = fill(mount, 30_000)
    for name in names[:70]:
        await mount.lookup(f"dump/{name}")
    assert mount.calls()["list_page"] <= 1 + 4
    for name in names[70:300]:
        await mount.lookup(f"dump/{name}")
    assert mount.calls()["list_page"] <= 1 + 4 + 16


async def test_a_name_asked_for_during_a_listing_is_newer_than_the_listing(make: Make) -> None:
    mount = make(Slow(), nodes=200_000)
    names = fill(mount, 2500)
    await mount.lookup(f"dump/{names[0]}")
    dump = await mount.directory("dump")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.names, "dump")
        await trio.sleep(1.5)
        mount.store.poke(mount.key("dump/a"), b"1")  # its page was there before
        assert isinstance(await mount.lookup("dump/a"), File)
    assert "a" in dump.children


async def test_names_that_were_asked_for_do_not_pile_up(mount: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3fsx.fs.listing._MOST_PROBED", 5)
    names = fill(mount, 1500, "snippets")
    for name in names[:12]:
        await mount.lookup(f"snippets/{name}")
    assert 1 <= len((await mount.directory("snippets")).probed) <= 5


async def test_many_who_ask_share_one_listing(make: Make) -> None:
    mount = make(FakeStore(latency=(1.0, 1.0)))
    fill(mount, 10)
    async with trio.open_nursery() as nursery:
        for i in range(20):
            nursery.start_soon(mount.lookup, f"dump/{i}")
        for _ in range(20):
            nursery.start_soon(mount.names, "dump")
    assert mount.calls() == {"list_page": 1}


async def test_many_who_ask_share_one_failure(mount: Domain) -> None:
    """Each trying by itself would add up their deadlines."""
    mount.store.hang("list_page")
    failures = 0

    async def ask() -> None:
        nonlocal failures
        with pytest.raises(Exception, match="no answer within 10 s"):
            await mount.names("dump")
        failures += 1

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    assert failures == 10
    assert trio.current_time() - started == pytest.approx(10)
    mount.store.release("list_page")
    assert await mount.names("dump") == []


async def test_one_object_that_may_not_be_asked_for_is_no_reason_to_guess_the_others(mount: Domain) -> None:
    for name in ("a", "b", "c"):
        mount.store.poke(mount.key(f"snippets/{name}"), b"x", {"mode": "33261"})
    mount.store.fail_next("head", AccessDenied("403"))
    assert await mount.names("snippets") == ["a", "b", "c"]
    shown = [(await mount.file(f"snippets/{name}")).attrs.mode for name in ("a", "b", "c")]
    assert shown == [DEFAULTS.file_mode, 0o755, 0o755]


async def test_sweeps_of_several_directories_leave_room_for_other_questions(make: Make) -> None:
    """All questions share the threads and deadlines of the metadata lane."""
    mount = make(FakeStore(latency=(1.0, 1.0)))
    directories = ["snippets", "template/iso", "import"]
    for directory in directories:
        for i in range(60):
            mount.store.poke(mount.key(f"{directory}/{i:02}"), b"x")
        await mount.names(directory)
    async with trio.open_nursery() as nursery:
        for directory in directories:
            nursery.start_soon(mount.lookup, f"{directory}/00")
    await mount.idle()
    assert mount.calls()["head"] == 180
    assert mount.store.peak["head"] <= 24 + len(directories)
    assert 24 + len(directories) < METADATA_THREADS


async def test_what_others_do_is_seen_within_the_ttl(mount: Domain) -> None:
    mount.store.poke(mount.key("dump/a"), b"1")
    assert await mount.names("dump") == ["a"]
    mount.store.poke(mount.key("dump/b"), b"2")
    mount.store.remove(mount.key("dump/a"))
    assert await mount.names("dump") == ["a"]
    await trio.sleep(5.1)
    assert await mount.lookup("dump/a") is None
    assert await mount.names("dump") == ["b"]


async def test_a_listing_that_took_long_lives_longer(make: Make) -> None:
    mount = make(FakeStore(latency=(1.0, 1.0)))
    fill(mount, 3000)
    await mount.names("dump")  # three pages, 3 s: lives 30 s
    await trio.sleep(25)
    await mount.names("dump")
    assert mount.calls() == {"list_page": 3}
    await trio.sleep(6)
    await mount.names("dump")
    assert mount.calls() == {"list_page": 6}


async def test_one_page_that_came_slowly_lives_no_longer(make: Make) -> None:
    """It has made an open see old bytes for 2 s with a list_ttl of 1 s: the first request of a busy machine, 0.2 s."""
    mount = make(FakeStore(latency=(2.0, 2.0)))
    mount.store.poke(mount.key("dump/a"), b"1")
    assert await mount.names("dump") == ["a"]
    mount.store.poke(mount.key("dump/b"), b"1")
    await trio.sleep(5.1)
    assert await mount.names("dump") == ["a", "b"]


async def test_a_ttl_of_zero_believes_nothing(make: Make) -> None:
    mount = make(list_ttl=0.0)
    mount.store.poke(mount.key("dump/a"), b"1")
    assert await mount.names("dump") == ["a"]
    mount.store.poke(mount.key("dump/a"), b"22")
    mount.store.poke(mount.key("dump/b"), b"1")
    assert (await mount.file("dump/a")).size == 2
    assert await mount.names("dump") == ["a", "b"]
    await mount.write("dump/c", b"3")
    assert await mount.read("dump/c") == b"3"


# -- an outage


async def test_an_outage_answers_what_needs_no_answer_from_the_store(mount: Domain) -> None:
    mount.store.poke(mount.key("dump/a"), b"1")
    a = await mount.file("dump/a")
    await trio.sleep(6)
    mount.store.down = True
    for path in ("dump", "images", "template", "template/iso", "private", "snippets", "import"):
        assert isinstance(await mount.lookup(path), Directory)
    assert await mount.lookup("dump/a") is a
    with pytest.raises(EndpointDown):
        await mount.lookup("dump/b")
    with pytest.raises(EndpointDown):
        await mount.names("dump")
    with pytest.raises(EndpointDown):
        await mount.rmdir("dump")
    mount.store.down = False
    assert await mount.names("dump") == ["a"]


async def test_heads_that_hang_do_not_hold_whoever_looks_at_all_files_for_long(mount: Domain) -> None:
    for i in range(100):
        mount.store.poke(mount.key(f"snippets/{i}"), b"1")
    mount.store.hang("head")
    started = trio.current_time()
    names = await mount.names("snippets")
    assert len(names) == 100
    assert trio.current_time() == started
    for name in names:
        assert isinstance(await mount.lookup(f"snippets/{name}"), File)
    assert trio.current_time() - started <= 10


# -- what a listing does not say


async def test_nobody_looks_so_nothing_is_asked(mount: Domain) -> None:
    for i in range(100):
        mount.store.poke(mount.key(f"snippets/{i:03}"), b"1", {"mode": "33261"})
    await mount.names("snippets")
    assert mount.calls() == {"list_page": 1}


async def test_who_deletes_does_not_look(mount: Domain) -> None:
    """``rm -r``."""
    for i in range(50):
        mount.store.poke(mount.key(f"snippets/{i:03}"), b"1", {"mode": "33261"})
    for name in await mount.names("snippets"):
        await mount.unlink(f"snippets/{name}")
    assert mount.calls() == {"list_page": 1, "delete": 50}


async def test_who_looks_at_one_after_reading_the_directory_will_look_at_all(make: Make) -> None:
    """``ls -l``: a thousand HEADs one after the other would take a minute at 60 ms."""
    mount = make(FakeStore(latency=(0.06, 0.06)))
    for i in range(1000):
        mount.store.poke(mount.key(f"snippets/{i:03}"), b"1", {"mode": "33261"})
    names = await mount.names("snippets")
    started = trio.current_time()
    for name in names:
        assert (await mount.file(f"snippets/{name}")).attrs.mode == 0o755
    assert trio.current_time() - started < 4
    assert mount.calls()["head"] == 1000


async def test_who_asks_by_name_gets_what_he_asks_for(mount: Domain) -> None:
    for i in range(100):
        mount.store.poke(mount.key(f"snippets/{i:03}"), b"1", {"mode": "33261"})
    assert (await mount.file("snippets/050")).attrs.mode == 0o755
    assert mount.calls() == {"list_page": 1, "head": 1}


async def test_in_a_directory_of_more_than_a_thousand_the_listing_is_believed_until_open(mount: Domain) -> None:
    for i in range(1500):
        mount.store.poke(mount.key(f"snippets/{i:04}"), b"1", {"mode": "33261"})
    names = await mount.names("snippets")
    for name in names:
        assert (await mount.file(f"snippets/{name}")).attrs.mode == 0o640
    assert mount.calls() == {"list_page": 2}
    handle = await mount.open("snippets/0007")
    assert handle.file.attrs.mode == 0o755
    await mount.files.release(handle)
    assert mount.calls() == {"list_page": 2, "head": 1}


# -- versions


async def test_a_replaced_object_is_another_inode_and_the_old_one_is_stale(mount: Domain) -> None:
    mount.store.poke(mount.key("dump/a"), b"old")
    old = await mount.file("dump/a")
    handle = await mount.open("dump/a")
    assert await mount.read_all(handle) == b"old"
    mount.store.poke(mount.key("dump/a"), b"new")
    await trio.sleep(6)
    new = await mount.file("dump/a")
    assert new.ino != old.ino
    with pytest.raises(FileSystemError) as stale:
        await mount.files.open(old, os.O_RDONLY)
    assert stale.value.errno == errno.ESTALE
    assert await mount.read("dump/a") == b"new"
    assert mount.tree.get(old.ino) is old  # still open
    await mount.files.release(handle)
    assert mount.tree.get(old.ino) is None


async def test_the_same_version_keeps_its_inode(mount: Domain) -> None:
    mount.store.poke(mount.key("dump/a"), b"old")
    old = await mount.file("dump/a")
    await trio.sleep(6)
    assert await mount.file("dump/a") is old


async def test_our_own_publication_keeps_its_inode(mount: Domain) -> None:
    await mount.write("dump/a", b"one")
    first = await mount.file("dump/a")
    await mount.write("dump/a", b"two")
    await trio.sleep(6)
    assert await mount.file("dump/a") is first


# -- keys


async def test_keys_that_cannot_be_files_are_hidden_and_counted(mount: Domain) -> None:
    for key in ("dump//x", "dump/./y", "dump/../z", "dump/nul\0", "dump/" + "n" * 256, "dump/good", ".s3fsx/probe"):
        mount.store.poke(mount.key(key), b"")
    assert await mount.names("dump") == ["good"]
    assert mount.listings.hidden["dump"] == 5
    assert ".s3fsx" not in await mount.names()
    assert await mount.lookup(".s3fsx") is None
    with pytest.raises(FileSystemError):
        await mount.create(".s3fsx")


async def test_a_beside_a_slash_b_shows_the_directory(mount: Domain) -> None:
    mount.store.poke(mount.key("dump/a"), b"file")
    mount.store.poke(mount.key("dump/a-"), b"between them in key order")
    mount.store.poke(mount.key("dump/a/b"), b"")
    assert await mount.names("dump") == ["a", "a-"]
    assert isinstance(await mount.lookup("dump/a"), Directory)
    assert mount.listings.hidden["dump"] == 1
    assert await mount.names("dump/a") == ["b"]


@pytest.mark.parametrize("name", ["with space", "a+b", "100%", "ä€🎉", "%2F", "a\nb", "'\"&<>"])
async def test_any_name_that_linux_allows(mount: Domain, name: str) -> None:
    await mount.write(f"dump/{name}", b"x")
    await trio.sleep(6)
    assert await mount.names("dump") == [name]
    await mount.rename(f"dump/{name}", f"dump/{name}2")
    assert await mount.read(f"dump/{name}2") == b"x"
    await mount.unlink(f"dump/{name}2")
    assert mount.paths() == []


@pytest.mark.parametrize(
    ("name", "code"), [("x" * 256, errno.ENAMETOOLONG), ("a\0b", errno.EINVAL), ("..", errno.EINVAL)]
)
async def test_names_that_linux_does_not_allow(mount: Domain, name: str, code: int) -> None:
    for call in (mount.create, mount.mkdir):
        with pytest.raises(FileSystemError) as refused:
            await call(f"dump/{name}")
        assert refused.value.errno == code


# -- our changes and a listing that is under way


class Slow(FakeStore):
    """Lists what was there when it was asked, and answers a second later."""

    async def list_page(self, *args, **more):  # type: ignore[no-untyped-def]
        page = await super().list_page(*args, **more)
        await trio.sleep(1)
        return page


@pytest.fixture
async def slow(make: Make, schedule: SmallSchedule) -> Domain:
    mount = make(Slow(min_part=4 * KIB), schedule=schedule)
    for name in "abc":
        mount.store.poke(mount.key(f"dump/{name}"), name.encode())
    await mount.names("dump")
    await trio.sleep(6)  # not sealed any more
    return mount


async def list_meanwhile(mount: Domain, nursery: trio.Nursery) -> None:
    nursery.start_soon(mount.names, "dump")
    await trio.sleep(0.5)


async def test_a_file_made_during_a_listing_stays(slow: Domain) -> None:
    dump = await slow.directory("dump")
    async with trio.open_nursery() as nursery:
        await list_meanwhile(slow, nursery)
        _, handle = await slow.files.create(dump, "new", slow.tree.root.attrs, os.O_WRONLY)
        await slow.close(handle)
    assert await slow.names("dump") == ["a", "b", "c", "new"]
    assert slow.stored("dump/new") == b""


async def test_a_file_deleted_during_a_listing_stays_deleted(make: Make) -> None:
    """The deletion takes longer than the listing: it began before and ends after it."""
    mount = make()
    mount.store.poke(mount.key("dump/a"), b"")
    dump = await mount.directory("dump")
    await mount.names("dump")
    mount.store.hang("delete")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.unlink, "dump/a")
        await trio.sleep(5.5)
        dump.sealed_until = -1.0
        await mount.listings.refresh(dump)
        mount.store.release("delete")
    assert await mount.names("dump") == []


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.9, 1.1])
async def test_a_rename_during_a_listing(slow: Domain, delay: float) -> None:
    dump = await slow.directory("dump")
    a = dump.children["a"]
    slow.store.latency = (0.3, 0.3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow.names, "dump")
        await trio.sleep(delay)
        dump.sealed_until = trio.current_time() + 100  # only for the rename's own lookups
        nursery.start_soon(slow.rename, "dump/a", "dump/z")
    assert await slow.names("dump") == ["b", "c", "z"]
    assert await slow.file("dump/z") is a
    assert a.reachable
    handle = await slow.open("dump/z", os.O_WRONLY | os.O_TRUNC)
    await slow.fill(handle, b"not lost")
    await slow.close(handle)
    assert slow.stored("dump/z") == b"not lost"


async def test_a_listing_between_the_deletion_and_the_end_of_a_rename(mount: Domain) -> None:
    """The source is gone from the bucket already, the answer is not here yet."""
    mount.store.poke(mount.key("dump/a"), b"1")
    dump = await mount.directory("dump")
    a = await mount.file("dump/a")
    delete = mount.store.delete

    async def slow_answer(key: str, *, known: ObjectInfo | None = None) -> None:
        await delete(key)
        dump.sealed_until = -1.0
        await mount.listings.refresh(dump)

    mount.store.delete = slow_answer  # type: ignore[method-assign]
    await mount.rename("dump/a", "dump/b")
    assert await mount.names("dump") == ["b"]
    assert await mount.file("dump/b") is a
    assert not a.unlinked


async def test_a_published_rewrite_is_not_undone_by_an_older_listing(slow: Domain) -> None:
    a = slow.tree.root.children["dump"].children["a"]  # type: ignore[attr-defined]
    handle = await slow.files.open(a, os.O_WRONLY | os.O_TRUNC)
    await slow.fill(handle, b"rewritten")
    await trio.sleep(6)
    async with trio.open_nursery() as nursery:
        await list_meanwhile(slow, nursery)
        await slow.close(handle)
    assert await slow.file("dump/a") is a
    assert await slow.read("dump/a") == b"rewritten"


async def test_a_directory_of_others_does_not_swallow_a_file_that_is_being_written(mount: Domain) -> None:
    handle = await mount.create("dump/a")
    await mount.fill(handle, b"mine")
    mount.store.poke(mount.key("dump/a/b"), b"theirs")
    await trio.sleep(6)
    assert await mount.names("dump") == ["a"]
    await mount.close(handle)
    assert mount.stored("dump/a") == b"mine"
    await trio.sleep(6)
    assert isinstance(await mount.lookup("dump/a"), Directory)


async def test_a_file_of_others_does_not_swallow_a_directory_with_unpublished_files(mount: Domain) -> None:
    await mount.mkdir("dump/d")
    handle = await mount.create("dump/d/x")
    await mount.fill(handle, b"mine")
    mount.store.remove(mount.key("dump/d/"))
    mount.store.poke(mount.key("dump/d"), b"theirs")
    await trio.sleep(6)
    await mount.names("dump")
    await mount.close(handle)
    assert mount.stored("dump/d/x") == b"mine"


async def test_a_file_being_written_is_listed_before_it_is_in_the_bucket(small: Domain) -> None:
    handle = await small.create("dump/a")
    await small.fill(handle, pattern(3 * SMALL_PART))
    await trio.sleep(6)
    assert await small.names("dump") == ["a"]
    assert (await small.file("dump/a")).size == 3 * SMALL_PART
    await small.close(handle)


async def test_a_head_overtaken_by_a_rename_does_not_remove_the_new_name(mount: Domain) -> None:
    mount.store.poke(mount.key("snippets/a"), b"1")
    await mount.names("snippets")
    head, renamed = mount.store.head, trio.Event()

    async def first(key: str) -> ObjectInfo:
        mount.store.head = head  # type: ignore[method-assign]
        await renamed.wait()
        return await head(key)

    mount.store.head = first  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.lookup, "snippets/a")
        await trio.sleep(1)
        a = (await mount.directory("snippets")).children["a"]
        await mount.namespace._rename_file(a, None, mount.key("snippets/b"), "snippets/b")  # type: ignore[arg-type]
        mount.tree.move(a, await mount.directory("snippets"), "b")
        renamed.set()
    assert await mount.names("snippets") == ["b"]


async def test_a_file_whose_rewrite_failed_vanishes_when_others_delete_it(mount: Domain) -> None:
    await mount.write("dump/a", b"old")
    handle = await mount.open("dump/a", os.O_WRONLY | os.O_TRUNC)
    mount.store.fail_next("put", ServerFault("500"))
    with pytest.raises(ServerFault):
        await mount.close(handle)
    await trio.sleep(6)
    assert await mount.names("dump") == ["a"]
    mount.store.remove(mount.key("dump/a"))
    await trio.sleep(6)
    assert await mount.names("dump") == []


# -- bounds


async def test_names_nobody_holds_are_forgotten_beyond_the_limit_but_never_the_content_directories(make: Make) -> None:
    mount = make(nodes=700)
    fill(mount, 500)
    fill(mount, 500, "snippets/deep")
    held = await mount.open(f"dump/vzdump-qemu-{7:05}-2026_11_20-13_15_26.vma.zst")
    for _ in range(2):
        assert len(await mount.names("dump")) == 500  # also where the other's listing is still believed
        assert len(mount.tree) <= 700
        assert len(await mount.names("snippets/deep")) == 500
        assert len(mount.tree) <= 700
        await trio.sleep(6)
    assert mount.tree.get(held.file.ino) is held.file
    for path in ("dump", "images", "template/iso", "template/cache", "private", "snippets", "import"):
        assert isinstance(await mount.lookup(path), Directory), path
    assert await mount.lookup("snippets/deep/nothing") is None


async def test_a_directory_that_does_not_fit_into_the_table_is_refused_and_its_names_are_not(make: Make) -> None:
    """A million files in one directory: an error with a reason, not a process that grows until it is killed."""
    mount = make(nodes=2000)
    fill(mount, 3500)
    fill(mount, 10, "snippets")
    with pytest.raises(FileSystemError, match="more than 2000 names") as refused:
        await mount.names("dump")
    assert refused.value.errno == errno.ENOMEM
    assert len(mount.tree) <= 3000  # one page above
    assert len(await mount.names("snippets")) == 10
    name = f"dump/vzdump-qemu-{3400:05}-2026_11_20-13_15_26.vma.zst"
    assert isinstance(await mount.lookup(name), File)
    assert await mount.lookup("dump/nothing") is None
    assert len(mount.tree) <= 2001


async def test_what_is_being_read_or_listed_is_not_trimmed(make: Make) -> None:
    mount = make(FakeStore(latency=(1.0, 1.0)), nodes=3000)
    fill(mount, 2500)
    fill(mount, 2500, "snippets")
    directory = await mount.directory("dump")
    directory.handles += 1  # opendir
    try:
        assert len(await mount.names("dump")) == 2500
        await trio.sleep(100)
        with pytest.raises(FileSystemError, match="names are in use"):
            await mount.names("snippets")
        assert len(directory.children) == 2500
    finally:
        mount.tree.released(directory)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.names, "snippets")
        await trio.sleep(1.5)  # a page is there
        await mount.lookup("images/x")
    assert len(await mount.names("snippets")) == 2500


async def test_a_directory_that_vanished_takes_its_nodes_along(mount: Domain) -> None:
    before = len(mount.tree)
    mount.store.poke(mount.key("dump/d/e/f"), b"")
    await mount.names("dump/d/e")
    mount.store.remove(mount.key("dump/d/e/f"))
    await trio.sleep(6)
    assert await mount.names("dump") == []
    assert len(mount.tree) == before


async def test_a_server_fault_is_an_error_and_not_an_empty_directory(mount: Domain) -> None:
    fill(mount, 3)
    mount.store.fail_next("list_page", ServerFault("500"))
    with pytest.raises(ServerFault):
        await mount.names("dump")
    assert len(await mount.names("dump")) == 3


# -- the cache


async def test_the_cache_spares_the_head_of_an_unchanged_object(make: Make) -> None:
    mount = make(cached=True)
    mount.store.poke(mount.key("snippets/hook.sh"), b"#!/bin/sh", {"mode": "33261"})
    assert (await mount.file("snippets/hook.sh")).attrs.mode == 0o755
    assert mount.calls()["head"] == 1
    again = make(mount.store, cached=True)
    assert again.cache is not None
    assert mount.cache is not None
    again.cache.known = mount.cache.known
    assert (await again.file("snippets/hook.sh")).attrs.mode == 0o755
    assert again.calls()["head"] == 1
    mount.store.poke(mount.key("snippets/hook.sh"), b"#!/bin/bash", {"mode": "33188"})
    await trio.sleep(6)
    assert (await again.file("snippets/hook.sh")).attrs.mode == 0o644
    assert again.calls()["head"] == 2


async def test_what_we_publish_is_cached(make: Make) -> None:
    mount = make(cached=True)
    await mount.write("snippets/a", b"x")
    again = make(mount.store, cached=True)
    assert again.cache is not None
    assert mount.cache is not None
    again.cache.known = mount.cache.known
    assert (await again.file("snippets/a")).attrs.mode == 0o644
    assert again.calls()["head"] == 0
