"""A bucket opened for a command: the store of the mount, without the mount."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import trio

from ..configuration.config import to_s3_options
from ..configuration.settings import Settings
from ..errors import AccessDenied, NotSupported, Rejected, S3fsxError
from ..layout import Layout
from ..s3.store import S3Store
from ..service.heap import tame_malloc
from ..store.endpoint import Endpoint
from ..store.verified import VerifiedStore
from ..transfer.memory import Budget
from .stream import Streams

T = TypeVar("T")

log = logging.getLogger("s3fsx.browse")


@dataclass(frozen=True)
class Place:
    """s3: what reads nothing back. store: the same, verified."""

    settings: Settings
    s3: S3Store
    store: VerifiedStore
    layout: Layout
    streams: Streams

    @property
    def prefix(self) -> str:
        return self.settings.prefix

    async def learn_object_lock(self) -> None:
        """Before anything is deleted or replaced: whether the bucket keeps some from it."""
        try:
            locked = await self.s3.has_object_lock()
        except (AccessDenied, NotSupported, Rejected) as e:
            log.warning("it cannot be asked whether the bucket has Object Lock: only .protected files protect (%s)", e)
            return
        self.s3.capabilities = replace(self.s3.capabilities, object_lock=locked)


async def at(settings: Settings, action: Callable[[Place], Awaitable[T]]) -> T:
    """action(place). What goes on in the background ends with it. Raises what action raises, as it is."""
    tame_malloc()
    done: list[T] = []
    failed: list[S3fsxError] = []
    async with S3Store(to_s3_options(settings), Endpoint(patience=settings.outage_patience)) as s3:
        store = VerifiedStore(s3, settings.prefix)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s3.endpoint.watch, s3.ping)  # which finds the end of an outage
            streams = Streams(
                store,
                Budget(settings.memory_budget),
                nursery.start_soon,
                ahead=min(settings.read_ahead, settings.memory_budget // 2),
                deadline=settings.read_deadline,
            )
            place = Place(settings, s3, store, Layout(settings.prefix, settings.layout), streams)
            try:
                done.append(await action(place))
            except S3fsxError as e:
                failed.append(e)
            nursery.cancel_scope.cancel()
    if failed:
        raise failed[0]
    return done[0]
