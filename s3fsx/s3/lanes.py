"""Where requests run: worker threads, in lanes with their own limits, so that data never starves metadata.

One thread hop per request. Reads are abandoned when their caller is cancelled: the thread ends by its socket
timeouts and keeps its place in the lane until then, so the number of threads stays bounded. So are Complete and
Copy, whose answers may take minutes while the kernel holds a directory for them; as they may still have their effect,
every later change of the same key waits for the end of that thread. The other requests that change something end
within seconds by their socket timeouts and are waited for; a body being sent is given up between two blocks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import trio

from ..errors import DeadlineExceeded, S3fsxError
from ..metrics.traffic import ABANDONED, OK, Traffic
from ..store.endpoint import Endpoint
from ..transfer.threads import in_thread as run_in_thread
from .errors import one_line
from .options import S3Options

T = TypeVar("T")

METADATA_THREADS = 32  # more than a sweep of HEADs (``exact``) takes
COPY_THREADS = 4
PUBLISH_THREADS = 4


@dataclass(frozen=True)
class Lane:
    """How one kind of request runs.

    client: the name of the client it uses. deadline: seconds. attempts: None for as many as the deadline allows.
    abandon: leave the thread behind on cancel, and in an outage that outlasts our patience. interrupt: at the deadline,
    too; without it a request may finish late, as a copy of gigabytes does whose store sends blanks meanwhile. queued:
    the wait for a thread is not part of the deadline, because it is our own other work and not the store that makes
    it long.
    """

    client: str
    limiter: trio.CapacityLimiter
    deadline: float
    attempts: int | None
    abandon: bool = False
    interrupt: bool = False
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
        self.ask = Lane("metadata", metadata, short, attempts, abandon=True, interrupt=True)
        self.change = Lane("metadata", metadata, short, attempts)
        self.settle = Lane("metadata", metadata, write, None, abandon=True, interrupt=True, through_outage=True)
        self.download = Lane("unsigned", downloads, read, attempts, abandon=True, interrupt=True)
        self.put = Lane("unsigned", uploads, write, attempts, queued=True)
        self.part = Lane("unsigned", uploads, write, None, through_outage=True, queued=True)
        self.publish = Lane("slow", publishing, write, None, abandon=True, through_outage=True, queued=True)
        self.copy = Lane("slow", copies, write, attempts, abandon=True, queued=True)
        self.copy_part = Lane("slow", copies, write, None, abandon=True, through_outage=True, queued=True)
        self.ping = Lane("ping", trio.CapacityLimiter(1), short, 1, abandon=True, interrupt=True)


class _Run:
    """One attempt in its thread, which may be left behind."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._begun = self._over = self._left = False
        self._began: float | None = None
        self._actions: list[Callable[[], object]] = []

    def begin(self) -> bool:
        """In the thread. False: left behind before it began, so that it must do nothing."""
        with self._lock:
            self._begun = not self._left
        self._began = time.perf_counter()
        return self._begun

    def end(self) -> None:
        """In the thread."""
        with self._lock:
            self._over = True
            left = self._left
        if left:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._ended)

    def seconds(self) -> float | None:
        """Since it began, if it did."""
        return None if self._began is None else time.perf_counter() - self._began

    def leave(self) -> bool:
        """Whether it goes on without us."""
        with self._lock:
            self._left = True
            return self._begun and not self._over

    def when_ended(self, action: Callable[[], object]) -> None:
        """Of one that goes on without us."""
        self._actions.append(action)

    def _ended(self) -> None:
        for action in self._actions:
            action()


