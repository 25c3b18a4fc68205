"""Worker threads for blocking calls, at a third of the price of trio's own.

``trio.to_thread.run_sync`` takes 240 us of CPU: a context, a thread's name set twice, two system calls to say that the
result is there and three passes through the scheduler to hear it. With small files, each of them a request or two, that
was most of what they cost. Here a result comes by one eventfd to one task, which wakes those who wait: 65 to 100 us.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import trio

_IDLE = 10.0  # seconds after which a thread that has nothing to do ends

_current = threading.local()


class _GivenUp(BaseException):
    """Out of a call whose caller was cancelled; not an Exception, so that nobody takes it for the call's failure."""


def check_cancelled() -> None:
    """In a call of ``in_thread``: raises when its caller was cancelled, whether it waits for the call or has left."""
    job: _Job | None = getattr(_current, "job", None)
    if job is not None and (job.raise_cancel is not None or job.task is None):
        raise _GivenUp


class _Job:
    """task: who waits, None for a call that was left behind or has been answered."""

    __slots__ = ("error", "function", "limiter", "raise_cancel", "task", "value")

    def __init__(self, function: Callable[[], Any], limiter: trio.CapacityLimiter | None) -> None:
        self.function = function
        self.limiter = limiter
        self.task: trio.lowlevel.Task | None = None
        self.raise_cancel: Callable[[], Any] | None = None
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """In the thread."""
        _current.job = self
        try:
            self.value = self.function()
        except BaseException as e:
            self.error = e
        finally:
            del _current.job, self.function


class _Pool:
    """The threads of one run of trio. What is shared between them and the loop changes under the lock. _waiting: calls
    for which there could be no thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[_Job | None]] = []
        self._threads = 0
        self._waiting: deque[_Job] = deque()
        self._done: deque[_Job] = deque()
        self._signal = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._open = True

    def start(self, job: _Job) -> None:
        """When there can be no more threads, in the next one that is done. Raises RuntimeError when there is none."""
        with self._lock:
            if not self._open:
                raise RuntimeError("the loop has ended")
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = SimpleQueue()
            try:
                threading.Thread(target=self._work, args=(inbox,), name="s3fsx worker", daemon=True).start()
            except RuntimeError as error:
                self._wait(job, error)
                return
            with self._lock:
                self._threads += 1
        inbox.put(job)

    def _wait(self, job: _Job, error: RuntimeError) -> None:
        with self._lock:
            if not self._threads:
                raise error
            if not self._idle:
                self._waiting.append(job)
                return
            inbox = self._idle.pop()
        inbox.put(job)

    def _work(self, inbox: SimpleQueue[_Job | None]) -> None:
        while (job := self._next(inbox)) is not None:
            job.run()
            with self._lock:
                if not self._open:
                    return
                self._done.append(job)
                del job  # or its result would stay in memory until the next one comes
                if self._waiting:
                    inbox.put(self._waiting.popleft())
                else:
                    self._idle.append(inbox)
                os.eventfd_write(self._signal, 1)

    def _next(self, inbox: SimpleQueue[_Job | None]) -> _Job | None:
        """None: nothing more comes."""
        while True:
            try:
                return inbox.get(timeout=_IDLE)
            except Empty:
                with self._lock:
                    if inbox in self._idle:
                        self._idle.remove(inbox)
                        self._threads -= 1
                        return None

    async def deliver(self) -> None:
        """A system task: as long as the run."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._signal)
                with suppress(BlockingIOError):
                    os.eventfd_read(self._signal)
                while self._done:
                    _answer(self._done.popleft())
        finally:
            with self._lock:
                self._open = False
                os.close(self._signal)
                idle, self._idle = self._idle, []
            for inbox in idle:
                inbox.put(None)


def _answer(job: _Job) -> None:
    if job.limiter is not None:
        job.limiter.release_on_behalf_of(job)
    task, job.task = job.task, None
    if task is None:
        job.value = job.error = None  # whose traceback knows the job
    else:
        trio.lowlevel.reschedule(task)


_pool: trio.lowlevel.RunVar[_Pool] = trio.lowlevel.RunVar("s3fsx worker threads")


def _of_this_run() -> _Pool:
    try:
        return _pool.get()
    except LookupError:
        pool = _Pool()
        _pool.set(pool)
        trio.lowlevel.spawn_system_task(pool.deliver)
        return pool


async def in_thread(
    function: Callable[..., Any], *args: object, limiter: trio.CapacityLimiter | None, abandon: bool
) -> Any:
    """What the function returns or raises. limiter: None where the caller holds a place already. abandon: when the
    caller is cancelled, do not wait for the thread. It keeps its place in the limiter."""
    await trio.lowlevel.checkpoint_if_cancelled()
    job = _Job((lambda: function(*args)) if args else function, limiter)
    if limiter is not None:
        try:
            limiter.acquire_on_behalf_of_nowait(job)  # the other way costs a pass through the scheduler
        except trio.WouldBlock:
            await limiter.acquire_on_behalf_of(job)
    job.task = trio.lowlevel.current_task()
    try:
        _of_this_run().start(job)
    except BaseException:
        if limiter is not None:
            limiter.release_on_behalf_of(job)
        raise

    def abort(raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
        if not abandon:
            job.raise_cancel = raise_cancel
            return trio.lowlevel.Abort.FAILED
        job.task = None
        return trio.lowlevel.Abort.SUCCEEDED

    await trio.lowlevel.wait_task_rescheduled(abort)
    error, job.error = job.error, None
    if error is None:
        return job.value
    if isinstance(error, _GivenUp) and job.raise_cancel is not None:
        job.raise_cancel()
    try:
        raise error
    finally:
        del error
