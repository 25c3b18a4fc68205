"""How long a call may go on once the endpoint is down.

While a rename, an unlink or a create waits, the kernel holds the lock of its directory, and whoever looks up another
name there waits in D state, where not even kill -9 helps; so does a buffered reader. Each of them therefore ends when
an outage has lasted for ``seconds``. What holds no lock (the parts of an upload) has its own, longer deadline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from ..errors import EndpointDown


class Patience:
    """seconds: how long an outage is waited out. All changes happen between awaits, in the trio thread."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._over_at = math.inf
        self._scopes: set[trio.CancelScope] = set()

    def outage(self) -> None:
        """One has begun."""
        self._set(trio.current_time() + self.seconds)

    def recovery(self) -> None:
        self._set(math.inf)

    def _set(self, over_at: float) -> None:
        self._over_at = over_at
        for scope in self._scopes:
            scope.deadline = over_at

    @property
    def over(self) -> bool:
        return trio.current_time() >= self._over_at

    @contextmanager
    def scope(self, what: str) -> Iterator[None]:
        """Raises EndpointDown when the block is not done by then; at once when an outage has lasted that long."""
        if self.over:
            raise self._late(what)
        with trio.CancelScope(deadline=self._over_at) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise self._late(what)

    def _late(self, what: str) -> EndpointDown:
        return EndpointDown(f"{what}: the endpoint has been down for {self.seconds:g} s (outage_patience)")