class _Place:
    """In a lane that is queued for: borrowed until the call has ended, and a thread that it left behind."""

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter = limiter
        self.left: _Run | None = None

    async def __aenter__(self) -> _Place:
        try:
            self._limiter.acquire_on_behalf_of_nowait(self)
        except trio.WouldBlock:
            await self._limiter.acquire_on_behalf_of(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.left is None:
            self._limiter.release_on_behalf_of(self)
        else:
            self.left.when_ended(lambda: self._limiter.release_on_behalf_of(self))


class Requests:
    """Runs work on a client in a lane's thread, through the endpoint's retries.

    make_client(name) runs in a worker thread (it reads files and may ask an instance's metadata service), once per
    name. translate turns whatever a client raises into our errors. traffic: where attempts are counted.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        make_client: Callable[[str], Any],
        translate: Callable[[str, Exception], S3fsxError],
        traffic: Traffic | None = None,
    ) -> None:
        self.traffic = traffic or Traffic()
        self._endpoint = endpoint
        self._make_client = make_client
        self._translate = translate
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()
        self._left: defaultdict[str, set[trio.Event]] = defaultdict(set)  # ends of threads left behind, by key

    async def run(self, lane: Lane, operation: str, what: str, work: Callable[[Any], T], changes: str = "") -> T:
        """What ``work(client)`` returns. ``what`` begins every error message: "GET dump/x". changes: the key whose
        object (or upload) it changes: requests on it that were left behind are waited for first."""
        what = one_line(what)
        if self._left.get(changes):
            await self._end_of_earlier(lane, what, changes)
        if not lane.queued:
            return await self._call(lane, None, operation, what, work, changes)
        with self._endpoint.patience.scope(what) if lane.abandon else contextlib.nullcontext():
            async with _Place(lane.limiter) as place:
                return await self._call(lane, place, operation, what, work, changes)

    def left_behind(self, key: str) -> bool:
        """A change of this key has been given up, and may still have its effect."""
        return key in self._left

    async def once(self, lane: Lane, operation: str, what: str, work: Callable[[Any], T]) -> T:
        """One attempt, past the endpoint: for its own probe."""
        return await self._attempt(lane, None, operation, what, work, "")

    async def before(self, lane: Lane, request: Callable[[], Awaitable[T]]) -> T:
        """What the request returns or raises. Meanwhile a connection is made for the one on ``lane`` that follows."""
        failed: list[S3fsxError] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._connect, lane)
            try:
                return await request()
            except S3fsxError as error:
                failed.append(error)
            finally:
                nursery.cancel_scope.cancel()
        raise failed.pop()

    async def _connect(self, lane: Lane) -> None:
        """Raises nothing: what is wrong, the request will tell."""

        def in_thread() -> None:
            with contextlib.suppress(Exception):
                self.client(lane.client).connect()

        await run_in_thread(in_thread, limiter=lane.limiter, abandon=True)

    def close(self) -> None:
        """Closes idle connections. A later request makes a new client."""
        with self._making:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    async def _end_of_earlier(self, lane: Lane, what: str, key: str) -> None:
        """Else a Complete or Copy that nobody waits for any more could land on top of what comes now."""
        with self._endpoint.patience.scope(what), trio.move_on_after(lane.deadline):
            while self._left.get(key):
                await next(iter(self._left[key])).wait()
            return
        raise DeadlineExceeded(f"{what}: an earlier request on it has had no answer for {lane.deadline:g} s")

    async def _call(
        self,
        lane: Lane,
        place: _Place | None,
        operation: str,
        what: str,
        work: Callable[[Any], T],
        changes: str,
    ) -> T:
        return await self._endpoint.call(
            partial(self._attempt, lane, place, operation, what, work, changes),
            what=what,
            deadline=lane.deadline,
            attempts=lane.attempts,
            through_outage=lane.through_outage,
            interrupt=lane.interrupt,
            patient=lane.abandon,
        )

    async def _attempt(
        self,
        lane: Lane,
        place: _Place | None,
        operation: str,
        what: str,
        work: Callable[[Any], T],
        changes: str,
    ) -> T:
        run = _Run()
        limiter = lane.limiter if place is None else None

        def in_thread() -> T | S3fsxError:
            """A failure is returned: raised here, trio's frames and it would keep each other and the body in memory
            until a collection, which is rare (``heap``); so would the context of one that is raised in a handler."""
            if not run.begin():
                raise AssertionError("abandoned before it began")  # nobody hears it
            try:
                return work(self.client(lane.client))
            except S3fsxError as error:
                error.__context__ = None
                return error.with_traceback(None)
            except Exception as error:
                return self._translate(what, error)
            finally:
                run.end()

        outcome = ABANDONED
        self.traffic.begin(operation)
        try:
            result: T | S3fsxError = await run_in_thread(in_thread, limiter=limiter, abandon=lane.abandon)
            outcome = type(result).__name__ if isinstance(result, S3fsxError) else OK
        except trio.Cancelled:
            if run.leave():
                self._leave(run, place, changes)
            raise
        finally:
            self.traffic.end(operation, outcome, run.seconds())
        if not isinstance(result, S3fsxError):
            return result
        try:
            raise result
        finally:
            del result

    def _leave(self, run: _Run, place: _Place | None, key: str) -> None:
        if place is not None:
            place.left = run
        if key:
            ended = trio.Event()
            self._left[key].add(ended)
            run.when_ended(partial(self._ended, key, ended))

    def _ended(self, key: str, ended: trio.Event) -> None:
        ended.set()
        self._left[key].discard(ended)
        if not self._left[key]:
            del self._left[key]

    def client(self, name: str) -> Any:
        """Blocks: for worker threads."""
        with self._making:
            if name not in self._clients:
                self._clients[name] = self._make_client(name)
            return self._clients[name]
