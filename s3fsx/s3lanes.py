"""Where requests run: worker threads, in lanes with their own limits, so that data never starves metadata.

One thread hop per request. Reads are abandoned when their caller is cancelled: the thread ends by its socket
timeouts and keeps its place in the lane until then, so the number of threads stays bounded. Requests that
change something are waited for: a delete or a part that arrives after its caller has moved on would be
worse than the wait, which the same timeouts bound; a body being sent is given up between two blocks.
"""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import trio

from .endpoint import Endpoint
from .errors import S3fsxError
from .s3errors import one_line
from .s3options import S3Options

T = TypeVar("T")

METADATA_THREADS = 8
COPY_THREADS = 4
PUBLISH_THREADS = 4

# trio renamed the parameter in 0.23.
_PARAMETERS = inspect.signature(trio.to_thread.run_sync).parameters
_ABANDON = "abandon_on_cancel" if "abandon_on_cancel" in _PARAMETERS else "cancellable"
_run_sync: Callable[..., Any] = trio.to_thread.run_sync


def interrupted() -> None:
    """Raises Cancelled in a worker thread whose caller was cancelled (trio < 0.23 cannot tell: it goes on)."""
    check = getattr(trio.from_thread, "check_cancelled", None)
    if check is not None:
        check()


@dataclass(frozen=True)
class Lane:
    """How one kind of request runs.

    client: the name of the client it uses. deadline: seconds. attempts: None for as many as the deadline allows.
    abandon: leave the thread behind on cancel. queued: the wait for a thread is not part of the deadline,
    because it is our own other work and not the store that makes it long.
    """

    client: str
    limiter: trio.CapacityLimiter
    deadline: float
    attempts: int | None
    abandon: bool = False
    through_outage: bool = False
    queued: bool = False


class Lanes:
    """One lane per kind of request.

    ask: read metadata. change: create an upload, delete. settle: list parts, abort. publish: complete an upload.
    ping: the breaker's probe.
    """

    def __init__(self, options: S3Options) -> None:
        short, read, write, attempts = (
            options.metadata_deadline,
            options.read_deadline,
            options.write_deadline,
            options.attempts,
        )
        metadata = trio.CapacityLimiter(METADATA_THREADS)
        uploads = trio.CapacityLimiter(options.max_uploads)
        downloads = trio.CapacityLimiter(options.max_downloads)
        copies = trio.CapacityLimiter(COPY_THREADS)
        publishing = trio.CapacityLimiter(PUBLISH_THREADS)
        self.ask = Lane("metadata", metadata, short, attempts, abandon=True)
        self.change = Lane("metadata", metadata, short, attempts)
        self.settle = Lane("metadata", metadata, write, None, through_outage=True)
        self.download = Lane("unsigned", downloads, read, attempts, abandon=True)
        self.put = Lane("unsigned", uploads, write, attempts, queued=True)
        self.part = Lane("unsigned", uploads, write, None, through_outage=True, queued=True)
        self.publish = Lane("slow", publishing, write, None, through_outage=True, queued=True)
        self.copy = Lane("slow", copies, write, attempts, queued=True)
        self.copy_part = Lane("slow", copies, write, None, through_outage=True, queued=True)
        self.ping = Lane("ping", trio.CapacityLimiter(1), short, 1, abandon=True)


class Requests:
    """Runs work on a client in a lane's thread, through the endpoint's retries.

    make_client(name) runs in a worker thread (it reads files and may ask an instance's metadata service), once per
    name. translate turns whatever a client raises into our errors. count: attempts by S3 operation name.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        make_client: Callable[[str], Any],
        translate: Callable[[str, Exception], S3fsxError],
    ) -> None:
        self.count: Counter[str] = Counter()
        self._endpoint = endpoint
        self._make_client = make_client
        self._translate = translate
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()

    async def run(self, lane: Lane, operation: str, what: str, work: Callable[[Any], T]) -> T:
        """What ``work(client)`` returns. ``what`` begins every error message: "GET dump/x"."""
        what = one_line(what)
        if not lane.queued:
            return await self._call(lane, lane.limiter, operation, what, work)
        async with lane.limiter:
            return await self._call(lane, trio.CapacityLimiter(1), operation, what, work)

    async def once(self, lane: Lane, operation: str, what: str, work: Callable[[Any], T]) -> T:
        """One attempt, past the endpoint: for its own probe."""
        return await self._attempt(lane, lane.limiter, operation, what, work)

    def close(self) -> None:
        """Closes idle connections. A later request makes a new client."""
        with self._making:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    async def _call(
        self, lane: Lane, limiter: trio.CapacityLimiter, operation: str, what: str, work: Callable[[Any], T]
    ) -> T:
        return await self._endpoint.call(
            partial(self._attempt, lane, limiter, operation, what, work),
            what=what,
            deadline=lane.deadline,
            attempts=lane.attempts,
            through_outage=lane.through_outage,
            interrupt=lane.abandon,
        )

    async def _attempt(
        self, lane: Lane, limiter: trio.CapacityLimiter, operation: str, what: str, work: Callable[[Any], T]
    ) -> T:
        def in_thread() -> T:
            try:
                return work(self.client(lane.client))
            except S3fsxError:
                raise
            except Exception as error:
                failure = self._translate(what, error)
            raise failure  # outside of the handler: its context would keep a body's buffers alive

        self.count[operation] += 1
        result: T = await _run_sync(in_thread, limiter=limiter, **{_ABANDON: lane.abandon})
        return result

    def client(self, name: str) -> Any:
        """Blocks: for worker threads."""
        with self._making:
            if name not in self._clients:
                self._clients[name] = self._make_client(name)
            return self._clients[name]
