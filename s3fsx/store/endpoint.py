"""One S3 endpoint's health: retries, deadlines, and the breaker that keeps an outage from spreading.

Every request attempt goes through ``Endpoint.call``. The law of the breaker:

* It opens (the endpoint is *down*) when FAILURES attempts in a row failed in a way that says the endpoint is
  gone (ConnectionFailed, ServerFault, a deadline), over at least SPAN seconds: one dropped load balancer
  resets all parallel transfers in the same millisecond, and that alone is no outage.
* It opens at once when a call's whole deadline passed without any answer to anybody since the call began.
* Any answer closes it; a 404 or 403 is an answer. Throttling is neither a failure nor an answer, because a proxy
  without backends says 503 too.
* While it is open, calls fail at once with EndpointDown. Calls with ``through_outage`` go on trying until
  their own deadline: an upload of hours must survive a restart of the store. ``patient`` ones, which somebody may
  wait for in D state, end when the outage has lasted for the endpoint's patience, also in the middle of an attempt.
* Requests that wait while nobody gets an answer for SILENT_AFTER seconds make the watch ask by itself: a store that
  hangs is found out after at most SILENT_AFTER + PROBE_LIMIT + 1 seconds, whatever the deadlines of the requests are.

All state changes happen between awaits, in the trio thread.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TypeVar

import trio

from ..errors import (
    Changed,
    ConnectionFailed,
    DeadlineExceeded,
    EndpointDown,
    Exists,
    NotFound,
    S3fsxError,
    ServerFault,
    StoreError,
    Transient,
    UploadGone,
)
from .patience import Patience

T = TypeVar("T")

FAILURES = 3
SPAN = 1.0
BACKOFF_BASE = 0.2
BACKOFF_CAP = 5.0
PROBE_EVERY = 2.0  # seconds between probes while down, or while an idle probe has just failed
PROBE_LIMIT = 5.0
IDLE_AFTER = 60.0  # seconds without an answer after which an idle mount asks once
SILENT_AFTER = 5.0  # the same while requests wait for one
PATIENCE = 30.0
_TICK = 1.0
# What a question is asked to find out: an answer like any other, and nothing that an admin should see as an error.
_ANSWERS = (NotFound, UploadGone, Exists, Changed)

log = logging.getLogger("s3fsx.endpoint")


def backoff(attempt: int, draw: float) -> float:
    """Seconds to wait after failed attempt number ``attempt`` (from 1): full jitter, ``draw`` in [0, 1)."""
    return draw * min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt - 1, 30))


class Endpoint:
    """Retry, deadline and breaker of one endpoint.

    requests: attempts made. retries: those that were not the first of their call.
    errors: failed attempts by class name of the error; that there is no such object is an answer and no failure.
    last_error: text of the latest failure, at last_error_at. last_success: Unix seconds of the latest answer, None
    before the first. refused_for: seconds between the first and the last refusal (403 and the like) of a call, or of a
    probe that was granted before, since anything succeeded; 0 for a single one, as of keys that may not ask something.
    outages: how often the breaker opened.
    patience: seconds of an outage after which patient calls end.
    """

    def __init__(
        self,
        name: str = "S3 endpoint",
        *,
        patience: float = PATIENCE,
        rng: random.Random | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.patience = Patience(patience)
        self.requests = 0
        self.retries = 0
        self.errors: Counter[str] = Counter()
        self.outages = 0
        self.last_error = ""
        self.last_error_at: float | None = None  # Unix seconds
        self.last_success: float | None = None
        self.refused_for = 0.0
        self.down_since: float | None = None  # Unix seconds, None while up
        self._name = name
        self._rng = rng or random.Random()
        self._now = now
        self._answers = 0
        self._answered_at = -math.inf  # trio seconds
        self._refused_since: float | None = None  # trio seconds
        self._probe_was_fine = False  # once: that it is refused now is no lack of a right
        self._failures = 0  # in a row
        self._failing_since = 0.0
        self._opened_at = 0.0
        self._opened = trio.Event()
        self._waiting = 0  # calls under way
        self._waiting_since = 0.0  # trio seconds at which the first of them began

    @property
    def down(self) -> bool:
        return self.down_since is not None

    async def wait_down(self) -> None:
        """Until the breaker is open."""
        await self._opened.wait()

    def reset_counters(self) -> None:
        """Forget what was counted so far: a probe wants its requests to fail."""
        self.requests = self.retries = self.outages = 0
        self.errors.clear()
        self.last_error, self.last_error_at = "", None

    async def call(
        self,
        attempt: Callable[[], Awaitable[T]],
        *,
        what: str,
        deadline: float,
        attempts: int | None = None,
        through_outage: bool = False,
        interrupt: bool = True,
        patient: bool = False,
    ) -> T:
        """Run ``attempt`` until it succeeds, fails for good, or ``deadline`` seconds have passed.

        attempts: how many at most, None: as many as the deadline allows.
        interrupt: cancel a running attempt at the deadline. False for attempts that must not be left half done and
            have limits of their own (socket timeouts): the deadline then only stops further attempts.
        patient: cancel it, and do not begin another, once an outage has lasted for the endpoint's patience.

        Raises the attempt's own StoreError, the last Transient once ``attempts`` are used up,
        DeadlineExceeded, or EndpointDown while the breaker is open.
        """
        if not self._waiting:
            self._waiting_since = trio.current_time()
        self._waiting += 1
        try:
            with self.patience.scope(what) if patient else nullcontext():
                return await self._call(attempt, what, deadline, attempts, through_outage, interrupt)
        except S3fsxError as error:
            error.with_traceback(None)  # whose frames have it and what was sent: a cycle, for the collector
            raise
        finally:
            self._waiting -= 1

    async def _call(
        self,
        attempt: Callable[[], Awaitable[T]],
        what: str,
        deadline: float,
        attempts: int | None,
        through_outage: bool,
        interrupt: bool,
    ) -> T:
        limit = trio.current_time() + deadline
        answers = self._answers
        made = 0
        while True:
            if self.down and not through_outage:
                raise EndpointDown(f"{what}: the endpoint is down ({self.last_error})")
            made += 1
            self.requests += 1
            self.retries += made > 1
            failure: Transient | None = None
            with trio.CancelScope(deadline=limit) if interrupt else nullcontext():
                try:
                    result = await attempt()
                except Transient as error:
                    failure = error
                except StoreError as error:
                    self._refused(error)
                    if not isinstance(error, _ANSWERS):
                        self._count_refusal()
                    raise
                else:
                    self._succeeded()
                    return result
            if failure is None:
                raise self._expired(what, deadline, None, answers)
            self._failed(failure)
            if attempts is not None and made >= attempts:
                raise failure
            wait = max(backoff(made, self._rng.random()), failure.retry_after or 0.0)
            if trio.current_time() + wait >= limit:
                raise self._expired(what, deadline, failure, answers)
            await self._pause(wait, until_down=not through_outage)

    async def watch(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Runs for ever: finds recovery while down and an outage while idle, by ``probe``, one cheap request
        that goes straight to the store (not through ``call``)."""
        suspicious = False
        while True:
            if self.down or suspicious:
                await trio.sleep(PROBE_EVERY)
            elif not self._overdue():
                await trio.sleep(_TICK)
                continue
            suspicious = not await self._probe(probe)

    def _overdue(self) -> bool:
        """No answer for so long that it is worth asking."""
        now = trio.current_time()
        if self._waiting and now - max(self._answered_at, self._waiting_since) >= SILENT_AFTER:
            return True
        if self._failures and now - self._failing_since >= PROBE_EVERY:
            return True  # the last that was heard was a failure, and whoever had it may not ask again
        return now - self._answered_at >= IDLE_AFTER

    async def _probe(self, probe: Callable[[], Awaitable[object]]) -> bool:
        answers = self._answers
        with trio.move_on_after(PROBE_LIMIT):
            try:
                await probe()
            except Transient as error:
                self._failed(error)
                return False
            except StoreError as error:
                self._refused(error)  # keys for one prefix may not list the top of the bucket
                if self._probe_was_fine:
                    self._count_refusal()
            else:
                self._probe_was_fine = True
                self._succeeded()
            return True
        self._expired("probe", PROBE_LIMIT, None, answers)
        return False

    async def _pause(self, seconds: float, *, until_down: bool) -> None:
        if not until_down:
            await trio.sleep(seconds)
            return
        with trio.move_on_after(seconds):
            await self._opened.wait()

    def _note(self, error: Exception) -> None:
        self.errors[type(error).__name__] += 1
        self.last_error, self.last_error_at = str(error), self._now()

    def _refused(self, error: StoreError) -> None:
        if not isinstance(error, _ANSWERS):
            self._note(error)
        self._answered()

    def _count_refusal(self) -> None:
        now = trio.current_time()
        if self._refused_since is None:
            self._refused_since = now
        self.refused_for = now - self._refused_since

    def _succeeded(self) -> None:
        self._refused_since, self.refused_for = None, 0.0
        self._answered()

    def _answered(self) -> None:
        self._answers += 1
        self._answered_at = trio.current_time()
        self.last_success = self._now()
        self._failures = 0
        if self.down:
            log.info("%s is back after %.0f s", self._name, self._answered_at - self._opened_at)
            self.down_since = None
            self._opened = trio.Event()
            self.patience.recovery()

    def _failed(self, error: Exception) -> None:
        self._note(error)
        if not isinstance(error, (ConnectionFailed, ServerFault, DeadlineExceeded)):
            return
        if self._failures == 0:
            self._failing_since = trio.current_time()
        self._failures += 1
        if self._failures >= FAILURES and trio.current_time() - self._failing_since >= SPAN:
            self._open()

    def _expired(self, what: str, deadline: float, last: Transient | None, answers: int) -> DeadlineExceeded:
        reason = f"; last: {last}" if last else ""
        error = DeadlineExceeded(f"{what}: not done within {deadline:g} s{reason}")
        self._failed(error)
        if answers == self._answers:
            self._open()
        return error

    def _open(self) -> None:
        if self.down:
            return
        self.outages += 1
        self.down_since = self._now()
        self._opened_at = trio.current_time()
        self._opened.set()
        self.patience.outage()
        log.warning("%s is down: %s", self._name, self.last_error)
