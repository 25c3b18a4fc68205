"""trio's worker threads under one name: the parameter that lets a caller leave its thread behind has had two."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import trio

# trio renamed the parameter in 0.23.
_PARAMETERS = inspect.signature(trio.to_thread.run_sync).parameters
_ABANDON = "abandon_on_cancel" if "abandon_on_cancel" in _PARAMETERS else "cancellable"
_run_sync: Callable[..., Any] = trio.to_thread.run_sync


async def in_thread(function: Callable[..., Any], *args: object, limiter: trio.CapacityLimiter, abandon: bool) -> Any:
    """abandon: when the caller is cancelled, do not wait for the thread. It keeps its place in the limiter."""
    return await _run_sync(function, *args, limiter=limiter, **{_ABANDON: abandon})
