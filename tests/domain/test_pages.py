"""A listing that does not end, does: with an error, and without filling the memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from s3fsx.errors import DeadlineExceeded, ServerFault
from s3fsx.fs import pages
from s3fsx.store.objects import ListPage, ObjectInfo
from tests.fakestore import FakeStore


class Circling(FakeStore):
    """Its pages are what ``page(n)`` says."""

    def __init__(self, page: Callable[[int], ListPage], seconds: float = 0.0) -> None:
        super().__init__()
        self._page = page
        self._seconds = seconds
        self.asked = 0

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "/",
        token: str | None = None,
        limit: int = 1000,
        early: Callable[[str], object] | None = None,
    ) -> ListPage:
        await trio.sleep(self._seconds)
        self.asked += 1
        return self._page(self.asked)


async def read(store: FakeStore) -> int:
    listing = pages.Pages(store, "d/")
    found = 0
    while (page := await listing.next()) is not None:
        found += len(page.objects)
    return found


def objects(n: int, count: int) -> tuple[ObjectInfo, ...]:
    return tuple(ObjectInfo(f"d/{n}-{i}", 1, "e", 0.0) for i in range(count))


@pytest.mark.parametrize(
    ("page", "most"),
    [
        (lambda n: ListPage((), (), "same"), 2),
        (lambda n: ListPage(objects(n, 10), (), "same"), 2),
        (lambda n: ListPage(objects(n, 10), (), f"{n % 7}"), 8),
        (lambda n: ListPage((), (), f"{n}"), pages.MOST_EMPTY + 1),
        (lambda n: ListPage(objects(n, 100_000), (), f"{n}"), 10),
    ],
    ids=["the same token", "the same token, more names", "tokens in turn", "always new, no names", "always new names"],
)
async def test_pages_without_an_end_are_an_error(page: Callable[[int], ListPage], most: int) -> None:
    store = Circling(page)
    with pytest.raises(ServerFault, match=r"LIST d/: no end"):
        await read(store)
    assert store.asked == most


async def test_pages_that_take_for_ever_are_an_error(autojump_clock: trio.abc.Clock) -> None:
    store = Circling(lambda n: ListPage(objects(n, 1), (), f"{n}"), seconds=9.0)
    with pytest.raises(DeadlineExceeded):
        await read(store)
    assert trio.current_time() < pages.LIMIT + 20


async def test_what_ends_is_read_to_its_end() -> None:
    assert await read(Circling(lambda n: ListPage(objects(n, 3), (), f"{n}" if n < 5 else None))) == 15


# -- the next page is asked for while this one is read


class Early(FakeStore):
    """Tells the token of the next page a second after it was asked for one, and the page after another second."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count
        self.asked: list[int] = []
        self.under_way = self.most_under_way = 0
        self.errors: dict[int, ServerFault] = {}
        self.told_wrong: set[int] = set()

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "/",
        token: str | None = None,
        limit: int = 1000,
        early: Callable[[str], object] | None = None,
    ) -> ListPage:
        number = int(token or 0)
        self.asked.append(number)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await trio.sleep(1)
        following = str(number + 1) if number + 1 < self._count else None
        if early is not None and following is not None:
            early("77" if number in self.told_wrong else following)
        await trio.sleep(1)
        self.under_way -= 1
        if number in self.errors:
            raise self.errors[number]
        return ListPage(objects(number, 3), (), following)


async def every(store: FakeStore, nursery: trio.Nursery, *, most: int | None = None) -> list[str]:
    listing = pages.Pages(store, "d/", spawn=nursery.start_soon, most=most)
    found: list[str] = []
    while (page := await listing.next()) is not None:
        found += [info.key for info in page.objects]
        if listing.more and listing.count == most:
            break
    return found


def keys(count: int) -> list[str]:
    return [f"d/{n}-{i}" for n in range(count) for i in range(3)]


async def test_a_page_is_asked_for_while_the_one_in_front_is_read(nursery: trio.Nursery) -> None:
    store, started = Early(10), trio.current_time()
    assert await every(store, nursery) == keys(10)
    assert trio.current_time() - started == pytest.approx(11)  # one after the other it would be 20
    assert store.asked == list(range(10))
    assert store.most_under_way == 2


async def test_no_page_too_many(nursery: trio.Nursery) -> None:
    for most in (1, 2, 3):
        store = Early(10)
        assert await every(store, nursery, most=most) == keys(most)
        await trio.sleep(10)
        assert store.asked == list(range(most))


async def test_one_page_ahead_of_who_does_not_read_on(nursery: trio.Nursery) -> None:
    store = Early(10)
    listing = pages.Pages(store, "d/", spawn=nursery.start_soon)
    for count in (1, 2, 3):
        await listing.next()
        await trio.sleep(10)
        assert store.asked == list(range(count + 1))


async def test_an_error_comes_in_its_turn(nursery: trio.Nursery) -> None:
    store = Early(10)
    store.errors[2] = ServerFault("of the third")
    listing = pages.Pages(store, "d/", spawn=nursery.start_soon)
    for _ in range(2):
        assert await listing.next() is not None
        await trio.sleep(5)
    with pytest.raises(ServerFault, match="of the third"):
        await listing.next()


async def test_a_token_that_was_another_one_in_the_end(nursery: trio.Nursery) -> None:
    store = Early(5)
    store.told_wrong = {1, 3}
    assert await every(store, nursery) == keys(5)


async def test_a_request_that_was_given_up_is_made_again(nursery: trio.Nursery) -> None:
    store = Early(3)
    background: list[trio.CancelScope] = []

    def spawn(task: Callable[..., Awaitable[None]], *args: object) -> None:
        async def run() -> None:
            with trio.CancelScope() as scope:
                background.append(scope)
                await task(*args)

        nursery.start_soon(run)

    listing = pages.Pages(store, "d/", spawn=spawn)
    first = await listing.next()
    await trio.sleep(0.5)
    background[0].cancel()
    second = await listing.next()
    assert first is not None
    assert second is not None
    assert [info.key for info in first.objects + second.objects] == keys(2)
    assert store.asked == [0, 1, 2, 1]  # 2 was known when 1 was given up
