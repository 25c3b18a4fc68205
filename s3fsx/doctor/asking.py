"""Asks a store for one listing: whether it answers, how fast, and what it says where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import trio

from ..configuration.config import to_s3_options
from ..configuration.settings import Settings
from ..errors import S3fsxError
from ..s3.store import S3Store
from ..service.launch import address, explain
from ..store.endpoint import Endpoint
from .facts import Store

LIMIT = 10.0  # seconds; what has not answered by then would keep a mount waiting, too
_CLOSE = 5.0


def ask_all(settings: Sequence[Settings]) -> list[Store]:
    """All at once, so that it takes LIMIT at most, and a little."""
    return trio.run(_ask_all, settings)


async def _ask_all(settings: Sequence[Settings]) -> list[Store]:
    found: list[Store | None] = [None] * len(settings)

    async def one(place: int, of: Settings) -> None:
        found[place] = await ask(of)

    async with trio.open_nursery() as nursery:
        for place, each in enumerate(settings):
            nursery.start_soon(one, place, each)
    return [store for store in found if store is not None]


async def ask(settings: Settings, limit: float = LIMIT) -> Store:
    """Raises nothing: what goes wrong is what was asked for."""
    start = trio.current_time()
    with trio.move_on_after(limit + _CLOSE):
        try:
            options = replace(to_s3_options(settings), metadata_deadline=limit)
            async with S3Store(options, Endpoint(patience=limit)) as store:
                await store.list_page(settings.prefix, limit=1)
                return Store(trio.current_time() - start, skew=store.traffic.clock_skew)
        except S3fsxError as error:
            return Store(trio.current_time() - start, explain(error, settings), type(error).__name__)
    return Store(limit, f"{address(settings)}: not done within {limit:g} s", "DeadlineExceeded")
