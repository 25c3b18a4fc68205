"""What went to the store and came back: every attempt of a request by its outcome, bytes, times, and its clock."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from .histogram import S3_BOUNDS, Histogram

OK = "ok"
ABANDONED = "abandoned"  # its caller did not wait for the end: a deadline, an outage, a closed file
_LOOK_EVERY = 10.0  # seconds between looks at a Date header, 10 us each


class Traffic:
    """begin and end: in the event loop, around an attempt. The others: also in worker threads.

    requests: attempts begun, by operation. outcomes: those that ended, by operation and outcome (OK, ABANDONED or the
    class of the error). in_flight: the others. seconds: how long an attempt took, without the wait for a thread.
    sent, received: bytes of objects, repeated attempts included; of an answer that broke off nothing.
    clock_skew: seconds the store's clock is ahead of ours, within a second; None before the first answer.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.requests: Counter[str] = Counter()
        self.outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.in_flight: Counter[str] = Counter()
        self.seconds: defaultdict[str, Histogram] = defaultdict(partial(Histogram, S3_BOUNDS))
        self.sent = 0
        self.received = 0
        self.clock_skew: float | None = None
        self._now = now
        self._looked = 0.0
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Forget what was counted; what is under way still ends."""
        self.requests.clear()
        self.outcomes.clear()
        self.seconds.clear()
        self.sent = self.received = 0

    def begin(self, operation: str) -> None:
        self.requests[operation] += 1
        self.in_flight[operation] += 1

    def end(self, operation: str, outcome: str, seconds: float | None) -> None:
        """seconds: None for one that never began."""
        self.in_flight[operation] -= 1
        self.outcomes[operation][outcome] += 1
        if seconds is not None:
            self.seconds[operation].observe(seconds)

    def add_sent(self, size: int) -> None:
        with self._lock:
            self.sent += size

    def add_received(self, size: int) -> None:
        with self._lock:
            self.received += size

    def seen(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer (botocore's dictionary); every ten seconds its Date is compared with our clock."""
        now = self._now()
        if abs(now - self._looked) >= _LOOK_EVERY:
            try:
                told = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
            except (KeyError, ValueError, TypeError, OverflowError):
                return answer
            self._looked = now
            self.clock_skew = round(told + 0.5 - now, 1)  # Date is cut to seconds
        return answer
