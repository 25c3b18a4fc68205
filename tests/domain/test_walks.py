"""Listing ahead of whoever walks a tree: faster, and never with more requests than he would have made."""

from __future__ import annotations

import pytest
import trio

from s3fsx.errors import ServerFault
from s3fsx.fs.walks import AHEAD
from tests.domain.conftest import Make
from tests.domain.harness import Domain
from tests.fakestore import FakeStore

RTT = 0.1


def tree(mount: Domain, count: int, parent: str = "t", files: int = 3) -> list[str]:
    names = [f"{n:03}" for n in range(count)]
    for name in names:
        for file in range(files):
            mount.store.poke(mount.key(f"{parent}/{name}/{file}"), b"x")
    return names


def far(make: Make, **options: object) -> Domain:
    return make(FakeStore(latency=(RTT, RTT)), **options)


def lists(mount: Domain) -> int:
    return mount.store.count("list_page")


async def walk(mount: Domain, names: list[str], parent: str = "t") -> None:
    for name in names:
        assert await mount.names(f"{parent}/{name}") == ["0", "1", "2"]


async def test_a_walk_waits_for_few_of_its_directories_and_asks_no_more(make: Make) -> None:
    mount = far(make)
    names = tree(mount, 100)
    assert await mount.names("t") == names
    started = trio.current_time()
    await walk(mount, names)
    assert trio.current_time() - started < 100 * RTT / 5
    await mount.idle()
    assert lists(mount) == 1 + 1 + 100  # the root, the parent, each of them once
    assert mount.store.peak["list_page"] <= AHEAD + 1


async def test_two_in_sequence_are_no_more_than_two(make: Make) -> None:
    mount = far(make)
    names = tree(mount, 20)
    await mount.names("t")
    before = lists(mount)
    await walk(mount, names[4:5])
    await mount.idle()
    assert lists(mount) == before + 1  # who reads one may read no other
    await walk(mount, names[5:6])
    await mount.idle()
    assert lists(mount) == before + 4  # and two are listed ahead of who reads two
    await trio.sleep(60)
    assert lists(mount) == before + 4


async def test_whoever_jumps_about_is_not_listed_ahead_of(make: Make) -> None:
    mount = far(make)
    names = tree(mount, 30)
    await mount.names("t")
    before = lists(mount)
    for name in (*names[::3], *reversed(names[2::3])):
        await walk(mount, [name])
    await mount.idle()
    assert lists(mount) == before + 20


async def test_it_stops_a_few_in_front_of_who_stops(make: Make) -> None:
    mount = far(make)
    names = tree(mount, 100)
    await mount.names("t")
    before = lists(mount)
    await walk(mount, names[:30])
    await mount.idle()
    assert before + 30 <= lists(mount) <= before + 30 + AHEAD


async def test_a_walk_slower_than_listings_live_costs_no_more_for_long(make: Make) -> None:
    """Each directory takes longer than list_ttl: what was listed ahead is out of date."""
    mount = far(make, list_ttl=1.0)
    names = tree(mount, 40)
    await mount.names("t")
    before = lists(mount)
    for name in names:
        await walk(mount, [name])
        await trio.sleep(20)
    own = 40 + 1 + 1  # and the parents are out of date, too
    assert lists(mount) - before <= 2 * own + 2 * 40
    ahead = [key for op, key in mount.store.log if op == "list_page" and key.count("/") == 3]
    assert len(ahead) <= 40 + 2


async def test_in_depth(make: Make) -> None:
    mount = far(make, list_ttl=60.0)
    outer = [f"{n:02}" for n in range(12)]
    for name in outer:
        tree(mount, 12, f"t/{name}")
    assert await mount.names("t") == outer
    before, started = lists(mount), trio.current_time()
    for name in outer:
        inner = await mount.names(f"t/{name}")
        await walk(mount, inner, f"t/{name}")
    assert trio.current_time() - started < (12 * 13) * RTT / 2
    await mount.idle()
    assert lists(mount) == before + 12 * 13


