"""How many transfers to have in flight: as many as raise the throughput. Pure: the caller measures.

With latency one transfer at a time leaves the link idle while it waits for its answer; on a link or store that is busy
already, more of them only hold memory and take longer each, up to their deadline. Which of the two it is cannot be
told from one transfer, so it is tried: more in flight for an *epoch*, in which each place is used TURNS times, and kept
if that was faster. Now and then fewer are tried, too, and kept if that was not slower: the link may have become
thinner. A trial that led nowhere makes the next ones rarer, down to one in ``LONGEST_REST`` epochs.

What is not tried are the few that hide the pauses between two transfers of one connection: a round trip, and the
checksums of the next part, 50 to 100 ms in all. Where a transfer takes less than ``QUICK`` seconds these count, and
USUAL are in flight as soon as the first has ended; a trial would have to see 2 %, which is less than the noise.

Only epochs in which somebody waited for a place the whole time count: else the writer is what limits, and says nothing
about the store.
"""

from __future__ import annotations

START = 4  # and the least on a thin link, where a part must not take its whole deadline
USUAL = 8  # the least elsewhere; 1 Gbit/s and 30 ms, a busy machine: 67 to 85 MB/s with 4, 91 to 98 with 8
QUICK = 2.0  # seconds, with USUAL in flight
GAIN = 1.04  # what half as many again must gain at least
LOSS = 0.98  # what a quarter fewer may cost at most
TURNS = 3
REST = 4  # epochs between two trials, at first
LONGEST_REST = 64


class Concurrency:
    """limit: how many may be in flight now, from START (or ``most``, if that is less) to ``most``."""

    def __init__(self, most: int) -> None:
        self.limit = self._least = min(START, most)  # the least on this link
        self._most = most
        self._before: tuple[int, float] | None = None  # the limit that a trial left, and its rate
        self._up = True  # the direction of the trial, or of the next one
        self._rest = 0  # epochs until the next trial
        self._pause = REST  # epochs of rest after the next trial that fails
        self._begin(None)

    def _begin(self, now: float | None, settle: int = 0) -> None:
        """A new epoch, from now or from the next end. settle: ends of transfers that began under another limit."""
        self._since = now
        self._settle = settle
        self._bytes = 0
        self._ends = 0

    def ended(self, now: float, size: int, took: float, *, wanted: bool) -> None:
        """A transfer of ``size`` bytes succeeded at ``now``, ``took`` seconds after it began. wanted: another one waits
        for its place."""
        if not wanted:
            self._begin(None, self._settle)
            return
        if self._settle:
            self._settle -= 1
            return
        self._least = min(self._most, USUAL if took * USUAL <= QUICK * self.limit else START)
        if self.limit < self._least:
            self._begin(None, self.limit)
            self.limit, self._before = self._least, None
            return
        if self._since is None:
            self._begin(now)
            return
        self._bytes += size
        self._ends += 1
        if self._ends >= TURNS * self.limit and now > self._since:
            self._decide(now, self._bytes / (now - self._since))

    def _decide(self, now: float, rate: float) -> None:
        limit = self.limit
        if self._before is None:
            if self._rest:
                self._rest -= 1
            else:
                self._try(rate)
        else:
            left, before = self._before
            self._before = None
            if rate >= before * (GAIN if self._up else LOSS):
                self._pause = REST
                self._try(rate)  # on in this direction
            else:
                self.limit = left
                self._up = not self._up
                self._rest = self._pause
                self._pause = min(2 * self._pause, LONGEST_REST)
        self._begin(None if limit != self.limit else now, limit if limit != self.limit else 0)

    def _try(self, rate: float) -> None:
        """One step on, or where there is no way on in this direction, a rest."""
        step = max(1, self.limit // 2) if self._up else -max(1, self.limit // 4)
        to = min(self._most, max(self._least, self.limit + step))
        if to == self.limit:
            self._up = not self._up
            self._rest = self._pause
            self._pause = min(2 * self._pause, LONGEST_REST)
        else:
            self._before = (self.limit, rate)
            self.limit = to
