"""The same for many things, several at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

from ..errors import S3fsxError

T = TypeVar("T")

_AT_ONCE = 8


async def each(items: Iterable[T], action: Callable[[T], Awaitable[object]], *, at_once: int = _AT_ONCE) -> None:
    """Raises the first failure, after those under way have ended; the rest is then left out."""
    failed: list[S3fsxError] = []
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            if failed:
                return
            try:
                await action(item)
            except S3fsxError as e:
                failed.append(e)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(worker)
    if failed:
        raise failed[0]
