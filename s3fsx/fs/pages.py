"""Page after page of one listing, as long as the store makes progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from ..errors import DeadlineExceeded, S3fsxError, ServerFault
from ..store.objects import ListPage, Store

# Names in one listing. Each takes half a kilobyte until it is merged, and nobody looks at a directory of a million.
MOST_ENTRIES = 1_000_000
# Pages without any name: deleted versions can make some; one that never ends is a store that leads us in circles.
MOST_EMPTY = 1000
# Seconds for all pages, each of which has its own deadline: a million names at 0.3 s for a thousand.
LIMIT = 300.0


class _Asked:
    """A page that was asked for before the one in front of it had been read. following: the token of the one after it,
    "" as long as it is not known. Neither page nor error: the request was given up."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.following = ""
        self.page: ListPage | None = None
        self.error: S3fsxError | None = None
        self.done = trio.Event()


class Pages:
    """``next`` until it is None. more: whether there is another one. count: pages so far.

    spawn: starts a background task, in which the next page is asked for as soon as its token is known, while this one
    is parsed and merged: one page ahead, and none that would be more than ``most``.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        delimiter: str = "/",
        spawn: Callable[..., Any] | None = None,
        most: int | None = None,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._delimiter = delimiter
        self._spawn = spawn
        self._most = most
        self._token: str | None = None
        self._tokens: set[int] = set()  # their hashes: a token may be as long as a page
        self._entries = 0
        self._empty = 0
        self._end = trio.current_time() + LIMIT
        self._ahead: _Asked | None = None
        self._reading: _Asked | None = None
        self.more = True
        self.count = 0

    async def next(self) -> ListPage | None:
        """Raises what ``Store.list_page`` raises; ServerFault and DeadlineExceeded for pages that do not end."""
        if not self.more:
            return None
        if trio.current_time() > self._end:
            raise DeadlineExceeded(f"LIST {self._prefix}: not at its end after {LIMIT:.0f} s and {self.count} pages")
        page = await self._asked() or await self._ask(self._token, self._begin)
        self.count += 1
        self._token = page.next_token
        self.more = page.next_token is not None
        found = len(page.objects) + len(page.prefixes)
        self._entries += found
        self._empty += not found
        known = hash(page.next_token) in self._tokens
        if self.more and (known or self._empty > MOST_EMPTY or self._entries >= MOST_ENTRIES):
            raise ServerFault(f"LIST {self._prefix}: no end after {self._entries} names on {self.count} pages")
        self._tokens.add(hash(page.next_token))
        return page

    async def _ask(self, token: str | None, early: Callable[[str], object]) -> ListPage:
        return await self._store.list_page(
            self._prefix, delimiter=self._delimiter, token=token, early=early if self._spawn else None
        )

    async def _asked(self) -> ListPage | None:
        """The page that comes now, if it was asked for ahead."""
        asked, self._ahead = self._ahead, None
        if asked is None or asked.token != self._token:
            return None
        self._reading = asked
        if asked.following:
            self._begin(asked.following)
        await asked.done.wait()
        if asked.error is not None:
            raise asked.error
        return asked.page

    def _begin(self, token: str) -> None:
        """The token of the page after the one that comes now is known."""
        within = self._most is None or self.count + 2 <= self._most
        if self._spawn is not None and self._ahead is None and within:
            self._ahead = _Asked(token)
            self._spawn(self._fetch, self._ahead)

    async def _fetch(self, asked: _Asked) -> None:
        def early(token: str) -> None:
            asked.following = token
            if self._reading is asked:
                self._begin(token)

        try:
            asked.page = await self._ask(asked.token, early)
        except S3fsxError as e:
            asked.error = e
        finally:
            asked.done.set()