async def test_large_directories_are_not_listed_ahead_twice(make: Make) -> None:
    mount = far(make)
    names = [f"{n:02}" for n in range(6)]
    for name in names:
        for file in range(1500):
            mount.store.poke(mount.key(f"t/{name}/{file:04}"), b"")
    await mount.names("t")
    before = lists(mount)
    for name in names:
        assert len(await mount.names(f"t/{name}")) == 1500
    await mount.idle()
    assert lists(mount) == before + 6 * 2
    await trio.sleep(60)
    before = lists(mount)
    for name in names:
        assert len(await mount.names(f"t/{name}")) == 1500
    await mount.idle()
    assert lists(mount) == before + 6 * 2 + 2  # the parents


async def test_a_large_directory_between_small_ones_costs_a_page_more(make: Make) -> None:
    mount = far(make)
    names = tree(mount, 30)
    for file in range(1500):
        mount.store.poke(mount.key(f"t/010/x{file:04}"), b"")
    await mount.names("t")
    before = lists(mount)
    await walk(mount, names[:10])
    assert len(await mount.names("t/010")) == 1503
    await walk(mount, names[11:])
    await mount.idle()
    assert before + 29 + 2 <= lists(mount) <= before + 29 + 3


async def test_errors_ahead_are_nobodys(make: Make) -> None:
    mount = far(make)
    names = tree(mount, 10)
    await mount.names("t")
    await walk(mount, names[:1])
    mount.store.fail_next("list_page", ServerFault("500"), times=3)
    with pytest.raises(ServerFault):  # his own
        await mount.names("t/001")
    await mount.idle()
    await walk(mount, names[1:])


async def test_not_in_an_outage(make: Make) -> None:
    mount = far(make)
    names = tree(mount, 10)
    await mount.names("t")
    await walk(mount, names[:2])
    await mount.idle()
    mount.store.down = True
    before = lists(mount)
    await walk(mount, names[2:4])  # listed ahead
    await mount.idle()
    assert not mount.busy
    assert lists(mount) == before


async def test_a_ttl_of_zero_lists_nothing_ahead(make: Make) -> None:
    mount = far(make, list_ttl=0.0)
    names = tree(mount, 10)
    await mount.names("t")
    before = mount.store.log.count(("list_page", mount.key("t/003/")))
    await walk(mount, names[:2])
    await mount.idle()
    assert mount.store.log.count(("list_page", mount.key("t/003/"))) == before


async def test_what_is_being_written_and_changed_there_stays(make: Make) -> None:
    mount = far(make)
    names = tree(mount, 10)
    await mount.names("t")
    await walk(mount, names[:1])
    handle = await mount.create("t/003/new")
    await mount.fill(handle, b"unpublished")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(walk, mount, names[1:2])
        await trio.sleep(RTT / 2)
        await mount.unlink("t/002/1")
    await mount.idle()
    assert await mount.names("t/002") == ["0", "2"]
    assert await mount.names("t/003") == ["0", "1", "2", "new"]
    await mount.close(handle)
    assert mount.stored("t/003/new") == b"unpublished"


async def test_what_others_do_is_seen_as_soon_as_ever(make: Make) -> None:
    mount = far(make)
    names = tree(mount, 10)
    await mount.names("t")
    await walk(mount, names[:2])
    await mount.idle()
    mount.store.remove(mount.key("t/002/1"))
    await trio.sleep(5.1)
    assert await mount.names("t/002") == ["0", "2"]


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.25, 0.35])
async def test_a_directory_that_is_renamed_while_it_is_listed_ahead(make: Make, delay: float) -> None:
    """Its listing knows the old keys."""
    mount = far(make)
    names = tree(mount, 10)
    await mount.names("t")
    await walk(mount, names[:1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(walk, mount, names[1:2])
        await trio.sleep(delay)
        await mount.rename("t/002", "t/moved")
    await mount.idle()
    assert await mount.names("t/moved") == ["0", "1", "2"]
    assert await mount.read("t/moved/1") == b"x"
    await trio.sleep(6)
    assert await mount.read("t/moved/2") == b"x"
    assert "002" not in await mount.names("t")
