"""A listing that does not end, does: with an error, and without filling the memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from s3fsx import pages
from s3fsx.errors import DeadlineExceeded, ServerFault
from s3fsx.objects import ListPage, ObjectInfo
from tests.fakestore import FakeStore


class Circling(FakeStore):
    """Its pages are what ``page(n)`` says."""

    def __init__(self, page: Callable[[int], ListPage], seconds: float = 0.0) -> None:
        super().__init__()
        self._page = page
        self._seconds = seconds
        self.asked = 0

    async def list_page(
        self, prefix: str, *, delimiter: str = "/", token: str | None = None, limit: int = 1000
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
