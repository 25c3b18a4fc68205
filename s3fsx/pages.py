"""Page after page of one listing, as long as the store makes progress."""

from __future__ import annotations

import trio

from .errors import DeadlineExceeded, ServerFault
from .objects import ListPage, Store

# Names in one listing. Each takes half a kilobyte until it is merged, and nobody looks at a directory of a million.
MOST_ENTRIES = 1_000_000
# Pages without any name: deleted versions can make some; one that never ends is a store that leads us in circles.
MOST_EMPTY = 1000
# Seconds for all pages, each of which has its own deadline: a million names at 0.3 s for a thousand.
LIMIT = 300.0


class Pages:
    """``next`` until it is None. more: whether there is another one. count: pages so far."""

    def __init__(self, store: Store, prefix: str, *, delimiter: str = "/") -> None:
        self._store = store
        self._prefix = prefix
        self._delimiter = delimiter
        self._token: str | None = None
        self._tokens: set[int] = set()  # their hashes: a token may be as long as a page
        self._entries = 0
        self._empty = 0
        self._end = trio.current_time() + LIMIT
        self.more = True
        self.count = 0

    async def next(self) -> ListPage | None:
        """Raises what ``Store.list_page`` raises; ServerFault and DeadlineExceeded for pages that do not end."""
        if not self.more:
            return None
        if trio.current_time() > self._end:
            raise DeadlineExceeded(f"LIST {self._prefix}: not at its end after {LIMIT:.0f} s and {self.count} pages")
        page = await self._store.list_page(self._prefix, delimiter=self._delimiter, token=self._token)
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
